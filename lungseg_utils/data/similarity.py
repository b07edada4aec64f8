"""Which slices show the same: volumes in a stack, near-duplicates across a split."""

from itertools import pairwise

import numpy as np

from lungseg_utils.core.image import thumbnails
from lungseg_utils.core.npy import chunks

VOLUME_JUMP = 100.0  # HU; see infer_volumes
# correlation of two volumes' slices; the competition's 2 and 3 have 0.999, all others at most 0.90
SAME_SCAN = 0.98


def infer_volumes(images: np.ndarray) -> np.ndarray:
    """Where volumes begin among slices that stand volume after volume.

    A new volume begins at a jump, the mean absolute difference between neighbouring slices at 64 px, that
    exceeds 100 HU and twice the mean of the jumps before and after it (thick slices differ much, but evenly).
    On the competition's Radiopaedia images, jumps within the nine volumes are at most 61 HU and 1.3 times
    their neighbours, those between volumes at least 138 HU and 5.8 times. Volumes of a single slice are not
    found: see volumes.csv.

    Args:
        images: (N, H, W), HU.

    Returns:
        (N,) volume number of each slice, from 1.
    """
    small = (picture for _, chunk in chunks(images) for picture in thumbnails(chunk))
    jumps = np.array([np.abs(after - before).mean() for before, after in pairwise(small)])
    padded = np.pad(jumps, 1, mode="reflect") if len(jumps) > 1 else np.zeros(len(jumps) + 2)
    around = (padded[:-2] + padded[2:]) / 2
    return np.concatenate([[1], 1 + np.cumsum((jumps > VOLUME_JUMP) & (jumps > 2 * around))])


def near_duplicates(images: np.ndarray, threshold: float = 0.95) -> list[tuple[int, int, float]]:
    """Pairs of slices that look alike.

    Args:
        images: (N, H, W).
        threshold: The correlation of their pixels, at 64 px, from which two are a pair.

    Returns:
        (i, j, correlation), i < j, the closest pair first; blank slices are in no pair.
    """
    flat = thumbnails(images).reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    correlation = np.triu(flat @ flat.T, k=1)
    pairs = [(int(i), int(j), float(correlation[i, j])) for i, j in np.argwhere(correlation >= threshold)]
    return sorted(pairs, key=lambda pair: -pair[2])
