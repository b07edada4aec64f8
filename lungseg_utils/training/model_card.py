"""What stands beside the weights: config.json's account of how they came about, and a card for people."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lungseg_utils import installed_versions
from lungseg_utils.core.device import Device
from lungseg_utils.core.files import atomic_write
from lungseg_utils.data.datasets import SliceDataset
from lungseg_utils.data.features import FEATURES, LUNG_SLICE, slice_features
from lungseg_utils.training.config import TrainingConfig

LIBRARIES = ("torch", "accelerate", "segmentation-models-pytorch", "timm", "albumentations", "numpy")
TRAINING_SLICES = 256  # slices of a training set that are looked at


def model_config(
    config: TrainingConfig,
    train_set: SliceDataset,
    prepared: str,
    before: list[str],
    device: Device,
    processes: int,
    best: dict[str, Any],
) -> dict[str, Any]:
    """What config.json says.

    All that a prediction needs, and all that it takes to train the same weights again.

    prepared: the fingerprint of the slices that it learned from. before: those of the model that it began
    with, see ties.learned_from.
    """
    return {
        "architecture": config.architecture,
        "encoder": config.encoder,
        "image_size": config.image_size,
        "resize": config.resize,
        "frame": config.frame,
        "preprocessing": train_set.preprocessing.to_dict(),
        "training_ranges": training_ranges(train_set),
        "training": {
            **asdict(config),
            "train_slices": len(train_set),
            "prepared": prepared,
            "prepared_before": before,
        },
        "device": str(device),
        "precision": device.precision,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "versions": installed_versions(*LIBRARIES),
        "best_epoch": best,
    }


def write_model_card(folder: Path, config: TrainingConfig, best: dict[str, Any]) -> None:
    """README.md beside the weights: what they are, how they came about, what they are not for."""
    settings = "\n".join(f"| {key} | {value} |" for key, value in asdict(config).items())
    with atomic_write(folder / "README.md") as handle:
        handle.write(
            f"# Lung infection segmentation: {config.architecture}, {config.encoder}\n\n"
            "Labels each pixel of an axial chest CT slice as ground glass opacity, consolidation, other lung "
            "or background. "
            "For teaching and research; not a medical device.\n\n"
            "`weights.safetensors` is the best epoch, `last.safetensors` the last; `config.json` holds "
            "preprocessing and sizes. "
            "Load with `lungseg_utils.inference.Segmenter.load(folder)`.\n\n"
            f"Best epoch {best['epoch']} by {config.monitor}, on validation slices at {config.image_size} "
            "px: "
            f"mIoU {best['val_miou']:.3f}, lesion Dice {best['val_lesion_dice']:.3f}, accuracy "
            f"{best['val_accuracy']:.3f}.\n\n"
            f"| setting | value |\n|---|---|\n{settings}\n"
        )


def training_ranges(train_set: "SliceDataset") -> dict[str, Any]:
    """What a model's training slices are like, for its config.json.

    Of each of FEATURES the 1st and 99th percentile.

    Over slices of the lungs, as `check_scan` takes them; `slices`: how many these were.
    """
    rows = train_set.slices.iloc[:: max(len(train_set.slices) // TRAINING_SLICES, 1)]
    found = []
    for source, index in zip(rows.source, rows["index"]):
        features = slice_features(np.load(train_set.folder / f"images_{source}.npy", mmap_mode="r")[index])
        if features and features["lung_percent"] >= 100 * LUNG_SLICE:
            found.append(features)
    ends = {name: np.percentile([f[name] for f in found], (1, 99)) for name in FEATURES if found}
    return {"slices": len(found), **{name: np.round(values, 1).tolist() for name, values in ends.items()}}
