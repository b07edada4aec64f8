"""Grey levels to Hounsfield units, for pictures and other scans in 8 bits."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage, signal

from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import CROSS, largest_piece
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.core.npy import INT16

AIR_LIMIT = -300  # HU; no tissue but lung and air lies below
FAT_LIMIT = -50  # HU; in every slice of a body something lies below
LEAST_SPREAD = 100  # from lowest to highest: HU of a chest span a thousand
LEAST_LEVELS = 16  # fewer grey levels are labels
GREY_SAMPLE = 9  # slices that a volume's grey scale is fitted on
AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -100.0, 50.0  # Bushberg et al., The Essential Physics of Medical Imaging
LEVELS = 256
# from here up a level may be all that the display window cut off: bone, contrast medium, at times muscle
WHITE = 248
SMOOTH = 2  # levels, sigma: bridges the gaps of a histogram that was stretched to 8 bits
BLACK = 3  # levels from the darkest that count as it
ESTIMATED = N_(
    "The values are grey levels, not HU: HU were estimated from the image's own {found}, "
    "and are less sure than a scanner's."
)


def settle_values(hu: np.ndarray) -> tuple[bool, list[str]]:
    """Whether hu, int16 (N, H, W), is in HU, and notes. Grey levels, 0 to 255, become estimated HU in place.

    Raises InputError for values that are neither.
    """
    lows, highs = hu.min((1, 2)), hu.max((1, 2))
    low, high, blank = int(lows.min()), int(highs.max()), int((lows == highs).sum())
    if blank == len(hu):
        raise InputError(
            f"all pixels of a slice have the same value, {low}; expected a chest CT; export it again."
        )
    notes = [_("{blank} of {count} slices are blank.").format(blank=blank, count=len(hu))] if blank else []
    if low < AIR_LIMIT:
        _check_offset(hu, low)
        if odd := int(((lows > FAT_LIMIT) & (lows < highs)).sum()):
            notes.append(
                _(
                    "{count} of {total} slices hold neither air nor fat, as if their values were not in HU "
                    "like the others' (no rescale intercept?): what is measured in them is wrong."
                ).format(count=odd, total=len(hu))
            )
        return True, notes
    if low < 0 or high > 255:
        raise InputError(
            f"the values run from {low} to {high}, so none is air; expected Hounsfield units (air -1000, "
            "water 0), or "
            "grey levels from 0 to 255; apply the rescale slope and intercept."
        )
    present = np.zeros(256, bool)
    for slice_ in hu:
        present[slice_] = True
    if present.sum() < LEAST_LEVELS:
        found = f"{present.sum()} values, from {low} to {high}"
        raise InputError(f"the scan has {found}, as labels have; expected a CT; name the scan itself.")

    step = max(len(hu) // GREY_SAMPLE, 1)
    scale = fit_grey(hu[step // 2 :: step])
    table = scale.hu(np.arange(256))
    for slice_ in hu:
        slice_[:] = table[slice_]
    return False, [*notes, _(ESTIMATED).format(found=", ".join(map(_, scale.found)))]


def _check_offset(hu: np.ndarray, low: int) -> None:
    """Raises InputError for grey levels that are HU with 1024 added.

    So where only padding, the lowest value, is as dark as air, and tissue lies about 1024 above water.
    """
    sample = hu[:: max(len(hu) // GREY_SAMPLE, 1)]
    values = sample[sample > max(low, -1100)]
    dark, shifted = (
        ((values < AIR_LIMIT).mean(), ((values > 900) & (values < 1250)).mean()) if len(values) else (1, 0)
    )
    if dark < 0.005 and shifted > 0.1:
        raise InputError(
            f"but for padding of {low}, the values run from {values.min()} to {values.max()}, {shifted:.0%} "
            "of them from "
            "900 to 1250, where an offset of about 1024 leaves soft tissue; expected Hounsfield units (air "
            "-1000, water "
            "0); apply the rescale slope and intercept."
        )


class Spread:
    """Lowest and highest of the values as the file has them, before they are rounded to HU."""

    def __init__(self) -> None:
        self.low, self.high, self.whole = np.inf, -np.inf, True

    def seen(self, values: np.ndarray) -> np.ndarray:
        """The values themselves."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.whole = self.whole and (values.dtype.kind != "f" or bool((values == np.rint(values)).all()))
        return values

    def check(self) -> None:
        """Raises InputError for values that were scaled, to 0..1 or by mean and deviation.

        They are no HU any more.
        """
        if not self.whole and self.high - self.low < LEAST_SPREAD:
            raise InputError(
                f"the values run from {self.low:.3g} to {self.high:.3g} in fractions: they were scaled "
                "(normalised), and "
                "how is not known; expected Hounsfield units (air -1000, water 0), or grey levels from 0 to "
                "255; undo the "
                "scaling or give the scan before it."
            )


