"""Published data sets, on small files of their layouts that are written here.

Orientation, classes, refusals.
"""

import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from lungseg_utils.core.classes import LESION, NOT_LESION
from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.checks import check_data
from lungseg_utils.data.datasets import SliceDataset
from lungseg_utils.data.importers import add_to_prepared, import_data, to_square
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.data.published_sets import KINDS
from lungseg_utils.training.losses import partial_cross_entropy

SIZE = 32
AIR, LUNG, LIVER, SPINE = -1000, -850, 60, 500
LIVER_AT, SPINE_AT = (
    np.s_[12:20, 3:7],
    np.s_[28:31, 14:18],
)  # rows, columns as a radiologist sees it: left, below
RAS, LPS, LAS = "RAS", "LPS", "LAS"


def picture(slices):
    """(N, 32, 32) HU and the truth that follows: liver at the left, spine below, two lungs.

    Z is told by the spine.
    """
    hu = np.full((slices, SIZE, SIZE), AIR, np.float32)
    hu[:, 2:30, 2:30] = 40
    hu[:, 8:24, 8:14] = hu[:, 8:20, 18:24] = LUNG  # nothing here looks the same when turned
    hu[(slice(None), *LIVER_AT)] = LIVER
    hu[(slice(None), *SPINE_AT)] = SPINE + np.arange(slices)[:, None, None]
    return hu


def masks(slices):
    """Lesions of `picture`: 1 ground glass, 2 consolidation, 3 effusion, in the lung mask.

    lungs: 1 right, 2 left.
    """
    lesions, lungs = np.zeros((2, slices, SIZE, SIZE), np.uint8)
    lungs[:, 8:24, 8:14], lungs[:, 8:20, 18:24] = 1, 2
    lesions[:, 9:12, 9:12], lesions[:, 13:16, 9:12], lesions[:, 20:24, 8:12] = 1, 2, 3
    lesions[-1] = 0  # the last slice has none
    return lesions, lungs


def write(path, array, stored="LPS", says=None, dtype=np.int16):
    """Write (N, H, W), seen as a radiologist does, its axes `stored` so; the header `says` so."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(stored))
    voxels = apply_orientation(array.T, turn).astype(dtype)
    affine = np.diag([-0.7, -0.7, 5, 1]) @ inv_ornt_aff(turn, array.T.shape)
    if says:
        affine = np.diag([-0.7 if says[0] == "L" else 0.7, -0.7 if says[1] == "P" else 0.7, 5, 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def medseg(folder, slices=4, stored=LPS):
    lesions, lungs = masks(slices)
    write(folder / "tr_im.nii.gz", picture(slices), stored, dtype=np.float32)
    write(folder / "tr_mask.nii.gz", lesions, stored, dtype=np.float32)
    write(
        folder / "tr_lungmasks_updated.nii.gz", lungs, stored, says=RAS
    )  # another tool's header; voxels fit
    return folder


def radiopaedia(folder, sizes=(("1", 3, LPS), ("2", 4, RAS), ("10", 2, "LAI"))):
    for name, slices, stored in sizes:
        lesions, lungs = masks(slices)
        write(folder / f"rp_im/{name}.nii.gz", picture(slices), stored)
        write(folder / f"rp_msk/{name}.nii.gz", lesions, stored)
        write(folder / f"rp_lung_msk/{name}.nii.gz", lungs, stored)
    return folder


def covid19_ct_seg(folder):
    for name, stored, says in (("coronacases_001", LAS, None), ("radiopaedia_4_85506_1", LPS, LAS)):
        lesions, lungs = masks(3)
        hu = picture(3)
        if says:
            hu = np.rint((np.clip(hu, -1350, 150) + 1350) / 1500 * 255)
        write(folder / f"COVID-19-CT-Seg_20cases/{name}.nii.gz", hu, stored, says)
        write(folder / f"Infection_Mask/{name}.nii.gz", lesions > 0, stored, says, np.uint8)
        write(folder / f"Lung_Mask/{name}.nii.gz", lungs, stored, says, np.uint8)
        write(
            folder / f"Lung_and_Infection_Mask/{name}.nii.gz",
            np.where(lesions, 3, lungs),
            stored,
            says,
            np.uint8,
        )
    return folder


def mosmed(folder):
    for name in ("study_0255", "study_0256", "study_0300"):  # the last has no mask, as most
        write(folder / f"studies/CT-1/{name}.nii.gz", picture(3), LAS)
    for name in ("study_0255", "study_0256"):
        write(folder / f"masks/{name}_mask.nii.gz", masks(3)[0] > 0, LAS, dtype=np.uint8)
    return folder


WRITERS = {"medseg": medseg, "radiopaedia": radiopaedia, "covid19-ct-seg": covid19_ct_seg, "mosmed": mosmed}


def classes(slices):
    """What MedSeg's masks mean: (N, 32, 32) class index."""
    lesions, lungs = masks(slices)
    labels = np.where(lungs > 0, 2, 3)
    labels[lesions == 1], labels[lesions == 2], labels[lesions == 3] = 0, 1, 3
    return labels


