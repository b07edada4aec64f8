"""Nothing is lost: a run that is killed, interrupted or out of time ends as if it had not been."""

import itertools
import multiprocessing
import os
import pkgutil
import shutil
import signal
from collections import namedtuple
from dataclasses import replace

import pandas as pd
import psutil
import pytest
import torch
from helpers import CPU, SERVER, TINY_CONFIG, no_windows, wait_for
from safetensors.torch import load_file

from lungseg_utils.core.files import InputError
from lungseg_utils.core.stopping import Stopped, StopRequest
from lungseg_utils.model import load_model
from lungseg_utils.training import checkpoint
from lungseg_utils.training.checkpoint import check_room
from lungseg_utils.training.loop import train

pytestmark = pytest.mark.slow

ALWAYS = 1e-9  # minutes: a checkpoint after each step
# Stochastic depth draws random numbers in each step, batch norm and the average remember, slices grow and get
# others' lesions: a checkpoint has it all.
CONFIG = replace(
    TINY_CONFIG,
    encoder="tu-tf_efficientnet_lite0",
    drop_path=0.2,
    paste=0.5,
    epochs=3,
    growth="64x1",
    batch_size=4,
    ema_decay=0.9,
    max_grad_norm=1.0,
    freeze_encoder_epochs=1,
    checkpoint_minutes=ALWAYS,
)
FINISHED, STOPPED = 0, 3


def in_a_process(prepared_dir, run_dir, config, kill_at=None):
    """Train; kill_at: (owner as module:name, function, n).

    Instead of its n-th call the process kills itself.
    """
    torch.set_num_threads(1)
    if kill_at:
        place, name, n = kill_at
        owner = pkgutil.resolve_name(place)
        function, calls = getattr(owner, name), itertools.count(1)

        def counted(*args):
            if next(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        setattr(owner, name, counted)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # for the loader's workers; else the server's way goes on here
    try:
        train(prepared_dir, run_dir, config, CPU)
    except Stopped:
        os._exit(STOPPED)


def start(*args):
    process = SERVER.Process(target=in_a_process, args=args)
    process.start()
    return process


def finish(*args):
    process = start(*args)
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def never_stopped(prepared_dir, tmp_path_factory):
    """Run directory of CONFIG without any interruption."""
    folder = tmp_path_factory.mktemp("never_stopped")
    assert finish(prepared_dir, folder, CONFIG) == FINISHED
    return folder


def assert_same(folder, other):
    for name in ("weights", "last"):
        a, b = (load_file(place / "model" / f"{name}.safetensors") for place in (folder, other))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    a, b = (pd.read_csv(place / "history.csv").drop(columns="seconds") for place in (folder, other))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@no_windows
def test_killed_anywhere_it_ends_with_the_same_weights(prepared_dir, never_stopped, tmp_path):
    in_a_step = ("lungseg_utils.training.learner:Learner", "take_step")
    with_a_half_written_file = ("os", "replace")
    killed = [
        finish(
            prepared_dir, tmp_path, replace(CONFIG, workers=workers), (*place, n)
        )  # workers may change on the way
        for workers, place, n in ((0, in_a_step, 3), (1, with_a_half_written_file, 2), (0, in_a_step, 4))
    ]
    assert killed == [-signal.SIGKILL] * 3
    assert finish(prepared_dir, tmp_path, CONFIG) == FINISHED
    assert_same(tmp_path, never_stopped)


@no_windows
def test_sigterm_saves_and_the_run_goes_on(prepared_dir, never_stopped, tmp_path):
    process = start(prepared_dir, tmp_path, replace(CONFIG, checkpoint_minutes=60))
    wait_for((tmp_path / "history.csv").exists)
    process.terminate()
    process.join()
    assert process.exitcode == STOPPED
    state = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert (len(state["history"]), state["step"]) > (1, 0)  # the epoch at hand is in it
    assert finish(prepared_dir, tmp_path, CONFIG) == FINISHED
    assert_same(tmp_path, never_stopped)


def test_an_interrupt_or_the_budget_ends_the_batch_and_leaves_the_process_usable(
    prepared_dir, trained_dir, tmp_path
):
    torch.set_num_threads(1)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=r"SIGINT.*epoch 2 after step 1.*run the same training again"):
        train(prepared_dir, tmp_path, TINY_CONFIG, CPU, on_epoch=lambda _: signal.raise_signal(signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(Stopped, match="max_minutes is 1e-09"):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, max_minutes=ALWAYS), CPU)
    assert not (tmp_path / "model").exists()
    with pytest.raises(InputError, match="not finished; run 03_training again"):
        load_model(tmp_path / "model")
    torch.manual_seed(99)  # a new process would not have the old random state either
    train(prepared_dir, tmp_path, TINY_CONFIG, CPU)
    assert_same(tmp_path, trained_dir)


def test_other_settings_are_refused_other_means_are_not(prepared_dir, tmp_path):
    stop_at_once = replace(TINY_CONFIG, max_minutes=ALWAYS)
    with pytest.raises(Stopped):
        train(prepared_dir, tmp_path, stop_at_once, CPU)
    with pytest.raises(InputError, match="differs in batch_size, seed"):
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, seed=1, batch_size=4), CPU)
    with pytest.raises(Stopped, match="epoch 1 after step 2"):
        train(prepared_dir, tmp_path, replace(stop_at_once, accumulation=2, checkpoint_minutes=1), CPU)


def test_a_stopped_run_leaves_no_worker_behind(prepared_dir, tmp_path):
    with pytest.raises(Stopped) as kept:  # as a notebook keeps the last traceback, and with it the loader
        train(prepared_dir, tmp_path, replace(TINY_CONFIG, workers=1, max_minutes=ALWAYS), CPU)
    assert kept.tb and not multiprocessing.active_children()


def test_a_signal_to_the_whole_group_reaches_the_workers_too(prepared_dir, tmp_path):
    process = start(prepared_dir, tmp_path, replace(CONFIG, workers=1, checkpoint_minutes=60))
    wait_for((tmp_path / "history.csv").exists)
    for child in psutil.Process(process.pid).children():
        child.terminate()
    process.terminate()
    process.join()
    assert process.exitcode == STOPPED


def test_a_second_signal_does_not_wait():
    with StopRequest() as stop:
        assert stop.reason is None
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same stop, handed on by a launcher
        assert stop.reason == "SIGINT"
        stop._noted -= 3
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_no_room_is_said_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written.*choose a run_dir"):
        check_room(tmp_path / "file" / "run", 1)
    disk = namedtuple("disk", "total used free")(9e9, 9e9 - 5e6, 5e6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    check_room(tmp_path, 4_000_000)
    with pytest.raises(InputError, match="5 MB free, and training writes up to 600 MB"):
        check_room(tmp_path, 600_000_000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint(path, {"step": 1})

    def disk_full(state, handle):
        handle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(InputError, match="No space.*make room"):
        checkpoint.save_checkpoint(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1} and len(list(tmp_path.iterdir())) == 1
