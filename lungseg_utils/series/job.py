"""The two ends of a job: what a worker does, and the process in which the notebooks of one run are run.

papermill is safe between processes, not between threads, and a kernel's threads and GPU are settled by its
environment: so each job is a process of its own, as `lungseg run` is. It lives as long as its standard input
is open: closing it is the way to stop, and a worker's death does it too.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from lungseg_utils.core.device import usable_cores
from lungseg_utils.core.files import InputError, atomic_write, first_line, in_words, replace_folder
from lungseg_utils.core.stopping import NOT_FINISHED, SIGNALS, stops_interrupt

LOOK = 1.0  # seconds between two looks at the wish to stop
PATIENCE = 300.0  # seconds that a job waits until an orphan of its run directory has saved and gone
OUTCOME, LOG = "job.json", "job.log"
MARK = "batch.json"  # in a run directory: its preparation
PROFILE = "profile.yaml"  # all its parameters; JSON is YAML, and loses no type
LINKED = ("prepared", "notebooks", "figures")  # what a run directory shares with its preparation
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class JobFailed(Exception):
    """A job's run failed, in its own three lines; Dask tries it again."""


class Wish(Protocol):
    """Of threading and of Dask: an event that means stop."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(frozen=True)
class Order:
    """What a job has to do.

    Attributes:
        run_dir: Where the results go.
        parameters: Of the series, by name.
        preparation: Fingerprint of what the run is prepared from.
        source: The preparation's run directory, whose files the run shares; None: this is a preparation.
        stems: The notebooks to run, in order.
        folder: Theirs.
        home: What relative paths start at.
        jobs: How many share this machine's cores; 0: as many as the scheduler's workers on it take.
        gpus: How many of this machine's GPUs the jobs share out; 0: none, or the worker's environment says.
    """

    run_dir: str
    parameters: dict[str, Any]
    preparation: str
    source: str | None
    stems: tuple[str, ...]
    folder: str
    home: str
    jobs: int = 1
    gpus: int = 0


def read_record(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def missing_notebooks(run_dir: Path, stems: tuple[str, ...]) -> tuple[str, ...]:
    """Those from the first on that has not finished there."""
    entries = read_record(run_dir / "run.json").get("notebooks", {})
    for place, stem in enumerate(stems):
        if entries.get(stem, {}).get("status") != "finished":
            return stems[place:]
    return ()


def run_seconds(run_dir: Path) -> float:
    """What the notebooks of a run took, those that prepare left out."""
    entries = read_record(run_dir / "run.json").get("notebooks", {})
    return sum(entry.get("seconds") or 0 for stem, entry in entries.items() if stem[:2] > "02")


def carry_out(order: Order, stop: Wish, *, alone: bool = False) -> dict[str, Any]:
    """Do the job in a process of its own. This is what a Dask worker is given.

    Args:
        order: What to do.
        stop: Set by whoever wants all jobs to stop in good order.
        alone: Without Dask.

    Returns:
        status, finished or stopped; seconds; cpu_seconds of the process and what it started.

    Raises:
        JobFailed: With what went wrong.
    """
    run_dir = Path(order.run_dir)
    if stop.is_set():
        return {"status": "stopped"}
    if not missing_notebooks(run_dir, order.stems):
        return {"status": "finished"}
    if not run_dir.parent.is_dir():
        raise JobFailed(
            f"{run_dir.parent} is not there on {platform.node()}; "
            "expected a folder that all machines share; put --out on a shared file system"
        )
    try:
        _set_up(order)
    except InputError as error:
        raise JobFailed(str(error)) from None
    began = time.monotonic()
    (run_dir / OUTCOME).unlink(missing_ok=True)
    with (run_dir / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **job_environment(order, alone)},
            start_new_session=True,  # a Ctrl-C at the terminal is the batch's to hand on
        )
    assert process.stdin is not None
    try:
        while process.poll() is None:
            if stop.is_set() and not process.stdin.closed:
                process.stdin.close()
            try:
                process.wait(LOOK)
            except subprocess.TimeoutExpired:
                continue
    finally:
        process.stdin.close()
    outcome = read_record(run_dir / OUTCOME)
    if outcome.get("status") not in ("finished", "stopped"):
        silence = f"its process ended without a word (exit status {process.returncode}); see {run_dir / LOG}"
        raise JobFailed(outcome.get("error") or silence)
    return outcome | {"seconds": round(time.monotonic() - began, 1)}


def _set_up(order: Order) -> None:
    """The run directory: new, it shares the files of its preparation, without a copy where that can be."""
    run_dir = Path(order.run_dir)
    if run_dir.exists():
        return
    with replace_folder(run_dir) as new:
        record: dict[str, Any] = {}
        if order.source:
            source = Path(order.source)
            for name in LINKED:
                if (source / name).is_dir():
                    shutil.copytree(source / name, new / name, copy_function=_hard_link)
            record = read_record(source / "run.json")
        values = {**order.parameters, "run_dir": str(run_dir)}
        record |= {"status": "pending", "parameters": values, "given": values}
        for name, content in ((PROFILE, order.parameters), (MARK, _mark(order)), ("run.json", record)):
            with atomic_write(new / name) as handle:
                json.dump(content, handle, indent=2)


def _mark(order: Order) -> dict[str, Any]:
    return {"preparation": order.preparation, "source": order.source}


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


def job_environment(order: Order, alone: bool) -> dict[str, str]:
    """Cores and GPU of this job, as its libraries read them."""
    jobs, place = order.jobs, 0
    if not alone:
        from distributed import get_client, get_worker

        worker = get_worker()
        if not jobs:
            host = worker.address.rpartition(":")[0]
            slots = get_client().nthreads().items()
            jobs = sum(threads for address, threads in slots if address.rpartition(":")[0] == host)
        elif order.gpus:
            place = int(worker.name)  # a local cluster counts its workers; a new one has the old number
    cores = max(1, usable_cores() // max(1, jobs))
    env = {name: str(_threads(os.environ.get(name, ""), cores)) for name in THREADS}
    env |= {"PYTHON_CPU_COUNT": str(cores), "LUNGSEG_HOME": order.home}
    if order.gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        gpus = [gpu for gpu in visible if gpu] or list(map(str, range(order.gpus)))
        env["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return env


def _threads(wanted: str, cores: int) -> int:
    """What a variable wants, no more than the cores; OpenMP takes a list, the first is of the outer level."""
    first = wanted.partition(",")[0]
    return min(cores, int(first)) if first.isdecimal() and int(first) else cores


def main(text: str) -> int:
    """The other end, in the job's own process: run the notebooks, make pages of them, leave OUTCOME.

    Args:
        text: An Order as JSON.

    Returns:
        The exit status, as `lungseg run` has it.
    """
    from lungseg_utils.series.run import NotebookError, NotebookStopped, run_series

    for number in SIGNALS:  # a worker ignores them
        signal.signal(number, signal.SIG_DFL)
    order = Order(**json.loads(text))
    run_dir, status, outcome = Path(order.run_dir), 0, {"status": "finished"}
    with stops_interrupt():
        threading.Thread(target=_stop_when_closed, daemon=True).start()
        try:
            missing = missing_notebooks(run_dir, tuple(order.stems))
            if missing:
                run_series(
                    profile=run_dir / PROFILE,
                    run_dir=str(run_dir),
                    start=missing[0],
                    end=order.stems[-1],
                    folder=Path(order.folder),
                    progress=False,
                    patience=PATIENCE,
                )
            _render(run_dir, order.stems)
        except (NotebookStopped, KeyboardInterrupt) as error:
            status, outcome = NOT_FINISHED, {"status": "stopped", "error": str(error)}
        except OSError as error:
            status, outcome = 2, {"status": "failed", "error": str(in_words(error))}
        except (InputError, NotebookError) as error:
            status, outcome = 1, {"status": "failed", "error": str(error)}
    spent = os.times()
    cpu = sum((spent.user, spent.system, spent.children_user, spent.children_system))
    with atomic_write(run_dir / OUTCOME) as handle:
        json.dump(outcome | {"cpu_seconds": round(cpu, 1)}, handle)
    return status


def _stop_when_closed() -> None:
    """Ends this process as SIGTERM does when its standard input is closed."""
    while os.read(0, 1):
        pass
    if os.name == "nt":
        signal.raise_signal(signal.SIGTERM)  # there, os.kill would be a kill
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _render(run_dir: Path, stems: tuple[str, ...] | list[str]) -> None:
    """The executed notebooks as pages, beside them; one that cannot be made is left out."""
    import nbformat
    from nbconvert import HTMLExporter

    for stem in stems:
        try:
            notebook = nbformat.read(run_dir / "notebooks" / f"{stem}.ipynb", as_version=4)
            page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
        except Exception as error:
            print(f"{stem} is not rendered: {first_line(error)}", file=sys.stderr)
            continue
        with atomic_write(run_dir / "notebooks" / f"{stem}.html") as handle:
            handle.write(page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
