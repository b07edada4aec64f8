"""Seeds taken together: mean, spread, and paired differences seed by seed with their interval over slices."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lungseg_utils.evaluation.compare import Run
from lungseg_utils.evaluation.intervals import mean_paired_difference, paired_difference
from lungseg_utils.evaluation.results import COUNT_COLUMNS
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.evaluation.settings import compare_settings, setting_blocks
from lungseg_utils.plots.comparison import plot_settings

SLICES = 12
RNG = np.random.default_rng(0)
TRUE = RNG.integers(20, 60, (SLICES, 4))


def counts_of(right, seed):
    """(N, 4, 4): of each class's true pixels a share near `right` is right, the rest spread."""
    rng = np.random.default_rng(seed)
    share = np.clip(right + rng.normal(0, 0.05, (SLICES, 4)), 0, 1)
    kept = np.rint(TRUE * share).astype(int)
    counts = np.zeros((SLICES, 4, 4), int)
    for c in range(4):
        counts[:, c, c] = kept[:, c]
        counts[:, c, (c + 1) % 4] = TRUE[:, c] - kept[:, c]
    return counts


def make_run(tmp_path, loss, seed, right, **more):
    counts = counts_of(right, 10 * seed + len(loss))
    slices = pd.DataFrame({"source": "medseg", "index": np.arange(SLICES), "volume": pd.NA})
    for short, pixels in zip(("ground_glass", "consolidation", "lung_other", "background"), TRUE.T):
        slices[f"{short}_true"] = pixels
    for column, values in zip(COUNT_COLUMNS, counts.reshape(SLICES, 16).T):
        slices[column] = values
    return Run(
        folder=tmp_path / f"{loss}-{seed}",
        name=f"{loss}-{seed}",
        parameters={"loss": loss, "seed": seed, **more},
        record={"intervals": {}},
        scored_on="12 medseg slices of 64 x 64 pixels",
        scores={name: float(score(counts.sum(0))) for name, score in HEADLINE.items()},
        intervals=dict.fromkeys(HEADLINE, (np.nan, np.nan)),
        slices=slices,
        counts=counts,
    )


@pytest.fixture
def runs(tmp_path):
    """Three seeds of a worse loss, two and one more of a better one."""
    worse = [make_run(tmp_path, "worse", seed, 0.6) for seed in (0, 1, 2)]
    return [*worse, *(make_run(tmp_path, "better", seed, 0.8) for seed in (0, 1, 7))]


def test_mean_spread_and_the_mean_of_the_pairs(runs):
    table = compare_settings(runs)
    assert list(table.setting) == ["loss worse", "loss better"]
    assert list(table.runs) == [3, 3] and list(table.pairs) == [0, 2]  # seed 7 has no partner
    own = [run.scores["mean_iou"] for run in runs[3:]]
    better = table.iloc[1]
    assert better.mean_iou == pytest.approx(np.mean(own))
    assert better.mean_iou_sd == pytest.approx(np.std(own, ddof=1))
    gaps = [runs[3 + k].scores["mean_iou"] - runs[k].scores["mean_iou"] for k in (0, 1)]
    assert better.mean_iou_difference == pytest.approx(np.mean(gaps))
    assert better.mean_iou_difference_low < np.mean(gaps) < better.mean_iou_difference_high
    assert better.mean_iou_above == 2
    assert np.isnan(table.mean_iou_difference[0])


def test_one_pair_is_a_paired_difference(runs):
    a, b = runs[3].counts, runs[0].counts
    one = paired_difference(a, b, HEADLINE)
    mean = mean_paired_difference([(a, b, None)], HEADLINE)
    for name in HEADLINE:
        assert mean[name][0] == pytest.approx(one[name]["difference"])
        assert mean[name][1] == pytest.approx(one[name]["interval"])


def test_pairs_that_move_together_have_a_narrow_interval():
    """Each draw takes the same slices in every pair, so what slices do to both runs cancels out."""
    hard, easy = counts_of(0.5, 1), counts_of(0.9, 2)
    mixed = [np.where(np.arange(SLICES)[:, None, None] % 2, hard, easy) for _ in range(2)]
    [(gap, interval, each)] = mean_paired_difference(
        [(mixed[0], mixed[1], None)] * 2, {"accuracy": HEADLINE["accuracy"]}
    ).values()
    assert (gap, interval, each) == (0, (0, 0), [0, 0])


def test_folds_are_repeats_too_and_pair_with_their_own(tmp_path):
    runs = [
        make_run(tmp_path, loss, seed, right, validation_volume=fold)
        for loss, right in (("worse", 0.6), ("better", 0.8))
        for fold in (1, 4)
        for seed in (0, 1)
    ]
    table = compare_settings(runs)
    assert list(table.setting) == ["loss worse", "loss better"]
    assert list(table.pairs) == [0, 4]


def test_runs_on_other_slices_are_no_pair(runs):
    other = runs[3].slices.assign(index=np.arange(SLICES) + 1)
    table = compare_settings([*runs[:3], replace(runs[3], slices=other)])
    assert list(table.pairs) == [0, 0] and np.isnan(table.mean_iou_difference[1])
    assert len(setting_blocks(table)) == 1


def test_in_words_and_as_a_figure(runs):
    table = compare_settings(runs)
    means, paired = setting_blocks(table).values()
    assert means[1][:2] == ["loss worse", "3"] and "±" in means[1][2]
    assert paired[1][0] == "loss better" and paired[1][1].endswith("2 of 2 above")
    figure = plot_settings(table)
    assert len(figure.axes) == len(HEADLINE)
    plt.close(figure)
