"""Read a scan of any kind, write its masks in its own grid."""

import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, cast

import numpy as np

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.core.files import InputError, atomic_write, input_path, resolve_path
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.grey import Spread, settle_values
from lungseg_utils.scans.archives import files_in, open_plain, open_source
from lungseg_utils.scans.orientation import AS_IT_IS, ArrayFrame, Orientation
from lungseg_utils.scans.scan import KINDS, MIN_SIDE, Scan, SeveralScans, check_size, to_int16

UNPLACED = N_(
    "An array does not say how the patient lies, nor its spacing: rows are taken to run from front to back."
)


DICOMDIR = b"1.2.840.10008.1.3.10"  # the class of a medium's directory, in the file's own header
NAMES = {
    "nifti": "NIfTI",
    "array": ".npy arrays",
    "picture": "pictures",
    "itk": "MHA, MHD or NRRD",
    "dicom": "DICOM",
    "archive": "archives",
}
AS_FOLDER, AS_PNG = "unpack it and name its folder", "save it as PNG"
OTHER_KINDS = (  # how the file begins, what it is, what to do
    (b"7z\xbc\xaf", "a 7z archive", AS_FOLDER),
    (b"Rar!", "a RAR archive", AS_FOLDER),
    (b"BZh", "packed by bzip2", AS_FOLDER),
    (b"\xfd7zXZ", "packed by xz", AS_FOLDER),
    (b"BM", "a BMP picture", AS_PNG),
    (b"GIF8", "a GIF picture", AS_PNG),
    (b"II*\0", "a TIFF picture", AS_PNG),
    (b"MM\0*", "a TIFF picture", AS_PNG),
    (b"RIFF", "a WebP picture", AS_PNG),
    (b"\x89HDF", "an HDF5 or MINC file", "convert it to NIfTI"),
)


def read_scan(path: str | Path, series: str | int | None = None, members: Collection[str] = ()) -> Scan:
    """Read a scan of any kind, told by its content and not by its name; nothing is unpacked or written.

    Args:
        path: A file; for DICOM also a folder, read with its subfolders, an archive (zip, tar) or a DICOMDIR;
            a folder may instead hold one file of another kind, or the slices of one scan as pictures.
        series: Which one, where a DICOM source holds several: the number in the list that the error shows, or
            a SeriesInstanceUID.
        members: The only files of a folder or an archive to look at, as `open_source` calls them; all if
            there are none.

    Raises:
        InputError: For what is no usable chest CT; SeveralScans where there are several.
    """
    try:
        path = input_path(path)
        kind, path = _source(path, members)
        if kind in ("dicom", "archive"):
            from lungseg_utils.scans.dicom import read_dicom

            return read_dicom(path, series, members)
        if series is not None:
            raise InputError(f"{path} is not DICOM, and only DICOM has series; leave the series out.")
        if kind == "pictures":
            from lungseg_utils.scans.pictures import read_pictures

            files = [path / name for name in members] or files_in(path)
            return read_pictures(path, [file for file in files if kind_of(file) == "picture"])
        return _reader(kind)(path)
    except OSError as error:  # not there, no right to read, a disk that fails
        why = error.strerror or error
        raise InputError(
            f"{path} cannot be read ({why}); expected {KINDS}; check name and rights."
        ) from error


def _reader(kind: str) -> Callable[[Path], Scan]:
    """The function that reads one file of a kind; each loads its library only when it is wanted."""
    if kind == "nifti":
        from lungseg_utils.scans.nifti import read_nifti

        return read_nifti
    if kind == "itk":
        from lungseg_utils.scans.itk import read_itk

        return read_itk
    if kind == "picture":
        from lungseg_utils.scans.pictures import read_picture

        return read_picture
    return _read_array


def _source(path: Path, members: Collection[str] = ()) -> tuple[str, Path]:
    """The kind of scan at path, and the path itself, or the one file in a folder that holds it.

    Raises InputError for what is none, and for an archive or a folder of several that are not DICOM.
    """
    if not path.is_dir():
        kind = kind_of(path)
        if kind is None:
            found, how = _other_kind(path)
            raise InputError(f"{path} is {found}; expected {KINDS}; {how}.")
        if kind == "dicom":
            with path.open("rb") as handle:
                if DICOMDIR in handle.read(2048):
                    return kind, path.parent
        if kind == "archive":
            with open_source(path, members) as openers:
                kinds = {name: inside for name, opener in openers.items() if (inside := kind_in(opener))}
            if list(kinds.values()) == ["nifti"] and zipfile.is_zipfile(path):
                return "nifti", cast(Path, zipfile.Path(path, *kinds))
            if kinds and "dicom" not in kinds.values():
                others = sorted({NAMES[one] for one in kinds.values()})
                found = f"an archive of {len(kinds)} files, {' and '.join(others)}"
                raise SeveralScans(
                    f"{path} is {found}; expected DICOM in an archive; unpack it and name the file."
                )
        return kind, path
    files = [path / name for name in members] or files_in(path)
    scans = [(kind, file) for file in files if (kind := kind_of(file))]
    found_kinds = {kind for kind, _ in scans}
    if not found_kinds or ("dicom" in found_kinds and found_kinds <= {"dicom", "picture"}):
        return "dicom", path
    if found_kinds == {"picture"} and len(files) > 1:
        return "pictures", path
    if len(scans) > 1:
        found = f"{len(scans)} files, {' and '.join(sorted(NAMES[kind] for kind in found_kinds))}"
        raise SeveralScans(f"{path} has {found}; expected one scan; name the file itself.")
    return scans[0]


