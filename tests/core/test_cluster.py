"""Which options ask for Dask, what contradicts itself, and how this machine's own workers behave."""

import os
import signal
import subprocess
import sys

import pytest

from lungseg_utils.core import cluster
from lungseg_utils.core.cluster import dask_client, needs_dask
from lungseg_utils.core.files import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "tcp://a:1", "scheduler_file": "b"}, "both --scheduler and --scheduler-file"),
        ({"jobs": 2, "scheduler": "tcp://a:1"}, "--jobs 2 beside a scheduler"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        needs_dask(**options)


def test_one_job_needs_no_dask_and_more_say_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "has_dask", lambda: False)
    assert not needs_dask() and not needs_dask(1)
    for options in ({"jobs": 2}, {"scheduler": "tcp://a:1"}):
        with pytest.raises(InputError, match=r'pip install "lungseg\[batch\]".*or say --jobs 1'):
            needs_dask(**options)


def test_a_scheduler_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "CONNECT", 1)
    for options, message in (
        ({"scheduler": "tcp://127.0.0.1:9"}, "no Dask scheduler answers"),
        ({"scheduler_file": str(tmp_path / "none.json")}, "there is no .*none.json"),
    ):
        with pytest.raises(InputError, match=message), dask_client(**options):
            pass


def in_a_worker():
    child = subprocess.run(
        [sys.executable, "-c", "print('child')"], capture_output=True, text=True, check=True
    )
    return os.getpid(), child.stdout, signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.slow
def test_workers_are_processes_that_start_others_and_outlive_a_ctrl_c():
    pytest.importorskip("distributed")
    with dask_client(2) as client:
        assert sorted(worker["name"] for worker in client.scheduler_info()["workers"].values()) == [0, 1]
        pid, said, deaf = client.submit(in_a_worker).result()
    assert pid != os.getpid() and said == "child\n" and deaf
