"""lungseg_utils: the shared package of the lungseg notebooks (segmentation of lung infection in chest CT)."""

import os
from contextlib import suppress

# albumentations asks PyPI for its newest version at import; classrooms and Kaggle kernels are often offline.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# OpenMP's threads spin while they wait for each other. Beside other work they spin on cores that it needs,
# and a step takes many times as long; after so short a spin they sleep (benchmarks/threads.md). OpenMP reads
# it when torch loads; kernels and other processes inherit it. GNU's counts spins, LLVM's and Intel's
# milliseconds.
WAITING = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}
if not os.environ.keys() & {*WAITING, "OMP_WAIT_POLICY"}:  # who has set one of them knows better
    os.environ.update(WAITING)

__version__ = "0.2.0"


def installed_versions(*packages: str) -> dict[str, str]:
    """This package's version and those of the named packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"lungseg": __version__}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def versions(*packages: str) -> str:
    """`installed_versions` in one line, for the top of a notebook."""
    return ", ".join(f"{package} {version}" for package, version in installed_versions(*packages).items())
