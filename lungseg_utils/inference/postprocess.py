"""From probabilities to labels: temperature, thresholds, clean-ups."""

import numpy as np
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, LESIONS, NUM_CLASSES
from lungseg_utils.core.files import InputError
from lungseg_utils.inference.settings import InferenceSettings

EIGHT_CONNECTED = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


def predict(probabilities: np.ndarray, settings: InferenceSettings = InferenceSettings()) -> np.ndarray:
    """Labels of probabilities: thresholds, then both clean-ups.

    The label is the class with the largest p / threshold, so that every pixel has exactly one, whatever the
    thresholds (p > threshold leaves pixels with none or with two). Only their ratios count, and equal ones
    are argmax; with two classes and thresholds t and 1 - t it is p > t. It is the best decision where missing
    a class costs 1 / threshold (Elkan 2001, The foundations of cost-sensitive learning).

    Args:
        probabilities: (N, 4, H, W).
        settings: The thresholds and the clean-ups.

    Returns:
        Class index, uint8 (N, H, W).

    Raises:
        InputError: For NaN.
    """
    if probabilities.ndim != 4 or probabilities.shape[1] != NUM_CLASSES:
        raise InputError(
            f"probabilities have shape {probabilities.shape}; expected (N, {NUM_CLASSES}, H, W)."
        )
    if not np.isfinite(probabilities).all():
        raise InputError(
            "probabilities hold NaN or infinite values; the network's training may have diverged."
        )
    if len(set(settings.thresholds)) > 1:
        probabilities = probabilities / np.asarray(settings.thresholds, probabilities.dtype)[:, None, None]
    labels = np.empty((len(probabilities), *probabilities.shape[2:]), np.uint8)
    for scores, slice_ in zip(
        probabilities, labels
    ):  # argmax(0), the first of equals, in a fifth of NumPy's time
        best, slice_[:] = scores[0], 0
        for c in range(1, NUM_CLASSES):
            np.maximum(slice_, (scores[c] > best) * np.uint8(c), out=slice_)
            best = np.maximum(best, scores[c])
    return remove_small_lesions(
        remove_lung_islands(labels, settings.min_lung_share), settings.min_lesion_pixels
    )


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, 4, ...) as if the logits had been divided by T (Guo et al. 2017).

    P ** (1 / T), sum 1.

    Which class is the most probable stays. Averages over views are tempered after averaging, as Rahaman and
    Thiery 2021 found best for ensembles.
    """
    if temperature == 1:
        return probabilities
    tempered = (probabilities / probabilities.max(1, keepdims=True)) ** np.float32(1 / temperature)
    return tempered / tempered.sum(1, keepdims=True)


def remove_lung_islands(labels: np.ndarray, min_share: float) -> np.ndarray:
    """Labels (N, H, W) in which stray pieces of lung, with the lesions in them, are background.

    Lung is all that is not background; a piece is what hangs together (8-connected). Stray is a piece with
    less than min_share of the pixels of the slice's largest, so that the small lungs near apex and base stay.
    """
    labels = labels.copy()
    for slice_ in labels if min_share else ():
        pieces, _ = ndimage.label(slice_ != BACKGROUND, EIGHT_CONNECTED)
        pixels = np.bincount(pieces.ravel())
        pixels[0] = 0  # what is no piece is background already
        slice_[(pixels < min_share * pixels.max())[pieces]] = BACKGROUND
    return labels


def remove_small_lesions(labels: np.ndarray, min_pixels: int) -> np.ndarray:
    """Labels (N, H, W) in which lesions below min_pixels take the class around them.

    Of the nearest pixel that stays.

    A lesion is what hangs together (8-connected) of one class: specks of consolidation within ground glass
    go, too.
    """
    labels = labels.copy()
    for slice_ in labels if min_pixels > 1 else ():
        small = np.zeros(slice_.shape, bool)
        for c in LESIONS:
            lesions, _ = ndimage.label(slice_ == c, EIGHT_CONNECTED)
            small |= (np.bincount(lesions.ravel()) < min_pixels)[lesions] & (lesions > 0)
        if small.any() and not small.all():
            nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
            slice_[:] = slice_[tuple(nearest)]
    return labels
