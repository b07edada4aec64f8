"""A slice in six numbers, to tell what differs from what training saw."""

import numpy as np

from lungseg_utils.core.image import SOLID, THINNED, body_mask
from lungseg_utils.core.language import marked as N_

LOOKED_AT = 24  # slices of a scan that are looked at
SOFT_TISSUE = 150  # HU, either side of water
LUNG_SLICE = 0.05  # air as a share of the body, in a slice of the lungs
# What is compared with training, from each slice. The values end at the 90th percentile: beyond is bone,
# which most training slices came without, cut off at 150 HU.
FEATURES = {
    "low_hu": (N_("the value of the body's darkest parts, its 5th percentile,"), "HU"),
    "median_hu": (N_("the middle value of the body"), "HU"),
    "high_hu": (N_("the value of the body's brightest parts, its 90th percentile,"), "HU"),
    "noise_hu": (N_("the noise in soft tissue"), "HU"),
    "lung_percent": (N_("the share of air in the body"), "%"),
    "body_percent": (N_("the share of the picture that the body fills"), "%"),
}


def slice_features(hu: np.ndarray) -> dict[str, float] | None:
    """What one slice looks like, in numbers.

    Args:
        hu: (H, W), HU.

    Returns:
        The FEATURES by name, None without a body. noise_hu: standard deviation of Gaussian noise that would
        give neighbours in soft tissue their mean difference.
    """
    step = max(round(max(hu.shape) / THINNED), 1)
    columns = slice(0, hu.shape[1] - 1, step)
    thin = hu[::step, columns].astype(np.float32)
    beside = hu[::step, 1:][:, columns].astype(np.float32)
    body = body_mask(thin)
    soft = body & (np.abs(thin) < SOFT_TISSUE) & (np.abs(beside) < SOFT_TISSUE)
    if not soft.any():
        return None
    low, median, high = np.percentile(thin[body], (5, 50, 90))
    return {
        "low_hu": float(low),
        "median_hu": float(median),
        "high_hu": float(high),
        "noise_hu": float(np.abs(thin - beside)[soft].mean() * np.sqrt(np.pi) / 2),
        "lung_percent": float(100 * (thin[body] < SOLID).mean()),
        "body_percent": float(100 * body.mean()),
    }


def looked_at(count: int) -> np.ndarray:
    """Positions of the slices that are looked at, evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int))
