"""What belongs together is used together.

A model and the prepared slices beside it, by their fingerprints.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.core.language import marked as N_
from lungseg_utils.data.preprocessing import FINGERPRINT_LENGTH, fingerprint
from lungseg_utils.inference.pretrained import read_history

OTHER_SLICES = N_(
    "This model has learned from other prepared slices: **what is validated here may have been among them**, "
    "whatever the split of this run directory says."
)
UNNAMED_SLICES = N_(
    "This model has learned from slices that it does not name: **what is validated here may have been among "
    "them**, whatever the split of this run directory says."
)


@dataclass(frozen=True)
class Tie:
    """Of what results are.

    prepared: fingerprint of the prepared slices; weights: checksum of the model's; doubt: in one English
    sentence, why the split of these slices says nothing about this model; None for a model that learned from
    just these.
    """

    prepared: str
    weights: str
    doubt: str | None


def check_tie(model_dir: str | Path, run_dir: str | Path) -> Tie:
    """Tie a model to the prepared slices of a run directory.

    Raises InputError if the run's own model has learned from other slices than those that now lie beside it:
    they may be the very ones on which it is scored; and if the history beside it is another training's.
    """
    model_dir, run_dir = resolve_path(model_dir), resolve_path(run_dir)
    here = fingerprint(run_dir / "prepared")
    config = read_config(model_dir)
    learned, *before = learned_from(config)
    known, doubt = len(learned) == FINGERPRINT_LENGTH, None
    own = model_dir == run_dir / "model"
    if own and known and learned != here:
        raise InputError(
            f"{model_dir} has learned from other slices than {run_dir / 'prepared'} holds now (fingerprint "
            f"{learned}, now "
            f"{here}), maybe from those that are scored; run 03_training again, or 02_preprocessing as it "
            "was before."
        )
    if own:
        _check_history(model_dir, run_dir, config)
    if {learned, *before} != {here}:
        doubt = OTHER_SLICES if known else UNNAMED_SLICES
    return Tie(here, config.get("weights_sha256", ""), doubt)


def learned_from(config: dict[str, Any]) -> list[str]:
    """Fingerprints of the prepared slices that a model has learned from.

    Its own first, then those of the model that its training began with, and so on. What names none is "None".
    """
    training = config["training"]
    return [str(training.get("prepared")), *training.get("prepared_before", [])]


def _check_history(model_dir: Path, run_dir: Path, config: dict[str, Any]) -> None:
    """Raises InputError if the run's history is of another training than the model: one was copied."""
    best = config.get("best_epoch")
    unfinished = (run_dir / "checkpoint" / "last.pt").exists()  # which load_model refuses
    if unfinished or not best or not (run_dir / "history.csv").exists():
        return
    history = read_history(model_dir)
    losses = history.val_loss[history.epoch == best["epoch"]]
    if not np.isclose(losses, best["val_loss"], equal_nan=True).any():
        raise InputError(
            f"{run_dir / 'history.csv'} is of another training than {model_dir}; expected the model's own; "
            "copy that there as well, or run 03_training again."
        )


def read_config(model_dir: Path) -> dict[str, Any]:
    """config.json of a model's folder. Raises InputError if it is missing, damaged or of something else."""
    path = model_dir / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return {**config, "training": dict(config.get("training", {}))}
    except FileNotFoundError:
        raise InputError(
            f"{model_dir} holds no trained model ({path.name}); run 03_training first."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a model's; run 03_training again."
        ) from error
