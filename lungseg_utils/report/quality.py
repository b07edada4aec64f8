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
from lungseg_utils.core.image import (
    AERATED,
    SOLID,
    THINNED,
    body_mask,
    body_with_rim,
    shows_outside,
    thumbnails,
)
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.features import FEATURES, LUNG_SLICE, SOFT_TISSUE, looked_at, slice_features
from lungseg_utils.data.similarity import infer_volumes
from lungseg_utils.report.severity import EDGE_AREA
from lungseg_utils.scans.scan import Scan

# Shares of all pixels; the competition's slices have at least 0.04 and 0.15.
LEAST_AIR, LEAST_TISSUE = 0.01, 0.02
DENSEST, MOST_DENSER = 4000, 0.01  # HU; metal is denser, and never a hundredth of the pixels
LEAST_LUNG = 0.02  # air as a share of the body, in one slice at least
LUNG_AREA, BODY_AREA = (40, 800), (150, 1800)  # cm2 that the largest slice of an adult's chest may have
THICK = 5.0  # mm
# The ranges are widened by a tenth at each end, where a per cent of the training slices lies outside.
MARGIN = 0.1
# Aerated lung as a share of the body, in the fullest slice of a volume and in single slices: with less it is
# no chest. Measured in benchmarks/chest_check.md: real chests have 0.16 and more, one with three quarters of
# its lungs airless 0.035, other regions up to 0.013.
CHEST_VOLUME, CHEST_SLICE = 0.03, 0.012
FEW_SLICES = 6  # fewer are judged as single slices
# A slice differs so many times more from the next than from the next but one: real volumes have up to 0.92.
ALTERNATING = 1.2
BODY_LIMITS = (60, 3000)  # cm2; no body, child or adult, has less or more in its largest slice
# of the largest slice's lung area: a first or last slice with more shows that the lungs go on beyond it
CUT_OFF = 0.25
LUNG_ML, LUNG_HEIGHT = (300, 12000), (80, 450)  # whole lungs, both together


def is_alternating(hu: np.ndarray) -> bool:
    """Whether slices, (N, H, W), are less like the next than like the next but one.

    As two interleaved scans are.
    """
    return len(hu) > FEW_SLICES and float(np.median(_jumps(hu, 1))) > ALTERNATING * float(
        np.median(_jumps(hu, 2))
    )


def _jumps(hu: np.ndarray, step: int) -> np.ndarray:
    """Mean absolute difference in HU of a few slices and those `step` further, at 64 px."""
    first = looked_at(len(hu) - step)
    return np.abs(thumbnails(hu[first]) - thumbnails(hu[first + step])).mean((1, 2))


def chest_doubt(scan: Scan) -> str | None:
    """Why a scan's numbers are withheld: it shows too little aerated lung to be a chest.

    None if it shows enough.
    """
    share = max(map(aerated_share, scan.hu[looked_at(len(scan.hu))]))
    least = CHEST_VOLUME if len(scan.hu) >= FEW_SLICES and scan.is_volume else CHEST_SLICE
    if share >= least:
        return None
    return _(
        "This does not look like a chest, or its lungs hold hardly any air: aerated lung fills at most "
        "{share:.1%} of the body in a slice, of a chest at least {least:.1%}; the masks are written, but no "
        "numbers are given."
    ).format(share=share, least=least)


def aerated_share(hu: np.ndarray) -> float:
    """Aerated lung as a share of the body, 0..1, in a slice (H, W) in HU.

    Averaged over 3 x 3 pixels, because noise gives plain gas the values of lung, and taken away from the
    borders, where every gas has pixels between its own value and the tissue's.
    """
    step = max(round(max(hu.shape) / THINNED), 1)
    thin = hu[::step, ::step].astype(np.float32)
    body, smooth = body_mask(thin), ndimage.uniform_filter(thin, 3)
    inner = ndimage.binary_erosion(body & (smooth < SOLID), iterations=2)
    lung = inner & (smooth > AERATED[0]) & (smooth < AERATED[1])
    return float(lung.sum() / max(body.sum(), 1))


def joined_doubt(scan: Scan) -> str | None:
    """Where a volume changes as between two scans: a sentence, or None."""
    shown = np.flatnonzero([picture.min() < picture.max() for picture in scan.hu])  # blank ones are padding
    new = np.flatnonzero(np.diff(infer_volumes(scan.hu if len(shown) == len(scan.hu) else scan.hu[shown])))
    if not len(new):
        return None
    between = [(shown[i] + 1, shown[i + 1] + 1) for i in new[:3]]
    places = ", ".join(_("{first} and {second}").format(first=i, second=j) for i, j in between)
    return _(
        "Between slices {places} the picture changes as between two scans: no millilitres, "
        "no thirds and no severity score."
    ).format(places=places)


