"""Many runs: what a plan lists, in run directories of their own, a few at a time. `lungseg batch`.

Dask shares the jobs out, tries a failed one once more and gives those of a worker that died to another.
Without it, one after the other. Either way a job is what `series.job` makes of it.
"""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lungseg_utils.core.cluster import EXTRA, dask_client, has_dask, needs_dask
from lungseg_utils.core.files import InputError, atomic_write, first_line, locked, resolve_path
from lungseg_utils.series.job import MARK, Order, carry_out, missing_notebooks, read_record
from lungseg_utils.series.live import Lines, training_line
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.plan import PREPARING, PlannedRun, load_plan, run_fingerprint
from lungseg_utils.series.run import find_notebooks

TRIES_AGAIN = 1  # a failed job's second chance, Dask's `retries`
LOOK = 1.0  # seconds between two looks at the jobs
BATCH_LOCK = ".batch.lock"


@dataclass(frozen=True)
class Place:
    """A run of the plan, and where it is.

    Attributes:
        run: What is planned.
        folder: Its run directory.
        preparation: The run directory of its preparation.
        missing: The notebooks that are still to be run.
    """

    run: PlannedRun
    folder: Path
    preparation: Path
    missing: tuple[str, ...]

    @property
    def state(self) -> str:
        """What is done, in words."""
        if not self.missing:
            return "finished"
        return "goes on" if self.folder.exists() else "new"


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run.

    Attributes:
        place: The run.
        status: finished, stopped or failed.
        seconds: Of its job, in this call; None if it was finished before.
        error: Why it failed, in three lines.
    """

    place: Place
    status: str
    seconds: float | None = None
    error: str = ""


def place_runs(runs: Sequence[PlannedRun], out: Path, folder: Path = NOTEBOOKS) -> list[Place]:
    """Where each run of a plan is or will be.

    A run is known by its fingerprint, whatever its directory is called; a name that another run has is told
    apart by the fingerprint.

    Args:
        runs: From `load_plan`.
        out: The batch's folder.
        folder: The notebooks'.

    Returns:
        One a run, in their order.
    """
    known = {}
    for mark in sorted(out.glob(f"runs/*/{MARK}")):
        parameters = read_record(mark.parent / "run.json").get("parameters", {})
        known[run_fingerprint(parameters, read_record(mark).get("preparation", ""))] = mark.parent
    places = []
    stems = _stems(folder)
    for run in runs:
        own = known.get(run.fingerprint, out / "runs" / run.name)
        if run.fingerprint not in known and own.exists():
            own = own.with_name(f"{run.name}~{run.fingerprint}")
        missing = missing_notebooks(own, stems[1])
        places.append(Place(run, own, out / "prepared" / run.preparation, missing))
    return places


def _stems(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The notebooks that prepare, and those of each run."""
    # 00 teaches on slices of its own and leaves nothing for the others.
    stems = [path.stem for path in find_notebooks(folder) if path.stem.split("_")[0] >= PREPARING[0]]
    shared = tuple(stem for stem in stems if stem.split("_")[0] in PREPARING)
    return shared, tuple(stem for stem in stems if stem not in shared)


