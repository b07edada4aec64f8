"""data.py: finding, mapping, splitting and checking the arrays, on tiny arrays written here."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg_utils.core import npy
from lungseg_utils.core.files import InputError
from lungseg_utils.data import arrays as D
from lungseg_utils.data import find, phantom, similarity, splits
from lungseg_utils.data.checks import check_data

SIZE = 16
MEDSEG, TEST = 30, 2
VOLUMES = (4, 3, 5)
ALL_FILES = [name for pair in D.FILES.values() for name in pair if name]


def patterns(rng, count):
    """Unrelated pictures in HU, each with air and tissue."""
    coarse = rng.uniform(-1000, 200, (count, SIZE // 4, SIZE // 4))
    coarse[:, 0, 0], coarse[:, 1, 1] = -1200, 300
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def volume_stack(rng, sizes, drift=20.0):
    """(sum of sizes, SIZE, SIZE).

    Unlike pictures, one a volume, that change by at most `drift` HU between slices.
    """
    stacks = [
        picture + rng.uniform(-drift / 2, drift / 2, (n, SIZE, SIZE))
        for n, picture in zip(sizes, patterns(rng, len(sizes)))
    ]
    return np.concatenate(stacks)


def one_hot(labels):
    return np.eye(4, dtype=np.uint8)[labels]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder that keeps the contract."""
    folder = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(0)
    np.save(folder / "images_medseg.npy", patterns(rng, MEDSEG)[..., None])
    np.save(folder / "masks_medseg.npy", one_hot(rng.integers(0, 4, (MEDSEG, SIZE, SIZE))))
    np.save(folder / "images_radiopedia.npy", volume_stack(rng, VOLUMES)[..., None])
    np.save(folder / "masks_radiopedia.npy", one_hot(rng.integers(0, 4, (sum(VOLUMES), SIZE, SIZE))))
    np.save(folder / "test_images_medseg.npy", patterns(rng, TEST)[..., None])
    return folder


@pytest.fixture
def folder(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "arrays"))


def change(folder, name, edit):
    """Save edit(array) over the array; edit may also change it in place."""
    array = np.load(folder / name)
    result = edit(array)
    np.save(folder / name, array if result is None else result)


def put(index, value):
    def edit(array):
        array[index] = value

    return edit


def worst(report, text):
    """Level of the finding that speaks of `text`; fails if there is none."""
    levels = [f.level for f in report.findings if text in f"{f.item}: {f.found}"]
    assert levels, f"{text!r} not in\n{report}"
    return max(levels, key=["ok", "warning", "error"].index)


# Usable arrays ----------------------------------------------------------------------------------------------


def test_clean_arrays_have_no_warning(folder):
    report = check_data(folder)
    assert {f.level for f in report.findings} == {"ok"}
    assert report.usable and report.volumes == len(VOLUMES)


def test_report_as_text_and_table(folder):
    report = check_data(folder)
    lines = str(report).splitlines()
    assert lines[0].split() == ["level", "item", "found", "expected"]
    assert lines[-1] == "volumes: 3" and len(lines) == len(report.findings) + 2
    assert list(report.frame().columns) == ["level", "item", "found", "expected"]
    assert report.frame()["item"].tolist() == [f.item for f in report.findings]


def test_load_data_maps_and_squeezes(folder):
    data = D.load_data(folder)
    assert data.sources == ("medseg", "radiopaedia") and set(data.images) == {"medseg", "radiopaedia", "test"}
    assert data.images["medseg"].shape == (MEDSEG, SIZE, SIZE) and isinstance(
        data.images["medseg"], np.memmap
    )
    assert not data.images["medseg"].flags.writeable
    assert data.volumes.tolist() == np.repeat([1, 2, 3], VOLUMES).tolist()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize("last_axis", [True, False])
def test_image_types_and_shapes(folder, dtype, last_axis):
    for name in (name for name, _ in D.FILES.values()):
        change(folder, name, lambda a: (a if last_axis else a[..., 0]).astype(dtype))
    assert check_data(folder).usable
    data = D.load_data(folder)
    assert data.images["test"].shape == (TEST, SIZE, SIZE) and data.images["test"].dtype == dtype


