"""Scores against scikit-learn and torchmetrics, and the convention for what is empty."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassJaccardIndex, MulticlassSpecificity
from torchmetrics.segmentation import DiceScore

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LESIONS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import to_labels
from lungseg_utils.evaluation import metrics

LABELS = range(4)
maps = arrays(np.uint8, (2, 8, 8), elements=st.integers(0, 3))
maps_with_gaps = arrays(np.uint8, (2, 8, 8), elements=st.integers(0, metrics.NO_CLASS))
PER_CLASS = (metrics.iou, metrics.dice, metrics.precision, metrics.recall, metrics.specificity)
EVERY_SCORE = (*PER_CLASS, metrics.accuracy, metrics.lesion_dice, metrics.mean_iou, metrics.mean_dice)

EMPTY = np.full((1, 16, 16), BACKGROUND, np.uint8)
FULL = np.full((1, 16, 16), GROUND_GLASS, np.uint8)
DOT = EMPTY.copy()
DOT[0, 0, 15] = CONSOLIDATION
RANDOM = np.random.default_rng(0).integers(0, 4, (1, 16, 16), dtype=np.uint8)
EXTREMES = {"empty": EMPTY, "full": FULL, "one pixel": DOT, "random": RANDOM}


def check_against_scikit_learn(truth, prediction):
    counts = metrics.confusion_matrix(truth, prediction, no_class=True)
    t, p = truth.ravel(), prediction.ravel()
    np.testing.assert_array_equal(counts, sk.confusion_matrix(t, p, labels=range(5))[:4])
    assert metrics.accuracy(counts) == pytest.approx(sk.accuracy_score(t, p))
    theirs = {"labels": LABELS, "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(metrics.dice(counts), sk.f1_score(t, p, **theirs))
    np.testing.assert_allclose(metrics.precision(counts), sk.precision_score(t, p, **theirs))
    np.testing.assert_allclose(metrics.recall(counts), sk.recall_score(t, p, **theirs))
    # Specificity is the recall of "not this class".
    others = [sk.recall_score(t != c, p != c, zero_division=np.nan) for c in LABELS]
    np.testing.assert_allclose(metrics.specificity(counts), others)
    present = np.isin(
        LABELS, [*t, *p]
    )  # scikit-learn's IoU gives 0 where a class is nowhere; ours has no score
    ours = metrics.iou(counts)
    jaccard = sk.jaccard_score(t, p, labels=LABELS, average=None, zero_division=0)
    np.testing.assert_allclose(ours[present], jaccard[present])
    assert np.isnan(ours[~present]).all()
    lesion = metrics.lesion_counts(counts)
    np.testing.assert_array_equal(lesion, sk.confusion_matrix(t > 1, p > 1, labels=(False, True)))
    np.testing.assert_allclose(metrics.lesion_dice(counts), sk.f1_score(t < 2, p < 2, zero_division=np.nan))


@given(maps, maps_with_gaps)
@settings(max_examples=50)
def test_counts_and_scores_agree_with_scikit_learn(truth, prediction):
    check_against_scikit_learn(truth, prediction)


@pytest.mark.parametrize("truth", EXTREMES)
@pytest.mark.parametrize("prediction", [*EXTREMES, "all wrong"])
def test_masks_at_the_extremes_agree_with_scikit_learn(truth, prediction):
    truth = EXTREMES[truth]
    check_against_scikit_learn(truth, EXTREMES.get(prediction, (truth + 1) % 4))


def test_real_masks_agree_with_scikit_learn(real_data):
    masks = np.load(real_data / "masks_medseg.npy", mmap_mode="r")
    truth = to_labels(masks[:3], one_hot=True)
    check_against_scikit_learn(truth, np.roll(truth, 9, axis=2))  # shifted
    check_against_scikit_learn(truth, truth[::-1])  # another slice's


def test_scores_agree_with_torchmetrics():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (2, 5, 32, 32))
    counts = metrics.confusion_matrix(truth, prediction)
    t, p = torch.from_numpy(truth), torch.from_numpy(prediction)
    np.testing.assert_allclose(metrics.iou(counts), MulticlassJaccardIndex(4, average=None)(p, t), rtol=1e-6)
    np.testing.assert_allclose(
        metrics.specificity(counts), MulticlassSpecificity(4, average=None)(p, t), rtol=1e-6
    )
    assert metrics.mean_iou(counts) == pytest.approx(float(MulticlassJaccardIndex(4)(p, t)))
    per_image = np.array([metrics.confusion_matrix(a, b) for a, b in zip(truth, prediction)])
    for background in (True, False):  # torchmetrics leaves out class 0
        t, p = ((3 - torch.from_numpy(x)) for x in (truth, prediction))
        theirs = DiceScore(4, background, "macro", input_format="index", aggregation_level="samplewise")(p, t)
        assert metrics.mean_dice(per_image, background).mean() == pytest.approx(float(theirs), rel=1e-5)


@given(maps, maps)
@settings(max_examples=50)
def test_properties(truth, prediction):
    counts = metrics.confusion_matrix(truth, prediction)
    for score in EVERY_SCORE:
        values = score(counts)
        assert np.all(np.isnan(values) | ((values >= 0) & (values <= 1)))  # bounds
        perfect = score(metrics.confusion_matrix(truth, truth))
        assert np.all(np.isnan(perfect) | (perfect == 1))
        flipped = metrics.confusion_matrix(truth[:, ::-1], prediction[:, ::-1])
        np.testing.assert_array_equal(score(flipped), values)
    swapped = counts.T  # truth and prediction change places
    for score in (metrics.accuracy, metrics.iou, metrics.dice, metrics.lesion_dice):
        np.testing.assert_array_equal(score(swapped), score(counts))
    np.testing.assert_array_equal(metrics.precision(swapped), metrics.recall(counts))
    order = np.array([2, 0, 3, 1])  # class c is now called order[c]
    renamed = metrics.confusion_matrix(order[truth], order[prediction])
    for score in PER_CLASS:
        np.testing.assert_array_equal(score(renamed)[order], score(counts))


@pytest.mark.parametrize("columns", [4, 5])
def test_leading_axes_are_scored_one_by_one(columns):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (2, 3, 4, columns)) * rng.integers(0, 2, (2, 3, 4, 1))  # some rows are empty
    for score in EVERY_SCORE:
        expected = [[score(counts[i, j]) for j in range(3)] for i in range(2)]
        np.testing.assert_array_equal(score(counts), expected)
    both = metrics.competition_score(counts)  # the axis before the matrices is that of the images
    for reading in ("pooled", "per_image"):
        np.testing.assert_array_equal(
            both[reading], [metrics.competition_score(draw)[reading] for draw in counts]
        )


def test_one_matrix_gives_plain_floats():
    """Which format, go into JSON, and into checkpoints, whose safe loading refuses numpy's scalars."""
    counts = metrics.confusion_matrix(RANDOM, RANDOM)
    scores = [
        score(counts)
        for score in (metrics.accuracy, metrics.lesion_dice, metrics.mean_iou, metrics.mean_dice)
    ]
    scores += metrics.competition_score(counts[None]).values()
    assert {type(score) for score in scores} == {float} and set(scores) == {1.0}


