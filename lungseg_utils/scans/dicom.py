"""DICOM slices in: from a file, a folder or a zip to one stack in HU (DICOM PS3.3 C.7.6.2, C.8.2.1)."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from lungseg_utils.core.files import InputError
from lungseg_utils.data.grey import AIR_LIMIT, settle_values
from lungseg_utils.scans.archives import open_source
from lungseg_utils.scans.orientation import Orientation, placement
from lungseg_utils.scans.scan import Scan, check_size, to_int16

if TYPE_CHECKING:
    from pydicom import Dataset


DEFLATED, MAX_DEFLATED = (
    b"1.2.840.10008.1.2.1.99",
    2**20,
)  # inflated in one piece, up to a thousandfold; bytes
SAME_PLACE = 0.01  # mm
IDENTITY = (  # of patient and study; only `keep_identity` copies these
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)
READ = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
    "RescaleType",
    *IDENTITY,
)
HU_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified


@dataclass(frozen=True)
class Slice:
    """One file: its header (only the attributes of READ), how to open it, and where it lies (mm, LPS)."""

    header: "Dataset"
    open: Callable[[], IO[bytes]]
    position: np.ndarray  # (3,), of the first pixel's centre
    directions: np.ndarray  # (3, 3), unit vectors of the normal, the rows' index and the columns' index
    spacing: np.ndarray  # (2,), between rows, between columns

    @property
    def place(self) -> float:
        """mm along the normal."""
        return float(self.position @ self.directions[0])


@dataclass(frozen=True)
class DicomFrame:
    """What a DICOM Segmentation needs.

    The headers of the slices, from first to last, and how the stack was turned.
    """

    headers: tuple["Dataset", ...]
    orientation: Orientation
    thickness: float  # mm; the step between slices where the file does not say


def read_dicom(path: Path, series: str | int | None = None) -> Scan:
    """One series of a file, a folder (with its subfolders) or a zip, sorted by position along the normal.

    Raises InputError if there is no usable CT, if there are several series and none is named, or if a slice
    cannot be decoded. Missing slices are reported, not filled in.
    """
    with open_source(path) as openers, pydicom_quiet():
        stack, notes = _in_order(_choose(_stacks(path, openers), series), path)
        first = stack[0]
        steps = np.diff([slice_.place for slice_ in stack])
        thickness = _number(first, "SliceThickness")
        between = float(np.median(steps)) if len(steps) else thickness
        if not between:
            between = 1.0
            notes.append("The file does not say how thick its slice is; 1 mm is assumed for volumes.")
        orientation, spacing, oblique = placement(first.directions, np.array([between, *first.spacing]), path)
        shape = (len(stack), int(first.header.Rows), int(first.header.Columns))
        check_size(tuple(shape[axis] for axis in orientation.axes))
        hu = np.empty([shape[axis] for axis in orientation.axes], np.int16)
        out = orientation.to_file(hu)
        inverted = _is_inverted(stack[len(stack) // 2], path)
        for i, slice_ in enumerate(tqdm(stack, "reading", unit="slice", disable=len(stack) < 2, leave=False)):
            out[i] = _decode(slice_, path, inverted)
    if orientation.axes != (0, 1, 2):
        notes.append("The slices are not axial; the volume was turned, which its nearly cubic voxels allow.")
    if inverted:
        notes.append("The stored values are inverted (MONOCHROME1), and were inverted back.")
    is_hu, found = settle_values(hu)
    frame = DicomFrame(tuple(slice_.header for slice_ in stack), orientation, thickness or between)
    return Scan(hu, spacing, thickness, "dicom", is_hu, "CT", (*notes, *oblique, *found), frame)


@contextmanager
def pydicom_quiet() -> Iterator[None]:
    """pydicom's warnings quote the header, which may name the patient: they are not shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def _stacks(path: Path, openers: Sequence[Callable[[], IO[bytes]]]) -> list[list[Slice]]:
    """Slices that belong together (series, matrix, orientation, spacing), by series number.

    InputError if none.
    """
    from pydicom import dcmread

    stacks: dict[tuple, list[list[Slice]]] = {}
    others: set[str] = set()
    for opener in tqdm(openers, "looking", unit="file", disable=len(openers) < 2, leave=False):
        with opener() as handle:
            head = handle.read(1024)
            if head[128:132] != b"DICM":
                others.add("files that are not DICOM")
                continue
            if DEFLATED in head and handle.seek(0, os.SEEK_END) > MAX_DEFLATED:
                others.add("large deflated files")
                continue
            handle.seek(0)
            try:
                header = dcmread(handle, stop_before_pixels=True, specific_tags=list(READ))
                list(header)  # all values are converted, so that a damaged one shows here
                slice_, problem = _slice(header, opener)
            except Exception:  # whatever pydicom makes of a damaged header
                slice_, problem = None, "damaged files"
        if slice_ is None:
            others.add(problem)
            continue
        key = (str(header.SeriesInstanceUID), int(header.Rows), int(header.Columns))
        for stack in stacks.setdefault(key, []):
            if np.allclose(stack[0].directions, slice_.directions, atol=0.01) and np.allclose(
                stack[0].spacing, slice_.spacing, rtol=0.01
            ):
                stack.append(slice_)
                break
        else:
            stacks[key].append([slice_])
    if not stacks:
        found = " and ".join(sorted(others))
        raise InputError(f"{path} has no CT slice, but {found}; expected a chest CT; name its folder.")
    found = [stack for same in stacks.values() for stack in same]
    return sorted(
        found, key=lambda stack: (_number(stack[0], "SeriesNumber") or 0, stack[0].header.SeriesInstanceUID)
    )


