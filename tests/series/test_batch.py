"""Batches on four tiny notebooks: what is shared, skipped, tried again, stopped, gone on with, and said."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from helpers import LONG, wait_for
from nbformat.v4 import new_code_cell, new_notebook

from lungseg_utils.cli import main
from lungseg_utils.core.files import InputError, locked
from lungseg_utils.series import batch, job
from lungseg_utils.series.batch import RunOutcome, place_runs, run_batch
from lungseg_utils.series.job import Order, missing_notebooks
from lungseg_utils.series.plan import load_plan
from lungseg_utils.series.report import summarise
from lungseg_utils.series.run import find_notebooks, select_notebooks

PARAMETERS = {
    "01_look": 'data_dir: str = "phantom"\nrun_dir: str = "runs/tiny"\n',
    "02_prepare": 'data_dir: str = "phantom"\nrun_dir: str = "runs/tiny"\n'
    "clip_min: float = -1500.0\nseed: int = 0\n",
    "03_train": 'run_dir: str = "runs/tiny"\nloss: str = "cross_entropy"\n'
    "epochs: int = 2\nseed: int = 0\nworkers: int = -1\n",
    "04_results": 'run_dir: str = "runs/tiny"\nflip: bool = False\n',
}
# Each notebook leaves a line in `log` beside the notebooks; 03 waits as long as there is a file `wait`, and
# fails with the loss that a file `fail` names.
BODY = """\
import os, time
from pathlib import Path
here, run = Path.cwd(), Path(run_dir)
with open(here / "log", "a") as handle:
    handle.write(f"{stem} {{run.name}} {{os.environ['OMP_NUM_THREADS']}}\\n")
"""
BODIES = {
    "02_prepare": """\
(run / "prepared").mkdir(exist_ok=True)
(run / "prepared" / "a.npy").write_text(str(clip_min))
""",
    "03_train": """\
class Stopped(Exception): pass
(run / "begun").touch()
try:
    while (here / "wait").exists(): time.sleep(0.05)
except KeyboardInterrupt:
    raise Stopped("all is saved") from None
if (here / "fail").exists() and loss == (here / "fail").read_text():
    raise ValueError("no such luck")
(run / "model").mkdir(exist_ok=True); (run / "model" / "weights").write_text(f"{loss} {seed} {epochs}")
""",
}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Folder of the tiny series and its data, `data`; relative paths start at tmp_path."""
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for stem, parameters in PARAMETERS.items():
        cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        cells += [new_code_cell(BODY.format(stem=stem) + BODIES.get(stem, ""))]
        nbformat.write(new_notebook(cells=cells), folder / f"{stem}.ipynb")
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "images_medseg.npy", np.arange(3))
    return folder


def write_plan(tiny, text, data="data"):
    path = tiny.parent / "plan.yaml"
    path.write_text(f"{text}\nparameters: {{data_dir: {data}}}\n")
    return path


GRID = "grid:\n  loss: [cross_entropy, dice_cross_entropy]\nseeds: [0, 1]"


def logged(tiny):
    """(notebook, run directory) of all that ran since the last look."""
    lines = (tiny / "log").read_text().splitlines() if (tiny / "log").exists() else []
    (tiny / "log").unlink(missing_ok=True)
    return sorted(tuple(line.split()[:2]) for line in lines)


# --- plans ---


def test_a_grid_is_every_combination_named_by_what_differs(tiny):
    runs = load_plan(write_plan(tiny, GRID), tiny)
    assert [run.name for run in runs] == [
        "loss=cross_entropy,seed=0",
        "loss=cross_entropy,seed=1",
        "loss=dice_cross_entropy,seed=0",
        "loss=dice_cross_entropy,seed=1",
    ]
    assert len({run.fingerprint for run in runs}) == 4
    assert len({run.preparation for run in runs}) == 1  # 02's seed is only of its figures
    assert runs[1].parameters["epochs"] == 2 and runs[1].parameters["seed"] == 1


