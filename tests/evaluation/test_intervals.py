"""The bootstrap against a plain loop; what it covers; runs compared in pairs."""

import json

import numpy as np
import pandas as pd
import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.intervals import bootstrap, paired_difference, sum_by_volume, volume_scores

SCORES = {
    "accuracy": metrics.accuracy,
    "lesion_dice": metrics.lesion_dice,
    "consolidation_dice": lambda counts: metrics.dice(counts)[..., 1],
}


def make(slices: int, seed: int = 0) -> np.ndarray:
    """Counts of slices as uneven as real ones: each with its own size of lung and its own share of hits."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.integers(20, [400, 200, 900, 2000]) for _ in range(slices)])
    hits = rng.beta(4, 2, (slices, 4))
    shares = (1 - hits[..., None]) / 3 + (hits - (1 - hits) / 3)[..., None] * np.eye(4)
    return np.array([[rng.multinomial(n, p) for n, p in zip(*pair)] for pair in zip(truth, shares)])


def test_against_a_plain_loop():
    counts = make(12)
    ours = bootstrap(counts, SCORES, draws=4000)
    rng = np.random.default_rng(1)
    plain = [counts[rng.integers(0, len(counts), len(counts))].sum(0) for _ in range(4000)]
    for name, score in SCORES.items():
        theirs = np.percentile([score(draw) for draw in plain], [2.5, 97.5])
        np.testing.assert_allclose(ours[name], theirs, atol=0.1 * np.ptp(theirs))
        assert ours[name][0] < score(counts.sum(0)) < ours[name][1]


def test_the_seed_and_the_level():
    counts = make(12)
    assert bootstrap(counts, SCORES, draws=200) == bootstrap(counts, SCORES, draws=200)
    assert bootstrap(counts, SCORES, draws=200) != bootstrap(counts, SCORES, draws=200, seed=1)
    narrow, wide = (bootstrap(counts, SCORES, level=level)["accuracy"] for level in (0.5, 0.95))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    population = make(4000)
    truth = metrics.accuracy(population.sum(0))
    rng = np.random.default_rng(2)
    samples = [population[rng.choice(4000, 30)] for _ in range(200)]
    found = [bootstrap(sample, {"accuracy": metrics.accuracy}, draws=400)["accuracy"] for sample in samples]
    assert 0.88 < np.mean([low <= truth <= high for low, high in found]) < 0.99


def test_whole_volumes_are_drawn_where_they_are_known():
    volumes = np.repeat([1, 2, 3, 4, 5], 6)
    alike = np.repeat(make(5), 6, axis=0)  # the slices of a volume say the same
    by_slice, by_volume = (bootstrap(alike, SCORES, groups)["accuracy"] for groups in (None, volumes))
    assert np.ptp(by_volume) > 1.5 * np.ptp(by_slice)
    # Six equal slices drawn together are one slice: the very draws of the five volumes.
    assert by_volume == pytest.approx(bootstrap(make(5), SCORES)["accuracy"])
    # Slices of unknown volume are drawn by themselves.
    assert bootstrap(alike, SCORES, [pd.NA] * 30) == bootstrap(alike, SCORES)
    mixed = bootstrap(alike, SCORES, pd.array([1] * 6 + [pd.NA] * 24, dtype="Int64"))["accuracy"]
    assert mixed != by_slice and mixed != by_volume


def test_no_interval_from_one_slice_one_volume_or_too_few_valid_draws():
    counts = make(6)
    assert (
        set(bootstrap(counts[:1], SCORES).values()) == {None} == set(bootstrap(counts[:0], SCORES).values())
    )
    assert set(bootstrap(counts, SCORES, [3] * 6).values()) == {None}
    rare = counts.copy()
    rare[1:, 1] = rare[1:, :, 1] = (
        0  # consolidation in one of six slices: in 1 - (5 / 6) ** 6 = 67 % of the draws
    )
    assert None not in bootstrap(rare, SCORES).values()
    rare[:, 1] = rare[:, :, 1] = 0
    found = bootstrap(rare, SCORES)
    assert found["consolidation_dice"] is None and found["accuracy"] is not None
    half = {
        "half": lambda drawn: np.where(np.arange(len(drawn)) % 5 < 2, 0.5, np.nan)
    }  # two draws of five are valid
    assert bootstrap(counts, half) == {"half": None}


def test_paired_difference():
    a = make(20)
    b = a.copy()
    moved = b[:, 2, 2] // 20
    b[:, 2, 2] -= moved
    b[:, 2, 3] += moved  # b errs a little more in every slice
    found = paired_difference(a, b, SCORES)
    accuracy = found["accuracy"]
    assert accuracy["difference"] == pytest.approx(metrics.accuracy(a.sum(0)) - metrics.accuracy(b.sum(0)))
    assert 0 < accuracy["interval"][0] < accuracy["difference"] < accuracy["interval"][1]
    assert (
        accuracy["share_above"] == 1 and found["consolidation_dice"]["share_above"] == 0
    )  # equal is not above
    marginal = bootstrap(a, SCORES)["accuracy"]
    assert np.ptp(accuracy["interval"]) < np.ptp(marginal) / 2  # what both find hard has cancelled out
    mirrored = paired_difference(b, a, SCORES)["accuracy"]
    assert mirrored["interval"] == pytest.approx([-value for value in accuracy["interval"][::-1]])
    assert mirrored["share_above"] == 0
    one = paired_difference(a[:1], b[:1], SCORES)["accuracy"]
    assert one["difference"] > 0 and one["interval"] is one["share_above"] is None
    json.dumps(found, allow_nan=False)


def test_only_runs_on_the_same_slices_are_compared():
    a = make(4)
    with pytest.raises(InputError, match="4 and 3 slices"):
        paired_difference(a, a[:3], SCORES)
    with pytest.raises(InputError, match="true pixels of 2 slices, first at position 1"):
        paired_difference(a, a[[0, 2, 1, 3]], SCORES)
    with pytest.raises(InputError, match="3 volume numbers for 4 slices"):
        bootstrap(a, SCORES, [1, 2, 3])


def test_volumes_one_by_one():
    counts = make(5)
    volumes = [7, 2, None, 7, float("nan")]
    table, summed = sum_by_volume(counts, volumes)
    assert table.volume.tolist()[:2] == [2, 7] and table.volume.isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(summed, [counts[1], counts[0] + counts[3], counts[2] + counts[4]])
    scores = volume_scores(counts, SCORES, volumes)
    assert scores.slices.tolist() == [1, 2, 2] and list(scores) == ["volume", "slices", *SCORES]
    assert scores.accuracy[1] == metrics.accuracy(counts[0] + counts[3])
    whole = volume_scores(counts, SCORES)
    assert (
        len(whole) == 1
        and whole.volume.isna().all()
        and whole.lesion_dice[0] == metrics.lesion_dice(counts.sum(0))
    )