def _slice(header: "Dataset", opener: Callable[[], IO[bytes]]) -> tuple[Slice | None, str]:
    """The slice, or None and what the file is instead."""
    modality = str(header.get("Modality", ""))
    if modality != "CT":
        known = modality.isalpha() and modality.isupper()
        return None, f"images of modality {modality}" if known else "files without images"
    if (header.get("NumberOfFrames") or 1) > 1:
        return None, "a multi-frame CT (convert it to one file a slice, or to NIfTI)"
    if "LOCALIZER" in header.get("ImageType", ()):
        return None, "scout views"
    uids = [header.get(keyword) for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")]
    if not all(isinstance(uid, str) and uid for uid in uids):  # several at once are a list
        return None, "CT files without identifiers"
    if header.get("SamplesPerPixel") != 1 or not (header.get("Rows") and header.get("Columns")):
        return None, "CT files without a grey image"
    if str(header.get("RescaleType") or "") not in HU_TYPES:
        return None, "CT maps that are not in HU"
    try:
        position = np.array(header.ImagePositionPatient, float)
        across, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        spacing = np.array(header.PixelSpacing, float)
        directions = np.stack([np.cross(across, down), down, across])
    except (AttributeError, TypeError, ValueError):
        return None, "CT images without a position"
    lengths = np.linalg.norm(directions, axis=1)
    whole = position.shape == (3,) and spacing.shape == (2,) and np.isfinite(position).all()
    if not (
        whole and np.isfinite(spacing).all() and spacing.min() > 0 and np.allclose(lengths, 1, atol=0.01)
    ):
        return None, "CT images with an impossible position"
    return Slice(header, opener, position, directions / lengths[:, None], spacing), ""


def _choose(stacks: list[list[Slice]], series: str | int | None) -> list[Slice]:
    """The stack that `series` names: a number from 1, or a SeriesInstanceUID.

    InputError with a list if none.
    """
    if series is None and len(stacks) == 1:
        return stacks[0]
    if str(series).isdecimal() and 0 < int(series) <= len(stacks):
        return stacks[int(series) - 1]
    named = [
        stack for stack in stacks if series is not None and stack[0].header.SeriesInstanceUID == str(series)
    ]
    if len(named) == 1:
        return named[0]
    lines = []
    for number, stack in enumerate(stacks, 1):
        steps = np.diff(sorted(slice_.place for slice_ in stack))
        apart = f", {np.median(steps):.2f} mm apart" if len(steps) else ""
        lines.append(
            f"{number}: {len(stack)} slices of {stack[0].header.Rows} x {stack[0].header.Columns}{apart}"
        )
    asked = f"and none is {series}" if series is not None else "and none was chosen"
    found = f"there are {len(stacks)} series, {asked}"
    raise InputError(f"{found}; expected the number of one; choose from ({'; '.join(lines)}).")


def _in_order(stack: list[Slice], path: Path) -> tuple[list[Slice], list[str]]:
    """Slices sorted along their normal, each place once; and notes on repeated, missing and uneven ones."""
    single = list({str(slice_.header.get("SOPInstanceUID")): slice_ for slice_ in reversed(stack)}.values())
    copies = len(stack) - len(single)
    single.sort(key=lambda slice_: (slice_.place, _number(slice_, "InstanceNumber") or 0))
    ordered = [
        slice_ for i, slice_ in enumerate(single) if i == 0 or slice_.place - single[i - 1].place > SAME_PLACE
    ]
    repeated = len(single) - len(ordered)
    if len(single) > 1 and repeated >= len(ordered):
        found = f"{len(single)} slices at {len(ordered)} places, a series over time"
        raise InputError(f"{path} has {found}; expected one volume; export one phase.")
    notes = [f"{copies} files are copies of others, and were left out."] if copies else []
    if repeated:
        notes.append(f"{repeated} places were scanned twice; the first slice of each was used.")
    steps = np.diff([slice_.place for slice_ in ordered])
    if len(steps):
        between = np.median(steps)
        gaps = np.rint(steps / between).astype(int) - 1
        if (gaps > 0).any():
            notes.append(
                f"{gaps[gaps > 0].sum()} slices are missing in {(gaps > 0).sum()} places, the widest step "
                "being "
                f"{steps.max():.1f} mm where {between:.1f} mm is usual; volumes and thirds leave them out."
            )
        if (abs(steps / between - np.maximum(gaps + 1, 1)) > 0.1).any():
            found = f"{steps.min():.1f} to {steps.max():.1f} mm"
            notes.append(f"The steps between slices are uneven, {found}; {between:.1f} mm is used.")
    return ordered, notes


def _decode(slice_: Slice, path: Path, inverted: bool) -> np.ndarray:
    """HU of one slice, int16 (rows, columns). InputError if it is cut short, or nothing here decodes it."""
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array

    compressed = False
    with slice_.open() as handle:
        try:
            dataset = dcmread(handle)
            syntax = dataset.file_meta.TransferSyntaxUID
            compressed = syntax.is_compressed
            # Damaged data can end the whole process in GDCM: it decodes only what nothing else does.
            decoders = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ()
            stored = pixel_array(
                dataset, decoding_plugin=min(decoders, key=lambda name: name == "gdcm", default="")
            )
            if inverted:  # both limits of what the bits can hold, so that it stays in them
                bits = int(dataset.BitsStored)
                stored = (-1 if dataset.PixelRepresentation else 2**bits - 1) - stored.astype(np.int32)
            hu = apply_modality_lut(stored, dataset)
        except Exception as error:  # each decoder has its own
            how = "install python-gdcm, or export it again" if compressed else "copy or export it again"
            found = "a slice that is cut short or cannot be decoded"
            raise InputError(f"{path} has {found}; expected a whole image; {how}.") from error
    if hu.shape != (slice_.header.Rows, slice_.header.Columns):
        found = "a slice of another size than its header says"
        raise InputError(f"{path} has {found}; expected one image a file; export it again.")
    return to_int16(hu)


def _is_inverted(slice_: Slice, path: Path) -> bool:
    """Whether the stored values of a MONOCHROME1 slice are inverted as well.

    MONOCHROME1 says that low values are shown white; HU do not depend on that. Some exporters invert the
    values, too: then the edge of the slice is air only after inverting them back. Grey levels are inverted by
    definition.
    """
    if slice_.header.get("PhotometricInterpretation") != "MONOCHROME1":
        return False
    hu, back = (_decode(slice_, path, inverted) for inverted in (False, True))
    if hu.min() >= 0 and hu.max() <= 255:
        return True
    edges = [np.median(np.r_[image[0], image[-1], image[:, 0], image[:, -1]]) for image in (hu, back)]
    return bool(edges[0] > AIR_LIMIT > edges[1])


def _number(slice_: Slice, keyword: str) -> float | None:
    """A number of the header, or None if it is missing or none."""
    try:
        value = float(slice_.header.get(keyword))
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None
