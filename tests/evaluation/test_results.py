"""Conclusions say what the numbers say; the files under results/ can be read back."""

import json

import numpy as np
import pandas as pd

from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.burden import burden_summary
from lungseg_utils.evaluation.intervals import bootstrap
from lungseg_utils.evaluation.lesions import lesion_summary
from lungseg_utils.evaluation.results import (
    conclusions,
    counts_of,
    save_results,
    slice_table,
    split_statement,
    worst_to_best,
)

COUNTS = np.array([[60, 20, 20, 0], [30, 10, 0, 60], [5, 0, 300, 10], [0, 0, 20, 900]])


def record_of(per_slice, lesions=()):
    """What conclusions reads of metrics.json."""
    table = pd.DataFrame(lesions, columns=["kind", "pixels", "hit"])
    return {
        "full_size": metrics.summary(per_slice),
        "intervals": bootstrap(per_slice, {"mean_iou": metrics.mean_iou}),
        "lesions": lesion_summary(table, len(per_slice)),
        "burden": burden_summary(per_slice),
    }


def test_conclusions_follow_the_numbers():
    text = " ".join(conclusions(record_of(COUNTS[None]), COUNTS, epochs=5, kept=5))
    assert f"Accuracy** is {1270 / 1435:.3f}" in text and f"would reach {920 / 1435:.3f}" in text
    assert "best class is *background*" in text and "weakest *consolidation*" in text
    assert "Ground glass: 60% of its pixels are found, and 63% of what is called so is right" in text
    assert "Consolidation: 10% of its pixels are found" in text and "mostly called *background*" in text
    assert f"{50 / 200:.0%} of the lesion pixels are found, but given the other lesion's class" in text
    assert "last of 5" in text
    assert "kept epoch is 2 of 5" in " ".join(conclusions(record_of(COUNTS[None]), COUNTS, epochs=5, kept=2))


def test_conclusions_about_lesions_burden_and_interval():
    more = COUNTS.copy()
    more[2, 0] += 100  # lung other taken for ground glass
    per_slice = np.stack([COUNTS, more])
    lesions = [("true", 50, True), ("true", 20, False), ("predicted", 30, False)]
    text = " ".join(conclusions(record_of(per_slice, lesions), per_slice.sum(0), epochs=5, kept=5))
    assert "Of 2 lesions 1 are found (50%), with 0.5 false alarms a slice" in text
    bias = np.mean([125 / 465 - 200 / 515, 225 / 565 - 200 / 615])
    assert f"off by {100 * bias:+.1f} points on average" in text
    low, high = bootstrap(per_slice, {"mean_iou": metrics.mean_iou})["mean_iou"]
    assert f"({low:.3f} to {high:.3f} over other draws" in text


def test_the_split_says_what_it_cannot_exclude():
    slices = pd.DataFrame(
        {
            "source": ["medseg"] * 3 + ["radiopaedia"] * 3,
            "volume": pd.array([None] * 3 + [1, 1, 2], "Int64"),
            "split": ["validation", "train", "left_out", "train", "train", "train"],
        }
    )
    text = " ".join(split_statement(slices))
    assert "1 slices of medseg. Training: 1 of medseg and 3 of radiopaedia" in text
    assert "no patient ids" in text and "1 near-identical" in text
    slices["split"] = ["train", "train", "train", "validation", "validation", "train"]
    assert "Volume 1 is held back whole" in " ".join(split_statement(slices))
    slices.loc[4, "split"] = "train"
    assert "**Leaking:** slices of volume 1 are on both sides" in " ".join(split_statement(slices))


def test_conclusions_without_a_lesion():
    counts = np.zeros((4, 4), int)
    counts[3, 3], counts[3, 1], counts[2, 2] = 50, 5, 20
    text = " ".join(conclusions(record_of(counts[None]), counts, epochs=1, kept=1))
    assert "Ground glass does not occur in these slices." in text and "yet 5 pixels" in text
    assert "nan" not in text


def test_slices_from_worst_to_best():
    table = pd.DataFrame({"lesion_dice": [0.5, np.nan, 0.1, 0.9]})
    assert worst_to_best(table).tolist() == [2, 0, 3]
    assert worst_to_best(table.iloc[[1]]).tolist() == [1]


def test_results_are_read_back(tmp_path):
    per_slice = np.stack([COUNTS, COUNTS.T])
    table = slice_table("medseg", [4, 7], per_slice, [None, 3])
    save_results(tmp_path, table, COUNTS, {"full_size": metrics.summary(per_slice)})
    back = pd.read_csv(tmp_path / "per_slice.csv")
    np.testing.assert_array_equal(counts_of(back), per_slice)
    assert back.volume.isna().tolist() == [True, False] and back.volume[1] == 3
    assert back["index"].tolist() == [4, 7] and back.ground_glass_true.tolist() == [100, 95]
    assert back.ground_glass_predicted.tolist() == [95, 100]
    assert np.allclose(back.lesion_dice, [metrics.lesion_dice(c) for c in per_slice])
    np.testing.assert_array_equal(
        pd.read_csv(tmp_path / "confusion.csv", index_col="true").to_numpy(), COUNTS
    )
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["schema"] == 2 and record["full_size"]["accuracy"] == metrics.accuracy(per_slice.sum(0))
