"""From a NIfTI scan and its masks to slices of HU and labels: orientation, classes, size."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungseg_utils.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, LUNG_WINDOW
from lungseg_utils.files import InputError, first_line
from lungseg_utils.importers_kinds import Kind

MOST_VOXELS = 2**30  # six times the largest published volume; a header that claims more is broken


@dataclass(frozen=True)
class Case:
    """The files of one volume (or of one stack of slices), and its number of slices."""

    name: str
    image: Path
    lesions: Path | None
    lungs: Path | None
    slices: int


def open_scan(path: Path) -> Any:
    """The NIfTI file, its voxels unread. Raises InputError if it is none, not 3D, or impossibly large."""
    import nibabel

    try:
        scan = nibabel.load(path)
    except Exception as error:  # nibabel's own errors, OSError, EOFError, zlib's
        raise InputError(f"{path} is not readable as NIfTI ({first_line(error)}); get the file again") from error
    if len(scan.shape) != 3 or not 0 < np.prod(scan.shape, dtype=float) <= MOST_VOXELS:
        raise InputError(f"{path} has the shape {scan.shape}; expected (columns, rows, slices) of a CT; get it again")
    return scan


def case_slices(kind: Kind, case: Case, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """HU float32 and labels uint8, both (size, size), of each slice, from feet to head or, of a stack, as in the file.

    Front up, the patient's right at the image's left; padded with air to a square. The masks are turned like the image:
    voxel belongs to voxel in all of these sets, whatever a mask's own header says. One case is in memory, as stored.
    Raises InputError for unreadable files, values that are not finite, and mask values that the set does not have.
    """
    from lungseg_utils.partial_labels import LESION, NOT_LESION  # it imports torch

    shared = kind.shared is not None and case.name.startswith(kind.shared)
    turn = _turn(case.image, kind.stack, as_stored=shared)
    images, to_hu = _voxels(case.image, turn)
    lesions, to_lesion = _voxels(case.lesions, turn)
    lungs, to_lung = _voxels(case.lungs, turn)
    outside = BACKGROUND if kind.lungs else NOT_LESION
    meaning = (GROUND_GLASS, CONSOLIDATION, BACKGROUND) if kind.effusion else (LESION,)
    grey = shared and to_hu(images.min()) >= 0 and to_hu(images.max()) <= 255  # as HU there would be no air
    for z, image in enumerate(images):
        hu = to_hu(image)
        if grey:
            hu = LUNG_WINDOW[0] + hu * np.float32((LUNG_WINDOW[1] - LUNG_WINDOW[0]) / 255)
        if not np.isfinite(hu).all():
            raise InputError(f"{case.image} holds values that are not finite; expected HU; get the file again")
        labels = np.full(hu.shape, outside, np.uint8)
        if lungs is not None:
            labels[to_lung(lungs[z]) != 0] = LUNG_OTHER
        if lesions is not None:
            mask = to_lesion(lesions[z])
            if not np.isin(mask, range(len(meaning) + 1)).all():
                raise InputError(f"{case.lesions} holds values other than 0 to {len(meaning)}; get the published mask")
            for value, label in enumerate(meaning, 1):
                labels[mask == value] = label
        square = to_square(hu, size, float(hu.min()), cv2.INTER_AREA)
        yield square, to_square(labels, size, outside, cv2.INTER_NEAREST_EXACT)


def to_square(picture: np.ndarray, size: int, fill: float, interpolation: int) -> np.ndarray:
    """(H, W) padded with `fill` at both sides to a square, then resized to (size, size): nothing is stretched."""
    height, width = picture.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (top, side - height - top, left, side - width - left)
    square = cv2.copyMakeBorder(np.ascontiguousarray(picture), *edges, cv2.BORDER_CONSTANT, value=fill)
    if side < size and interpolation == cv2.INTER_AREA:
        interpolation = cv2.INTER_LINEAR  # enlarging by areas would repeat pixels
    return square if side == size else cv2.resize(square, (size, size), interpolation=interpolation)


def _turn(path: Path, stack: bool, as_stored: bool) -> np.ndarray:
    """nibabel's transform of the stored axes: columns to the patient's left, rows to the back, slices to the head.

    The slices of a stack stay in their order. as_stored: columns and rows are so already and the header errs. That of
    COVID-19-CT-Seg's Radiopaedia cases calls the back the front; their users turn them by hand (on GitHub
    neuro-ml/COVID-19-Triage, scripts/prepare_medseg.py; haydengunraj/COVIDNet-CT, radiopaedia_coronacases.py).
    """
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    axes = io_orientation(open_scan(path).affine)
    if np.isnan(axes).any() or axes[2, 0] != 2:
        raise InputError(f"{path}: its third axis does not run along the body; expected axial slices; get it again")
    if as_stored:
        return np.array([[0, 1], [1, 1], axes[2]])
    turn = ornt_transform(axes, axcodes2ornt(("L", "P", "S")))
    if stack:
        turn[2, 1] = 1
    return turn


def _voxels(path: Path | None, turn: np.ndarray) -> tuple[np.ndarray | None, Any]:
    """The voxels in the file's own type, turned, (N, H, W), and the function that makes them float32 values."""
    from nibabel.orientations import apply_orientation

    if path is None:
        return None, None
    scan = open_scan(path)
    try:
        stored = scan.dataobj.get_unscaled()
    except Exception as error:  # as in open_scan
        raise InputError(f"{path} is not readable to its end ({first_line(error)}); get the file again") from error
    slope, intercept = np.float32(scan.dataobj.slope), np.float32(scan.dataobj.inter)
    return apply_orientation(stored, turn).T, lambda values: np.asarray(values, np.float32) * slope + intercept
