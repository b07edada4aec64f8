"""The submission file: exactly the competition's form, read back as written.

One clear sentence for anything else.
"""

import gzip
import json
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import CPU
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from sklearn.metrics import f1_score

from lungseg_utils.cli import main
from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.submission import (
    channel_counts,
    load_truth,
    read_labels,
    read_submission,
    score_submission,
    submit,
    write_labels,
    write_submission,
)
from lungseg_utils.inference import segmenter as inference
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings

SHAPE = (2, 3, 4)
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
label_maps = npst.arrays(np.uint8, shapes, elements=st.integers(0, 3))


def channels(labels):
    return np.stack([labels == GROUND_GLASS, labels == CONSOLIDATION], -1)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def sub(tmp_path):
    write_submission(tmp_path / "sub.csv", LABELS)
    return tmp_path / "sub.csv"


@pytest.fixture
def run_dir(tmp_path, prepared_dir, trained_dir, monkeypatch):
    """A run directory whose prepared slices and model are the tests'."""
    (tmp_path / "run").mkdir()
    shutil.copytree(prepared_dir, tmp_path / "run" / "prepared")
    shutil.copytree(trained_dir / "model", tmp_path / "run" / "model")
    monkeypatch.setattr(inference, "choose_device", lambda: CPU)
    return tmp_path / "run"


def test_submission_has_the_competitions_order(tmp_path):
    labels = np.full((2, 3, 4), LUNG_OTHER, np.uint8)
    labels[1, 2, 3], labels[0, 0, 1] = CONSOLIDATION, GROUND_GLASS
    write_submission(tmp_path / "sub.csv", labels)
    table = pd.read_csv(tmp_path / "sub.csv")
    assert list(table.columns) == ["Id", "Predicted"] and table.Id.tolist() == list(range(2 * 3 * 4 * 2))
    back = table.Predicted.to_numpy().reshape(2, 3, 4, 2)
    np.testing.assert_array_equal(back[..., 0], labels == GROUND_GLASS)
    np.testing.assert_array_equal(back[..., 1], labels == CONSOLIDATION)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (1, 3, 17), (1, 25, 21)])  # 2, 10, 102, 1050 rows
def test_the_file_is_what_pandas_would_write(tmp_path, shape):
    labels = np.random.default_rng(1).integers(0, 4, shape)
    write_submission(tmp_path / "sub.csv", labels)
    table = pd.DataFrame({"Predicted": channels(labels).astype(int).ravel()})
    assert (tmp_path / "sub.csv").read_text() == table.to_csv(index_label="Id", lineterminator="\n")


@given(label_maps)
def test_what_is_written_is_read_back(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("round") / "sub.csv"
    write_submission(path, labels)
    back = read_submission(path, labels.shape)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, channels(labels))


@given(label_maps)
def test_the_truths_own_submission_scores_one(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("truth")
    write_submission(folder / "sub.csv", labels)
    np.save(folder / "masks.npy", np.eye(4, dtype=np.float32)[labels])
    scores = score_submission(folder / "sub.csv", folder / "masks.npy")
    for value in (scores["pooled"], scores["per_image"], *scores["classes"].values()):
        assert value == 1 or np.isnan(value)
    assert np.isnan(scores["pooled"]) == (not channels(labels).any())


def test_labels_outside_the_classes_are_not_written(tmp_path):
    with pytest.raises(InputError, match="other than 0, 1, 2 and 3"):
        write_submission(tmp_path / "sub.csv", np.full(SHAPE, 4))
    assert not (tmp_path / "sub.csv").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text[:-1],
        lambda text: text + b"\n",
        gzip.compress,
    ],
    ids=["windows", "no last line end", "an empty line at the end", "gzip"],
)
def test_harmless_differences_are_read(sub, change):
    sub.write_bytes(change(sub.read_bytes()))
    np.testing.assert_array_equal(read_submission(sub, SHAPE), channels(LABELS))


def test_a_pixel_may_have_both_classes(sub):
    sub.write_text("Id,Predicted\n" + "".join(f"{i},1\n" for i in range(48)))
    assert read_submission(sub, SHAPE).all()


