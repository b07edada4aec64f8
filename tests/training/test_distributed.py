"""Two processes learn what one learns: the same gradients, scores of all slices, one writer."""

import os
import socket
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import CPU, SERVER, TINY_CONFIG

from lungseg_utils.core import files
from lungseg_utils.core.device import Device
from lungseg_utils.core.files import InputError
from lungseg_utils.core.stopping import Stopped
from lungseg_utils.data.datasets import EpochBatches, SliceDataset, make_loader
from lungseg_utils.model import load_model
from lungseg_utils.training import checkpoint
from lungseg_utils.training import loop as training
from lungseg_utils.training.accelerator import make_accelerator
from lungseg_utils.training.epoch_scores import Tally
from lungseg_utils.training.launcher import launch
from lungseg_utils.training.learner import Learner
from lungseg_utils.training.loop import run_epoch, train, validate
from lungseg_utils.training.losses import build_loss

pytestmark = pytest.mark.slow

SMALL = replace(
    TINY_CONFIG, encoder="efficientnet-b0", batch_size=7
)  # ten slices: batches of five, shares of 3 and 2


def one_of_two(process, port, function, args):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(process),
        "LOCAL_RANK": str(process),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "TORCHELASTIC_RUN_ID": "tests",
    }
    function(*args)


def together(function, *args):
    """Run function(*args) in two processes that torch.distributed connects."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [SERVER.Process(target=one_of_two, args=(process, port, function, args)) for process in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]


def gradients(prepared_dir, config, path):
    """Save the first step's gradients, in eval mode, and two epochs of learning rates."""
    accelerator = make_accelerator(CPU, config.accumulation)
    dataset = SliceDataset(prepared_dir, "train", config.image_size, config.augmentation, config.seed)
    share = {"processes": accelerator.num_processes, "process": accelerator.process_index}
    batches = EpochBatches(len(dataset), config.batch_size, config.seed, config.accumulation, **share)
    learner = Learner(config, accelerator, batches.steps)
    learner.train_mode = learner.model.eval
    found, take_step = [], learner.take_step

    def noted():
        found.append(
            {name: p.grad.clone() for name, p in learner.network.named_parameters() if p.grad is not None}
        )
        return take_step()

    learner.take_step = noted
    run_epoch(learner, make_loader(dataset, batches), build_loss(config.loss), lambda: None)
    assert learner.step == batches.steps == learner.scheduler.last_epoch == len(found) == 2
    if accelerator.is_main_process:
        torch.save(found[0], path)


@pytest.fixture(scope="module")
def expected_gradients(prepared_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "gradients.pt"
    gradients(prepared_dir, SMALL, path)
    return torch.load(path)


def assert_close(path, expected):
    found = torch.load(path)
    assert found.keys() == expected.keys() and len(found) > 100
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max().item(), msg=name
        )


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradients_of_two_processes_are_those_of_one(
    prepared_dir, expected_gradients, tmp_path, accumulation
):
    together(gradients, prepared_dir, replace(SMALL, accumulation=accumulation), tmp_path / "two.pt")
    assert_close(tmp_path / "two.pt", expected_gradients)


def test_gradients_of_accumulated_pieces_are_those_of_the_batch(prepared_dir, expected_gradients, tmp_path):
    gradients(prepared_dir, replace(SMALL, accumulation=2), tmp_path / "pieces.pt")
    assert_close(tmp_path / "pieces.pt", expected_gradients)


def counted(path):
    """Each process counts other slices; the first one saves what all counted."""
    accelerator = make_accelerator(CPU)
    tally = Tally(accelerator, "val", 1)
    fill(tally, [0] if accelerator.is_main_process else [1, 2])
    scores = tally.scores()
    if accelerator.is_main_process:
        torch.save(scores, path)


def fill(tally, parts):
    for part in parts:
        generator = torch.Generator().manual_seed(part)
        logits = torch.randn(part + 1, 4, 8, 8, generator=generator)
        labels = torch.randint(0, 4, (part + 1, 8, 8), generator=generator)
        tally.add(torch.nn.functional.cross_entropy(logits, labels), logits, labels, torch.arange(part + 1))


def test_scores_are_gathered_as_counts(tmp_path):
    together(counted, tmp_path / "scores.pt")
    alone = Tally(make_accelerator(CPU), "val", 1)
    fill(alone, [0, 1, 2])
    assert torch.load(tmp_path / "scores.pt") == pytest.approx(alone.scores(), rel=1e-12)


def whole_run(prepared_dir, run_dir, config):
    if os.environ["RANK"] != "0":

        def not_here(*_):
            raise AssertionError("a second process writes")

        for module in (files, checkpoint, training):
            module.atomic_write = not_here
    try:
        train(prepared_dir, run_dir, replace(config, max_minutes=1e-9), CPU)
        raise AssertionError("it was to stop")
    except Stopped:
        assert (run_dir / "checkpoint" / "last.pt").exists()
    train(prepared_dir, run_dir, config, CPU)


def test_a_run_in_two_processes_stops_goes_on_and_ends(prepared_dir, tmp_path, monkeypatch):
    config = replace(SMALL, image_size=64, batch_size=2, freeze_encoder_epochs=1, ema_decay=0.9)
    together(whole_run, prepared_dir, tmp_path, config)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history.epoch.tolist() == [1, 2]
    # What was measured in two halves is what one process measures with the weights that were kept.
    network, saved = load_model(tmp_path / "model", "last")
    assert saved["processes"] == 2
    val_set = SliceDataset(prepared_dir, "validation", config.image_size)
    learner = Learner(replace(config, ema_decay=0.0), make_accelerator(CPU), 1)
    learner.network.load_state_dict(network.state_dict())
    loader = make_loader(val_set, EpochBatches(len(val_set), config.batch_size))
    scores = validate(learner, loader, build_loss(config.loss), lambda: None)
    assert scores == pytest.approx(history.iloc[-1][list(scores)].to_dict(), rel=1e-4)


def from_a_notebook(prepared_dir, run_dir):
    two = Device("cpu", "tests", "tests", count=2)
    config = replace(TINY_CONFIG, image_size=64, batch_size=4)
    history = launch(2, prepared_dir, run_dir, config, two)
    assert len(history) == 2 and (run_dir / "model" / "weights.safetensors").exists()
    try:
        launch(2, prepared_dir / "nowhere", run_dir, config, two)
    except InputError as error:
        assert "02_preprocessing" in str(error)
    else:
        raise AssertionError("there is nothing to train on")


def test_launch_from_a_notebook(prepared_dir, tmp_path):
    process = SERVER.Process(target=from_a_notebook, args=(prepared_dir, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_more_processes_than_gpus_are_refused(prepared_dir, tmp_path):
    with pytest.raises(InputError, match="processes is 2.*set processes to a number from 1 to 1"):
        launch(2, prepared_dir, tmp_path, TINY_CONFIG, CPU)