def test_a_class_that_is_nowhere_has_no_score_and_a_class_on_one_side_has_zero():
    truth = np.array([[BACKGROUND, LUNG_OTHER, LUNG_OTHER, BACKGROUND]])
    prediction = np.array([[BACKGROUND, LUNG_OTHER, GROUND_GLASS, BACKGROUND]])
    counts = metrics.confusion_matrix(truth, prediction)
    assert metrics.iou(counts)[GROUND_GLASS] == 0 and np.isnan(metrics.iou(counts)[CONSOLIDATION])
    assert metrics.mean_iou(counts) == pytest.approx((0 + 0.5 + 1) / 3)
    assert metrics.mean_iou(counts, background=False) == pytest.approx((0 + 0.5) / 2)
    np.testing.assert_array_equal(metrics.recall(counts), [np.nan, np.nan, 0.5, 1])
    np.testing.assert_array_equal(metrics.precision(counts), [0, np.nan, 1, 1])
    np.testing.assert_array_equal(metrics.specificity(counts), [3 / 4, 1, 1, 1])
    # The reference recipe skips what the truth lacks, so the false alarm costs it nothing beyond the lung it
    # replaced.
    assert metrics.reference_definition(truth, prediction, 1)["mean_iou"] == pytest.approx((0.5 + 1) / 2)
    assert np.isnan(metrics.mean_iou(np.zeros((4, 4), int))) and np.isnan(metrics.nanmean([]))


