"""The weights that come with the package.

A model folder like any other, in half precision, and how it is made.

The weights have a licence of their own, CC BY-NC-SA 4.0 (weights/LICENSE), as the Radiopaedia cases that they
learned from; the code is MIT.
"""

from pathlib import Path

import pandas as pd

from lungseg_utils.core.device import Device
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
PRETRAINED = "pretrained"  # the name that stands for the folder wherever a model is named


def pretrained_dir() -> Path:
    """The folder of the shipped model.

    weights.safetensors (float16), config.json, history.csv, README.md (its card), LICENSE.

    Raises InputError if this copy of the package has no weights.
    """
    if not (WEIGHTS / "weights.safetensors").exists():
        raise InputError(
            "this copy of lungseg came without its weights; install it whole, or name a trained model's "
            "folder."
        )
    return WEIGHTS


def model_folder(name: str | Path, run_dir: str | Path) -> Path:
    """The folder that a `model` parameter names.

    Empty is the run's own model, `pretrained` the shipped one.
    """
    if not name:
        return resolve_path(run_dir) / "model"
    return pretrained_dir() if name == PRETRAINED else resolve_path(name)


def read_history(model_dir: Path) -> pd.DataFrame:
    """The history of the training that made the model.

    In its folder, as shipped, or in the run directory around it.
    """
    for path in (model_dir / "history.csv", model_dir.parent / "history.csv"):
        if path.exists():
            return pd.read_csv(path)
    raise InputError(f"there is no history.csv in {model_dir} or beside it; copy the training's there.")


def load_pretrained(
    device: Device | None = None, settings: InferenceSettings = InferenceSettings()
) -> Segmenter:
    """The shipped model, ready for slices in HU; needs no network connection.

        labels = load_pretrained()(hu)  # (N, H, W) HU in, uint8 (N, H, W) class index out

    Raises InputError if its checksum is wrong.
    """
    return Segmenter.load(pretrained_dir(), device, settings)
