"""From slices in HU to probabilities and labels at full size, and to the competition's submission file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from lungseg_utils.classes import LESIONS
from lungseg_utils.device import Device, choose_device
from lungseg_utils.files import InputError, atomic_write
from lungseg_utils.model import load_model
from lungseg_utils.preprocessing import Preprocessing


@dataclass(frozen=True)
class Segmenter:
    """A trained network with its preprocessing: slices in HU in, labels at their own size out.

        labels = Segmenter.load("runs/demo/model").labels(hu)
    """

    model: nn.Module
    preprocessing: Preprocessing
    image_size: int
    device: Device

    @classmethod
    def load(cls, model_dir: str | Path, device: Device | None = None) -> "Segmenter":
        """From a folder that 03_training wrote. Raises InputError if it holds no usable model."""
        device = device or choose_device()
        model, config = load_model(model_dir)
        model = model.to(device.type, memory_format=torch.channels_last)
        return cls(model, Preprocessing.from_dict(config["preprocessing"]), config["image_size"], device)

    @torch.inference_mode()
    def batches(self, hu: np.ndarray, batch_size: int = 8) -> Iterator[tuple[slice, torch.Tensor]]:
        """(position, probabilities) of one batch of slices at a time: memory does not grow with the stack.

        hu: (N, H, W) in HU, any size and numeric type. probabilities: float32 (n, 4, H, W), they sum to 1.
        Slices are resized to image_size as in validation (nearest neighbour); the logits are resized back linearly.
        """
        if hu.ndim != 3:
            raise InputError(f"hu has shape {hu.shape}; expected a stack of slices (N, H, W); use hu[None] for one slice.")
        for start in range(0, len(hu), batch_size):
            position = slice(start, min(start + batch_size, len(hu)))
            z = self.preprocessing.normalise(resize_nearest(hu[position], self.image_size))
            images = torch.from_numpy(z)[:, None].to(self.device.type, memory_format=torch.channels_last)
            logits = self.model(images)
            full = F.interpolate(logits.float(), size=hu.shape[1:], mode="bilinear", align_corners=False)
            yield position, full.softmax(1)

    def probabilities(self, hu: np.ndarray, batch_size: int = 8) -> np.ndarray:
        """Softmax probabilities, float32 (N, 4, H, W). hu: (N, H, W) in HU."""
        return np.concatenate([p.cpu().numpy() for _, p in self.batches(hu, batch_size)])

    def labels(self, hu: np.ndarray, batch_size: int = 8) -> np.ndarray:
        """The most probable class of every pixel, uint8 (N, H, W). hu: (N, H, W) in HU."""
        out = np.empty(hu.shape, dtype=np.uint8)
        for position, probabilities in self.batches(hu, batch_size):
            out[position] = probabilities.argmax(1).cpu().numpy()
        return out


def resize_nearest(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices or labels (N, H, W) as (N, size, size), by the nearest pixel: the very one that OpenCV takes in validation."""

    def nearest(side: int) -> np.ndarray:
        return np.minimum(np.floor(np.arange(size) * (1 / (size / side))).astype(int), side - 1)

    rows, columns = map(nearest, slices.shape[1:])
    return slices[:, rows[:, None], columns]


def write_submission(path: str | Path, labels: np.ndarray) -> None:
    """The competition's `sub.csv`: columns Id, Predicted, one row for each (slice, row, column, lesion class).

    labels: class index, (N, H, W). For the ten 512 px test slices that makes 10 x 512 x 512 x 2 = 5,242,880 rows of 0 or 1,
    the class running fastest: ground glass, consolidation.
    """
    predicted = (labels[..., None] == np.array(LESIONS)).astype(np.uint8).ravel()
    with atomic_write(path) as handle:
        pd.DataFrame({"Predicted": predicted}).to_csv(handle, index_label="Id")