@pytest.mark.parametrize(
    "form",
    [
        lambda a: a.argmax(-1),
        lambda a: a.argmax(-1)[..., None].astype(np.uint8),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(bool),
    ],
)
def test_mask_forms_give_the_same_labels(folder, form):
    expected = np.load(folder / "masks_medseg.npy").argmax(-1)
    change(folder, "masks_medseg.npy", form)
    assert check_data(folder).usable
    data = D.load_data(folder)
    labels = data.labels("medseg", slice(2, 5))
    assert labels.dtype == np.uint8 and (labels == expected[2:5]).all()
    assert (
        data.labels("medseg", -1).shape == (SIZE, SIZE) and (data.labels("medseg", -1) == expected[-1]).all()
    )


def test_sources_may_differ_in_size(folder):
    for name in D.FILES["medseg"]:
        change(folder, name, lambda a: a.repeat(2, axis=1).repeat(2, axis=2))
    assert check_data(folder).usable
    assert D.load_data(folder).images["medseg"].shape == (MEDSEG, 2 * SIZE, 2 * SIZE)


# Broken arrays ----------------------------------------------------------------------------------------------


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def as_npz(path):
    with path.open("wb") as handle:
        np.savez(handle, np.zeros(3))


BROKEN_FILES = {
    "missing": Path.unlink,
    "truncated": truncate,
    "pickled": lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "bare pickle": lambda path: path.write_bytes(
        pickle.dumps(np.load(path))
    ),  # an array, but unpickling runs code
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>log in first</html>"),
    "npz": as_npz,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "huge header": lambda path: path.write_bytes(path.read_bytes().replace(b"16, 16", b"99999999999, 16", 1)),
}


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("damage", BROKEN_FILES)
def test_unreadable_file_is_one_finding_and_the_rest_is_still_checked(folder, name, damage):
    BROKEN_FILES[damage](folder / name)
    report = check_data(folder)
    assert [f.item for f in report.findings if f.level == "error"] == [name]
    others = {f.item for f in report.findings if f.level == "ok"} - {"volumes"}
    assert others == set(ALL_FILES) - {name}
    assert report.volumes == (0 if name == "images_radiopedia.npy" else 3)
    with pytest.raises(InputError, match=name):
        D.load_data(folder)


