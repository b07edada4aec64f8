"""Before a prediction: is this a chest CT in Hounsfield units, and in what does it differ from what training saw?

A scan that cannot be right is an InputError; a doubt is a sentence for the user. All looks at a few slices, each
thinned to about 256 pixels a side, so that a long scan takes no longer than a short one.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from lungseg_utils.classes import BACKGROUND
from lungseg_utils.files import InputError

if TYPE_CHECKING:
    from lungseg_utils.datasets import SliceDataset
    from lungseg_utils.scans import Scan

LOOKED_AT, TRAINING_SLICES = 24, 256  # slices of a scan, and of a training set, that are looked at
THINNED = 256  # pixels a side
SOLID = -400  # HU; above it is body, below it air or aerated lung
SOFT_TISSUE = 150  # HU, either side of water
LEAST_AIR, LEAST_TISSUE = 0.01, 0.02  # shares of all pixels; the competition's slices have at least 0.04 and 0.15
LEAST_LUNG, LUNG_SLICE = 0.02, 0.05  # air as a share of the body: in one slice at least; in a slice of the lungs
LUNG_AREA, BODY_AREA = (40, 800), (150, 1800)  # cm2 that the largest slice of an adult's chest may have
THICK = 5.0  # mm
MARGIN = 0.1  # the ranges are widened by a tenth at each end, where a per cent of the training slices lies outside
# What is compared with training, from each slice. The values end at the 90th percentile: beyond is bone, which most
# training slices came without, cut off at 150 HU.
FEATURES = {
    "low_hu": ("the value of the body's darkest parts, its 5th percentile,", "HU"),
    "median_hu": ("the middle value of the body", "HU"),
    "high_hu": ("the value of the body's brightest parts, its 90th percentile,", "HU"),
    "noise_hu": ("the noise in soft tissue", "HU"),
    "lung_percent": ("the share of air in the body", "%"),
    "body_percent": ("the share of the picture that the body fills", "%"),
}


def largest_piece(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest piece of mask, bool (H, W), thin bridges cut, and the same with its holes filled; both empty if it is."""
    pieces, _ = ndimage.label(ndimage.binary_opening(mask, iterations=2))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    piece = (pieces == sizes.argmax()) & (pieces > 0)
    return piece, ndimage.binary_fill_holes(piece)


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The largest piece of solid tissue with all that it encloses, bool (H, W): the trunk with the lungs. hu: (H, W).

    An opening by two pixels takes the table and sleeves away: meant for slices thinned to about 256 px.
    """
    return largest_piece(hu > SOLID)[1]


def slice_features(hu: np.ndarray) -> dict[str, float] | None:
    """The numbers of FEATURES for one slice (H, W) in HU; None without a body.

    noise_hu: standard deviation of Gaussian noise that would give neighbours in soft tissue their mean difference.
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


