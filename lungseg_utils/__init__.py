"""lungseg_utils: the shared package of the lungseg notebooks (segmentation of lung infection in chest CT)."""

import os

# albumentations asks PyPI for its newest version at import; classrooms and Kaggle kernels are often offline.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"


def versions(*packages: str) -> str:
    """One line for the top of a notebook: this package's version and those of the named installed packages."""
    from importlib.metadata import version

    return ", ".join([f"lungseg {__version__}", *(f"{package} {version(package)}" for package in packages)])
