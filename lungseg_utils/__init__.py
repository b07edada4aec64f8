"""lungseg_utils: the shared package of the lungseg notebooks (segmentation of lung infection in chest CT)."""

import os
from contextlib import suppress

# albumentations asks PyPI for its newest version at import; classrooms and Kaggle kernels are often offline.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

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
