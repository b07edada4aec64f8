"""Labels that stand for several classes, against values worked out by hand."""

import math

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from lungseg_utils.core.classes import LESION, NOT_LESION, UNKNOWN
from lungseg_utils.training.losses import only_known, partial_cross_entropy

# one pixel with the probabilities 0.1 ground glass, 0.3 consolidation, 0.2 other lung, 0.4 background
LOGITS = torch.tensor([0.1, 0.3, 0.2, 0.4]).log().reshape(1, 4, 1, 1) + 7  # a softmax does not see the 7


def loss(label):
    return partial_cross_entropy(LOGITS, torch.tensor([[[label]]])).item()


COSTS = [(0, 0.1), (1, 0.3), (2, 0.2), (3, 0.4), (LESION, 0.4), (NOT_LESION, 0.6)]


@pytest.mark.parametrize(("label", "probability"), COSTS)
def test_a_label_costs_minus_the_log_of_what_it_allows(label, probability):
    assert loss(label) == pytest.approx(-math.log(probability), rel=1e-6)


def test_the_mean_is_over_all_pixels_known_or_partial():
    labels = torch.tensor([[[0, LESION], [NOT_LESION, 3]]])
    expected = -(math.log(0.1) + math.log(0.4) + math.log(0.6) + math.log(0.4)) / 4
    assert partial_cross_entropy(LOGITS.expand(1, 4, 2, 2), labels).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_without_partial_labels_it_is_cross_entropy_to_the_last_bit_gradient_included():
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2, 16, 16))
    one = torch.randn(2, 4, 16, 16, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    ours, theirs = partial_cross_entropy(one, labels), F.cross_entropy(other, labels)
    assert torch.equal(ours, theirs)
    ours.backward(), theirs.backward()
    assert torch.equal(one.grad, other.grad)


def test_a_lesion_pixel_raises_both_kinds_and_leaves_their_ratio():
    logits = LOGITS.clone().requires_grad_()
    partial_cross_entropy(logits, torch.tensor([[[LESION]]])).backward()
    gradient = logits.grad.flatten()  # p minus p given the set: 0.1 - 0.1/0.4, 0.3 - 0.3/0.4, 0.2, 0.4
    torch.testing.assert_close(gradient, torch.tensor([-0.15, -0.45, 0.2, 0.4]))


def test_sure_and_wrong_is_dear_but_finite():
    logits = torch.tensor([-300.0, -300.0, 0.0, 300.0]).reshape(1, 4, 1, 1).requires_grad_()
    value = partial_cross_entropy(logits, torch.tensor([[[LESION]]]))
    value.backward()
    assert value.item() == pytest.approx(600 - math.log(2)) and torch.isfinite(logits.grad).all()


def test_a_loss_with_an_ignore_index_sees_only_what_is_known():
    torch.manual_seed(0)
    dice = smp.losses.DiceLoss(mode="multiclass", ignore_index=UNKNOWN)
    logits, labels = torch.randn(1, 4, 8, 8), torch.randint(0, 4, (1, 8, 8))
    assert torch.equal(
        dice(logits, only_known(labels)), smp.losses.DiceLoss(mode="multiclass")(logits, labels)
    )
    partial = labels.clone()
    partial[:, 4:] = LESION
    partial[:, 6:] = NOT_LESION
    known = dice(logits[:, :, :4], labels[:, :4])
    torch.testing.assert_close(dice(logits, only_known(partial)), known)
