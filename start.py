"""Sets up .venv once, then does what is asked: the series, the tests, the linters, JupyterLab.

On Linux, macOS and Windows, with nothing but Python's standard library; the Makefile calls it too.

    python3 start.py run        the six notebooks on the phantom; what follows goes to `lungseg run`
    py start.py test            on Windows

TORCH=cpu in the environment takes PyTorch's builds for a CPU, TORCH=cu126 those for CUDA 12.6 and so on,
TORCH=pypi, the default, those of PyPI.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / "python"
READY = VENV / "ready"  # says which TORCH
WHEELS = HERE / "wheels"  # of `lungseg class --offline`: all packages, so that no network is needed
SOURCES = ("pyproject.toml", "requirements.txt", "constraints.txt")
EXTRAS = ".[test,lint,fast,formats,batch]"
BUILDS = "https://download.pytorch.org/whl/"
SITE_READY = VENV / "site_ready"
WHAT = {
    "run": "the six notebooks on the phantom (--profile reference --data-dir DIR for more)",
    "test": "the linters and all tests (-k metrics for some)",
    "quick": "the tests that take seconds",
    "lint": "ruff, mypy and import-linter (--fix mends what ruff can)",
    "lab": "open the notebooks in Jupyter",
    "notebooks": "re-execute the committed notebooks in place, on the phantom",
    "translations": "bring the catalogues and notebooks of other languages up to date",
    "site": "notebooks and pages as a web site in site/, English and Spanish (--serve to look at it)",
    "setup": "only .venv",
    "clean": "remove .venv and what was built, not runs/ and data/",
}
BUILT = (
    ".venv",
    "build",
    "dist",
    "site",
    "lungseg.egg-info",
    ".pytest_cache",
    ".hypothesis",
    ".ruff_cache",
    ".mypy_cache",
)
OLDEST = (3, 11)
NEWER = (
    "Python 3.11 or newer is needed: name one, as in 'make run PYTHON=python3.12' or 'py -3.12 start.py run'."
)
INTEL_MAC = (
    "This is a Python for Intel's Macs: PyTorch's builds for it ended with 2.2, and 2.6 or newer is needed. "
    "Open the notebooks on Colab or Kaggle (README.md); on a Mac with Apple's processor, take its own Python."
)


def main(arguments):
    """Do what the first word says, with the other words as its options."""
    name, options = (arguments or ["help"])[0], arguments[1:]
    if name == "clean":
        for folder in (*BUILT, ".import_linter_cache"):
            shutil.rmtree(HERE / folder, ignore_errors=True)
    elif name in WHAT:
        set_up()
        globals()[name](options)
    else:
        print(__doc__, *(f"{word:10}{text}" for word, text in WHAT.items()), sep="\n")
        sys.exit(name not in ("help", "-h", "--help"))


def set_up():
    """Install into .venv, if that was not done since one of SOURCES changed, or for another TORCH."""
    if sys.version_info[:2] < OLDEST:
        sys.exit(f"{sys.executable} is Python {platform.python_version()}; {NEWER}")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        sys.exit(INTEL_MAC)
    pythons = (WHEELS / "pythons.txt").read_text(encoding="utf-8").split() if WHEELS.exists() else []
    if pythons and ".".join(map(str, sys.version_info[:2])) not in pythons:
        found = f"{sys.executable} is Python {platform.python_version()}"
        sys.exit(f"{found}; the packages in wheels are for Python {' or '.join(pythons)}: name one.")
    installed = (READY.read_text(encoding="utf-8") or "pypi") if READY.exists() else None
    torch = os.environ.get("TORCH") or installed or "pypi"
    if installed == torch and READY.stat().st_mtime >= max((HERE / name).stat().st_mtime for name in SOURCES):
        return
    small = torch == "cpu" or pythons or sys.platform != "linux"
    size = "2.6 GB" if small else "7 GB, most of it CUDA for a GPU of NVIDIA's (TORCH=cpu: 2.6 GB without it)"
    print(f"Setting up .venv: once, some minutes and {size}.", flush=True)
    began = time.monotonic()
    python = getattr(sys, "_base_executable", None) or sys.executable  # not the one in .venv, which may go
    if installed != torch:  # the other build's libraries would stay
        if os.name == "nt" and VENV in Path(sys.executable).parents:
            sys.exit(
                "This is .venv's own Python, and .venv is to be made anew; run `deactivate`, then this again."
            )
        shutil.rmtree(VENV, ignore_errors=True)
    call(python, "-m", "venv", VENV)
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    if uv := shutil.which("uv"):
        pip = [uv, "pip", "install", "--python", PYTHON]
    pip += ["-c", "constraints.txt"]
    if pythons:
        pip += ["--no-index", "--find-links", WHEELS]
    elif torch != "pypi":  # both from one place, or they do not fit; what they need comes from PyPI
        call(*pip, "--no-deps", "--index-url", BUILDS + torch, "torch", "torchvision")
    call(*pip, "-e", "." if pythons else EXTRAS)
    READY.write_text(torch, encoding="utf-8")
    print(f".venv is ready after {time.monotonic() - began:.0f} s.", flush=True)


def setup(_):
    """Nothing more than what comes before everything."""


def run(options):
    """The series."""
    hand_over(PYTHON, "-m", "lungseg_utils", "run", *options)


def notebooks(options):
    """The committed outputs, anew."""
    hand_over(PYTHON, "-m", "lungseg_utils", "notebooks", *options)


def translations(_):
    """What the other languages' catalogues and notebooks are made from, anew."""
    hand_over(PYTHON, "-m", "lungseg_utils", "translations")