def test_explicit_runs_and_values_that_are_no_names(tiny):
    text = "runs:\n  - {loss: cross_entropy, clip_min: -1000}\n  - {loss: dice_cross_entropy, epochs: 3}"
    runs = load_plan(write_plan(tiny, text), tiny)
    assert [run.name for run in runs] == [
        "clip_min=-1000.0,loss=cross_entropy,epochs=2",
        "clip_min=-1500.0,loss=dice_cross_entropy,epochs=3",
    ]
    assert len({run.preparation for run in runs}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {}", "has 'gird'; did you mean grid"),
        ("grid: {los: [a]}", "no notebook has the parameter 'los'.*did you mean loss"),
        ("grid: {loss: focal}", "loss in .* is 'focal'; expected a list"),
        ("grid: {loss: [focal]}", "loss is 'focal'; expected one of cross_entropy"),
        ("seeds: [1, 1]", "seeds in .* has 1 twice"),
        ("seeds: []", "expected a list of values"),
        ("seeds: [a]", "seed is 'a' in .*; expected int"),
        ("grid: {seed: [1]}\nseeds: [1, 2]", "has seeds and sets seed too"),
        ("grid: {loss: [cross_entropy]}\nruns: [{epochs: 3}]", "has both grid and runs"),
        ("grid: {data_dir: [a, b]}", "has data_dir in parameters and in grid"),
        ("runs: [{epochs: 2}, {epochs: 2}]", "has {'epochs': 2} twice"),
        ("runs: [{epochs: 2}, {workers: -1}]", "runs 1 and 2 of .* are the same"),
        ("grid: {run_dir: [a, b]}", "sets run_dir; expected none"),
        ("profile: absent", "no profile 'absent'"),
    ],
)
def test_a_mistake_in_a_plan_is_one_sentence_before_anything_runs(tiny, text, message):
    with pytest.raises(InputError, match=message) as caught:
        run_batch(write_plan(tiny, text), "out", folder=tiny)
    assert "\n" not in str(caught.value)
    assert not (tiny.parent / "out").exists()


def test_a_run_is_known_by_its_data_and_parameters_not_by_their_place(tiny):
    [run] = load_plan(write_plan(tiny, ""), tiny)
    (tiny.parent / "data").rename(tiny.parent / "moved")
    [moved] = load_plan(write_plan(tiny, "", data="moved"), tiny)
    assert moved.fingerprint == run.fingerprint
    np.save(tiny.parent / "moved" / "images_medseg.npy", np.arange(4))
    [other] = load_plan(write_plan(tiny, "", data="moved"), tiny)
    assert other.preparation != run.preparation and other.fingerprint != run.fingerprint


def test_of_the_real_series_the_runs_have_what_is_not_prepared_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    (tmp_path / "plan.yaml").write_text("seeds: [0, 1]\nparameters: {data_dir: phantom}\n")
    monkeypatch.setattr("lungseg_utils.series.plan._data", lambda *_: ["the data"])
    [place, _] = place_runs(load_plan(tmp_path / "plan.yaml"), tmp_path / "out")
    chosen = select_notebooks(find_notebooks(), start=place.missing[0], end=place.missing[-1])
    assert [path.stem[:2] for path in chosen] == [stem[:2] for stem in place.missing] == ["03", "04", "05"]


# --- batches ---


HANGS = 3000  # seconds: far beyond any busy machine
ALONE, TWO = pytest.param(None, id="alone"), pytest.param(2, id="two jobs")


@pytest.fixture
def jobs(request, monkeypatch):
    """Without Dask, one after the other; with it, two at once."""
    if request.param is None:
        monkeypatch.setattr(batch, "has_dask", lambda: False)
    else:
        pytest.importorskip("distributed")
    return request.param


@pytest.mark.slow
@LONG
@pytest.mark.parametrize("jobs", [ALONE], indirect=True)
def test_what_is_common_is_made_once_and_what_is_finished_is_skipped(tiny, jobs):
    out = tiny.parent / "out"
    found = run_batch(write_plan(tiny, GRID), out, jobs=jobs, folder=tiny)
    assert [outcome.status for outcome in found] == ["finished"] * 4
    names = [outcome.place.run.name for outcome in found]
    [prepared] = (out / "prepared").iterdir()
    assert logged(tiny) == sorted(
        [("01_look", prepared.name), ("02_prepare", prepared.name)]
        + [(stem, name) for name in names for stem in ("03_train", "04_results")]
    )
    shared = prepared / "prepared" / "a.npy"
    for name in names:
        folder = out / "runs" / name
        assert (folder / "prepared" / "a.npy").samefile(shared)
        assert {path.name for path in (folder / "notebooks").glob("*.html")} == {
            f"{s}.html" for s in PARAMETERS
        }
        assert list(json.loads((folder / "run.json").read_text())["notebooks"]) == list(PARAMETERS)
    assert shared.stat().st_mode & 0o222 == 0
    assert (out / "runs" / names[3] / "model" / "weights").read_text() == "dice_cross_entropy 1 2"

    # The same plan again runs nothing; a grown one only what is new, whatever it calls the earlier runs.
    run_batch(write_plan(tiny, GRID), out, jobs=jobs, folder=tiny)
    assert logged(tiny) == []
    grown = write_plan(tiny, GRID.replace("grid:", "grid:\n  epochs: [2, 3]").replace("[0, 1]", "[0]"))
    found = run_batch(grown, out, jobs=jobs, folder=tiny)
    assert {name for _, name in logged(tiny)} == {
        "loss=cross_entropy,epochs=3",
        "loss=dice_cross_entropy,epochs=3",
    }
    assert found[0].place.folder.name == names[0]


