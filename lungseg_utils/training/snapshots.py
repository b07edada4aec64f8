"""A few validation slices as the network sees them after each epoch.

What the strip of pictures is drawn from.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lungseg_utils.core.classes import LESIONS, SHORT_NAMES
from lungseg_utils.core.files import atomic_write
from lungseg_utils.data.datasets import SliceDataset

LARGEST = 128  # pixels a side of a kept picture: a hundred epochs of three slices take 5 MB in the checkpoint


def choose_examples(dataset: SliceDataset, count: int = 3) -> list[int]:
    """Items with a small, a middle and a large area of lesions, the same at every call.

    Fewer if there are fewer.
    """
    area = dataset.slices[[SHORT_NAMES[c] for c in LESIONS]].to_numpy(float).sum(axis=1)
    order = np.argsort(area, kind="stable")
    places = (
        np.linspace(0, len(order) - 1, count + 2).round().astype(int)[1:-1]
    )  # neither the least nor the most
    return sorted({int(order[place]) for place in places})


@torch.no_grad()
def predict_examples(
    network: nn.Module, dataset: SliceDataset, items: list[int], device: torch.device
) -> torch.Tensor:
    """The most probable class of every pixel, uint8 (n, s, s), of at most LARGEST pixels a side."""
    images = torch.stack([dataset[i][0] for i in items]).to(device, memory_format=torch.channels_last)
    labels = network(images).argmax(1).to(torch.uint8).cpu().numpy()
    return torch.from_numpy(np.ascontiguousarray(_thin(labels)))


def save_examples(
    path: Path, dataset: SliceDataset, items: list[int], predictions: list[torch.Tensor]
) -> None:
    """Write the pictures as .npz.

    hu float32 (n, s, s), truth uint8 (n, s, s), predictions uint8 (epochs, n, s, s), rows int64 (n,).
    """
    z, truth, rows = zip(*(dataset[i] for i in items), strict=True)
    hu = torch.stack(z)[:, 0].numpy() * dataset.preprocessing.std + dataset.preprocessing.mean
    with atomic_write(path, "wb") as handle:
        np.savez_compressed(
            handle,
            hu=_thin(hu).astype(np.float32),
            truth=_thin(torch.stack(truth).numpy()),
            predictions=torch.stack(predictions).numpy(),
            rows=np.array(rows),
        )


def _thin(pictures: np.ndarray) -> np.ndarray:
    step = -(-pictures.shape[-1] // LARGEST)
    return pictures[..., ::step, ::step]
