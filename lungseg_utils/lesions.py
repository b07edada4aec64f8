"""Lesions counted one by one: found, missed or made up, by size. Pixel scores are ruled by the largest lesions.

A lesion is an 8-connected component of at least 10 pixels; smaller ones are specks of annotation and are not counted.
A true lesion is found when at least 10 % of its pixels are predicted lesion; a predicted one is a false alarm when less
than 10 % of its pixels are truly lesion. Overlaps count every lesion pixel of the other side, specks included: a lesion
found in pieces is found. Recall alone can be bought by drawing more, so it stands beside the false alarms.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from lungseg_utils.classes import LESIONS
from lungseg_utils.metrics import check_stacks

MIN_PIXELS = 10
MIN_OVERLAP = 0.1
# Pixels, lower bound included; at a typical 0.7 mm a pixel, discs of up to 8 mm, up to 25 mm, and beyond.
SIZES = {"small": (MIN_PIXELS, 100), "medium": (100, 1000), "large": (1000, np.inf)}


def lesion_table(truth: np.ndarray, prediction: np.ndarray, classes: tuple[int, ...] = LESIONS) -> pd.DataFrame:
    """One row a lesion: slice (position in the stack), kind (true or predicted), pixels, overlap, hit.

    overlap: share of its pixels that is lesion on the other side. hit: a true lesion is found; a predicted one is no
    false alarm. truth, prediction: class index (N, H, W); the prediction may hold metrics.NO_CLASS. classes: what
    counts as lesion, as one. Raises InputError for other shapes or labels.
    """
    check_stacks(truth, prediction)
    rows = []
    for index, labels in enumerate(zip(truth, prediction)):
        true, predicted = (np.isin(side, classes) for side in labels)
        for kind, mine, other in (("true", true, predicted), ("predicted", predicted, true)):
            components, count = ndimage.label(mine, structure=np.ones((3, 3)))
            pixels = np.bincount(components.ravel(), minlength=count + 1)
            shared = np.bincount(components[other], minlength=count + 1)
            for k in range(1, count + 1):
                if pixels[k] >= MIN_PIXELS:
                    rows.append({"slice": index, "kind": kind, "pixels": pixels[k], "overlap": shared[k] / pixels[k]})
    table = pd.DataFrame(rows, columns=["slice", "kind", "pixels", "overlap"])
    return table.assign(hit=table.overlap >= MIN_OVERLAP)


def lesion_summary(table: pd.DataFrame, slices: int) -> dict[str, dict[str, Any]]:
    """Recall and false alarms for metrics.json, of `all` lesions and by their own size (SIZES).

    table: as lesion_table gives; slices: how many it was made from, those without a lesion included. recall: share of
    the true lesions that were found, None if there are none.
    """
    return {
        name: _count(table[(table.pixels >= low) & (table.pixels < high)], slices)
        for name, (low, high) in {"all": (0, np.inf), **SIZES}.items()
    }


def _count(table: pd.DataFrame, slices: int) -> dict[str, Any]:
    true, predicted = table[table.kind == "true"], table[table.kind == "predicted"]
    alarms = int((~predicted.hit).sum())
    return {
        "true": len(true),
        "found": int(true.hit.sum()),
        "recall": float(true.hit.mean()) if len(true) else None,
        "predicted": len(predicted),
        "false_alarms": alarms,
        "false_alarms_per_slice": alarms / slices,
    }
