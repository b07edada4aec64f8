"""Masks out as a DICOM Segmentation (PS3.3 A.51), which viewers place by frame of reference and position."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lungseg_utils import __version__
from lungseg_utils.core.classes import BACKGROUND, CLASSES, LUNG_OTHER
from lungseg_utils.core.files import InputError, atomic_write
from lungseg_utils.scans.dicom import IDENTITY, DicomFrame, pydicom_quiet
from lungseg_utils.scans.scan import MASK_TABLE, MASK_VALUES

if TYPE_CHECKING:
    from pydicom import Dataset


LINKS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
GEOMETRY = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")
EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)
SERIES_NUMBER = 9000  # far above a scanner's own
ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
# Short name of the class: category and type, as code, scheme, meaning (PS3.16, CID 7150 and 6104; SNOMED CT).
SEGMENTS = {
    "ground_glass": (ABNORMAL, ("112120", "DCM", "Ground glass opacity")),
    "consolidation": (ABNORMAL, ("95436008", "SCT", "Lung consolidation")),
    "lung_other": (("91723000", "SCT", "Anatomical Structure"), ("39607008", "SCT", "Lung")),
}


def write_segmentation(
    path: Path, frame: DicomFrame, labels: np.ndarray, keep_identity: bool = False
) -> Path:
    """A binary DICOM Segmentation of three segments, numbered as MASK_VALUES.

    Frames without any are left out.

    labels: uint8 (N, H, W), class indices on scan.hu's grid. Of the scan's headers it copies the UIDs of
    study, series, slices and frame of reference, and the geometry; keep_identity adds IDENTITY, and nothing
    adds more.
    """
    segmentation = _segmentation(frame, labels, keep_identity)
    with pydicom_quiet(), atomic_write(path, "wb") as handle:
        segmentation.save_as(handle, enforce_file_format=True)
    return path


def check_segmentation(frame: DicomFrame, shape: tuple[int, int, int]) -> None:
    """Build, before the network runs, a mask that all but fills the two end slices.

    InputError if that is impossible.
    """
    labels = np.full(shape, BACKGROUND, np.uint8)
    labels[[0, -1], 1:] = LUNG_OTHER
    try:
        _segmentation(frame, labels, keep_identity=True)
    except Exception as error:  # highdicom has many
        found = f"headers that no DICOM segmentation can refer to ({type(error).__name__})"
        raise InputError(
            f"the scan has {found}; expected those of a CT; convert it to NIfTI, and give that."
        ) from error


def _segmentation(frame: DicomFrame, labels: np.ndarray, keep_identity: bool) -> "Dataset":
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    with pydicom_quiet():
        values = MASK_TABLE[frame.orientation.to_file(labels)]
        sources = _linked(frame)
        digest = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
        series = sources[0].SeriesInstanceUID
        uids = [generate_uid(entropy_srcs=[what, series, digest]) for what in ("series", "instance")]
        segmentation = Segmentation(
            sources,
            values,
            "BINARY",
            _segments(),
            uids[0],
            SERIES_NUMBER,
            uids[1],
            1,
            manufacturer="lungseg",
            manufacturer_model_name="lungseg",
            software_versions=__version__,
            device_serial_number="none",
            content_label="LUNG_INFECTION",
            content_description="Not a diagnosis",
            series_description="lungseg: lung infection, research only",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=bool(values.any()),
        )
        if keep_identity:
            segmentation.SpecificCharacterSet = "ISO_IR 192"
            for keyword in IDENTITY:
                if keyword in frame.headers[0]:
                    setattr(segmentation, keyword, str(frame.headers[0][keyword].value or ""))
    return segmentation


def straightened(frame: DicomFrame, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a sheared stack in slices that stand straight above each other, as most viewers want it.

    Each slice is moved in its own plane by whole pixels, at most half a pixel from its true place.
    labels: uint8 (N, H, W) on scan.hu's grid. Returns MASK_VALUES (columns, rows, N) and the affine, (4, 4),
    from those indices to mm right, front and head as NIfTI counts.
    """
    values = MASK_TABLE[frame.orientation.to_file(labels)]
    first = frame.headers[0]
    across, down = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    row, column = (float(mm) for mm in first.PixelSpacing)
    normal = np.cross(across, down)
    positions = np.array([header.ImagePositionPatient for header in frame.headers], float)
    away = positions - positions[0]
    shifts = np.rint(np.stack([away @ down / row, away @ across / column], 1)).astype(int)
    low = shifts.min(0)
    rows, columns = (np.array(values.shape[1:]) + shifts.max(0) - low).tolist()
    straight = np.zeros((len(values), rows, columns), np.uint8)
    for slice_, picture, (y, x) in zip(straight, values, shifts - low, strict=True):
        slice_[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = across * column, down * row
    affine[:3, 2] = normal * float(away[-1] @ normal) / max(len(values) - 1, 1)
    affine[:3, 3] = positions[0] + low[0] * down * row + low[1] * across * column
    return straight.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _linked(frame: DicomFrame) -> list["Dataset"]:
    """The little of the slices' headers that an overlay needs, in file order.

    What a stack has in common is the first slice's for all: headers differ in the last digit. A UID that is
    none is replaced, since it may be text, and so are those of slices that several share.
    """
    from pydicom import Dataset
    from pydicom.uid import UID, CTImageStorage, generate_uid
    from pydicom.valuerep import DSfloat

    first = frame.headers[0]
    study, series = (str(first.get(keyword) or "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID"))
    own = [str(header.get("SOPInstanceUID") or "") for header in frame.headers]
    common = {}
    for keyword in LINKS:
        uid = UID(str(first.get(keyword) or ""))
        common[keyword] = uid if uid.is_valid else generate_uid(entropy_srcs=[keyword, series, study])
    sources = []
    for number, (header, own_uid) in enumerate(zip(frame.headers, own, strict=True)):
        source = Dataset()
        for keyword in EMPTY:
            setattr(source, keyword, "")
        source.Modality, source.SOPClassUID = "CT", CTImageStorage
        for keyword in GEOMETRY:
            setattr(source, keyword, first[keyword].value)
        source.ImagePositionPatient = [
            DSfloat(float(mm), auto_format=True) for mm in header.ImagePositionPatient
        ]
        for keyword, value in common.items():
            setattr(source, keyword, value)
        unique = UID(own_uid).is_valid and own.count(own_uid) == 1
        source.SOPInstanceUID = (
            UID(own_uid) if unique else generate_uid(entropy_srcs=["slice", str(number), own_uid, series])
        )
        source.SliceThickness = DSfloat(frame.thickness, auto_format=True)
        sources.append(source)
    return sources


def _segments() -> list:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    family = CodedConcept("123110", "DCM", "Artificial Intelligence")
    algorithm = AlgorithmIdentificationSequence("lungseg", family, __version__)
    numbered = sorted((MASK_VALUES[tissue.index], tissue) for tissue in CLASSES if tissue.short in SEGMENTS)
    segments = []
    for number, tissue in numbered:
        category, kind = (CodedConcept(*code) for code in SEGMENTS[tissue.short])
        color = CIELabColor.from_string(tissue.color)
        segments.append(
            SegmentDescription(
                number, tissue.name, category, kind, "AUTOMATIC", algorithm, display_color=color
            )
        )
    return segments
