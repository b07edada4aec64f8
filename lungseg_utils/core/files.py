"""Where a path points, how a file or a folder is written, and how bad input is reported."""

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


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file in the target's folder; it takes the target's name only when all of it is on disk.

    If the body raises, the temporary file goes and a file that stood under the name stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    newline = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, mode, **newline) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
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
    """Yield a new, empty folder beside `path`; it takes that name, and an older folder's place, when the body ends.

    If anything fails, the body or the swap, the older folder stands as it was and the new one goes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    new, old = work / "new", work / "old"
    try:
        new.mkdir()  # mkdtemp made its own private
        yield new
        if path.exists():
            path.replace(old)
        new.replace(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)  # should this fail as well, the older folder is still in `work`
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
