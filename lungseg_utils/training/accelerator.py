"""What the training loop stands on.

Accelerate on the chosen device, processes that agree, memory kept or run out of.
"""

import ctypes
import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import nn

from lungseg_utils.core.device import Device
from lungseg_utils.core.files import InputError, first_line
from lungseg_utils.training.config import TrainingConfig

# Variables by which launchers and clusters number their processes, as accelerate.state reads them.
LAUNCHERS = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_",
    "ROLE_",
    "MASTER_",
    "NODE_RANK",
    "TORCHELASTIC_",
    "FORK_LAUNCHED",
    "OMPI_",
    "PMI_",
    "PMIX_",
    "MPI_",
    "MV2_",
    "SLURM_",
    "CCL_",
)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
M_DEFAULTS = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 << 10, M_TOP_PAD: 128 << 10}  # mallopt(3)


@contextmanager
def own_settings(launched: bool | None = None) -> Iterator[None]:
    """Within, the environment says nothing that overrules the run's own settings.

    Accelerate reads its ACCELERATE_... variables before its arguments, and takes RANK, WORLD_SIZE and the
    like, which clusters and stale shells leave behind, for its launcher's.

    Args:
        launched: Whether a launcher has started this process as one of several; told from torch's elastic
            launcher, which `accelerate launch`, torchrun and notebook_launcher all use, if not given.
    """
    if launched is None:
        launched = torch.distributed.is_torchelastic_launched()
    before = dict(os.environ)
    for name in before:
        if name.startswith("ACCELERATE_") or (name.startswith(LAUNCHERS) and not launched):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if name not in os.environ})


def is_first_process() -> bool:
    """Whether this process is the one that writes; within `own_settings`."""
    return os.environ.get("RANK", "0") == "0"


def make_accelerator(device: Device, accumulation: int = 1) -> Accelerator:
    """Hugging Face Accelerate on this device in its precision.

    One of several processes if they were launched so.
    """
    # Else a notebook's second training could not have another device or precision than its first.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches but a few have one shape: try the algorithms once
    # SMP's EfficientNets have a last layer that a U-Net does not use, and a frozen encoder has no gradients
    # either.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=device.precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[unused],
    )


class _InFloat32:
    """A layer that autocast leaves alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())  # type: ignore[misc]  # of the layer that it is mixed into


def depthwise_in_float32(network: nn.Module) -> None:
    """Keep depthwise convolutions out of autocast.

    On a CPU their bfloat16 gradients take up to ten times as long.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.__class__ = type(type(module).__name__, (_InFloat32, type(module)), {})


def any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Each flag, true if it is so in any process.

    All processes must ask together; they wait for each other.
    """
    if accelerator.num_processes == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.int32, device=accelerator.device)
    return (accelerator.reduce(votes, "sum") > 0).tolist()


def share_buffers(accelerator: Accelerator, network: nn.Module) -> None:
    """Give every process the first one's running averages of batch norm.

    They must validate the same network.
    """
    if accelerator.num_processes > 1:
        for buffer in network.buffers():
            broadcast(buffer)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within, glibc's malloc keeps what is freed instead of giving it back to Linux.

    Elsewhere nothing changes.

    A step on a CPU frees and takes again gigabytes of activations. By default glibc maps many of them anew,
    and Linux has to clear every page (benchmarks/training.md says what that costs).
    """
    libc = ctypes.CDLL(None) if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc" else None
    if not libc:
        yield
        return
    for option, value in {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 256 << 20}.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in M_DEFAULTS.items():
            libc.mallopt(option, value)
        libc.malloc_trim(0)


@contextmanager
def memory_advice(config: TrainingConfig, processes: int = 1) -> Iterator[None]:
    """Turns running out of memory into an InputError that says how to keep the batch size nevertheless."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if "shared memory" in str(error) or "DataLoader worker" in str(error):
            raise InputError(
                f"A process that loads slices died ({first_line(error)}), often because /dev/shm is small; "
                "set workers to 0: "
                "the results are the same. For a container: docker run --shm-size=1g."
            ) from error
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        words = (
            "out of memory",
            "can't allocate memory",
            "ALLOC_FAILED",
        )  # of Metal, a CPU, cuBLAS and cuDNN
        if not known and not any(word in str(error) for word in words):
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps them, and with them the activations
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        pieces = config.accumulation * processes
        raise InputError(
            f"Out of memory with {config.batch_size} slices of {config.image_size} px in {pieces} "
            f"piece{'s' * (pieces > 1)}; set accumulation to {2 * config.accumulation}: about half the "
            "memory, and with "
            f"batch_size {config.batch_size} still the same effective batch."
        ) from error
