"""Paths mean the same everywhere; files and folders are whole or absent."""

import errno
import os
import stat

import pytest
from helpers import SERVER, no_windows

from lungseg_utils.core import files
from lungseg_utils.core.files import (
    InputError,
    atomic_write,
    clear_leftovers,
    input_path,
    locked,
    replace_folder,
    resolve_path,
    standing_path,
)


def test_relative_paths_agree_from_two_directories(tmp_path, monkeypatch):
    monkeypatch.delenv("LUNGSEG_HOME", raising=False)
    found = set()
    for folder in (tmp_path, files.CHECKOUT / "notebooks"):
        monkeypatch.chdir(folder)
        found.add(resolve_path("runs/demo"))
    assert found == {files.CHECKOUT / "runs" / "demo"}


def test_home_variable_wins_over_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    assert resolve_path("runs/../data") == tmp_path.resolve() / "data"


def test_without_a_checkout_paths_start_at_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("LUNGSEG_HOME", raising=False)
    monkeypatch.setattr(files, "CHECKOUT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert resolve_path("data") == tmp_path.resolve() / "data"


def test_absolute_and_user_paths_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path(tmp_path / "x") == tmp_path.resolve() / "x"
    assert resolve_path("~/x") == tmp_path.resolve() / "x"


@pytest.mark.parametrize(("mode", "content"), [("w", "μ\n"), ("wb", b"\x00\x01")])
def test_atomic_write_writes_the_content_and_makes_the_folder(tmp_path, mode, content):
    target = tmp_path / "new" / "file"
    with atomic_write(target, mode) as handle:
        handle.write(content)
    assert target.read_bytes() == (content if mode == "wb" else content.encode())
    assert files.WINDOWS or stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_target_is_old_until_the_new_file_is_complete(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(target) as handle:
        handle.write("new")
        handle.flush()
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as handle:
        handle.write("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def fill(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(text)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fail_to_replace(monkeypatch, wanted):
    """os.replace fails where wanted(source name, call number, from 1) says so."""
    replace, calls = os.replace, []

    def broken(source, target):
        calls.append(source)
        if wanted(source.name, len(calls)):
            raise OSError("disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", broken)


def test_replace_folder_makes_a_new_folder_and_its_parents(tmp_path):
    with replace_folder(tmp_path / "a" / "b") as new:
        assert list(new.iterdir()) == [] and not (tmp_path / "a" / "b").exists()
        fill(new, "new")
    assert contents(tmp_path) == {"a/b/file": "new"}
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "a").stat().st_mode
    )


def test_replace_folder_keeps_the_old_one_until_the_end_and_nothing_of_it_then(tmp_path):
    target = fill(tmp_path / "set", "old")
    (target / "stray").touch()
    with replace_folder(target) as new:
        fill(new, "new")
        assert contents(target) == {"file": "old", "stray": ""}
    assert contents(tmp_path) == {"set/file": "new"} and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replace_folder_undoes_a_failing_body(tmp_path, error, old):
    if old:
        fill(tmp_path / "set", "old")
    with pytest.raises(error), replace_folder(tmp_path / "set") as new:
        fill(new, "half")
        raise error
    assert contents(tmp_path) == ({"set/file": "old"} if old else {})
    assert len(list(tmp_path.iterdir())) == old


@pytest.mark.parametrize("failing", [1, 2])
def test_replace_folder_undoes_a_failing_swap(tmp_path, monkeypatch, failing):
    target = fill(tmp_path / "set", "old")
    fail_to_replace(monkeypatch, lambda _, call: call == failing)
    with pytest.raises(InputError, match="disk"), replace_folder(target) as new:
        fill(new, "new")
    assert contents(tmp_path) == {"set/file": "old"} and list(tmp_path.iterdir()) == [target]


def test_replace_folder_never_deletes_an_old_folder_that_it_cannot_put_back(tmp_path, monkeypatch):
    target = fill(tmp_path / "set", "old")
    fail_to_replace(monkeypatch, lambda name, _: name != "set")
    with pytest.raises(InputError, match="disk"), replace_folder(target) as new:
        fill(new, "new")
    assert "old" in contents(tmp_path).values()


@pytest.fixture(params=[False, True], ids=["replaced", "already there"])
def fixed(tmp_path, monkeypatch, request):
    """A folder that cannot be renamed, as a container's volume; its older content if there is any."""
    target = tmp_path / "volume"
    target.mkdir()
    if request.param:
        fill(target, "old")
        fill(target / "deeper", "old")
    monkeypatch.setattr(files, "_is_mount", lambda path: path == target)
    return target


def test_a_folder_that_cannot_be_renamed_keeps_its_place_and_gets_the_new_content(tmp_path, fixed):
    before = fixed.stat().st_ino
    with replace_folder(fixed) as new:
        fill(new, "new")
        (new / "more").write_text("new")
    assert contents(fixed) == {"file": "new", "more": "new"} and fixed.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [fixed] and {path.name for path in fixed.iterdir()} == {"file", "more"}


@pytest.mark.parametrize("failing", range(1, 6))
def test_a_failing_exchange_is_undone(fixed, monkeypatch, failing):
    before = contents(fixed)
    fail_to_replace(monkeypatch, lambda _, call: call == failing)
    try:
        with replace_folder(fixed) as new:
            fill(new, "new")
            (new / "more").write_text("new")
    except InputError:
        assert contents(fixed) == before
    else:
        assert contents(fixed) == {"file": "new", "more": "new"}


@no_windows
def test_what_a_killed_process_left_is_cleared_and_its_older_folder_comes_back(tmp_path):
    process = os.fork()
    if process == 0:  # it dies in the body, as by SIGKILL
        with replace_folder(tmp_path / "set") as new:
            fill(new, "half")
            os._exit(9)
    os.waitpid(process, 0)
    (left,) = tmp_path.iterdir()
    fill(left / "old", "old")
    fill(tmp_path / ".set.mine", "not ours")
    with pytest.raises(ValueError, match="late"), replace_folder(tmp_path / "set"):
        raise ValueError("late")
    assert contents(tmp_path) == {"set/file": "old", ".set.mine/file": "not ours"}


def test_the_folder_of_a_living_process_is_left_alone(tmp_path):
    with replace_folder(tmp_path / "set") as first:
        with replace_folder(tmp_path / "set") as second:
            fill(second, "second")
        assert first.is_dir()
        fill(first, "first")
    assert contents(tmp_path) == {"set/file": "first"}


def test_what_is_read_may_lie_where_the_caller_stands(tmp_path, monkeypatch):
    home, here = fill(tmp_path / "home", "home"), fill(tmp_path / "here", "here")
    monkeypatch.setenv("LUNGSEG_HOME", str(home))
    monkeypatch.chdir(here)
    assert input_path("file") == here / "file"
    (here / "file").unlink()
    assert input_path("file") == home / "file"
    with pytest.raises(InputError) as caught:
        input_path("none")
    with pytest.raises(InputError, match="a variable is not set"):  # and not all that lies here
        input_path("")
    assert str(home / "none") in str(caught.value) and str(here / "none") in str(caught.value)


def test_input_error_is_a_value_error():
    assert issubclass(InputError, ValueError)


# --- several processes ---


def killed_while_writing(target, kind):
    """Dies like a process that is killed: nothing of it is cleaned up."""
    if kind == "swap":
        replace = os.replace

        def dies(source, target):
            replace(source, target)
            os._exit(9)

        os.replace = dies
    with (atomic_write if kind == "file" else replace_folder)(target) as new:
        if kind != "swap":
            os._exit(9)
        fill(new, "new")


def in_a_process(function, *arguments):
    process = SERVER.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "folder", "swap"])
