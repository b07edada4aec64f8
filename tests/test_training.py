"""The loop: what it writes, that it learns, stops early, goes on where it was stopped, and refuses what cannot work."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import CPU, TINY_CONFIG
from safetensors.torch import load_file

from lungseg_utils import training
from lungseg_utils.files import InputError
from lungseg_utils.training import TrainingConfig, early_stop, is_best, kept_by_monitor, train


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_what_a_run_leaves_behind(trained_dir):
    history = pd.read_csv(trained_dir / "history.csv")
    assert len(history) == 2 and history.train_loss.iloc[1] < history.train_loss.iloc[0]
    assert history.best.iloc[0] and not (trained_dir / "checkpoint").exists()
    config = json.loads((trained_dir / "model" / "config.json").read_text())
    kept = history[history.best].iloc[-1]
    assert config["best_epoch"]["epoch"] == kept.epoch and config["best_epoch"]["val_miou"] == pytest.approx(kept.val_miou)
    assert config["training"]["train_slices"] == 10 and {"weights_sha256", "last_sha256"} <= config.keys()
    assert f"lesion Dice {kept.val_lesion_dice:.3f}" in (trained_dir / "model" / "README.md").read_text()


def test_stopped_and_resumed_ends_with_the_same_weights(prepared_dir, trained_dir, tmp_path, monkeypatch):
    real = training.run_epoch
    calls = []

    def killed_in_the_second_epoch(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(training, "run_epoch", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(prepared_dir, tmp_path, TINY_CONFIG, CPU)
    monkeypatch.setattr(training, "run_epoch", real)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    with pytest.raises(InputError, match="differs in batch_size, seed"):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, seed=1, batch_size=4), CPU)

    torch.manual_seed(99)  # a new process would not have the old random state either
    history = train(prepared_dir, tmp_path, TINY_CONFIG, CPU)
    assert len(history) == 2
    never_stopped, resumed = (load_file(folder / "model" / "last.safetensors") for folder in (trained_dir, tmp_path))
    assert all(torch.equal(never_stopped[name], resumed[name]) for name in never_stopped)


def test_a_loss_that_is_not_finite_stops_the_run(prepared_dir, tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning_rate"):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, learning_rate=1e30), CPU)
    assert not (tmp_path / "model").exists()


def test_best_and_early_stopping_follow_the_monitor():
    config = TrainingConfig(patience=2, monitor="val_loss")
    history = []
    for loss in (0.5, 0.4, 0.45, 0.41):
        assert not early_stop(history, config)
        history.append({"val_loss": loss, "val_miou": loss, "best": is_best({"val_loss": loss, "val_miou": loss}, history, config)})
    assert [row["best"] for row in history] == [True, True, False, False]
    assert early_stop(history, config)
    assert is_best({"val_miou": 0.6}, history, replace(config, monitor="val_miou"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": "accuracy"}, "val_loss, val_miou, val_lesion_dice"),
        ({"image_size": 100}, "multiple of 32"),
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": -1e-3}, "learning_rate"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**settings)


def test_what_each_monitor_would_have_kept():
    history = pd.DataFrame({
        "epoch": [1, 2, 3], "val_loss": [0.5, 0.3, 0.4], "val_miou": [0.2, 0.3, 0.6], "val_lesion_dice": [0.7, 0.1, 0.7],
    })  # fmt: skip
    kept = kept_by_monitor(history)
    assert kept.epoch.to_dict() == {"val_loss": 2, "val_miou": 3, "val_lesion_dice": 1}  # the first of equal ones, as is_best
    assert kept.loc["val_miou", "val_loss"] == 0.4
