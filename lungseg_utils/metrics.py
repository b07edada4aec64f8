"""From label maps to scores. Everything starts at one confusion matrix, counted once and summed over slices.

The convention for what is empty, stated once: a class that is neither in the truth nor in the prediction has no score
(NaN) and does not enter a mean. A class that is only in one of them scores 0.
"""

from collections.abc import Iterable

import numpy as np

from lungseg_utils.classes import BACKGROUND, LESIONS, NUM_CLASSES, SHORT_NAMES


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pixels counted by (true class, predicted class): int64 (4, 4), rows are the truth.

    truth, prediction: class index, any integer type and shape, the same for both.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}; expected the same shape.")
    pairs = truth.astype(np.int64).ravel() * NUM_CLASSES + prediction.ravel()
    return np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def accuracy(counts: np.ndarray) -> float:
    """Share of pixels with the right class."""
    return float(_ratio(np.trace(counts), counts.sum()))


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard 1912) of each class: TP / (TP + FP + FN). (4,), NaN where the class is nowhere."""
    hits = np.diag(counts)
    return _ratio(hits, counts.sum(0) + counts.sum(1) - hits)


def dice(counts: np.ndarray) -> np.ndarray:
    """Dice 1945 = F1 of each class: 2 TP / (2 TP + FP + FN). (4,), NaN where the class is nowhere."""
    return _ratio(2 * np.diag(counts), counts.sum(0) + counts.sum(1))


def precision(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) of each class: how much of what is drawn is right. (4,), NaN where the class was never predicted."""
    return _ratio(np.diag(counts), counts.sum(0))


def recall(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) of each class: how much of what is there is found. (4,), NaN where the class is never true."""
    return _ratio(np.diag(counts), counts.sum(1))


def lesion_dice(counts: np.ndarray) -> float:
    """Dice of lesion = ground glass or consolidation taken as one class: confusing the two costs nothing here."""
    lesion = list(LESIONS)
    return float(_ratio(2 * counts[np.ix_(lesion, lesion)].sum(), counts[lesion].sum() + counts[:, lesion].sum()))


def nanmean(values: np.ndarray | Iterable[float]) -> float:
    """Mean of the values that exist; NaN if none does."""
    values = np.array(list(values), dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def mean_iou(counts: np.ndarray) -> float:
    """Mean IoU over all four classes, background included, as the slides report it."""
    return nanmean(iou(counts))


def reference_definition(truth: np.ndarray, prediction: np.ndarray, batch_size: int) -> dict[str, float]:
    """Accuracy and mIoU as the reference recipe takes them: of each batch, classes absent from its truth skipped, averaged.

    truth, prediction: class index (N, S, S) at the network's size. Differs from mean_iou where a class is predicted but not
    there (that costs the class nothing), and where the batches are of different sizes or contents.
    """
    batches = [slice(start, start + batch_size) for start in range(0, len(truth), batch_size)]
    counts = [confusion_matrix(truth[batch], prediction[batch]) for batch in batches]
    return {
        "batch_size": batch_size,
        "accuracy": nanmean(map(accuracy, counts)),
        "mean_iou": nanmean(nanmean(iou(c)[c.sum(1) > 0]) for c in counts),
    }


def competition_score(per_image: np.ndarray) -> dict[str, float]:
    """The competition's score, mean F1 of ground glass and consolidation, in both readings of its unclear rule.

    per_image: (N, 4, 4) confusion matrices. `pooled` counts pixels over all images first; `per_image` scores every
    image, then averages over those in which the class is true or predicted.
    """
    lesion = list(LESIONS)
    images = np.array([dice(counts) for counts in per_image])[:, lesion]
    return {
        "pooled": nanmean(dice(per_image.sum(0))[lesion]),
        "per_image": nanmean(nanmean(images[:, k]) for k in range(len(lesion))),
    }


def summary(per_image: np.ndarray) -> dict:
    """All scores of a set of slices, as stored in metrics.json; NaN becomes None.

    per_image: (N, 4, 4) confusion matrices. Everything but `competition.per_image` is pooled over the slices.
    """
    counts = per_image.sum(0)
    by_class = {"iou": iou(counts), "dice": dice(counts), "precision": precision(counts), "recall": recall(counts)}
    foreground = [c for c in range(NUM_CLASSES) if c != BACKGROUND]
    scores = {
        "accuracy": accuracy(counts),
        "mean_iou": mean_iou(counts),
        "mean_iou_without_background": nanmean(iou(counts)[foreground]),
        "mean_dice": nanmean(dice(counts)),
        "lesion_dice": lesion_dice(counts),
        "competition": competition_score(per_image),
        "classes": {
            short: {**{key: float(values[c]) for key, values in by_class.items()}, "pixels": int(counts[c].sum())}
            for c, short in enumerate(SHORT_NAMES)
        },
    }
    return _without_nan(scores)


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if value != value else value
