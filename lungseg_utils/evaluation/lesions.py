"""Lesions counted one by one: found, missed or made up, by size.

Pixel scores are ruled by the largest lesions.

A lesion is an 8-connected component of at least 10 pixels; smaller ones are specks of annotation and are not
counted. A true lesion is found when at least 10 % of its pixels are predicted lesion; a predicted one is a
false alarm when less than 10 % of its pixels are truly lesion. Overlaps count every lesion pixel of the other
side, specks included: a lesion found in pieces is found. Recall alone can be bought by drawing more, so it
stands beside the false alarms.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from lungseg_utils.core.classes import LESIONS
from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import marked as N_
from lungseg_utils.evaluation.metrics import check_stacks

MIN_PIXELS = 10
MIN_OVERLAP = 0.1
# Pixels, lower bound included; at a typical 0.7 mm a pixel, discs of up to 8 mm, up to 25 mm, and beyond.
SIZES = {N_("small"): (MIN_PIXELS, 100), N_("medium"): (100, 1000), N_("large"): (1000, np.inf)}
HU_EDGES = np.arange(-1000, 201, 25)  # HU
PLACES = 64  # the slice is divided into 64 x 64 places


def lesion_table(
    truth: np.ndarray, prediction: np.ndarray, classes: tuple[int, ...] = LESIONS
) -> pd.DataFrame:
    """One row a lesion: slice (position in the stack), kind (true or predicted), pixels, overlap, hit.

    overlap: share of its pixels that is lesion on the other side. hit: a true lesion is found; a predicted
    one is no false alarm. truth, prediction: class index (N, H, W); the prediction may hold metrics.NO_CLASS.
    classes: what counts as lesion, as one. Raises InputError for other shapes or labels.
    """
    check_stacks(truth, prediction)
    rows = []
    for index, labels in enumerate(zip(truth, prediction)):
        true, predicted = (np.isin(side, classes) for side in labels)
        for kind, mine, other in (("true", true, predicted), ("predicted", predicted, true)):
            components, count = ndimage.label(mine, structure=np.ones((3, 3)))
            pixels = np.bincount(components.ravel(), minlength=count + 1)
            shared = np.bincount(components[other], minlength=count + 1)
            rows += [
                {"slice": index, "kind": kind, "pixels": pixels[k], "overlap": shared[k] / pixels[k]}
                for k in range(1, count + 1)
                if pixels[k] >= MIN_PIXELS
            ]
    table = pd.DataFrame(rows, columns=["slice", "kind", "pixels", "overlap"])
    return table.assign(hit=table.overlap >= MIN_OVERLAP)


def lesion_summary(table: pd.DataFrame, slices: int) -> dict[str, dict[str, Any]]:
    """Recall and false alarms for metrics.json, of `all` lesions and by their own size (SIZES).

    table: as lesion_table gives; slices: how many it was made from, those without a lesion included. recall:
    share of the true lesions that were found, None if there are none.
    """
    return {
        name: _count(table[(table.pixels >= low) & (table.pixels < high)], slices)
        for name, (low, high) in {N_("all"): (0, np.inf), **SIZES}.items()
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


@dataclass(frozen=True)
class LesionConfusion:
    """Sums over slices that add up over batches: `total += lesion_confusion(...)`, from LesionConfusion() on.

    The first two axes are (true, predicted) lesion class, 0 ground glass, 1 consolidation. histograms: int64
    (2, 2, 48), pixels by HU_EDGES. places: float (2, 2, 64, 64), the share of each place's area, summed over
    the slices; rows run from anterior to posterior, columns from the image's left (the patient's right).
    slices: how many.
    """

    histograms: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, len(HU_EDGES) - 1), np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, PLACES, PLACES)))
    slices: int = 0

    def __add__(self, other: "LesionConfusion") -> "LesionConfusion":
        return LesionConfusion(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def lesion_confusion(hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> LesionConfusion:
    """Counts of some slices by HU.

    Args:
        hu: (N, H, W), HU; those beyond the edges count in the end bins.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).

    Raises:
        InputError: For shapes that differ and for what are no labels.
    """
    check_stacks(truth, prediction)
    if hu.shape != truth.shape:
        raise InputError(
            f"hu has shape {hu.shape}, truth {truth.shape}; expected the same slices, (N, H, W)."
        )
    total = LesionConfusion(slices=len(hu))
    height, width = hu.shape[1:]
    for true in LESIONS:
        for predicted in LESIONS:
            group = (truth == true) & (prediction == predicted)
            clipped = np.clip(hu[group], HU_EDGES[0], HU_EDGES[-1])
            total.histograms[true, predicted] = np.histogram(clipped, HU_EDGES)[0]
            _, rows, columns = np.nonzero(group)
            place = rows * PLACES // height * PLACES + columns * PLACES // width
            pixels = np.bincount(place, minlength=PLACES**2).reshape(PLACES, PLACES)
            total.places[true, predicted] = pixels * PLACES**2 / (height * width)
    return total
