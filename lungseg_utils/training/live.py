"""What a training says of itself while it runs, in a small file: for who cannot see its progress bar."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lungseg_utils.core.files import InputError, atomic_write

if TYPE_CHECKING:
    from lungseg_utils.training.learner import Learner

LIVE = "checkpoint/live.json"  # in the run directory; it goes with the checkpoint
EVERY = 3.0  # seconds between two notes


class LiveNote:
    """Keeps LIVE up to date.

    It holds `epoch` of `epochs`, `step` of `steps` in that epoch, the mean `loss` of the epoch so far, and
    `seconds_left`, by the mean speed since this process began, validation included.

    Args:
        run_dir: The run directory.
        epochs: Of the whole training.
        steps: Of an epoch.
        done: Steps that an earlier process has done.
    """

    def __init__(self, run_dir: Path, epochs: int, steps: int, done: int):
        self.path, self.epochs, self.steps, self.done = run_dir / LIVE, epochs, steps, done
        self.started = self.written = time.monotonic()

    def after_step(self, learner: "Learner") -> None:
        """Write a note if it is time."""
        now = time.monotonic()
        if now - self.written < EVERY:
            return
        self.written = now
        taken = learner.epoch * self.steps + learner.step
        left = (self.epochs * self.steps - taken) * (now - self.started) / max(1, taken - self.done)
        sums = learner.tally.sums
        note = {
            "epoch": learner.epoch + 1,
            "epochs": self.epochs,
            "step": learner.step,
            "steps": self.steps,
            "loss": round(float(sums["loss"] / sums["slices"]), 4),
            "seconds_left": round(left),
        }
        with suppress(InputError), atomic_write(self.path) as handle:  # a full disk stops no training here
            json.dump(note, handle)