def load(folder, name):
    return np.load(folder / name)


@pytest.mark.parametrize("stored", [LPS, RAS, LAS, "PLS", "ARI"])
def test_front_is_up_and_the_liver_at_the_left_however_the_voxels_are_stored(tmp_path, stored):
    out = import_data("radiopaedia", radiopaedia(tmp_path / "in", [("1", 3, stored)]), tmp_path / "out", SIZE)
    images, labels = load(out, "images_radiopedia.npy"), load(out, "masks_radiopedia.npy")
    assert images.dtype == np.float32 and images.shape == (3, SIZE, SIZE, 1)
    np.testing.assert_array_equal(images[..., 0], picture(3))  # feet to head as well: the spine tells z
    assert labels.dtype == np.uint8 and labels.shape == (3, SIZE, SIZE, 4)
    np.testing.assert_array_equal(labels.argmax(-1), classes(3))
    assert (labels.sum(-1) == 1).all()


@pytest.mark.parametrize("stored", [LPS, RAS, "LAI"])
def test_medseg_slices_keep_their_order_and_its_masks_their_classes(tmp_path, stored):
    source = medseg(tmp_path / "in", stored="LPS" if stored == "LAI" else stored)
    if (
        stored == "LAI"
    ):  # its header calls the last slice the lowest: the order is that of the file all the same
        for name, array, dtype in (("tr_im", picture(4), np.float32), ("tr_mask", masks(4)[0], np.float32)):
            write(source / f"{name}.nii.gz", array[::-1], stored, dtype=dtype)
        write(source / "tr_lungmasks_updated.nii.gz", masks(4)[1], stored)
    out = import_data("medseg", source, tmp_path / "out", SIZE)
    np.testing.assert_array_equal(load(out, "images_medseg.npy")[..., 0], picture(4))
    np.testing.assert_array_equal(load(out, "masks_medseg.npy").argmax(-1), classes(4))


def test_both_competition_kinds_in_one_folder_are_its_five_arrays_and_pass_its_check(tmp_path):
    source = medseg(tmp_path / "in", slices=5)
    write(source / "val_im.nii.gz", picture(2) + 1, LPS, dtype=np.float32)
    out = tmp_path / "out"
    import_data("radiopaedia", radiopaedia(source), out, SIZE)
    import_data("medseg", source, out, SIZE)
    data = load_data(out)
    assert {name: len(images) for name, images in data.images.items()} == {
        "medseg": 5,
        "radiopaedia": 9,
        "test": 2,
    }
    assert data.volumes.tolist() == [1, 1, 1, 2, 2, 2, 2, 3, 3]  # 10 comes after 2
    assert check_data(out).usable
    import_data(
        "radiopaedia", radiopaedia(tmp_path / "fewer", [("1", 3, LPS)]), out, SIZE
    )  # again: the rest stays
    assert len(load_data(out).images["radiopaedia"]) == 3 and len(load_data(out).images["medseg"]) == 5


