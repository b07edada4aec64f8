"""From label maps to scores.

Everything starts at confusion counts, taken once for each slice and summed where pooled.

The convention for what is empty, stated once: a class that is neither in the truth nor in the prediction has
no IoU and no Dice (NaN; None in JSON) and does not enter a mean; a class that is only in one of them scores
0. Precision, recall, specificity and accuracy are shares: they have no value only where there is nothing to
take the share of.

Counts are (..., 4, 4), rows the truth, columns the prediction. Every score works over the leading axes, so
that thousands of resampled data sets are scored in one call; a single matrix gives a float. A fifth column,
(..., 4, 5), holds the pixels that were given no class: misses of their true class, false alarms of none.

Which score answers which question: Maier-Hein et al. 2024, Metrics reloaded, doi:10.1038/s41592-023-02151-z.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lungseg_utils.core.classes import FOREGROUND, LESIONS, NUM_CLASSES, SHORT_NAMES
from lungseg_utils.core.files import InputError

NO_CLASS = NUM_CLASSES  # the label of a pixel that thresholds left without a class; only a prediction has it


def check_labels(truth: np.ndarray, prediction: np.ndarray, no_class: bool = False) -> None:
    """Raise InputError unless both are class indices, 0..3, of one shape.

    The prediction may hold NO_CLASS if asked.
    """
    if truth.shape != prediction.shape:
        raise InputError(
            f"truth has shape {truth.shape}, prediction {prediction.shape}; expected the same shape."
        )
    last = NUM_CLASSES - 1
    for name, labels, highest in (("truth", truth, last), ("prediction", prediction, last + no_class)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"{name} is {labels.dtype}; expected integers, the class index: take the argmax."
            )
        if labels.size and not 0 <= labels.min() <= labels.max() <= highest:
            raise InputError(
                f"{name} holds labels from {labels.min()} to {labels.max()}; expected 0 to {highest}."
            )


def check_stacks(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raise InputError unless both are labels of the same slices, (N, H, W).

    The prediction may hold NO_CLASS.
    """
    check_labels(truth, prediction, no_class=True)
    if truth.ndim != 3:
        raise InputError(
            f"the labels have shape {truth.shape}; expected (N, H, W); use labels[None] for one slice."
        )


# A float for the counts of one set, (4, 4); an array (...) for those of several: no type can say which.
Values = Any


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, no_class: bool = False) -> np.ndarray:
    """Pixels counted by (true class, predicted class).

    Args:
        truth: Class index, any integer type and shape.
        prediction: Of the same shape; with `no_class` it may hold NO_CLASS.
        no_class: Whether a pixel may have no class.

    Returns:
        int64 (4, 4), rows are the truth; (4, 5) with `no_class`.

    Raises:
        InputError: For anything else.
    """
    check_labels(truth, prediction, no_class)
    columns = NUM_CLASSES + no_class
    pairs = truth.astype(np.int64).ravel() * columns + prediction.ravel().astype(np.int64)
    return np.bincount(pairs, minlength=NUM_CLASSES * columns).reshape(NUM_CLASSES, columns)


def slice_confusion(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Confusion counts of each slice.

    Args:
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).

    Returns:
        int64 (N, 4, 4), rows are the truth.
    """
    return np.array([confusion_matrix(t, p) for t, p in zip(truth, prediction, strict=True)])


def _ratio(part: np.ndarray, whole: np.ndarray) -> Values:
    """part / whole, NaN where whole is 0."""
    return _number(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0))


def _number(values: np.ndarray) -> Values:
    """A Python float where there is but one value: a checkpoint takes no numpy scalar."""
    return values if values.ndim else values.item()


def _hits(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _true(counts: np.ndarray) -> np.ndarray:
    return counts.sum(axis=-1)


def _predicted(counts: np.ndarray) -> np.ndarray:
    return counts.sum(axis=-2)[..., : counts.shape[-2]]  # without the column of NO_CLASS


def accuracy(counts: np.ndarray) -> Values:
    """Share of pixels with the right class, (...); a pixel without a class is wrong."""
    return _ratio(_hits(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard 1912) of each class: TP / (TP + FP + FN).

    Args:
        counts: (..., 4, 4), rows are the truth.

    Returns:
        (..., 4), NaN where the class is nowhere.
    """
    hits = _hits(counts)
    return _ratio(hits, _true(counts) + _predicted(counts) - hits)


