"""Stopping a run after the batch at hand.

Ctrl-C, SIGTERM, a closed terminal, the stop button, a budget of minutes.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN = 2.0  # seconds: a launcher hands one stop on to its processes several times at once
# A closed terminal sends SIGHUP, on Windows SIGBREAK.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
NOT_FINISHED = 75  # exit status of what was stopped in good order; EX_TEMPFAIL of sysexits.h: run it again


class Stopped(Exception):
    """The run was stopped on request before its end, and all of it is saved.

    The message says how to go on.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]  # what IPython shows: where in the code it stopped is nobody's concern


class StopRequest:
    """While it is entered, a signal is noted in `reason`; a Ctrl-C some seconds after it interrupts at once.

    minutes: after these a reason appears by itself; 0: never. Only the main thread may receive signals: in
    another one the budget alone counts.
    """

    def __init__(self, minutes: float = 0.0):
        self.minutes, self.started = minutes, time.monotonic()
        self._signal: str | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, for people; None: go on."""
        if self.minutes and time.monotonic() - self.started > 60 * self.minutes:
            return f"max_minutes is {self.minutes:g}"
        return self._signal

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in heeded()}
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


def heeded() -> list[int]:
    """The signals that stop a run. A closed terminal is none for who was started with nohup."""
    ignored = {number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
    return [
        number for number in SIGNALS if number not in ignored or number in (signal.SIGINT, signal.SIGTERM)
    ]


@contextmanager
def stops_interrupt() -> Iterator[list[int]]:
    """Within, each stop does what Ctrl-C does, so that what is half-written goes and a kernel is told.

    Main thread only. Yields the signals that came: after a closed terminal other errors may cover the
    KeyboardInterrupt.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    began = 0.0

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal began
        came.append(number)
        if len(came) > 1 and not (number == signal.SIGINT and time.monotonic() - began > AGAIN):
            return  # a closed terminal and a service manager send several for one stop
        began = time.monotonic()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in heeded()}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def outlive_signals(_: int = 0) -> None:
    """For a loader's workers.

    A signal to the whole group reaches them too, and the main process still needs its batch.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # SIGTERM not for ever: it is also how a parent ends its workers
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
