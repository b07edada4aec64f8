"""What training minimises, by name."""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from lungseg_utils.core.classes import (
    CLASS_SETS,
    CONSOLIDATION,
    GROUND_GLASS,
    LESION,
    LESIONS,
    NOT_LESION,
    UNKNOWN,
)
from lungseg_utils.core.files import InputError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_soft_dice = smp.losses.DiceLoss(mode="multiclass", ignore_index=UNKNOWN)
# About the inverse square root of the classes' shares of MedSeg's pixels; then lesions of unknown kind, and
# no lesion.
WEIGHTS = (2.0, 4.0, 1.0, 0.5, 3.0, 0.75)
OTHER_KIND = 0.15  # of a lesion pixel: how far its label stands for the other kind as well


def partial_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """log p of the four classes, then of LESION and of NOT_LESION: (B, 4, ...) logits in, (B, 6, ...) out.

    The probability of a set of classes is the sum of theirs.
    """
    log_p = F.log_softmax(logits, 1)
    sets = [log_p[:, list(classes)].logsumexp(1, keepdim=True) for classes in CLASS_SETS.values()]
    return torch.cat([log_p, *sets], 1)


def partial_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -log p(what the label allows).

    One number, of logits (B, 4, ...) and labels int64 (B, ...).

    Labels are class indices, LESION or NOT_LESION. Without the last two it is F.cross_entropy, to the last
    bit. Its gradient shares a LESION pixel out as the network itself does: it raises ground glass and
    consolidation together and leaves their ratio as it is. (The marginal likelihood of a partial label: Cour
    et al. 2011, JMLR 12:1501.)
    """
    return F.nll_loss(partial_log_probabilities(logits), labels)


def only_known(labels: torch.Tensor) -> torch.Tensor:
    """The labels with UNKNOWN in place of LESION and NOT_LESION, for a loss with ignore_index=UNKNOWN."""
    return labels.masked_fill((labels == LESION) | (labels == NOT_LESION), UNKNOWN)


def build_loss(name: str) -> Loss:
    """A loss by name.

    `cross_entropy` is the mean over pixels of -log p(true class): every pixel counts alike, so rare classes
    count little. `dice_cross_entropy` adds the soft Dice loss (Milletari et al. 2016, arXiv:1606.04797): 1 -
    Dice, of the classes that occur in the batch, each counting alike however few its pixels are.
    `weighted_cross_entropy` weights a pixel of class c with WEIGHTS[c]; `weighted_dice_cross_entropy` is its
    sum with the Dice loss; `lesion_dice_cross_entropy` adds the Dice loss of the lesion as one, whatever its
    kind. `soft_kind_lesion_dice_cross_entropy` is that with labels that doubt the kind: see
    soft_kind_cross_entropy. Labels of further data sets may stand for several classes: see
    partial_cross_entropy.

    Args:
        name: One of these.

    Returns:
        A function of logits (B, 4, S, S) and labels int64 (B, S, S) that returns one number.

    Raises:
        InputError: For an unknown name.
    """
    if name not in LOSSES:
        raise InputError(f"loss is {name!r}; expected one of {', '.join(LOSSES)}.")
    return LOSSES[name]


def _dice_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return partial_cross_entropy(logits, labels) + _soft_dice(logits, only_known(labels))


def _weighted_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(partial_log_probabilities(logits), labels, weight=logits.new_tensor(WEIGHTS))


def _weighted_dice_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _weighted_cross_entropy(logits, labels) + _soft_dice(logits, only_known(labels))


def soft_kind_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Weighted cross-entropy in which ground glass counts a little as consolidation, and the other way round.

    Readers agree on where a lesion is more than on its kind. So a pixel of one kind asks for 1 - OTHER_KIND
    of its own and OTHER_KIND of the other; all else is certain. (Label smoothing between two classes: Szegedy
    et al. 2016, arXiv:1512.00567.) Logits (B, 4, ...) and labels int64 (B, ...) in, one number out.
    """
    log_p = partial_log_probabilities(logits)
    kind = (labels == GROUND_GLASS) | (labels == CONSOLIDATION)
    other = torch.where(kind, GROUND_GLASS + CONSOLIDATION - labels, labels)
    own, swapped = (log_p.gather(1, each[:, None])[:, 0] for each in (labels, other))
    weight = logits.new_tensor(WEIGHTS)[labels]
    return -(weight * torch.lerp(own, swapped, OTHER_KIND)).sum() / weight.sum()


def lesion_dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice of ground glass and consolidation as one class over the batch; LESION counts.

    0 without a lesion.
    """
    p = logits.float().softmax(1)[:, list(LESIONS)].sum(1)
    truth = torch.isin(labels, labels.new_tensor([*LESIONS, LESION]))
    return truth.any() * (1 - 2 * (p * truth).sum() / (p.sum() + truth.sum()).clamp_min(1e-7))


def _lesion_dice_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _weighted_dice_cross_entropy(logits, labels) + lesion_dice(logits, labels)


def _soft_kind_lesion_dice_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    dice = _soft_dice(logits, only_known(labels)) + lesion_dice(logits, labels)
    return soft_kind_cross_entropy(logits, labels) + dice


LOSSES: dict[str, Loss] = {
    "cross_entropy": partial_cross_entropy,
    "dice_cross_entropy": _dice_cross_entropy,
    "weighted_cross_entropy": _weighted_cross_entropy,
    "weighted_dice_cross_entropy": _weighted_dice_cross_entropy,
    "lesion_dice_cross_entropy": _lesion_dice_cross_entropy,
    "soft_kind_lesion_dice_cross_entropy": _soft_kind_lesion_dice_cross_entropy,
}