def run_batch(
    plan: str | Path,
    out: str | Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    folder: Path = NOTEBOOKS,
    retries: int = TRIES_AGAIN,
) -> list[RunOutcome]:
    """Carry out a plan: what its runs have in common once, then each run that is not finished.

    Args:
        plan: The YAML file, see `load_plan`.
        out: The batch's folder: prepared/, runs/, batch.json.
        jobs: How many at once on this machine; 1 if not given.
        scheduler: Address of a Dask scheduler.
        scheduler_file: The file that one wrote.
        folder: The notebooks'.
        retries: How often a failed job is tried again; Dask does it.

    Returns:
        What became of each run, in the plan's order. After a stop, all is in good order and the same call
        goes on.

    Raises:
        InputError: Before anything runs.
    """
    elsewhere = bool(scheduler or scheduler_file)
    dask_wanted = needs_dask(jobs, scheduler, scheduler_file)
    runs, out = load_plan(plan, folder), resolve_path(out)
    gpus = 0 if elsewhere else _count_gpus(jobs or 1)
    with locked(out, "lungseg batch", BATCH_LOCK):
        places = place_runs(runs, out, folder)
        _write_batch(out, plan, [RunOutcome(place, place.state) for place in places])
        todo = [place for place in places if place.missing]
        outcomes = {place.run.name: RunOutcome(place, "finished") for place in places if not place.missing}
        if todo:
            if not dask_wanted and not has_dask():
                print(f"One after the other; several at once and a second try take {EXTRA}", file=sys.stderr)
            common = {"folder": str(folder), "home": str(resolve_path(".")), "gpus": gpus}
            orders = _orders(todo, _stems(folder), common | {"jobs": 0 if elsewhere else jobs or 1})
            (out / "runs").mkdir(exist_ok=True)
            (out / "prepared").mkdir(exist_ok=True)
            crew = _crew(out, jobs, scheduler, scheduler_file, retries) if has_dask() else _alone()
            with crew as (submit, stop):
                outcomes |= _carry_out(todo, orders, submit, stop, done=len(outcomes), jobs=jobs)
        found = [outcomes[place.run.name] for place in places]
        _write_batch(out, plan, found)
    return found


def _count_gpus(jobs: int) -> int:
    """This machine's GPUs, asked without starting them, for several jobs to share; 0: one job may use all.

    Raises InputError for more jobs than there are.
    """
    if jobs == 1:
        return 0
    import torch

    gpus = torch.cuda.device_count()
    if 0 < gpus < jobs:
        raise InputError(
            f"jobs is {jobs}, and this machine has {gpus} GPU{'s' if gpus > 1 else ''}; expected one for "
            f"each job; say --jobs {gpus}, or hide them: CUDA_VISIBLE_DEVICES=-1"
        )
    return gpus


def _orders(
    todo: Sequence[Place], stems: tuple[tuple[str, ...], tuple[str, ...]], common: Mapping[str, Any]
) -> dict[Path, Order]:
    """By run directory: first the preparations that some run lacks, then the runs."""
    orders = {}
    for place in todo:
        if not place.folder.exists() and missing_notebooks(place.preparation, stems[0]):
            orders[place.preparation] = Order(
                run_dir=str(place.preparation),
                parameters=place.run.parameters,
                preparation=place.run.preparation,
                source=None,
                stems=stems[0],
                **common,
            )
    for place in todo:
        orders[place.folder] = Order(
            run_dir=str(place.folder),
            parameters=place.run.parameters,
            preparation=place.run.preparation,
            source=str(place.preparation),
            stems=stems[1],
            **common,
        )
    return orders


Submit = Callable[[Order], Any]  # to what concurrent.futures and Dask both call a future


@contextmanager
def _alone() -> Iterator[tuple[Submit, threading.Event]]:
    """One job after the other, without Dask."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield lambda order: pool.submit(carry_out, order, stop, alone=True), stop
        finally:
            stop.set()


@contextmanager
def _crew(
    out: Path, jobs: int | None, scheduler: str | None, scheduler_file: str | None, retries: int
) -> Iterator[tuple[Submit, Any]]:
    """Dask's workers. A job has the same key in each call, so one that a dead client left behind is found."""
    from distributed import Event

    with dask_client(jobs, scheduler, scheduler_file) as client:
        stop = Event(f"lungseg-stop-{out}", client=client)
        stop.clear()

        def submit(order: Order) -> Any:
            key = f"lungseg-run-{order.run_dir}"
            return client.submit(carry_out, order, stop, key=key, retries=retries, pure=False)

        yield submit, stop