def lab(options):
    """JupyterLab; its kernels inherit how the package lets threads wait."""
    code = "import sys, lungseg_utils; from jupyterlab.labapp import main; sys.exit(main())"
    hand_over(PYTHON, "-c", code, "notebooks", *options)


def site(options):
    """The pages laid out, built and checked; with --serve, built anew and shown at localhost:8000."""
    if not SITE_READY.exists() or SITE_READY.stat().st_mtime < (HERE / "pyproject.toml").stat().st_mtime:
        call(PYTHON, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "-e", ".[site]")
        SITE_READY.touch()
    call(PYTHON, "docs/site/stage.py")
    if "--serve" in options:
        hand_over(PYTHON, "-m", "mkdocs", "serve")
    call(PYTHON, "-m", "mkdocs", "build", "--strict")
    hand_over(PYTHON, "docs/site/check.py")


def lint(options):
    """All linters; the first that finds something ends it."""
    fix = "--fix" in options
    call(PYTHON, "-m", "ruff", "check", *(["--fix"] if fix else []))
    call(PYTHON, "-m", "ruff", "format", *([] if fix else ["--check"]))
    call(PYTHON, "-m", "mypy")
    call(BIN / "lint-imports", "--no-logo")


def test(options):
    """The linters, then all tests."""
    lint([])
    pytest(options)


def quick(options):
    """The fast tests."""
    pytest(["-m", "not slow", *options])


def pytest(options):
    """Two processes unless PROCESSES says another number; one thread each: more would wait for each other."""
    os.environ["OMP_NUM_THREADS"] = "1"
    processes = os.environ.get("PROCESSES") or "2"
    spread = [] if processes == "1" else ["-n", processes, "--dist", "loadfile"]
    hand_over(PYTHON, "-m", "pytest", *spread, *options)


def call(*command):
    """Run a command here; its failure ends everything."""
    status = subprocess.run([str(word) for word in command], cwd=HERE, check=False).returncode
    if status:
        sys.exit(status)


def hand_over(*command):
    """Run the last command, whose exit status is ours; stops are its own affair."""
    command = [str(word) for word in command]
    os.chdir(HERE)
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        with suppress(KeyboardInterrupt):  # the console sends Ctrl-C to both
            sys.exit(process.wait())


if __name__ == "__main__":
    main(sys.argv[1:])
