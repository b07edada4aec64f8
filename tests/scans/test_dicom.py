"""DICOM: series, order, rescale, compression, archives.

The segmentation lies where the scan lies, and names nobody.
"""

import gzip
import io
import re
import stat
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers import FRAME, SPACING, STUDY, chest, marked, no_windows, write_series
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lungseg_utils.core.classes import BACKGROUND, CLASSES
from lungseg_utils.core.files import InputError
from lungseg_utils.scans.io import check_writable, read_scan, write_masks
from lungseg_utils.scans.orientation import LPS
from lungseg_utils.scans.sources import find_scans

MARKER = "MARKER7"


def turned(degrees, axis):
    """LPS directions of hu's axes, turned about the patient's x (0), y (1) or z (2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    turn[a, a], turn[a, b], turn[b, a], turn[b, b] = cos, -sin, sin, cos
    return LPS @ turn.T


def source_place(folder):
    """mm (x, y, z) of the brightest pixel of the slices in a folder, from their own headers."""
    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    dataset = max(datasets, key=lambda dataset: dataset.pixel_array.max())
    row, column = np.unravel_index(dataset.pixel_array.argmax(), dataset.pixel_array.shape)
    lies = (dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing)
    return place(*lies, row, column), dataset


def place(position, orientation, spacing, row, column):
    """mm (x, y, z) of a pixel: PS3.3 C.7.6.2.1-1."""
    across, down = np.reshape(np.array(orientation, float), (2, 3))
    return np.array(position, float) + across * float(spacing[1]) * column + down * float(spacing[0]) * row


def mask_places(segmentation, segment):
    """mm (x, y, z) of each pixel of a segment and the slice it refers to, as a viewer finds them."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    found = []
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            for row, column in np.argwhere(frame):
                position = groups.PlanePositionSequence[0].ImagePositionPatient
                orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
                spacing = shared.PixelMeasuresSequence[0].PixelSpacing
                found.append((place(position, orientation, spacing, row, column), source))
    return found


LAYOUTS = {
    "as a radiologist sees it": {},
    "head first": dict(signs=(-1, 1, 1)),
    "prone": dict(signs=(1, -1, -1)),
    "mirrored": dict(signs=(1, 1, -1)),
    "rotated a quarter": dict(order=(0, 2, 1), signs=(1, -1, 1)),
    "oblique": dict(directions=turned(9, 2)),
    "oblique, head first": dict(directions=turned(-14, 1), signs=(-1, -1, 1)),
    "anisotropic": dict(spacing=(7.5, 0.6, 1.0)),
    "gantry tilt": dict(directions=turned(15, 0), step=(0, 0, 5)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scan_and_segmentation_agree_in_every_layout(tmp_path, layout):
    folder = write_series(tmp_path / "scan", chest(), **LAYOUTS[layout])
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, chest())
    spacing = LAYOUTS[layout].get("spacing", SPACING)
    between = 5 * np.cos(np.radians(15)) if layout == "gantry tilt" else spacing[0]
    np.testing.assert_allclose(scan.spacing, (between, *spacing[1:]), atol=1e-5)
    assert (scan.kind, scan.is_hu, scan.modality, scan.thickness) == ("dicom", True, "CT", 4.5)
    assert any("oblique or tilted" in note for note in scan.notes) == (
        "oblique" in layout or "tilt" in layout
    )
    path, *straight = write_masks(scan, marked(scan), tmp_path / "out")
    assert path.name == "mask.dcm" and [file.name for file in straight] == ["mask.nii.gz"] * (
        layout == "gantry tilt"
    )
    segmentation = hd.seg.segread(path)
    expected, source = source_place(folder)
    ((found, referenced),) = mask_places(segmentation, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert referenced == source.SOPInstanceUID
    assert segmentation.FrameOfReferenceUID == FRAME and segmentation.StudyInstanceUID == STUDY
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def test_highdicom_places_the_mask_on_the_scans_own_volume(tmp_path):
    """The volume that a viewer builds of the segmentation, against the one it builds of the scan."""
    folder = write_series(tmp_path / "scan", chest(), signs=(-1, 1, 1), directions=turned(9, 2))
    scan = read_scan(folder)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    mask = hd.seg.segread(path).get_volume(combine_segments=True)
    volume = hd.get_volume_from_series([pydicom.dcmread(file) for file in folder.iterdir()])
    np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-4)
    landmark = np.unravel_index(volume.array.argmax(), volume.array.shape)
    np.testing.assert_array_equal(np.argwhere(mask.array == 1), [landmark])
    np.testing.assert_array_equal(mask.array > 1, (volume.array > -950) & (volume.array < -700))


def test_nearly_cubic_coronal_slices_are_turned_and_coarse_ones_are_refused(tmp_path):
    hu = chest(96, 96, 98)
    folder = write_series(tmp_path / "cubic", hu, order=(1, 0, 2), signs=(-1, 1, 1), spacing=(1.0, 1.1, 0.9))
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, hu)
    assert any("not axial" in note for note in scan.notes)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    np.testing.assert_allclose(mask_places(hd.seg.segread(path), 1)[0][0], source_place(folder)[0], atol=1e-4)
    write_series(tmp_path / "coarse", hu[:, ::10], order=(1, 0, 2), spacing=(0.8, 6.0, 0.8))
    with pytest.raises(InputError, match="expected at least|expected axial slices"):
        read_scan(tmp_path / "coarse")