STRUCTURE = {  # file, edit: breaks check_data and load_data alike
    "a single image": ("images_medseg.npy", lambda a: a[0, ..., 0]),
    "colour": ("images_medseg.npy", lambda a: a.repeat(3, axis=3)),
    "8-bit": ("images_radiopedia.npy", lambda a: np.clip(a, 0, 255).astype(np.uint8)),
    "complex": ("test_images_medseg.npy", lambda a: a.astype(complex)),
    "no slices": ("test_images_medseg.npy", lambda a: a[:0]),
    "three channels": ("masks_medseg.npy", lambda a: a[..., :3]),
    "words": ("masks_medseg.npy", lambda a: a.astype(str)),
    "fewer masks": ("masks_medseg.npy", lambda a: a[:-1]),
    "more images": ("images_radiopedia.npy", lambda a: np.concatenate([a, a[:1]])),
    "smaller masks": ("masks_radiopedia.npy", lambda a: a[:, ::2, ::2]),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_unusable_shapes_and_types(folder, case):
    name, edit = STRUCTURE[case]
    change(folder, name, edit)
    report = check_data(folder)
    assert not report.usable
    broken = {f.item for f in report.findings if f.level == "error"}
    assert broken & {name, name.replace("images", "masks")}
    with pytest.raises(InputError, match="expected"):
        D.load_data(folder)


def grey(a):
    return np.clip((a + 1000) / 1200 * 255, 0, 255)


VALUES = {  # file, edit, level, what the table says
    "nan": ("images_medseg.npy", put((3, 0, 0), np.nan), "error", "images_medseg.npy: 1 pixels not finite"),
    "inf": ("images_radiopedia.npy", put((0, 0, slice(0, 5)), np.inf), "error", "5 pixels not finite"),
    "all nan": ("test_images_medseg.npy", put(..., np.nan), "error", "512 pixels not finite"),
    "0..255": ("images_medseg.npy", grey, "error", "0 to 255, not HU"),
    "0..1": ("images_radiopedia.npy", lambda a: grey(a) / 255, "error", "0 to 1, not HU"),
    "z-score": ("test_images_medseg.npy", lambda a: (a - a.mean()) / a.std(), "error", "not HU"),
    "shifted": ("images_medseg.npy", lambda a: a + 1200, "error", "0 to 1500, not HU"),
    "too bright": ("images_medseg.npy", put((0, 0, 0), 30000), "error", "-1200 to 30000, not HU"),
    "too dark": ("images_medseg.npy", put((0, 0, 0), -5000), "error", "-5000 to 300, not HU"),
    "one grey": (
        "images_medseg.npy",
        lambda a: put(5, grey(a[5]))(a),
        "warning",
        "range unlike HU in 1 slice (5)",
    ),
    "blank": ("images_medseg.npy", put([1, 2], -1000), "warning", "blank: 2 slices (1, 2)"),
    "twins": ("images_medseg.npy", lambda a: put(9, a[4])(a), "warning", "1 slice (9 = images_medseg.npy 4)"),
    "mask 255": ("masks_medseg.npy", lambda a: a * 255, "error", "values other than 0 or 1"),
    "mask 2": ("masks_medseg.npy", put((0, 0, 0), 2), "error", "4 values other than 0 or 1"),
    "mask nan": (
        "masks_medseg.npy",
        lambda a: np.where(a == 1, np.nan, 0.0),
        "error",
        "values other than 0 or 1",
    ),
    "mask half": (
        "masks_medseg.npy",
        lambda a: a / 2,
        "error",
        f"{MEDSEG * SIZE**2} values other than 0 or 1",
    ),
    "some overlap": (
        "masks_medseg.npy",
        put((0, 0, slice(0, 3)), 1),
        "warning",
        "(0 without class, 3 with several)",
    ),
    "some without": (
        "masks_medseg.npy",
        put((0, 0, slice(0, 3)), 0),
        "warning",
        "(3 without class, 0 with several)",
    ),
    "all without": ("masks_radiopedia.npy", put(..., 0), "error", "channel sum not 1: 3072 of 3072 pixels"),
    "index 4": ("masks_medseg.npy", lambda a: a.argmax(-1) + 1, "error", "values other than 0, 1, 2 or 3"),
    "index -1": ("masks_medseg.npy", lambda a: a.argmax(-1) - 1, "error", "values other than 0, 1, 2 or 3"),
    "no lesion": (
        "masks_medseg.npy",
        lambda a: np.where(a.argmax(-1) == 1, 2, a.argmax(-1)),
        "warning",
        "consolidation in 0 of 30 slices",
    ),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_that_break_the_contract(folder, case):
    name, edit, level, text = VALUES[case]
    change(folder, name, edit)
    report = check_data(folder)
    assert worst(report, text) == level
    assert report.usable == (level != "error")
    D.load_data(folder)  # values are not looked at here, except to infer the volumes


def test_all_problems_are_reported_together(folder):
    for case in ("nan", "mask 255"):
        change(folder, *VALUES[case][:2])
    change(folder, "images_medseg.npy", VALUES["blank"][1])
    truncate(folder / "test_images_medseg.npy")
    (folder / "masks_radiopedia.npy").unlink()
    report = check_data(folder)
    for text, level in (
        ("1 pixels not finite", "error"),
        ("blank: 2", "warning"),
        ("values other than 0", "error"),
        ("test_images_medseg.npy: not readable", "error"),
        ("no such file", "error"),
    ):
        assert worst(report, text) == level


def test_a_test_slice_that_is_also_in_medseg_is_a_duplicate(folder):
    image = np.load(folder / "images_medseg.npy")[7]
    change(folder, "test_images_medseg.npy", put(1, image))
    assert worst(check_data(folder), "1 = images_medseg.npy 7") == "warning"


def test_no_folder_at_all(tmp_path):
    report = check_data(tmp_path / "nowhere")
    assert [f.level for f in report.findings] == ["error"] * 5
    assert str(report).splitlines()[-1] == "volumes: 0"
    with pytest.raises(InputError, match="kaggle competitions download -c covid-segmentation"):
        D.load_data(tmp_path / "nowhere")


# Labels, memory ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=20))
def test_overlaps_follow_the_rule(pixels):
    expected = [1 if p[1] else 0 if p[0] else 2 if p[2] else 3 for p in pixels]
    assert D.to_labels(np.array(pixels), one_hot=True).tolist() == expected


@pytest.mark.parametrize("value", [4, 255, 256, -1, 0.5, np.nan])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_strange_class_indices_are_refused(value):
    with pytest.raises(InputError, match="class indices"):
        D.to_labels(np.array([0, value]), one_hot=False)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to see resident memory")
def test_walking_over_a_map_keeps_memory_bounded(tmp_path):
    def resident():
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    np.save(tmp_path / "big.npy", np.ones((64, 512, 512, 1), np.float32))  # 64 MiB
    array = np.load(tmp_path / "big.npy", mmap_mode="r")[..., 0]
    before, total = resident(), 0.0
    for first, chunk in npy.chunks(array, size=8):
        assert chunk.shape == (8, 512, 512) and first % 8 == 0
        total += float(chunk.sum())
    assert total == array.size
    assert resident() - before < 64 * 2**20  # `array.size` alone would not have shown the walk
    npy.release(array)
    assert resident() - before < 16 * 2**20 and array[0, 0, 0] == 1


def test_chunks_leave_writeable_arrays_alone():
    array = np.arange(10.0)
    assert np.concatenate([chunk for _, chunk in npy.chunks(array, size=4)]).tolist() == array.tolist()
    npy.release(array)
    assert array[3] == 3


# Volumes, duplicates ----------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.integers(2, 8), min_size=1, max_size=6), st.integers(0, 1000))
def test_volumes_are_found_whatever_their_sizes(sizes, seed):
    images = volume_stack(np.random.default_rng(seed), sizes)
    assert similarity.infer_volumes(images).tolist() == np.repeat(np.arange(len(sizes)) + 1, sizes).tolist()


def test_a_blank_slice_does_not_split_a_volume():
    images = volume_stack(np.random.default_rng(0), [9])
    images[4] = -1000
    assert set(similarity.infer_volumes(images)) == {1}


@pytest.mark.slow
def test_volumes_of_20_phantoms(tmp_path):
    for seed in range(20):
        made = phantom.write_phantom(
            tmp_path / str(seed), medseg=1, volumes=2, slices_per_volume=3, test=1, size=48, seed=seed
        )
        assert D.load_data(made).volumes.tolist() == [1, 1, 1, 2, 2, 2], f"seed {seed}"


@pytest.mark.parametrize("seed", [1, 2])  # test_phantom.py looks at seed 0
def test_volumes_of_phantoms_of_the_default_layout(seed, tmp_path):
    made = phantom.write_phantom(tmp_path / "set", medseg=1, test=1, size=64, seed=seed)
    assert D.load_data(made).volumes.tolist() == np.repeat(np.arange(1, 10), 13).tolist()


def test_volumes_csv_overrides(folder):
    (folder / "volumes.csv").write_text("volume,first_slice\n7,0\n2,10\n")
    assert D.load_data(folder).volumes.tolist() == [7] * 10 + [2] * 2
    assert check_data(folder).volumes == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "volume\n1\n",
        "volume,first_slice\n",
        "volume,first_slice\n1,x\n",
        "volume,first_slice\n1,1\n",
        "volume,first_slice\n1,0\n1,5\n",
        "volume,first_slice\n1,0\n2,12\n",
        "volume,first_slice\n1,0\n2,6\n3,6\n",
        "volume,first_slice\n0,0\n",
        "volume,first_slice\n1,0\n2,3.5\n",
    ],
)
def test_broken_volumes_csv(folder, text):
    (folder / "volumes.csv").write_text(text)
    with pytest.raises(InputError, match="volumes.csv"):
        D.load_data(folder)
    assert worst(check_data(folder), "volumes.csv") == "error"


