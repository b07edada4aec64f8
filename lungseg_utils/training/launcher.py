"""Starting a training.

In this process or on several GPUs from a notebook, and from the command line without one.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch
from accelerate import notebook_launcher
from accelerate.state import AcceleratorState, PartialState

from lungseg_utils.core.device import Device, choose_device
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.core.stopping import NOT_FINISHED, Stopped
from lungseg_utils.series.parameters import Parameter, check_parameters, load_profile
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

    The same files, result and exceptions.

    For notebooks (Kaggle's T4 x2): nothing may have used CUDA before. on_epoch is not called from other
    processes.
    """
    device = device or choose_device()
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
            name, text = json.loads(message.read_text())
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
            message.write_text(json.dumps([type(error).__name__, str(error)]))
        if not isinstance(error, Stopped):  # that ends all of them; a stop is agreed on
            raise


def train_alone(
    run_dir: str,
    prepared: str | None = None,
    profile: str | None = None,
    given: Mapping[str, str] | None = None,
) -> int:
    """Train without a notebook; under `accelerate launch`, as one of several processes.

    Args:
        run_dir: Where model/, history.csv and the checkpoint go.
        prepared: What 02_preprocessing left; prepared/ in the run directory if not given.
        profile: Name or file of a profile; what it says of other notebooks is left out.
        given: Settings as text; they win over the profile. The others have the reference recipe's values.

    Returns:
        The exit status: 0 finished; NOT_FINISHED stopped in good order; 1 it diverged; 2 bad input.
    """
    with own_settings():
        return _train_alone(run_dir, prepared, profile, dict(given or {}))


def _train_alone(run_dir: str, prepared: str | None, profile: str | None, given: dict[str, str]) -> int:
    declared = {f.name: Parameter(f.name, f.type.__name__, False, f.default) for f in fields(TrainingConfig)}
    try:
        settings = load_profile(profile) if profile else {}
        settings = {name: value for name, value in settings.items() if name in declared}
        values = check_parameters(declared, settings, f"profile {profile}")
        values |= check_parameters(declared, given, "-p")
        config, device = TrainingConfig(**values), choose_device()
        if PartialState(cpu=device.type == "cpu").is_main_process:
            print(device)
        train(prepared or resolve_path(run_dir) / "prepared", run_dir, config, device)
    except tuple(FOR_PEOPLE.values()) as error:
        if PartialState().is_main_process or not isinstance(error, Stopped):
            print(f"{'' if isinstance(error, Stopped) else 'error: '}{error}", file=sys.stderr)
        return {Stopped: NOT_FINISHED, InputError: 2}.get(type(error), 1)
    finally:
        PartialState().destroy_process_group()
    return 0