def compress(syntax):
    def change(dataset, i):
        if syntax == JPEG2000Lossless:  # pydicom has no encoder for it; Pillow has
            out = io.BytesIO()
            Image.fromarray(dataset.pixel_array).save(out, "JPEG2000", no_jp2=True, irreversible=False)
            dataset.PixelData = encapsulate([out.getvalue()])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
            dataset.file_meta.TransferSyntaxUID = syntax
        elif syntax.is_encapsulated:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax

    return change


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEGLSLossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian],
    ids=lambda syntax: syntax.keyword,
)
def test_transfer_syntaxes(tmp_path, syntax):
    write_series(tmp_path / "scan", chest(), change=compress(syntax))
    np.testing.assert_array_equal(read_scan(tmp_path / "scan").hu, chest())


@pytest.mark.parametrize(("name", "landmarks"), [
    ("CT_small.dcm", {(0, 0): -849, (64, 64): -86, (127, 127): 884}),
    ("J2K_pixelrep_mismatch.dcm", None),
    ("693_J2KI.dcm", None),
])  # fmt: skip
def test_pydicoms_own_ct_files_are_read(name, landmarks):
    path = get_testdata_file(name, download=False)
    scan = read_scan(path)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_array_equal(np.sort(scan.hu.ravel()), np.sort(expected.ravel()))
    assert (
        scan.modality == "CT"
        and scan.is_hu
        and scan.spacing[1:] == tuple(float(v) for v in dataset.PixelSpacing)
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MR_small.dcm", "images of modality MR"),
        ("MR_small_RLE.dcm", "modality MR"),
        ("JPEG2000.dcm", "modality NM"),
        ("rtplan.dcm", "modality RTPLAN"),
        ("liver_1frame.dcm", "modality SEG"),
        ("SC_rgb_jpeg.dcm", "modality OT"),
        ("no_meta.dcm", "of another kind"),
        ("meta_missing_tsyntax.dcm", "without images"),
        ("DICOMDIR", "expected the number of one|without images|expected at least 96"),
        ("badVR.dcm", "modality RTDOSE|damaged"),
    ],
)
def test_pydicoms_other_files_are_refused(name, words):
    with pytest.raises(InputError, match=words):
        read_scan(get_testdata_file(name, download=False))


def test_rescale_is_applied_slice_by_slice(tmp_path):
    def change(dataset, i):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -1100 - i
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.PixelData = ((dataset.pixel_array.astype(int) + i) * 2).astype("<u2").tobytes()

    write_series(tmp_path / "scan", chest(), change=change)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan").hu, chest())


def test_a_slice_without_its_rescale_is_named(tmp_path):
    def change(dataset, i):
        if i == 2:
            del dataset.RescaleIntercept

    notes = read_scan(write_series(tmp_path / "scan", chest(), change=change)).notes
    assert any("1 of 6 slices hold neither air nor fat" in note for note in notes)


def test_negative_values_stored_without_a_sign_are_read_as_they_were(tmp_path):
    def change(dataset, i):
        dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 16, 15, 0
        dataset.PixelData = (dataset.pixel_array.astype(int) - 1100).astype("<i2").tobytes()

    write_series(tmp_path / "scan", chest(), change=change)
    np.testing.assert_array_equal(read_scan(tmp_path / "scan").hu, chest())


def test_monochrome1_changes_nothing_where_the_rescale_gives_hu(tmp_path):
    def label(dataset, i):
        dataset.PhotometricInterpretation = "MONOCHROME1"

    def invert(dataset, i):
        label(dataset, i)
        dataset.PixelData = (4095 - dataset.pixel_array).astype("<u2").tobytes()

    def slope(dataset, i):
        invert(dataset, i)
        dataset.RescaleSlope, dataset.RescaleIntercept = -1, 4095 - 1100

    for number, change in enumerate((label, invert, slope)):
        folder = write_series(tmp_path / str(number), chest(), change=change)
        scan = read_scan(folder)
        np.testing.assert_array_equal(scan.hu, chest())
        assert any("inverted" in note for note in scan.notes) == (change is invert)