def test_an_infection_is_a_lesion_of_unknown_kind_and_the_lungs_are_known(tmp_path):
    out = import_data("covid19-ct-seg", covid19_ct_seg(tmp_path / "in"), tmp_path / "out", SIZE)
    lesions, lungs = masks(3)
    expected = np.where(lesions > 0, LESION, np.where(lungs > 0, 2, 3))
    labels, images = load(out, "labels_covid19_ct_seg.npy"), load(out, "images_covid19_ct_seg.npy")
    assert labels.dtype == np.uint8 and images.dtype == np.int16 and images.shape == (6, SIZE, SIZE)
    np.testing.assert_array_equal(labels[:3], expected)
    np.testing.assert_array_equal(images[:3], picture(3))
    np.testing.assert_array_equal(
        labels[3:], expected
    )  # front up, though the header of the Radiopaedia cases errs
    assert (
        np.abs(images[3:] - np.clip(picture(3), -1350, 150)).max() <= 4
    )  # grey to HU, half a step of 1500/255


def test_the_overlapping_cases_are_left_out_and_open_counts_are_missing(tmp_path):
    out = import_data("covid19-ct-seg", covid19_ct_seg(tmp_path / "in"), tmp_path / "out", SIZE)
    table = pd.read_csv(out / "slices.csv")
    assert list(table.columns)[:4] == ["source", "index", "volume", "split"]
    assert table.split.tolist() == 3 * ["train"] + 3 * ["left_out"] and table.volume.tolist() == [
        1,
        1,
        1,
        2,
        2,
        2,
    ]
    assert (
        table.ground_glass.isna().tolist() == table.consolidation.isna().tolist() == [True, True, False] * 2
    )
    assert table.ground_glass[2] == 0 and table.lung_other[2] == (masks(3)[1][2] > 0).sum()


def test_without_a_lung_mask_the_rest_is_not_a_lesion_and_no_more(tmp_path):
    out = import_data("mosmed", mosmed(tmp_path / "in"), tmp_path / "out", SIZE)
    labels = load(out, "labels_mosmed.npy")
    np.testing.assert_array_equal(labels, np.tile(np.where(masks(3)[0] > 0, LESION, NOT_LESION), (2, 1, 1)))
    np.testing.assert_array_equal(load(out, "images_mosmed.npy")[3:], picture(3))
    assert pd.read_csv(out / "slices.csv").lung_other.isna().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_beside_the_arrays_names_source_licence_masks_and_overlap(tmp_path, kind):
    out = import_data(kind, WRITERS[kind](tmp_path / "in"), tmp_path / "out", SIZE)
    text = (out / KINDS[kind].note).read_text()
    assert all(f"{word}: " in text for word in ("Source", "Licence", "Masks", "Overlap"))
    assert f"lungseg import {kind}" in text and str(tmp_path) not in text
    assert {path.name for path in out.iterdir()} == KINDS[kind].files - {"test_images_medseg.npy"}


def test_slices_are_padded_with_air_and_shrunk_not_stretched():
    wide = np.zeros((40, 64), np.uint8)
    wide[10:30, 16:48] = 7
    small = to_square(wide, 32, 3, 6)  # cv2.INTER_NEAREST_EXACT
    assert (small[:6] == 3).all() and (small[-6:] == 3).all() and (small[6:26, 0] == 0).all()
    assert (small == 7).sum() == 10 * 16 and (small[11:21, 8:24] == 7).all()


def break_(kind, edit):
    def broken(folder):
        source = WRITERS[kind](folder)
        edit(source)
        return kind, source

    return broken


BAD = {
    "has no rp_lung_msk; expected rp_im": break_(
        "radiopaedia", lambda s: (s / "rp_lung_msk").rename(s / "lungs")
    ),
    "has no tr_mask; expected tr_im.nii.gz": break_("medseg", lambda s: (s / "tr_mask.nii.gz").unlink()),
    "has no masks; expected studies/CT-1": break_(
        "mosmed", lambda s: [p.unlink() for p in (s / "masks").iterdir()]
    ),
    "10 is not in rp_msk": break_("radiopaedia", lambda s: (s / "rp_msk/10.nii.gz").unlink()),
    "study_0256 is not in studies/CT-1": break_(
        "mosmed", lambda s: (s / "studies/CT-1/study_0256.nii.gz").unlink()
    ),
    "has the shapes": break_("radiopaedia", lambda s: write(s / "rp_msk/2.nii.gz", masks(9)[0])),
    "values other than 0 to 1": break_(
        "mosmed", lambda s: write(s / "masks/study_0255_mask.nii.gz", masks(3)[0])
    ),
    "not finite": break_(
        "medseg", lambda s: write(s / "tr_im.nii.gz", picture(4) * np.nan, dtype=np.float32)
    ),
    "not readable as NIfTI": break_("medseg", lambda s: (s / "tr_im.nii.gz").write_text("a text")),
    "not readable to its end": break_("medseg", lambda s: cut(s / "tr_im.nii.gz")),
    "expected .columns, rows, slices.": break_("medseg", lambda s: write_4d(s / "tr_im.nii.gz")),
    "third axis does not run along the body": break_(
        "medseg", lambda s: write(s / "tr_im.nii.gz", picture(32), "LSP")
    ),
}


