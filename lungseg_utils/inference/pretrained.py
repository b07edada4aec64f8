"""The weights that come with the package.

A model folder like any other, in half precision, and how it is made.

The weights have a licence of their own, CC BY-NC-SA 4.0 (weights/LICENSE), as the Radiopaedia cases that they
learned from; the code is MIT.
"""

from pathlib import Path

import pandas as pd

from lungseg_utils.core.device import Device
from lungseg_utils.core.files import InputError, first_line, resolve_path
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
# Names that stand for a folder in WEIGHTS wherever a model is named: the best, and a member of it, fast
PRETRAINED = {"pretrained": "", "pretrained-small": "small"}


def pretrained_dir(name: str = "pretrained") -> Path:
    """The folder of a shipped model.

    Args:
        name: One of PRETRAINED.

    Returns:
        That of `pretrained` holds weights.safetensors (float16), config.json, history.csv, README.md (its
        card) and LICENSE.

    Raises:
        InputError: If this copy of the package has no weights, or for another name.
    """
    if name not in PRETRAINED:
        raise InputError(
            f"the shipped model is {name!r}; expected one of {', '.join(PRETRAINED)}; correct the name."
        )
    if not (WEIGHTS / "weights.safetensors").exists():
        raise InputError(
            "this copy of lungseg came without its weights; install it whole, or name a trained model's "
            "folder."
        )
    return WEIGHTS / PRETRAINED[name]


def model_folder(name: str | Path, run_dir: str | Path) -> Path:
    """The folder that a `model` parameter names.

    Args:
        name: A folder; empty for the run's own model, or one of PRETRAINED for a shipped one.
        run_dir: The run directory, for its own model.
    """
    if not name:
        return resolve_path(run_dir) / "model"
    return pretrained_dir(str(name)) if name in PRETRAINED else resolve_path(name)


def read_history(model_dir: Path) -> pd.DataFrame:
    """The history of the training that made a model.

    Args:
        model_dir: The model's folder; the history lies in it, as shipped, or in the run directory around it.

    Returns:
        One row an epoch.

    Raises:
        InputError: There is none, or it is no training's.
    """
    for path in (model_dir / "history.csv", model_dir.parent / "history.csv"):
        if path.exists():
            try:
                history = pd.read_csv(path)
                if history.empty or not {"epoch", "train_loss", "val_loss", "best"} <= {*history}:
                    raise ValueError("a column is missing, or all rows are")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path} is no training's ({first_line(error)}); expected a row an epoch; run "
                    "03_training again."
                ) from error
            return history
    raise InputError(f"there is no history.csv in {model_dir} or beside it; copy the training's there.")


def load_pretrained(
    device: Device | None = None,
    settings: InferenceSettings = InferenceSettings(),
    name: str = "pretrained",
) -> Segmenter:
    """The shipped model, ready for slices in HU; needs no network connection.

        labels = load_pretrained()(hu)  # (N, H, W) HU in, uint8 (N, H, W) class index out

    Args:
        device: Where to compute; the fastest that works if not given.
        settings: The steps between network and labels.
        name: `pretrained`, or `pretrained-small` for weak computers: one member, smaller slices.

    Raises:
        InputError: If its checksum is wrong, or for another name.
    """
    return Segmenter.load(pretrained_dir(name), device, settings)
