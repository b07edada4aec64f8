"""Grey levels to Hounsfield units, for pictures and other scans in 8 bits; reading PNG and JPEG, masks as PNG."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage, signal

from lungseg_utils.classes import CLASSES
from lungseg_utils.files import InputError, atomic_write
from lungseg_utils.scan_checks import largest_piece
from lungseg_utils.scans import Scan, check_size, settle_values, to_int16

AIR_HU, FAT_HU, MUSCLE_HU = -1000.0, -100.0, 50.0  # Bushberg et al., The Essential Physics of Medical Imaging
LEVELS = 256
WHITE = 248  # from here up a level may be all that the display window cut off: bone, contrast medium, at times muscle
SMOOTH = 2  # levels, sigma: bridges the gaps of a histogram that was stretched to 8 bits
BLACK = 3  # levels from the darkest that count as it
COLOURED = 16  # levels between the colours of a pixel; JPEG's own chroma noise stays below
ESTIMATED = (
    "The values are grey levels, not HU: HU were estimated from the image's own {found}, "
    "and are less sure than a scanner's."
)


@dataclass(frozen=True)
class GreyScale:
    """HU = slope * grey + intercept, and the tissues that fixed it."""

    slope: float
    intercept: float
    found: tuple[str, ...]

    def hu(self, grey: np.ndarray) -> np.ndarray:
        """Estimated HU, int16, of grey levels of any shape."""
        return to_int16(self.slope * grey.astype(np.float32) + self.intercept)


def fit_grey(slices: Iterable[np.ndarray]) -> GreyScale:
    """The line from grey to HU through the slices' own peaks: air at -1000, fat at -100 (where it shows), muscle at 50.

    slices: (H, W) each, integers from 0 to 255; white is dense. Air is the peak outside the body, unless that is darker
    than the darkest lung: then it is the frame around a round field of view, and the lung's darkest hundredth is taken.
    MedSeg made its HU the same way, from regions that a reader chose (medicalsegmentation.com/covid19).
    Raises InputError if there is no body or no air, or the lungs are black as in a soft-tissue window.
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
            "the grey levels show no body beside air; expected a chest CT in a lung window; check that white is dense."
        )
    if hollow > 0.1 * whole:  # beside the windpipe, which is small
        raise InputError("the lungs are plain black; expected a lung window, such as -1350 to 150 HU; export it anew.")
    has_lungs = inside.sum() > 0.01 * pixels
    darkest = float((inside.cumsum() > 0.01 * inside.sum()).argmax()) if has_lungs else 0.0
    black = np.flatnonzero(body + inside + outside)[0] + BLACK
    air = [level for level in _peaks(outside) if level < min(tissue) / 2]
    beyond_black = [level for level in air if level > black]
    # Black is the air where the window cut it off, or a frame around the picture: then it is darker than any lung.
    if (darkest - black > 0.06 * (max(tissue) - darkest)) if has_lungs else beyond_black:
        air = beyond_black
    dark = float(max(air, key=lambda level: outside[level])) if air else darkest
    low = max(tissue, key=lambda level: body[level])
    # Most of a body is muscle or fat, and the brighter of two such peaks is muscle; contrast medium makes small ones.
    high = [level for level in tissue if body[level] > 0.3 * body[low]]
    pairs = [level for level in high if 0.08 < (level - low) / (level - dark) < 0.25]
    muscle = max(pairs, default=low)
    fat = [level for level in tissue if 0.08 < (muscle - level) / (muscle - dark) < 0.25]
    anchors = {"air": (dark, AIR_HU)}
    if fat:
        anchors["fat"] = (max(fat, key=lambda level: body[level]), FAT_HU)
    anchors["muscle"] = (muscle, MUSCLE_HU)
    slope, intercept = np.polyfit(*zip(*anchors.values(), strict=True), 1)
    return GreyScale(float(slope), float(intercept), tuple(anchors))


def _regions(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bool (H, W) each: the largest bright piece (the body), the dark within it (lungs), the dark outside it."""
    bright = grey > _otsu(np.bincount(grey.ravel(), minlength=LEVELS))
    body, filled = largest_piece(bright)
    return body, filled & ~body, ~ndimage.binary_dilation(filled, iterations=3) & ~bright


def _otsu(counts: np.ndarray) -> int:
    """The level that parts dark from bright (Otsu 1979, A threshold selection method from gray-level histograms)."""
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


def read_picture(path: Path) -> Scan:
    """One slice from a PNG (8 or 16 bits) or a JPEG; a colour picture only if all of it is grey. Raises InputError."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size has a lower limit, and refuses
            image = Image.open(path, formats=("PNG", "JPEG"))
        check_size((1, image.height, image.width))
        image.load()
    except InputError:
        raise
    except Exception as error:  # whatever Pillow makes of a damaged file
        raise InputError(f"{path} is no PNG or JPEG, or not all of it; expected one; export it again.") from error
    grey = np.asarray(image) if image.mode.startswith("I") else _single_channel(np.asarray(image.convert("RGBA")))
    if grey.max() > 255:  # 16 bits: 256 levels of them are as fine as the estimate deserves
        low, high = int(grey.min()), int(grey.max())
        grey = np.rint((grey - float(low)) * (255 / max(high - low, 1)))
    hu = grey[None].astype(np.int16)
    if hu.min() < 0:
        raise InputError(f"{path} holds negative grey levels; expected 8 or 16 bits; export it again.")
    _, notes = settle_values(hu)
    notes.append("A picture does not say how the patient lies: its left edge is taken to be the patient's right.")
    return Scan(hu, None, None, "picture", False, None, tuple(notes), grey.shape)


def _single_channel(rgba: np.ndarray) -> np.ndarray:
    """Grey levels (H, W) of (H, W, 4), transparent pixels black. InputError if more than a thousandth has colour."""
    rgb = rgba[..., :3].astype(np.int16)
    coloured = float((np.ptp(rgb, axis=-1) > COLOURED).mean())
    if coloured > 0.001:
        raise InputError(
            f"{coloured:.1%} of the picture's pixels have colour; expected a CT in grey; export it without overlays."
        )
    return np.rint(rgb.mean(-1) * (rgba[..., 3] / 255)).astype(np.uint8)


def write_picture(path: Path, labels: np.ndarray) -> Path:
    """PNG of labels (H, W) in the classes' colours, of the picture's own size; a pixel's index is its class."""
    from PIL import Image

    image = Image.fromarray(labels)
    image.putpalette([round(255 * value) for tissue in CLASSES for value in to_rgb(tissue.color)])
    with atomic_write(path, "wb") as handle:
        image.save(handle, "PNG", optimize=True)
    return path