@pytest.mark.slow
@LONG
@pytest.mark.parametrize("jobs", [TWO], indirect=True)
def test_a_failed_run_is_tried_once_more_and_ends_no_other(tiny, jobs):
    plan, out = write_plan(tiny, GRID.replace("[0, 1]", "[0]")), tiny.parent / "out"
    (tiny / "fail").write_text("dice_cross_entropy")
    found = run_batch(plan, out, jobs=jobs, folder=tiny)
    assert [outcome.status for outcome in found] == ["finished", "failed"]
    lines = found[1].error.splitlines()
    assert (
        "notebook 03_train failed" in lines[0] and lines[2] == "ValueError: no such luck" and len(lines) == 3
    )
    tries = [entry for entry in logged(tiny) if entry == ("03_train", "loss=dice_cross_entropy")]
    assert len(tries) == (2 if jobs else 1)
    record = json.loads((out / "batch.json").read_text())
    assert [run["status"] for run in record["runs"]] == ["finished", "failed"]

    (tiny / "fail").unlink()
    found = run_batch(plan, out, jobs=jobs, folder=tiny)
    assert [outcome.status for outcome in found] == ["finished"] * 2
    assert logged(tiny) == [(stem, "loss=dice_cross_entropy") for stem in ("03_train", "04_results")]


COMMAND = """\
import functools, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    from lungseg_utils import cli
    from lungseg_utils.series import batch
    folder, dask = Path(sys.argv.pop(1)), sys.argv.pop(1)
    batch.run_batch = functools.partial(batch.run_batch, folder=folder)
    if dask == "None":
        batch.has_dask = lambda: False
    cli.main(prog_name="lungseg")
"""


@pytest.fixture
def start(tiny, jobs):
    """Starts `lungseg batch plan.yaml` as a process of its own, and ends what is left of it."""
    script, started = tiny.parent / "command.py", []
    script.write_text(COMMAND)

    def begin(*options):
        many = ["--jobs", str(jobs)] if jobs else []
        command = [
            sys.executable,
            script,
            tiny,
            str(jobs),
            "batch",
            "plan.yaml",
            "--out",
            "out",
            *many,
            *options,
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            command,
            cwd=tiny.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.slow
@LONG
@pytest.mark.parametrize(
    ("jobs", "number"),
    [pytest.param(None, signal.SIGINT, id="alone"), pytest.param(2, signal.SIGTERM, id="two jobs")],
    indirect=["jobs"],
)
def test_a_stop_stops_all_in_good_order_and_the_same_command_goes_on(tiny, jobs, start, number):
    write_plan(tiny, "seeds: [0, 1]")
    (tiny / "wait").touch()
    process = start()
    wait_for(lambda: len(list(tiny.parent.glob("out/runs/*/begun"))) == (jobs or 1))
    process.send_signal(number)
    said, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 75, said
    begun = [path.parent for path in tiny.parent.glob("out/runs/*/begun")]
    for folder in begun:
        record = json.loads((folder / "run.json").read_text())
        assert record["notebooks"]["03_train"]["status"] == "stopped"
        assert "Stopped: " in record["notebooks"]["03_train"]["error"]
    (tiny / "wait").unlink()
    process = start()
    said, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 0, said
    folders = list((tiny.parent / "out" / "runs").iterdir())
    assert len(folders) == 2 and not any(missing_notebooks(f, ("03_train", "04_results")) for f in folders)


@pytest.mark.slow
@LONG
@pytest.mark.parametrize("jobs", [TWO], indirect=True)
def test_a_killed_command_leaves_no_process_and_goes_on(tiny, jobs, start):
    write_plan(tiny, "seeds: [0, 1]")
    (tiny / "wait").touch()
    process = start()
    wait_for(lambda: len(list(tiny.parent.glob("out/runs/*/begun"))) == (jobs or 1))
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    (tiny / "wait").unlink()
    assert not psutil.wait_procs(started, timeout=HANGS)[1]
    process = start()
    said, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 0, said


def test_runs_of_other_settings_under_the_same_name_are_kept(tiny):
    out = tiny.parent / "out"
    [run] = load_plan(write_plan(tiny, ""), tiny)
    taken = out / "runs" / run.name
    taken.mkdir(parents=True)
    (taken / "batch.json").write_text(json.dumps({"preparation": "other"}))
    (taken / "run.json").write_text(json.dumps({"parameters": run.parameters}))
    [place] = place_runs([run], out, tiny)
    assert place.folder.name == f"run~{run.fingerprint}" and place.state == "new"
    (taken / "batch.json").write_text(json.dumps({"preparation": run.preparation}))
    [place] = place_runs([run], out, tiny)
    assert place.folder == taken and place.state == "goes on"


def test_a_batch_folder_has_one_writer(tiny):
    with locked(tiny.parent / "out", "another", batch.BATCH_LOCK), pytest.raises(InputError, match="another"):
        run_batch(write_plan(tiny, ""), "out", folder=tiny)


def test_each_job_has_a_gpu_of_its_own(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match="jobs is 3, and this machine has 2 GPUs.*--jobs 2"):
        run_batch(write_plan(tiny, GRID), "out", jobs=3, folder=tiny)


# --- what a job is given ---


def order(**changes):
    values = dict(parameters={}, preparation="", source=None, stems=(), folder="", home="/home")
    return Order(run_dir="runs/a", **(values | changes))


def test_cores_are_shared_out_and_what_the_user_set_is_not_raised(monkeypatch):
    for name in (*job.THREADS, "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(job, "usable_cores", lambda: 8)
    shares = {
        jobs: job.job_environment(order(jobs=jobs), alone=True)["OMP_NUM_THREADS"] for jobs in (1, 2, 3, 16)
    }
    assert shares == {1: "8", 2: "4", 3: "2", 16: "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = job.job_environment(order(jobs=2), alone=True)
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("1", "4")
    assert environment["PYTHON_CPU_COUNT"] == "4" and environment["LUNGSEG_HOME"] == "/home"
    for odd, threads in (("2,1", "2"), ("0", "4"), ("many", "4")):
        monkeypatch.setenv("OMP_NUM_THREADS", odd)
        assert job.job_environment(order(jobs=2), alone=True)["OMP_NUM_THREADS"] == threads
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.parametrize(("visible", "expected"), [(None, "1"), ("4,7", "7"), ("GPU-a,GPU-b", "GPU-b")])
def test_a_worker_has_the_gpu_of_its_number(monkeypatch, visible, expected):
    distributed = pytest.importorskip("distributed")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=1, address="tcp://a:1"))
    assert job.job_environment(order(jobs=2, gpus=2), alone=False)["CUDA_VISIBLE_DEVICES"] == expected


def test_workers_of_a_scheduler_share_their_own_machine(monkeypatch):
    distributed = pytest.importorskip("distributed")
    for name in (*job.THREADS, "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(job, "usable_cores", lambda: 8)
    threads = {"tcp://a:1": 1, "tcp://a:2": 1, "tcp://b:1": 1}
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name="x", address="tcp://a:1"))
    monkeypatch.setattr(distributed, "get_client", lambda: SimpleNamespace(nthreads=lambda: threads))
    assert job.job_environment(order(jobs=0), alone=False)["OMP_NUM_THREADS"] == "4"


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    missing = replace(order(stems=("03_train",)), run_dir=str(tmp_path / "elsewhere" / "runs" / "a"))
    with pytest.raises(job.JobFailed, match="is not there on .*shared file system"):
        job.carry_out(missing, threading.Event(), alone=True)


