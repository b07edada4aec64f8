"""Where a path points, how a file or a folder is written, who may write, and how bad input is reported."""

import errno
import glob
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import pandas as pd


CHECKOUT = Path(__file__).resolve().parents[2]
WINDOWS = os.name == "nt"  # no file that is open or mapped can be replaced there
LOCK = ".lock"
HOLDER = ".by"  # beside a lock: who has it
MINE = "name a folder of your own: in run_dir or --out, or in LUNGSEG_HOME for all relative paths"
ROOM = "make room there, or name a folder on another disk"
ADVICE = {  # what to do about an error of the operating system
    errno.EACCES: MINE,
    errno.EPERM: MINE,
    errno.EROFS: MINE,
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.ENOTDIR: "a file stands where a folder has to be: name another path",
    errno.EEXIST: "a file stands where a folder has to be: name another path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ENOENT: "correct the path, or run what writes that file",
}


class InputError(ValueError):
    """Bad input, in one sentence: what was found, what was expected, what to do."""


def in_words(error: OSError, path: str | Path | None = None) -> InputError:
    """An error of the operating system as a sentence.

    path: what was read or written, if the error names nothing.
    """
    place = error.filename or path
    found = f"{place}: {error.strerror or first_line(error)}" if place else first_line(error)
    advice = ADVICE.get(error.errno or 0, "see that its disk is there and works, and try again")
    if WINDOWS and isinstance(error, PermissionError):
        advice = f"close what has it open (a notebook's kernel, a spreadsheet), or {MINE}"
    return InputError(f"{found}; expected to read or write there; {advice}")


def quoted(word: str | Path) -> str:
    """A word of a command that people copy, quoted for their shell."""
    return subprocess.list2cmdline([str(word)]) if WINDOWS else shlex.quote(str(word))


def split_words(text: str) -> list[str]:
    """The words of a text, as a shell parts them; a backslash is Windows' way to part folders."""
    return shlex.split(text.replace("\\", "/") if WINDOWS else text)


def resolve_path(path: str | Path) -> Path:
    """Absolute path; a relative one means the same from every notebook and every working directory.

    Relative paths start at the folder that `LUNGSEG_HOME` names, else at the checkout that the package runs
    from, else (package installed without its notebooks, as on Kaggle) at the current directory.

    Args:
        path: Absolute, relative, or with `~`.

    Returns:
        The absolute path; it need not exist.

    Raises:
        InputError: It is empty, as an unset variable of a shell is, or no path can be so.
    """
    if not str(path).strip():
        raise InputError("a path is empty; expected a file or a folder; see whether a variable is not set.")
    named = os.environ.get("LUNGSEG_HOME", "").strip()
    try:
        if named:
            home = Path(named).expanduser()
        elif (CHECKOUT / "notebooks" / "01_eda.ipynb").exists():
            home = CHECKOUT
        else:
            home = Path.cwd()
        return (home / Path(path).expanduser()).resolve()
    except (ValueError, RuntimeError) as error:  # a NUL; ~ of nobody, or without HOME
        found = f"{str(path)!r}{f' below LUNGSEG_HOME, {named!r},' if named else ''} is no path"
        raise InputError(f"{found} ({error}); expected one; write it in full") from error


def standing_path(path: str | Path) -> Path:
    """Absolute path: a relative one where the caller stands if something is there.

    As shell completion names it.

    Else as `resolve_path`. Raises InputError for an empty one, as a variable that is not set leaves.
    """
    elsewhere = resolve_path(path)
    here = (Path.cwd() / Path(path).expanduser()).resolve()
    return here if here.exists() else elsewhere


def input_path(path: str | Path) -> Path:
    """`standing_path` of what is to be read. Raises InputError, with both places, if it is in neither."""
    found = standing_path(path)
    if not found.exists():
        places = " nor ".join(dict.fromkeys([str(Path.cwd() / Path(path).expanduser()), str(found)]))
        raise InputError(
            f"there is no {places} (No such file or directory); expected what is to be read; check the name."
        )
    return found


def new_folder(path: str | Path) -> Path:
    """Where a folder for a class is to stand; InputError if something is there already."""
    path = standing_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there, maybe with students' work; expected a new folder; name another.")
    return path


def link(path: Path, target: Path) -> None:
    """Let `target` be the file that stands at `path`; a copy where links are not allowed, as on Windows."""
    try:
        target.symlink_to(path)
    except OSError:
        shutil.copy2(path, target)


