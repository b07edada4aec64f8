"""Grey levels to Hounsfield units, for pictures and other scans in 8 bits.

Reading PNG and JPEG, masks as PNG.
"""

import re
import warnings
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb

from lungseg_utils.core.classes import CLASSES
from lungseg_utils.core.files import InputError, atomic_write
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.grey import settle_values
from lungseg_utils.scans.orientation import AS_IT_IS, ArrayFrame
from lungseg_utils.scans.scan import Scan, check_size

COLOURED = 16  # levels between the colours of a pixel; JPEG's own chroma noise stays below


def read_picture(path: Path) -> Scan:
    """One slice from a PNG (8 or 16 bits) or a JPEG; a colour picture only if all of it is grey.

    Raises InputError.
    """
    return read_pictures(path, [path])


def read_pictures(folder: Path, files: list[Path]) -> Scan:
    """The slices of one scan from a folder's pictures, `files`, in the order of the numbers in their names.

    Raises InputError.
    """
    files = sorted(files, key=_in_order)
    slices = [_grey(file) for file in files]
    sizes = {grey.shape for grey in slices}
    if len(sizes) > 1:
        found = f"pictures of {len(sizes)} sizes"
        raise InputError(f"{folder} has {found}; expected the slices of one scan; keep those of one size.")
    check_size((len(slices), *slices[0].shape))
    stack = np.stack(slices)
    if stack.max() > 255:  # 16 bits: 256 levels of them are as fine as the estimate deserves
        low, high = int(stack.min()), int(stack.max())
        stack = np.rint((stack - float(low)) * (255 / max(high - low, 1)))
    hu = stack.astype(np.int16)
    if hu.min() < 0:
        raise InputError(f"{folder} holds negative grey levels; expected 8 or 16 bits; export it again.")
    notes = settle_values(hu)[1]
    notes.append(
        _("A picture does not say how the patient lies: its left edge is taken to be the patient's right.")
    )
    if len(files) > 1:
        notes.append(_("The pictures are taken in the order of their names, from feet to head."))
    shape = hu.shape if len(files) > 1 else hu.shape[1:]
    return Scan(hu, None, None, "picture", False, None, tuple(notes), ArrayFrame(shape, AS_IT_IS))


def _in_order(path: Path) -> list:
    """A sort key that takes the digits in a name as numbers: 2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _grey(path: Path) -> np.ndarray:
    """The grey levels of a picture, (H, W)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_size has a lower limit
            image = Image.open(path, formats=("PNG", "JPEG"))
        check_size((1, image.height, image.width))
        image.load()
    except InputError:
        raise
    except Exception as error:  # whatever Pillow makes of a damaged file
        raise InputError(
            f"{path} is no PNG or JPEG, or not all of it; expected one; export it again."
        ) from error
    if image.mode.startswith("I"):
        return np.asarray(image)
    return _single_channel(np.asarray(image.convert("RGBA")))


def _single_channel(rgba: np.ndarray) -> np.ndarray:
    """Grey levels (H, W) of (H, W, 4), transparent pixels black.

    InputError if more than a thousandth has colour.
    """
    rgb = rgba[..., :3].astype(np.int16)
    coloured = float((np.ptp(rgb, axis=-1) > COLOURED).mean())
    if coloured > 0.001:
        raise InputError(
            f"{coloured:.1%} of the picture's pixels have colour; expected a CT in grey; export it without "
            "overlays."
        )
    return np.rint(rgb.mean(-1) * (rgba[..., 3] / 255)).astype(np.uint8)


def write_picture(path: Path, labels: np.ndarray) -> Path:
    """PNG of labels (H, W) in the classes' colours, of the picture's own size.

    A pixel's index is its class.
    """
    from PIL import Image

    image = Image.fromarray(labels)
    image.putpalette([round(255 * value) for tissue in CLASSES for value in to_rgb(tissue.color)])
    with atomic_write(path, "wb") as handle:
        image.save(handle, "PNG", optimize=True)
    return path
