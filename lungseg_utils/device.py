"""Which device to compute on, and why."""

import subprocess
import sys
from dataclasses import dataclass

import torch

# In a process of its own: a failed kernel poisons the CUDA context, and a notebook that has touched CUDA cannot
# launch one process per GPU afterwards.
PROBE = """
import torch
print(torch.cuda.get_device_name(), flush=True)
torch.nn.Conv2d(1, 8, 3).cuda()(torch.zeros(1, 1, 8, 8).cuda()).sum().item()
"""


@dataclass(frozen=True)
class Device:
    """type: what torch calls it (cuda, mps, cpu); name: of the hardware; reason: why it was chosen, for people."""

    type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.type} ({self.name}): {self.reason}"


def choose_device() -> Device:
    """The fastest device on which one small operation works; never an error, a CPU is always there."""
    if torch.cuda.device_count():  # asks the driver's library, and leaves CUDA itself alone
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
        name = probe.stdout.strip() or "a GPU"
        if probe.returncode == 0:
            return Device("cuda", name, "a small convolution ran on it")
        why = (probe.stderr.strip().splitlines() or ["no message"])[-1]
        return Device("cpu", cpu_name(), f"{name} is there, but a small convolution failed on it: {why}")
    if torch.backends.mps.is_available():
        return Device("mps", "Apple GPU", "Metal is available")
    return Device("cpu", cpu_name(), "torch sees no GPU")


def cpu_name() -> str:
    """How many threads torch computes with."""
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads != 1 else ''}"
