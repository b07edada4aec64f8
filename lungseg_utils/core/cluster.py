"""Several processes at work: a Dask client, of this machine's own workers or of a scheduler elsewhere.

Dask comes with the extra `batch`. Only what needs a client imports it, so that all else works without.
"""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lungseg_utils.core.files import InputError, first_line, standing_path
from lungseg_utils.core.stopping import outlive_signals

if TYPE_CHECKING:
    from distributed import Client, Worker

EXTRA = 'pip install "lungseg[batch]" (in a checkout: pip install -e ".[batch]")'
CONNECT = 30  # seconds in which a scheduler has to answer
SETTINGS = {
    # A job starts processes of its own: a notebook's kernel, a loader's workers. Daemons must not.
    "distributed.worker.daemon": False,
    # Read again whenever a worker that died is started anew.
    "distributed.worker.preload": [__name__],
    # Dask's own value makes malloc give all memory back at once, and tensors take it anew each time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # What Dask measures of itself takes a tenth of a core; nobody looks at it here.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}


def has_dask() -> bool:
    """Whether the extra `batch` is installed."""
    return importlib.util.find_spec("distributed") is not None


def needs_dask(
    jobs: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
) -> bool:
    """Whether these options ask for more than this process can do.

    Args:
        jobs: How many at once on this machine; one if not given.
        scheduler: Address of a Dask scheduler, such as tcp://node7:8786.
        scheduler_file: The file that a scheduler wrote: `dask scheduler --scheduler-file FILE`.

    Returns:
        Whether Dask is needed.

    Raises:
        InputError: They contradict each other, or ask for Dask where it is not installed.
    """
    if scheduler and scheduler_file:
        raise InputError("found both --scheduler and --scheduler-file; expected one of them; leave one out")
    if jobs and (scheduler or scheduler_file):
        raise InputError(
            f"found --jobs {jobs} beside a scheduler, whose workers say themselves how many they take; "
            "expected one or the other; leave --jobs out"
        )
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs is {jobs}; expected a number from 1 on; say --jobs 1, or leave it out")
    wanted = bool(scheduler or scheduler_file) or (jobs or 1) > 1
    if wanted and not has_dask():
        raise InputError(
            f"more than one job, or a scheduler, takes Dask, which is not installed; expected the extra "
            f"batch: {EXTRA}; or say --jobs 1"
        )
    return wanted


@contextmanager
def dask_client(
    jobs: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
) -> Iterator["Client"]:
    """A Dask client, closed at the end.

    Without a scheduler it has `jobs` workers here, each a process with one thread, that may start processes
    of their own; one that dies is started anew. They outlive a Ctrl-C, which reaches the whole terminal, so
    that the caller can stop what they do in good order. Their names are the numbers from 0 on.

    Args:
        jobs: See `needs_dask`.
        scheduler: See `needs_dask`.
        scheduler_file: See `needs_dask`.

    Yields:
        The client.

    Raises:
        InputError: As `needs_dask`, or no scheduler answers.
    """
    needs_dask(jobs, scheduler, scheduler_file)
    import dask
    from distributed import Client, LocalCluster

    if not (scheduler or scheduler_file):
        options: dict[str, Any] = {"processes": True, "threads_per_worker": 1}
        options["dashboard_address"] = "127.0.0.1:0"  # any port that is free
        # No limit of memory: what a job needs, its own processes need.
        options |= {"memory_limit": 0, "silence_logs": logging.CRITICAL}
        with (
            dask.config.set(SETTINGS),
            LocalCluster(n_workers=jobs or 1, **options) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    if scheduler_file and not (file := standing_path(scheduler_file)).is_file():
        raise InputError(
            f"there is no {file}; expected the file that a scheduler writes; start one with "
            f"`dask scheduler --scheduler-file {scheduler_file}`"
        )
    place = {"address": scheduler} if scheduler else {"scheduler_file": str(file)}
    try:
        found = Client(**place, timeout=CONNECT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler or scheduler_file} ({first_line(error)}); expected one "
            "that runs, of the same version; start it, or correct the address"
        ) from error
    with found as client:
        yield client


def dask_setup(_: "Worker") -> None:
    """What Dask calls in each of this machine's workers when it starts."""
    outlive_signals()
