"""What the training loop stands on: Accelerate on the chosen device, agreement between processes, memory that is kept."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import nn

from lungseg_utils.device import Device
from lungseg_utils.files import InputError
from lungseg_utils.training_config import TrainingConfig

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
M_DEFAULTS = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 << 10, M_TOP_PAD: 128 << 10}  # mallopt(3)


def make_accelerator(device: Device, accumulation: int = 1) -> Accelerator:
    """Hugging Face Accelerate on this device in its precision; one of several processes if they were launched so."""
    # Else a notebook's second training could not have another device or precision than its first.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # all batches but a few have one shape: try the algorithms once
    # SMP's EfficientNets have a last layer that a U-Net does not use, and a frozen encoder has no gradients either.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=device.precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[unused],
    )


def any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Each flag, true if it is so in any process. All processes must ask together; they wait for each other."""
    if accelerator.num_processes == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.int32, device=accelerator.device)
    return (accelerator.reduce(votes, "sum") > 0).tolist()


def share_buffers(accelerator: Accelerator, network: nn.Module) -> None:
    """Give every process the first one's running averages of batch norm: they must validate the same network."""
    if accelerator.num_processes > 1:
        for buffer in network.buffers():
            broadcast(buffer)


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within, glibc's malloc keeps what is freed instead of giving it back to Linux; elsewhere nothing changes.

    A step on a CPU frees and takes again gigabytes of activations. By default glibc maps each anew, and the kernel has to
    clear every page: a quarter to a third of the step (benchmarks/training.md).
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
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        words = ("out of memory", "can't allocate memory")  # of Metal and of the CPU's allocator
        if type(error) is RuntimeError and not any(word in str(error) for word in words):
            raise
        pieces = config.accumulation * processes
        raise InputError(
            f"Out of memory: {config.batch_size} slices of {config.image_size} px in {pieces} piece{'s' * (pieces > 1)} "
            f"are too many at once; set accumulation to {2 * config.accumulation}, which needs about half the memory and "
            f"keeps the batch of {config.batch_size} (batch_size stays {config.batch_size})."
        ) from error
