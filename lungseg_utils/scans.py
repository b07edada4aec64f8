"""Scans in, masks out: NIfTI, DICOM, NumPy arrays and pictures become one kind of volume; masks go back.

nifti.py, dicom.py and pictures.py read the kinds; what they share stands here. Nothing is resampled: axes are exchanged
and reversed until slices lie as a radiologist sees them, and the same steps back give the mask in the file's own grid.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_utils.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, NUM_CLASSES
from lungseg_utils.files import InputError, atomic_write, resolve_path

# Values in mask.nii.gz and segment numbers in mask.dcm; 0 is what viewers leave transparent.
MASK_VALUES = {BACKGROUND: 0, GROUND_GLASS: 1, CONSOLIDATION: 2, LUNG_OTHER: 3}
MASK_TABLE = np.array([MASK_VALUES[index] for index in range(NUM_CLASSES)], np.uint8)

MAX_SIDE = 4096  # pixels; the largest clinical matrix is 2048
MIN_SIDE = 96  # pixels: below, a pixel of a chest is wider than 4 mm
MAX_VOXELS = 2**29  # 2,048 slices of 512 x 512, 1 GiB in int16
AIR_LIMIT = -300  # HU; no tissue but lung and air lies below
LEAST_LEVELS = 16  # fewer grey levels are labels
GREY_SAMPLE = 9  # slices that a volume's grey scale is fitted on
UNPLACED = "An array does not say how the patient lies, nor its spacing: rows are taken to run from front to back."
KINDS = "NIfTI (.nii, .nii.gz), DICOM (a file, a folder or a zip), a NumPy array (.npy), a PNG or a JPEG"


@dataclass(frozen=True)
class Scan:
    """A chest CT as the network and the report see it.

    hu: int16 (N, H, W); slices from feet to head, rows from front to back, columns from the patient's right to left.
    Arrays and pictures say nothing of that, and keep the order of their file.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float] | None  # mm between slices, rows, columns; None if the file does not say
    thickness: float | None  # mm, of a slice, if the file says
    kind: str  # nifti, dicom, array or picture
    is_hu: bool  # False where HU were estimated from grey levels
    modality: str | None  # CT if the file says so; others are refused
    notes: tuple[str, ...]  # sentences for the user, without any name, path or text of the file
    frame: Any = field(repr=False)  # what write_masks needs; it holds a patient's identifiers, so it is never printed


def read_scan(path: str | Path, series: str | int | None = None) -> Scan:
    """Read a scan of any kind, told by its content and not by its name.

    path: a file; for DICOM also a folder, read with its subfolders, or a zip. series: which one, where a DICOM source
    holds several: the number in the list that the error shows, or a SeriesInstanceUID.
    Raises InputError for what is no usable chest CT; nothing is unpacked or written.
    """
    path = resolve_path(path)
    try:
        if path.is_dir():
            kind = "dicom"
        else:
            with path.open("rb") as handle:
                kind = _kind(handle.read(544))
        if kind is None:
            raise InputError(f"{path} is empty or of another kind; expected {KINDS}; name the scan itself.")
        if series is not None and kind != "dicom":
            raise InputError(f"{path} is not DICOM, and only DICOM has series; leave the series out.")
        if kind == "nifti":
            from lungseg_utils.nifti import read_nifti  # the readers import this module

            return read_nifti(path)
        if kind == "dicom":
            from lungseg_utils.dicom import read_dicom

            return read_dicom(path, series)
        if kind == "picture":
            from lungseg_utils.pictures import read_picture

            return read_picture(path)
        return _read_array(path)
    except OSError as error:  # not there, no right to read, a disk that fails
        why = error.strerror or error
        raise InputError(f"{path} cannot be read ({why}); expected {KINDS}; check name and rights.") from error


def write_masks(scan: Scan, labels: np.ndarray, folder: str | Path, keep_identity: bool = False) -> list[Path]:
    """Write the labels in the scan's own grid into `folder`; returns the files, named alike for every scan.

    labels: uint8 (N, H, W), class indices on scan.hu's grid. NIfTI: mask.nii.gz, the scan's shape and affine,
    MASK_VALUES (0 background, 1 ground glass, 2 consolidation, 3 other lung). DICOM: mask.dcm, a DICOM Segmentation
    with these segment numbers; keep_identity copies the patient's and the study's attributes into it. Array: mask.npy,
    the array's shape, class indices. Picture: mask.npy, and mask.png in the classes' colours (index = class index).
    """
    if labels.shape != scan.hu.shape or labels.dtype != np.uint8 or labels.max() >= NUM_CLASSES:
        raise InputError(
            f"labels are {labels.dtype} {labels.shape}; expected uint8 {scan.hu.shape}, classes 0 to {NUM_CLASSES - 1}."
        )
    folder = resolve_path(folder)
    if scan.kind == "nifti":
        from lungseg_utils.nifti import write_nifti

        return [write_nifti(folder / "mask.nii.gz", scan.frame, labels)]
    if scan.kind == "dicom":
        from lungseg_utils.dicom_seg import write_segmentation

        return [write_segmentation(folder / "mask.dcm", scan.frame, labels, keep_identity)]
    path = folder / "mask.npy"
    with atomic_write(path, "wb") as handle:
        np.save(handle, labels.reshape(scan.frame))
    if scan.kind == "array":
        return [path]
    from lungseg_utils.pictures import write_picture

    return [write_picture(folder / "mask.png", labels[0]), path]


