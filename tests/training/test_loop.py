"""The loop: what it writes, learns, keeps, when it stops, what it notices and refuses."""

import json
import math
import os
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import CPU, TINY_CONFIG
from safetensors.torch import load_file

from lungseg_utils.core.files import InputError
from lungseg_utils.data.datasets import SliceDataset, workers_that_fit
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.model import Members, build_model, load_model, save_model
from lungseg_utils.training import loop as training
from lungseg_utils.training.accelerator import is_first_process, make_accelerator, memory_advice, own_settings
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.epoch_scores import Tally
from lungseg_utils.training.learner import Learner, starting_network
from lungseg_utils.training.loop import early_stop, is_best, kept_by_monitor, train
from lungseg_utils.training.snapshots import choose_examples

pytestmark = pytest.mark.slow


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
    assert config["best_epoch"]["epoch"] == kept.epoch and config["best_epoch"]["val_miou"] == pytest.approx(
        kept.val_miou
    )
    assert config["training"]["train_slices"] == 10 and {"weights_sha256", "last_sha256"} <= config.keys()
    assert f"lesion Dice {kept.val_lesion_dice:.3f}" in (trained_dir / "model" / "README.md").read_text()


def test_a_loss_that_is_not_finite_stops_the_run(prepared_dir, tmp_path):
    with pytest.raises(
        FloatingPointError,
        match=r"Epoch 1: the train .* on slices \[.*learning rate .*lower the learning_rate",
    ):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, learning_rate=1e30), CPU)
    assert not (tmp_path / "model").exists() and not (tmp_path / "checkpoint").exists()


def test_a_gradient_that_is_not_finite_stops_the_run_unless_a_scaler_skips_the_step():
    accelerator = make_accelerator(CPU)
    logits, labels, rows = (
        torch.zeros(2, 4, 8, 8),
        torch.zeros(2, 8, 8, dtype=torch.long),
        torch.tensor([7, 9]),
    )
    loss, norms = torch.tensor(1.4), map(torch.tensor, (0.5, 2.0, math.inf))
    with pytest.raises(
        FloatingPointError,
        match=r"Epoch 3: the train gradient is not finite on slices \[7, 9\], learning rate 0.01;",
    ):
        Tally(accelerator, "train", 3).add(loss, logits, labels, rows, torch.tensor(math.nan), 0.01)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    tally = Tally(accelerator, "train", 3, max_norm=1.0)
    for norm in norms:
        tally.add(loss, logits, labels, rows, norm, 0.01)
    scores = tally.scores()
    assert (scores["clipped"], scores["skipped"], scores["train_loss"]) == (1, 1, pytest.approx(1.4))
    with pytest.raises(FloatingPointError, match="loss is nan.*loss scale 8;"):
        tally.add(torch.tensor(math.nan), logits, labels, rows)


def test_a_gpu_is_asked_now_and_then_and_before_anything_is_kept(monkeypatch):
    accelerator = make_accelerator(CPU)
    monkeypatch.setattr(type(accelerator), "device", torch.device("meta"))  # any but a CPU
    tally = Tally(accelerator, "train", 1)
    for key in tally.sums:
        tally.sums[key] = torch.zeros_like(tally.sums[key], device="cpu")
    logits, labels = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    for row, loss in enumerate((1.0, math.nan, math.nan)):
        tally.add(torch.tensor(loss), logits, labels, torch.tensor([row]))
    with pytest.raises(FloatingPointError, match=r"slices \[1\]"):  # the first that went wrong
        tally.state()


def test_clipping_limits_the_gradient_and_is_counted(prepared_dir, tmp_path):
    config = replace(TINY_CONFIG, epochs=1, max_grad_norm=1e-3)
    history = train(prepared_dir, tmp_path, config, CPU)
    assert history.clipped.tolist() == [2] and history.skipped.tolist() == [0]
    learner = Learner(config, make_accelerator(CPU), 2)
    for parameter in learner.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(p.numel() for p in learner.network.parameters())
    assert learner.take_step().item() == pytest.approx(count**0.5, rel=1e-4)


def test_a_frozen_encoder_stays_and_then_learns(prepared_dir, tmp_path):
    config = replace(TINY_CONFIG, freeze_encoder_epochs=1)
    first = Learner(config, make_accelerator(CPU), 2).network.encoder.state_dict()
    first = {name: value.clone() for name, value in first.items()}
    encoders = []

    def note(learner, scores):
        encoders.append({name: value.clone() for name, value in learner.network.encoder.state_dict().items()})
        return real(learner, scores)

    real = training.end_epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "end_epoch", note)
        train(prepared_dir, tmp_path, config, CPU)
    assert all(torch.equal(first[name], encoders[0][name]) for name in first)  # batch-norm averages as well
    assert not any(
        torch.equal(first[name], encoders[1][name]) for name in first if name.endswith("conv1.weight")
    )


