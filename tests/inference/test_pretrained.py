"""The shipped model.

Written in half precision with its licence, refused when it was altered, named like a folder.
"""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CPU
from safetensors.numpy import load_file
from ship import in_half_precision, ship, shipped_card

from lungseg_utils.core.files import InputError
from lungseg_utils.data.phantom import phantom_slice
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.inference import pretrained
from lungseg_utils.inference.pretrained import (
    WEIGHTS,
    load_pretrained,
    model_folder,
    pretrained_dir,
    read_history,
)
from lungseg_utils.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def shipped(trained_dir, tmp_path_factory):
    return ship([trained_dir / "model"], "# A card\n", tmp_path_factory.mktemp("shipped") / "weights")


def altered(folder, out):
    """A copy with one bit of the weights turned."""
    shutil.copytree(folder, out)
    data = bytearray((out / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "weights.safetensors").write_bytes(data)
    return out


def test_the_shipped_folder_is_whole(shipped, trained_dir):
    names = {"weights.safetensors", "config.json", "README.md", "LICENSE", "history.csv"}
    assert {path.name for path in shipped.iterdir()} == names  # not the last weights
    before, config = (
        json.loads((folder / "config.json").read_text()) for folder in (trained_dir / "model", shipped)
    )
    assert (
        config["weights_sha256"] == hashlib.sha256((shipped / "weights.safetensors").read_bytes()).hexdigest()
    )
    assert (config["license"], config["weights_precision"]) == (
        "CC-BY-NC-SA-4.0",
        "float16",
    ) and "last_sha256" not in config
    kept = ("architecture", "encoder", "image_size", "preprocessing", "training", "best_epoch", "classes")
    assert [config[name] for name in kept] == [before[name] for name in kept]
    assert (shipped / "README.md").read_text() == "# A card\n"
    assert (shipped / "LICENSE").read_bytes() == (WEIGHTS / "LICENSE").read_bytes()
    pd.testing.assert_frame_equal(read_history(shipped), read_history(trained_dir / "model"))


def test_each_weight_is_the_trained_one_rounded(shipped, trained_dir):
    before, after = (load_file(folder / "weights.safetensors") for folder in (trained_dir / "model", shipped))
    assert before.keys() == after.keys()
    for name, value in before.items():
        expected = value.astype(np.float16) if value.dtype == np.float32 else value
        assert after[name].dtype == expected.dtype
        np.testing.assert_array_equal(after[name], expected)


def test_loaded_it_computes_in_single_precision_and_answers_nearly_the_same(
    shipped, trained_dir, prepared_dir, monkeypatch
):
    monkeypatch.setattr(pretrained, "WEIGHTS", shipped)
    segmenter = load_pretrained(CPU)
    assert {p.dtype for p in segmenter.model.parameters()} == {torch.float32}
    hu = load_prepared(prepared_dir).images["medseg"][:3]
    ours, theirs = segmenter.probabilities(hu), Segmenter.load(trained_dir / "model", CPU).probabilities(hu)
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert not np.array_equal(ours, theirs)


def test_factors_multiply_the_odds_of_both_lesions(shipped, trained_dir, prepared_dir, tmp_path):
    ship([trained_dir / "model"], "card", tmp_path / "more", factors=(0.5, 2.7))
    hu = load_prepared(prepared_dir).images["medseg"][:2]
    plain, more = (Segmenter.load(folder, CPU).probabilities(hu) for folder in (shipped, tmp_path / "more"))
    ratio = (more / more[:, 3:]) / (plain / plain[:, 3:])  # odds against the background
    for c, factor in enumerate((0.5, 2.7, 1, 1)):
        np.testing.assert_allclose(ratio[:, c], factor, rtol=0.02)
    card = shipped_card(json.loads((tmp_path / "more" / "config.json").read_text()), "")
    assert "ground glass are multiplied by 0.5 and of consolidation by 2.7" in card


def test_of_several_the_first_is_a_small_model_of_its_own(trained_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "both")
    models = [trained_dir / "model"] * 2
    ship(models, "card", tmp_path / "both", image_size=96)
    both, small = load_pretrained(CPU), load_pretrained(CPU, name="pretrained-small")
    assert (both.image_size, small.image_size, len(both.model.networks)) == (96, 224, 2)
    first = both.model.networks[0].state_dict()
    assert all(torch.equal(value, first[key]) for key, value in small.model.state_dict().items())
    (tmp_path / "both" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="weights.safetensors is missing"):
        Segmenter.load(tmp_path / "both" / "small", CPU)


def test_a_shipped_model_of_another_name_is_refused():
    with pytest.raises(InputError, match="expected one of pretrained, pretrained-small"):
        load_pretrained(CPU, name="large")


def test_altered_weights_are_refused(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", altered(shipped, tmp_path / "weights"))
    with pytest.raises(InputError, match="is not the file that config.json describes"):
        load_pretrained(CPU)


def test_shipping_replaces_an_older_model_as_a_whole_or_not_at_all(trained_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "old.txt").touch()
    assert (
        ship([trained_dir / "model"], "card", "weights") == tmp_path / "weights"
    )  # relative: the same as everywhere
    assert len(list((tmp_path / "weights").iterdir())) == 5
    shutil.copytree(trained_dir / "model", tmp_path / "no_history" / "model")
    with pytest.raises(InputError, match="no history.csv in .*model or beside it"):
        ship([tmp_path / "no_history" / "model"], "other card", "weights")
    assert (tmp_path / "weights" / "README.md").read_text() == "card" and len(list(tmp_path.iterdir())) == 2


def test_a_weight_too_large_for_half_precision_is_refused():
    layer = torch.nn.BatchNorm2d(2)
    assert (
        in_half_precision(layer).running_var.dtype == torch.float16
        and layer.num_batches_tracked.dtype == torch.int64
    )
    layer = torch.nn.BatchNorm2d(2)
    layer.running_var[1] = 70000
    with pytest.raises(InputError, match="does not fit into float16"):
        in_half_precision(layer)


def test_a_model_parameter_names_a_folder_the_runs_own_or_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    assert model_folder("", "runs/demo") == tmp_path / "runs" / "demo" / "model"
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="came without its weights"):
        pretrained_dir()
    (tmp_path / "weights.safetensors").touch()
    assert model_folder("pretrained", "runs/demo") == pretrained_dir() == tmp_path
    assert model_folder("other/model", "runs/demo") == tmp_path / "other" / "model"


def test_the_card_says_what_the_model_is_and_is_not_for(shipped):
    config = json.loads((shipped / "config.json").read_text())
    card = shipped_card(config, "| score | value |\n|---|---|\n| mIoU | 0.123 |")
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n") and "Not a medical device" in card
    assert "unet, resnet18" in card and "| mIoU | 0.123 |" in card and "10 training slices" in card
    settings = card.split("```json\n")[1].split("\n```")[0]
    assert json.loads(settings) == config["training"]


@pytest.mark.skipif(not (WEIGHTS / "weights.safetensors").exists(), reason="the package holds no weights")
def test_the_packages_own_weights(tmp_path, monkeypatch):
    path = pretrained_dir() / "weights.safetensors"
    config = json.loads((pretrained_dir() / "config.json").read_text())
    assert config["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size < 30e6
    assert {value.dtype.name for value in load_file(path).values()} <= {"float16", "int64"}
    assert "Not a medical device" in (pretrained_dir() / "README.md").read_text()
    hu, truth = phantom_slice(np.random.default_rng(2), 256)
    labels = load_pretrained(CPU).labels(hu[None])[0]
    assert labels.shape == hu.shape and labels.dtype == np.uint8
    assert (labels == truth).mean() > 0.85 and {0, 2, 3} <= set(np.unique(labels)) <= {0, 1, 2, 3}
    monkeypatch.setattr(pretrained, "WEIGHTS", altered(pretrained_dir(), tmp_path / "weights"))
    with pytest.raises(InputError, match="is not the file that config.json describes"):
        load_pretrained(CPU)
