"""Everything that a stopped training run needs to go on, in one file that is always whole."""

from pathlib import Path
from typing import Any

import torch

from lungseg_utils.files import InputError, atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write state (tensors, numbers, strings, lists and dicts of them) and torch's random states."""
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    with atomic_write(path, "wb") as handle:
        torch.save({**state, "random": random}, handle)


def load_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The state of an unfinished run with this configuration, random states restored; None if there is no such run.

    Raises InputError, naming the settings that differ, if the unfinished run had another configuration.
    """
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    differing = sorted(key for key in config | state["config"] if config.get(key) != state["config"].get(key))
    if differing:
        raise InputError(
            f"{path.parent} holds an unfinished run that differs in {', '.join(differing)}; expected the same settings: "
            "restore them to go on, choose another run_dir, or delete that folder to start again."
        )
    torch.set_rng_state(state["random"]["cpu"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random"]["cuda"])
    return state
