"""Where a path points, how a file is written, and how bad input is reported."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parent.parent


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
