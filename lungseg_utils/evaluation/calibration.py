"""Does "70 % ground glass" come true 70 % of the time? Reliability by class, and where the network is unsure.

Counted only in true-or-predicted lung, pixels whose true or most probable class is not background: the rest
of the slice, three quarters and more of all pixels, is easy and would make anything look calibrated. The
price of choosing pixels by their truth: background has no reliability there (where it is most probable, only
its errors are counted), and lung that was taken for background makes the low probabilities of the other
classes come true too often. Even a perfect network would show an error of some hundredths: compare networks
by it, do not read it as absolute.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.special import entr

from lungseg_utils.core.classes import BACKGROUND, FOREGROUND, NUM_CLASSES, SHORT_NAMES
from lungseg_utils.core.files import InputError

BINS = 15
SMALLEST = np.finfo(np.float32).eps  # a true class of probability 0 costs a log loss of 16, not infinity


def _by_bin(dtype: type = np.int64) -> np.ndarray:
    return np.zeros((len(FOREGROUND), BINS), dtype)


@dataclass(frozen=True)
class Reliability:
    """Sums over pixels that add up over batches.

    `total += reliability(probabilities, truth)`, from Reliability() on.

    pixels, hits: int64 (3, 15), by lung class and by bin of its probability: pixels, and those that truly are
    of the class. probability: float (3, 15), the sum of the probabilities. log_loss, brier: sums over the
    pixels, which take all four classes.
    """

    pixels: np.ndarray = field(default_factory=_by_bin)
    probability: np.ndarray = field(default_factory=partial(_by_bin, np.float64))
    hits: np.ndarray = field(default_factory=_by_bin)
    log_loss: float = 0.0
    brier: float = 0.0

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> Reliability:
    """Counts of some slices, in true-or-predicted lung.

    probabilities: (N, 4, H, W); truth: class index (N, H, W).

    Fifteen equal bins, left edge included; 1 falls in the last. Raises InputError for probabilities that are
    NaN, below 0 or do not sum to 1, for labels outside 0..3, and for other shapes.
    """
    _check(probabilities)
    if truth.shape != probabilities[:, 0].shape:
        raise InputError(
            f"truth has shape {truth.shape}, probabilities {probabilities.shape}; expected (N, H, W) and (N, "
            "4, H, W)."
        )
    if truth.size and not 0 <= truth.min() <= truth.max() < NUM_CLASSES:
        raise InputError(
            f"truth holds labels from {truth.min()} to {truth.max()}; expected 0 to {NUM_CLASSES - 1}."
        )
    # The first of equal probabilities wins, as in argmax: background, the last class, needs the strictly
    # largest.
    lung = (truth != BACKGROUND) | (probabilities[:, BACKGROUND] <= probabilities[:, FOREGROUND].max(1))
    true = truth[lung]
    p = np.stack([probabilities[:, c][lung] for c in range(NUM_CLASSES)])
    bins = np.minimum((p[FOREGROUND] * BINS).astype(np.intp), BINS - 1)
    p_true = np.take_along_axis(p, true[None].astype(np.intp), axis=0)[0].astype(np.float64)

    def by_bin(weights: Iterable[np.ndarray | None]) -> np.ndarray:
        return np.array([np.bincount(b, w, BINS) for b, w in zip(bins, weights, strict=True)])

    return Reliability(
        pixels=by_bin([None] * len(FOREGROUND)),
        probability=by_bin(p[FOREGROUND]),
        hits=by_bin([true == c for c in FOREGROUND]).astype(np.int64),
        log_loss=float(-np.log(np.maximum(p_true, SMALLEST)).sum()),
        brier=float(np.square(p, dtype=np.float64).sum() + (1 - 2 * p_true).sum()),
    )


def calibration_error(counts: Reliability) -> np.ndarray:
    """Expected calibration error of each lung class by itself, 0..1: (3,).

    Naeini et al. 2015; class by class: Nixon et al. 2019.

    Mean over the pixels of |share of hits - mean probability| of the bin that the pixel is in; NaN without
    pixels. Most pixels of a rare class are in the lowest bin, so its error is small before anything was
    learned: read it beside the reliability diagram.
    """
    gap = np.abs(counts.hits - counts.probability).sum(1)
    return gap / counts.pixels.sum(1) if counts.pixels.any() else np.full(len(FOREGROUND), np.nan)


def calibration_summary(counts: Reliability) -> dict[str, Any]:
    """Calibration as stored in metrics.json; None where there was no lung.

    Args:
        counts: Sums of `reliability`.

    Returns:
        pixels: in true-or-predicted lung. class_error: calibration_error by lung class; mean_class_error:
            their
        mean. log_loss: mean negative log-likelihood, nats. brier: squared differences, summed over the four
        classes, mean over the pixels (Brier 1950), 0..2.
    """
    pixels = int(counts.pixels[0].sum())
    error = calibration_error(counts)
    return {
        "bins": BINS,
        "pixels": pixels,
        "class_error": {short: float(value) if pixels else None for short, value in zip(SHORT_NAMES, error)},
        "mean_class_error": float(np.mean(error)) if pixels else None,
        "log_loss": counts.log_loss / pixels if pixels else None,
        "brier": counts.brier / pixels if pixels else None,
    }


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Predictive entropy of each pixel, -sum p log p / log 4.

    It says how undecided the network's answer is, not how far a doctor may trust it: a network can be certain
    and wrong.

    Args:
        probabilities: (N, 4, H, W).

    Returns:
        (N, H, W): 0 one class is certain, 1 all four are equal.
    """
    _check(probabilities)
    return entr(probabilities).sum(1) / math.log(NUM_CLASSES)


def _check(probabilities: np.ndarray) -> None:
    if probabilities.ndim != 4 or probabilities.shape[1] != NUM_CLASSES:
        raise InputError(
            f"probabilities have shape {probabilities.shape}; expected (N, {NUM_CLASSES}, H, W)."
        )
    total = probabilities.sum(1)
    if np.isnan(total).any():
        raise InputError(
            f"probabilities are NaN in {np.isnan(total).sum()} pixels; expected numbers: check slices and "
            "weights."
        )
    if probabilities.size and (
        probabilities.min() < 0 or np.abs(total - 1).max() > 0.01
    ):  # float16 errs by 0.001
        raise InputError(
            f"probabilities start at {probabilities.min():.3g} and sum to {total.min():.3g} to "
            f"{total.max():.3g}; "
            "expected none below 0 and a sum of 1 in each pixel: apply softmax to the logits."
        )