def _kind(head: bytes) -> str | None:
    if head[:2] == b"\x1f\x8b":
        return "nifti"  # nifti.py looks inside
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return "nifti"
    if head[128:132] == b"DICM" or head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "dicom"
    if head[:6] == b"\x93NUMPY":
        return "array"
    return "picture" if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff" else None


def _read_array(path: Path) -> Scan:
    """(N, H, W), (N, H, W, 1) or (H, W), numbers in HU or grey levels; memory-mapped, never unpickled."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # whatever NumPy makes of a header that is none
        raise InputError(f"{path} is no array of numbers, or not all of it; expected .npy; save it again.") from error
    frame = array.shape
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise InputError(f"{path} holds {array.dtype} of shape {frame}; expected numbers (N, H, W) or (H, W).")
    check_size(array.shape)
    hu = np.empty(array.shape, np.int16)
    for out, values in zip(hu, array, strict=True):
        out[:] = to_int16(values)
    is_hu, notes = settle_values(hu)
    return Scan(hu, None, None, "array", is_hu, None, (UNPLACED, *notes), frame)


def check_size(shape: tuple[int, ...]) -> None:
    """Raises InputError unless (N, H, W) can be a scan. Called on what a header claims, before memory is taken."""
    slices, height, width = shape
    size = f"{slices} slices of {height} x {width} pixels"
    if min(height, width) < MIN_SIDE or slices < 1:
        raise InputError(f"the scan has {size}; expected at least {MIN_SIDE} x {MIN_SIDE}; give it at its full size.")
    if max(height, width) > MAX_SIDE or slices * height * width > MAX_VOXELS:
        most = f"{MAX_SIDE} a side and {MAX_VOXELS:,} in all"
        raise InputError(f"the header claims {size}; expected at most {most}; give a part of the scan.")


def to_int16(values: np.ndarray) -> np.ndarray:
    """Values rounded and clipped to int16, the type of HU. Raises InputError for NaN and infinity."""
    if values.dtype == np.int16:
        return np.asarray(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError("the scan holds NaN or infinite values; expected Hounsfield units; repair or export it again.")
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(values) if values.dtype.kind == "f" else values, limits.min, limits.max).astype(np.int16)


def settle_values(hu: np.ndarray) -> tuple[bool, list[str]]:
    """Whether hu, int16 (N, H, W), is in HU, and notes. Grey levels, 0 to 255, become estimated HU in place.

    Raises InputError for values that are neither.
    """
    lows, highs = hu.min((1, 2)), hu.max((1, 2))
    low, high, blank = int(lows.min()), int(highs.max()), int((lows == highs).sum())
    if blank == len(hu):
        raise InputError(f"all pixels of a slice have the same value, {low}; expected a chest CT; export it again.")
    notes = [f"{blank} of {len(hu)} slices are blank."] if blank else []
    if low < AIR_LIMIT:
        return True, notes
    if low < 0 or high > 255:
        raise InputError(
            f"the values run from {low} to {high}, so none is air; expected Hounsfield units (air -1000, water 0), or "
            "grey levels from 0 to 255; apply the rescale slope and intercept."
        )
    present = np.zeros(256, bool)
    for slice_ in hu:
        present[slice_] = True
    if present.sum() < LEAST_LEVELS:
        found = f"{present.sum()} values, from {low} to {high}"
        raise InputError(f"the scan has {found}, as labels have; expected a CT; name the scan itself.")
    from lungseg_utils.pictures import ESTIMATED, fit_grey  # it imports this module

    step = max(len(hu) // GREY_SAMPLE, 1)
    scale = fit_grey(hu[step // 2 :: step])
    table = scale.hu(np.arange(256))
    for slice_ in hu:
        slice_[:] = table[slice_]
    return False, [*notes, ESTIMATED.format(found=", ".join(scale.found))]