def cut(path):
    noise = np.random.default_rng(0).normal(size=(4, SIZE, SIZE))
    write(path, noise, dtype=np.float32)
    path.write_bytes(path.read_bytes()[:6000])


def write_4d(path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((SIZE, SIZE, 4, 2), np.int16), np.eye(4)), path)


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, message):
    kind, source = BAD[message](tmp_path / "in")
    if "third axis" in message:
        for name in ("tr_mask", "tr_lungmasks_updated"):
            write(source / f"{name}.nii.gz", picture(32) > 0, "LSP")
    with pytest.raises(InputError, match=message) as error:
        import_data(kind, source, tmp_path / "out", SIZE)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_header_that_claims_a_billion_pixels_is_refused_unread(tmp_path):
    source = medseg(tmp_path / "in")
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 4))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (source / "tr_im.nii.gz").unlink()
    (source / "tr_im.nii").write_bytes(header.binaryblock + bytes(2000))
    with pytest.raises(InputError, match="has the shape .30000, 30000, 4."):
        import_data("medseg", source, tmp_path / "out", SIZE)


def test_a_folder_that_no_import_wrote_is_left_alone(tmp_path):
    source, out = medseg(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "images_medseg.npy").write_bytes(b"the user's own")
    with pytest.raises(InputError, match="holds images_medseg.npy; expected a new name"):
        import_data("medseg", source, out, SIZE)
    assert (out / "images_medseg.npy").read_bytes() == b"the user's own"
    import_data("mosmed", mosmed(tmp_path / "mosmed"), tmp_path / "other", SIZE)
    with pytest.raises(InputError, match="holds images_mosmed.npy"):
        import_data("medseg", source, tmp_path / "other", SIZE)
    with pytest.raises(
        InputError, match="'medsex'; expected one of medseg, radiopaedia, covid19-ct-seg, mosmed"
    ):
        import_data("medsex", source, out, SIZE)


@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
def test_an_imported_set_trains_beside_the_prepared_slices_and_validates_nothing(
    tmp_path, prepared_dir, monkeypatch, links
):
    def refused(*_, **__):
        raise OSError("no links here, as on Windows")

    if not links:
        monkeypatch.setattr("os.symlink", refused)
        monkeypatch.setattr("os.link", refused)
    prepared = tmp_path / "prepared"
    shutil.copytree(prepared_dir, prepared)
    before = {split: len(SliceDataset(prepared, split, SIZE)) for split in ("train", "validation")}
    for kind in ("covid19-ct-seg", "mosmed"):
        add_to_prepared(
            import_data(kind, WRITERS[kind](tmp_path / kind), tmp_path / f"{kind}-out", SIZE), prepared
        )
    train = SliceDataset(prepared, "train", SIZE, "medical")
    assert len(train) == before["train"] + 3 + 6
    assert len(SliceDataset(prepared, "validation", SIZE)) == before["validation"]
    assert len(load_prepared(prepared).slices) == len(load_prepared(prepared_dir).slices) + 6 + 6
    image, labels, _ = train[before["train"] + 3]
    assert image.shape == (1, SIZE, SIZE) and set(labels.unique().tolist()) == {LESION, NOT_LESION}
    logits = torch.zeros(1, 4, SIZE, SIZE, requires_grad=True)
    loss = partial_cross_entropy(logits, labels[None].long())
    assert loss.item() == pytest.approx(np.log(2))  # two of four equal classes are allowed everywhere
    with pytest.raises(InputError, match="holds mosmed already"):
        add_to_prepared(tmp_path / "mosmed-out", prepared)
    with pytest.raises(InputError, match="no imported source"):
        add_to_prepared(tmp_path, prepared)