def _carry_out(
    todo: Sequence[Place],
    orders: Mapping[Path, Order],
    submit: Submit,
    stop: Any,
    done: int,
    jobs: int | None,
) -> dict[str, RunOutcome]:
    """Preparations, then each run as soon as its own is there; by run name what became of it."""
    began, outcomes = time.time(), {}
    futures = {path: submit(order) for path, order in orders.items() if order.source is None}
    preparing, waiting = set(futures), {place.folder: place for place in todo}
    bar = tqdm(total=done + len(todo), initial=done, desc="runs", unit="run", disable=not sys.stderr.isatty())
    lines = Lines(jobs or 8)
    broken: dict[Path, dict[str, Any]] = {}
    running: dict[Path, Place] = {}

    def end(place: Place, outcome: RunOutcome) -> None:
        outcomes[place.run.name] = outcome
        bar.update()
        took = f" in {outcome.seconds:.0f} s" if outcome.seconds else ""
        count = f"{done + len(outcomes)} of {done + len(todo)}"
        tqdm.write(f"{count}: {place.run.name} {outcome.status}{took}", file=sys.stderr)

    def start_what_can() -> None:
        for path, place in list(waiting.items()):
            source = place.preparation
            if source in broken:
                end(waiting.pop(path), RunOutcome(place, **broken[source]))
            elif source not in preparing:
                futures[path] = submit(orders[path])
                running[path] = waiting.pop(path)

    try:
        while futures or waiting:
            start_what_can()
            for path in [path for path, future in futures.items() if future.done()]:
                found = _result(futures.pop(path))
                if path in running:
                    place = running.pop(path)
                    end(place, RunOutcome(place, **found))
                else:
                    preparing.discard(path)
                    if found["status"] == "finished":
                        _read_only(path)
                    else:
                        broken[path] = found
            lines.show([line for path in futures if (line := _line(path, began))])
            time.sleep(LOOK)
    except KeyboardInterrupt:
        stop.set()
        tqdm.write("stopping: each run saves what it has ...", file=sys.stderr)
        while not all(future.done() for future in futures.values()):
            time.sleep(LOOK)
        for path, future in futures.items():
            if path in running:
                end(running[path], RunOutcome(running[path], **_result(future)))
        for place in todo:
            outcomes.setdefault(place.run.name, RunOutcome(place, "stopped"))
    finally:
        lines.close()
        bar.close()
    return outcomes


def _result(future: Any) -> dict[str, Any]:
    """status, seconds and error of a job that is done."""
    try:
        error = future.exception()
    except Exception as cancelled:  # its scheduler is gone
        error = cancelled
    if error is not None:
        return {"status": "failed", "error": str(error) or first_line(error)}
    found = future.result()
    return {"status": found["status"], "seconds": found.get("seconds")}


def _line(run_dir: Path, began: float) -> str:
    """One line about a running job; empty as long as it has not begun."""
    path = run_dir / "run.json"
    try:
        if path.stat().st_mtime < began:
            return ""
    except OSError:
        return ""
    entries = read_record(path).get("notebooks", {})
    now = [stem for stem, entry in entries.items() if entry.get("status") == "running"]
    name = run_dir.name if run_dir.parent.name == "runs" else "prepared"
    return f"  {name}: {now[0]} {training_line(run_dir, began)}".rstrip() if now else ""


def _read_only(preparation: Path) -> None:
    """Nobody writes into what several runs share: their files are the same ones."""
    for file in (preparation / "prepared").glob("*"):
        file.chmod(0o444)


def _write_batch(out: Path, plan: str | Path, outcomes: Sequence[RunOutcome]) -> None:
    record = {
        "schema": 1,
        "plan": str(plan),
        "runs": [
            {
                "name": outcome.place.run.name,
                "folder": outcome.place.folder.relative_to(out).as_posix(),
                "fingerprint": outcome.place.run.fingerprint,
                "preparation": outcome.place.run.preparation,
                "status": outcome.status,
                "seconds": outcome.seconds,
                "error": outcome.error,
            }
            for outcome in outcomes
        ],
    }
    with atomic_write(out / "batch.json") as handle:
        json.dump(record, handle, indent=2)


def free_space(out: Path) -> int:
    """Bytes that are free where the batch's folder is or will be."""
    place = next(path for path in (out, *out.parents) if path.exists())
    return shutil.disk_usage(place).free
