"""A folder for laptops without the internet: the course, packages for every system, data, a start script.

start.py installs from its wheels/. uv says which packages each system needs, wherever it is asked, and pip
fetches them.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from lungseg_utils.core.files import CHECKOUT, InputError
from lungseg_utils.data.phantom import default_phantom

WHEELS = "wheels"
PYTHONS = "pythons.txt"  # in WHEELS: the versions that they are for, as start.py reads them
BUILDS = "https://download.pytorch.org/whl/"  # as in start.py
PYPI = "pypi"
CUDA = re.compile(r"(nvidia|cuda|triton)\b|torch(vision)?==")  # what PyTorch's own builds stand for
SHIPPED = (
    *("lungseg_utils", "benchmarks", "docs", "notebooks/profiles", "notebooks/templates", "data/README.md"),
    *("start.py", "pyproject.toml", "requirements.txt", "constraints.txt", "README.md", "LICENSE"),
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")
SYSTEMS = {  # name -> uv's word for it, pip's for its wheels
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
    "macos": ("aarch64-apple-darwin", ["macosx_14_0_arm64"]),
    "linux": (
        "x86_64-manylinux_2_28",
        [*(f"manylinux_2_{minor}_x86_64" for minor in range(28, 16, -1)), "manylinux2014_x86_64"],
    ),
}
OLDEST_MACOS = "14.0"  # of torch's wheels


def fill_offline(
    folder: Path, systems: Sequence[str] = (), pythons: Sequence[str] = (), torch: str = "cpu"
) -> None:
    """Put all that a laptop needs without the internet beside the notebooks of a folder.

    Args:
        folder: A new checkout to be, with notebooks/.
        systems: Names in SYSTEMS; all if not given.
        pythons: Versions such as "3.12"; this one's if not given.
        torch: PyTorch's build for Linux: "cpu", "cu128" ... of PyTorch's own index; "pypi" has CUDA.

    Raises:
        InputError: uv is not installed, or something cannot be fetched.
    """
    for name in SHIPPED:
        source, target = CHECKOUT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=LEFT_OUT, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    pythons = pythons or [f"{sys.version_info.major}.{sys.version_info.minor}"]
    for system in systems or SYSTEMS:
        for python in pythons:
            _fetch(folder / WHEELS, system, python, torch)
    (folder / WHEELS / PYTHONS).write_text(" ".join(pythons), encoding="utf-8")
    default_phantom(folder / "data" / "phantom")


def _fetch(wheels: Path, system: str, python: str, torch: str) -> None:
    """Download the wheels of one system for one Python."""
    target, tags = SYSTEMS[system]
    needed = _needed(target, python)
    fetch = _module("pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={wheels}")
    fetch += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    fetch += [f"--platform={tag}" for tag in tags]
    if system == "linux" and torch != PYPI:  # PyPI's is built for CUDA
        pair = [f"{line}+{torch}" for line in needed if re.match(r"torch(vision)?==", line)]
        needed = [line for line in needed if not CUDA.match(line)]
        _call(
            [*fetch, f"--index-url={BUILDS}{torch}", *pair],
            f"PyTorch's builds {torch} for Linux (`--torch pypi` takes PyPI's, with gigabytes of CUDA; "
            "`--platform windows --platform macos` leaves Linux out)",
        )
    _call([*fetch, *needed], f"the packages for {system}, Python {python}, from PyPI")


def _needed(target: str, python: str) -> list[str]:
    """Every package that the course needs on a system, as name==version."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    build = "\n".join(project["build-system"]["requires"])  # start.py builds the package itself
    ask = _module("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate")
    ask += [f"--python-platform={target}", f"--python-version={python}", "--constraints=constraints.txt"]
    what = f"the list of packages for {target}, Python {python}"
    return _call([*ask, "requirements.txt", "-"], what, build).split()


def _module(name: str, *words: str) -> list[str]:
    """A program of this Python's, as a command; InputError if it is not installed."""
    if not importlib.util.find_spec(name):
        raise InputError(f'{name} is not installed; expected it; `pip install -e ".[offline]"` brings it.')
    return [sys.executable, "-m", name, *words]


def _call(command: Sequence[str | Path], what: str, given: str = "") -> str:
    """What a command prints in the checkout; InputError if it fails. given: its input."""
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": OLDEST_MACOS}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, input=given, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"{what}: not to be had (see above); expected a connection to it; try again.")
    return done.stdout
