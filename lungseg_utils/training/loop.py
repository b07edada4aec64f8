"""The training loop.

A loss by name, AdamW, a one-cycle learning rate, early stopping, the best and the last weights.

`lungseg train --help`, alone or under `accelerate launch`, trains without a notebook.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch.utils.data import DataLoader

from lungseg_utils.core.device import Device, choose_device
from lungseg_utils.core.files import InputError, locked, replace_folder, resolve_path, write_csv
from lungseg_utils.core.progress import tqdm
from lungseg_utils.core.stopping import Stopped, StopRequest
from lungseg_utils.data.datasets import (
    EpochBatches,
    SliceDataset,
    choose_workers,
    closing,
    make_loader,
    parse_growth,
    slice_chances,
    workers_that_fit,
)
from lungseg_utils.data.preprocessing import fingerprint
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.inference.ties import learned_from, read_config
from lungseg_utils.model import save_model
from lungseg_utils.training.accelerator import (
    is_first_process,
    keep_freed_memory,
    make_accelerator,
    memory_advice,
    own_settings,
)
from lungseg_utils.training.checkpoint import Keeper, check_room
from lungseg_utils.training.config import MONITORS, TrainingConfig
from lungseg_utils.training.epoch_scores import Tally
from lungseg_utils.training.learner import Learner
from lungseg_utils.training.live import LiveNote
from lungseg_utils.training.losses import Loss, build_loss
from lungseg_utils.training.model_card import model_config, write_model_card
from lungseg_utils.training.snapshots import choose_examples, predict_examples, save_examples


def train(
    prepared_dir: str | Path,
    run_dir: str | Path,
    config: TrainingConfig,
    device: Device | None = None,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> pd.DataFrame:
    """Train on the prepared slices.

    Writes under run_dir: `history.csv` (a line more each epoch) and `checkpoint/last.pt`, from which the next
    call with the same configuration goes on; at the end `model/` (weights of the best epoch by config.monitor
    and of the last, config.json, README.md) and `examples.npz` (a few validation slices as each epoch saw
    them), and the checkpoint goes.

    Args:
        prepared_dir: What 02_preprocessing wrote.
        run_dir: Where results go.
        config: The settings.
        device: Where to compute; the fastest that works if not given.
        on_epoch: Called with the history after each epoch.

    Returns:
        The history, one row an epoch.

    Raises:
        Stopped: On Ctrl-C, SIGTERM, SIGHUP or after config.max_minutes; all is saved.
        FloatingPointError: If it diverges.
        InputError: If another process writes in run_dir, or if the prepared slices are changed meanwhile.
    """
    run_dir = resolve_path(run_dir)
    with own_settings(), locked(run_dir, "a training") if is_first_process() else nullcontext():
        return _train(prepared_dir, run_dir, config, device or choose_device(), on_epoch)


def _train(
    prepared_dir: str | Path,
    run_dir: Path,
    config: TrainingConfig,
    device: Device,
    on_epoch: Callable[[pd.DataFrame], None] | None,
) -> pd.DataFrame:
    """`train`, alone in its run directory."""
    start = config.start_from and model_folder(config.start_from, "")
    if start == run_dir / "model":
        raise InputError(
            f"start_from is {config.start_from!r}, the model that this training would replace; expected "
            "another run's; choose a new run_dir."
        )
    accelerator = make_accelerator(device, config.accumulation)
    train_set = SliceDataset(
        prepared_dir,
        "train",
        config.image_size,
        config.augmentation,
        config.seed,
        config.resize,
        parse_growth(config.growth),
        paste=config.paste,
    )
    val_set = SliceDataset(
        prepared_dir, "validation", config.image_size, resize=config.resize, frame=config.frame
    )
    share = {"processes": accelerator.num_processes, "process": accelerator.process_index}
    chances = slice_chances(train_set.slices, config.sampling, config.shares)
    batches = EpochBatches(
        len(train_set), config.batch_size, config.seed, config.accumulation, **share, chances=chances
    )
    pinned, workers = device.type == "cuda", choose_workers(config.workers, device, accelerator.num_processes)
    if workers != (fitting := workers_that_fit(workers, config.batch_size, config.image_size)):
        accelerator.print(f"workers is {fitting}, not {workers}: /dev/shm is too small for their batches.")
        workers = fitting
    train_loader = make_loader(train_set, batches, workers, pinned)
    val_loader = make_loader(val_set, EpochBatches(len(val_set), config.batch_size, **share), workers, pinned)
    learner = Learner(config, accelerator, batches.steps)
    loss_function, shown = build_loss(config.loss), choose_examples(val_set)
    if accelerator.is_main_process:
        check_room(
            run_dir, 12 * learner.size()
        )  # two checkpoints of at most five copies of the weights, two models

    stop, prepared = StopRequest(config.max_minutes), fingerprint(train_set.folder)
    before = learned_from(read_config(start)) if start else []
    settings = {**config.result(), "prepared": prepared, "prepared_before": before}
    keeper = Keeper(run_dir / "checkpoint" / "last.pt", learner, settings, config.checkpoint_minutes, stop)
    if keeper.resume():
        accelerator.print(
            f"Going on after epoch {learner.epoch} of {config.epochs} and {learner.step} steps."
        )
    done = learner.epoch * batches.steps + learner.step
    bar: dict[str, Any] = {"total": config.epochs * batches.steps, "initial": done}
    progress = tqdm(desc="training", unit="step", disable=not accelerator.is_main_process, **bar)
    live = LiveNote(run_dir, config.epochs, batches.steps, done)

    def after_step() -> None:
        progress.update()
        if accelerator.is_main_process:
            live.after_step(learner)
        keeper.after_batch()

    advice = memory_advice(config, accelerator.num_processes)
    with stop, progress, closing(train_loader, val_loader), keep_freed_memory(), advice:
        while learner.epoch < config.epochs:
            if early_stop(learner.history, config):
                accelerator.print(
                    f"Stopped early: {config.monitor} has not improved for {config.patience} epochs."
                )
                break
            batches.epoch, batches.start = learner.epoch, learner.step
            with unchanged(train_set.folder, prepared):
                run_epoch(learner, train_loader, loss_function, after_step)
                val_scores = validate(learner, val_loader, loss_function, keeper.after_batch)
            end_epoch(learner, val_scores)
            learner.examples.append(predict_examples(learner.eval_mode(), val_set, shown, accelerator.device))
            history = pd.DataFrame(learner.history)
            if accelerator.is_main_process:
                write_csv(run_dir / "history.csv", history)
            learner.start_epoch()
            keeper.save()
            accelerator.print(describe(learner.history[-1], config.epochs))
            if on_epoch and accelerator.is_main_process:
                on_epoch(history)

    network = learner.eval_mode()
    if accelerator.is_main_process:
        best = max((row for row in learner.history if row["best"]), key=lambda row: row["epoch"])
        record = model_config(config, train_set, prepared, before, device, accelerator.num_processes, best)
        with replace_folder(run_dir / "model") as folder:  # only ever a finished run's
            save_model(folder, network, record, name="last")
            assert learner.best is not None  # an epoch has ended
            network.load_state_dict(learner.best)
            save_model(folder, network, record)
            write_model_card(folder, config, best)
        save_examples(run_dir / "examples.npz", val_set, shown, learner.examples)
        keeper.path.unlink()
        shutil.rmtree(keeper.path.parent)
    accelerator.wait_for_everyone()
    return pd.DataFrame(learner.history)


@contextmanager
def unchanged(prepared_dir: Path, prepared: str) -> Iterator[None]:
    """Raises InputError at its end unless the slices are still those of this fingerprint.

    No model mixes two data sets.
    """
    cause = None
    try:
        yield
    except Stopped:
        raise
    except Exception as error:  # half of the other slices may be there, or fewer
        cause = error
    if not prepared_dir.exists() or fingerprint(prepared_dir) != prepared:
        raise InputError(
            f"{prepared_dir} was changed while a training read it; expected the same slices to the end; run "
            "02_preprocessing as it was to go on, or delete the run's checkpoint/ to train anew."
        ) from cause
    if cause:
        raise cause


def run_epoch(
    learner: Learner, loader: DataLoader, loss_function: Loss, after_step: Callable[[], None]
) -> None:
    """Learn from what the loader still has of this epoch; losses and counts go to learner.tally.

    Args:
        learner: What learns.
        loader: Batches of (images, labels, rows).
        loss_function: From `build_loss`.
        after_step: Called after each step of the optimizer.

    Raises:
        FloatingPointError: When loss or gradient is no longer finite.
    """
    accelerator, model = learner.accelerator, learner.train_mode()
    batches = cast(EpochBatches, loader.batch_sampler)
    for weight, (images, labels, rows) in zip(batches.weights(), loader, strict=True):
        images = images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(accelerator.device, non_blocking=True).long()
        with accelerator.accumulate(model):  # a step may take several batches in a row and several processes
            logits = model(images)
            loss = loss_function(logits, labels)
            accelerator.backward(
                weight * loss
            )  # scaled where the precision needs it; averaged over the processes
            rate = float(learner.scheduler.get_last_lr()[0])
            norm = learner.take_step() if accelerator.sync_gradients else None
        learner.tally.add(loss, logits, labels, rows, norm, rate)
        if accelerator.sync_gradients:
            after_step()
    learner.tally.check()  # else validation would be the first to notice


def validate(
    learner: Learner, loader: DataLoader, loss_function: Loss, after_batch: Callable[[], None]
) -> dict[str, float]:
    """Loss and scores of the loader's slices under names that start with val_."""
    accelerator, network = learner.accelerator, learner.eval_mode()
    tally = Tally(accelerator, "val", learner.epoch + 1)
    for images, labels, rows in loader:
        images = images.to(accelerator.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(accelerator.device, non_blocking=True).long()
        with torch.no_grad(), accelerator.autocast():
            logits = network(images).float()
        tally.add(loss_function(logits, labels), logits, labels, rows)
        after_batch()
    return tally.scores()


def end_epoch(learner: Learner, val_scores: dict[str, float]) -> None:
    """Add the epoch's row to the history; keep its weights if they are the best."""
    row = {"epoch": learner.epoch + 1, "learning_rate": learner.rate, **learner.tally.scores(), **val_scores}
    row |= {"seconds": round(learner.elapsed(), 1), "best": is_best(row, learner.history, learner.config)}
    network = learner.eval_mode()
    if row["best"] and learner.accelerator.is_main_process:
        learner.best = {name: value.cpu().clone() for name, value in network.state_dict().items()}
    learner.history.append(row)


def is_best(row: dict[str, Any], history: list[dict[str, Any]], config: TrainingConfig) -> bool:
    """Whether this epoch's monitored score beats every earlier one that is defined.

    The first epoch is always the best yet.
    """
    sign = MONITORS[config.monitor]
    earlier = [sign * past[config.monitor] for past in history if not math.isnan(past[config.monitor])]
    return not history or all(sign * row[config.monitor] > score for score in earlier)


def kept_by_monitor(history: pd.DataFrame) -> pd.DataFrame:
    """The epoch that each monitor would have kept.

    Args:
        history: As `train` returns.

    Returns:
        One row for each quantity that can be monitored, with that epoch's scores; none for a quantity that is
        never defined, such as the lesion Dice of slices without any.
    """
    known = {name: sign for name, sign in MONITORS.items() if history[name].notna().any()}
    best = {name: (sign * history[name]).idxmax() for name, sign in known.items()}
    kept = history.loc[list(best.values()), ["epoch", *MONITORS]]
    return kept.set_index(pd.Index(best, name="monitor"))


def early_stop(history: list[dict[str, Any]], config: TrainingConfig) -> bool:
    """Whether the last `patience` epochs brought nothing better."""
    return len(history) > config.patience and not any(row["best"] for row in history[-config.patience :])


def describe(row: dict[str, Any], epochs: int) -> str:
    """One line for people about an epoch."""
    return (
        f"epoch {row['epoch']:2d}/{epochs}  loss {row['train_loss']:.3f}  val_loss {row['val_loss']:.3f}  "
        f"val_miou {row['val_miou']:.3f}  val_lesion_dice {row['val_lesion_dice']:.3f}  {row['seconds']:.0f} "
        "s" + ("  best so far" if row["best"] else "")
    )