def test_the_average_of_the_weights_is_what_is_measured_and_kept():
    learner = Learner(replace(TINY_CONFIG, ema_decay=0.5), make_accelerator(CPU), 2)
    name = "segmentation_head.0.bias"
    seen = []
    for _ in range(3):
        for parameter in learner.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        learner.take_step()
        seen.append(learner.network.state_dict()[name].clone())
    average = learner.eval_mode()
    assert average is not learner.network and not average.training
    expected = seen[0]  # timm's warm-up: 0, 1 - 2 ** (-2 / 3), then the decay
    for value, decay in zip(seen[1:], (1 - 2 ** (-2 / 3), 0.5)):
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.state_dict()[name], expected)


def test_bfloat16_is_used_where_the_device_says_so(prepared_dir, tmp_path):
    history = train(prepared_dir, tmp_path, replace(TINY_CONFIG, epochs=1), replace(CPU, precision="bf16"))
    assert history.train_loss.notna().all()
    record, weights = (
        json.loads((tmp_path / "model" / "config.json").read_text()),
        tmp_path / "model" / "last.safetensors",
    )
    assert record["precision"] == "bf16" and record["processes"] == 1 and record["versions"]["torch"]
    assert {value.dtype for value in load_file(weights).values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_says_how_to_keep_the_batch(prepared_dir, tmp_path, monkeypatch, error):
    def too_much(*_):
        raise error

    monkeypatch.setattr(training, "run_epoch", too_much)
    with pytest.raises(
        InputError, match="8 slices of 32 px in 2 pieces; set accumulation to 4.*batch_size 8 still"
    ):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, accumulation=2), CPU)
    with pytest.raises(RuntimeError, match="shape"), memory_advice(TINY_CONFIG):
        raise RuntimeError("shape mismatch")


def test_examples_are_the_same_slices_at_every_epoch(trained_dir, prepared_dir):
    with np.load(trained_dir / "examples.npz") as examples:
        hu, truth, predictions, rows = (examples[name] for name in ("hu", "truth", "predictions", "rows"))
    assert predictions.shape == (2, 3, 32, 32) and hu.shape == truth.shape == (3, 32, 32)
    segmenter = Segmenter.load(trained_dir / "model", CPU)
    kept = pd.read_csv(trained_dir / "history.csv").query("best").epoch.iloc[-1]
    dataset = SliceDataset(prepared_dir, "validation", 32)
    items = choose_examples(dataset)
    assert rows.tolist() == dataset.slices.index[items].tolist()
    np.testing.assert_array_equal(truth, [dataset[i][1].numpy() for i in items])
    np.testing.assert_array_equal(segmenter.labels(hu), predictions[kept - 1])


def test_best_and_early_stopping_follow_the_monitor():
    config = TrainingConfig(patience=2, monitor="val_loss")
    history = []
    for loss in (0.5, 0.4, 0.45, 0.41):
        assert not early_stop(history, config)
        history.append(
            {
                "val_loss": loss,
                "val_miou": loss,
                "best": is_best({"val_loss": loss, "val_miou": loss}, history, config),
            }
        )
    assert [row["best"] for row in history] == [True, True, False, False]
    assert early_stop(history, config)
    assert is_best({"val_miou": 0.6}, history, replace(config, monitor="val_miou"))
    undefined = {"val_loss": float("nan")}
    assert is_best(undefined, [], config) and is_best({"val_loss": 9.0}, [undefined], config)
    assert not is_best(undefined, history, config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"monitor": "accuracy"}, "val_loss, val_miou, val_lesion_dice"),
        ({"image_size": 100}, "multiple of 32"),
        ({"epochs": 0}, "epochs is 0"),
        ({"growth": "192x10"}, "expected some epochs at image_size"),
        ({"resize": "cubic"}, "resize is 'cubic'"),
        ({"frame": "lungs"}, "frame is 'lungs'; expected one of slice, body"),
        ({"shares": "medseg 0.5"}, "whose sum is 1"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"paste": 1.5}, "paste is 1.5"),
        ({"drop_path": 1.0, "encoder": "tu-tf_efficientnet_lite0"}, "drop_path is 1.0; expected 0"),
        ({"drop_path": 0.2}, "drop_path is 0.2 and the encoder efficientnet-b2; .* begin with 'tu-'"),
        ({"sampling": "patients"}, "sampling is 'patients'; expected one of every_slice, sources, lesions"),
        (
            {"architecture": "Unet"},
            "architecture is 'Unet'; expected one of unet, unet_scse, unetplusplus, fpn",
        ),
        ({"loss": "tversky"}, "loss is 'tversky'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**settings)


def test_the_sampling_and_the_architecture_of_the_settings_are_those_that_train(
    prepared_dir, tmp_path, monkeypatch
):
    class Seen(Exception):
        pass

    def look(learner, loader, *_):
        rows = loader.dataset.slices.source.iloc[[i for batch in loader.batch_sampler for _, i in batch]]
        raise Seen(rows.value_counts().to_dict(), type(learner.network).__name__)

    monkeypatch.setattr(training, "run_epoch", look)
    with pytest.raises(Seen) as seen:
        train(prepared_dir, tmp_path / "a", TINY_CONFIG, CPU)
    assert seen.value.args == ({"radiopaedia": 8, "medseg": 2}, "Unet")
    config = replace(TINY_CONFIG, sampling="sources", architecture="unetplusplus")
    with pytest.raises(Seen) as seen:
        train(prepared_dir, tmp_path / "b", config, CPU)
    drawn, network = seen.value.args
    assert (
        drawn["medseg"] in (4, 5, 6) and sum(drawn.values()) == 10 and network == "UnetPlusPlus"
    )  # each 2 or 3 times
    assert {"sampling", "architecture"} <= config.result().keys()  # a run does not go on with others


def test_training_begins_with_the_weights_of_a_model(trained_dir, tmp_path):
    config = replace(TINY_CONFIG, start_from=str(trained_dir / "model"))
    trained, _ = load_model(trained_dir / "model")
    begun = starting_network(config).state_dict()
    assert all(torch.equal(begun[name], value) for name, value in trained.state_dict().items())
    several, saved = tmp_path / "several", json.loads((trained_dir / "model" / "config.json").read_text())
    networks = [build_model("resnet18", "none") for _ in range(2)]
    save_model(several, Members(networks).half(), saved | {"members": 2, "lesion_factors": [1.1, 2]})
    for seed, number in ((0, 0), (1, 1), (2, 0)):
        begun = starting_network(replace(config, start_from=str(several), seed=seed))
        torch.testing.assert_close(begun.encoder.conv1.weight, networks[number].float().encoder.conv1.weight)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"architecture": "fpn"}, "unet with resnet18; expected fpn with resnet18"),
        ({"encoder": "resnet34"}, "unet with resnet18; expected unet with resnet34"),
        ({"start_from": "/no/such"}, "holds no trained model"),
    ],
)
def test_a_training_cannot_begin_with_another_network(trained_dir, other, message):
    config = replace(TINY_CONFIG, start_from=str(trained_dir / "model"))
    with pytest.raises(InputError, match=message):
        starting_network(replace(config, **other))