def dice(counts: np.ndarray) -> np.ndarray:
    """Dice 1945 = F1 of each class: 2 TP / (2 TP + FP + FN).

    Args:
        counts: (..., 4, 4), rows are the truth.

    Returns:
        (..., 4), NaN where the class is nowhere.
    """
    return _ratio(2 * _hits(counts), _true(counts) + _predicted(counts))


def precision(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) of each class: how much of what is drawn is right. (..., 4), NaN where never predicted.

    Also positive predictive value (Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x, as recall and
    specificity).
    """
    return _ratio(_hits(counts), _predicted(counts))


def recall(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) of each class, sensitivity: how much of what is there is found.

    (..., 4), NaN where not true.
    """
    return _ratio(_hits(counts), _true(counts))


def specificity(counts: np.ndarray) -> np.ndarray:
    """TN / (TN + FP) of each class: how much of the rest is left alone. (..., 4), NaN where there is no rest.

    It rises with the picture's empty surround: near 1 for any small class, right or wrong.
    """
    negatives = counts.sum(axis=(-2, -1))[..., None] - _true(counts)
    return _ratio(negatives - (_predicted(counts) - _hits(counts)), negatives)


def lesion_counts(counts: np.ndarray) -> np.ndarray:
    """Counts of two classes, (..., 2, 2): lesion = ground glass or consolidation as one, and all the rest.

    Every score above takes them: `recall(lesion_counts(counts))[..., 0]`. Confusing the two lesions costs
    nothing here.
    """
    lesion = list(LESIONS)
    both = counts[..., lesion, :][..., lesion].sum(axis=(-2, -1))
    true, predicted = _true(counts)[..., lesion].sum(axis=-1), _predicted(counts)[..., lesion].sum(axis=-1)
    rest = counts.sum(axis=(-2, -1)) - true - predicted + both
    return np.stack(
        [np.stack([both, true - both], axis=-1), np.stack([predicted - both, rest], axis=-1)], axis=-2
    )


def lesion_dice(counts: np.ndarray) -> Values:
    """Dice of lesion = ground glass or consolidation taken as one class, (...).

    NaN where there is no lesion.
    """
    return _number(dice(lesion_counts(counts))[..., 0])


def nanmean(values: ArrayLike, axis: int = -1) -> Values:
    """Mean along an axis of the values that exist; NaN, and no warning, if none does."""
    array = np.asarray(values, dtype=float)
    valid = ~np.isnan(array)
    return _ratio(np.where(valid, array, 0).sum(axis=axis), valid.sum(axis=axis))


def mean_iou(counts: np.ndarray, background: bool = True) -> Values:
    """Mean IoU over the classes.

    Args:
        counts: (..., 4, 4), rows are the truth.
        background: All four classes, as the slides report it, or the three but background.

    Returns:
        (...), a float for one set of counts.
    """
    return nanmean(iou(counts) if background else iou(counts)[..., FOREGROUND])


def mean_dice(counts: np.ndarray, background: bool = True) -> Values:
    """Mean Dice over the classes.

    Args:
        counts: (..., 4, 4), rows are the truth.
        background: All four classes, or the three but background.

    Returns:
        (...), a float for one set of counts.
    """
    return nanmean(dice(counts) if background else dice(counts)[..., FOREGROUND])


