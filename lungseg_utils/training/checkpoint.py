"""Everything that a stopped training run needs to go on, in one file that is always whole.

And when to write it.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lungseg_utils.core.files import InputError, atomic_write, first_line
from lungseg_utils.core.stopping import Stopped, StopRequest
from lungseg_utils.training.accelerator import any_process
from lungseg_utils.training.learner import Learner

PROGRESS = (
    "progress.json"  # beside the checkpoint, in words for who cannot open it: the epoch at hand and its steps
)
AGREE_EVERY = 10  # batches: several processes must wait for each other to agree that it is time


class Keeper:
    """Keeps one learner's checkpoint up to date, goes on from it, and ends the run when a stop is asked for.

    config: the settings on which the result depends. minutes: between two checkpoints within an epoch.
    """

    def __init__(
        self, path: Path, learner: Learner, config: dict[str, Any], minutes: float, stop: StopRequest
    ):
        self.path, self.learner, self.config, self.stop = path, learner, config, stop
        self.seconds, self.saved, self.batches = 60 * minutes, time.monotonic(), 0

    def resume(self) -> bool:
        """Whether there was a checkpoint to go on from.

        Raises InputError if only some of the processes see it.
        """
        state = load_checkpoint(self.path, self.config)
        [somewhere] = any_process(self.learner.accelerator, state is not None)
        if somewhere and not state:
            raise InputError(
                f"{self.path} is not there for every process; put run_dir on a disk that all machines share."
            )
        if state:
            try:
                self.learner.load_state_dict(state)
            except (
                Exception
            ) as error:  # what an older version or another program has left out or named otherwise
                raise InputError(
                    f"{self.path} does not fit this training ({first_line(error)}); delete "
                    f"{self.path.parent} to start again."
                ) from error
        return state is not None

    def save(self) -> None:
        """Write the checkpoint; all processes take part, the first one writes."""
        state = self.learner.state_dict()
        if self.learner.accelerator.is_main_process:
            save_checkpoint(self.path, {**state, "config": self.config})
            with atomic_write(self.path.with_name(PROGRESS)) as handle:
                json.dump({"epoch": len(self.learner.history) + 1, "step": self.learner.step}, handle)
        self.saved = time.monotonic()

    def after_batch(self) -> None:
        """After each step and each batch of validation: save if it is time.

        To stop, save and raise Stopped.
        """
        accelerator, step = self.learner.accelerator, self.learner.step
        self.batches += 1
        if accelerator.num_processes > 1 and self.batches % AGREE_EVERY:
            return
        due = time.monotonic() - self.saved > self.seconds
        stop, due = any_process(accelerator, self.stop.reason is not None, due)
        if stop or due:
            self.save()
        if stop:
            accelerator.wait_for_everyone()  # a launcher ends them all as soon as one has left
            raise Stopped(
                f"training ends here ({self.stop.reason or 'another process was told so'}), in epoch "
                f"{len(self.learner.history) + 1} after step {step}. Everything is saved in {self.path}: run "
                "the same "
                "training again and it goes on from there."
            )


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write state: tensors, numbers, strings, lists and dicts of them."""
    with atomic_write(path, "wb") as handle:
        torch.save(state, handle)


def load_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The state of an unfinished run with this configuration; None if there is no such run.

    Raises InputError, naming the settings that differ, if the unfinished run had another configuration.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        theirs = state["config"]
        differing = sorted(key for key in config | theirs if config.get(key) != theirs.get(key))
    except Exception as error:  # cut off, empty, another file: torch raises anything
        raise InputError(
            f"{path} is no checkpoint of a training, or is damaged ({first_line(error)}); expected a whole "
            "one; delete "
            f"{path.parent} to start again."
        ) from error
    if "prepared" in differing:
        raise InputError(
            f"{path.parent} holds an unfinished run that learned from other prepared slices (fingerprint "
            f"{theirs.get('prepared')}, now {config['prepared']}); run 02_preprocessing as it was to go on, "
            "choose another "
            "run_dir, or delete that folder to start again."
        )
    if differing:
        raise InputError(
            f"{path.parent} holds an unfinished run that differs in {', '.join(differing)}; expected the "
            "same settings: "
            "restore them to go on, choose another run_dir, or delete that folder to start again."
        )
    return state


def check_room(folder: Path, needed: int) -> None:
    """Raises InputError unless `folder` can be written and its disk has `needed` bytes free."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); choose a run_dir that can."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e6:.0f} MB free, and training writes up to {needed / 1e6:.0f} MB there; "
            "make room or "
            "choose a run_dir on another disk."
        )