def _other_kind(path: Path) -> tuple[str, str]:
    """What a file that is no scan is, and what to do about it."""
    with path.open("rb") as handle:
        head = handle.read(348)
    named = [(what, how) for start, what, how in OTHER_KINDS if head.startswith(start)]
    if head[344:347] == b"ni1" or path.suffix.lower() in (".img", ".hdr"):
        named = [("one half of a pair of files, of Analyze or NIfTI", "convert the pair to one .nii")]
    return named[0] if named else ("empty or of another kind", "name the scan itself")


def write_masks(
    scan: Scan, labels: np.ndarray, folder: str | Path, keep_identity: bool = False
) -> list[Path]:
    """Write the labels in the scan's own grid; the files are named alike for every scan.

    NIfTI: mask.nii.gz, the scan's shape and affine, MASK_VALUES (0 background, 1 ground glass, 2
    consolidation, 3 other lung). DICOM: mask.dcm, a DICOM Segmentation with these segment numbers; beside the
    mask of a tilted stack, which many viewers refuse, mask.nii.gz with straightened slices. Array: mask.npy,
    the array's shape, class indices. Picture: mask.npy, and mask.png in the classes' colours (index = class
    index).

    Args:
        scan: From `read_scan`.
        labels: Class index, uint8 (N, H, W), on scan.hu's grid.
        folder: Where the files go.
        keep_identity: Copy the patient's and the study's attributes into a DICOM mask.

    Returns:
        The files.
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
        from lungseg_utils.scans.dicom_seg import straightened, write_segmentation

        written = [write_segmentation(folder / "mask.dcm", scan.frame, labels, keep_identity)]
        if scan.frame.sheared:
            from lungseg_utils.scans.nifti import save_volume

            written.append(save_volume(*straightened(scan.frame, labels), folder / "mask.nii.gz"))
        return written
    path = folder / "mask.npy"
    with atomic_write(path, "wb") as handle:
        np.save(handle, scan.frame.orientation.to_file(labels).reshape(scan.frame.shape))
    if scan.kind == "array" or len(labels) > 1:
        return [path]
    from lungseg_utils.scans.pictures import write_picture

    return [write_picture(folder / "mask.png", labels[0]), path]


def check_writable(scan: Scan) -> None:
    """Raises InputError, before any prediction, if `write_masks` could not write masks of this scan."""
    if scan.kind == "dicom":
        from lungseg_utils.scans.dicom_seg import check_segmentation

        check_segmentation(scan.frame, scan.hu.shape)


def kind_of(path: Path) -> str | None:
    """What a file holds, one of NAMES, by its first bytes, also through gzip; None: no scan of any kind."""
    return kind_in(lambda: open_plain(path))


def kind_in(opener: Callable[[], IO[bytes]]) -> str | None:
    """`kind_of` what an opener of `open_source` opens."""
    from lungseg_utils.scans.dicom import is_dicom  # pydicom loads only when it is read

    with opener() as handle:
        try:
            head = handle.read(544)
        except (EOFError, zlib.error):
            return "nifti"  # a damaged gzip: the reader says so
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return "nifti"
    if head[:6] == b"\x93NUMPY":
        return "array"
    if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff":
        return "picture"
    if head[:4] == b"NRRD" or b"ElementType" in head or head[:10] == b"ObjectType" or head[:5] == b"NDims":
        return "itk"
    if head[:4] in (b"PK\3\4", b"PK\5\6") or head[257:262] == b"ustar":
        return "archive"
    return "dicom" if is_dicom(head) else None


def _read_array(path: Path) -> Scan:
    """(N, H, W), also with axes of length 1, or (H, W), in HU or grey; memory-mapped, never unpickled."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # whatever NumPy makes of a header that is none
        raise InputError(
            f"{path} is no array of numbers, or not all of it; expected .npy; save it again."
        ) from error
    shape = array.shape
    if array.ndim > 3:
        array = array.squeeze()
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{path} holds {array.dtype} of shape {shape}; expected numbers (N, H, W) or (H, W)."
        )
    orientation = Orientation((2, 0, 1), (False,) * 3) if _slices_last(array) else AS_IT_IS
    frame = ArrayFrame(shape, orientation)
    notes = [_(UNPLACED)]
    if orientation != AS_IT_IS:
        notes.append(_("The slices lie along the array's last axis, as its shape or its pixels show."))
    array = orientation.to_hu(array)
    check_size(array.shape)
    hu = np.empty(array.shape, np.int16)
    spread = Spread()
    for out, values in zip(hu, array, strict=True):
        out[:] = to_int16(spread.seen(values))
    spread.check()
    is_hu, found = settle_values(hu)
    return Scan(hu, None, None, "array", is_hu, None, (*notes, *found), frame)


def _slices_last(array: np.ndarray) -> bool:
    """Whether (H, W, N) rather than (N, H, W).

    By the two equal sides of a slice, else by where neighbours differ most.

    From slice to slice a body changes more than from pixel to pixel.
    """
    first, middle, last = array.shape
    if (first == middle) != (middle == last):
        return first == middle
    if (first < MIN_SIDE) != (last < MIN_SIDE):  # a slice has more pixels a side
        return last < MIN_SIDE
    block = np.asarray(
        array[:: max(first // 32, 1), :: max(middle // 32, 1)], float
    )  # whole along the last axis
    other = np.asarray(array[:, :: max(middle // 32, 1), :: max(last // 32, 1)], float)
    return float(np.abs(np.diff(block, axis=2)).mean()) > 1.5 * float(np.abs(np.diff(other, axis=0)).mean())