# --- before and after ---


def test_a_dry_run_shows_what_is_done_and_what_the_rest_takes(tiny_phantom, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "parameters:\n  {encoder: resnet18, encoder_weights: none, image_size: 32, "
        f"data_dir: {tiny_phantom}}}\n{GRID}"
    )
    done = CliRunner().invoke(main, ["batch", str(plan), "--dry-run", "--jobs", "2"])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("loss=")]
    assert rows[0][:2] == ["loss=cross_entropy,seed=0", "new"] and len(rows) == 4
    assert "To do: 4 runs, 1 preparations" in done.output and "2 at a time" in done.output
    assert not (tmp_path / "runs").exists()


def test_the_page_says_what_became_of_each_run_and_escapes_it(tiny, tmp_path):
    out = tmp_path / "out"
    finished, failed = place_runs(load_plan(write_plan(tiny, "seeds: [0, 1]"), tiny), out, tiny)
    (finished.folder / "notebooks").mkdir(parents=True)
    (finished.folder / "notebooks" / "03_train.html").touch()
    notebooks = {"02_prepare": {"seconds": 500.0}, "03_train": {"seconds": 130.0}}
    (finished.folder / "run.json").write_text(json.dumps({"notebooks": notebooks}))
    outcomes = [
        RunOutcome(finished, "finished", 130.0),
        RunOutcome(failed, "failed", error="notebook 03 failed\ncell 4: a < b\nValueError: <x>"),
    ]
    said = summarise((tmp_path / "plan.yaml").read_text(), out, outcomes)
    page = (out / "batch.html").read_text()
    assert 'href="runs/seed=0/notebooks/03_train.html"' in page and ">2 min<" in page
    assert "cell 4: a &lt; b\nValueError: &lt;x&gt;" in page and "1 of 2 runs finished" in page
    assert "ValueError: <x>" in said and f"1 finished, 1 failed: {out / 'batch.html'}" in said
    assert "No comparison: " in said  # a stand-in has no scores