def with_line(number, line):
    def change(text):
        lines = text.split(b"\n")
        lines[number - 1] = line
        return b"\n".join(lines)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: b"", "is empty; expected a submission"),
        (lambda text: b"\x93NUMPY\x01\x00" + 500 * b"\x00", "begins with .*NUMPY.*; expected a submission"),
        (lambda text: text.replace(b"Id", b"id"), "begins with 'id,Predicted'; .* first line 'Id,Predicted'"),
        (lambda text: text.removeprefix(b"Id,Predicted\n"), "begins with '0,[01]'"),
        (lambda text: b"Id,Predicted\n", "has 0 rows; expected 48 = 2 x 3 x 4 x 2: it is cut off"),
        (lambda text: text[:100], "has [0-9]+ rows; expected 48 .* cut off"),
        (lambda text: text + b"48,0\n", "has 49 rows; expected 48 .* other slices"),
        (lambda text: text[:-2], "line 49: found '47,'; expected '47,0' or '47,1'"),
        (with_line(9, b"7,2"), "line 9: found '7,2'; expected '7,0' or '7,1'"),
        (with_line(9, b"7,1.0"), "line 9: found '7,1.0'"),
        (with_line(9, b"8,0"), "line 9: found '8,0'; expected '7,0' or '7,1', ids in order"),
        (with_line(49, b"46,0"), "line 49: found '46,0'"),
        (with_line(13, b""), "line 13: found ''; expected '11,0'"),
        (with_line(13, b"no, not this"), "line 13: found 'no, not this'"),
        (lambda text: gzip.compress(text)[:-20], "cannot be read: .*; expected a sub.csv"),
        (lambda text: gzip.compress(text)[:12] + b"x" * 50, "cannot be read"),
    ],
)
def test_broken_files_get_one_sentence(sub, change, words):
    sub.write_bytes(change(sub.read_bytes()))
    with pytest.raises(InputError, match=words) as caught:
        read_submission(sub, SHAPE)
    assert "\n" not in str(caught.value) and str(sub) in str(caught.value)
    result = invoke("score", sub, sub.parent / "absent.npy")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "sub.csv", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_submission(path, SHAPE)


@given(npst.arrays(bool, (2, 4, 5, 6, 2)))
def test_counts_hold_each_class_by_itself_also_where_they_overlap(masks):
    truth, predicted = masks
    counts = channel_counts(truth, predicted)
    for image in range(len(truth)):
        for c in (GROUND_GLASS, CONSOLIDATION):
            true, said = truth[image, ..., c].ravel(), predicted[image, ..., c].ravel()
            hits = counts[image, c, c]
            assert (hits, counts[image, c].sum()) == ((true & said).sum(), true.sum())
            assert counts[image, :, c].sum() == said.sum()


def test_both_readings_against_scikit_learn(tmp_path):
    """A file with overlapping classes: no label map could hold it."""
    random = np.random.default_rng(3)
    predicted, truth = random.random((2, 3, 8, 8, 2)) < 0.4
    rows = "".join(f"{i},{int(value)}\n" for i, value in enumerate(predicted.ravel()))
    (tmp_path / "sub.csv").write_text("Id,Predicted\n" + rows)
    one_hot = np.concatenate([truth, np.zeros((3, 8, 8, 2), bool)], -1)
    one_hot[..., 3] = ~one_hot.any(-1)
    np.save(tmp_path / "masks.npy", one_hot)
    scores = score_submission(tmp_path / "sub.csv", tmp_path / "masks.npy")
    pooled = [f1_score(truth[..., c].ravel(), predicted[..., c].ravel()) for c in range(2)]
    single = [
        [f1_score(truth[i, ..., c].ravel(), predicted[i, ..., c].ravel()) for i in range(3)] for c in range(2)
    ]
    assert list(scores["classes"].values()) == pytest.approx(pooled)
    assert (scores["pooled"], scores["per_image"]) == pytest.approx((np.mean(pooled), np.mean(single)))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_truth_of_any_numeric_type(tmp_path, dtype):
    truth = {"one_hot": np.eye(4)[LABELS]} | (
        {"index": LABELS, "last": LABELS[..., None]} if dtype is not bool else {}
    )
    for name, masks in truth.items():
        np.save(tmp_path / f"{name}.npy", masks.astype(dtype))
        np.testing.assert_array_equal(load_truth(tmp_path / f"{name}.npy"), channels(LABELS))


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (np.zeros((3, 4)), "holds \\(3, 4\\) float64; expected masks"),
        (np.zeros((2, 3, 4, 2)), "expected masks"),
        (np.zeros((0, 3, 4)), "expected masks"),
        (np.full(SHAPE, "0"), "expected masks"),
        (np.full(SHAPE, 4), "values other than 0, 1, 2, 3"),
        (np.full(SHAPE, np.nan), "values other than 0, 1, 2, 3"),
        (np.full((*SHAPE, 4), 0.25), "values other than 0, 1; expected"),
        (np.array([{}]), "not readable as .npy"),
        (np.zeros((2, 4, 3)), None),
    ],
)
def test_a_truth_that_is_none(sub, masks, words):
    np.save(sub.parent / "masks.npy", masks)
    if words:
        with pytest.raises(InputError, match=words):
            load_truth(sub.parent / "masks.npy")
    result = invoke("score", sub, sub.parent / "masks.npy")
    # Other sides, but as many pixels: the file cannot tell.
    assert result.exit_code == (2 if words else 0) and result.stderr.count("\n") == (1 if words else 0)


