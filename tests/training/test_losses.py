"""The losses by name, against torch's and formulas written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from lungseg_utils.core.classes import LESION, NOT_LESION
from lungseg_utils.core.files import InputError
from lungseg_utils.training.losses import (
    LOSSES,
    OTHER_KIND,
    WEIGHTS,
    build_loss,
    lesion_dice,
    soft_kind_cross_entropy,
)


def test_dice_cross_entropy_is_the_sum_of_both():
    torch.manual_seed(0)
    logits, labels = (
        torch.randn(2, 4, 8, 8),
        torch.randint(0, 3, (2, 8, 8)),
    )  # class 3 does not occur: it has no Dice
    probabilities, truth = logits.softmax(1), F.one_hot(labels, 4).movedim(-1, 1)
    both = (probabilities * truth).sum((0, 2, 3))
    dice = 2 * both / (probabilities.sum((0, 2, 3)) + truth.sum((0, 2, 3)))
    expected = F.cross_entropy(logits, labels) + (1 - dice[:3]).sum() / 4
    torch.testing.assert_close(build_loss("dice_cross_entropy")(logits, labels), expected)


def test_class_weights_weight_the_pixels_of_a_class():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    each = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor(WEIGHTS)[labels]
    found = build_loss("weighted_cross_entropy")(logits, labels)
    torch.testing.assert_close(found, (weights * each).sum() / weights.sum())
    torch.testing.assert_close(found, torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS[:4]))(logits, labels))
    assert WEIGHTS[1] > WEIGHTS[0] > WEIGHTS[2] > WEIGHTS[3]  # the rarer, the more


def test_a_perfect_answer_costs_nothing_and_an_unknown_name_is_refused():
    for name in LOSSES:
        least = 2 if name.startswith("soft_kind") else 0  # no answer is perfect where the label doubts itself
        labels = torch.randint(least, 4, (2, 8, 8))
        logits = (100.0 * F.one_hot(labels, 4).movedim(-1, 1)).requires_grad_()
        loss = build_loss(name)(logits, labels)
        assert loss.item() == pytest.approx(0, abs=1e-5)
        [gradient] = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all()
    with pytest.raises(
        InputError, match="'tversky'; expected one of cross_entropy, dice_cross_entropy, weighted_c"
    ):
        build_loss("tversky")


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_understands_a_lesion_of_unknown_kind(name):
    torch.manual_seed(0)
    labels = torch.full((1, 8, 8), LESION)
    labels[:, :4] = torch.randint(0, 4, (1, 4, 8))
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    [gradient] = torch.autograd.grad(build_loss(name)(logits, labels), logits)
    lesion, other = gradient[0, :2, 4:], gradient[0, 2:, 4:]
    assert (lesion < 0).all() and (other > 0).all()  # a step makes either kind of lesion more probable


def test_a_kind_stands_a_little_for_the_other_and_nothing_else_does():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    target = F.one_hot(labels, 4).movedim(-1, 1).float()
    target[:, :2] = (1 - OTHER_KIND) * target[:, :2] + OTHER_KIND * target[:, [1, 0]]
    weights = torch.tensor(WEIGHTS)[labels]
    expected = (weights * F.cross_entropy(logits, target, reduction="none")).sum() / weights.sum()
    torch.testing.assert_close(soft_kind_cross_entropy(logits, labels), expected)
    for sure in (torch.full_like(labels, LESION), labels.clamp_min(2)):
        plain = build_loss("weighted_cross_entropy")(logits, sure)
        torch.testing.assert_close(soft_kind_cross_entropy(logits, sure), plain)


def test_the_dice_of_the_lesion_as_one():
    """Four pixels with p(lesion) 0.8, 0.5, 0.25 and 0.5.

    The first two are lesion: 1 - 2 * 1.3 / (2.05 + 2).
    """
    p = torch.tensor(
        [[0.3, 0.5, 0.1, 0.1], [0.4, 0.1, 0.2, 0.3], [0.15, 0.1, 0.5, 0.25], [0.5, 0.0, 0.25, 0.25]]
    )
    logits = p.clamp_min(1e-9).log().T.reshape(1, 4, 2, 2)
    labels = torch.tensor([[[LESION, 1], [NOT_LESION, 3]]])
    assert lesion_dice(logits, labels).item() == pytest.approx(1 - 2 * 1.3 / 4.05, rel=1e-5)
    assert lesion_dice(logits, torch.full((1, 2, 2), 2)).item() == 0  # nothing to find
    total = LOSSES["weighted_dice_cross_entropy"](logits, labels) + lesion_dice(logits, labels)
    assert torch.equal(LOSSES["lesion_dice_cross_entropy"](logits, labels), total)
