"""What the package does by Windows' rules: what is open or mapped stays, no links, no fork, few signals.

No Windows machine was at hand: the rules are simulated on Linux.
"""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from helpers import CPU, TINY_CONFIG, Reader, chest_scan

from lungseg_utils.core import files, stopping
from lungseg_utils.core.device import Device
from lungseg_utils.core.files import (
    CHECKOUT,
    InputError,
    atomic_write,
    locked,
    quoted,
    replace_folder,
    split_words,
)
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.datasets import SliceDataset
from lungseg_utils.data.phantom import write_phantom
from lungseg_utils.data.preprocessing import fit_preprocessing, load_prepared, prepare
from lungseg_utils.data.splits import make_slices
from lungseg_utils.evaluation.submission import submit
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.report.case import predict_case
from lungseg_utils.report.page import save_case
from lungseg_utils.training.launcher import launch
from lungseg_utils.training.loop import train

POSIX_ONLY = {
    os: ("fork", "sched_getaffinity", "geteuid", "getuid", "killpg", "setsid", "mkfifo"),
    signal: ("SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "alarm"),
}


def held(path: Path) -> list[str]:
    """The files at or under `path` that this process has open or mapped."""
    place = str(Path(path).absolute())
    own = Path("/proc/self")
    opened = []
    for link in (own / "fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            opened.append(str(link.readlink()))
    mapped = [line.split(maxsplit=5)[5] for line in (own / "maps").read_text().splitlines() if "/" in line]
    return [file for file in opened + mapped if file == place or file.startswith(f"{place}/")]


def refuse(path: Path) -> None:
    """As Windows does: error 32, in use."""
    if found := held(path):
        raise PermissionError(13, "The process cannot access the file because it is being used", found[0])


@pytest.fixture
def windows(monkeypatch):
    """Within a test, this process lives by Windows' rules."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs Linux to see which files are mapped")

    def guarded(function, places):
        def call(*arguments, **options):
            for path in arguments[:places]:
                refuse(path)
            return function(*arguments, **options)

        return call

    def remove_tree(path, ignore_errors=False, **options):
        if held(path) and not ignore_errors:
            refuse(path)
        if not held(path):
            remove(path, ignore_errors, **options)

    def open_file(self, *arguments, **options):
        if self.name.endswith(".lock"):
            refuse(self)  # a lock is a lock on its first byte for everybody
        return opened(self, *arguments, **options)

    def no_link(source, target, **_):
        raise OSError(22, "A required privilege is not held by the client", str(target))

    remove, opened = shutil.rmtree, Path.open
    monkeypatch.setattr(files, "WINDOWS", True)
    for name, places in (("replace", 2), ("rename", 2)):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), places))
    monkeypatch.setattr(os, "unlink", guarded(os.unlink, 1))
    monkeypatch.setattr(shutil, "rmtree", remove_tree)
    monkeypatch.setattr(Path, "open", open_file)
    for name in ("symlink", "link"):
        monkeypatch.setattr(os, name, no_link)
    for module, names in POSIX_ONLY.items():
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    monkeypatch.setattr(stopping, "SIGNALS", (signal.SIGINT, signal.SIGTERM))
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])


@pytest.fixture
def run(tiny_phantom, windows, tmp_path):
    """A run directory after 02, and what makes prepared/ anew."""
    data = load_data(tiny_phantom)
    slices = make_slices(data)
    again = partial(prepare, data, slices, fit_preprocessing(data, slices), tmp_path / "run" / "prepared")
    again()
    return tmp_path / "run", again


def test_slices_are_prepared_anew_while_a_notebook_holds_them(run):
    folder, again = run
    prepared, dataset = load_prepared(folder / "prepared"), SliceDataset(folder / "prepared", "train", 32)
    slice_, item = prepared.images["medseg"][0], dataset[0]
    again()
    assert (load_prepared(folder / "prepared").images["medseg"][0] == slice_).all() and len(item) == 3


def test_a_run_trains_answers_and_trains_again_while_its_model_is_loaded(run):
    folder, _ = run
    history = launch(1, folder / "prepared", folder, TINY_CONFIG, CPU)
    segmenter = Segmenter.load(folder / "model")
    submit(folder)
    again = train(folder / "prepared", folder, TINY_CONFIG, CPU)
    submit(folder)
    assert len(history) == len(again) and segmenter.config and (folder / "results" / "sub.csv").is_file()


def test_a_phantom_is_made_over_another(windows, tmp_path):
    for seed in (1, 2):
        write_phantom(tmp_path / "set", medseg=2, volumes=1, slices_per_volume=2, test=1, size=32, seed=seed)


def test_what_is_held_open_stays_and_the_sentence_says_so(windows, tmp_path):
    folder, refused = tmp_path / "set", partial(pytest.raises, InputError, match="close what has it open")
    folder.mkdir()
    (folder / "file").write_text("old")
    with (folder / "file").open() as handle:
        with refused(), replace_folder(folder) as new:
            (new / "file").write_text("new")
        with refused(), atomic_write(folder / "file") as file:
            file.write("new")
        assert handle.read() == "old" and list(tmp_path.rglob("*")) == [folder, folder / "file"]


def test_a_locked_folder_names_who_has_it(windows, tmp_path):
    refused = pytest.raises(InputError, match="written by this test")
    with locked(tmp_path, "this test"), refused, locked(tmp_path, "another"):
        pass


def test_a_report_is_written_over_an_earlier_one(windows, tmp_path):
    for _ in range(2):
        folder = save_case(predict_case(chest_scan(), Reader()), tmp_path / "case")
    assert (folder / "report.html").is_file()


def test_several_processes_are_refused_in_words(run):
    two = Device("cuda", "GPU", "tests", count=2)
    with pytest.raises(InputError, match="Windows starts none.*accelerate launch"):
        launch(2, run[0] / "prepared", run[0], TINY_CONFIG, two)


def test_commands_and_lists_of_folders_are_windows_own(windows):
    assert quoted(r"C:\my data\run") == r'"C:\my data\run"' and quoted(r"C:\data") == r"C:\data"
    assert split_words(r'C:\data\a "C:\my data\b"') == ["C:/data/a", "C:/my data/b"]


def test_every_file_can_be_checked_out():
    """Names that differ in more than case, that Windows takes, and leave room in its 260 characters."""
    if not shutil.which("git") or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    names = listed.stdout.splitlines()
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert len(name) < 120 and not re.search(r'[<>:"|?*\\]|[ .](/|$)', name), name
        assert not re.search(r"(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)", name, re.IGNORECASE), name
