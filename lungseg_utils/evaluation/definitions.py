"""The same predictions under every definition in use.

So that 0.57 here can be compared with 0.57 elsewhere.
"""

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import FOREGROUND, NUM_CLASSES
from lungseg_utils.core.files import InputError
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.metrics import check_stacks, confusion_matrix, nanmean

# How a class counts in a mean when it is absent from the data set, batch or slice that is scored.
ABSENT = {
    "skipped": "in neither truth nor prediction: skipped (ours; torchmetrics' mean IoU)",
    "skipped if not true": "not in the truth: skipped, false alarms of it too (the reference recipe)",
    "counts 1": "in neither: 1 (segmentation-models-pytorch)",
    "counts 0": "in neither: 0 (scikit-learn)",
}

BACKGROUNDS = {"with": list(range(NUM_CLASSES)), "without": FOREGROUND}  # the classes of a mean


def definitions_table(
    truth: np.ndarray, predictions: Mapping[str, np.ndarray], batch_size: int
) -> pd.DataFrame:
    """mIoU, mean Dice and accuracy, one row a definition.

    Columns: size (pixels, such as "512 x 512"); rule (how labels were taken from probabilities); averaging:
    `pooled` over all pixels, or the mean over every `batch` (each weighs the same, the smaller last one too)
    or every `slice` of its own score; absent (see ABSENT); background: `with` or `without` it in the mean;
    then mean_iou, mean_dice, and accuracy, which knows no classes and stands in the rows with background.

    truth: class index (N, H, W), in the loader's order. predictions: rule -> class index (N, H, W) or
    metrics.NO_CLASS, such as {"argmax": ..., "0.5 threshold": ...}. One size a call: concatenate the tables
    of several. The reference recipe's own row is the network's size, argmax, batch, skipped if not true, with
    background.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; expected 1 slice or more.")
    rows = []
    for rule, prediction in predictions.items():
        check_stacks(truth, prediction)
        slices = np.array([confusion_matrix(t, p, no_class=True) for t, p in zip(truth, prediction)])
        batches = np.add.reduceat(slices, range(0, len(slices), batch_size))
        units = {"pooled": slices.sum(axis=0, keepdims=True), "batch": batches, "slice": slices}
        for (averaging, counts), absent, (background, classes) in product(
            units.items(), ABSENT, BACKGROUNDS.items()
        ):
            row = {
                "size": "{} x {}".format(*truth.shape[1:]),
                "rule": rule,
                "averaging": averaging,
                "absent": absent,
            }
            row["background"] = background
            for name, score in (("mean_iou", metrics.iou), ("mean_dice", metrics.dice)):
                row[name] = nanmean(nanmean(_fill(score(counts), counts, absent)[:, classes]))
            row["accuracy"] = nanmean(metrics.accuracy(counts)) if background == "with" else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def _fill(values: np.ndarray, counts: np.ndarray, absent: str) -> np.ndarray:
    """Scores (n, 4), NaN where a class is nowhere, as a convention of ABSENT has them."""
    if absent == "skipped if not true":
        return np.where(counts.sum(axis=-1) > 0, values, np.nan)
    return np.nan_to_num(values, nan={"skipped": np.nan, "counts 1": 1.0, "counts 0": 0.0}[absent])
