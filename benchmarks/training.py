"""What each step away from the plain loop brings.

`python benchmarks/training.py [PREPARED_DIR] [--size 256] [--batch 24]`.

Prints a Markdown table. Each line adds one thing to the line above and runs in a process of its own, the
lines in turn for several rounds, so that a busy moment of the machine does not fall on one of them; the last
line is the package's own loop as it is by default. Without PREPARED_DIR a 512 px phantom is made. The table
is in benchmarks/training.md.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle
from pathlib import Path

PLAIN = {
    "layout": False,
    "memory": False,
    "fused": False,
    "workers": 0,
    "cudnn": False,
    "precision": "no",
    "lazy": False,
}
ON_CPU = {
    "channels_last": {"layout": True},
    "freed memory kept": {"memory": True},
    "fused AdamW": {"fused": True},
    "one worker loads": {"workers": 1},
}
ON_GPU = {
    "workers, pinned memory": {"workers": -1},
    "channels_last": {"layout": True},
    "cudnn.benchmark": {"cudnn": True},
    "{precision}": {"precision": None},
    "fused AdamW": {"fused": True},
    "no wait in a step": {"lazy": True},
}


def measure(arguments: argparse.Namespace, settings: dict | None) -> dict:
    """Seconds of each step, of them waiting for data, and the peak of memory in GB.

    Settings None: the package's loop.
    """
    import torch

    from lungseg_utils.core.device import choose_device
    from lungseg_utils.data.datasets import EpochBatches, SliceDataset, choose_workers, closing, make_loader
    from lungseg_utils.training.accelerator import keep_freed_memory, make_accelerator
    from lungseg_utils.training.config import TrainingConfig
    from lungseg_utils.training.learner import Learner
    from lungseg_utils.training.loop import run_epoch
    from lungseg_utils.training.losses import build_loss

    device = choose_device()
    config = TrainingConfig(encoder_weights="none", image_size=arguments.size, batch_size=arguments.batch)
    dataset = SliceDataset(arguments.prepared, "train", config.image_size, config.augmentation)
    batches = EpochBatches(len(dataset), config.batch_size, seed=0)
    workers = choose_workers(settings["workers"] if settings else config.workers, device)
    loader = make_loader(dataset, batches, workers, pin_memory=device.type == "cuda" and workers > 0)
    clock = Clock(loader, arguments.steps, device.type)
    if settings is None:
        learner = Learner(config, make_accelerator(device), steps=1_000)
        with closing(loader), keep_freed_memory():
            try:
                run_epoch(learner, clock, build_loss(config.loss), lambda: None)
            except Enough:
                return clock.result()
    learner = Learner(
        config, make_accelerator(replace(device, precision="no")), steps=1_000
    )  # the same network
    torch.backends.cudnn.benchmark = settings["cudnn"]  # which make_accelerator sets
    layout = torch.channels_last if settings["layout"] else torch.contiguous_format
    network = learner.network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-3, weight_decay=1e-4, fused=settings["fused"] or None
    )
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}
    precision = settings["precision"] or device.precision
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    total, network = 0.0, network.train()
    with closing(loader), keep_freed_memory() if settings["memory"] else nullcontext():
        try:
            for images, labels, _ in clock:
                images = images.to(device.type, memory_format=layout, non_blocking=settings["lazy"])
                labels = labels.to(device.type, non_blocking=settings["lazy"]).long()
                with torch.autocast(device.type, types[precision], enabled=precision != "no"):
                    logits = network(images).float()
                    loss = torch.nn.functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                total += loss.detach() if settings["lazy"] else loss.item()
        except Enough:
            return clock.result()


class Enough(Exception):
    """The steps to measure are done."""


class Clock:
    """A loader that goes on over the epochs and notes when a batch was asked for and when it came."""

    def __init__(self, loader, steps: int, device: str):
        self.loader, self.batch_sampler, self.steps, self.device = loader, self, steps, device
        self.asked, self.came, self.images = [], [], []

    def weights(self):
        return cycle([1.0])

    def __iter__(self):
        import torch

        while True:
            batches = iter(self.loader)
            while True:
                if self.device == "cuda" and len(self.asked) in (WARM, WARM + self.steps):
                    torch.cuda.synchronize()
                self.asked.append(time.perf_counter())
                if len(self.asked) > WARM + self.steps:
                    raise Enough
                batch = next(batches, None)
                if batch is None:
                    self.asked.pop()
                    break
                self.came.append(time.perf_counter())
                self.images.append(len(batch[0]))
                yield batch

    def result(self) -> dict:
        import torch

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        if self.device == "cuda":
            peak = torch.cuda.max_memory_allocated() / 1e9
        spans = range(WARM, WARM + self.steps)
        if self.device == "cuda":  # steps overlap: only the whole means something
            seconds = [(self.asked[-1] - self.asked[WARM]) / sum(self.images[WARM:])]
        else:
            seconds = [(self.asked[i + 1] - self.asked[i]) / self.images[i] for i in spans]
        waiting = sum(self.came[i] - self.asked[i] for i in spans) / (self.asked[-1] - self.asked[WARM])
        return {"seconds": seconds, "waiting": waiting, "peak": peak}


WARM = 2  # steps before the clock counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", nargs="?", help="what 02_preprocessing left")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--steps", type=int, default=4, help="in each round; 50 or more on a GPU")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, json.loads(arguments.one))))
        return

    from lungseg_utils.core.device import choose_device

    device, added = choose_device(), dict(PLAIN)
    lines = {"the plain loop": dict(PLAIN)}
    for name, setting in (ON_GPU if device.type == "cuda" else ON_CPU).items():
        added |= setting
        lines["+ " + name.format(precision=device.precision)] = dict(added)
    lines["**run_epoch, by default**"] = None
    with tempfile.TemporaryDirectory() as folder:
        arguments.prepared = arguments.prepared or make_phantom(Path(folder))
        found = {name: [] for name in lines}
        for _ in range(arguments.rounds):
            for name, settings in lines.items():
                numbers = [f"--{key}={getattr(arguments, key)}" for key in ("size", "batch", "steps")]
                command = [
                    sys.executable,
                    __file__,
                    str(arguments.prepared),
                    *numbers,
                    "--one",
                    json.dumps(settings),
                ]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, found[name][-1], file=sys.stderr)
    print(f"{device}; {arguments.size} px, batches of {arguments.batch}\n")
    print(
        "| | images/s | seconds for 895 slices | waiting for data, % | peak memory, GB | times the plain "
        "loop |"
    )
    print("|---|---|---|---|---|---|")
    first = None
    for name, rounds in found.items():
        seconds = statistics.median(second for one in rounds for second in one["seconds"])
        waiting, peak = (statistics.median(one[key] for one in rounds) for key in ("waiting", "peak"))
        first = first or seconds
        print(
            f"| {name} | {1 / seconds:.2f} | {895 * seconds:.0f} | {100 * waiting:.1f} | {peak:.1f} | "
            f"{first / seconds:.2f} |"
        )


def make_phantom(folder: Path) -> Path:
    """The default phantom, but of 512 px as the real slices, prepared."""
    from lungseg_utils.data.arrays import load_data
    from lungseg_utils.data.phantom import write_phantom
    from lungseg_utils.data.preprocessing import fit_preprocessing, prepare
    from lungseg_utils.data.splits import make_slices

    data = load_data(write_phantom(folder / "phantom", size=512))
    slices = make_slices(data)
    return prepare(data, slices, fit_preprocessing(data, slices), folder / "prepared")


if __name__ == "__main__":
    main()