def reference_definition(truth: np.ndarray, prediction: np.ndarray, batch_size: int) -> dict[str, float]:
    """Accuracy and mIoU as the reference recipe takes them: of each batch, averaged.

    Differs from mean_iou where a class is predicted but not there (that costs the class nothing), and where
    the batches are of different sizes or contents.

    Args:
        truth: Class index (N, S, S), at the network's size.
        prediction: Class index (N, S, S).
        batch_size: Slices in a batch; classes that are not in a batch's truth are skipped.
    """
    batches = [slice(start, start + batch_size) for start in range(0, len(truth), batch_size)]
    counts = np.array([confusion_matrix(truth[batch], prediction[batch]) for batch in batches])
    return {
        "batch_size": batch_size,
        "accuracy": nanmean(accuracy(counts)),
        "mean_iou": nanmean(nanmean(np.where(_true(counts) > 0, iou(counts), np.nan))),
    }


def competition_score(per_image: np.ndarray) -> dict[str, Values]:
    """The competition's score, in both readings of its unclear rule.

    The mean F1 of ground glass and consolidation.

    per_image: (..., N, 4, 4) counts. `pooled` counts pixels over all images first; `per_image` scores every
    image, then averages over those in which the class is true or predicted. Each (...).
    """
    lesion = list(LESIONS)
    return {
        "pooled": nanmean(dice(per_image.sum(axis=-3))[..., lesion]),
        "per_image": nanmean(nanmean(dice(per_image)[..., lesion], axis=-2)),
    }


def mean_and_median(values: ArrayLike) -> dict[str, float | int | None]:
    """Mean and median of the values that exist, None if none does, and `slices`: how many do."""
    array = np.asarray(values, dtype=float)
    known = array[~np.isnan(array)]
    if not known.size:
        return {"mean": None, "median": None, "slices": 0}
    return {"mean": float(known.mean()), "median": float(np.median(known)), "slices": known.size}


def per_slice_summary(per_image: np.ndarray) -> dict[str, dict[str, float | int | None]]:
    """Scores taken of every slice by itself: their mean, median and how many slices have one.

    per_image: (N, 4, 4) counts. Here a slice with a speck of disease weighs as much as one full of it; pooled
    scores (`summary`) are ruled by the large lesions. The two tell different stories.
    """
    scores = {
        "accuracy": accuracy(per_image),
        "mean_iou": mean_iou(per_image),
        "lesion_dice": lesion_dice(per_image),
    }
    for c, short in enumerate(SHORT_NAMES):
        scores |= {f"{short}_dice": dice(per_image)[:, c], f"{short}_iou": iou(per_image)[:, c]}
    return {name: mean_and_median(values) for name, values in scores.items()}


def summary(per_image: np.ndarray) -> dict[str, Any]:
    """All scores of a set of slices, as stored in metrics.json; NaN becomes None.

    per_image: (N, 4, 4) counts. Everything but `competition.per_image` is pooled over the slices.
    """
    counts = per_image.sum(axis=0)
    by_class, lesion = _all_of(counts), _all_of(lesion_counts(counts))
    scores = {
        "accuracy": accuracy(counts),
        "mean_iou": mean_iou(counts),
        "mean_iou_without_background": mean_iou(counts, background=False),
        "mean_dice": mean_dice(counts),
        "mean_dice_without_background": mean_dice(counts, background=False),
        "lesion_dice": lesion_dice(counts),
        "competition": competition_score(per_image),
        "lesion": {
            **{key: float(values[0]) for key, values in lesion.items()},
            "pixels": int(counts[list(LESIONS)].sum()),
        },
        "classes": {
            short: {
                **{key: float(values[c]) for key, values in by_class.items()},
                "pixels": int(counts[c].sum()),
            }
            for c, short in enumerate(SHORT_NAMES)
        },
    }
    return without_nan(scores)


def _all_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    return {score.__name__: score(counts) for score in (iou, dice, precision, recall, specificity)}


def without_nan(value: Any) -> Any:
    """The same dicts, lists and numbers with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value