def test_inverted_grey_levels_are_inverted_back_and_mapped(tmp_path):
    def change(dataset, i):
        grey = np.clip(np.rint((dataset.pixel_array - 1100.0 + 1350) / 1500 * 255), 0, 255).astype(np.uint8)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData, dataset.PhotometricInterpretation = (255 - grey).tobytes(), "MONOCHROME1"
        dataset.RescaleIntercept = 0

    write_series(tmp_path / "scan", chest(), change=change)
    scan = read_scan(tmp_path / "scan")
    assert not scan.is_hu and np.abs(scan.hu[np.abs(chest() + 850) < 10] + 850).mean() < 40


def test_missing_slices_are_reported_and_the_mask_leaves_them_out(tmp_path):
    folder = write_series(tmp_path / "scan", chest(12), skip=(6, 7, 10))
    scan = read_scan(folder)
    assert len(scan.hu) == 9 and scan.spacing[0] == 5
    assert any(
        "3 slices are missing in 2 places, the widest step being 15.0 mm" in note for note in scan.notes
    )
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    segmentation = hd.seg.segread(path)
    np.testing.assert_allclose(mask_places(segmentation, 1)[0][0], source_place(folder)[0], atol=1e-4)
    references = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(references) == 9


def number_of(path):
    return pydicom.dcmread(path).InstanceNumber


def test_files_beside_the_slices_that_may_be_slices_are_named(tmp_path):
    folder = write_series(tmp_path / "scan", chest(12))
    first, second, *_rest, last = sorted(folder.iterdir(), key=number_of)
    first.write_bytes(b"")
    last.write_bytes(last.read_bytes()[:300])
    dataset = pydicom.dcmread(second)
    del dataset.ImagePositionPatient
    dataset.save_as(second)
    for name in ("._hidden", "notes.txt", "Thumbs.db"):
        (folder / name).write_bytes(b"no slice" * 100)
    scan = read_scan(folder)
    assert len(scan.hu) == 9
    (note,) = [note for note in scan.notes if "beside the slices" in note]
    assert note.startswith("3 files") and "without a position" in note and "not DICOM" in note
    source, *_unreadable = find_scans([folder])
    assert any(note.startswith("2 files beside") for note in source.read().notes)


def test_same_identifiers_with_other_pixels_are_no_copies(tmp_path):
    folder = write_series(tmp_path / "scan", chest())
    for path in list(folder.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.roll(dataset.pixel_array, 9, 1).tobytes()
        dataset.save_as(folder / f"again{path.name}")
    with pytest.raises(InputError, match="12 slices at 6 places"):
        read_scan(folder)


@pytest.mark.parametrize(("tilt", "said"), [("15", True), ("-20.5", True), ("0", False), ("2", False)])
def test_a_tilt_that_only_the_header_names_is_a_note(tmp_path, tilt, said):
    folder = write_series(
        tmp_path / "scan", chest(), change=lambda dataset, i: setattr(dataset, "GantryDetectorTilt", tilt)
    )
    assert any("gantry tilt" in note for note in read_scan(folder).notes) == said


def test_copies_and_repeated_places_are_left_out_and_reported(tmp_path):
    folder = write_series(tmp_path / "scan", chest())
    one = min(folder.iterdir())
    (folder / "copy").write_bytes(one.read_bytes())
    dataset = pydicom.dcmread(sorted(folder.iterdir())[1])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.InstanceNumber = 99
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "again")
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, chest())
    assert any(note.startswith("1 files are copies") for note in scan.notes)
    assert any(note.startswith("1 places were scanned twice") for note in scan.notes)


def test_a_series_over_time_is_refused(tmp_path):
    folder = write_series(tmp_path / "scan", chest())

    def change(dataset, i):
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", "1"])

    write_series(folder, chest(), series="2", change=change)
    with pytest.raises(InputError, match="12 slices at 6 places, a series over time"):
        read_scan(folder)


def test_uneven_steps_are_reported(tmp_path):
    def change(dataset, i):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + (1 if i == 3 else 0)]

    write_series(tmp_path / "scan", chest(), change=change)
    assert any(
        "steps between slices vary, 4.0 to 6.0 mm" in note for note in read_scan(tmp_path / "scan").notes
    )


