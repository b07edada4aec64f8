"""Involved share of the lung by hand; agreement against other ways to the same numbers."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.regression import ConcordanceCorrCoef

from lungseg_utils.evaluation.burden import burden_agreement, burden_summary, predicted_burden, true_burden

COUNTS = np.array([[6, 2, 1, 1], [1, 3, 0, 6], [4, 0, 60, 6], [1, 0, 9, 900]])
pairs = arrays(
    float, st.tuples(st.just(2), st.integers(2, 20)), elements=st.integers(0, 100).map(lambda n: n / 128)
)


def test_lesion_over_lung_of_either_side():
    assert true_burden(COUNTS) == (10 + 10) / (10 + 10 + 70)
    assert predicted_burden(COUNTS) == (12 + 5) / (12 + 5 + 70)
    stack = np.stack([[COUNTS, COUNTS.T], [COUNTS, COUNTS]])
    assert true_burden(stack).shape == (2, 2) and true_burden(stack)[0, 1] == predicted_burden(COUNTS)
    no_class = np.c_[COUNTS, [5, 0, 0, 0]]  # true ground glass that thresholds gave no class
    assert true_burden(no_class) == 25 / 95 and predicted_burden(no_class) == predicted_burden(COUNTS)


def test_without_lung_there_is_no_share():
    empty = np.zeros((4, 4), int)
    empty[3, 3] = 9
    assert np.isnan(true_burden(empty)) and np.isnan(predicted_burden(empty))
    agreement = burden_agreement(np.array([np.nan, 0.1, 0.2, np.nan]), np.array([np.nan, np.nan, 0.3, 0.1]))
    assert (agreement["values"], agreement["no_true_lung"], agreement["no_predicted_lung"]) == (1, 2, 2)
    assert agreement["bias"] == pytest.approx(0.1) and agreement["limits"] is agreement["concordance"] is None
    assert burden_summary(empty[None])["slices"]["mean_absolute_error"] is None


def test_agreement_with_other_formulas():
    rng = np.random.default_rng(0)
    true = rng.random(30)
    predicted = 0.8 * true + 0.1 + 0.1 * rng.random(30)
    ours = burden_agreement(true, predicted)
    difference = pd.Series(predicted - true)
    assert ours["bias"] == pytest.approx(difference.mean())
    assert ours["limits"] == pytest.approx(
        [difference.mean() + sign * 1.96 * difference.std() for sign in (-1, 1)]
    )
    assert ours["mean_absolute_error"] == pytest.approx(difference.abs().mean())
    # Lin's definition: 1 - expected squared difference / the same if the two were independent (every pair).
    by_definition = 1 - np.mean((true - predicted) ** 2) / np.mean((true[:, None] - predicted) ** 2)
    assert ours["concordance"] == pytest.approx(by_definition)
    # torchmetrics divides the variances by n - 1; many copies of the same values make that the same.
    many = (torch.from_numpy(np.tile(values, 1000)) for values in (predicted, true))
    assert ours["concordance"] == pytest.approx(float(ConcordanceCorrCoef()(*many)), abs=1e-4)


@given(pairs)
def test_properties_of_agreement(pair):
    ours, mirrored = burden_agreement(*pair), burden_agreement(*pair[::-1])
    assert (
        mirrored["bias"] == pytest.approx(-ours["bias"])
        and abs(ours["bias"]) <= ours["mean_absolute_error"] + 1e-12
    )
    if ours["concordance"] is not None:
        assert (
            mirrored["concordance"] == pytest.approx(ours["concordance"])
            and abs(ours["concordance"]) <= 1 + 1e-12
        )
    same = burden_agreement(pair[0], pair[0])
    assert same["limits"] == [0, 0]
    assert same["concordance"] == (pytest.approx(1) if np.ptp(pair[0]) else None)


def test_volumes_pool_their_pixels():
    per_slice = np.stack([COUNTS, 3 * COUNTS.T, COUNTS])
    summary = burden_summary(per_slice, pd.array([2, 2, pd.NA], dtype="Int64"))
    assert summary["slices"]["values"] == 3 and summary["volumes"]["values"] == 1
    pooled = COUNTS + 3 * COUNTS.T
    assert summary["volumes"]["bias"] == pytest.approx(predicted_burden(pooled) - true_burden(pooled))
    assert burden_summary(per_slice, [pd.NA] * 3)["volumes"] is None is burden_summary(per_slice)["volumes"]
    json.dumps(summary, allow_nan=False)
