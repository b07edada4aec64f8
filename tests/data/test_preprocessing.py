"""preprocessing.py.

Fitted numbers against numpy on the same values, and the prepared folder, on arrays made here.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folds import link_prepared
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lungseg_utils.core import npy
from lungseg_utils.core.files import LOCK, WINDOWS, InputError
from lungseg_utils.data import preprocessing as P
from lungseg_utils.data.arrays import CTData, load_data
from lungseg_utils.data.similarity import near_duplicates
from lungseg_utils.data.splits import make_slices

FITTED = P.Preprocessing(low=-1350.0, high=100.0, mean=-600.0, std=400.0, fit_on="radiopaedia")
HU = st.floats(-2000, 1000, allow_subnormal=False)


def make_data(folder=Path("data"), medseg=26, radiopaedia=6, test=2, size=8, seed=0) -> CTData:
    """Arrays in memory, all pictures unlike each other."""
    rng = np.random.default_rng(seed)
    counts = {"medseg": medseg, "radiopaedia": radiopaedia, "test": test}
    images = {source: rng.uniform(-1600, 600, (n, size, size)) for source, n in counts.items()}
    masks = {
        "medseg": np.eye(4, dtype=np.uint8)[rng.integers(0, 4, (medseg, size, size))],
        "radiopaedia": rng.integers(0, 4, (radiopaedia, size, size)),
    }
    return CTData(folder, images, masks, np.repeat([1, 2], [2, radiopaedia - 2]))


def fit_on_values(values, **options) -> P.Preprocessing:
    images = np.asarray(values, float).reshape(1, 1, -1)
    data = CTData(
        Path("data"), {"radiopaedia": images}, {"radiopaedia": np.zeros(images.shape, int)}, np.ones(1, int)
    )
    return P.fit_preprocessing(data, make_slices(data), **options)


def expected_fit(values, clip_min=-1500, clip_max=500):
    """The reference recipe, written down plainly."""
    clipped = np.clip(values, clip_min, clip_max)
    low, high = np.percentile(clipped, (5, 95))
    inside = clipped[(clipped > low) & (clipped < high)]
    return low, high, inside.mean(), inside.std()


# Fitting ----------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(hnp.arrays(np.float64, st.integers(1, 60), elements=HU), st.floats(0, 100))
def test_streamed_percentile_is_within_half_a_unit(hu, percent):
    counts = P.hu_histogram(hu.reshape(1, 1, -1), [0])
    streamed = P.weighted_percentile(np.arange(npy.INT16.min, npy.INT16.max + 1), counts, percent)
    assert abs(streamed - np.percentile(hu, percent)) <= 0.5 + 1e-9


@settings(max_examples=100)
@given(st.lists(st.integers(-300, 300), min_size=1, max_size=40), st.floats(0, 100))
def test_weighted_percentile_is_exact_on_integers(hu, percent):
    values, counts = np.unique(hu, return_counts=True)
    assert P.weighted_percentile(values, counts, percent) == pytest.approx(
        np.percentile(hu, percent), abs=1e-9
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_fit_equals_the_reference_recipe(dtype):
    rng = np.random.default_rng(3)
    values = np.concatenate(
        [rng.normal(-850, 60, 6000), rng.normal(40, 40, 4000), np.full(2000, -1700)]
    ).astype(dtype)
    fitted = fit_on_values(values)
    low, high, mean, std = expected_fit(values.astype(float))
    assert fitted.low == pytest.approx(low, abs=0.5) and fitted.high == pytest.approx(high, abs=0.5)
    assert fitted.mean == pytest.approx(mean, abs=0.5) and fitted.std == pytest.approx(std, abs=0.5)
    assert fitted.fit_on == "radiopaedia" and (fitted.clip_min, fitted.clip_max) == (-1500, 500)


def test_range_is_strict_where_a_grey_level_is_the_percentile():
    values = np.repeat([-1350.0, -900.0, -850.0, 0.0, 150.0], [30, 20, 20, 20, 10])  # as in 8-bit data
    fitted = fit_on_values(values)
    assert (fitted.low, fitted.high) == (-1350, 150)
    assert fitted.mean == pytest.approx((-900 - 850 + 0) / 3)  # neither of the two ends counts


def test_clip_limits_are_used_even_between_whole_units():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1400, 400, 4000)
    fitted = fit_on_values(values, clip_min=-1000.5, clip_max=200.25)
    low, high, mean, std = expected_fit(values, -1000.5, 200.25)
    assert (fitted.low, fitted.high) == (-1000.5, 200.25) == (low, high)
    assert fitted.mean == pytest.approx(mean, abs=0.5) and fitted.std == pytest.approx(std, abs=0.5)


def test_only_training_slices_of_the_source_count():
    data = make_data()
    slices = make_slices(data)
    expected = {
        "radiopaedia": data.images["radiopaedia"].ravel(),
        "medseg": data.images["medseg"][24:].ravel(),
        "all": np.concatenate([data.images["medseg"][24:].ravel(), data.images["radiopaedia"].ravel()]),
    }
    for fit_on, values in expected.items():
        assert P.fit_preprocessing(data, slices, fit_on).mean == pytest.approx(
            expected_fit(values)[2], abs=0.5
        ), fit_on
    left_out = slices.copy()
    left_out.loc[(left_out["source"] == "medseg") & (left_out["index"] == 24), "split"] = "left_out"
    _, _, mean, _ = expected_fit(data.images["medseg"][25].ravel())
    assert P.fit_preprocessing(data, left_out, "medseg").mean == pytest.approx(mean, abs=0.5)
    changed = make_data()
    changed.images["medseg"][:24], changed.images["test"][:] = 3000, 3000
    assert P.fit_preprocessing(changed, slices, "all") == P.fit_preprocessing(data, slices, "all")


def test_for_a_submission_all_train_but_two_that_show_how_it_goes():
    slices = make_slices(make_data(), "submission")
    medseg = slices[slices.source == "medseg"]
    assert medseg.split.eq("validation").tolist() == [True, True] + [False] * (len(medseg) - 2)
    assert set(slices[slices.source == "radiopaedia"].split) == {"train"}


def test_nothing_to_fit_on():
    data = make_data(medseg=20)  # all of them validation
    with pytest.raises(InputError, match="no training slice in medseg"):
        P.fit_preprocessing(data, make_slices(data), "medseg")
    with pytest.raises(InputError, match="fit_on is 'test'"):
        P.fit_preprocessing(data, make_slices(data), "test")
    with pytest.raises(InputError, match="hardly any value"):
        fit_on_values(np.full(100, -1000.0))
    for bad in (np.nan, np.inf, 40000.0):
        with pytest.raises(InputError, match="not finite or outside"):
            fit_on_values([0.0, 1.0, bad])


# The z-score and its file -----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    hnp.arrays(
        st.sampled_from([np.int16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
        elements=st.integers(-30000, 30000),
    )
)
def test_normalise_clips_then_scales_any_shape(hu):
    scaled = FITTED.normalise(hu)
    assert scaled.dtype == np.float32 and scaled.shape == hu.shape
    np.testing.assert_allclose(scaled, (np.clip(hu.astype(float), -1500, 500) + 600) / 400, atol=1e-5)


def test_normalise_leaves_its_input_alone():
    hu = np.array([-3000.0, 3000.0], np.float32)
    FITTED.normalise(hu)
    assert hu.tolist() == [-3000, 3000]


def test_json_round_trip(tmp_path):
    FITTED.save(tmp_path / "preprocessing.json")
    stored = json.loads((tmp_path / "preprocessing.json").read_text())
    assert stored["mean"] == -600 and stored["units"].startswith("HU")
    assert P.Preprocessing.load(tmp_path / "preprocessing.json") == FITTED
    assert P.Preprocessing.from_dict(FITTED.to_dict()) == FITTED


@pytest.mark.parametrize(
    "change",
    [
        {"std": 0.0},
        {"std": -1.0},
        {"mean": float("nan")},
        {"clip_min": 600.0},
        {"low": 200.0},
        {"mean": "x"},
        {"mean": None},
        {"units": "grey"},
        {"extra": 1.0},
    ],
)
def test_unusable_fields_are_refused(change, tmp_path):
    fields = {**FITTED.to_dict(), **change}
    with pytest.raises(InputError):
        P.Preprocessing.from_dict(fields)
    (tmp_path / "preprocessing.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="run 02_preprocessing first"):
        P.Preprocessing.load(tmp_path / "preprocessing.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"mean": 1}'])
def test_broken_json_is_refused(text, tmp_path):
    (tmp_path / "preprocessing.json").write_text(text)
    with pytest.raises(InputError, match="preprocessing.json"):
        P.Preprocessing.load(tmp_path / "preprocessing.json")


# The prepared folder ----------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(hnp.arrays(np.float64, 20, elements=st.floats(-32768.4, 32767.4, allow_subnormal=False)))
def test_rounding_is_at_most_half_a_unit(hu):
    rounded = npy.round_to_int16(hu)
    assert rounded.dtype == np.int16 and np.abs(rounded - hu).max() <= 0.5


@pytest.mark.parametrize("value", [32768.0, -32769.0, np.nan, np.inf, -np.inf])
def test_what_does_not_fit_is_refused(value):
    with pytest.raises(InputError, match="not finite or outside"):
        npy.round_to_int16(np.array([0.0, value]))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prepare_and_load(tmp_path):
    data = make_data()
    slices = make_slices(data)
    out = P.prepare(data, slices, FITTED, tmp_path / "run" / "prepared")
    assert {path.name for path in out.iterdir()} == {
        "images_medseg.npy",
        "images_radiopaedia.npy",
        "images_test.npy",
        "labels_medseg.npy",
        "labels_radiopaedia.npy",
        "slices.csv",
        "preprocessing.json",
    }
    assert {path.name for path in out.parent.iterdir()} == {"prepared", LOCK}
    prepared = P.load_prepared(out)
    for source, images in data.images.items():
        stored = prepared.images[source]
        assert (
            stored.dtype == np.int16 and stored.shape == images.shape and np.abs(stored - images).max() <= 0.5
        )
    for source in data.sources:
        assert prepared.labels[source].dtype == np.uint8
        assert (prepared.labels[source] == data.labels(source, slice(None))).all()
    assert prepared.preprocessing == FITTED and prepared.dir == out
    pd.testing.assert_frame_equal(prepared.slices, slices)


def test_prepare_takes_every_type_and_more_than_a_chunk(tmp_path):
    data = make_data(radiopaedia=40)
    data.images["medseg"] = data.images["medseg"].astype(np.int16)
    data.images["test"] = data.images["test"].astype(np.float32)
    prepared = P.load_prepared(P.prepare(data, make_slices(data), FITTED, tmp_path / "prepared"))
    assert (prepared.images["medseg"] == data.images["medseg"]).all()
    assert np.abs(prepared.images["radiopaedia"] - data.images["radiopaedia"]).max() <= 0.5


def test_prepare_replaces_an_older_folder(tmp_path):
    older = make_data(seed=1, medseg=28)
    P.prepare(older, make_slices(older), FITTED, tmp_path / "prepared")
    (tmp_path / "prepared" / "stray.txt").touch()
    data = make_data()
    P.prepare(data, make_slices(data), FITTED, tmp_path / "prepared")
    assert len(P.load_prepared(tmp_path / "prepared").images["medseg"]) == 26
    assert not (tmp_path / "prepared" / "stray.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"prepared", LOCK}


@pytest.mark.parametrize(
    "break_it",
    [
        lambda data: data.images["test"].__setitem__((1, 0, 0), 40000.0),
        lambda data: data.images["test"].__setitem__((1, 0, 0), np.nan),
        lambda data: data.masks["radiopaedia"].__setitem__((5, 0, 0), 7),
    ],
)
def test_a_failure_leaves_the_older_folder_as_it_was(tmp_path, break_it):
    data = make_data()
    slices = make_slices(data)
    before = contents(P.prepare(data, slices, FITTED, tmp_path / "prepared"))
    break_it(data)
    for name in ("prepared", "fresh"):
        with pytest.raises(InputError):
            P.prepare(data, slices, FITTED, tmp_path / name)
    assert contents(tmp_path / "prepared") == before
    assert {path.name for path in tmp_path.iterdir()} == {"prepared", LOCK}


def test_prepare_never_replaces_something_else(tmp_path):
    data = make_data()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for target in ("thesis", "thesis/chapter.txt"):
        with pytest.raises(InputError, match="holds other things"):
            P.prepare(data, make_slices(data), FITTED, tmp_path / target)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_slices_of_other_data_are_refused(tmp_path):
    data, other = make_data(), make_data(radiopaedia=7)
    with pytest.raises(InputError, match="radiopaedia rows"):
        P.prepare(data, make_slices(other), FITTED, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def shorten(path):
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "images_test.npy").unlink(),
        lambda out: (out / "labels_medseg.npy").write_bytes(b""),
        lambda out: (out / "slices.csv").unlink(),
        lambda out: (out / "slices.csv").write_text("source,index\nmedseg,0\n"),
        lambda out: (out / "preprocessing.json").unlink(),
        lambda out: shorten(out / "images_radiopaedia.npy"),
        lambda out: shorten(out / "labels_radiopaedia.npy"),
    ],
)
def test_incomplete_folders_name_the_step_to_run(tmp_path, damage):
    data = make_data()
    out = P.prepare(data, make_slices(data), FITTED, tmp_path / "prepared")
    damage(out)
    with pytest.raises(InputError, match="run 02_preprocessing first"):
        P.load_prepared(out)


def test_no_folder_names_the_step_to_run(tmp_path):
    with pytest.raises(InputError, match="run 02_preprocessing first"):
        P.load_prepared(tmp_path / "prepared")


# The real arrays --------------------------------------------------------------------------------------------


def test_real_medseg_fit_equals_numpy(real_data):
    data = load_data(real_data)
    slices = make_slices(data)
    training = slices.query("source == 'medseg' and split == 'train'")["index"].to_numpy(int)
    low, high, mean, std = expected_fit(data.images["medseg"][training])
    fitted = P.fit_preprocessing(data, slices, "medseg")
    assert [fitted.low, fitted.high] == pytest.approx([low, high], abs=0.5)
    assert [fitted.mean, fitted.std] == pytest.approx([mean, std], abs=1)  # what rounds to an end is outside
    assert [(i, j) for i, j, _ in near_duplicates(data.images["medseg"])] == [(48, 85)]


MEASURED = """
import re, sys
from lungseg_utils.data import load_data, make_slices
from lungseg_utils.data.preprocessing import fit_preprocessing, prepare
data = load_data(sys.argv[1])
slices = make_slices(data)
prepare(data, slices, fit_preprocessing(data, slices), sys.argv[2])
# ru_maxrss would include the parent's
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to see resident memory")
def test_real_arrays_are_prepared_in_bounded_memory(real_data, tmp_path):
    command = [sys.executable, "-c", MEASURED, str(real_data), str(tmp_path / "prepared")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert int(done.stdout) < 600 * 1024  # measured: 190 MiB, for 2.8 GB of arrays
    assert len(P.load_prepared(tmp_path / "prepared").slices) == 929


def test_linked_slices_have_another_split_and_the_same_arrays(prepared_dir, tmp_path):
    prepared = P.load_prepared(prepared_dir)
    other = prepared.slices.assign(split="train")
    for _ in range(2):  # a second time over the first
        linked = P.load_prepared(link_prepared(prepared, other, tmp_path / "links"))
    assert (linked.slices.split == "train").all() and linked.preprocessing == prepared.preprocessing
    np.testing.assert_array_equal(linked.images["medseg"], prepared.images["medseg"])
    assert WINDOWS or (tmp_path / "links" / "images_medseg.npy").is_symlink()
