"""Before a prediction.

Is this a chest CT in Hounsfield units, and in what does it differ from what training saw?

A scan that cannot be right is an InputError; a doubt is a sentence for the user. All looks at a few slices,
each thinned to about 256 pixels a side, so that a long scan takes no longer than a short one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import SOLID, body_with_rim
from lungseg_utils.data.features import FEATURES, LUNG_SLICE, SOFT_TISSUE, looked_at, slice_features
from lungseg_utils.scans.scan import Scan

LEAST_AIR, LEAST_TISSUE = 0.01, 0.02  # shares of all pixels; the competition's have at least 0.04 and 0.15
LEAST_LUNG = 0.02  # air as a share of the body, in one slice at least
LUNG_AREA, BODY_AREA = (40, 800), (150, 1800)  # cm2 that the largest slice of an adult's chest may have
THICK = 5.0  # mm
MARGIN = 0.1  # the ranges are widened by a tenth at each end: a per cent of the training slices lies outside


def check_scan(scan: Scan, ranges: Mapping[str, Any] | None = None) -> list[str]:
    """Look at a scan before the network does.

    Args:
        scan: The scan.
        ranges: A config.json's `training_ranges`, if it has any.

    Returns:
        Sentences about what is doubtful.

    Raises:
        InputError: The scan is no CT, its values are no HU, or no chest is in the picture.
    """
    ranges = ranges or {}
    if scan.modality not in (None, "CT"):
        raise InputError("the scan's modality is not CT; expected a chest CT; choose another scan or series.")
    slices = scan.hu[looked_at(len(scan.hu))]
    _check_units(slices)
    features = [f for f in map(slice_features, slices) if f]
    if not features or max(f["lung_percent"] for f in features) < 100 * LEAST_LUNG:
        raise InputError(
            "no body with lungs in it was found; expected axial slices of a chest; give the scan's series of "
            "the chest."
        )
    warnings = _geometry_doubts(scan, features)
    if burned_in_text(slices):
        warnings.append(
            "Text seems to be burned into the picture beside the body and may name the patient: the report's "
            "pictures "
            "show nothing outside the body, but the scan itself still does."
        )
    chest = [f for f in features if f["lung_percent"] >= 100 * LUNG_SLICE] or features
    for name, (words, unit) in FEATURES.items():
        if name in ranges:
            value, (low, high) = float(np.median([f[name] for f in chest])), ranges[name]
            margin = MARGIN * (high - low)
            if not low - margin <= value <= high + margin:
                warnings.append(
                    f"Unlike most training slices: {words} is {value:.0f} {unit}, in 98 of 100 of them "
                    f"{low:.0f} to "
                    f"{high:.0f} {unit}; the masks may be less exact."
                )
    return warnings


def _check_units(slices: np.ndarray) -> None:
    """InputError unless air and soft tissue are where Hounsfield units have them."""
    low, high = int(slices.min()), int(slices.max())
    if low == high:
        raise InputError(
            f"all pixels are {low}; expected a picture of a chest; look at the file in a viewer."
        )
    air, tissue = (slices < SOLID).mean(), (np.abs(slices) < SOFT_TISSUE).mean()
    if air < LEAST_AIR or tissue < LEAST_TISSUE:
        raise InputError(
            f"values run from {low} to {high}, {air:.0%} below {SOLID} and {tissue:.0%} within {SOFT_TISSUE} "
            "of 0; "
            "expected Hounsfield units, air near -1000 and soft tissue near 0; convert them, or give slices "
            "as PNG."
        )


def _geometry_doubts(scan: Scan, features: list[dict[str, float]]) -> list[str]:
    warnings = []
    if scan.thickness and scan.thickness > THICK:
        warnings.append(
            f"Slices are {scan.thickness:g} mm thick: above {THICK:g} mm small lesions fade into the lung "
            "around them."
        )
    if scan.spacing is None:
        return [
            *warnings,
            "The file does not say a pixel's size: no millilitres, no thirds and no severity score.",
        ]
    if len(scan.hu) > 1 and not scan.is_volume:
        warnings.append(
            "Neighbouring slices are unlike each other: taken as single slices, without millilitres, thirds "
            "and score."
        )
    step, *pixel = scan.spacing
    if scan.thickness and len(scan.hu) > 1 and step > 1.5 * scan.thickness:
        warnings.append(
            f"Slices of {scan.thickness:g} mm lie {step:g} mm apart: millilitres take the gaps to be like "
            "the slices."
        )
    picture = np.prod(scan.hu.shape[1:]) * np.prod(pixel) / 100
    body = [f["body_percent"] / 100 * picture for f in features]
    lung = [f["lung_percent"] / 100 * area for f, area in zip(features, body)]
    for what, area, (low, high) in (("body", max(body), BODY_AREA), ("lungs", max(lung), LUNG_AREA)):
        if not low <= area <= high:
            warnings.append(
                f"The largest slice of the {what} measures {area:.0f} cm2, of an adult {low} to {high} cm2: "
                "is it a whole chest, and is the pixel spacing right?"
            )
    return warnings


def lung_outside(labels: np.ndarray, hu: np.ndarray) -> float:
    """Share of the predicted lung, 0..1, that lies outside the body: a network's error.

    Labels, hu: (N, H, W).
    """
    chosen = looked_at(len(hu))
    lung = labels[chosen] != BACKGROUND
    body = np.stack([body_with_rim(picture) for picture in hu[chosen]])
    return float((lung & ~body).sum() / max(lung.sum(), 1))


def burned_in_text(slices: np.ndarray) -> bool:
    """Whether a line of text stands beside the body in at least half of the slices (n, H, W).

    Text is small pieces of one value, brighter than air, whose feet stand in a row: at least six of them. A
    table or a tube is one long piece of many values.
    """
    return sum(map(has_text, slices)) >= max(len(slices) / 2, 1)


def has_text(hu: np.ndarray) -> bool:
    """Whether what looks like writing stands beside the body, in a slice in HU (H, W)."""
    ink = (hu > SOLID) & ~body_with_rim(hu)
    pieces, _ = ndimage.label(ink, np.ones((3, 3)))
    height, width = hu.shape
    feet = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), 1):
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if 4 <= tall <= height / 12 and wide <= min(2 * tall, width / 12):
            values = hu[rows, columns][pieces[rows, columns] == number].astype(int)
            if np.mean(np.abs(values - values.max()) <= 20) >= 0.5:
                feet.append(rows.stop)
    return bool(feet) and max(np.bincount(feet, minlength=3)) >= 6
