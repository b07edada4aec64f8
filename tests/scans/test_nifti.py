"""NIfTI: every orientation, both versions, compressed or not; the mask has the scan's grid and affine."""

import gzip
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from helpers import LANDMARK, RAS, affine_of, chest, marked

from lungseg_utils.core.files import InputError
from lungseg_utils.scans.io import read_scan, write_masks

SPACING = (5.0, 0.75, 0.9)  # mm: slices, rows, columns
MARKER = "MARKER7"


def rearrange(volume, affine, order, signs):
    """The same volume in another order and direction of axes, every voxel kept in its place."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, old in enumerate(order):
        change[old, new] = signs[old]
        change[old, 3] = 0 if signs[old] > 0 else volume.shape[old] - 1
    return volume[tuple(slice(None, None, sign) for sign in signs)].transpose(order), affine @ change


def save(path, volume, affine, kind=nib.Nifti1Image, **codes):
    image = kind(volume, affine)
    image.set_sform(affine, codes.get("sform", 1))
    image.set_qform(affine, codes.get("qform", 1))
    image.header.set_xyzt_units(codes.get("unit", "mm"))
    nib.save(image, path)
    return path


def world_of(path, value):
    image = nib.load(path)
    places = np.argwhere(np.asarray(image.dataobj) == value)
    assert len(places) == 1
    return image.affine @ [*places[0], 1]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_scan_and_mask_agree_in_all_48_orientations(tmp_path, order):
    hu = chest()
    for i, signs in enumerate(product((1, -1), repeat=3)):
        volume, affine = rearrange(hu, affine_of(), order, signs)
        path = save(tmp_path / f"{i}.nii", volume, affine)
        scan = read_scan(path)
        np.testing.assert_array_equal(scan.hu, hu)
        np.testing.assert_allclose(scan.spacing, SPACING, rtol=1e-6)
        assert scan.is_hu and not scan.notes
        (mask,) = write_masks(scan, marked(scan), tmp_path / f"out{i}")
        np.testing.assert_allclose(world_of(mask, 1), affine_of() @ [*LANDMARK, 1], atol=1e-4)
        np.testing.assert_allclose(world_of(mask, 1), world_of(path, 1200), atol=1e-4)
        assert nib.load(mask).shape == volume.shape


def test_an_oblique_scan_is_not_resampled_and_its_mask_lies_over_it(tmp_path):
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    volume, affine = rearrange(chest(), affine_of(RAS @ turn.T), (2, 1, 0), (1, -1, 1))
    path = save(tmp_path / "a.nii.gz", volume, affine)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.hu, chest())
    assert any("oblique or tilted by 12 degrees" in note for note in scan.notes)
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    np.testing.assert_allclose(world_of(mask, 1), world_of(path, 1200), atol=1e-4)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_mask_has_the_scans_affines_codes_zooms_and_shape(tmp_path, kind):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, -1, 1))
    path = save(tmp_path / "a.nii.gz", volume[..., None], affine, kind, sform=2, qform=4)
    scan = read_scan(path)
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    old, new = nib.load(path), nib.load(mask)
    assert mask.name == "mask.nii.gz" and type(new) is kind and new.shape == volume[..., None].shape
    np.testing.assert_array_equal(new.affine, old.affine)
    for name in ("get_sform", "get_qform"):
        (a, code_a), (b, code_b) = (getattr(image.header, name)(coded=True) for image in (old, new))
        np.testing.assert_array_equal(a, b)
        assert code_a == code_b != 0
    assert new.header.get_zooms() == old.header.get_zooms() and new.header.get_data_dtype() == np.uint8
    assert new.header.get_xyzt_units()[0] == "mm" and set(np.unique(new.dataobj)) == {0, 1, 2, 3}


def test_the_same_mask_is_the_same_bytes(tmp_path):
    path = save(tmp_path / "a.nii", *rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1)))
    scan = read_scan(path)
    first, second = (write_masks(scan, marked(scan), tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_no_text_of_the_header_reaches_the_mask(tmp_path):
    image = nib.Nifti1Image(*rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1)))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = MARKER
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", MARKER.encode()))
    nib.save(image, tmp_path / f"{MARKER}.nii.gz")
    scan = read_scan(tmp_path / f"{MARKER}.nii.gz")
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    raw = mask.read_bytes()
    assert (
        MARKER.encode() not in raw
        and MARKER.encode() not in gzip.decompress(raw)
        and MARKER not in repr(scan)
    )


def test_scaled_values_and_other_units_are_understood(tmp_path):
    volume, affine = rearrange(chest(), affine_of(spacing=np.array(SPACING) / 1000), (2, 1, 0), (1, 1, 1))
    path = save(tmp_path / "a.nii", ((volume + 1100) * 2).astype(np.uint16), affine, unit="meter")
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)
    header["scl_slope"], header["scl_inter"] = 0.5, -1100
    path.write_bytes(raw)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.hu, chest())
    np.testing.assert_allclose(scan.spacing, SPACING, rtol=1e-5)


def test_one_slice_in_two_dimensions(tmp_path):
    nib.save(nib.Nifti1Image(chest()[LANDMARK[0]].T, np.diag([-0.9, -0.75, 1, 1])), tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.hu, chest()[LANDMARK[0]][None])
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    assert nib.load(mask).shape == (112, 100)
    image = nib.Nifti1Image(chest()[LANDMARK[0]].T, np.diag([-0.9, -0.75, 5, 1]))
    nib.save(image, tmp_path / "b.nii")
    scan = read_scan(tmp_path / "b.nii")
    assert not scan.notes and scan.spacing == pytest.approx((5, 0.75, 0.9))


def test_a_unit_that_no_standard_has_is_none(tmp_path):
    path = save(tmp_path / "a.nii", *rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1)))
    assert read_scan(with_header(path, xyzt_units=7)).spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_steps_of_one_millimetre_from_an_origin_of_zero_are_no_sizes(tmp_path, signs):
    path = save(tmp_path / "a.nii", chest().transpose(2, 1, 0), np.diag([*signs, 1.0]))
    scan = read_scan(path)
    assert scan.spacing is None and any("know no sizes" in note for note in scan.notes)
    resampled = np.diag([*signs, 1.0]) + np.outer([30.0, 20, 10, 0], [0, 0, 0, 1])
    assert read_scan(save(tmp_path / "b.nii", chest().transpose(2, 1, 0), resampled)).spacing == (1, 1, 1)


def test_a_file_that_says_nothing_of_its_place_gives_a_note_and_no_spacing(tmp_path):
    image = nib.Nifti1Image(chest().transpose(2, 1, 0), None)
    nib.save(image, tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.spacing is None and any("right and left" in note for note in scan.notes)
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    np.testing.assert_array_equal(nib.load(mask).affine, nib.load(tmp_path / "a.nii").affine)


def with_header(path, **fields):
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)
    for name, value in fields.items():
        header[name][0] = value
    path.write_bytes(raw)
    return path


def test_sizes_that_contradict_each_other_are_withheld(tmp_path):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1))
    path = save(tmp_path / "a.nii", volume, affine, qform=0)
    zooms = nib.load(path).header["pixdim"].copy()
    assert read_scan(path).spacing is not None
    unit = np.eye(4, dtype=np.float32)
    scan = read_scan(with_header(path, srow_x=unit[0], srow_y=unit[1], srow_z=unit[2]))
    assert scan.spacing is None and any(
        "contradicts itself" in note and "pixdim" in note for note in scan.notes
    )
    (mask,) = write_masks(scan, marked(scan), tmp_path / "out")
    np.testing.assert_array_equal(nib.load(mask).affine, nib.load(path).affine)
    zooms[1:4] = 1
    scan = read_scan(with_header(path, pixdim=zooms))
    assert scan.spacing is None and any("identity" in note for note in scan.notes)


def test_a_default_pixdim_leaves_the_affine_its_word(tmp_path):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1))
    path = save(tmp_path / "a.nii", volume, affine, qform=0)
    scan = read_scan(with_header(path, pixdim=[1] * 8))
    np.testing.assert_allclose(scan.spacing, SPACING, rtol=1e-6)
    assert any("by default" in note for note in scan.notes)


@pytest.mark.parametrize(("flip", "words"), [((-1, 1, 1), "exchanged"), ((-1, -1, 1), "disagree")])
def test_an_sform_and_a_qform_that_disagree_on_the_sides_are_a_note(tmp_path, flip, words):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1))
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, 1)
    image.set_qform(np.diag([*flip, 1]) @ affine, 1)
    nib.save(image, tmp_path / "a.nii")
    (note,) = read_scan(tmp_path / "a.nii").notes
    assert words in note and "sform is used" in note


def test_a_sheared_grid_is_measured_by_its_determinant(tmp_path):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1))
    affine[1, 2] = 3.0  # each slice lies 3 mm further to the front
    scan = read_scan(save(tmp_path / "a.nii", volume, affine, qform=0))
    np.testing.assert_allclose(np.prod(scan.spacing), np.prod(SPACING), rtol=1e-6)
    np.testing.assert_allclose(scan.spacing, SPACING, rtol=1e-6)


def test_coarse_coronal_slices_are_refused_and_nearly_cubic_ones_are_turned(tmp_path):
    hu = chest(100, 100, 112)
    save(tmp_path / "cubic.nii", *rearrange(hu, affine_of(spacing=(1.0, 1.0, 0.9)), (2, 0, 1), (1, 1, 1)))
    np.testing.assert_array_equal(read_scan(tmp_path / "cubic.nii").hu, hu)
    save(tmp_path / "coarse.nii", *rearrange(hu, affine_of(spacing=(0.8, 5.0, 0.8)), (2, 0, 1), (1, 1, 1)))
    with pytest.raises(InputError, match="expected axial slices"):
        read_scan(tmp_path / "coarse.nii")


def test_volumes_that_are_none_are_refused(tmp_path):
    volume, affine = rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1))
    colours = np.zeros(volume.shape, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    wrong = volume.astype(np.float32)
    wrong[0, 0, 0] = np.nan
    cases = {
        "expected one number a voxel in 3 dimensions": np.stack([volume] * 2, -1),
        "RGB|'R'": colours,
        "NaN": wrong,
        "expected at least 96 x 96": volume[:64, :64],
        "none is air": (volume + 1000).clip(0),
    }
    for i, (words, data) in enumerate(cases.items()):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / f"{i}.nii.gz")
        with pytest.raises(InputError, match=words):
            read_scan(tmp_path / f"{i}.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_a_file_that_ends_early_is_refused(tmp_path, name, share):
    path = save(tmp_path / name, *rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1)))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match="not all of it|another kind"):
        read_scan(path)


@pytest.mark.parametrize(("field", "value", "words"), [
    ("dim", [3, 32767, 32767, 1, 1, 1, 1, 1], "the header claims"),
    ("dim", [3, 512, 512, 5000, 1, 1, 1, 1], "the header claims 5000 slices"),
    ("dim", [3, -5, 100, 6, 1, 1, 1, 1], "NIfTI|expected at least"),
    ("datatype", 999, "NIfTI"),
    ("srow_x", [0, 0, 0, 0], "places no volume"),
    ("srow_x", [np.nan, 0, 0, 0], "places no volume"),
])  # fmt: skip
def test_an_impossible_header_is_refused(tmp_path, field, value, words):
    path = save(tmp_path / "a.nii", *rearrange(chest(), affine_of(), (2, 1, 0), (1, 1, 1)))
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, nib.nifti1.header_dtype, 1)
    header[field][0] = value
    path.write_bytes(raw)
    with pytest.raises(InputError, match=words):
        read_scan(path)


def test_another_gzip_file_is_refused(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(b"text" * 500))
    with pytest.raises(InputError, match="of another kind"):
        read_scan(tmp_path / "scan.nii.gz")