def size_doubt(scan: Scan, profile: dict[str, Any], millilitres: float | None) -> str | None:
    """Why sizes in mm and millilitres cannot be right, or None.

    Profile, millilitres: of the lung, as `severity` has them.
    """
    if scan.spacing is None:
        return None
    low, high = BODY_LIMITS
    body = max(float(body_mask(hu[::4, ::4]).mean()) for hu in scan.hu[looked_at(len(scan.hu))])
    area = body * np.prod(scan.hu.shape[1:]) * np.prod(scan.spacing[1:]) / 100
    found = (
        None
        if low <= area <= high
        else _("the body's largest slice measures {area:,.0f} cm2").format(area=area)
    )
    lung = np.array(profile["lung"])
    inside = np.flatnonzero(lung > EDGE_AREA * lung.max())
    if not found and millilitres is not None and len(inside) > 1:
        place = profile["position"]
        height = place[inside[-1]] - place[inside[0]]
        whole = max(lung[0], lung[-1]) < CUT_OFF * lung.max()
        if height > LUNG_HEIGHT[1] or (whole and height < LUNG_HEIGHT[0]):
            found = _("the lungs are {height:.0f} mm high").format(height=height)
        elif millilitres > LUNG_ML[1] or (whole and millilitres < LUNG_ML[0]):
            found = _("the lungs measure {millilitres:,.0f} ml").format(millilitres=millilitres)
    if not found:
        return None
    return _(
        "The sizes cannot be right: {found}. Is the spacing of pixels and slices right, and "
        "is it one adult's scan? No millilitres, no thirds and no severity score."
    ).format(found=found)


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
    if scan.spacing is not None and is_alternating(scan.hu):
        raise InputError(
            "every second slice shows another scan: two acquisitions or patients are interleaved; expected "
            "one volume; "
            "export one of them."
        )
    warnings = _geometry_doubts(scan, features)
    if burned_in_text(slices):
        warnings.append(
            _(
                "Text seems to be burned into the picture beside the body and may name the patient: "
                "the report's pictures show nothing outside the body, but the scan itself still does."
            )
        )
    chest = [f for f in features if f["lung_percent"] >= 100 * LUNG_SLICE] or features
    for name, (words, unit) in FEATURES.items():
        if name in ranges:
            value, (low, high) = float(np.median([f[name] for f in chest])), ranges[name]
            margin = MARGIN * (high - low)
            if not low - margin <= value <= high + margin:
                warnings.append(
                    _(
                        "Unlike most training slices: {words} is {value:.0f} {unit}, in 98 of 100 of them "
                        "{low:.0f} to {high:.0f} {unit}; the masks may be less exact."
                    ).format(words=_(words), value=value, unit=unit, low=low, high=high)
                )
    return warnings


def _check_units(slices: np.ndarray) -> None:
    """InputError unless air and soft tissue are where Hounsfield units have them."""
    low, high = int(slices.min()), int(slices.max())
    if low == high:
        raise InputError(
            f"all pixels are {low}; expected a picture of a chest; look at the file in a viewer."
        )
    if (denser := (slices > DENSEST).mean()) > MOST_DENSER:
        raise InputError(
            f"{denser:.0%} of the values lie above {DENSEST}, up to {high}, which no tissue reaches; "
            "expected Hounsfield units; give padding outside the body the value of air, -1000, or export it "
            "again."
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
            _(
                "Slices are {thickness:g} mm thick: above {limit:g} mm small lesions fade into the "
                "lung around them."
            ).format(thickness=scan.thickness, limit=THICK)
        )
    if scan.spacing is None:
        return [
            *warnings,
            _("The file does not say a pixel's size: no millilitres, no thirds and no severity score."),
        ]
    if len(scan.hu) > 1 and not scan.is_volume:
        warnings.append(
            _(
                "Neighbouring slices are unlike each other: taken as single slices, without "
                "millilitres, thirds and score."
            )
        )
    step, *pixel = scan.spacing
    if scan.thickness and len(scan.hu) > 1 and step > 1.5 * scan.thickness:
        warnings.append(
            _(
                "Slices of {thickness:g} mm lie {step:g} mm apart: millilitres take the gaps to be "
                "like the slices."
            ).format(thickness=scan.thickness, step=step)
        )
    picture = np.prod(scan.hu.shape[1:]) * np.prod(pixel) / 100
    body = [f["body_percent"] / 100 * picture for f in features]
    lung = [f["lung_percent"] / 100 * area for f, area in zip(features, body)]
    of_body = _(
        "The largest slice of the body measures {area:.0f} cm2, of an adult {low} to {high} cm2: is it a "
        "whole chest, and is the pixel spacing right?"
    )
    of_lungs = _(
        "The largest slice of the lungs measures {area:.0f} cm2, of an adult {low} to {high} cm2: is it a "
        "whole chest, and is the pixel spacing right?"
    )
    for said, area, (low, high) in ((of_body, max(body), BODY_AREA), (of_lungs, max(lung), LUNG_AREA)):
        if not low <= area <= high:
            warnings.append(said.format(area=area, low=low, high=high))
    return warnings


def lung_outside(labels: np.ndarray, hu: np.ndarray) -> float:
    """Share of the predicted lung, 0..1, that lies outside the body: a network's error.

    Labels, hu: (N, H, W).

    A picture that ends at the lungs has no outside.
    """
    lung = outside = 0
    for label, picture in zip(labels[chosen := looked_at(len(hu))], hu[chosen], strict=True):
        found = label != BACKGROUND
        lung += found.sum()
        if shows_outside(picture):
            outside += (found & ~body_with_rim(picture)).sum()
    return float(outside / max(lung, 1))


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
