"""What a batch will take, in time and on disk, before it is begun."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lungseg_utils.core.device import usable_cores
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.find import find_data, listed_folders
from lungseg_utils.data.splits import REFERENCE_VALIDATION
from lungseg_utils.model import build_model
from lungseg_utils.series.batch import Place
from lungseg_utils.series.job import run_seconds

# What a training's time depends on, beside its data.
COST = ("architecture", "encoder", "image_size", "growth", "epochs", "batch_size", "processes", "max_minutes")
VALIDATION = 1.15  # an epoch takes so many times what its training steps take; the rest is validation
AROUND = 60  # CPU seconds for the kernels, the figures and the results of a run; and for a preparation
FILES = 20e6  # bytes of a run beside its model: executed notebooks, pages, figures, results
TRIED = 2  # slices in a measured step


@dataclass(frozen=True)
class Estimate:
    """Of one run.

    Attributes:
        seconds: Of its job.
        size: Bytes that it adds on the disk.
        measured: Whether a finished run of the batch says so; else one step of such a network, here.
    """

    seconds: float
    size: float
    measured: bool


def estimate(places: Sequence[Place], jobs: int = 1) -> list[Estimate]:
    """What each run takes, as if it were new, with `jobs` of them sharing this machine.

    Args:
        places: From `place_runs`.
        jobs: At once.

    Returns:
        One a place.
    """
    known: dict[tuple, list[tuple[float, int]]] = {}
    for place in places:
        if not place.missing:
            took = (run_seconds(place.folder), _own_size(place.folder))
            known.setdefault(_cost(place), []).append(took)
    speeds: dict[tuple, tuple[float, float]] = {}
    found = []
    for place in places:
        if finished := known.get(_cost(place)):
            seconds, sizes = zip(*finished)
            found.append(Estimate(statistics.mean(seconds), statistics.mean(sizes), True))
            continue
        values = place.run.parameters
        network = (values["encoder"], values["architecture"], values["image_size"])
        if network not in speeds:
            speeds[network] = _measure(*network, jobs)
        a_slice, size = speeds[network]
        training = values["epochs"] * _slices(values) * a_slice * VALIDATION
        if values.get("max_minutes"):
            training = min(training, 60 * values["max_minutes"])
        found.append(Estimate(training + AROUND, size + FILES, False))
    return found


def preparation_size(parameters: dict[str, Any]) -> int:
    """Bytes of a prepared folder: int16 images, uint8 labels.

    Args:
        parameters: Of a run.
    """
    arrays = load_data(find_data(parameters["data_dir"]))
    pixels = [2 * image.size for image in arrays.images.values()]
    return sum(pixels) + sum(mask.shape[0] * mask.shape[1] * mask.shape[2] for mask in arrays.masks.values())


def _cost(place: Place) -> tuple:
    values = place.run.parameters
    return (place.run.preparation, *(values.get(name) for name in COST))


def _own_size(folder: Path) -> int:
    """Bytes of the files that no other run shares."""
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(about.st_size for about in files if about.st_nlink == 1)


def _slices(values: dict[str, Any]) -> int:
    """Training slices, near enough: a few that resemble validation slices are left out later."""
    arrays = load_data(find_data(values["data_dir"]))
    further = [load_data(folder) for folder in listed_folders(values.get("further_data", ""))]
    labelled = sum(len(mask) for one in (arrays, *further) for mask in one.masks.values())
    if values["split"] == "by_volume":
        return labelled - int((arrays.volumes == values["validation_volume"]).sum())
    return labelled - REFERENCE_VALIDATION


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(encoder: str, architecture: str, image_size: int, jobs: int) -> tuple[float, float]:
    """Seconds a slice of a step of such a network, the faster of two; bytes of two sets of its weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_model(encoder, "none", architecture).to(device)
    images = torch.zeros(TRIED, 1, image_size, image_size, device=device)
    took = []
    cores = min(int(os.environ.get("OMP_NUM_THREADS") or usable_cores()), max(1, usable_cores() // jobs))
    with _threads(cores):
        for _ in range(2):
            began = time.perf_counter()
            network(images).square().mean().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return min(took) / TRIED, 2 * weights