def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path, kind):
    if kind == "swap":
        fill(tmp_path / "set", "old")
    assert in_a_process(killed_while_writing, tmp_path / "set", kind) == 9
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".set.")
    clear_leftovers(tmp_path)
    assert contents(tmp_path) == ({"set/file": "old"} if kind == "swap" else {})
    with replace_folder(tmp_path / "set") as new:
        clear_leftovers(tmp_path)  # what is in use stays
        fill(new, "new")
    assert contents(tmp_path) == {"set/file": "new"}


def enter(folder, dies):
    try:
        with locked(folder, "a training"):
            os._exit(9 if dies else 0)
    except InputError as error:
        os._exit(2 if "is being written by this test (process" in str(error) else 1)


@pytest.mark.slow
def test_a_locked_folder_is_refused_and_a_dead_process_holds_no_lock(tmp_path):
    with locked(tmp_path / "run", "this test"):
        assert in_a_process(enter, tmp_path / "run", False) == 2
    assert in_a_process(enter, tmp_path / "run", True) == 9
    assert in_a_process(enter, tmp_path / "run", False) == 0


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "a folder of your own"), (errno.EROFS, "LUNGSEG_HOME"), (errno.ENOSPC, "make room")],
)
def test_what_the_system_refuses_is_one_sentence(tmp_path, number, advice):
    with pytest.raises(InputError, match=advice) as caught, atomic_write(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "file") in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "runs").touch()
    for write in (atomic_write, replace_folder):
        with (
            pytest.raises(InputError, match="a file stands where a folder has to be"),
            write(tmp_path / "runs" / "a" / "b"),
        ):
            pass
    with pytest.raises(InputError, match="a file stands"), locked(tmp_path / "runs", "this test"):
        pass


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "~nobody-of-that-name/runs"])
@pytest.mark.parametrize("resolve", [resolve_path, standing_path])
def test_what_no_path_can_be_is_one_sentence(path, resolve):
    if path.startswith("~") and os.name == "nt":
        pytest.skip("Windows knows ~ of others")
    with pytest.raises(InputError, match="path") as caught:
        resolve(path)
    assert "\n" not in str(caught.value)
