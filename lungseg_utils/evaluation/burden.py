"""Burden, which is what a clinician reads: lesion pixels / lung pixels, predicted against true.

All from confusion counts, so the share of a volume is that of its pixels together. Stored as shares in 0..1;
figures show percent of the lung. A slice without lung has no share (NaN): it enters no score, and is counted.
"""

from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import FOREGROUND, LESIONS
from lungseg_utils.evaluation.intervals import Volumes, sum_by_volume


def involved_share(pixels: np.ndarray) -> np.ndarray:
    """Lesion pixels / lung pixels.

    Args:
        pixels: (..., 4) pixels of each class.

    Returns:
        (...), in 0..1, NaN without lung.
    """
    lesion, lung = pixels[..., list(LESIONS)].sum(-1), pixels[..., FOREGROUND].sum(-1)
    return np.divide(lesion, lung, out=np.full(np.shape(lung), np.nan), where=lung > 0)


def true_burden(counts: np.ndarray) -> np.ndarray:
    """Involved share of the true lung: (...), NaN where there is none.

    counts: (..., 4, 4), rows are the truth.
    """
    return involved_share(counts.sum(-1))


def predicted_burden(counts: np.ndarray) -> np.ndarray:
    """Involved share of the predicted lung: (...), NaN where there is none.

    counts: (..., 4, 4), rows are the truth.
    """
    return involved_share(counts.sum(-2))


def burden_agreement(true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Agreement of predicted with true shares (N,), both in 0..1, where both exist.

    None where a score is undefined.

    values, no_true_lung, no_predicted_lung: how many pairs there are, and how many shares do not exist.
    mean_absolute_error and bias (mean of predicted - true): shares. limits: the 95 % limits of agreement,
    bias -+ 1.96 standard deviations of the differences (n - 1; Bland and Altman, Lancet 1986); several slices
    of one patient make them too narrow. concordance: Lin's coefficient, 2 s_xy / (s_x^2 + s_y^2 + (difference
    of means)^2), with the variances over n of Lin, Biometrics 1989.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    paired = ~(np.isnan(true) | np.isnan(predicted))
    x, y = true[paired], predicted[paired]
    difference = y - x
    record: dict[str, Any] = {
        "values": len(x),
        "no_true_lung": int(np.isnan(true).sum()),
        "no_predicted_lung": int(np.isnan(predicted).sum()),
        "mean_absolute_error": None,
        "bias": None,
        "limits": None,
        "concordance": None,
    }
    if len(x):
        bias = difference.mean()
        record |= {"mean_absolute_error": float(np.abs(difference).mean()), "bias": float(bias)}
    if len(x) > 1:
        spread = 1.96 * difference.std(ddof=1)
        record["limits"] = [float(bias - spread), float(bias + spread)]
        # 0 when all shares are one and the same number: nothing to agree on.
        if total := x.var() + y.var() + bias**2:
            record["concordance"] = float(2 * np.mean((x - x.mean()) * (y - y.mean())) / total)
    return record


def burden_summary(per_slice: np.ndarray, volumes: Volumes | None = None) -> dict[str, Any]:
    """Agreement over slices and over whole volumes, as stored in metrics.json.

    Volumes is None where none is known.

    per_slice: (N, 4, 4) confusion counts; volumes: the volume of each slice, missing (None, NaN, NA) where
    unknown.
    """
    summary = {
        "slices": burden_agreement(true_burden(per_slice), predicted_burden(per_slice)),
        "volumes": None,
    }
    if volumes is not None and pd.Series(volumes, dtype="Int64").notna().any():
        table, counts = sum_by_volume(per_slice, volumes)
        counts = counts[table.volume.notna()]
        summary["volumes"] = burden_agreement(true_burden(counts), predicted_burden(counts))
    return summary