def test_several_series_are_listed_and_one_is_chosen_by_number_or_uid(tmp_path):
    folder = write_series(tmp_path / "scan", chest(), series="2")
    (folder / "deeper").mkdir()
    write_series(folder / "deeper", chest(9), spacing=(3.0, 0.75, 0.9), series="5")

    def scout(dataset, i):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(folder, chest(1), series="1", change=scout)
    (folder / "notes.txt").write_text("not DICOM")
    with pytest.raises(InputError, match="2 series or acquisitions, and none was chosen") as caught:
        read_scan(folder)
    assert re.search(
        "[(]2: 6 slices of 100 x 112, 5.00 mm apart.*; 5: 9 slices of 100 x 112, 3.00 mm", str(caught.value)
    )
    for series in (5, "5", generate_uid(entropy_srcs=["series", "5"])):
        assert len(read_scan(folder, series).hu) == 9
    for series in (0, 3, "1.2.3"):
        with pytest.raises(InputError, match=f"none is {series}"):
            read_scan(folder, series)


def joined(dataset, **other):
    """One series, study and frame of reference for all; and other attributes."""
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (
        "1.2.3",
        "1.2.4",
        "1.2.5",
    )
    for keyword, value in other.items():
        setattr(dataset, keyword, value)


def write_two(folder, first, second, shift, hu=None):
    """Two scans of twelve slices in one series, the second `shift` mm higher.

    First, second: what differs in them.
    """
    hu = chest(12) if hu is None else hu
    write_series(folder, hu, series="1", change=lambda d, i: joined(d, SeriesNumber=3, **first))

    def change(dataset, i):
        x, y, z = dataset.ImagePositionPatient
        joined(dataset, SeriesNumber=3, ImagePositionPatient=[x, y, float(z) + shift], **second)

    return write_series(folder, np.roll(hu, 6, 1), series="2", change=change)


@pytest.mark.parametrize("shift", [0, 2, 20, 300])
@pytest.mark.parametrize(("keyword", "values"), [
    ("PatientID", "ab"), ("PatientName", ("A^B", "C^D")), ("PatientBirthDate", ("19500101", "19600101")),
    ("AcquisitionNumber", (1, 2)), ("ConvolutionKernel", ("B30f", "B70f")), ("SliceThickness", ("1", "4.5")),
    ("KVP", (80, 140)), ("AcquisitionDate", ("20200101", "20200203")), ("PatientPosition", ("HFS", "HFP")),
    ("ImageType", (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"])),
    ("NominalPercentageOfCardiacPhase", (0, 50)), ("SeriesDescription", ("insp", "exp")),
])  # fmt: skip
def test_two_scans_in_one_series_are_told_apart_and_never_mixed(tmp_path, keyword, values, shift):
    folder = write_two(tmp_path / "scan", *({keyword: value} for value in values), shift)
    if shift == 300 and keyword not in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
    ):  # one after the other: table positions of one scan
        return
    with pytest.raises(InputError, match="2 series or acquisitions") as caught:
        read_scan(folder)
    assert "3a: 12 slices" in str(caught.value) and "3b: 12 slices" in str(caught.value)
    assert "A^B" not in str(caught.value) and "1950" not in str(caught.value)
    np.testing.assert_array_equal(read_scan(folder, "3a").hu, chest(12))


def test_slices_with_a_series_each_are_one_scan_of_one_frame_of_reference(tmp_path):
    def apart(dataset, i):
        dataset.SeriesInstanceUID = generate_uid()

    folder = write_series(tmp_path / "scan", chest(), change=apart)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, chest())
    assert any("a series of its own" in note for note in scan.notes)
    assert write_masks(scan, marked(scan), tmp_path / "out")


def test_each_of_many_series_of_one_number_has_a_label_of_its_own(tmp_path):
    def patient(dataset, i):
        dataset.PatientID, dataset.SeriesInstanceUID = str(i), generate_uid()

    folder = write_series(tmp_path / "scan", chest(28), change=patient)
    with pytest.raises(InputError, match="1z: .*; 1aa: .*; 1ab: "):
        read_scan(folder)
    assert len(read_scan(folder, "1ab").hu) == 1


def test_two_scans_that_only_their_numbering_tells_apart(tmp_path):
    folder = write_two(tmp_path / "scan", {}, {}, 2)

    def renumber(path):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber += 12
        dataset.save_as(path)

    for path in folder.iterdir():
        if path.name.endswith("2"):
            renumber(path)
    with pytest.raises(InputError, match="2 series or acquisitions"):
        read_scan(folder)


def test_table_positions_that_follow_each_other_are_one_scan(tmp_path):
    def change(dataset, i):
        dataset.AcquisitionNumber = i // 4

    scan = read_scan(write_series(tmp_path / "scan", chest(12), change=change))
    np.testing.assert_array_equal(scan.hu, chest(12))
    assert any("3 acquisitions that follow each other" in note for note in scan.notes)
    alone = write_series(tmp_path / "each", chest(12), change=lambda d, i: setattr(d, "AcquisitionNumber", i))
    np.testing.assert_array_equal(read_scan(alone).hu, chest(12))