@pytest.mark.filterwarnings("error")
def test_near_duplicates_finds_the_noisy_copy_only():
    rng = np.random.default_rng(1)
    images = patterns(rng, 12)
    images[8] = 0.9 * images[2] + rng.normal(0, 20, images[2].shape)  # another window, more noise
    images[[4, 5]] = -1000.0  # two blanks are no pair
    pairs = similarity.near_duplicates(images)
    assert [(i, j) for i, j, _ in pairs] == [(2, 8)]
    assert pairs[0][2] == pytest.approx(np.corrcoef(images[2].ravel(), images[8].ravel())[0, 1], abs=0.01)
    assert similarity.near_duplicates(images, threshold=0.9999) == []


# Splits -----------------------------------------------------------------------------------------------------


def test_reference_split(folder):
    table = splits.make_slices(D.load_data(folder))
    assert list(table.columns) == [
        "source",
        "index",
        "volume",
        "split",
        "ground_glass",
        "consolidation",
        "lung_other",
        "background",
    ]
    medseg, radiopaedia, test = (table[table["source"] == source] for source in D.FILES)
    assert medseg["split"].tolist() == ["validation"] * 24 + ["train"] * 6 and medseg["volume"].isna().all()
    assert set(radiopaedia["split"]) == {"train"}
    assert radiopaedia["volume"].tolist() == np.repeat([1, 2, 3], VOLUMES).tolist()
    assert set(test["split"]) == {"test"} and test[["ground_glass", "background"]].isna().all(axis=None)
    assert medseg["index"].tolist() == list(range(MEDSEG))


