"""What a prediction costs on a CPU: `python benchmarks/inference.py [MODEL_DIR] [options]`.

PyTorch against OpenVINO, from HU to labels, on the phantom's slices of 512 px: first whole volumes, each in a
process of its own (seconds from loading the model on, compiling included; peak memory of the process, the
int16 volume included); then a few slices, all ways in turn, the best and the median round. The plain loop is
what PyTorch does without this package's care: the network takes the whole batch at a time, and NumPy finds
the largest of four probabilities.

Prints Markdown. MODEL_DIR: the shipped model, unless named. The table is in benchmarks/inference.md.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F

from lungseg_utils.core.device import Device, usable_cores
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.phantom import write_phantom
from lungseg_utils.inference.openvino import compile_network
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.inference.segmenter import PASS_PIXELS, Segmenter

CPU = Device("cpu", "benchmark", "asked for")
SIZE, BATCH, SLICES = 512, 8, 16
SENTENCE = (
    "CPU: {cores} cores, {threads} threads; {encoder}, {size} px, batches of {batch}; "
    "torch {torch}, OpenVINO {ov}."
)


def load(model_dir: str, backend: str, image_size: int | None) -> Segmenter:
    """The model, at its own size unless another is asked for."""
    segmenter = Segmenter.load(model_dir, CPU, backend=backend)
    config = {**segmenter.config, "image_size": image_size or segmenter.image_size}
    return replace(segmenter, config=config)


def volume(path: str, slices: int) -> np.ndarray:
    """(slices, 512, 512) int16 HU: the phantom's slices over and over."""
    few = np.load(path)
    return few[np.arange(slices) % len(few)]


@torch.inference_mode()
def plain_loop(segmenter: Segmenter, hu: np.ndarray) -> np.ndarray:
    """Labels (N, H, W), as one writes it first."""
    labels = []
    for k in range(0, len(hu), BATCH):
        logits = segmenter.model(segmenter.images(hu[k : k + BATCH]))
        probabilities = F.interpolate(logits, size=hu.shape[1:], mode="bilinear").softmax(1).numpy()
        labels.append(probabilities.argmax(1).astype(np.uint8))
    return np.concatenate(labels)


def run_volume(model_dir: str, path: str, backend: str, slices: int, image_size: int | None) -> None:
    """In a process of its own.

    Labels beside the phantom's slices, and seconds and peak memory (GB) to standard output.
    """
    hu = volume(path, slices)
    start = time.perf_counter()
    labels = load(model_dir, backend, image_size)(hu)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    np.save(Path(path).with_name(f"{backend}.npy"), labels)
    print(json.dumps({"seconds": seconds, "peak": peak}))


def interleaved(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds per slice of each job in each round, after one round that does not count."""
    times = {name: [] for name in jobs}
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(1000 * (time.perf_counter() - start) / SLICES)
    return {name: np.array(values[1:]) for name, values in times.items()}


@click.command(help=__doc__)
@click.argument("model_dir", default="pretrained")
@click.option("--image-size", type=int, help="of the network, where not the model's own")
@click.option("--slices", default=300, show_default=True, help="of the volume")
@click.option("--long", default=1000, show_default=True, help="slices of the long volume")
@click.option("--rounds", default=7, show_default=True)
@click.option(
    "--volume-of", nargs=2, hidden=True, help="the phantom's slices and the backend: this process is one row"
)
def main(
    model_dir: str,
    image_size: int | None,
    slices: int,
    long: int,
    rounds: int,
    volume_of: tuple[str, str] | None,
) -> None:
    model_dir = str(model_folder(model_dir, ""))
    if volume_of:
        run_volume(model_dir, *volume_of, slices, image_size)
        return
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(
            write_phantom(folder, medseg=SLICES, volumes=1, slices_per_volume=1, test=1, size=SIZE)
        )
        few = np.rint(data.images["medseg"]).astype(np.int16)
        path = Path(folder) / "few.npy"
        np.save(path, few)
        rows = {}
        # First, while this process is small: on Linux a process starts with the peak of the one that started
        # it.
        for backend, count in (("torch", slices), ("openvino", slices), ("auto", long)):
            command = [
                sys.executable,
                __file__,
                model_dir,
                "--slices",
                str(count),
                "--volume-of",
                str(path),
                backend,
            ]
            command += ["--image-size", str(image_size)] if image_size else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows[backend] = json.loads(done.stdout.splitlines()[-1])
        different = {name: np.load(path.with_name(f"{name}.npy"))[:slices] for name in rows}
        different = {name: np.mean(labels != different["torch"]) for name, labels in different.items()}

    segmenter = load(model_dir, "torch", image_size)
    size, compiled = segmenter.image_size, replace(segmenter, backend="openvino")
    compile_network(segmenter.model, size)  # the first time imports, too
    start = time.perf_counter()
    network = compile_network(segmenter.model, size)
    compiling = time.perf_counter() - start
    passes = segmenter.images(few).split(max(1, PASS_PIXELS // size**2))

    @torch.inference_mode()
    def forward(network: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for few_images in passes:
            network(few_images)

    times = interleaved(
        {
            "plain loop": lambda: plain_loop(segmenter, few),
            "PyTorch": lambda: segmenter(few),
            "OpenVINO": lambda: compiled(few),
            "network alone, PyTorch": lambda: forward(segmenter.model),
            "network alone, OpenVINO": lambda: forward(network),
        },
        rounds,
    )
    best = {name: values.min() for name, values in times.items()}
    config = json.loads((Path(model_dir) / "config.json").read_text())
    print(
        "| slices from HU to labels | best, ms per slice | median | times the plain loop | times PyTorch |\n"
        + 5 * "|---"
        + "|"
    )
    for name, values in times.items():
        whole = not name.startswith("network")
        reference = "PyTorch" if whole else "network alone, PyTorch"
        plain = f"{best['plain loop'] / best[name]:.2f}" if whole else ""
        print(
            f"| {name} | {best[name]:.1f} | {np.median(values):.1f} | {plain} | "
            f"{best[reference] / best[name]:.2f} |"
        )
    print(
        "\n| volume | slices | seconds | peak memory, GB | labels that differ from PyTorch's |\n"
        + 5 * "|---"
        + "|"
    )
    for (name, row), count in zip(rows.items(), (slices, slices, long)):
        print(
            f"| {name} | {count} | {row['seconds']:.1f} | {row['peak']:.2f} | {100 * different[name]:.5f} % |"
        )
    pays = 1000 * compiling / max(best["PyTorch"] - best["OpenVINO"], 1e-9)
    print(
        f"\nCompiling takes {compiling:.1f} s, won back after {pays:.0f} slices ({pays * size**2 / 1e6:.0f} "
        "million pixels)."
    )
    print(
        SENTENCE.format(
            cores=usable_cores(),
            threads=torch.get_num_threads(),
            encoder=config["encoder"],
            size=size,
            batch=BATCH,
            torch=torch.__version__,
            ov=version("openvino"),
        )
    )


if __name__ == "__main__":
    main()
