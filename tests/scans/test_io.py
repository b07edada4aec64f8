"""Scans of any kind: told by content, brought to one orientation, refused in one sentence.

Masks in its grid.
"""

import os
import sys
import zipfile
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from helpers import LANDMARK, chest, marked, no_windows
from PIL import Image

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.scans.io import read_scan, write_masks
from lungseg_utils.scans.orientation import LPS, orient
from lungseg_utils.scans.scan import MASK_TABLE, MASK_VALUES, MAX_SIDE, check_size


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_every_exchange_and_reversal_of_axes_is_undone(order):
    volume = np.arange(24).reshape(2, 3, 4)
    for signs in product((1, -1), repeat=3):
        directions = (LPS * np.array(signs)[:, None])[
            list(order)
        ]  # file axis i runs along hu's axis order[i]
        file = volume[tuple(slice(None, None, sign) for sign in signs)].transpose(order)
        orientation = orient(directions)
        np.testing.assert_array_equal(orientation.to_hu(file), volume)
        np.testing.assert_array_equal(orientation.to_file(orientation.to_hu(file)), file)


def test_mask_values_are_background_0_and_the_classes_from_1():
    assert MASK_VALUES == {BACKGROUND: 0, GROUND_GLASS: 1, CONSOLIDATION: 2, LUNG_OTHER: 3}
    assert MASK_TABLE[[BACKGROUND, GROUND_GLASS, CONSOLIDATION, LUNG_OTHER]].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "shape", [(6, 100, 112), (6, 100, 112, 1), (1, 6, 100, 112), (6, 1, 100, 112), (100, 112)]
)
@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.float32, np.int32])
def test_arrays_of_numbers_are_read_and_their_masks_have_the_same_shape(tmp_path, shape, dtype):
    hu = chest()
    np.save(tmp_path / "a.npy", (hu if len(shape) > 2 else hu[LANDMARK[0]]).reshape(shape).astype(dtype))
    scan = read_scan(tmp_path / "a.npy")
    assert (scan.kind, scan.is_hu, scan.spacing, scan.thickness, scan.modality) == (
        "array",
        True,
        None,
        None,
        None,
    )
    np.testing.assert_array_equal(scan.hu, hu if len(shape) > 2 else hu[LANDMARK[0]][None])
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    mask = np.load(path)
    assert path.name == "mask.npy" and mask.shape == shape
    assert np.argwhere(mask.reshape(scan.hu.shape)[-2 if len(shape) > 2 else 0] == GROUND_GLASS).tolist() == [
        [30, 25]
    ]


def test_an_array_of_grey_levels_is_recognised_and_mapped(tmp_path):
    hu = chest()
    np.save(tmp_path / "a.npy", np.clip(np.rint((hu + 1350) / 1500 * 255), 0, 255).astype(np.uint8))
    scan = read_scan(tmp_path / "a.npy")
    assert not scan.is_hu and any("grey levels, not HU" in note for note in scan.notes)
    assert np.abs(scan.hu[:, 45:55, 30:40] + 850).mean() < 40


def test_a_blank_slice_among_others_is_reported(tmp_path):
    hu = chest()
    hu[0] = -1024
    np.save(tmp_path / "a.npy", hu)
    assert "1 of 6 slices are blank." in read_scan(tmp_path / "a.npy").notes


def test_negative_values_without_a_sign_are_read_as_they_were(tmp_path):
    np.save(tmp_path / "a.npy", chest().astype(np.uint16))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.npy").hu, chest())


def with_value(value):
    hu = chest().astype(float)
    hu[2, 5, 5] = value
    return hu


@pytest.mark.parametrize(("array", "words"), [
    (with_value(np.nan), "NaN or infinite"),
    (with_value(np.inf), "NaN or infinite"),
    (np.full((3, 100, 100), -1000), "same value, -1000"),
    (chest()[:1, :64, :64], "expected at least 96 x 96"),
    (chest()[None].repeat(2, 0), "expected numbers \\(N, H, W\\)"),
    (chest() > 0, "expected numbers"),
    (chest() + 1024, "none is air; expected Hounsfield units"),
    (np.clip(chest(), -200, 200), "none is air"),
    ((chest() > 0).astype(np.uint8), "as labels have"),
    (chest() / 3000 + 0.5, "they were scaled .normalised."),
    ((chest() - chest().mean()) / chest().std(), "they were scaled"),
    (np.where(np.hypot(*np.mgrid[-50:50, -56:56]) > 55, -2000, chest() + 1024), "an offset of about 1024"),
    (np.array([[{}]]), "no array of numbers"),
    (chest()[:0], "expected at least"),
])  # fmt: skip
def test_arrays_that_are_no_scan_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=words) as caught:
        read_scan(tmp_path / "a.npy")
    assert str(caught.value).count("; ") >= 1 and "\n" not in str(caught.value)


