"""The changes that models are tried on: labels go with the picture, and the values are what the row says."""

import runpy

import numpy as np
import pytest

from lungseg_utils.core.classes import BACKGROUND, GROUND_GLASS
from lungseg_utils.core.files import CHECKOUT


@pytest.fixture(scope="module")
def changes():
    return runpy.run_path(str(CHECKOUT / "benchmarks" / "robustness.py"))["CHANGES"]


def a_slice():
    """A trunk with two lungs and a lesion in the left one: HU float32 and labels, (256, 256)."""
    y, x = np.mgrid[:256, :256]
    hu, labels = np.full((256, 256), -1000.0), np.full((256, 256), BACKGROUND, np.uint8)
    hu[((x - 128) / 110) ** 2 + ((y - 128) / 80) ** 2 < 1] = 50
    for middle in (80, 176):
        hu[((x - middle) / 32) ** 2 + ((y - 128) / 50) ** 2 < 1] = -850
    lesion = (x - 80) ** 2 + (y - 140) ** 2 < 200
    hu[lesion], labels[lesion] = -500, GROUND_GLASS
    return (hu + np.random.default_rng(0).normal(0, 15, hu.shape)).astype(np.float32), labels


def test_every_change_keeps_the_lesion_where_its_label_is(changes):
    hu, labels = a_slice()
    for name, change in changes.items():
        seen, where = change(hu, labels)
        assert seen.shape == where.shape == hu.shape and where.dtype == np.uint8, name
        inside = seen[where == GROUND_GLASS].mean()
        assert -850 < inside < -250, f"{name}: {inside}"


def test_a_body_at_a_part_of_its_size_covers_the_square_of_it(changes):
    hu, labels = a_slice()
    _, small = changes["body at 0.6 of its size"](hu, labels)
    assert (small == GROUND_GLASS).sum() == pytest.approx(0.36 * (labels == GROUND_GLASS).sum(), rel=0.1)
    lower, same = changes["HU 100 lower"](hu, labels)
    np.testing.assert_allclose(lower, hu - 100)
    np.testing.assert_array_equal(same, labels)
