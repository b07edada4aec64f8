"""True trainings in a batch: a worker that is killed in the middle changes no bit of any result."""

import json
import threading
from dataclasses import asdict, replace

import nbformat
import psutil
import pytest
import torch
from helpers import CPU, LONG, TINY_CONFIG, wait_for
from nbformat.v4 import new_code_cell, new_notebook

from lungseg_utils.series.batch import run_batch
from lungseg_utils.training.loop import train

SEEDS = (0, 1)
CONFIG = replace(TINY_CONFIG, epochs=40, patience=40)
RUN = 'run_dir: str = "runs/a"\n'
NOTEBOOKS = {
    "01_eda": ('data_dir: str = "phantom"\n' + RUN, "pass"),
    "02_preprocessing": (
        'data_dir: str = "phantom"\n' + RUN,
        """\
from lungseg_utils import data
arrays = data.check_data(data.find_data(data_dir)).arrays
slices = data.make_slices(arrays)
data.prepare(arrays, slices, data.fit_preprocessing(arrays, slices), f"{run_dir}/prepared")""",
    ),
    "03_training": (
        RUN + "seed: int = 0\n",
        f"""\
from dataclasses import replace
from pathlib import Path
from lungseg_utils.core.device import Device
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train
Path(run_dir, "kernel").write_text(str(os.getpid()))
config = TrainingConfig(**{asdict(CONFIG)!r})
train(f"{{run_dir}}/prepared", run_dir, replace(config, seed=seed), Device("cpu", "tests", "tests"))""",
    ),
    "04_results": (RUN, "pass"),
}


@pytest.mark.slow
@LONG
def test_a_worker_killed_in_mid_training_changes_no_bit(tiny_phantom, prepared_dir, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for stem, (parameters, source) in NOTEBOOKS.items():
        cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(source)]
        nbformat.write(new_notebook(cells=cells), folder / f"{stem}.ipynb")
    (tmp_path / "plan.yaml").write_text(f"parameters: {{data_dir: {tiny_phantom}}}\nseeds: {list(SEEDS)}")
    victim = tmp_path / "out" / "runs" / "seed=1"

    def kill_one() -> None:
        """The worker that trains seed 1, as soon as an epoch is saved."""
        wait_for((victim / "checkpoint" / "last.pt").exists)
        kernel = psutil.Process(int((victim / "kernel").read_text()))
        _, worker, *_ = kernel.parents()  # its job, and who started that
        worker.kill()
        killed.append(worker.pid)

    killed: list[int] = []
    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    found = run_batch(tmp_path / "plan.yaml", tmp_path / "out", jobs=2, folder=folder)
    killer.join(60)
    assert killed and [outcome.status for outcome in found] == ["finished"] * 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed in SEEDS:
        train(prepared_dir, tmp_path / f"alone-{seed}", replace(CONFIG, seed=seed), CPU)
        own, alone = tmp_path / "out" / "runs" / f"seed={seed}", tmp_path / f"alone-{seed}"
        for name in ("weights", "last"):
            file = f"model/{name}.safetensors"
            assert (own / file).read_bytes() == (alone / file).read_bytes(), (seed, name)
    torch.set_num_threads(threads)
    copies = json.loads((victim / "notebooks" / "03_training.ipynb").read_text())
    said = "".join("".join(o.get("text", "")) for cell in copies["cells"] for o in cell.get("outputs", ()))
    assert "Going on after epoch" in said