def test_class_pixels_are_counted(folder):
    table = splits.make_slices(D.load_data(folder))
    masks = np.load(folder / "masks_radiopedia.npy")
    rows = table[table["source"] == "radiopaedia"]
    columns = ["ground_glass", "consolidation", "lung_other", "background"]
    assert rows[columns].to_numpy(int).tolist() == masks.sum(axis=(1, 2), dtype=int).tolist()


def test_near_identical_training_slice_is_left_out(folder):
    def copy(images):
        images[26] = images[3] * 0.95  # across the split: out
        images[28] = images[29] * 0.95  # both training: stay

    change(folder, "images_medseg.npy", copy)
    medseg = splits.make_slices(D.load_data(folder)).query("source == 'medseg'")
    assert medseg.loc[medseg["split"] == "left_out", "index"].tolist() == [26]
    assert (medseg["split"] == "validation").sum() == 24
    by_volume = splits.make_slices(D.load_data(folder), "by_volume").query("source == 'medseg'")
    assert set(by_volume["split"]) == {"train"}  # all on one side there


def test_by_volume_split(folder):
    table = splits.make_slices(D.load_data(folder), "by_volume", 2)
    validation = table[table["split"] == "validation"]
    assert validation["index"].tolist() == [4, 5, 6] and set(validation["volume"]) == {2}
    assert (table["split"] == "train").sum() == MEDSEG + sum(VOLUMES) - 3


def test_a_volume_of_the_same_scan_is_left_out(folder):
    images = np.load(folder / "images_radiopedia.npy")
    images[8] = images[5] + 3  # a slice of volume 3 shows what one of volume 2 shows
    np.save(folder / "images_radiopedia.npy", images)
    (folder / "volumes.csv").write_text("volume,first_slice\n1,0\n2,4\n3,7\n")
    data = D.load_data(folder)
    table = splits.make_slices(data, "by_volume", 2)
    assert table[table["split"] == "left_out"]["index"].tolist() == [7, 8, 9, 10, 11]  # all of volume 3
    assert set(splits.make_slices(data, "by_volume", 1)["split"]) == {"train", "validation", "test"}


def test_unknown_split_or_volume(folder):
    data = D.load_data(folder)
    with pytest.raises(InputError, match="one of reference, by_volume, submission"):
        splits.make_slices(data, "random")
    with pytest.raises(InputError, match="1, 2, 3"):
        splits.make_slices(data, "by_volume", 9)


