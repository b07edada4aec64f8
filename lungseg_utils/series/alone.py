"""A training without notebooks: `lungseg train`, alone or as one of several processes."""

import sys
from collections.abc import Mapping
from dataclasses import fields

from accelerate.state import PartialState

from lungseg_utils.core.device import choose_device
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.core.stopping import NOT_FINISHED, Stopped
from lungseg_utils.series.parameters import Parameter, check_parameters, load_profile
from lungseg_utils.training.accelerator import own_settings
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.launcher import FOR_PEOPLE
from lungseg_utils.training.loop import train


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


def training_config(profile: str | None, given: Mapping[str, object]) -> TrainingConfig:
    """The training settings of a profile and those that are given.

    Args:
        profile: Name or file of a profile; what it says of other notebooks is left out.
        given: Settings, also as text; they win over the profile. The others have the reference recipe's
            values.

    Returns:
        The settings.

    Raises:
        InputError: An unknown name, or a setting that cannot work.
    """
    declared = {
        f.name: Parameter(f.name, getattr(f.type, "__name__", str(f.type)), False, f.default)
        for f in fields(TrainingConfig)
    }
    settings = (
        {name: value for name, value in load_profile(profile).items() if name in declared} if profile else {}
    )
    values = check_parameters(declared, settings, f"profile {profile}")
    return TrainingConfig(**values | check_parameters(declared, given, "-p"))


def _train_alone(run_dir: str, prepared: str | None, profile: str | None, given: dict[str, str]) -> int:
    try:
        config, device = training_config(profile, given), choose_device()
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
