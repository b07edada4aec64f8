"""Paths mean the same everywhere; files are whole or absent."""

import stat

import pytest

from lungseg_utils import files
from lungseg_utils.files import atomic_write, resolve_path


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
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
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


def test_input_error_is_a_value_error():
    assert issubclass(files.InputError, ValueError)