def test_slices_with_one_identifier_are_all_read(tmp_path):
    def change(dataset, i):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"

    scan = read_scan(write_series(tmp_path / "scan", chest(), change=change))
    np.testing.assert_array_equal(scan.hu, chest())
    assert any("no identifiers" in note for note in scan.notes)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    references = hd.seg.segread(path).ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len({reference.ReferencedSOPInstanceUID for reference in references}) == 6


def test_slices_that_all_claim_one_position_are_refused_in_these_words(tmp_path):
    change = {"ImagePositionPatient": [0, 0, 0]}
    folder = write_series(
        tmp_path / "scan", chest(), change=lambda d, i: d.__setattr__(*next(iter(change.items())))
    )
    with pytest.raises(InputError, match=r"6 slices that all claim one position, \(0, 0, 0\) mm"):
        read_scan(folder)


@pytest.mark.parametrize(
    "keyword", ["ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID", "StudyDate"]
)
def test_headers_that_differ_in_the_last_digit_make_one_mask(tmp_path, keyword):
    values = {
        "ImageOrientationPatient": lambda i: [1, i % 2 * 1e-6, 0, -(i % 2) * 1e-6, 1, 0],
        "PixelSpacing": lambda i: [0.75 + i % 2 * 1e-6, 0.9],
        "FrameOfReferenceUID": lambda i: f"1.2.{i}",
        "StudyDate": lambda i: f"2020010{i % 2 + 1}",
    }
    scan = read_scan(
        write_series(
            tmp_path / "scan", chest(), change=lambda d, i: setattr(d, keyword, values[keyword](i // 3))
        )
    )
    check_writable(scan)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    assert hd.seg.segread(path).pixel_array.any()


def test_each_slice_counts_with_its_own_step(tmp_path):
    hu = chest(12)
    skipped = write_series(tmp_path / "scan", hu, skip=(3, 4, 6, 8, 9))
    scan = read_scan(skipped)
    assert scan.places == (0, 5, 10, 25, 35, 50, 55)
    backwards = read_scan(write_series(tmp_path / "head", hu, signs=(-1, 1, 1), skip=(0, 2, 3)))
    assert backwards.places == (0, 5, 10, 15, 20, 25, 30, 35, 50) and len(backwards.hu) == 9
    assert any("steps between slices vary, 5.0 to 15.0 mm" in note for note in scan.notes)


def test_the_straightened_mask_of_a_tilted_scan_lies_where_the_scan_lies(tmp_path):
    folder = write_series(tmp_path / "scan", chest(12), **LAYOUTS["gantry tilt"])
    scan = read_scan(folder)
    assert any("3D Slicer" in note for note in scan.notes)
    image = nib.load(write_masks(scan, marked(scan), tmp_path / "out")[1])
    steps = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(steps.T @ steps, np.eye(3), atol=1e-6)
    found = image.affine @ [*np.argwhere(np.asarray(image.dataobj) == 1)[0], 1]
    np.testing.assert_allclose(found[:3] * [-1, -1, 1], source_place(folder)[0], atol=0.5)
    assert (np.asarray(image.dataobj) > 0).sum() == (marked(scan) != BACKGROUND).sum()


def test_derived_pictures_are_not_taken_for_the_scan_and_the_list_shows_no_name(tmp_path):
    folder = write_series(tmp_path / "scan", chest(12), series="2", change=lambda d, i: setattr(
        d, "SeriesDescription", "Thorax DOE^JANE lung 5 mm 19500101"))  # fmt: skip
    for number, kind in enumerate((["DERIVED", "SECONDARY", "MIP"], ["DERIVED", "SECONDARY", "MPR"]), 3):
        write_series(
            folder, chest(12), series=str(number), change=lambda d, i, k=kind: setattr(d, "ImageType", k)
        )
    scan = read_scan(folder)
    assert any(
        "Of 2 series, 2: 12 slices" in note and "left out: 4: 12 slices" in note for note in scan.notes
    )
    shown = " ".join(scan.notes)
    assert '"Thorax lung 5 mm"' in shown and "DOE" not in shown and "1950" not in shown
    assert len(read_scan(folder, 4).hu) == 12


def test_one_slice_has_its_thickness_as_spacing(tmp_path):
    folder = write_series(tmp_path / "scan", chest(), skip=(0, 1, 2, 3, 5))
    scan = read_scan(next(folder.iterdir()))
    assert scan.spacing == (4.5, 0.75, 0.9) and scan.hu.shape == (1, 100, 112)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    np.testing.assert_allclose(mask_places(hd.seg.segread(path), 1)[0][0], source_place(folder)[0], atol=1e-4)


def test_a_scan_that_does_not_say_its_thickness(tmp_path):
    folder = write_series(
        tmp_path / "scan", chest(), change=lambda dataset, i: delattr(dataset, "SliceThickness")
    )
    scan = read_scan(folder)
    assert scan.thickness is None and scan.spacing[0] == 5
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    measures = hd.seg.segread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 5
    alone = read_scan(min(folder.iterdir()))
    assert alone.spacing == (1, 0.75, 0.9) and any("1 mm is assumed" in note for note in alone.notes)


def pack(path, folder, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, Path("scan", file.name))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_is_read_from_memory_and_leaves_nothing_behind(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = pack(tmp_path / "a.zip", write_series(tmp_path / "scan", chest()), note=b"text")
    np.testing.assert_array_equal(read_scan(path).hu, chest())
    assert not list(scratch.iterdir()) and sorted(p.name for p in tmp_path.iterdir()) == [
        "a.zip",
        "scan",
        "scratch",
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_is_read_from_memory(tmp_path, mode):
    with tarfile.open(tmp_path / "a", mode) as archive:
        archive.add(write_series(tmp_path / "scan", chest()), "scan")
    np.testing.assert_array_equal(read_scan(tmp_path / "a").hu, chest())


def test_a_tar_with_a_link_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(write_series(tmp_path / "scan", chest()), "scan")
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match="a link"):
        read_scan(tmp_path / "a.tar")


@no_windows
def test_gzipped_files_and_linked_folders_are_read(tmp_path):
    folder = write_series(tmp_path / "scan", chest())
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "scan").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path / "links")  # a circle
    np.testing.assert_array_equal(read_scan(tmp_path / "links").hu, chest())


def test_a_dicomdir_stands_for_its_folder(tmp_path):
    folder = write_series(tmp_path / "medium", chest())
    files = FileSet()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
        files.add(dataset)
    files.write(tmp_path / "disc")
    np.testing.assert_array_equal(read_scan(tmp_path / "disc" / "DICOMDIR").hu, chest())
    disc = (path for path in (tmp_path / "disc").rglob("*") if path.is_file())
    first, *others = (path for path in disc if path.name != "DICOMDIR")
    first.unlink()
    notes = read_scan(tmp_path / "disc" / "DICOMDIR").notes
    assert any("1 files beside the slices" in note and "DICOMDIR names" in note for note in notes)
    for path in others:
        path.unlink()
    with pytest.raises(InputError, match="DICOMDIR names and that are not there; .* copy the whole medium"):
        read_scan(tmp_path / "disc" / "DICOMDIR")


def sequence(**attributes):
    item = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def test_an_enhanced_multi_frame_ct_is_read_frame_by_frame(tmp_path):
    datasets = [pydicom.dcmread(path) for path in write_series(tmp_path / "scan", chest()).iterdir()]
    datasets.sort(key=lambda dataset: -dataset.InstanceNumber)  # frames from head to feet
    whole, shared = datasets[0], pydicom.Dataset()
    shared.PlaneOrientationSequence = sequence(ImageOrientationPatient=whole.ImageOrientationPatient)
    shared.PixelMeasuresSequence = sequence(PixelSpacing=whole.PixelSpacing, SliceThickness=4.5)
    whole.PerFrameFunctionalGroupsSequence = []
    for i, dataset in enumerate(datasets):
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = sequence(ImagePositionPatient=dataset.ImagePositionPatient)
        scale = dict(RescaleSlope=1, RescaleIntercept=-1100 - i, RescaleType="HU")
        frame.PixelValueTransformationSequence = sequence(**scale)
        whole.PerFrameFunctionalGroupsSequence.append(frame)
    whole.PixelData = b"".join((d.pixel_array + i).astype("<u2").tobytes() for i, d in enumerate(datasets))
    whole.SharedFunctionalGroupsSequence, whole.NumberOfFrames = [shared], 6
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
                    "RescaleSlope", "RescaleIntercept", "RescaleType"):  # fmt: skip
        delattr(whole, keyword)
    whole.save_as(tmp_path / "enhanced")
    scan = read_scan(tmp_path / "enhanced")
    np.testing.assert_array_equal(scan.hu, chest())
    np.testing.assert_allclose(scan.spacing, SPACING)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    place = mask_places(hd.seg.segread(path), 1)[0][0]
    np.testing.assert_allclose(place, source_place(tmp_path / "scan")[0], atol=1e-4)