def test_score_prints_both_readings(sub, tmp_path):
    truth = LABELS.copy()
    truth[truth == CONSOLIDATION] = LUNG_OTHER
    np.save(tmp_path / "masks.npy", truth)
    result = invoke("score", sub, tmp_path / "masks.npy")
    assert result.exit_code == 0, result.output
    values = [line.split()[-1] for line in result.stdout.splitlines()]
    assert values == ["0.5000", "0.5000", "1.0000", "0.0000"]  # consolidation is only in the file: 0
    write_submission(sub, truth)
    values = [line.split()[-1] for line in invoke("score", sub, tmp_path / "masks.npy").stdout.splitlines()]
    assert values == ["1.0000", "1.0000", "1.0000", "none"]


def test_submit_writes_and_checks(run_dir):
    result = invoke("submit", run_dir)
    assert result.exit_code == 0, result.output
    path = run_dir / "results" / "sub.csv"
    assert result.stdout == f"submission: {path}, {2 * 64 * 64 * 2:,} rows\n"
    hu = load_prepared(run_dir / "prepared").images["test"]
    labels = Segmenter.load(run_dir / "model", CPU).labels(hu)
    np.testing.assert_array_equal(read_submission(path, hu.shape), channels(labels))

    result = invoke("submit", run_dir, "--check", path)
    assert result.exit_code == 0, result.output
    assert "16,384 rows in order" in result.stdout and "0 pixels have both" in result.stdout
    assert result.stdout.splitlines()[-1] == f"figure: {path.with_suffix('.png')}"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    result = invoke("submit", "--check", path)  # without a run: the competition's ten slices of 512 px
    assert result.exit_code == 2 and "expected 5,242,880 = 10 x 512 x 512 x 2" in result.stderr


def test_submit_takes_the_steps_that_were_scored(run_dir):
    metrics_json = run_dir / "results" / "metrics.json"
    metrics_json.parent.mkdir()
    metrics_json.write_text(json.dumps({"inference": asdict(InferenceSettings(thresholds=(1e-6, 1, 1, 1)))}))
    assert invoke("submit", run_dir).exit_code == 0
    shape = load_prepared(run_dir / "prepared").images["test"].shape
    assert read_submission(run_dir / "results" / "sub.csv", shape)[..., 0].mean() > 0.99
    metrics_json.write_text(json.dumps({"inference": {"sharpen": True}}))
    result = invoke("submit", run_dir)
    assert result.exit_code == 2 and "run 04_results again" in result.stderr


def test_an_archive_is_no_truth(sub, tmp_path):
    np.savez(tmp_path / "masks.npz", masks=np.zeros((2, 8, 8)))
    result = invoke("score", sub, tmp_path / "masks.npz")
    assert result.exit_code == 2 and "is an archive of arrays" in result.stderr


def test_submit_says_what_is_missing(tmp_path):
    assert invoke("submit").exit_code == 2
    result = invoke("submit", tmp_path / "none")
    assert result.exit_code == 2 and "02_preprocessing" in result.stderr and result.stderr.count("\n") == 1


def test_labels_in_a_picture_make_the_same_rows(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (3, 16, 16)).astype(np.uint8)
    write_submission(tmp_path / "expected.csv", labels)
    write_labels(tmp_path / "labels.png", labels)
    path, rows = submit(tmp_path / "labels.png")
    assert rows == 3 * 16 * 16 * 2 and path.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.png"), labels)


@pytest.mark.parametrize("mode", ["RGB", "P", "text"])
def test_other_pictures_are_refused(tmp_path, mode):
    path = tmp_path / "labels.png"
    if mode == "text":
        path.write_text("no picture")
    else:
        Image.new(mode, (20, 30)).save(path)
    with pytest.raises(InputError, match="labels.png"):
        submit(path)
    assert not path.with_suffix(".csv").exists()