@dataclass(frozen=True)
class GreyScale:
    """HU = slope * grey + intercept, and the tissues that fixed it."""

    slope: float
    intercept: float
    found: tuple[str, ...]

    def hu(self, grey: np.ndarray) -> np.ndarray:
        """Estimated HU, int16, of grey levels of any shape."""
        hu = np.rint(self.slope * grey.astype(np.float32) + self.intercept)
        return hu.clip(INT16.min, INT16.max).astype(np.int16)


def fit_grey(slices: Iterable[np.ndarray]) -> GreyScale:
    """The line from grey to HU through the slices' own peaks.

    Air at -1000, fat at -100 (where it shows), muscle at 50.

    slices: (H, W) each, integers from 0 to 255; white is dense. Air is the peak outside the body, unless that
    is darker than the darkest lung: then it is the frame around a round field of view, and the lung's darkest
    hundredth is taken. MedSeg made its HU the same way, from regions that a reader chose
    (medicalsegmentation.com/covid19). Raises InputError if there is no body or no air, or the lungs are black
    as in a soft-tissue window.
    """
    body, inside, outside = np.zeros((3, LEVELS))
    hollow = whole = 0
    for grey in slices:
        for total, region in zip((body, inside, outside), _regions(grey), strict=True):
            total += np.bincount(grey[region], minlength=LEVELS)
        shown, filled = largest_piece(grey > grey.min() + BLACK)
        hollow, whole = hollow + (filled & ~shown).sum(), whole + filled.sum()
    tissue = _peaks(body[:WHITE]) or ([int(body.argmax())] if body.any() else [])
    pixels = body.sum() + inside.sum() + outside.sum()
    if not tissue or inside.sum() + outside.sum() < 0.01 * pixels:
        raise InputError(
            "the grey levels show no body beside air; expected a chest CT in a lung window; check that white "
            "is dense."
        )
    if hollow > 0.1 * whole:  # beside the windpipe, which is small
        raise InputError(
            "the lungs are plain black; expected a lung window, such as -1350 to 150 HU; export it anew."
        )
    has_lungs = inside.sum() > 0.01 * pixels
    darkest = float((inside.cumsum() > 0.01 * inside.sum()).argmax()) if has_lungs else 0.0
    black = np.flatnonzero(body + inside + outside)[0] + BLACK
    air = [level for level in _peaks(outside) if level < min(tissue) / 2]
    beyond_black = [level for level in air if level > black]
    # Black is the air where the window cut it off, or a frame around the picture: then it is darker than any
    # lung.
    if (darkest - black > 0.06 * (max(tissue) - darkest)) if has_lungs else beyond_black:
        air = beyond_black
    dark = float(max(air, key=lambda level: outside[level])) if air else darkest
    low = max(tissue, key=lambda level: body[level])
    # Most of a body is muscle or fat, and the brighter of two such peaks is muscle; contrast medium makes
    # small ones.
    high = [level for level in tissue if body[level] > 0.3 * body[low]]
    pairs = [level for level in high if 0.08 < (level - low) / (level - dark) < 0.25]
    muscle = max(pairs, default=low)
    fat = [level for level in tissue if 0.08 < (muscle - level) / (muscle - dark) < 0.25]
    anchors = {"air": (dark, AIR_HU)}
    if fat:
        anchors["fat"] = (max(fat, key=lambda level: body[level]), FAT_HU)
    anchors["muscle"] = (muscle, MUSCLE_HU)
    levels, hu = zip(*anchors.values(), strict=True)
    slope, intercept = np.polyfit(levels, hu, 1)
    return GreyScale(float(slope), float(intercept), tuple(anchors))


def _regions(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bool (H, W) each.

    The largest bright piece (the body), the dark within it (lungs), the dark outside it.
    """
    bright = grey > _otsu(np.bincount(grey.ravel(), minlength=LEVELS))
    body, filled = largest_piece(bright)
    around = cv2.dilate(filled.astype(np.uint8), CROSS, iterations=3) > 0
    return body, filled & ~body, ~around & ~bright


def _otsu(counts: np.ndarray) -> int:
    """The level that parts dark from bright.

    Otsu 1979, A threshold selection method from gray-level histograms.
    """
    share = np.cumsum(counts / counts.sum())
    mean = np.cumsum(counts / counts.sum() * np.arange(LEVELS))
    spread = share * (1 - share)
    between = np.divide((mean[-1] * share - mean) ** 2, spread, out=np.zeros(LEVELS), where=spread > 1e-9)
    return int(between.argmax())


def _peaks(counts: np.ndarray) -> list[int]:
    """Levels at which a smoothed histogram peaks, none lower than a tenth of the highest."""
    smooth = ndimage.gaussian_filter1d(counts, SMOOTH, mode="constant")
    found, _ = signal.find_peaks(np.r_[0, smooth, 0], prominence=max(0.1 * smooth.max(), 1e-9))
    return [int(level) - 1 for level in found]