def member(name, mode=stat.S_IFREG | 0o644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(("info", "content", "words"), [
    (member("../../evil"), b"x", "a path outside"),
    (member("/etc/evil"), b"x", "a path outside"),
    (member("a\\..\\evil"), b"x", "a path outside"),
    (member("C:/evil"), b"x", "a path outside"),
    (member("link", stat.S_IFLNK | 0o777), b"/etc/passwd", "a link"),
    (member("zeros"), bytes(50_000_000), "would unpack"),
])  # fmt: skip
def test_harmful_archives_are_refused(tmp_path, monkeypatch, info, content, words):
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    with pytest.raises(InputError, match=words):
        read_scan(folder / "a.zip")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.zip"]


def test_a_damaged_archive_and_one_without_a_scan_are_refused(tmp_path):
    path = pack(tmp_path / "a.zip", write_series(tmp_path / "scan", chest()))
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)
    raw[300:3000] = bytes(2700)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged|cut short"):
        read_scan(path)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no CT slice, but files that are not DICOM"):
        read_scan(pack(tmp_path / "b.zip", tmp_path / "none", text=b"hello"))


@pytest.mark.parametrize(("change", "words"), [
    (dict(Modality="MR"), "images of modality MR"),
    (dict(ImageType=["DERIVED", "SECONDARY", "LOCALIZER"]), "scout views"),
    (dict(ImageType=["DERIVED", "PRIMARY", "AXIAL"], SeriesDescription="Thorax MIP 8"), "projections"),
    (dict(NumberOfFrames=20), "multi-frame"),
    (dict(RescaleType="MGML"), "not in HU"),
    (dict(SamplesPerPixel=3), "without a grey image"),
    (dict(ImagePositionPatient=None), "impossible position"),
    (dict(ImageOrientationPatient=None), "without a position"),
    (dict(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "impossible position"),
    (dict(PixelSpacing=[0, 0]), "pixel spacing; .* export it again with position"),
    (dict(Rows=40_000, Columns=40_000), "the header claims 6 slices of 40000 x 40000"),
    (dict(Rows=64, Columns=64), "expected at least 96"),
    (dict(Rows=101), "cut short"),
    (dict(PixelData=b"1234"), "cut short"),
    (dict(RescaleIntercept=0), "none is air"),
    (dict(PixelData=bytes(100 * 112 * 2)), "same value"),
])  # fmt: skip
def test_slices_that_are_no_ct_are_refused(tmp_path, change, words):
    def apply(dataset, i):
        for keyword, value in change.items():
            setattr(dataset, keyword, value)

    write_series(tmp_path / "scan", chest(), change=apply)
    with pytest.raises(InputError, match=words), warnings.catch_warnings():
        warnings.simplefilter("error")
        read_scan(tmp_path / "scan")


@pytest.mark.parametrize("share", [0.02, 0.03, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = next(write_series(tmp_path / "scan", chest(1)).iterdir())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match="cut short|no CT slice"):
        read_scan(path)


def test_the_damaged_slice_is_named(tmp_path):
    folder = write_series(tmp_path / "scan", chest())
    path = next(path for path in folder.iterdir() if pydicom.dcmread(path).InstanceNumber == 4)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(
        InputError, match=r"InstanceNumber 4, at 125.0 mm\) that is cut short or damaged; .* copy"
    ):
        read_scan(folder)


def test_a_compression_that_nothing_decodes_is_named(tmp_path):
    def change(dataset, i):
        dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc1" + bytes(200) + b"\xff\xd9"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    folder = write_series(tmp_path / "scan", chest(1), change=change)
    with pytest.raises(InputError, match="its compression is JPEG Extended.*pylibjpeg-libjpeg") as caught:
        read_scan(folder)
    assert "install python-gdcm" not in str(caught.value)


def bare(change):
    """The files as older consoles write them: no preamble, no header of the file's own."""

    def strip(dataset, path):
        del dataset.file_meta
        pydicom.dcmwrite(path, dataset, implicit_vr=change, little_endian=True, enforce_file_format=False)

    return strip


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_preamble_are_read(tmp_path, implicit):
    folder = write_series(tmp_path / "scan", chest())
    for path in folder.iterdir():
        bare(implicit)(pydicom.dcmread(path), path)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, chest())
    assert read_scan(next(folder.iterdir())).kind == "dicom"
    assert write_masks(scan, marked(scan), tmp_path / "out")


@pytest.mark.parametrize("keep_meta", [True, False])
def test_files_whose_identifiers_are_blank_are_one_scan(tmp_path, keep_meta):
    def change(dataset, i):
        dataset.SOPClassUID = dataset.SOPInstanceUID = dataset.SeriesInstanceUID = (
            dataset.StudyInstanceUID
        ) = ""
        dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i + 1}" if keep_meta else "1.2.3"
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_series(tmp_path / "scan", chest(), change=change, strict=False)
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.hu, chest())
    assert any("no identifiers" in note for note in scan.notes) != keep_meta
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    assert hd.seg.segread(path).SeriesInstanceUID


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, JPEGLSLossless, RLELossless], ids=lambda uid: uid.keyword
)
def test_damaged_bytes_end_in_a_scan_or_in_one_sentence(tmp_path, syntax):
    path = next(write_series(tmp_path / "scan", chest(1), change=compress(syntax)).iterdir())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(15):
        raw = bytearray(whole)
        raw[rng.integers(132, 1500)] = rng.integers(256)
        path.write_bytes(raw)
        try:
            assert read_scan(path).hu.shape[0] == 1
        except InputError as error:
            assert "expected" in str(error)


