"""Each definition against the library or the loop that it speaks for."""

import numpy as np
import pytest
import segmentation_models_pytorch.metrics as smp
import torch
from sklearn import metrics as sk
from torchmetrics.classification import MulticlassJaccardIndex

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS
from lungseg_utils.core.files import InputError
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.definitions import ABSENT, definitions_table

BATCH = 2


@pytest.fixture(scope="module")
def stacks():
    """Five slices, the last a batch of its own.

    Classes missing here and there, so that every definition differs.
    """
    rng = np.random.default_rng(0)
    truth, prediction = rng.choice(4, (2, 5, 16, 12), p=(0.15, 0.05, 0.3, 0.5)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, prediction)
    for stack, slices, lesion in (
        (truth, [0, 1, 4], CONSOLIDATION),
        (prediction, [1, 2, 4], CONSOLIDATION),
        (truth, [3], GROUND_GLASS),
    ):
        stack[slices] = np.where(stack[slices] == lesion, BACKGROUND, stack[slices])
    threshold = np.where(rng.random(truth.shape) < 0.1, metrics.NO_CLASS, prediction)
    return truth, {"argmax": prediction, "0.5 threshold": threshold}


@pytest.fixture(scope="module")
def table(stacks):
    return (
        definitions_table(*stacks, BATCH)
        .set_index(["background", "rule", "averaging", "absent"])
        .sort_index()
    )


def test_one_row_a_definition_and_no_two_mious_alike_where_classes_are_missing(table):
    assert len(table) == 2 * 2 * 3 * len(ABSENT) and table.index.is_unique
    assert set(table["size"]) == {"16 x 12"}
    for averaging in ("batch", "slice"):
        assert table.loc[("with", "argmax", averaging)].mean_iou.nunique() == len(ABSENT)
    assert (table.loc[("with", "0.5 threshold")].accuracy < table.loc[("with", "argmax")].accuracy).all()
    assert table.loc["without"].accuracy.isna().all()


@pytest.mark.parametrize("rule", ["argmax", "0.5 threshold"])
def test_ours_are_those_of_the_report(stacks, table, rule):
    truth, prediction = stacks[0], stacks[1][rule]
    counts = np.array([metrics.confusion_matrix(t, p, no_class=True) for t, p in zip(truth, prediction)])
    summary, per_slice = metrics.summary(counts), metrics.per_slice_summary(counts)
    for background, suffix in (("with", ""), ("without", "_without_background")):
        pooled = table.loc[(background, rule, "pooled", "skipped")]
        assert pooled.mean_iou == pytest.approx(summary[f"mean_iou{suffix}"])
        assert pooled.mean_dice == pytest.approx(summary[f"mean_dice{suffix}"])
    assert table.loc[("with", rule, "pooled", "skipped")].accuracy == pytest.approx(summary["accuracy"])
    by_slice = table.loc[("with", rule, "slice", "skipped")]
    assert by_slice.accuracy == pytest.approx(per_slice["accuracy"]["mean"])
    assert by_slice.mean_iou == pytest.approx(per_slice["mean_iou"]["mean"])


def test_the_reference_recipe_batch_by_batch(stacks, table):
    truth, prediction = stacks[0], stacks[1]["argmax"]
    batches = []
    for start in range(0, len(truth), BATCH):
        t, p = (stack[start : start + BATCH] for stack in (truth, prediction))
        batches.append(
            np.mean([((t == c) & (p == c)).sum() / ((t == c) | (p == c)).sum() for c in np.unique(t)])
        )
    row = table.loc[("with", "argmax", "batch", "skipped if not true")]
    assert row.mean_iou == pytest.approx(np.mean(batches))
    reference = metrics.reference_definition(truth, prediction, BATCH)
    assert (row.accuracy, row.mean_iou) == (reference["accuracy"], reference["mean_iou"])


def test_absent_is_skipped_as_in_torchmetrics(stacks, table):
    truth, prediction = (torch.from_numpy(s) for s in (stacks[0], stacks[1]["argmax"]))
    slices = [float(MulticlassJaccardIndex(4)(p, t)) for t, p in zip(truth, prediction)]
    assert table.loc[("with", "argmax", "slice", "skipped")].mean_iou == pytest.approx(
        np.mean(slices), rel=1e-6
    )


@pytest.mark.parametrize("rule", ["argmax", "0.5 threshold"])
def test_absent_counts_zero_as_in_scikit_learn(stacks, table, rule):
    slices = list(zip(stacks[0].reshape(5, -1), stacks[1][rule].reshape(5, -1)))
    for background, labels in (("with", range(4)), ("without", range(3))):
        row = table.loc[(background, rule, "slice", "counts 0")]
        theirs = {"labels": labels, "average": "macro", "zero_division": 0}
        assert row.mean_iou == pytest.approx(np.mean([sk.jaccard_score(t, p, **theirs) for t, p in slices]))
        assert row.mean_dice == pytest.approx(np.mean([sk.f1_score(t, p, **theirs) for t, p in slices]))


def test_absent_counts_one_as_in_segmentation_models_pytorch(stacks, table):
    truth, prediction = (torch.from_numpy(s.astype(np.int64)) for s in (stacks[0], stacks[1]["argmax"]))
    stats = smp.get_stats(prediction, truth, mode="multiclass", num_classes=4)
    for averaging, reduction in (("slice", "macro-imagewise"), ("pooled", "macro")):
        row = table.loc[("with", "argmax", averaging, "counts 1")]
        assert row.mean_iou == pytest.approx(float(smp.iou_score(*stats, reduction=reduction)), rel=1e-5)
        assert row.mean_dice == pytest.approx(float(smp.f1_score(*stats, reduction=reduction)), rel=1e-5)


def test_labels_must_be_stacks_of_one_shape(stacks):
    truth, predictions = stacks
    with pytest.raises(InputError, match="same shape"):
        definitions_table(truth[:3], predictions, BATCH)
