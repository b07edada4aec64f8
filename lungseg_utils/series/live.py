"""How far a training is, read from the note that it leaves in its run directory."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from lungseg_utils.training.live import LIVE

LOOK = 1.0  # seconds between two looks
LOG = 60.0  # seconds between two lines where the screen is a file


def training_line(run_dir: Path, since: float = 0.0) -> str:
    """Epoch, loss and time left of the training that runs there; empty if none does.

    Args:
        run_dir: The run directory.
        since: Notes that are older, in seconds since 1970, are a killed training's.
    """
    path = run_dir / LIVE
    try:
        if path.stat().st_mtime < since:
            return ""
        note = json.loads(path.read_text(encoding="utf-8"))
        return (
            f"epoch {note['epoch']}/{note['epochs']}, step {note['step']}/{note['steps']}, "
            f"loss {note['loss']:.3f}, {in_minutes(note['seconds_left'])} left"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def in_minutes(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextmanager
def showing(run_dir: Path) -> Iterator[None]:
    """Within, a line below papermill's bar says how far the training in run_dir is."""
    began, over = time.time(), threading.Event()
    lines = Lines(1)

    def look() -> None:
        while not over.wait(LOOK):
            if line := training_line(run_dir, began):
                lines.show([f"  {line}"])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        lines.close()


class Lines:
    """Some lines on the screen that change; where the screen is a file, all of them once a minute.

    Args:
        count: How many, below the bar that is there.
    """

    def __init__(self, count: int):
        self.alive, self.said = sys.stderr.isatty(), 0.0
        self.bars: list[tqdm] = []
        self.count = count

    def show(self, texts: list[str]) -> None:
        """These lines instead of the last ones; those without a place are left out."""
        if not self.alive:
            if texts and time.monotonic() - self.said > LOG:
                self.said = time.monotonic()
                tqdm.write("\n".join(texts), file=sys.stderr)
            return
        while len(self.bars) < self.count:  # not before there is something to say
            self.bars.append(tqdm(bar_format="{desc}", position=len(self.bars) + 1, leave=False))
        for bar, text in zip(self.bars, [*texts, *[""] * self.count]):
            bar.set_description_str(text[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Clear the lines."""
        for bar in self.bars:
            bar.close()
