"""Prepared slices, checkpoint, model and results: used together only if they belong together."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import CPU, TINY_CONFIG

from lungseg_utils.core.files import InputError, locked
from lungseg_utils.core.stopping import Stopped
from lungseg_utils.data.preprocessing import fingerprint, load_prepared, prepare
from lungseg_utils.evaluation.compare import Unfinished, load_runs
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.evaluation.results import save_results, split_statement
from lungseg_utils.evaluation.submission import scored_model, submit
from lungseg_utils.inference.pretrained import pretrained_dir, read_history
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.inference.ties import check_tie
from lungseg_utils.model import load_model
from lungseg_utils.training.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture
def run(prepared_dir, trained_dir, tmp_path):
    """A run directory with prepared/ and the model that learned from it."""
    folder = shutil.copytree(trained_dir, tmp_path / "run")
    shutil.copytree(prepared_dir, folder / "prepared")
    return folder


def other_pixels(folder):
    images = np.load(folder / "images_radiopaedia.npy")
    images[-1, 0, 0] += 1
    np.save(folder / "images_radiopaedia.npy", images)


def other_labels(folder):
    labels = np.load(folder / "labels_medseg.npy", mmap_mode="r+")
    labels[0, 0, 0] = 3 - labels[0, 0, 0]
    labels.flush()


def other_split(folder):
    slices = pd.read_csv(folder / "slices.csv")
    slices.loc[slices.source == "medseg", "split"] = slices.split[::-1].to_numpy()[
        : (slices.source == "medseg").sum()
    ]
    slices.to_csv(folder / "slices.csv", index=False)


def other_normalisation(folder):
    path = folder / "preprocessing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mean": -321.5}))


CHANGES = [other_pixels, other_labels, other_split, other_normalisation]


def score(run, model="model"):
    """What 04_results leaves, in short."""
    rows, hu, truth = load_prepared(run / "prepared").validation_slices()
    tie = check_tie(run / model if model == "model" else model, run)
    segmenter = Segmenter.load(run / "model", CPU)
    scored = evaluate(truth, collect_predictions(segmenter, hu, truth), "medseg", rows["index"], rows.volume)
    record = scored.record | {"model": "", "inference": vars(InferenceSettings()), "tie": vars(tie)}
    save_results(run / "results", scored.table, scored.per_slice.sum(0), record)


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_covers_pixels_labels_split_and_preprocessing(prepared_dir, tmp_path, change):
    copy = shutil.copytree(prepared_dir, tmp_path / "prepared")
    assert fingerprint(copy) == fingerprint(prepared_dir)
    change(copy)
    assert fingerprint(copy) != fingerprint(prepared_dir)


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_of_other_slices_is_not_scored_as_the_runs_own(run, change):
    assert check_tie(run / "model", run).doubt is None
    change(run / "prepared")
    for use in (lambda: check_tie(run / "model", run), lambda: submit(run)):
        with pytest.raises(InputError, match="has learned from other slices than .*run 03_training again"):
            use()


def test_another_model_is_scored_but_the_split_vouches_for_nothing(run, tmp_path):
    slices = load_prepared(run / "prepared").slices
    for model in (pretrained_dir(), shutil.copytree(run / "model", tmp_path / "theirs")):
        other_normalisation(run / "prepared")
        statement = split_statement(slices, check_tie(model, run).doubt)
        assert len(statement) == 2 and "may have been among them" in statement[1]


def test_a_training_that_began_with_a_model_of_other_slices_is_doubted(run, tmp_path):
    alike, other = (shutil.copytree(run, tmp_path / name) for name in ("alike", "other"))
    other_split(other / "prepared")
    for folder in (alike, other):
        shutil.rmtree(folder / "model")
        train(folder / "prepared", folder, replace(TINY_CONFIG, epochs=1, start_from=str(run / "model")), CPU)
    assert check_tie(alike / "model", alike).doubt is None
    assert "may have been among them" in check_tie(other / "model", other).doubt


def test_a_model_from_another_run_is_told_by_the_history_beside_it(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    train(other / "prepared", other, replace(TINY_CONFIG, seed=1), CPU)
    shutil.rmtree(run / "model")
    shutil.copytree(other / "model", run / "model")
    with pytest.raises(InputError, match="history.csv is of another training than .*model"):
        check_tie(run / "model", run)
    shutil.copy(other / "history.csv", run / "history.csv")
    assert check_tie(run / "model", run).doubt is None


def test_results_of_an_earlier_model_or_of_earlier_slices_are_left_out(run, tmp_path):
    score(run)
    other = shutil.copytree(run, tmp_path / "other")
    submit(run)
    train(run / "prepared", run, replace(TINY_CONFIG, seed=1), CPU)
    for use in (submit, scored_model):
        with pytest.raises(InputError, match="of an earlier model.*run 04_results again"):
            use(run)
    left_out = []
    assert [r.name for r in load_runs([run, other], left_out)] == ["other"]
    assert "earlier model/" in left_out[0]
    other_split(other / "prepared")
    with pytest.raises(Unfinished, match="earlier prepared/"):
        load_runs([other])


def test_a_checkpoint_of_other_slices_is_not_gone_on_with(run):
    with pytest.raises(Stopped):
        train(run / "prepared", run, replace(TINY_CONFIG, max_minutes=1e-9), CPU)
    other_pixels(run / "prepared")
    with pytest.raises(
        InputError, match="learned from other prepared slices.*run 02_preprocessing as it was"
    ):
        train(run / "prepared", run, TINY_CONFIG, CPU)


@pytest.mark.parametrize("change", [other_pixels, shutil.rmtree])
def test_slices_that_change_while_a_training_reads_them_end_it_without_a_model(run, change):
    shutil.rmtree(run / "model")
    done = []

    def meddle(history):
        done.append(len(history))
        change(run / "prepared")

    with pytest.raises(InputError, match="was changed while a training read it"):
        train(run / "prepared", run, TINY_CONFIG, CPU, on_epoch=meddle)
    assert done == [1] and not (run / "model").exists()


def test_a_run_directory_has_one_writer(run, tiny_phantom, monkeypatch):
    prepared = load_prepared(run / "prepared")
    with locked(run, "another training"):
        with pytest.raises(InputError, match="is being written by another training"):
            train(run / "prepared", run, TINY_CONFIG, CPU)
        from lungseg_utils.data.arrays import load_data

        with pytest.raises(InputError, match="is being written by another training"):
            prepare(load_data(tiny_phantom), prepared.slices, prepared.preprocessing, run / "prepared")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch says that it may not read this
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04N.", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_one_sentence(run, content):
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "last.pt").write_bytes(content)
    with pytest.raises(InputError, match="no checkpoint of a training, or is damaged.*delete") as caught:
        train(run / "prepared", run, TINY_CONFIG, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"encoder": 3}', b"\x00\xff"])
def test_a_damaged_model_is_one_sentence(run, file, content):
    (run / "model" / file).write_bytes(content)
    with pytest.raises(InputError, match="run 03_training again") as caught:
        load_model(run / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": float("nan")},
        {"image_size": "64"},
        {"image_size": 100},
        {"window": "lung"},
        {"window": [1, 2, 3]},
        {"preprocessing": {"mean": 3}},
        {"frame": "lungs"},
        {"lesion_factors": 3},
        {"lesion_factors": [0.8]},
        {"lesion_factors": [0.8, 0]},
    ],
)
def test_a_config_that_says_nonsense_is_refused_before_a_prediction(run, wrong):
    path = run / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(InputError, match="config.json .*damaged.*run 03_training again"):
        Segmenter.load(run / "model", CPU)


@pytest.mark.parametrize("content", ["", "epoch,loss\n1,2\n", "epoch,train_loss,val_loss,best\n"])
def test_a_damaged_history_is_one_sentence(run, content):
    (run / "history.csv").write_text(content)
    with pytest.raises(InputError, match="history.csv is no training's.*run 03_training again"):
        read_history(run / "model")


def test_labels_that_are_none_are_named(run):
    labels = np.load(run / "prepared" / "labels_medseg.npy")
    labels[:, 0, 0] = 9
    np.save(run / "prepared" / "labels_medseg.npy", labels)
    with pytest.raises(InputError, match="labels_medseg.npy holds 9 in slice .*run 02_preprocessing again"):
        train(run / "prepared", run, replace(TINY_CONFIG, augmentation="none"), CPU)


def test_a_table_without_a_column_or_a_validation_slice_is_named(run):
    path = run / "prepared" / "slices.csv"
    slices = pd.read_csv(path)
    slices.assign(split="train").to_csv(path, index=False)
    with pytest.raises(InputError, match="slices.csv has no validation slice; run 02_preprocessing"):
        load_prepared(path.parent).validation_slices()
    slices.drop(columns="split").to_csv(path, index=False)
    with pytest.raises(InputError, match="no complete prepared folder|not a complete prepared folder"):
        load_prepared(path.parent)
