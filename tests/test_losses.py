"""The losses by name, against torch's cross-entropy and a Dice computed by hand."""

import pytest
import torch
import torch.nn.functional as F

from lungseg_utils.files import InputError
from lungseg_utils.losses import build_loss


def test_dice_cross_entropy_is_the_sum_of_both():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 3, (2, 8, 8))  # class 3 does not occur: it has no Dice
    probabilities, truth = logits.softmax(1), F.one_hot(labels, 4).movedim(-1, 1)
    both = (probabilities * truth).sum((0, 2, 3))
    dice = 2 * both / (probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3)))
    expected = F.cross_entropy(logits, labels) + (1 - dice[:3]).sum() / 4
    torch.testing.assert_close(build_loss("dice_cross_entropy")(logits, labels), expected)


def test_a_perfect_answer_costs_nothing_and_an_unknown_name_is_refused():
    labels = torch.randint(0, 4, (2, 8, 8))
    logits = 100.0 * F.one_hot(labels, 4).movedim(-1, 1)
    for name in ("cross_entropy", "dice_cross_entropy"):
        assert build_loss(name)(logits, labels).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(InputError, match="'focal'; expected one of cross_entropy, dice_cross_entropy"):
        build_loss("focal")
