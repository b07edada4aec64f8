"""The benchmarks that are run by hand: their arithmetic, on made-up counts."""

import runpy

import numpy as np
import pandas as pd
import pytest

from lungseg_utils.core.files import CHECKOUT, InputError
from lungseg_utils.evaluation import metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def leakage():
    return runpy.run_path(str(CHECKOUT / "benchmarks" / "leakage.py"))


def test_leakage_holds_back_every_second_slice_and_gives_every_network_as_many(leakage):
    volume = [None] * 10 + [1] * 8 + [2] * 6 + [3] * 20
    slices = pd.DataFrame(
        {
            "source": ["medseg"] * 10 + ["radiopaedia"] * 34,
            "volume": pd.array(volume, "Int64"),
            "split": ["validation"] * 4 + ["train"] * 40,
        }
    )
    common, seen = leakage["split_slices"](slices, [1, 2], 15)
    assert (common.source == "medseg").sum() == 6 and (common.volume == 3).sum() == 9
    assert {v: len(table) for v, table in seen.items()} == {1: 3, 2: 3}
    validation = pd.concat([slices[slices.volume == v].iloc[::2] for v in (1, 2)])
    assert not set(validation.index) & (set(common.index) | set(seen[1].index) | set(seen[2].index))
    for volumes, number, message in (
        ([1], 15, "at least two"),
        ([1, 9], 15, r"volumes \[9\]"),
        ([1, 2], 3, "6 MedSeg"),
    ):
        with pytest.raises(InputError, match=message):
            leakage["split_slices"](slices, volumes, number)


def test_leakage_compares_one_network_with_the_mean_of_the_others(leakage):
    rng = np.random.default_rng(0)
    volume, truth = np.repeat([1, 2, 3], 4), rng.integers(0, 4, (12, 16, 16))
    counts = {}
    for v in (1, 2, 3):  # right on the volume that it has seen, else half guessing
        wrong = (volume != v)[:, None, None] & (rng.random(truth.shape) < 0.5)
        prediction = np.where(wrong, rng.integers(0, 4, truth.shape), truth)
        counts[0, v] = np.array(
            [metrics.confusion_matrix(t, p) for t, p in zip(truth, prediction, strict=True)]
        )
    table = leakage["differences"](counts, volume).query("score == 'mIoU'").set_index("volume")
    assert table.leaking.tolist() == [1, 1, 1] and table.slices.tolist() == [4, 4, 4]
    others = (counts[0, 2] + counts[0, 3])[volume == 1].sum(0)
    assert table.clean[1] == pytest.approx(metrics.mean_iou(others))
    assert (table.low < table.difference).all() and (table.difference < table.high).all()