def test_a_header_that_claims_a_billion_pixels_is_refused_before_memory_is_taken(tmp_path):
    with (tmp_path / "a.npy").open("wb") as handle:
        header = {"descr": "<i2", "fortran_order": False, "shape": (4000, 512, 512)}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.truncate(4000 * 512 * 512 * 2 + 128)  # sparse: it takes no room
    with pytest.raises(InputError, match="the header claims 4000 slices"):
        read_scan(tmp_path / "a.npy")
    with pytest.raises(InputError, match="the header claims"):
        check_size((1, MAX_SIDE + 1, 512))
    check_size((2000, 512, 512))


@pytest.mark.parametrize(("name", "content", "words"), [
    ("scan.nii.gz", b"Dear colleague, here is the scan.\n" * 50, "of another kind; expected NIfTI"),
    ("scan.dcm", b"text", "of another kind"),
    ("scan.nii", b"", "is empty"),
    ("scan.npy", b"\x93NUMPY\x01\x00", "no array of numbers"),
    ("scan.gif", b"GIF89a" + bytes(600), "a GIF picture; .* save it as PNG"),
    ("scan.7z", b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive; .* unpack it"),
    ("scan.img", bytes(600), "one half of a pair"),
])  # fmt: skip
def test_files_that_only_have_a_scans_name_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_scan(tmp_path / name)


def test_the_content_decides_and_not_the_name(tmp_path):
    np.save(tmp_path / "a.npy", chest())
    (tmp_path / "a.npy").rename(tmp_path / "scan.nii.gz")
    assert read_scan(tmp_path / "scan.nii.gz").kind == "array"


@pytest.mark.parametrize("name", ["a.npy", "a.png", "a.nii"])
def test_damaged_bytes_in_a_header_end_in_a_scan_or_in_one_sentence(tmp_path, name):
    hu = chest(2)
    if name == "a.npy":
        np.save(tmp_path / name, hu)
    elif name == "a.png":
        Image.fromarray(np.clip((hu[0] + 1350) // 6, 0, 255).astype(np.uint8)).save(tmp_path / name)
    else:
        nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1, -1, 5, 1])), tmp_path / name)
    whole, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        raw = bytearray(whole)
        raw[rng.integers(4, 350)] = rng.integers(256)
        (tmp_path / name).write_bytes(raw)
        try:
            assert read_scan(tmp_path / name).hu.dtype == np.int16
        except InputError as error:
            assert "expected" in str(error)


def test_the_one_scan_of_a_folder_is_read_and_several_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("text")
    np.save(tmp_path / "in" / "a.npy", chest())
    np.testing.assert_array_equal(read_scan(tmp_path / "in").hu, chest())
    nib.save(
        nib.Nifti1Image(chest().transpose(2, 1, 0), np.diag([-1, -1, 5, 1])), tmp_path / "in" / "b.nii.gz"
    )
    with pytest.raises(InputError, match="2 files, .npy arrays and NIfTI; expected one scan"):
        read_scan(tmp_path / "in")
    zipfile.ZipFile(tmp_path / "a.zip", "w").write(tmp_path / "in" / "a.npy", "a.npy")
    with pytest.raises(InputError, match="an archive of 1 files, .npy arrays; .* unpack it"):
        read_scan(tmp_path / "a.zip")


def test_pictures_of_a_folder_are_the_slices_of_one_scan(tmp_path):
    grey = np.clip(np.rint((chest() + 1350) / 1500 * 255), 0, 255).astype(np.uint8)
    grey[:, :8, :8] = 0
    for i, picture in enumerate(grey):
        picture[:8, :8] = 20 * i
        Image.fromarray(picture).save(tmp_path / f"slice{5 + i}.png")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    scan = read_scan(tmp_path)
    assert scan.hu.shape == chest().shape and (np.diff(scan.hu[:, 2, 2]) > 0).all()
    assert any("order of their names" in note for note in scan.notes)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    assert np.load(path).shape == chest().shape


