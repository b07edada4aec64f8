"""Counts of 01_eda on arrays small enough to count by hand."""

import numpy as np

from lungseg_utils.data.arrays import CTData
from lungseg_utils.data.exploration import HU_BINS, explore


def test_counts_by_hand(tmp_path):
    labels = np.full((2, 128, 128), 3, np.uint8)
    labels[0, :64] = 2  # lung above
    labels[0, 0:4, 0:4] = 0  # one lesion of 16 + 1 pixels: the diagonal neighbour belongs to it
    labels[0, 4, 4] = 1
    labels[0, 10, 100] = 1  # and a speck
    hu = np.choose(labels, [-610.0, 10.0, -850.0, 5000.0])
    found = explore(CTData(tmp_path, {"medseg": hu}, {"medseg": labels}, np.zeros(0, int)), "medseg")

    assert found.histograms.sum() == labels.size
    assert found.histograms[0, np.searchsorted(HU_BINS, -610) - 1] == 16
    assert found.histograms[3, -1] == (labels == 3).sum()  # beyond the last bin counts in it
    assert found.lesions.pixels.tolist() == [17, 1] and set(found.lesions.slice) == {0}
    assert found.lesions.percent.iloc[1] == 100 / 128**2
    assert found.places[0, 0] == found.places[2, 2] == found.places[5, 50] == 0.5
    assert found.places.sum() == 0.5 * (4 + 1 + 1)
    assert found.bodies[0, 0] == 0.5  # soft tissue in the second slice only
    assert found.bodies[40, 5] == 1 and found.bodies[20, 50] == 0.5
    lung = hu[0, :64]
    assert np.isclose(found.lung_hu[0], lung.mean()) and np.isnan(found.lung_hu[1])
