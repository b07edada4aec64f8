"""What waiting threads cost: seconds a training step, alone and beside other work, by how they wait.

    python benchmarks/threads.py runs/threads.csv [--rounds 3] [--seconds 8]

Each measurement is a process of its own, since the settings are read once, when OpenMP loads. Run it on a
machine that does nothing else. See benchmarks/threads.md.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import click
import pandas as pd

SETTINGS = {
    "OpenMP's own": {"GOMP_SPINCOUNT": "300000"},  # what libgomp takes where nothing is set
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "KMP_BLOCKTIME")
SIZES = {"demo": (128, 8), "best": (320, 4)}  # pixels a side, slices a step
BUSY = {"alone": 0, "beside 2": 2}  # other processes that compute


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--rounds", default=3)
@click.option("--seconds", default=8.0, help="Of each measurement, at least; two steps at least.")
@click.option("--size", "sizes", multiple=True, default=tuple(SIZES))
@click.option("--setting", "settings", multiple=True, default=tuple(SETTINGS))
def main(table: Path, rounds: int, seconds: float, sizes: tuple, settings: tuple) -> None:
    """Measure all settings in turn, so that what else the machine does meets all of them."""
    rows = []
    for number in range(rounds):
        for size in sizes:
            for load in (*BUSY, "beside a training"):
                for setting in settings:
                    row = measure(size, setting, load, seconds)
                    rows.append({"round": number, "size": size, "load": load, "setting": setting, **row})
                    click.echo(rows[-1])
                    pd.DataFrame(rows).to_csv(table, index=False)
    values = pd.DataFrame(rows).groupby(["size", "load", "setting"], sort=False)[["seconds", "cpu"]].median()
    click.echo(values.round(3).to_string())


def measure(size: str, setting: str, load: str, seconds: float) -> dict[str, float]:
    """Seconds and CPU seconds of a step in a process of its own; of one of two alike beside a training."""
    with busy(BUSY.get(load, 0)):
        steps = [start(size, setting, seconds) for _ in range(2 if load == "beside a training" else 1)]
        answers = [process.communicate()[0].split() for process in steps]
    wall, cpu = map(float, answers[0])
    return {"seconds": wall, "cpu": cpu, "load average": os.getloadavg()[0]}


def start(size: str, setting: str, seconds: float) -> subprocess.Popen:
    """A process that trains and prints two numbers."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN}
    command = [sys.executable, __file__, "step", *map(str, SIZES[size]), str(seconds)]
    return subprocess.Popen(
        command, env={**environment, **SETTINGS[setting]}, stdout=subprocess.PIPE, text=True
    )


def step(side: int, batch: int, seconds: float) -> None:
    """Train for some seconds; print seconds and CPU seconds of a step."""
    import torch

    from lungseg_utils.model import build_model

    network = build_model("tu-tf_efficientnet_lite2", "none").train()
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 1, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 4, (batch, side, side))
    optimizer, count = torch.optim.AdamW(network.parameters()), -1  # the first step is not counted
    began = cpu = 0.0
    while count < 2 or time.perf_counter() - began < seconds:
        if count == 0:
            began, cpu = time.perf_counter(), time.process_time()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        count += 1
    print((time.perf_counter() - began) / count, (time.process_time() - cpu) / count)


@contextmanager
def busy(number: int):
    """Within, so many other processes compute."""
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(number)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def spin() -> None:
    """One core's worth of work."""
    while True:
        sum(range(10_000))


if __name__ == "__main__":
    if sys.argv[1] == "step":
        step(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
