"""Labels that say less than a class, and the cross-entropy that understands them.

Many published masks mark a lesion without its kind, or the lesions and nothing else. Guessing the rest would teach the
guess. Such a pixel gets a label that stands for a set of classes, and the loss asks only that the set is probable.
"""

import torch
import torch.nn.functional as F

from lungseg_utils.classes import BACKGROUND, LESIONS, LUNG_OTHER, NUM_CLASSES

# Only stored labels of further data sets hold these; the competition's never do, nor does a prediction.
LESION = NUM_CLASSES  # ground glass or consolidation, the source does not say which
NOT_LESION = NUM_CLASSES + 1  # other lung or background, the source does not say which
CLASS_SETS = {LESION: LESIONS, NOT_LESION: (LUNG_OTHER, BACKGROUND)}
UNKNOWN = 255  # for losses that cannot use a set of classes: see only_known


def partial_log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """log p of the four classes, then of LESION and of NOT_LESION: (B, 4, ...) logits in, (B, 6, ...) out.

    The probability of a set of classes is the sum of theirs.
    """
    log_p = F.log_softmax(logits, 1)
    sets = [log_p[:, list(classes)].logsumexp(1, keepdim=True) for classes in CLASS_SETS.values()]
    return torch.cat([log_p, *sets], 1)


def partial_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -log p(what the label allows): one number, of logits (B, 4, ...) and labels int64 (B, ...).

    Labels are class indices, LESION or NOT_LESION. Without the last two it is F.cross_entropy, to the last bit. Its
    gradient shares a LESION pixel out as the network itself does: it raises ground glass and consolidation together
    and leaves their ratio as it is. (The marginal likelihood of a partial label: Cour et al. 2011, JMLR 12:1501.)
    """
    return F.nll_loss(partial_log_probabilities(logits), labels)


def only_known(labels: torch.Tensor) -> torch.Tensor:
    """The labels with UNKNOWN in place of LESION and NOT_LESION, for a loss with ignore_index=UNKNOWN."""
    return labels.masked_fill((labels == LESION) | (labels == NOT_LESION), UNKNOWN)