def training_ranges(train_set: "SliceDataset") -> dict[str, Any]:
    """What a model's training slices are like, for its config.json: of each of FEATURES the 1st and 99th percentile.

    Over slices of the lungs, as `check_scan` takes them; `slices`: how many these were.
    """
    rows = train_set.slices.iloc[:: max(len(train_set.slices) // TRAINING_SLICES, 1)]
    found = []
    for source, index in zip(rows.source, rows["index"]):
        features = slice_features(np.load(train_set.folder / f"images_{source}.npy", mmap_mode="r")[index])
        if features and features["lung_percent"] >= 100 * LUNG_SLICE:
            found.append(features)
    ends = {name: np.percentile([f[name] for f in found], (1, 99)) for name in FEATURES if found}
    return {"slices": len(found), **{name: np.round(values, 1).tolist() for name, values in ends.items()}}


def looked_at(count: int) -> np.ndarray:
    """Positions of the slices that are looked at, evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).round().astype(int))


def is_volume(scan: "Scan") -> bool:
    """Whether the slices are neighbours in one body: their distance is known, and most look like the one before."""
    from lungseg_utils.data import VOLUME_JUMP, thumbnails

    if scan.spacing is None or len(scan.hu) < 2:
        return False
    first = looked_at(len(scan.hu) - 1)
    jumps = np.abs(thumbnails(scan.hu[first]) - thumbnails(scan.hu[first + 1])).mean((1, 2))
    return float(np.median(jumps)) < VOLUME_JUMP


def check_scan(scan: "Scan", ranges: dict[str, Any] | None = None) -> list[str]:
    """Sentences about what is doubtful; ranges: a config.json's `training_ranges`, if it has any.

    Raises InputError if the scan is no CT, its values are no HU, or no chest is in the picture.
    """
    ranges = ranges or {}
    if scan.modality not in (None, "CT"):
        raise InputError("the scan's modality is not CT; expected a chest CT; choose another scan or series.")
    slices = scan.hu[looked_at(len(scan.hu))]
    _check_units(slices)
    features = [f for f in map(slice_features, slices) if f]
    if not features or max(f["lung_percent"] for f in features) < 100 * LEAST_LUNG:
        raise InputError(
            "no body with lungs in it was found; expected axial slices of a chest; give the scan's series of the chest."
        )
    warnings = _geometry_doubts(scan, features)
    if burned_in_text(slices):
        warnings.append(
            "Text seems to be burned into the picture beside the body and may name the patient: the report's pictures "
            "show nothing outside the body, but the scan itself still does."
        )
    chest = [f for f in features if f["lung_percent"] >= 100 * LUNG_SLICE] or features
    for name, (words, unit) in FEATURES.items():
        if name in ranges:
            value, (low, high) = float(np.median([f[name] for f in chest])), ranges[name]
            margin = MARGIN * (high - low)
            if not low - margin <= value <= high + margin:
                warnings.append(
                    f"Unlike most training slices: {words} is {value:.0f} {unit}, in 98 of 100 of them {low:.0f} to "
                    f"{high:.0f} {unit}; the masks may be less exact."
                )
    return warnings


def _check_units(slices: np.ndarray) -> None:
    """InputError unless air and soft tissue are where Hounsfield units have them."""
    low, high = int(slices.min()), int(slices.max())
    if low == high:
        raise InputError(f"all pixels are {low}; expected a picture of a chest; look at the file in a viewer.")
    air, tissue = (slices < SOLID).mean(), (np.abs(slices) < SOFT_TISSUE).mean()
    if air < LEAST_AIR or tissue < LEAST_TISSUE:
        raise InputError(
            f"values run from {low} to {high}, {air:.0%} below {SOLID} and {tissue:.0%} within {SOFT_TISSUE} of 0; "
            "expected Hounsfield units, air near -1000 and soft tissue near 0; convert them, or give slices as PNG."
        )


def _geometry_doubts(scan: "Scan", features: list[dict[str, float]]) -> list[str]:
    warnings = []
    if scan.thickness and scan.thickness > THICK:
        warnings.append(
            f"Slices are {scan.thickness:g} mm thick: above {THICK:g} mm small lesions fade into the lung around them."
        )
    if scan.spacing is None:
        return [*warnings, "The file does not say a pixel's size: no millilitres, no thirds and no severity score."]
    if len(scan.hu) > 1 and not is_volume(scan):
        warnings.append(
            "Neighbouring slices are unlike each other: taken as single slices, without millilitres, thirds and score."
        )
    step, *pixel = scan.spacing
    if scan.thickness and len(scan.hu) > 1 and step > 1.5 * scan.thickness:
        warnings.append(
            f"Slices of {scan.thickness:g} mm lie {step:g} mm apart: millilitres take the gaps to be like the slices."
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
    """Share of the predicted lung, 0..1, that lies outside the body: a network's error. labels, hu: (N, H, W)."""
    chosen = looked_at(len(hu))
    lung = labels[chosen] != BACKGROUND
    body = np.stack([body_with_rim(picture) for picture in hu[chosen]])
    return float((lung & ~body).sum() / max(lung.sum(), 1))


def burned_in_text(slices: np.ndarray) -> bool:
    """Whether a line of text stands beside the body in at least half of the slices (n, H, W).

    Text is small pieces of one value, brighter than air, whose feet stand in a row: at least six of them. A table or a
    tube is one long piece of many values.
    """
    return sum(map(has_text, slices)) >= max(len(slices) / 2, 1)


def has_text(hu: np.ndarray) -> bool:
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


def body_with_rim(hu: np.ndarray) -> np.ndarray:
    """The body and a little around it, bool (H, W) for hu (H, W): all that a picture beside burned-in text may show."""
    step = max(round(max(hu.shape) / THINNED), 1)
    body = ndimage.binary_dilation(body_mask(hu[::step, ::step]), iterations=3)
    return np.kron(body, np.ones((step, step), bool))[: hu.shape[0], : hu.shape[1]]
