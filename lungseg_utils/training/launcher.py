"""Starting a training: in this process, or on several GPUs from a notebook."""

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from accelerate import notebook_launcher
from accelerate.state import AcceleratorState, PartialState

from lungseg_utils.core.device import Device, choose_device
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.core.stopping import Stopped
from lungseg_utils.training.accelerator import own_settings
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train

# A sentence says all of these.
FOR_PEOPLE = {error.__name__: error for error in (InputError, Stopped, FloatingPointError)}


def launch(
    processes: int,
    prepared_dir: str | Path,
    run_dir: str | Path,
    config: TrainingConfig,
    device: Device | None = None,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
) -> pd.DataFrame:
    """`train` here, or, with more than one process, each on a GPU of its own.

    The same files, result and exceptions. For notebooks (Kaggle's T4 x2): nothing may have used CUDA before.

    Args:
        processes: How many; 0: one for each GPU.
        prepared_dir: See `train`.
        run_dir: See `train`.
        config: See `train`.
        device: See `train`.
        on_epoch: See `train`; not called from other processes.

    Returns:
        The history, one row an epoch.
    """
    device = device or choose_device()
    processes = processes or device.count
    with own_settings(launched=False):
        if processes == 1:
            return train(prepared_dir, run_dir, config, device, on_epoch)
        return _launch_several(processes, prepared_dir, run_dir, config, device)


def _launch_several(
    processes: int, prepared_dir: str | Path, run_dir: str | Path, config: TrainingConfig, device: Device
) -> pd.DataFrame:
    if not 1 <= processes <= device.count:
        raise InputError(
            f"processes is {processes}, and training runs on {device.count} {device.type} device(s), one "
            "process on each; "
            f"set processes to a number from 1 to {device.count}."
        )
    if "fork" not in multiprocessing.get_all_start_methods():
        raise InputError(
            f"processes is {processes}, and Windows starts none from a notebook; set processes to 1, or use "
            f"`accelerate launch --multi_gpu --num_processes {processes} -m lungseg_utils train`."
        )
    if torch.cuda.is_initialized():
        raise InputError(
            f"processes is {processes}, but this notebook has used a GPU already; restart the kernel and run "
            "it again."
        )
    AcceleratorState._reset_state(
        reset_partial_state=True
    )  # an earlier training of this notebook's own process
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "message.json"
        arguments = (prepared_dir, run_dir, config, device, message)
        try:
            notebook_launcher(
                _one_of_several, arguments, num_processes=processes, mixed_precision=device.precision
            )
        except (Exception, KeyboardInterrupt):
            if not message.exists():
                raise
        if message.exists():
            name, text = json.loads(message.read_text(encoding="utf-8"))
            raise FOR_PEOPLE[name](text)
    return pd.read_csv(resolve_path(run_dir) / "history.csv")


def _one_of_several(
    prepared_dir: Path, run_dir: Path, config: TrainingConfig, device: Device, message: Path
) -> None:
    torch.set_num_threads(1)  # GNU's OpenMP hangs with more in a process forked from one that has used it
    try:
        train(prepared_dir, run_dir, config, device)
    except tuple(FOR_PEOPLE.values()) as error:
        if PartialState().is_main_process or not isinstance(error, Stopped):
            message.write_text(json.dumps([type(error).__name__, str(error)]), encoding="utf-8")
        if not isinstance(error, Stopped):  # that ends all of them; a stop is agreed on
            raise
