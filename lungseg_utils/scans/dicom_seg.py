"""Masks out as a DICOM Segmentation (PS3.3 A.51), which viewers place by frame of reference and position."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lungseg_utils import __version__
from lungseg_utils.core.classes import CLASSES
from lungseg_utils.core.files import atomic_write
from lungseg_utils.scans.dicom import IDENTITY, DicomFrame, pydicom_quiet
from lungseg_utils.scans.scan import MASK_TABLE, MASK_VALUES

if TYPE_CHECKING:
    from pydicom import Dataset


LINKS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
GEOMETRY = (
    "SOPClassUID",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
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
    from highdicom.seg import Segmentation
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    with pydicom_quiet():
        values = MASK_TABLE[frame.orientation.to_file(labels)]
        sources = [_linked(header, frame.thickness) for header in frame.headers]
        digest = hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
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
        with atomic_write(path, "wb") as handle:
            segmentation.save_as(handle, enforce_file_format=True)
    return path


def _linked(header: "Dataset", thickness: float) -> "Dataset":
    """The little of a slice's header that an overlay needs.

    A UID that is none is replaced, since it may be text.
    """
    from pydicom import Dataset
    from pydicom.uid import UID, CTImageStorage, generate_uid
    from pydicom.valuerep import DSfloat

    source = Dataset()
    for keyword in EMPTY:
        setattr(source, keyword, "")
    source.Modality = "CT"
    for keyword in GEOMETRY:
        setattr(source, keyword, header[keyword].value)
    if not UID(str(source.SOPClassUID)).is_valid:
        source.SOPClassUID = CTImageStorage
    for keyword in LINKS:
        uid = UID(str(header.get(keyword) or ""))
        # Slices without a common frame of reference get the one of their series.
        common = str(header.get("SeriesInstanceUID", "")), str(header.get("StudyInstanceUID", ""))
        own = str(header.get("SOPInstanceUID", "")) if keyword == "SOPInstanceUID" else ""
        setattr(source, keyword, uid if uid.is_valid else generate_uid(entropy_srcs=[keyword, own, *common]))
    source.SliceThickness = DSfloat(thickness, auto_format=True)
    return source


def _segments() -> list:
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    family = CodedConcept("123110", "DCM", "Artificial Intelligence")
    algorithm = AlgorithmIdentificationSequence("lungseg", family, __version__)
    numbered = sorted((MASK_VALUES[tissue.index], tissue) for tissue in CLASSES if tissue.short in SEGMENTS)
    return [
        SegmentDescription(
            number,
            tissue.name,
            *(CodedConcept(*code) for code in SEGMENTS[tissue.short]),
            "AUTOMATIC",
            algorithm,
            display_color=CIELabColor.from_string(tissue.color),
        )
        for number, tissue in numbered
    ]
