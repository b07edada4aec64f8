"""What training minimises, by name."""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from lungseg_utils.files import InputError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(name: str) -> Loss:
    """A function of logits (B, 4, S, S) and labels int64 (B, S, S) that returns one number.

    `cross_entropy` is the mean over pixels of -log p(true class): every pixel counts alike, so rare classes count little.
    `dice_cross_entropy` adds the soft Dice loss (Milletari et al. 2016, arXiv:1606.04797): 1 - Dice, of the classes that
    occur in the batch, each counting alike however few its pixels are. Raises InputError for an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"loss is {name!r}; expected one of {', '.join(LOSSES)}.")
    return LOSSES[name]


def _dice_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels) + _soft_dice(logits, labels)


_soft_dice = smp.losses.DiceLoss(mode="multiclass")
LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy, "dice_cross_entropy": _dice_cross_entropy}