def test_a_pixel_without_a_class_is_missed_and_is_no_false_alarm():
    truth = np.array([GROUND_GLASS, GROUND_GLASS, BACKGROUND, BACKGROUND])
    prediction = np.array([GROUND_GLASS, metrics.NO_CLASS, BACKGROUND, BACKGROUND])
    counts = metrics.confusion_matrix(truth, prediction, no_class=True)
    assert counts.shape == (4, 5) and metrics.accuracy(counts) == 0.75
    assert metrics.recall(counts)[GROUND_GLASS] == 0.5 and metrics.lesion_dice(counts) == 2 / 3
    assert metrics.precision(counts)[BACKGROUND] == 1 and metrics.specificity(counts)[BACKGROUND] == 1


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


def test_the_competition_score_agrees_with_scikit_learn_in_both_readings():
    truth, prediction = np.random.default_rng(1).integers(0, 4, (2, 6, 64))
    truth[:3][truth[:3] == CONSOLIDATION] = prediction[:2][prediction[:2] == CONSOLIDATION] = BACKGROUND
    score = metrics.competition_score(
        np.array([metrics.confusion_matrix(t, p) for t, p in zip(truth, prediction)])
    )
    f1 = {"labels": LESIONS, "average": None, "zero_division": np.nan}
    assert score["pooled"] == pytest.approx(sk.f1_score(truth.ravel(), prediction.ravel(), **f1).mean())
    images = np.array([sk.f1_score(t, p, **f1) for t, p in zip(truth, prediction)])
    assert np.isnan(images).sum() == 2  # slices 0 and 1 have no consolidation on either side
    assert score["per_image"] == pytest.approx(np.nanmean(images, axis=0).mean())


def test_summary_is_json_without_nan():
    counts = np.zeros((2, 4, 4), int)
    counts[:, BACKGROUND, BACKGROUND] = 5
    summary = json.loads(json.dumps(metrics.summary(counts), allow_nan=False))
    assert (
        summary["accuracy"] == summary["mean_dice"] == 1 and summary["mean_dice_without_background"] is None
    )
    assert summary["lesion_dice"] is None and summary["lesion"]["recall"] is None
    nowhere = {"iou": None, "dice": None, "precision": None, "recall": None, "specificity": 1, "pixels": 0}
    assert summary["classes"]["ground_glass"] == nowhere


def test_pooled_and_per_slice_tell_different_stories():
    large, speck, healthy = np.zeros((3, 4, 4), int)
    large[GROUND_GLASS, GROUND_GLASS] = 990
    speck[GROUND_GLASS, BACKGROUND] = 10
    healthy[BACKGROUND, BACKGROUND] = 1000
    slices = np.array([large, speck, healthy])
    assert metrics.summary(slices)["lesion_dice"] == pytest.approx(2 * 990 / (2 * 990 + 10))
    per_slice = json.loads(json.dumps(metrics.per_slice_summary(slices), allow_nan=False))
    assert per_slice["lesion_dice"] == {
        "mean": 0.5,
        "median": 0.5,
        "slices": 2,
    }  # the healthy slice has no score
    assert per_slice["consolidation_iou"] == {"mean": None, "median": None, "slices": 0}
    assert per_slice["accuracy"] == pytest.approx({"mean": 2 / 3, "median": 1, "slices": 3})


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        (np.zeros((2, 2), int), np.zeros(4, int), r"shape \(2, 2\), prediction \(4,\); expected the same"),
        (np.array([0, 4]), np.array([0, 0]), "truth holds labels from 0 to 4; expected 0 to 3"),
        (np.array([0, 0]), np.array([0, 4]), "prediction holds labels from 0 to 4; expected 0 to 3"),
        (np.array([0, 0]), np.array([-1, 3]), "prediction holds labels from -1 to 3"),
        (np.array([0, 0]), np.array([0.2, 0.9]), "prediction is float64; expected integers"),
    ],
)
def test_bad_labels_get_one_clear_sentence(truth, prediction, words):
    with pytest.raises(InputError, match=words):
        metrics.confusion_matrix(truth, prediction)
