"""Where a path points, how a file or a folder is written, and how bad input is reported."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


CHECKOUT = Path(__file__).resolve().parents[2]


class InputError(ValueError):
    """Bad input, in one sentence: what was found, what was expected, what to do."""


def resolve_path(path: str | Path) -> Path:
    """Absolute path; a relative one means the same from every notebook and every working directory.

    Relative paths start at the folder that `LUNGSEG_HOME` names, else at the checkout that the package runs from,
    else (package installed without its notebooks, as on Kaggle) at the current directory.
    """
    if os.environ.get("LUNGSEG_HOME"):
        home = Path(os.environ["LUNGSEG_HOME"]).expanduser()
    elif (CHECKOUT / "notebooks" / "01_eda.ipynb").exists():
        home = CHECKOUT
    else:
        home = Path.cwd()
    return (home / Path(path).expanduser()).resolve()


def standing_path(path: str | Path) -> Path:
    """Absolute path: a relative one where the caller stands if something is there, as shell completion names it.

    Else as `resolve_path`.
    """
    here = (Path.cwd() / Path(path).expanduser()).resolve()
    return here if here.exists() else resolve_path(path)


def input_path(path: str | Path) -> Path:
    """`standing_path` of what is to be read. Raises InputError, with both places, if it is in neither."""
    found = standing_path(path)
    if not found.exists():
        places = " nor ".join(dict.fromkeys([str(Path.cwd() / Path(path).expanduser()), str(found)]))
        raise InputError(
            f"there is no {places} (No such file or directory); expected what is to be read; check the name."
        )
    return found


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file in the target's folder; it takes the target's name only when all of it is on disk.

    If the body raises, the temporary file goes and a file that stood under the name stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    newline = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, mode, **newline) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_csv(path: str | Path, table: "pd.DataFrame", **options: Any) -> None:
    """Write a table by `atomic_write`, without its index; options: more of pandas' to_csv."""
    with atomic_write(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", **options)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new, empty folder; it takes the name `path`, and an older folder's place, when the body ends.

    The new folder is made beside `path`. A folder that cannot be renamed, as a mount point or one whose parent is closed
    to us, keeps its place, and what is in it is exchanged piece by piece.
    If anything fails, the body or the swap, the older folder stands as it was and the new one goes. What a killed
    process left is cleared by the next call for the same path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = path.exists() and (_is_mount(path) or not os.access(path.parent, os.W_OK))
    home = path if inside else path.parent
    _clear_leftovers(home, path)
    work = Path(tempfile.mkdtemp(dir=home, prefix=f".{path.name}."))
    new, old = work / "new", work / "old"
    with (work / LOCK).open("w") as lock:
        _lock(lock)
        try:
            new.mkdir()  # mkdtemp made its own private
            yield new
            if inside:
                _exchange(path, work)
            else:
                if path.exists():
                    os.replace(path, old)
                os.replace(new, path)
        except BaseException:
            if inside:
                _put_back(path, work)
            elif old.exists() and not path.exists():
                os.replace(old, path)  # should this fail as well, the older folder is still in `work`
            shutil.rmtree(work, ignore_errors=True)
            raise
    shutil.rmtree(work, ignore_errors=True)


LOCK = "in-use"  # held by the process that works in a folder of `replace_folder`; the system frees it at any death


def _lock(handle: IO) -> bool:
    """Whether the lock on an open file could be had. Where there are no such locks: never, and nothing is cleared."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _clear_leftovers(home: Path, path: Path) -> None:
    """Remove working folders of `replace_folder` whose process is dead; an older folder that it had moved goes back."""
    for work in home.glob(f".{glob.escape(path.name)}.*"):
        try:
            with (work / LOCK).open("r+") as lock:
                if not _lock(lock):
                    continue
                if home == path:
                    _put_back(path, work)
                elif (work / "old").exists() and not path.exists():
                    os.replace(work / "old", path)
                shutil.rmtree(work, ignore_errors=True)
        except OSError:  # no folder of ours, or no right to it
            continue


def _is_mount(path: Path) -> bool:
    """Whether path is a mount point, also of a part of the same file system, as a container's volumes are."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        mounts = []  # not Linux
    return path.is_mount() or str(path).replace(" ", "\\040") in {line.split()[4] for line in mounts}


def _exchange(path: Path, work: Path) -> None:
    """Move what is in `path` to work/old, and then, as work/replaced marks, what is in work/new to `path`."""
    old, new = work / "old", work / "new"
    old.mkdir()
    for file in [file for file in path.iterdir() if file != work]:
        os.replace(file, old / file.name)
    os.replace(old, work / "replaced")
    for file in list(new.iterdir()):
        os.replace(file, path / file.name)


def _put_back(path: Path, work: Path) -> None:
    """Undo an `_exchange` that did not end: what stood in `path` stands there again, and nothing new."""
    source = work / "old"
    if (work / "replaced").exists():
        if not any((work / "new").iterdir()):
            return  # it did end
        source = work / "replaced"
        for file in [file for file in path.iterdir() if file != work]:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in list(source.iterdir()) if source.exists() else []:
        os.replace(file, path / file.name)
