"""Fixtures that several test modules share.

Tiny data, a tiny trained run, and the real arrays where there are some.
"""

import os
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from helpers import CPU, TINY_CONFIG
from hypothesis import settings

from lungseg_utils.core.language import ENGLISH, set_language
from lungseg_utils.data.arrays import FILES, load_data
from lungseg_utils.data.phantom import write_phantom
from lungseg_utils.data.preprocessing import fit_preprocessing, prepare
from lungseg_utils.data.splits import make_slices
from lungseg_utils.training.loop import train

mpl.use("Agg")


settings.register_profile("any machine", deadline=None)  # however busy it is
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def english_again():
    """No test leaves its language to the next."""
    yield
    set_language(ENGLISH)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the competition's arrays; the test is skipped where LUNGSEG_REAL_DATA does not name one."""
    folder = os.environ.get("LUNGSEG_REAL_DATA")
    if not folder:
        pytest.skip("LUNGSEG_REAL_DATA names no folder with the real arrays")
    missing = [
        name for names in FILES.values() for name in names if name and not (Path(folder) / name).exists()
    ]
    assert not missing, f"LUNGSEG_REAL_DATA is {folder}, which lacks {', '.join(missing)}"
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_phantom(tmp_path_factory) -> Path:
    """27 MedSeg-like slices, two volumes of four slices, two test slices, 64 px.

    Two of MedSeg's train, a nearly identical one is left out.
    """
    folder = tmp_path_factory.mktemp("phantom") / "tiny"
    return write_phantom(folder, medseg=27, volumes=2, slices_per_volume=4, test=2, size=64, seed=1)


@pytest.fixture(scope="session")
def prepared_dir(tiny_phantom, tmp_path_factory) -> Path:
    """The tiny phantom as 02_preprocessing leaves it."""
    data = load_data(tiny_phantom)
    slices = make_slices(data)
    return prepare(data, slices, fit_preprocessing(data, slices), tmp_path_factory.mktemp("run") / "prepared")


@pytest.fixture(scope="session")
def trained_dir(prepared_dir, tmp_path_factory) -> Path:
    """A run directory with a finished tiny training."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(prepared_dir, folder, TINY_CONFIG, CPU)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def coarse_pictures():
    """Figures at 20 dots an inch: they are drawn to see that they can be."""
    save = mpl.figure.Figure.savefig
    mpl.figure.Figure.savefig = lambda self, target, **options: save(self, target, **options | {"dpi": 20})
    yield
    mpl.figure.Figure.savefig = save
