"""The command line: what it prints, what it refuses, its exit codes.

tests/test_series.py runs notebooks through it.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lungseg_utils import __version__
from lungseg_utils.cli import main
from lungseg_utils.core.files import InputError
from lungseg_utils.data.phantom import DEFAULT_STAMP, phantom_volume
from lungseg_utils.series import run as series
from lungseg_utils.series.run import NotebookError, NotebookStopped

SMALL = ["--medseg", "2", "--volumes", "2", "--slices", "3", "--size", "64"]


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Folder of a small phantom, written by the command, and what the command said."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    return folder, invoke("phantom", folder, *SMALL, "--seed", "3")


@pytest.fixture
def called(monkeypatch):
    """run_series replaced: what `lungseg run` hands over."""
    options = {}
    monkeypatch.setattr(series, "run_series", lambda **given: options.update(given) or Path("out"))
    return options


@pytest.mark.parametrize(
    "command", [[], ["run"], ["phantom"], ["check"], ["compare"], ["submit"], ["score"], ["predict"]]
)
def test_help_names_every_option(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    expected = {
        "": "run phantom check compare submit score predict --version",
        "predict": "SCAN... --model --out --series --keep-identity --jobs --scheduler --scheduler-file",
        "compare": "RUN... --out",
        "submit": "RUN --check",
        "score": "FILE MASKS.npy",
        "run": "--data-dir --run-dir --profile -p --only --from",
        "phantom": "--medseg --volumes --slices --size --seed --hidden",
        "check": "DATA_DIR",
    }["".join(command)]
    assert all(word in result.output for word in expected.split())
    assert "..." not in result.output.partition("Commands:")[2]  # no summary is cut off


def test_help_loads_no_heavy_library():
    code = (
        "import sys; from lungseg_utils.cli import main; main(['run', '--help'], standalone_mode=False); "
        "heavy = {'torch', 'albumentations', 'papermill', 'pandas', 'numpy', 'matplotlib'} & {*sys.modules}; "
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "lungseg_utils", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"lungseg, version {__version__}\n"


def test_run_hands_over_its_options(called):
    result = invoke(
        "run",
        "--data-dir",
        "d",
        "--run-dir",
        "r",
        "--profile",
        "reference",
        "--from",
        "02",
        "-p",
        "clip_min",
        "-1200",
        "-p",
        "encoder_weights",
        "none",
    )
    assert (result.exit_code, result.output) == (0, "results: out\n")
    assert called == {
        "data_dir": "d",
        "run_dir": "r",
        "profile": "reference",
        "only": None,
        "start": "02",
        "parameters": {"clip_min": "-1200", "encoder_weights": "none"},
    }


def test_run_is_the_demo_by_default(called):
    assert invoke("run").exit_code == 0
    assert called["profile"] == "demo" and called["parameters"] == {} and called["run_dir"] is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("found x; expected y; do z"), 2),
        (NotebookError("a\nb\nc"), 1),
        (NotebookStopped("a\nb\nc"), 75),
    ],
)
def test_errors_have_no_traceback(monkeypatch, error, code):
    def refuse(**_):
        raise error

    monkeypatch.setattr(series, "run_series", refuse)
    result = invoke("run")
    assert (result.exit_code, result.stderr, result.stdout) == (code, f"error: {error}\n", "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/opt/lungseg/runs"), 2, "a folder of your own"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "make room"),
        (EOFError("Ran out of input"), 2, "Ran out of input"),
        (KeyboardInterrupt(), 75, "stopped before its end"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(monkeypatch, error, code, words):
    def refuse(**_):
        raise error

    monkeypatch.setattr(series, "run_series", refuse)
    result = invoke("run")
    assert result.exit_code == code and words in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-p", "epochs"],
        ["run", "--nonsense"],
        ["phantom"],
        ["nonsense"],
        ["phantom", "x", "--size", "0"],
        ["phantom", "x", "--seed", "-1"],
    ],
)
def test_wrong_usage_exits_2(arguments, called):
    assert invoke(*arguments).exit_code == 2
    assert not called


def test_phantom_has_the_asked_sizes_and_seed(phantom):
    folder, result = phantom
    assert (result.exit_code, result.stdout) == (0, f"phantom: {folder}\n")
    assert np.load(folder / "images_medseg.npy", mmap_mode="r").shape[:3] == (2, 64, 64)
    assert np.load(folder / "images_radiopedia.npy", mmap_mode="r").shape[:3] == (6, 64, 64)
    assert json.loads((folder / "phantom.json").read_text())["seed"] == 3


def test_phantom_without_options_is_the_default_set(monkeypatch):
    given = {}
    monkeypatch.setattr(
        "lungseg_utils.data.phantom.write_phantom", lambda out, **options: given.update(options) or out
    )
    assert invoke("phantom", "anywhere").exit_code == 0
    assert given and given == {name: DEFAULT_STAMP[name] for name in given}


def test_check_of_a_usable_folder(phantom):
    result = invoke("check", phantom[0])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "volumes: 2"
    assert "images_radiopedia.npy" in result.stdout


def test_check_of_a_broken_contract(phantom, tmp_path):
    for path in phantom[0].glob("*.npy"):
        shutil.copy(path, tmp_path)
    (tmp_path / "masks_medseg.npy").unlink()
    result = invoke("check", tmp_path)
    assert result.exit_code == 1
    assert "masks_medseg.npy" in result.stdout and result.stdout.splitlines()[-1] == "volumes: 2"


def test_check_of_no_folder_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    result = invoke("check", "data/absent")
    assert result.exit_code == 2
    assert (
        result.stderr.startswith(f"error: {tmp_path / 'data' / 'absent'}") and result.stderr.count("\n") == 1
    )
    assert result.stdout == ""


def test_predict_writes_a_case_and_prints_its_numbers(trained_dir, tmp_path):
    hu, _ = phantom_volume(np.random.default_rng(3), 2, 96, (0.1, 0.03))
    np.save(tmp_path / "scan.npy", hu)
    result = invoke(
        "predict", tmp_path / "scan.npy", "--model", trained_dir / "model", "--out", tmp_path / "case"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("case-") and lines[-1] == f"report: {tmp_path / 'case' / 'report.html'}"
    assert "note: An array does not say" in result.stdout and "not a diagnosis" in " ".join(lines)
    assert {path.name for path in (tmp_path / "case").iterdir()} == {
        "mask.npy",
        "report.json",
        "report.html",
        "report.png",
    }
    assert np.load(tmp_path / "case" / "mask.npy").shape == hu.shape


@pytest.mark.parametrize("scan", ["absent.nii.gz", "text.nii", "other"])
def test_predict_refuses_in_one_line_and_leaves_nothing(trained_dir, tmp_path, scan):
    (tmp_path / "text.nii").write_text("not a scan")
    (tmp_path / "other").mkdir()
    out = tmp_path / "case"
    result = invoke("predict", tmp_path / scan, "--model", trained_dir / "model", "--out", out)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not out.exists() and {path.name for path in tmp_path.iterdir()} == {"text.nii", "other"}


def test_predict_looks_at_the_output_folder_before_anything_else(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    result = invoke("predict", "absent.nii", "--out", tmp_path)
    assert result.exit_code == 2 and "holds letter.txt; expected nothing but an earlier case" in result.stderr


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_how_threads_wait_is_settled_before_torch_loads_and_the_users_setting_wins(own, expected):
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    code = f"import lungseg_utils, os, sys; print({{n: os.environ[n] for n in {names} if n in os.environ}})"
    environment = {name: value for name, value in os.environ.items() if name not in names} | own
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{expected}\n", "")


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--only", ""],
        ["run", "--profile", ""],
        ["run", "--run-dir", ""],
        ["run", "--data-dir", ""],
        ["phantom", ""],
        ["compare", "a", ""],
        ["check", ""],
        ["run", "-p", "run_dir", ""],
    ],
)
def test_an_unset_variable_of_a_shell_is_refused(command):
    done = invoke(*command)
    assert (
        done.exit_code == 2 and "is empty; expected" in done.output and "variable is not set" in done.output
    )


def test_a_parameter_with_two_values_is_refused_and_with_one_wins(called):
    done = invoke("run", "-p", "epochs", "2", "-p", "epochs", "3")
    assert done.exit_code == 2 and "-p epochs is given twice, '2' and '3'" in done.output
    assert invoke("run", "--language", "es", "-p", "language", "en").exit_code == 0
    assert called["parameters"] == {"language": "en"}


def test_a_backend_that_cannot_be_loaded_does_not_matter(tmp_path):
    """As of a notebook's shell, or of a desktop that a server has not."""
    arguments = ["submit", "--check", str(tmp_path / "none.csv")]
    code = f"from lungseg_utils.cli import main; import sys; sys.argv[1:] = {arguments}; main()"
    environment = {**os.environ, "MPLBACKEND": "odd"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "none.csv cannot be read" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell's 2>&-")
def test_a_closed_screen_does_not_end_a_command(tmp_path):
    command = f"exec '{sys.executable}' -m lungseg_utils phantom '{tmp_path / 'data'}' {' '.join(SMALL)}"
    assert subprocess.run(["sh", "-c", f"{command} >&- 2>&-"]).returncode == 0
    assert len(list((tmp_path / "data").iterdir())) == 6


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such end")
def test_a_stop_in_the_middle_of_an_import_has_the_status_of_a_stop():
    code = (
        "from lungseg_utils import cli\n"
        "@cli.main.command()\n"
        "def stops():\n"
        "    exec('raise KeyboardInterrupt')\n"
        "cli.main(['stops'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 75 and "stopped before its end" in done.stderr
