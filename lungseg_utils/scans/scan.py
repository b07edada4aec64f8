"""Scans in, masks out: NIfTI, DICOM, NumPy arrays and pictures become one kind of volume; masks go back.

nifti.py, dicom.py and pictures.py read the kinds; what they share stands here. Nothing is resampled: axes are
exchanged and reversed until slices lie as a radiologist sees them, and the same steps back give the mask in
the file's own grid.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, NUM_CLASSES
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import thumbnails
from lungseg_utils.data.features import looked_at
from lungseg_utils.data.similarity import VOLUME_JUMP

# Values in mask.nii.gz and segment numbers in mask.dcm; 0 is what viewers leave transparent.
MASK_VALUES = {BACKGROUND: 0, GROUND_GLASS: 1, CONSOLIDATION: 2, LUNG_OTHER: 3}
MASK_TABLE = np.array([MASK_VALUES[index] for index in range(NUM_CLASSES)], np.uint8)
WRAPPED = 60_000  # negative HU that were stored without a sign lie above it, and nothing else
MAX_SIDE = 4096  # pixels; the largest clinical matrix is 2048
MIN_SIDE = 96  # pixels: below, a pixel of a chest is wider than 4 mm
MAX_VOXELS = 2**29  # 2,048 slices of 512 x 512, 1 GiB in int16
KINDS = (
    "NIfTI (.nii, .nii.gz), DICOM (a file, a folder, a zip or a tar), MHA, MHD or NRRD, a NumPy array "
    "(.npy), a PNG or a "
    "JPEG, or a folder of them"
)


class SeveralScans(InputError):
    """Where one scan was expected there are several: of them `find_scans` makes a list."""


@dataclass(frozen=True)
class Scan:
    """A chest CT as the network and the report see it.

    hu: int16 (N, H, W); slices from feet to head, rows from front to back, columns from the patient's right
    to left. Arrays and pictures say nothing of that, and keep the order of their file.
    """

    hu: np.ndarray
    # mm between slices, rows, columns; None if the file does not say, or contradicts itself
    spacing: tuple[float, float, float] | None
    thickness: float | None  # mm, of a slice, if the file says
    kind: str  # nifti, dicom, array or picture
    is_hu: bool  # False where HU were estimated from grey levels
    modality: str | None  # CT if the file says so; others are refused
    notes: tuple[str, ...]  # sentences for the user, without any name, path or text of the file
    # What write_masks needs; it holds a patient's identifiers, so it is never printed.
    frame: Any = field(repr=False)
    # (N,) mm of each slice above the first, where the steps are not all equal.
    places: tuple[float, ...] | None = None

    @cached_property
    def is_volume(self) -> bool:
        """Whether the slices are neighbours in one body.

        Their distance is known, and most look like the one before.
        """
        if self.spacing is None or len(self.hu) < 2:
            return False
        first = looked_at(len(self.hu) - 1)
        jumps = np.abs(thumbnails(self.hu[first]) - thumbnails(self.hu[first + 1])).mean((1, 2))
        return float(np.median(jumps)) < VOLUME_JUMP


def check_size(shape: tuple[int, ...]) -> None:
    """Raises InputError unless (N, H, W) can be a scan.

    Called on what a header claims, before memory is taken.
    """
    slices, height, width = shape
    size = f"{slices} slices of {height} x {width} pixels"
    if min(height, width) < MIN_SIDE or slices < 1:
        raise InputError(
            f"the scan has {size}; expected at least {MIN_SIDE} x {MIN_SIDE}; give it at its full size."
        )
    if max(height, width) > MAX_SIDE or slices * height * width > MAX_VOXELS:
        most = f"{MAX_SIDE} a side and {MAX_VOXELS:,} in all"
        raise InputError(f"the header claims {size}; expected at most {most}; give a part of the scan.")


def with_sign(values: np.ndarray) -> np.ndarray:
    """Stored values; those without a sign of which some are so high that they were negative get theirs."""
    wrapped = values.dtype == np.uint16 and values.max(initial=0) > WRAPPED
    return np.ascontiguousarray(values).view(np.int16) if wrapped else values


def to_int16(values: np.ndarray) -> np.ndarray:
    """Values rounded and clipped to int16, the type of HU. Raises InputError for NaN and infinity."""
    values = with_sign(values)
    if values.dtype == np.int16:
        return np.asarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            "the scan holds NaN or infinite values; expected Hounsfield units; repair or export it again."
        )
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values) if values.dtype.kind == "f" else values, limits.min, limits.max).astype(
        np.int16
    )
