"""Counts over whole data sets for 01_eda: Hounsfield units by class, lesions by size and place.

One pass, a slice at a time.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, LESIONS, NUM_CLASSES
from lungseg_utils.core.image import SOLID, thumbnails
from lungseg_utils.core.npy import chunks
from lungseg_utils.core.progress import tqdm
from lungseg_utils.data.arrays import CTData

HU_BINS = np.arange(-1600, 601, 20)  # HU: edges of the histograms
PLACE_BINS = 64  # the slice is divided into 64 x 64 places


@dataclass(frozen=True)
class Exploration:
    """What one pass over a labelled source counts.

    histograms: int64 (4, len(HU_BINS) - 1), pixels by class and HU. places: float (64, 64), share of the
    slices in which that part of the image holds a lesion. bodies: float (64, 64), how much of it is solid
    tissue, 0..1, on average. lesions: one row for each 8-connected lesion:
    slice, pixels, percent (of the slice's area). lung_hu: (N,), mean HU of everything labelled lung, lesions
    included; NaN where there is none.
    """

    histograms: np.ndarray
    places: np.ndarray
    lesions: pd.DataFrame
    lung_hu: np.ndarray
    bodies: np.ndarray


def explore(data: CTData, source: str) -> Exploration:
    """One pass over the labelled slices of a source.

    Args:
        data: The arrays.
        source: medseg or radiopaedia.
    """
    count = len(data.images[source])
    histograms = np.zeros((NUM_CLASSES, len(HU_BINS) - 1), dtype=np.int64)
    places, bodies = np.zeros((2, PLACE_BINS, PLACE_BINS))
    lung_hu = np.full(count, np.nan)
    lesions = []
    with tqdm(total=count, desc=source, unit="slice", leave=False) as progress:
        for first, chunk in chunks(data.images[source]):
            for index, hu in enumerate(chunk, first):
                labels = data.labels(source, index)
                for c in range(NUM_CLASSES):
                    histograms[c] += np.histogram(np.clip(hu[labels == c], HU_BINS[0], HU_BINS[-1]), HU_BINS)[
                        0
                    ]
                if (labels != BACKGROUND).any():
                    lung_hu[index] = hu[labels != BACKGROUND].mean()
                lesion = np.isin(labels, LESIONS)
                rows, columns = (
                    np.nonzero(lesion)[axis] * PLACE_BINS // lesion.shape[axis] for axis in (0, 1)
                )
                places[tuple(np.unique(np.stack([rows, columns]), axis=1))] += 1
                bodies += thumbnails((np.asarray(hu) > SOLID)[None])[0]
                components, _ = ndimage.label(lesion, structure=np.ones((3, 3)))
                sizes = np.bincount(components.ravel())[1:]
                lesions += [
                    {"slice": index, "pixels": size, "percent": 100 * size / lesion.size} for size in sizes
                ]
                progress.update()
    table = pd.DataFrame(lesions, columns=["slice", "pixels", "percent"])
    return Exploration(histograms, places / count, table, lung_hu, bodies / count)
