"""Ground glass taken for consolidation and the reverse, of the lesion pixels that are found: where, and at what HU."""

from dataclasses import dataclass, field

import numpy as np

from lungseg_utils.classes import LESIONS
from lungseg_utils.files import InputError
from lungseg_utils.metrics import check_stacks

HU_EDGES = np.arange(-1000, 201, 25)  # HU
PLACES = 64  # the slice is divided into 64 x 64 places


@dataclass(frozen=True)
class LesionConfusion:
    """Sums over slices that add up over batches: `total += lesion_confusion(...)`, from LesionConfusion() on.

    The first two axes are (true, predicted) lesion class, 0 ground glass, 1 consolidation. histograms: int64
    (2, 2, 48), pixels by HU_EDGES. places: float (2, 2, 64, 64), the share of each place's area, summed over the
    slices; rows run from anterior to posterior, columns from the image's left (the patient's right). slices: how many.
    """

    histograms: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, len(HU_EDGES) - 1), np.int64))
    places: np.ndarray = field(default_factory=lambda: np.zeros((2, 2, PLACES, PLACES)))
    slices: int = 0

    def __add__(self, other: "LesionConfusion") -> "LesionConfusion":
        return LesionConfusion(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def lesion_confusion(hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> LesionConfusion:
    """Counts of some slices: hu in HU, truth and prediction class index, all (N, H, W).

    HU beyond the edges count in the end bins. Raises InputError for shapes that differ and for what are no labels.
    """
    check_stacks(truth, prediction)
    if hu.shape != truth.shape:
        raise InputError(f"hu has shape {hu.shape}, truth {truth.shape}; expected the same slices, (N, H, W).")
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