def test_a_training_cannot_begin_with_the_model_that_it_would_replace(prepared_dir, trained_dir):
    config = replace(TINY_CONFIG, start_from=str(trained_dir / "model"))
    with pytest.raises(InputError, match="would replace; expected another run's; choose a new run_dir"):
        train(prepared_dir, trained_dir, config, CPU)
    load_model(trained_dir / "model")


def test_what_each_monitor_would_have_kept():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "val_loss": [0.5, 0.3, 0.4],
            "val_miou": [0.2, 0.3, 0.6],
            "val_lesion_dice": [0.7, 0.1, 0.7],
        }
    )
    kept = kept_by_monitor(history)
    assert kept.epoch.to_dict() == {
        "val_loss": 2,
        "val_miou": 3,
        "val_lesion_dice": 1,
    }  # the first of equal ones, as is_best
    assert kept.loc["val_miou", "val_loss"] == 0.4
    history["val_lesion_dice"] = float("nan")  # slices without a lesion, and none predicted
    assert [*kept_by_monitor(history).index] == ["val_loss", "val_miou"]


def test_depthwise_convolutions_stay_in_float32_also_in_the_average():
    learner = Learner(
        replace(TINY_CONFIG, encoder="efficientnet-b0", ema_decay=0.5),
        make_accelerator(replace(CPU, precision="bf16")),
        2,
    )
    for network in (learner.network, learner.ema.module):
        seen = {}
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda layer, _, out, seen=seen: seen.update({layer: out.dtype}))
        with torch.no_grad(), learner.accelerator.autocast():
            network(torch.zeros(2, 1, 32, 32))
        kinds = {layer.groups > 1: set() for layer in seen}
        for layer, kind in seen.items():
            kinds[layer.groups > 1].add(kind)
        assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}


def test_nothing_in_the_environment_overrules_the_runs_own_settings(
    prepared_dir, trained_dir, tmp_path, monkeypatch
):
    strange = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_USE_FSDP": "true",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "192.0.2.1",
        "MASTER_PORT": "29500",
        "OMPI_COMM_WORLD_SIZE": "2",
        "SLURM_PROCID": "1",
    }
    for name, value in strange.items():
        monkeypatch.setenv(name, value)
    torch.set_num_threads(1)
    train(prepared_dir, tmp_path, TINY_CONFIG, CPU)
    found, expected = (load_file(folder / "model" / "last.safetensors") for folder in (tmp_path, trained_dir))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert {name: os.environ[name] for name in strange} == strange


def test_a_launchers_processes_keep_their_numbers(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with own_settings():
        assert "RANK" not in os.environ and is_first_process()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with own_settings():
        assert not is_first_process()
    with own_settings(launched=False):  # a notebook of a kernel that a launcher's process has started
        assert is_first_process()


def test_workers_do_without_a_shared_memory_that_is_too_small(monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(4 << 20))
    assert [workers_that_fit(workers, 4, 96) for workers in (0, 2, 16)] == [0, 2, 0]
    with pytest.raises(InputError, match="set workers to 0"), memory_advice(TINY_CONFIG):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.")
