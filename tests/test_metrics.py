"""Scores against scikit-learn and torchmetrics, which count in their own ways, and the convention for what is empty."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import DiceScore

from lungseg_utils import metrics
from lungseg_utils.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER

LABELS = range(4)
maps = arrays(np.uint8, (2, 8, 8), elements=st.integers(0, 3))


@given(maps, maps)
@settings(deadline=None, max_examples=50)
def test_counts_and_scores_agree_with_scikit_learn(truth, prediction):
    counts = metrics.confusion_matrix(truth, prediction)
    t, p = truth.ravel(), prediction.ravel()
    np.testing.assert_array_equal(counts, sk.confusion_matrix(t, p, labels=LABELS))
    assert metrics.accuracy(counts) == pytest.approx(sk.accuracy_score(t, p))
    theirs = {"labels": LABELS, "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(metrics.dice(counts), sk.f1_score(t, p, **theirs))
    np.testing.assert_allclose(metrics.precision(counts), sk.precision_score(t, p, **theirs))
    np.testing.assert_allclose(metrics.recall(counts), sk.recall_score(t, p, **theirs))
    present = np.isin(LABELS, [*t, *p])  # scikit-learn's IoU gives 0 where a class is nowhere; ours has no score
    ours = metrics.iou(counts)
    np.testing.assert_allclose(ours[present], sk.jaccard_score(t, p, labels=LABELS, average=None, zero_division=0)[present])
    assert np.isnan(ours[~present]).all()
    lesion = sk.f1_score(t < 2, p < 2, zero_division=np.nan)
    np.testing.assert_allclose(metrics.lesion_dice(counts), lesion)


def test_iou_and_dice_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (2, 5, 32, 32))
    counts = metrics.confusion_matrix(truth, prediction)
    t, p = torch.from_numpy(truth), torch.from_numpy(prediction)
    np.testing.assert_allclose(metrics.iou(counts), MulticlassJaccardIndex(4, average=None)(p, t), rtol=1e-6)
    assert metrics.mean_iou(counts) == pytest.approx(float(MulticlassJaccardIndex(4)(p, t)))
    per_image = np.array([metrics.dice(metrics.confusion_matrix(a, b)) for a, b in zip(truth, prediction)])
    theirs = DiceScore(4, average="macro", input_format="index", aggregation_level="samplewise")(p, t)
    assert per_image.mean() == pytest.approx(float(theirs), rel=1e-5)


def test_a_class_that_is_nowhere_has_no_score_and_a_class_on_one_side_has_zero():
    truth = np.array([[BACKGROUND, LUNG_OTHER, LUNG_OTHER, BACKGROUND]])
    prediction = np.array([[BACKGROUND, LUNG_OTHER, GROUND_GLASS, BACKGROUND]])
    counts = metrics.confusion_matrix(truth, prediction)
    assert metrics.iou(counts)[GROUND_GLASS] == 0 and np.isnan(metrics.iou(counts)[CONSOLIDATION])
    assert metrics.mean_iou(counts) == pytest.approx((0 + 0.5 + 1) / 3)
    # The reference recipe skips what the truth lacks, so the false alarm costs it nothing beyond the lung it replaced.
    assert metrics.reference_definition(truth, prediction, 1)["mean_iou"] == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(metrics.mean_iou(np.zeros((4, 4), int))) and np.isnan(metrics.nanmean([]))


def test_the_reference_definition_averages_over_batches():
    truth = np.full((3, 2, 2), BACKGROUND)
    prediction = truth.copy()
    prediction[2, 0] = LUNG_OTHER  # half of the last slice, which is a batch of its own
    scores = metrics.reference_definition(truth, prediction, batch_size=2)
    assert scores == {"batch_size": 2, "accuracy": (1 + 0.5) / 2, "mean_iou": (1 + 0.5) / 2}


def test_competition_score_in_both_readings():
    easy, hard = np.zeros((4, 4), int), np.zeros((4, 4), int)
    easy[GROUND_GLASS, GROUND_GLASS] = 90  # F1 1, and no consolidation anywhere in this image
    hard[GROUND_GLASS, LUNG_OTHER] = hard[CONSOLIDATION, CONSOLIDATION] = 10
    score = metrics.competition_score(np.array([easy, hard]))
    assert score["pooled"] == pytest.approx((180 / 190 + 1) / 2)
    assert score["per_image"] == pytest.approx(((1 + 0) / 2 + 1) / 2)


def test_summary_is_json_without_nan():
    counts = np.zeros((2, 4, 4), int)
    counts[:, BACKGROUND, BACKGROUND] = 5
    summary = json.loads(json.dumps(metrics.summary(counts), allow_nan=False))
    assert summary["accuracy"] == 1 and summary["lesion_dice"] is None
    assert summary["classes"]["ground_glass"] == {"iou": None, "dice": None, "precision": None, "recall": None, "pixels": 0}


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="same shape"):
        metrics.confusion_matrix(np.zeros((2, 2), int), np.zeros(4, int))