def plant(dataset, i):
    """The marker in every text field, in private ones, in a sequence, and where it makes a value invalid."""
    for tag, (vr, _, _, retired, keyword) in pydicom.datadict.DicomDictionary.items():
        text = vr in ("LO", "SH", "PN", "LT", "ST", "UT", "UC", "CS", "AE")
        if text and tag >> 16 > 2 and keyword and keyword not in dataset and not retired:
            setattr(dataset, keyword, MARKER)
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyID",
        "AccessionNumber",
        "StudyDescription",
        "SeriesDescription",
    ):
        setattr(dataset, keyword, MARKER)
    block = dataset.private_block(0x11, MARKER, create=True)
    block.add_new(1, "LO", MARKER)
    item = pydicom.Dataset()
    item.CodeMeaning = MARKER
    dataset.RequestAttributesSequence = [item]
    del dataset.SpecificCharacterSet
    dataset.preamble = MARKER.encode().ljust(128, b"\0")


@pytest.mark.parametrize("keep", [False, True])
def test_only_what_an_overlay_needs_is_copied_unless_the_identity_is_kept(tmp_path, keep):
    folder = write_series(tmp_path / MARKER, chest(2), change=plant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = read_scan(folder)
        (path,) = write_masks(scan, marked(scan), tmp_path / "out", keep_identity=keep)
    raw = path.read_bytes()
    assert MARKER not in repr(scan) and "Nobody" not in repr(scan)
    segmentation = pydicom.dcmread(path)
    copied = {e.keyword for e in segmentation.iterall() if e.VR != "SQ" and MARKER in str(e.value)}
    if not keep:
        assert MARKER.encode() not in raw and MARKER.encode("utf-16-le") not in raw and not copied
        for keyword in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "StudyDate",
            "StudyID",
            "AccessionNumber",
        ):
            assert segmentation[keyword].is_empty
    else:
        assert copied == {
            "PatientName",
            "PatientID",
            "PatientSex",
            "StudyID",
            "StudyDescription",
            "AccessionNumber",
            "ReferringPhysicianName",
        }
    assert not any(element.tag.is_private for element in segmentation.iterall())
    assert segmentation.preamble == bytes(128)


