"""DICOM slices in: from a file, a folder or a zip to one stack in HU (DICOM PS3.3 C.7.6.2, C.8.2.1)."""

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import translate as _
from lungseg_utils.core.progress import tqdm
from lungseg_utils.data.grey import AIR_LIMIT, settle_values
from lungseg_utils.scans.archives import open_source
from lungseg_utils.scans.orientation import LARGE_ANGLE, Orientation, placement
from lungseg_utils.scans.scan import Scan, SeveralScans, check_size, to_int16, with_sign

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID


DEFLATED, MAX_DEFLATED = (
    b"1.2.840.10008.1.2.1.99",
    2**20,
)  # inflated in one piece, up to a thousandfold; bytes
SAME_PLACE = 0.01  # mm
UNEVEN = 0.01  # of the usual step: with more, each slice counts with its own
FEW_GAPS = (
    0.25  # share of the steps that may be gaps; with more, the step changes rather than slices are missing
)
OVERLAP = (
    0.25  # of the shorter one's length: two parts of a stack that overlap by more are two scans of one place
)
FEW_SLICES = 3  # beside a scan of ten or more, so few are no second one
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
# One patient and one series: slices that differ here never make one volume.
APART = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
)
# What tells acquisitions and reconstructions of one series apart, where they cover the same place. Where they
# follow each other, as table positions of a step-and-shoot scan do, they are one volume.
SCANS = (
    "FrameOfReferenceUID",
    "StudyDate",
    "AcquisitionDate",
    "SeriesTime",
    "AcquisitionNumber",
    "ConvolutionKernel",
    "ImageType",
    "SliceThickness",
    "KVP",
    "PatientPosition",
    "ContrastBolusAgent",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "SeriesDescription",
)
READ = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "RescaleType",
    "RescaleSlope",
    "RescaleIntercept",
    "GantryDetectorTilt",
    "DirectoryRecordSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *APART,
    *SCANS,
    *IDENTITY,
)
FRAME_GROUPS = {  # of a multi-frame CT: what a slice's header calls it, and what the group calls it
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {"PixelSpacing": "PixelSpacing", "SliceThickness": "SliceThickness"},
    "PixelValueTransformationSequence": {
        "RescaleSlope": "RescaleSlope",
        "RescaleIntercept": "RescaleIntercept",
        "RescaleType": "RescaleType",
    },
    "CTImageFrameTypeSequence": {"ImageType": "FrameType"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "FrameContentSequence": {
        "AcquisitionNumber": "FrameAcquisitionNumber",
        "TemporalPositionIndex": "TemporalPositionIndex",
    },
}
HU_TYPES = ("", "HU", "HU_MOD", "US")  # US: unspecified
# values of ImageType (PS3.3 C.8.2.1.1.1 and the manufacturers' own) of pictures that are no slices
NO_SLICES = {
    "LOCALIZER": "scout views",
    "SCOUT": "scout views",
    "SCREEN SAVE": "screen shots",
    "SCREEN_SAVE": "screen shots",
    "DOSE_INFO": "dose reports",
    "PROTOCOL": "protocols",
    "MIP": "projections",
    "MINIP": "projections",
    "MAX_IP": "projections",
    "MIN_IP": "projections",
    "MAXIMUM": "projections",
    "MINIMUM": "projections",
    "PROJECTION IMAGE": "projections",
    "VRT": "renderings",
    "VOLREN": "renderings",
    "RENDERING": "renderings",
}
REFORMATTED = ("MPR", "REFORMATTED", "CURVED", "CPR", "OBLIQUE")  # values of ImageType
PROJECTED = {"mip", "minip", "vrt"}  # words of the SeriesDescription of a derived series that is no slices
SECONDARY_CAPTURE, DIRECTORY = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.1.3.10"
FOREIGN, CAPTURES = "files that are not DICOM", "secondary captures"
DIRECTORIES, MISSING = "a medium's directory", "files that the DICOMDIR names and that are not there"
UNPLACED, UNSIZED = "CT images without a position", "CT images without a possible pixel spacing"
IMPOSSIBLE = "CT images with an impossible position"
UNFRAMED = "a multi-frame CT whose frames have no positions"
OTHER_IMAGES = "images of modality"
# The words of a SeriesDescription that are shown: any other may be somebody's name.
WORDS = frozenset(
    "lung lungs chest thorax thoracic torax poumon poumons pulmon pulmonar lunge soft tissue mediastinum "
    "mediastinal bone "
    "standard sharp smooth body abdomen pelvis abd pel head neck brain spine ct hrct ctpa angio axial ax cor "
    "coronal sag "
    "sagittal mpr mip minip thin thick plain native contrast without with arterial venous portal delayed "
    "late low dose "
    "insp inspiration exp expiration prone supine recon kernel window scout topogram localizer reformat "
    "follow up "
    "covid pre post mm".split()
)


@dataclass(frozen=True)
class Slice:
    """One file: its header (only the attributes of READ), how to open it, and where it lies (mm, LPS)."""

    header: "Dataset"
    name: str  # of its file, as `open_source` calls it
    open: Callable[[], IO[bytes]]
    position: np.ndarray  # (3,), of the first pixel's centre
    directions: np.ndarray  # (3, 3), unit vectors of the normal, the rows' index and the columns' index
    spacing: np.ndarray  # (2,), between rows, between columns
    frame: int  # its index in a multi-frame file, 0 in others

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
    sheared: bool = False  # the slices are stacked along another line than their normal


@dataclass(frozen=True)
class Series:
    """One series of a study, or one acquisition or reconstruction in it."""

    members: tuple[str, ...]  # its files, as `open_source` calls them
    about: str  # what a list says of it: no text that may be a name
    chosen: bool  # whether it is a chest CT to predict, as far as its headers say
    notes: tuple[str, ...] = ()  # what was chosen of its study, and what was not


def read_dicom(path: Path, series: str | int | None = None, members: Collection[str] = ()) -> Scan:
    """One series of a file, a folder (with its subfolders) or a zip, sorted by position along the normal.

    Args:
        path: The source.
        series: Which one, of several.
        members: The only files of it to look at; all if there are none.

    Raises:
        InputError: If there is no usable CT, if there are several series and none is named, or if a slice
            cannot be decoded. Missing slices are reported, not filled in.
    """
    with open_source(path, members) as openers, pydicom_quiet():
        stacks, problems = _stacks(path, openers)
        chosen, left_out = _choose(stacks, series)
        left_out += _lost(chosen, problems)
        stack, notes = _in_order(chosen, path)
        first = stack[0]
        places = np.array([slice_.place for slice_ in stack])
        steps = np.diff(places)
        thickness = _number(first, "SliceThickness")
        between = float(np.median(steps)) if len(steps) else thickness
        if not between:
            between = 1.0
            notes.append(_("The file does not say how thick its slice is; 1 mm is assumed for volumes."))
        orientation, spacing, oblique = placement(first.directions, np.array([between, *first.spacing]), path)
        shape = (len(stack), int(first.header.Rows), int(first.header.Columns))
        check_size(tuple(shape[axis] for axis in orientation.axes))
        hu = np.empty([shape[axis] for axis in orientation.axes], np.int16)
        out = orientation.to_file(hu)
        inverted = _is_inverted(stack[len(stack) // 2], path)
        for i, slice_ in enumerate(tqdm(stack, "reading", unit="slice", disable=len(stack) < 2, leave=False)):
            out[i] = _decode(slice_, path, inverted)
    even = not len(steps) or abs(steps / between - 1).max() <= UNEVEN
    if orientation.axes != (0, 1, 2):
        notes.append(
            _("The slices are not axial; the volume was turned, which its nearly cubic voxels allow.")
        )
        if not even:
            found = f"slices that are not axial, {steps.min():.1f} to {steps.max():.1f} mm apart"
            raise InputError(f"{path} has {found}; expected even steps; export the axial series.")
    if inverted:
        notes.append(_("The stored values are inverted (MONOCHROME1), and were inverted back."))
    is_hu, said = settle_values(hu)
    uids = {str(slice_.header.get("SOPInstanceUID", "")) for slice_ in stack}
    if len(uids) < len(stack) or "" in uids:
        notes.append(
            _(
                "Slices have no identifiers (UIDs) of their own: the mask can be placed, but refers "
                "to none of them."
            )
        )
    if len({str(slice_.header.get("SeriesInstanceUID", "")) for slice_ in stack}) > 1:
        notes.append(
            _(
                "Each slice names a series of its own; they share patient, study and frame of reference, and "
                "were taken as one scan."
            )
        )
    frame = DicomFrame(
        tuple(slice_.header for slice_ in stack), orientation, thickness or between, _is_sheared(stack)
    )
    if frame.sheared:
        notes.append(
            _(
                "The slices are tilted against the line that they are stacked along: many viewers "
                "(3D Slicer, dcmqi) refuse a DICOM segmentation of it, so the mask is also written "
                "as NIfTI, in straightened slices."
            )
        )
    notes += _untold_tilt(first)
    # The lowest slice is the first.
    above = places - places[0] if not orientation.reversed[0] else (places[-1] - places)[::-1]
    all_notes = (*left_out, *notes, *oblique, *said)
    return Scan(
        hu,
        spacing,
        thickness,
        "dicom",
        is_hu,
        "CT",
        all_notes,
        frame,
        None if even else tuple(above.tolist()),
    )


def _untold_tilt(slice_: Slice) -> list[str]:
    """A note where the header names a gantry tilt that the slice's orientation does not show."""
    try:
        tilt = abs(float(slice_.header.get("GantryDetectorTilt") or 0))
    except (TypeError, ValueError):
        return []
    shown = np.degrees(np.arccos(min(abs(slice_.directions[0, 2]), 1)))
    if not LARGE_ANGLE < tilt < 45 or shown > tilt / 2:
        return []
    return [
        _(
            "The header names a gantry tilt of {tilt:g} degrees, and the slices' orientation shows none: if "
            "they are tilted, millilitres are {share:.0%} too large."
        ).format(tilt=tilt, share=1 / np.cos(np.radians(tilt)) - 1)
    ]


def _is_sheared(stack: list[Slice]) -> bool:
    """Whether the slices shift within their own planes from one to the next.

    By more than a hundredth of the way.
    """
    way = stack[-1].position - stack[0].position
    length = np.linalg.norm(way)
    return bool(length and abs(way @ stack[0].directions[0]) < 0.99995 * length)


@contextmanager
def pydicom_quiet() -> Iterator[None]:
    """pydicom's warnings quote the header, which may name the patient: they are not shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def find_series(path: Path, members: Collection[str] = ()) -> tuple[list[Series], dict[str, str]]:
    """The series of a folder or an archive of any number of patients and studies.

    Of each study those are chosen that are axial, not reformatted and no scout; of several reconstructions of
    one acquisition the one with the thinnest slices. Where none is left, all of the study's are one that is
    to fail: reading it lists them.

    Args:
        path: The folder or archive.
        members: The only files of it to look at; all if there are none.

    Returns:
        The series, study by study, and why each file that belongs to none does not.
    """
    with open_source(path, members) as openers, pydicom_quiet():
        stacks, problems = _look(openers)
    studies: dict[tuple[str, ...], list[list[Slice]]] = {}
    for stack in stacks:
        study = (*_patient(stack), str(stack[0].header.get("StudyInstanceUID", "")))
        studies.setdefault(study, []).append(stack)
    return [series for study in studies.values() for series in _series_of(study, problems)], problems


def in_order(problem: str) -> bool:
    """Whether a file that is no slice, for this reason of `find_series`, is none that somebody will miss."""
    return problem.startswith(OTHER_IMAGES) or problem in {
        *NO_SLICES.values(),
        FOREIGN,
        CAPTURES,
        DIRECTORIES,
    }


def _lost(stack: list[Slice], problems: Mapping[str, str]) -> list[str]:
    """A note on files beside a stack's own that could be slices of it, and cannot be read."""
    folders = {Path(slice_.name).parent for slice_ in stack}
    endings = {Path(slice_.name).suffix for slice_ in stack}
    lost = [
        problem
        for name, problem in problems.items()
        if Path(name).parent in folders
        and not Path(name).name.startswith(".")
        and (Path(name).suffix in endings if problem == FOREIGN else not in_order(problem))
    ]
    if not lost:
        return []
    return [
        _(
            "{count} files beside the slices, or frames in them, were left out ({why}): if they are slices "
            "of this scan, it is measured without them."
        ).format(count=len(lost), why=", ".join(sorted(set(lost))))
    ]


def _series_of(study: list[list[Slice]], problems: Mapping[str, str]) -> list[Series]:
    """The series of one study, the chosen ones first."""
    files = [tuple(sorted({slice_.name for slice_ in stack})) for stack in study]
    lines = [f"{label}: {_described(stack, study)}" for label, stack in zip(_labels(study), study)]
    if len(study) == 1:
        return [Series(files[0], lines[0], True, tuple(_lost(study[0], problems)))]
    chosen: list[int] = []
    for i in sorted(_fitting(study), key=lambda i: (_thickness(study[i]), -len(study[i]))):
        if not any(_same_acquisition(study[i], study[other]) for other in chosen):
            chosen.append(i)
    if not chosen:
        everything = tuple(sorted({name for names in files for name in names}))
        return [Series(everything, "; ".join(lines), True)]
    chosen.sort()
    others = [i for i in range(len(study)) if i not in chosen]
    said = _("Of {count} series of the study, {used} was used.")
    if others:
        said = _("Of {count} series of the study, {used} was used; left out: {others}.")
    left_out = "; ".join(lines[i] for i in others)
    notes = [said.format(count=len(study), used=lines[i], others=left_out) for i in chosen]
    taken = [
        Series(files[i], lines[i], True, (note, *_lost(study[i], problems))) for i, note in zip(chosen, notes)
    ]
    return taken + [Series(files[i], lines[i], False) for i in others]


def _thickness(stack: list[Slice]) -> float:
    """mm, of a slice; the step between slices where the file does not say."""
    steps = np.diff(sorted(slice_.place for slice_ in stack))
    return _number(stack[0], "SliceThickness") or (float(np.median(steps)) if len(steps) else np.inf)


def _same_acquisition(one: list[Slice], other: list[Slice]) -> bool:
    """Whether two series are reconstructions of one acquisition.

    They cover the same place, and the scanner does not number them as two acquisitions.
    """
    numbers = [
        {number for slice_ in stack if (number := _number(slice_, "AcquisitionNumber"))}
        for stack in (one, other)
    ]
    apart = all(numbers) and not numbers[0] & numbers[1]
    return _overlap([one, other]) and not apart


def _stacks(
    path: Path, openers: Mapping[str, Callable[[], IO[bytes]]]
) -> tuple[list[list[Slice]], dict[str, str]]:
    """As `_look`. Raises InputError if no file belongs to a stack."""
    stacks, problems = _look(openers)
    if not stacks:
        found = set(problems.values())
        how = "name its folder"
        if found & {UNPLACED, UNSIZED, IMPOSSIBLE, UNFRAMED}:
            how = "export it again with position, orientation and pixel spacing, or give it as NIfTI"
        elif MISSING in found:
            how = "copy the whole medium"
        found_all = " and ".join(sorted(found))
        raise InputError(f"{path} has no CT slice, but {found_all}; expected a chest CT; {how}.")
    return stacks, problems


def _look(openers: Mapping[str, Callable[[], IO[bytes]]]) -> tuple[list[list[Slice]], dict[str, str]]:
    """Slices that belong together: one patient, one series, one geometry, one acquisition and reconstruction.

    Sorted by series number. And by name what is wrong with the files, or with some frames, that are no slice.
    """
    from pydicom import dcmread

    stacks: dict[tuple, list[list[Slice]]] = {}
    others: dict[str, str] = {}
    for name, opener in tqdm(openers.items(), "looking", unit="file", disable=len(openers) < 2, leave=False):
        with opener() as handle:
            head = handle.read(1024)
            if not is_dicom(head):
                others[name] = FOREIGN
                continue
            if DEFLATED in head and handle.seek(0, os.SEEK_END) > MAX_DEFLATED:
                others[name] = "large deflated files"
                continue
            handle.seek(0)
            try:
                header = dcmread(handle, stop_before_pixels=True, specific_tags=list(READ), force=True)
                _drop_damaged(header)
                others.update(dict.fromkeys(_not_there(header, name, openers), MISSING))
                headers = frames(header) if (header.get("NumberOfFrames") or 1) > 1 else [header]
                slices = [_slice(frame, name, opener, i) for i, frame in enumerate(headers)]
            except Exception:  # whatever pydicom makes of a damaged header
                slices = [(None, "damaged files")]
        others.update((name, problem) for slice_, problem in slices if slice_ is None)
        for slice_ in [pair[0] for pair in slices if pair[0]]:
            same = stacks.setdefault(tuple(str(slice_.header.get(keyword, "")) for keyword in APART), [])
            fitting = [stack for stack in same if _same_grid(stack[0], slice_)]
            if fitting:
                fitting[0].append(slice_)
            else:
                same.append([slice_])
    found_stacks = _joined([stack for same in stacks.values() for stack in same])
    parts = [part for stack in found_stacks for part in _parted(stack, SCANS)]
    parts.sort(
        key=lambda stack: (
            _number(stack[0], "SeriesNumber") or 0,
            str(stack[0].header.get("SeriesInstanceUID")),
        )
    )
    return parts, others


def _joined(stacks: list[list[Slice]]) -> list[list[Slice]]:
    """Single slices that differ in nothing but their series and their places, as one stack.

    Some anonymisers give each slice a series of its own; a frame of reference in common shows one body.
    """
    keywords = [keyword for keyword in (*APART, *SCANS, "SeriesNumber") if keyword != "SeriesInstanceUID"]
    joined: list[list[Slice]] = []
    alike: dict[tuple[str, ...], list[Slice]] = {}
    for stack in stacks:
        header = stack[0].header
        if len(stack) == 1 and header.get("FrameOfReferenceUID"):
            alike.setdefault(tuple(str(header.get(keyword, "")) for keyword in keywords), []).append(stack[0])
        else:
            joined.append(stack)
    for slices in alike.values():
        places = {round(slice_.place, 2) for slice_ in slices}
        one = len(slices) > FEW_SLICES and len(places) == len(slices)
        whole = one and all(_same_grid(slices[0], slice_) for slice_ in slices)
        joined += [slices] if whole else [[slice_] for slice_ in slices]
    return joined


def _not_there(header: "Dataset", name: str, openers: Collection[str]) -> list[str]:
    """The images that a medium's directory lists and that are not beside it, by their names in `openers`."""
    records = header.get("DirectoryRecordSequence") or []
    parts = [record.ReferencedFileID for record in records if record.get("DirectoryRecordType") == "IMAGE"]
    listed = [str(Path(name).parent.joinpath(*([part] if isinstance(part, str) else part))) for part in parts]
    there = {one.lower() for one in openers}
    return [one for one in listed if one.lower() not in there]


def _drop_damaged(header: "Dataset") -> None:
    """Convert all values, and delete those that cannot be.

    What is missing then is noticed where it is needed.
    """
    for tag in list(header.keys()):
        if not _converts(header, tag):
            del header[tag]


def _converts(header: "Dataset", tag: Any) -> bool:
    """Whether pydicom can make a value of what the file holds; it keeps the value that it makes."""
    try:
        return header[tag] is not None
    except Exception:  # each kind of value has its own
        return False


def _same_grid(one: Slice, other: Slice) -> bool:
    near = np.allclose(one.directions, other.directions, atol=0.01)
    return near and np.allclose(one.spacing, other.spacing, rtol=0.01)


def frames(header: "Dataset") -> list["Dataset"]:
    """The frames of an enhanced multi-frame CT (PS3.3 A.38) as headers of single slices.

    Of its functional groups those that place, size, scale or tell apart a frame; a frame's own win over the
    shared.
    """
    from pydicom import Dataset

    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(own) != header.NumberOfFrames:
        return [header]
    found = []
    for number, groups in enumerate(own, 1):
        frame = Dataset()
        frame.update({element.tag: element for element in header if element.VR != "SQ"})
        frame.file_meta, frame.InstanceNumber = header.file_meta, number
        frame.NumberOfFrames = None
        for keyword, names in FRAME_GROUPS.items():
            group = (groups.get(keyword) or shared[0].get(keyword) or [Dataset()])[0]
            for name, inside in names.items():
                if inside in group:
                    setattr(frame, name, group[inside].value)
        found.append(frame)
    return found


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts so (132 bytes or more) is DICOM.

    With a preamble or, as older consoles write, without.
    """
    if head[128:132] == b"DICM":
        return True
    # The first element is of the group of file meta information or of identification, and short.
    group, length = head[:2], head[4:8]
    explicit = length[:2] in (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM")
    return (
        group in (b"\2\0", b"\x08\0")
        and (explicit or int.from_bytes(length, "little") <= 64)
        and len(head) > 132
    )


def _parted(stack: list[Slice], keywords: Sequence[str]) -> list[list[Slice]]:
    """The stack by the first of the keywords that tells scans of the same place apart.

    And each part by the others.

    Last come runs of InstanceNumber: a number at which the places start again begins another scan.
    """
    for number, keyword in enumerate(keywords):
        parts: dict[str, list[Slice]] = {}
        for slice_ in stack:
            value = _number(slice_, keyword)
            parts.setdefault(
                str(slice_.header.get(keyword, "")) if value is None else f"{value:.2f}", []
            ).append(slice_)
        if _overlap(list(parts.values())):
            return [last for part in parts.values() for last in _parted(part, keywords[number + 1 :])]
    numbered = sorted(stack, key=lambda slice_: _number(slice_, "InstanceNumber") or 0)
    places = np.array([slice_.place for slice_ in numbered])
    steps = np.diff(places)
    if len(steps) and np.median(steps):
        back = np.flatnonzero(steps * np.median(steps) < 0) + 1
        runs = [numbered[a:b] for a, b in zip([0, *back], [*back, len(numbered)], strict=True)]
        if len(runs) <= len(stack) / 4 and _overlap(runs):
            return runs
    return [stack]


def _overlap(parts: list[list[Slice]]) -> bool:
    """Whether any two parts cover the same stretch along the normal."""
    all_places = [[slice_.place for slice_ in part] for part in parts]
    ends = [(min(places), max(places)) for places in all_places]
    long = sorted((low, high) for low, high in ends if high - low > SAME_PLACE)
    return any(
        min(a[1], b[1]) - b[0] > OVERLAP * min(a[1] - a[0], b[1] - b[0])
        for i, a in enumerate(long)
        for b in long[i + 1 :]
    )


def _slice(
    header: "Dataset", name: str, opener: Callable[[], IO[bytes]], frame: int
) -> tuple[Slice | None, str]:
    """The slice, or None and what the file is instead."""
    if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY:
        return None, DIRECTORIES
    modality = str(header.get("Modality", ""))
    if modality != "CT":
        known = modality.isalpha() and modality.isupper()
        return None, f"{OTHER_IMAGES} {modality}" if known else "files without images"
    if (header.get("NumberOfFrames") or 1) > 1:
        return None, UNFRAMED
    kinds = _image_type(header)
    for kind in kinds & set(NO_SLICES):
        return None, NO_SLICES[kind]
    description = re.findall(r"[a-z]+", str(header.get("SeriesDescription") or "").lower())
    if "DERIVED" in kinds and PROJECTED & set(description):
        return None, NO_SLICES["MIP"]
    meta = header.file_meta
    for keyword in (
        "SOPClassUID",
        "SOPInstanceUID",
    ):  # some anonymisers empty these, and forget the file's own header
        if not header.get(keyword) and meta.get(f"MediaStorage{keyword}"):
            setattr(header, keyword, meta[f"MediaStorage{keyword}"].value)
    uids = [header.get(keyword) or "" for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")]
    if not all(isinstance(uid, str) for uid in uids):  # several at once are a list
        return None, "CT files with several identifiers each"
    if str(uids[0]).startswith(SECONDARY_CAPTURE):
        return None, CAPTURES
    if header.get("SamplesPerPixel") != 1 or not (header.get("Rows") and header.get("Columns")):
        return None, "CT files without a grey image"
    if str(header.get("RescaleType") or "") not in HU_TYPES:
        return None, "CT maps that are not in HU"
    try:
        spacing = np.array(header.PixelSpacing, float)
    except (AttributeError, TypeError, ValueError):
        return None, UNSIZED
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and spacing.min() > 0):
        return None, UNSIZED
    try:
        position = np.array(header.ImagePositionPatient, float)
        across, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        directions = np.stack([np.cross(across, down), down, across])
    except (AttributeError, TypeError, ValueError):
        return None, UNPLACED
    lengths = np.linalg.norm(directions, axis=1)
    whole = position.shape == (3,) and np.isfinite(position).all()
    if not (whole and np.allclose(lengths, 1, atol=0.01)):
        return None, IMPOSSIBLE
    return Slice(header, name, opener, position, directions / lengths[:, None], spacing, frame), ""


def _image_type(header: "Dataset") -> set[str]:
    """The values of ImageType, in capitals."""
    value = header.get("ImageType") or ()
    return {str(part).strip().upper() for part in ([value] if isinstance(value, str) else value)}


def _choose(stacks: list[list[Slice]], series: str | int | None) -> tuple[list[Slice], list[str]]:
    """The stack that `series` names, by its number in the list or its UID, and a note on what is left out.

    Unnamed, the only one that can be the scan is taken. Raises InputError with the list if that is not clear.
    """
    labels = _labels(stacks)
    lines = [f"{label}: {_described(stack, stacks)}" for label, stack in zip(labels, stacks, strict=True)]
    if series is None:
        fit = _fitting(stacks)
        named = fit if len(fit) == 1 else list(range(len(stacks))) if len(stacks) == 1 else []
    else:
        named = [i for i, label in enumerate(labels) if label == str(series)] or [
            i
            for i, stack in enumerate(stacks)
            if str(series) and stack[0].header.get("SeriesInstanceUID") == str(series)
        ]
    if len(named) == 1:
        others = [line for i, line in enumerate(lines) if i != named[0]]
        left_out = _("Of {count} series, {used} was used; left out: {others}.").format(
            count=len(stacks), used=lines[named[0]], others="; ".join(others)
        )
        return stacks[named[0]], [left_out] if others and series is None else []
    patients = len({_patient(stack) for stack in stacks})
    whose = f" of {patients} patients" if patients > 1 else ""
    asked = f"and none is {series}" if series is not None and not named else "and none was chosen"
    found = f"there are {len(stacks)} series or acquisitions{whose}, {asked}"
    uids = {str(stack[0].header.get("SeriesInstanceUID")) for stack in stacks}
    kind = SeveralScans if series is None and len(uids) > 1 else InputError  # what one series mixes is asked
    raise kind(f"{found}; expected the number of one; choose with --series from ({'; '.join(lines)}).")


def _labels(stacks: list[list[Slice]]) -> list[str]:
    """What a stack is called in the list.

    The scanner's series number, and a letter where several have the same.
    """
    numbers = [f"{_number(stack[0], 'SeriesNumber') or 0:.0f}" for stack in stacks]
    letters = [_letters(numbers[:i].count(number)) for i, number in enumerate(numbers)]
    return [n if numbers.count(n) == 1 else n + letter for n, letter in zip(numbers, letters, strict=True)]


def _letters(index: int) -> str:
    """a to z, then aa, ab and so on."""
    return (_letters(index // 26 - 1) if index > 25 else "") + chr(ord("a") + index % 26)


def _patient(stack: list[Slice]) -> tuple[str, ...]:
    return tuple(str(stack[0].header.get(keyword, "")) for keyword in APART[:3])


def _fitting(stacks: list[list[Slice]]) -> list[int]:
    """Which of several stacks may be the scan itself."""
    most = max(map(len, stacks))
    return [i for i, stack in enumerate(stacks) if _fits(stack) and (len(stack) > FEW_SLICES or most < 10)]


def _fits(stack: list[Slice]) -> bool:
    """Whether a stack may be the scan itself: axial, and not reformatted from another."""
    axial = np.argmax(abs(stack[0].directions[0])) == 2
    return bool(axial) and not _image_type(stack[0].header) & set(REFORMATTED)


def _described(stack: list[Slice], stacks: list[list[Slice]]) -> str:
    """A stack in the list: what tells it from the others, and no text that may be a name."""
    header = stack[0].header
    steps = np.diff(sorted(slice_.place for slice_ in stack))
    parts = [f"{len(stack)} slices of {header.Rows} x {header.Columns}"]
    parts += [f"{np.median(steps):.2f} mm apart"] if len(steps) else []
    parts += [f"{thickness:g} mm thick"] if (thickness := _number(stack[0], "SliceThickness")) else []
    kernel = header.get("ConvolutionKernel") or ""
    kernel = kernel if isinstance(kernel, str) else str(kernel[0])
    parts += (
        [f"kernel {kernel}"]
        if re.fullmatch(r"[A-Za-z]{0,10}[0-9]{0,3}[a-z+-]{0,2}", kernel) and kernel
        else []
    )
    parts += [("sagittal", "coronal", "axial")[np.argmax(abs(stack[0].directions[0]))]]
    parts += ["reformatted"] if _image_type(header) & set(REFORMATTED) else []
    patients = sorted({_patient(other) for other in stacks})
    parts += (
        [f"patient {patients.index(_patient(stack)) + 1} of {len(patients)}"] if len(patients) > 1 else []
    )
    numbers = {f"{_number(slice_, 'AcquisitionNumber') or 0:.0f}" for slice_ in stack}
    parts += [f"acquisition {numbers.pop()}"] if len(numbers) == 1 and numbers != {"0"} else []
    ends = stack[0].place, stack[-1].place
    parts += [f"from {min(ends):.0f} to {max(ends):.0f} mm"] if len(steps) else []
    words = re.findall(
        r"[^\W\d_]+|\d{1,2}(?:[.,]\d{1,2})?(?=\s*mm)", str(header.get("SeriesDescription") or "")
    )
    told = " ".join(word for word in words if word.lower() in WORDS or word[0].isdigit())
    return ", ".join([*parts, *([f'"{told}"'] if told else [])])


def _in_order(stack: list[Slice], path: Path) -> tuple[list[Slice], list[str]]:
    """Slices sorted along their normal, each place once; and notes on repeated, missing and uneven ones."""
    files: dict[tuple, list[Slice]] = {}
    for i, slice_ in enumerate(stack):  # copies have the same identifier, the same place and the same pixels
        uid = str(slice_.header.get("SOPInstanceUID") or "") or i
        same = files.setdefault((uid, round(slice_.place, 3), _number(slice_, "InstanceNumber")), [])
        if not any(_same_picture(slice_, other, path) for other in same):
            same.append(slice_)
    single = [slice_ for same in files.values() for slice_ in same]
    copies = len(stack) - len(single)
    single.sort(key=lambda slice_: (slice_.place, _number(slice_, "InstanceNumber") or 0))
    ordered = [
        slice_ for i, slice_ in enumerate(single) if i == 0 or slice_.place - single[i - 1].place > SAME_PLACE
    ]
    repeated = len(single) - len(ordered)
    if len(single) > 1 and len(ordered) == 1:
        found = f"{len(single)} slices that all claim one position, {_millimetres(ordered[0].position)}"
        raise InputError(
            f"{path} has {found}; expected a place for each; export it again with ImagePositionPatient."
        )
    if len(single) > 1 and repeated >= len(ordered):
        found = (
            f"{len(single)} slices at {len(ordered)} places, "
            "a series over time or several reconstructions in one"
        )
        raise InputError(f"{path} has {found}; expected one volume; export one phase.")
    notes = (
        [_("{copies} files are copies of others, and were left out.").format(copies=copies)] if copies else []
    )
    if repeated:
        notes.append(
            _("{repeated} places were scanned twice; the first slice of each was used.").format(
                repeated=repeated
            )
        )
    acquisitions = len({_number(slice_, "AcquisitionNumber") for slice_ in ordered})
    if 1 < acquisitions <= len(ordered) / 4:
        notes.append(
            _("{acquisitions} acquisitions that follow each other were taken as one scan.").format(
                acquisitions=acquisitions
            )
        )
    steps = np.diff([slice_.place for slice_ in ordered])
    if len(steps):
        between = np.median(steps)
        gaps = np.rint(steps / between).astype(int) - 1
        there = gaps > 0
        uneven = abs(steps / between - np.maximum(gaps + 1, 1)) > 0.1
        if there.any() and there.mean() <= FEW_GAPS:
            notes.append(
                _(
                    "{gaps} slices are missing in {places} places, the widest step being {widest:.1f} "
                    "mm where {between:.1f} mm is usual; volumes take the gaps to be like their "
                    "neighbours."
                ).format(gaps=gaps[there].sum(), places=there.sum(), widest=steps.max(), between=between)
            )
        if uneven.any() or there.mean() > FEW_GAPS:
            notes.append(
                _(
                    "The steps between slices vary, {low:.1f} to {high:.1f} mm; each slice "
                    "counts with its own."
                ).format(low=steps.min(), high=steps.max())
            )
    return ordered, notes


def _same_picture(one: Slice, other: Slice, path: Path) -> bool:
    """Whether two slices hold the same values; also where one of them cannot be read."""
    try:
        return np.array_equal(_decode(one, path, False), _decode(other, path, False))
    except InputError:
        return True


def _millimetres(position: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in position) + ") mm"


def _decode(slice_: Slice, path: Path, inverted: bool) -> np.ndarray:
    """HU of one slice, int16 (rows, columns). InputError if it is cut short, or nothing here decodes it."""
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array

    decoders: list[str] = []
    compression = ""
    with slice_.open() as handle:
        try:
            many = slice_.header.get("NumberOfFrames", 1) is None  # as `frames` leaves it
            dataset = dcmread(handle, force=True, stop_before_pixels=many)
            syntax = _transfer_syntax(dataset)
            if syntax.is_encapsulated:
                # Damaged data can end the whole process in GDCM: it decodes only what nothing else does.
                compression = syntax.name
                decoders = sorted(get_decoder(syntax).available_plugins, key=lambda name: name == "gdcm")
            plugin = decoders[0] if decoders else ""
            if many:  # one frame is read, and not the whole file for each
                handle.seek(0)
                stored = pixel_array(cast(BinaryIO, handle), index=slice_.frame, decoding_plugin=plugin)
            else:
                stored = pixel_array(dataset, decoding_plugin=plugin)
            if (_number(slice_, "RescaleSlope") or 1) >= 1 and not _is_monochrome1(slice_):
                stored = with_sign(stored)  # no HU is so high; with smaller slopes one may be
            if inverted:  # both limits of what the bits can hold, so that it stays in them
                bits = int(dataset.BitsStored)
                stored = (-1 if dataset.PixelRepresentation else 2**bits - 1) - stored.astype(np.int32)
            hu = apply_modality_lut(stored, slice_.header if many else dataset)
        except Exception as error:  # each decoder has its own
            number = _number(slice_, "InstanceNumber")
            which = f"InstanceNumber {number:.0f}, " if number else ""
            which = f"a slice ({which}at {slice_.place:.1f} mm)"
            if compression:
                tried = f"{' or '.join(decoders)} cannot decode" if decoders else "nothing installed decodes"
                found = (
                    f"{which} that {tried}: its compression is {compression}, or it is cut short or damaged"
                )
                more = "pylibjpeg with pylibjpeg-libjpeg and pylibjpeg-openjpeg"
                how = f"copy it again, export it without compression, or install {more}"
            else:
                found, how = f"{which} that is cut short or damaged", "copy or export it again"
            raise InputError(f"{path} has {found}; expected a whole image; {how}.") from error
    if hu.shape != (slice_.header.Rows, slice_.header.Columns):
        found = f"a slice at {slice_.place:.1f} mm of another size than its header says"
        raise InputError(f"{path} has {found}; expected one image a file; export it again.")
    return to_int16(hu)


def _transfer_syntax(dataset: "Dataset") -> "UID":
    """How a file is encoded; one without a header of its own is little-endian, and was read so."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset.file_meta.TransferSyntaxUID


def _is_inverted(slice_: Slice, path: Path) -> bool:
    """Whether the stored values of a MONOCHROME1 slice are inverted as well.

    MONOCHROME1 says that low values are shown white; HU do not depend on that. Some exporters invert the
    values, too: then the edge of the slice is air only after inverting them back. Grey levels are inverted by
    definition.
    """
    if not _is_monochrome1(slice_):
        return False
    hu, back = (_decode(slice_, path, inverted) for inverted in (False, True))
    if hu.min() >= 0 and hu.max() <= 255:
        return True
    edges = [np.median(np.r_[image[0], image[-1], image[:, 0], image[:, -1]]) for image in (hu, back)]
    return bool(edges[0] > AIR_LIMIT > edges[1])


def _is_monochrome1(slice_: Slice) -> bool:
    return slice_.header.get("PhotometricInterpretation") == "MONOCHROME1"


def _number(slice_: Slice, keyword: str) -> float | None:
    """A number of the header, or None if it is missing or none."""
    try:
        value = float(slice_.header.get(keyword))
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None