@contextmanager
def locked(folder: str | Path, by: str, name: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Within, no other process enters the same: for what writes into a run directory, here or in a notebook.

    The lock is the operating system's and ends with its process, however that ends. On a network file system
    it holds between machines if that file system has locks (NFS 4 has); where there are none, filelock's
    marker file stands in.

    Args:
        folder: The run directory; made if it is not there.
        by: Who locks it, for the sentence that another process gets.
        name: Of the lock's file in it, which stays.
        patience: Seconds to wait for another process to leave.

    Raises:
        InputError: Another process is in it.
    """
    path = Path(folder) / name
    about = path.with_name(name + HOLDER)  # Windows lets nobody read or write a locked file
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
        about.write_text(
            f"{by} (process {os.getpid()} on {platform.node()}, since {time.strftime('%H:%M')})",
            encoding="utf-8",
        )
    except Timeout:
        holder = "another process"
        with suppress(OSError):  # it may be leaving
            holder = about.read_text(encoding="utf-8")
        raise InputError(
            f"{path.parent} is being written by {holder}; expected one at a time; wait until that has ended, "
            "or name another folder"
        ) from None
    except OSError as error:
        raise in_words(error, path) from error
    try:
        yield
    finally:
        with suppress(OSError):
            about.unlink()
        lock.release()


@contextmanager
def _workspace(path: Path, inside: bool = False) -> Iterator[Path]:
    """A hidden folder beside or inside `path`, locked while in use.

    What killed processes left there is cleared first.
    """
    home = path if inside else path.parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        clear_leftovers(home, path.name)
        work = Path(tempfile.mkdtemp(dir=home, prefix=f".{path.name}."))
        lock = FileLock(work / LOCK)
        try:
            with lock:
                yield work
        finally:
            older = [work / "replaced", work / "old"]
            unsafe = (
                any(file for folder in older for file in folder.glob("*")) if inside else not path.exists()
            )
            if not (unsafe and any(map(Path.exists, older))):  # else what stood there could not be put back
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise in_words(error, path) from error


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what `atomic_write` and `replace_folder` of killed processes left in `folder`, hidden.

    name: of what was being written; all if not given. A folder that was cut off between its two renames gets
    its older version back.
    """
    for work in folder.glob(f".{glob.escape(name) if name else '*'}.*/"):
        lock = FileLock(work / LOCK)
        if not (work / LOCK).is_file():
            continue
        with suppress(Timeout, OSError):  # in use, or not ours
            with lock.acquire(blocking=False):
                target = folder / work.name[1:].rpartition(".")[0]
                if (work / INSIDE).exists():
                    _put_back(folder, work)
                elif (work / "old").exists() and not target.exists():
                    os.replace(work / "old", target)
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside the target; it takes the target's name only when all of it is on disk.

    If the body raises, the temporary file goes and a file that stood under the name stays as it was. What the
    operating system refuses is an InputError that says what to do.
    """
    path = Path(path)
    newline: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with _workspace(path) as work:
        with (work / "new").open(mode, **newline) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        (work / "new").replace(path)


def write_csv(path: str | Path, table: "pd.DataFrame", **options: Any) -> None:
    """Write a table by `atomic_write`, without its index; options: more of pandas' to_csv."""
    with atomic_write(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", **options)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


INSIDE = "inside"  # marks a workspace in the folder itself


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`.

    A folder that cannot be renamed, as a mount point or one whose parent is closed to us, keeps its place,
    and what is in it is exchanged piece by piece. If anything fails, the body or the swap, the older folder
    stands as it was and the new one goes. What the operating system refuses is an InputError that says what
    to do.
    """
    path = Path(path)
    inside = path.exists() and (_is_mount(path) or not os.access(path.parent, os.W_OK))
    with _workspace(path, inside) as work:
        new, old = work / "new", work / "old"
        try:
            new.mkdir()  # mkdtemp made its own private
            if inside:
                (work / INSIDE).touch()
            yield new
            if inside:
                _exchange(path, work)
                return
            if path.exists():
                path.replace(old)
            new.replace(path)
        except BaseException:
            if inside:
                _put_back(path, work)
            elif old.exists() and not path.exists():
                os.replace(old, path)  # should this fail as well, the older folder is still in `work`
            raise


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
    os.replace(work / "replaced", work / "gone")


def _put_back(path: Path, work: Path) -> None:
    """Undo an `_exchange` that did not end: what stood in `path` stands there again, and nothing new."""
    source = work / "old"
    if (work / "replaced").exists():
        source = work / "replaced"
        for file in [file for file in path.iterdir() if file != work]:
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
    for file in list(source.iterdir()) if source.exists() else []:
        os.replace(file, path / file.name)