@pytest.mark.parametrize("shape", [(6, 112, 112), (6, 100, 112), (120, 112, 112)])
def test_slices_along_the_last_axis_are_recognised_and_the_mask_is_alike(tmp_path, shape):
    hu = chest(*shape)
    np.save(tmp_path / "a.npy", hu.transpose(1, 2, 0))
    scan = read_scan(tmp_path / "a.npy")
    np.testing.assert_array_equal(scan.hu, hu)
    labels = marked(scan)
    mask = np.load(write_masks(scan, labels, tmp_path / "out")[0])
    np.testing.assert_array_equal(mask, labels.transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd"])
def test_metaimage_and_nrrd_are_read_with_simpleitk(tmp_path, name):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(chest()[::-1, :, ::-1]))
    image.SetSpacing((0.9, 0.75, 5.0))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
    image.SetOrigin((50, -30, 110))
    sitk.WriteImage(image, str(tmp_path / name), name == "a.nrrd")
    scan = read_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.hu, chest())
    assert scan.spacing == (5.0, 0.75, 0.9)
    (path,) = write_masks(scan, marked(scan), tmp_path / "out")
    mask = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask) == 1, sitk.GetArrayFromImage(image) == 1200)
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    (tmp_path / "cut.mha").write_bytes((tmp_path / name).read_bytes()[:200])
    if name != "a.mhd":
        with pytest.raises(InputError, match="not all of it"):
            read_scan(tmp_path / "cut.mha")


def itk_header(spacing=True, placed=True, step=5.0) -> bytes:
    """Of a MetaImage whose pixels, `chest()`'s, follow; without its lines on sizes or on directions."""
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += ["TransformMatrix = 1 0 0 0 1 0 0 0 1"] if placed else []
    lines += ["Offset = 50 -30 110", f"DimSize = {' '.join(map(str, chest().shape[::-1]))}"]
    lines += [f"ElementSpacing = 0.9 0.75 {step}"] if spacing else []
    return "\n".join([*lines, "ElementType = MET_SHORT", "ElementDataFile = LOCAL\n"]).encode()


def test_pixels_in_the_files_own_order_outlive_simpleitks_image(tmp_path):
    pytest.importorskip("SimpleITK")
    (tmp_path / "a.mha").write_bytes(itk_header() + chest().tobytes())
    np.testing.assert_array_equal(read_scan(tmp_path / "a.mha").hu, chest())


def test_a_negative_step_of_metaimage_is_a_direction(tmp_path):
    pytest.importorskip("SimpleITK")
    (tmp_path / "a.mha").write_bytes(itk_header(step=-5.0) + chest()[::-1].tobytes())
    scan = read_scan(tmp_path / "a.mha")
    np.testing.assert_array_equal(scan.hu, chest())
    assert scan.spacing == (5.0, 0.75, 0.9) and write_masks(scan, marked(scan), tmp_path / "out")
    (tmp_path / "b.mha").write_bytes(itk_header(step=0) + chest().tobytes())
    with pytest.raises(InputError, match="voxels of 0 mm"):
        read_scan(tmp_path / "b.mha")


def test_what_metaimage_and_nrrd_do_not_say_is_not_assumed_in_silence(tmp_path):
    pytest.importorskip("SimpleITK")
    pixels = chest().tobytes()
    (tmp_path / "a.mha").write_bytes(itk_header(spacing=False) + pixels)
    assert read_scan(tmp_path / "a.mha").spacing is None
    (tmp_path / "b.mha").write_bytes(itk_header(placed=False) + pixels)
    header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {' '.join(map(str, chest().shape[::-1]))}\n"
    nrrd = header + "spacings: 0.9 0.75 5\nendian: little\nencoding: raw\n\n"
    (tmp_path / "c.nrrd").write_bytes(nrrd.encode() + pixels)
    for name in ("b.mha", "c.nrrd"):
        scan = read_scan(tmp_path / name)
        assert scan.spacing == (5.0, 0.75, 0.9)
        assert any("does not say how the patient lies" in note for note in scan.notes)


def test_without_simpleitk_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "a.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")
    with pytest.raises(InputError, match="takes SimpleITK.* pip install"):
        read_scan(tmp_path / "a.mha")


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_scan(tmp_path / "none.nii")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 files"):
        read_scan(tmp_path / "empty")


@no_windows
def test_a_folder_without_rights_is_refused(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    folder.chmod(0)
    superuser = os.geteuid() == 0
    if superuser:  # whom no rights stop
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match="cannot be read"):
            read_scan(folder)
    finally:
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_series_can_only_be_chosen_of_dicom(tmp_path):
    np.save(tmp_path / "a.npy", chest())
    with pytest.raises(InputError, match="only DICOM has series"):
        read_scan(tmp_path / "a.npy", series=1)


def test_labels_of_another_grid_are_refused_and_nothing_is_written(tmp_path):
    np.save(tmp_path / "a.npy", chest())
    scan = read_scan(tmp_path / "a.npy")
    labels = marked(scan)
    for wrong in (labels[1:], labels.astype(int), labels + np.uint8(4)):
        with pytest.raises(InputError, match="expected uint8 \\(6, 100, 112\\)"):
            write_masks(scan, wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()
