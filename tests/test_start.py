"""start.py sets up once and hands each word on; the Makefile calls it."""

import ast
import importlib.util
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest

from lungseg_utils.core.files import CHECKOUT

INDEX = "https://download.pytorch.org/whl/cpu"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start.py on an empty checkout under tmp_path; `calls` collects what it would run."""
    spec = importlib.util.spec_from_file_location("start", CHECKOUT / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.SOURCES:
        shutil.copy(CHECKOUT / name, tmp_path)
    module.calls = []

    def note(command, **_):
        module.calls.append([word for word in command if word != "--disable-pip-version-check"])
        (tmp_path / ".venv").mkdir(exist_ok=True)
        return SimpleNamespace(returncode=module.status)

    def last(_, command):
        note(command)
        raise SystemExit(0)

    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(module, "READY", tmp_path / ".venv" / "ready")
    monkeypatch.setattr(module, "SITE_READY", tmp_path / ".venv" / "site_ready")
    monkeypatch.setattr(module.subprocess, "run", note)
    monkeypatch.setattr(module.os, "name", "posix")
    monkeypatch.setattr(module.os, "execv", last)
    monkeypatch.setattr(module.os, "chdir", lambda _: None)
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    for name in ("TORCH", "PROCESSES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # to be put back
    module.status = 0
    return module


def call(start, *arguments):
    """What runs for these words, from the program's own name on."""
    start.calls.clear()
    with pytest.raises(SystemExit) as ended:
        start.main(list(arguments))
    return ended.value.code, [" ".join(words[1:]) for words in start.calls]


def test_it_sets_up_once_and_again_when_a_requirement_changes(start, tmp_path):
    install = ["-m pip install -c constraints.txt -e .[test,lint,fast,formats,batch]"]
    status, (venv, *commands) = call(start, "run", "-p", "seed", "1")
    assert (status, commands) == (0, [*install, "-m lungseg_utils run -p seed 1"])
    assert venv == f"-m venv {tmp_path / '.venv'}"
    assert call(start, "run") == (0, ["-m lungseg_utils run"])
    later = start.READY.stat().st_mtime + 10
    os.utime(tmp_path / "requirements.txt", (later, later))
    assert call(start, "run")[1][1:] == [*install, "-m lungseg_utils run"]


def test_a_failing_installation_ends_it_and_is_tried_again(start):
    start.status = 3
    assert call(start, "run")[0] == 3 and not start.READY.exists()


def test_torch_comes_from_its_own_index_where_one_is_named(start, monkeypatch):
    call(start, "run")
    (start.VENV / "nvidia").touch()
    monkeypatch.setenv("TORCH", "cpu")
    _, (_, torch, rest, _) = call(start, "run")
    assert torch == f"-m pip install -c constraints.txt --no-deps --index-url {INDEX} torch torchvision"
    assert rest.endswith("-e .[test,lint,fast,formats,batch]")
    assert not (start.VENV / "nvidia").exists()  # nothing of the larger build stays
    monkeypatch.delenv("TORCH")
    assert call(start, "run") == (0, ["-m lungseg_utils run"])  # it stays the one that was chosen


def test_it_installs_from_its_own_wheels_where_it_has_some(start, monkeypatch):
    start.WHEELS.mkdir()
    (start.WHEELS / "pythons.txt").write_text("3.12 3.13")
    monkeypatch.setattr(start.sys, "version_info", (3, 12, 1))
    monkeypatch.setenv("TORCH", "cpu")
    _, (_, *commands) = call(start, "lab")
    assert commands[0] == f"-m pip install -c constraints.txt --no-index --find-links {start.WHEELS} -e ."
    assert len(commands) == 2
    monkeypatch.setattr(start.sys, "version_info", (3, 11, 7))
    with pytest.raises(SystemExit, match=r"for Python 3.12 or 3.13: name one"):
        start.set_up()


def test_uv_installs_where_it_is_found(start, monkeypatch):
    monkeypatch.setattr(start.shutil, "which", lambda name: f"/bin/{name}")
    _, (_, install, _) = call(start, "run")
    extras = ".[test,lint,fast,formats,batch]"
    assert install == f"pip install --python {start.PYTHON} -c constraints.txt -e {extras}"


def test_an_older_environment_is_kept(start):
    start.VENV.mkdir()
    start.READY.touch()  # as the Makefile of version 0.2 left it
    assert call(start, "run") == (0, ["-m lungseg_utils run"])


def test_the_site_installs_its_own_tools_once(start, tmp_path):
    start.main(["setup"])
    steps = ["docs/site/stage.py", "-m mkdocs build --strict", "docs/site/check.py"]
    assert call(start, "site")[1] == ["-m pip install --quiet -c constraints.txt -e .[site]", *steps]
    assert call(start, "site")[1] == steps
    assert call(start, "site", "--serve")[1] == [steps[0], "-m mkdocs serve"]


def test_tests_come_after_the_linters_and_take_options(start, monkeypatch):
    start.main(["setup"])
    start.calls.clear()
    linters = ["-m ruff check", "-m ruff format --check", "-m mypy", "--no-logo"]
    assert call(start, "test", "-k", "a b")[1] == [*linters, "-m pytest -n 2 --dist loadfile -k a b"]
    assert os.environ["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("PROCESSES", "1")
    assert call(start, "quick")[1] == ["-m pytest -m not slow"]


@pytest.mark.parametrize(
    ("version", "platform", "machine", "expected"),
    [((3, 9, 2), "linux", "x86_64", "3.11 or newer is needed"), ((3, 12, 0), "darwin", "x86_64", "Intel")],
)
def test_what_cannot_run_is_one_sentence(start, monkeypatch, version, platform, machine, expected):
    monkeypatch.setattr(start.sys, "version_info", version)
    monkeypatch.setattr(start.sys, "platform", platform)
    monkeypatch.setattr(start.platform, "machine", lambda: machine)
    with pytest.raises(SystemExit, match=expected):
        start.set_up()
    assert start.calls == []


def test_an_old_python_can_read_the_sentence():
    ast.parse((CHECKOUT / "start.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_on_windows_the_last_command_is_waited_for(start, monkeypatch):
    waits = iter([KeyboardInterrupt, 75])

    def wait():
        if (status := next(waits)) is KeyboardInterrupt:
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(start.os, "name", "nt")
    monkeypatch.setattr(start.subprocess, "Popen", lambda command: SimpleNamespace(wait=wait))
    with pytest.raises(SystemExit) as ended:
        start.hand_over("python", "-m", "lungseg_utils")
    assert ended.value.code == 75


def test_clean_leaves_what_people_made(start, tmp_path):
    for name in (".venv", "runs", "dist"):
        (tmp_path / name).mkdir()
    start.main(["clean"])
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"runs"}


def test_every_word_of_make_is_one_of_start():
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")}
    for word in "run test quick lint lab notebooks translations site setup clean".split():
        command = ["make", "-n", word, "ARGS=-k 'a b'", "PYTHON=py"]
        done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == f"py start.py {word}" + ("" if word == "lint" else " -k 'a b'")
