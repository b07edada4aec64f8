"""Conclusions say what the numbers say; the files under results/ can be read back."""

import json

import numpy as np
import pandas as pd

from lungseg_utils import metrics
from lungseg_utils.report import conclusions, save_results, slice_table, worst_to_best

COUNTS = np.array([[60, 20, 20, 0], [30, 10, 0, 60], [5, 0, 300, 10], [0, 0, 20, 900]])


def test_conclusions_follow_the_numbers():
    text = " ".join(conclusions(metrics.summary(COUNTS[None]), COUNTS, epochs=5, kept=5))
    assert f"Accuracy** is {1270 / 1435:.3f}" in text and f"would reach {920 / 1435:.3f}" in text
    assert "best class is *background*" in text and "weakest *consolidation*" in text
    assert "Ground glass: 60% of its pixels are found, and 63% of what is called so is right" in text
    assert "Consolidation: 10% of its pixels are found" in text and "mostly called *background*" in text
    assert f"{50 / 200:.0%} of the lesion pixels are found, but given the other lesion's class" in text
    assert "last of 5" in text
    assert "kept epoch is 2 of 5" in " ".join(conclusions(metrics.summary(COUNTS[None]), COUNTS, epochs=5, kept=2))


def test_conclusions_without_a_lesion():
    counts = np.zeros((4, 4), int)
    counts[3, 3], counts[3, 1], counts[2, 2] = 50, 5, 20
    text = " ".join(conclusions(metrics.summary(counts[None]), counts, epochs=1, kept=1))
    assert "Ground glass does not occur in these slices." in text and "yet 5 pixels" in text
    assert "nan" not in text


def test_slices_from_worst_to_best():
    table = pd.DataFrame({"lesion_dice": [0.5, np.nan, 0.1, 0.9]})
    assert worst_to_best(table).tolist() == [2, 0, 3]
    assert worst_to_best(table.iloc[[1]]).tolist() == [1]


def test_results_are_read_back(tmp_path):
    per_slice = np.stack([COUNTS, COUNTS.T])
    table = slice_table("medseg", [4, 7], per_slice)
    save_results(tmp_path, table, COUNTS, {"full_size": metrics.summary(per_slice)})
    back = pd.read_csv(tmp_path / "per_slice.csv")
    assert back["index"].tolist() == [4, 7] and back.ground_glass_true.tolist() == [100, 95]
    assert back.ground_glass_predicted.tolist() == [95, 100]
    assert np.allclose(back.lesion_dice, [metrics.lesion_dice(c) for c in per_slice])
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "confusion.csv", index_col="true").to_numpy(), COUNTS)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["schema"] == 1 and record["full_size"]["accuracy"] == metrics.accuracy(per_slice.sum(0))
