"""How much of the lung is involved: per cent and millilitres by class, side and third, and a six-zone score.

Functions of arrays. Slices run from feet to head, columns from the patient's right to the left, as in
`scans.Scan`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, CLASSES, FOREGROUND, LESIONS, NUM_CLASSES
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.burden import involved_share

SIDES = ("right", "left")  # the patient's: the right one is at the image's left
THIRDS = ("lower", "middle", "upper")
GRADES = (1, 25, 50, 75)  # whole per cent of a zone from which it scores 1, 2, 3, 4
SCORE = N_(
    "after Ooi et al., Radiology 2004, 230:836, adapted: "
    "zones are equal thirds of the lungs' height on each side"
)
LEAST_SLICES, LEAST_HEIGHT = (
    6,
    100.0,
)  # slices with lung, and their height in mm, below which thirds mean little
TISSUE = -500  # HU; above it is body, not air
BODY_HEIGHT = 0.2  # of the tissue in the fullest column: columns with less are table or sleeve
# share of the largest slice's lung from which a slice counts as lung: stray pixels are no apex
EDGE_AREA = 0.02
WHOLE_PIECE = 0.8  # a piece of lung with this share on one side belongs to that side


def midline(labels: np.ndarray, hu: np.ndarray) -> int:
    """The column that parts the lungs: the right one before it, the left one from it on.

    Labels, hu: (N, H, W).

    Where fewest lung pixels are, near the middle of the body. The further from that middle, the less lung a
    column must have to be chosen (a tenth of the fullest column at the end of the search), so that a body
    with one lung is parted at its middle, or just beside a lung that reaches over it.
    """
    width = labels.shape[2]
    lung, tissue = np.zeros(width), np.zeros(width)
    for label, picture in zip(labels, hu):
        lung += (label != BACKGROUND).sum(0)
        tissue += (picture > TISSUE).sum(0)
    body = np.flatnonzero(tissue >= BODY_HEIGHT * tissue.max())
    middle, reach = (body[0] + body[-1] + 1) / 2, max((body[-1] - body[0]) / 4, 1)
    columns = np.arange(max(int(middle - reach), 0), min(int(middle + reach) + 1, width))
    smooth = ndimage.uniform_filter1d(lung, max(width // 100, 1))
    cost = smooth[columns] + 0.1 * lung.max() * np.abs(columns - middle) / reach
    return int(columns[cost.argmin()])


def left_lung(lung: np.ndarray, middle: int) -> np.ndarray:
    """Which pixels of lung, bool (H, W), are the patient's left one.

    Pieces go whole to their side, others are cut.
    """
    pieces, count = ndimage.label(lung)
    beyond = np.bincount(pieces[:, middle:].ravel(), minlength=count + 1) / np.maximum(
        np.bincount(pieces.ravel()), 1
    )
    whole, cut = beyond >= WHOLE_PIECE, (beyond > 1 - WHOLE_PIECE) & (beyond < WHOLE_PIECE)
    return lung & (whole[pieces] | (cut[pieces] & (np.arange(lung.shape[1]) >= middle)))


def side_pixels(labels: np.ndarray, hu: np.ndarray, volume: bool) -> np.ndarray:
    """Pixels of each slice, side and class, int64 (N, 2, 4), background not counted.

    labels: class index (N, H, W); hu: (N, H, W). volume: one patient's, so that one midline holds for all
    slices.
    """
    pixels = np.zeros((len(labels), len(SIDES), NUM_CLASSES), np.int64)
    step = max(len(labels) // 64, 1)
    common = midline(labels[::step], hu[::step]) if volume else None
    for i, label in enumerate(labels):
        lung = label != BACKGROUND
        if lung.any():
            middle = midline(labels[i : i + 1], hu[i : i + 1]) if common is None else common
            left = left_lung(lung, middle)
            for side, inside in enumerate((lung & ~left, left)):
                pixels[i, side] = np.bincount(label[inside], minlength=NUM_CLASSES)
    return pixels


def lung_range(lung: np.ndarray) -> tuple[int, int] | None:
    """First and last slice with more than stray lung; None without any.

    lung: (N,) pixels or area of each slice.
    """
    slices = np.flatnonzero(lung >= max(EDGE_AREA * max(lung, default=0), 1))
    return (int(slices[0]), int(slices[-1])) if len(slices) else None


def slice_heights(places: Sequence[float]) -> np.ndarray:
    """mm of body that each slice stands for: half the way to both neighbours.

    places: (N,) mm, rising, N at least 2.
    """
    steps = np.diff(places)
    return (np.r_[steps[0], steps] + np.r_[steps, steps[-1]]) / 2


def third_of_slices(lung: np.ndarray, heights: np.ndarray) -> np.ndarray | None:
    """Index into THIRDS of each slice, (N,): equal thirds of the lungs' height.

    None if too little of it is there.

    lung: (N,) lung pixels of each slice, both sides; heights: (N,) mm that each slice stands for. Stray
    slices beyond go to the nearest third.
    """
    ends = lung_range(lung)
    if not ends or ends[1] - ends[0] + 1 < LEAST_SLICES:
        return None
    below = np.cumsum(heights) - heights
    bottom, height = below[ends[0]], heights[ends[0] : ends[1] + 1].sum()
    if height < LEAST_HEIGHT:
        return None
    return np.clip(np.floor(3 * (below - bottom) / height + 1e-9), 0, 2).astype(int)


def region(pixels: np.ndarray, voxel_ml: float | None) -> dict[str, Any]:
    """Involvement of a region: per cent of its lung, and millilitres if a voxel has any.

    pixels: (4,), of each class.

    Per cent is None without lung. Names: `involved` is both lesions together, `lung` all classes but
    background.
    """
    names = {CLASSES[c].short: pixels[c] for c in FOREGROUND} | {"involved": pixels[list(LESIONS)].sum()}
    lung = pixels[FOREGROUND].sum()
    share = {
        name: round(100 * float(count) / float(lung), 2) if lung else None for name, count in names.items()
    }
    amounts = {"lung": lung} | names
    ml = {name: round(float(count) * voxel_ml, 1) for name, count in amounts.items()} if voxel_ml else None
    return {"percent_of_lung": share, "millilitres": ml}


def zone_grade(share: float) -> int:
    """Score 0 to 4 of a zone, read in whole per cent as the published limits are.

    Less than half a per cent is 0: stray pixels of a network are no disease.

    Args:
        share: The involved share, 0..1.
    """
    return int(np.searchsorted(GRADES, round(100 * share), side="right"))


def severity_score(zones: np.ndarray) -> dict[str, Any]:
    """Six-zone score from 0 to 24, see SCORE. zones: (3, 2, 4) pixels by third, side and class.

    A zone in which no lung was found has no grade and adds nothing; `zones_without_lung` names it.
    """
    shares, grades = involved_share(zones), {}
    for (third, side), share in np.ndenumerate(shares):
        known = (
            {"percent": round(100 * float(share), 2), "grade": zone_grade(share)}
            if not np.isnan(share)
            else None
        )
        grades[f"{SIDES[side]}_{THIRDS[third]}"] = known
    missing = [name for name, zone in grades.items() if zone is None]
    total = sum(zone["grade"] for zone in grades.values() if zone)
    return {"total": total, "of": 24, "zones": grades, "zones_without_lung": missing, "method": _(SCORE)}


def severity(
    labels: np.ndarray,
    hu: np.ndarray,
    spacing: tuple[float, float, float] | None = None,
    volume: bool = False,
    places: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Involvement of a scan, JSON-ready.

    `all`, by side, and for volumes by third, with score and millilitres.

    labels: class index (N, H, W); hu: (N, H, W); spacing: mm between slices, rows, columns. volume: the
    slices are one patient's, in their order from feet to head; else, or without a spacing, `thirds`, `score`
    and millilitres are None. places: (N,) mm of each slice above the first, where the steps between slices
    vary: each counts with its own. profile: lung and lesions of each slice, cm2 (pixels without a spacing),
    at `position` (mm above the first slice, or the slice's number from 1), and the four `third_limits` in mm.
    """
    pixels = side_pixels(labels, hu, volume)
    lung = pixels[:, :, FOREGROUND].sum((1, 2))
    measured = spacing if volume else None
    heights = slice_heights(places) if places else np.full(len(labels), measured[0] if measured else 1.0)
    voxel_ml = math.prod(measured) / 1000 if measured else None
    counted = pixels * (heights / measured[0])[:, None, None] if measured and places else pixels
    third = third_of_slices(lung, heights) if measured else None
    record = {
        "all": region(counted.sum((0, 1)), voxel_ml),
        "sides": {name: region(counted[:, s].sum(0), voxel_ml) for s, name in enumerate(SIDES)},
        "thirds": None,
        "score": None,
    }
    if third is not None:
        zones = np.stack([counted[third == t].sum(0) for t in range(len(THIRDS))])
        record["thirds"] = {name: region(zones[t].sum(0), voxel_ml) for t, name in enumerate(THIRDS)}
        record["score"] = severity_score(zones)
    above: Sequence[float] = ()
    if measured:
        above = places or (np.arange(len(labels)) * measured[0]).tolist()
    return record | {"profile": _profile(pixels.sum(1), third, spacing, heights, above)}


def _profile(
    pixels: np.ndarray,
    third: np.ndarray | None,
    spacing: tuple[float, float, float] | None,
    heights: np.ndarray,
    places: Sequence[float],
) -> dict[str, Any]:
    """The areas of each slice, as `severity` says; pixels: (N, 4).

    places: mm, empty if they are not known.
    """
    area = spacing[1] * spacing[2] / 100 if spacing else 1.0
    measured = len(places) > 0
    named = {"lung": pixels[:, FOREGROUND].sum(1)} | {CLASSES[c].short: pixels[:, c] for c in LESIONS}
    limits = None
    if third is not None and (ends := lung_range(named["lung"])):
        first, last = ends
        bottom, top = places[first] - heights[first] / 2, places[last] + heights[last] / 2
        limits = np.round(np.linspace(bottom, top, 4), 1).tolist()
    return {
        "position": np.round(places if measured else np.arange(1, len(pixels) + 1), 2).tolist(),
        "position_unit": "mm" if measured else "slice",
        "area_unit": "cm2" if spacing else "pixels",
        **{name: np.round(counts * area, 2).tolist() for name, counts in named.items()},
        "third_limits": limits,
    }