# Finding ----------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_home(monkeypatch, tmp_path):
    """Nothing to be found: an empty home, no variable, no /kaggle/input."""
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LUNGSEG_DATA_DIR", raising=False)
    monkeypatch.setattr(find, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    return tmp_path


def place(folder):
    folder.mkdir(parents=True)
    (folder / "images_medseg.npy").touch()
    return folder


def test_auto_takes_variable_then_kaggle_then_data(empty_home, monkeypatch):
    with pytest.raises(InputError) as error:
        find.find_data("auto")
    for hint in (
        "kaggle competitions download -c covid-segmentation",
        "lungseg phantom data/practice",
        'kagglehub.competition_download("covid-segmentation")',
    ):
        assert hint in str(error.value)
    data = place(empty_home / "home" / "data")
    assert find.find_data("auto") == data
    kaggle = place(empty_home / "kaggle" / "input" / "competitions" / "covid-segmentation")
    assert find.find_data("auto") == kaggle
    variable = place(empty_home / "mine")
    monkeypatch.setenv("LUNGSEG_DATA_DIR", str(variable))
    assert find.find_data("auto") == variable


@pytest.mark.parametrize(
    "mount", ["covid-segmentation", "competitions/covid-segmentation", "datasets/someone/x/a/b"]
)
def test_every_kaggle_mount_is_found(empty_home, mount):
    folder = place(empty_home / "kaggle" / "input" / mount)
    (empty_home / "kaggle" / "input" / "other").mkdir()
    assert find.find_data("auto") == folder


def test_the_shallowest_of_several_kaggle_folders_is_taken(empty_home):
    place(empty_home / "kaggle" / "input" / "a" / "deep" / "copy")
    folder = place(empty_home / "kaggle" / "input" / "covid-segmentation")
    assert find.find_data("auto") == folder


def test_auto_never_takes_the_phantom_below_data(empty_home):
    place(empty_home / "home" / "data" / "phantom")
    with pytest.raises(InputError):
        find.find_data("auto")


def test_a_variable_that_points_nowhere_is_an_error_not_ignored(empty_home, monkeypatch):
    place(empty_home / "home" / "data")
    monkeypatch.setenv("LUNGSEG_DATA_DIR", str(empty_home / "typo"))
    with pytest.raises(InputError, match="LUNGSEG_DATA_DIR"):
        find.find_data("auto")


@pytest.fixture
def made(empty_home, monkeypatch):
    """The folders that find_data has phantoms written to: real but tiny sets, which count as the default."""
    tiny = dict(medseg=1, volumes=1, slices_per_volume=1, test=1, size=32, seed=0)
    write, calls = phantom.write_phantom, []
    monkeypatch.setattr(phantom, "write_phantom", lambda out: calls.append(out) or write(out, **tiny))
    monkeypatch.setattr(phantom, "DEFAULT_STAMP", {"generator": phantom.GENERATOR, **tiny})
    return calls


def test_phantom_is_made_once_and_no_variable_changes_it(empty_home, made, monkeypatch, capsys):
    monkeypatch.setenv("LUNGSEG_DATA_DIR", str(place(empty_home / "mine")))
    expected = empty_home / "home" / "data" / "phantom"
    assert find.find_data() == find.find_data("phantom") == expected
    assert made == [expected] and D.load_data(expected).images["medseg"].shape == (1, 32, 32)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("age", "why"),
    [
        (lambda path: (path / "masks_medseg.npy").unlink(), "masks_medseg.npy is missing"),
        (lambda path: (path / "phantom.json").write_text("{"), "not the default set"),
        (lambda path: (path / "phantom.json").write_text('{"generator": 0}'), "not the default set"),
        (
            lambda path: (path / "phantom.json").write_text(json.dumps(phantom.DEFAULT_STAMP | {"seed": 5})),
            "not the def",
        ),
    ],
)
def test_another_phantom_in_its_place_is_made_anew_with_a_word_why(made, capsys, age, why):
    folder = find.find_data()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    age(folder)
    assert find.find_data() == folder and made == [folder, folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    said = capsys.readouterr().out
    assert said.startswith(f"{folder} is made anew: ") and why in said and said.count("\n") == 1


def test_other_files_beside_an_old_phantom_are_never_lost(made):
    folder = find.find_data()
    (folder / "notes.txt").write_text("mine")
    assert find.find_data() == folder and len(made) == 1  # of no concern while the set is current
    (folder / "phantom.json").unlink()
    with pytest.raises(InputError, match="notes.txt"):
        find.find_data()
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "images_medseg.npy").exists()


def test_a_named_folder(empty_home):
    folder = place(empty_home / "home" / "somewhere")
    assert find.find_data("somewhere") == find.find_data(folder) == folder
    with pytest.raises(InputError, match="not a folder"):
        find.find_data("elsewhere")


# The real arrays --------------------------------------------------------------------------------------------


def test_real_volumes_equal_index_csv(real_data):
    index = pd.read_csv(Path(real_data) / "index.csv")
    expected = index.loc[index["source"] == "radiopaedia", "volume"].astype(int).tolist()
    volumes = D.load_data(real_data).volumes
    assert volumes.tolist() == expected
    assert np.unique(volumes, return_counts=True)[1].tolist() == [45, 39, 418, 39, 66, 42, 42, 45, 93]


def test_real_arrays_keep_the_contract(real_data):
    report = check_data(real_data)
    assert report.usable and str(report).endswith("volumes: 9")
