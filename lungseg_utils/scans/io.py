"""Read a scan of any kind, write its masks in its own grid."""

from pathlib import Path

import numpy as np

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.core.files import InputError, atomic_write, resolve_path
from lungseg_utils.data.grey import settle_values
from lungseg_utils.scans.scan import KINDS, Scan, check_size, to_int16

UNPLACED = (
    "An array does not say how the patient lies, nor its spacing: rows are taken to run from front to back."
)


def read_scan(path: str | Path, series: str | int | None = None) -> Scan:
    """Read a scan of any kind, told by its content and not by its name.

    path: a file; for DICOM also a folder, read with its subfolders, or a zip. series: which one, where a
    DICOM source holds several: the number in the list that the error shows, or a SeriesInstanceUID.
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
            from lungseg_utils.scans.nifti import read_nifti  # the readers import this module

            return read_nifti(path)
        if kind == "dicom":
            from lungseg_utils.scans.dicom import read_dicom

            return read_dicom(path, series)
        if kind == "picture":
            from lungseg_utils.scans.pictures import read_picture

            return read_picture(path)
        return _read_array(path)
    except OSError as error:  # not there, no right to read, a disk that fails
        why = error.strerror or error
        raise InputError(
            f"{path} cannot be read ({why}); expected {KINDS}; check name and rights."
        ) from error


def write_masks(
    scan: Scan, labels: np.ndarray, folder: str | Path, keep_identity: bool = False
) -> list[Path]:
    """Write the labels in the scan's own grid into `folder`; returns the files, named alike for every scan.

    labels: uint8 (N, H, W), class indices on scan.hu's grid. NIfTI: mask.nii.gz, the scan's shape and affine,
    MASK_VALUES (0 background, 1 ground glass, 2 consolidation, 3 other lung). DICOM: mask.dcm, a DICOM
    Segmentation with these segment numbers; keep_identity copies the patient's and the study's attributes
    into it. Array: mask.npy, the array's shape, class indices. Picture: mask.npy, and mask.png in the
    classes' colours (index = class index).
    """
    if labels.shape != scan.hu.shape or labels.dtype != np.uint8 or labels.max() >= NUM_CLASSES:
        raise InputError(
            f"labels are {labels.dtype} {labels.shape}; expected uint8 {scan.hu.shape}, classes 0 to "
            f"{NUM_CLASSES - 1}."
        )
    folder = resolve_path(folder)
    if scan.kind == "nifti":
        from lungseg_utils.scans.nifti import write_nifti

        return [write_nifti(folder / "mask.nii.gz", scan.frame, labels)]
    if scan.kind == "dicom":
        from lungseg_utils.scans.dicom_seg import write_segmentation

        return [write_segmentation(folder / "mask.dcm", scan.frame, labels, keep_identity)]
    path = folder / "mask.npy"
    with atomic_write(path, "wb") as handle:
        np.save(handle, labels.reshape(scan.frame))
    if scan.kind == "array":
        return [path]
    from lungseg_utils.scans.pictures import write_picture

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
        raise InputError(
            f"{path} is no array of numbers, or not all of it; expected .npy; save it again."
        ) from error
    frame = array.shape
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{path} holds {array.dtype} of shape {frame}; expected numbers (N, H, W) or (H, W)."
        )
    check_size(array.shape)
    hu = np.empty(array.shape, np.int16)
    for out, values in zip(hu, array, strict=True):
        out[:] = to_int16(values)
    is_hu, notes = settle_values(hu)
    return Scan(hu, None, None, "array", is_hu, None, (UNPLACED, *notes), frame)
