"""Stopping a run after the batch at hand: Ctrl-C, SIGTERM, the notebook's stop button, or a budget of minutes."""

import signal
import threading
import time
from types import FrameType

AGAIN = 2.0  # seconds: a launcher hands one stop on to its processes several times at once
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was stopped on request before its end, and all of it is saved. The message says how to go on."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]  # what IPython shows: where in the code it stopped is nobody's concern


class StopRequest:
    """While it is entered, a signal is noted in `reason`; a Ctrl-C some seconds after it interrupts at once.

    minutes: after these a reason appears by itself; 0: never. Only the main thread may receive signals: in another
    one the budget alone counts.
    """

    def __init__(self, minutes: float = 0.0):
        self.minutes, self.started = minutes, time.monotonic()
        self._signal: str | None = None
        self._handlers: dict[int, object] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, for people; None: go on."""
        if self.minutes and time.monotonic() - self.started > 60 * self.minutes:
            return f"max_minutes is {self.minutes:g}"
        return self._signal

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._handlers = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._noted = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._noted > AGAIN:
            raise KeyboardInterrupt


def outlive_signals(_: int = 0) -> None:
    """For a loader's workers: a signal to the whole group reaches them too, and the main process still needs its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGTERM, lambda *_: signal.alarm(10)
    )  # not for ever: it is also how a parent ends its workers