def test_a_name_in_any_alphabet_is_kept_when_asked(tmp_path):
    def change(dataset, i):
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 144", "Иванов^Иван"

    scan = read_scan(write_series(tmp_path / "scan", chest(), change=change))
    (path,) = write_masks(scan, marked(scan), tmp_path / "out", keep_identity=True)
    assert str(pydicom.dcmread(path).PatientName) == "Иванов^Иван"


def test_segments_have_codes_and_the_figures_colours(tmp_path):
    scan = read_scan(write_series(tmp_path / "scan", chest()))
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    segments = hd.seg.segread(path).SegmentSequence
    assert [segment.SegmentNumber for segment in segments] == [1, 2, 3]
    assert [segment.SegmentLabel for segment in segments] == [tissue.name for tissue in CLASSES[:3]]
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in segments]
    assert codes == ["112120", "95436008", "39607008"]
    for segment, tissue in zip(segments, CLASSES, strict=False):
        shown = hd.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb(clip=True)
        expected = [int(tissue.color[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(np.array(shown) - expected).max() <= 3


def test_a_mask_without_any_lung_is_still_a_segmentation(tmp_path):
    scan = read_scan(write_series(tmp_path / "scan", chest()))
    (path,) = write_masks(scan, np.full(scan.hu.shape, BACKGROUND, np.uint8), tmp_path / "out")
    assert not hd.seg.segread(path).pixel_array.any()


def test_a_scan_without_a_frame_of_reference_or_with_text_for_a_uid_gets_new_ones(tmp_path):
    def change(dataset, i):
        del dataset.FrameOfReferenceUID
        dataset.StudyInstanceUID, dataset.PatientBirthDate = MARKER, "in May"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write_series(tmp_path / "scan", chest(), change=change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they would quote the text
        scan = read_scan(folder)
        (path,) = write_masks(scan, marked(scan), tmp_path / "out", keep_identity=True)
    segmentation = pydicom.dcmread(path)
    assert segmentation.FrameOfReferenceUID.is_valid and segmentation.StudyInstanceUID.is_valid
    assert MARKER.encode() not in path.read_bytes() and [p.name for p in (tmp_path / "out").iterdir()] == [
        "mask.dcm"
    ]
