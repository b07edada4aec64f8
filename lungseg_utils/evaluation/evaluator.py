"""One set of predictions, every score: what 04_results shows and keeps, and what the benchmarks compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.core.image import resize_nearest
from lungseg_utils.core.language import marked as N_
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.borders import border_summary, border_table
from lungseg_utils.evaluation.burden import burden_summary, predicted_burden, true_burden
from lungseg_utils.evaluation.calibration import Reliability, calibration_summary, entropy, reliability
from lungseg_utils.evaluation.definitions import definitions_table
from lungseg_utils.evaluation.intervals import bootstrap, clusters
from lungseg_utils.evaluation.lesions import lesion_summary, lesion_table
from lungseg_utils.evaluation.results import slice_table
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.inference.views import views_of

SMALL = 256  # pixels a side at which the slides and the public baseline score


@dataclass(frozen=True)
class StepScores:
    """What one way from the network's answers to labels leaves: InferenceSettings by themselves.

    Attributes:
        per_slice: Confusion counts (N, 4, 4).
        reliability: Of its probabilities, for calibration.
    """

    per_slice: np.ndarray
    reliability: Reliability


@dataclass(frozen=True)
class Predictions:
    """What one pass of a network over N slices leaves.

    Attributes:
        labels: uint8 (N, H, W) class index, after every step of the segmenter's settings.
        argmax: uint8 (N, H, W), the most probable class.
        thresholded: uint8 (N, H, W), the class with a probability above 0.5, metrics.NO_CLASS where none has
            it.
        reliability: Of the probabilities, for calibration.
        entropy: float16 (N, H, W), 0..1: how undecided the network is; see calibration.entropy.
        small: uint8 (N, S, S), labels read at the network's own size instead of the slices'.
        steps: The scores of further settings, by their names.
    """

    labels: np.ndarray
    argmax: np.ndarray
    thresholded: np.ndarray
    reliability: Reliability
    entropy: np.ndarray
    small: np.ndarray
    steps: Mapping[str, StepScores]


@dataclass(frozen=True)
class Evaluation:
    """All that is worked out from truth and prediction.

    per_slice: (N, 4, 4) confusion counts; table: a row a slice, for per_slice.csv; lesions: a row a lesion;
    definitions: a row a definition; record: what metrics.json keeps.
    """

    per_slice: np.ndarray
    table: pd.DataFrame
    lesions: pd.DataFrame
    definitions: pd.DataFrame
    record: dict[str, Any]


def collect_predictions(
    segmenter: Segmenter,
    hu: np.ndarray,
    truth: np.ndarray,
    batch_size: int = 8,
    steps: Mapping[str, InferenceSettings] | None = None,
) -> Predictions:
    """Predict slices batch by batch; the network sees each slice once, and once more for each further view.

    Thresholds, clean-ups and temperatures are functions of the probabilities, and mirrored and turned views
    are shared: whatever `steps` ask for, no view of a slice goes through the network twice. Memory holds the
    probabilities of one batch, never of all slices.

    Args:
        segmenter: Its settings make `labels`.
        hu: (N, H, W) in HU.
        truth: Class index (N, H, W), looked at for calibration and for the scores of the steps.
        batch_size: Slices at a time.
        steps: Further settings to score on the same slices, by name.

    Returns:
        What the pass leaves.
    """
    steps = steps or {}
    views = {view: None for settings in (segmenter.settings, *steps.values()) for view in views_of(settings)}
    labels, argmax, thresholded = (np.empty(hu.shape, np.uint8) for _ in range(3))
    undecided, small, counts = np.empty(hu.shape, np.float16), [], Reliability()
    per_slice = {name: np.empty((len(hu), NUM_CLASSES, NUM_CLASSES), np.int64) for name in steps}
    reliabilities = dict.fromkeys(steps, Reliability())
    for position, answers in segmenter.answers(hu, batch_size, views=[*views]):
        probabilities = answers.probabilities(segmenter.settings)
        labels[position] = predict(probabilities, segmenter.settings)
        argmax[position] = probabilities.argmax(1)
        thresholded[position] = np.where(probabilities.max(1) > 0.5, argmax[position], metrics.NO_CLASS)
        undecided[position] = entropy(probabilities)
        small.append(predict(answers.probabilities(segmenter.settings, small=True), segmenter.settings))
        counts += reliability(probabilities, truth[position])
        for names in _alike(steps):
            probabilities = answers.probabilities(steps[names[0]])
            found = reliability(probabilities, truth[position])
            for name in names:
                reliabilities[name] += found
                answer = predict(probabilities, steps[name])
                per_slice[name][position] = metrics.slice_confusion(truth[position], answer)
    return Predictions(
        labels=labels,
        argmax=argmax,
        thresholded=thresholded,
        reliability=counts,
        entropy=undecided,
        small=np.concatenate(small),
        steps={name: StepScores(per_slice[name], reliabilities[name]) for name in steps},
    )


def _alike(steps: Mapping[str, InferenceSettings]) -> list[list[str]]:
    """The names of the steps, those together that share their probabilities."""
    groups: dict[Any, list[str]] = {}
    for name, settings in steps.items():
        groups.setdefault((*views_of(settings), settings.temperature), []).append(name)
    return [*groups.values()]


def evaluate(
    truth: np.ndarray,
    predictions: Predictions,
    source: str,
    index: Sequence[int],
    volume: Sequence[int | None],
    batch_size: int = 24,
    spacing: tuple[float, float] | None = None,
) -> Evaluation:
    """Every score of the predictions.

    Intervals draw slices; with three volumes or more, whole volumes.

    Args:
        truth: Class index (N, H, W).
        predictions: From `collect_predictions`.
        source: Of the slices, as in slices.csv.
        index: Of each slice, as in slices.csv.
        volume: Of each slice, as in slices.csv, missing where unknown.
        batch_size: Of the batch-averaged definitions, which are taken at full size and of labels shrunk to
            256 px by the nearest pixel.
        spacing: mm between rows and between columns, if known.

    Raises:
        InputError: For shapes that differ and for labels outside 0..3.
    """
    metrics.check_stacks(truth, predictions.labels)
    per_slice = metrics.slice_confusion(truth, predictions.labels)
    borders = border_table(truth, predictions.labels, spacing)
    lesions = lesion_table(truth, predictions.labels)
    burden = {"burden_true": true_burden(per_slice), "burden_predicted": predicted_burden(per_slice)}
    rules = {"argmax": predictions.argmax, N_("0.5 threshold"): predictions.thresholded}
    small = {rule: resize_nearest(labels, SMALL) for rule, labels in rules.items()}
    tables = [definitions_table(truth, rules, batch_size)]
    if truth.shape[1:] != (SMALL, SMALL):
        tables.append(definitions_table(resize_nearest(truth, SMALL), small, batch_size))
    definitions = pd.concat(tables, ignore_index=True)
    record = {
        "source": source,
        "slices": len(truth),
        "size": list(truth.shape[1:]),
        "spacing_mm": spacing and list(spacing),
        "full_size": metrics.summary(per_slice),
        "intervals": bootstrap(per_slice, HEADLINE, clusters(volume)),
        "per_slice": metrics.per_slice_summary(per_slice),
        "borders": border_summary(borders),
        "lesions": lesion_summary(lesions, len(truth)),
        "burden": burden_summary(per_slice, volume),
        "calibration": calibration_summary(predictions.reliability),
        "definitions": metrics.without_nan(definitions.to_dict("records")),
    }
    table = slice_table(source, index, per_slice, volume).assign(**burden).join(borders)
    return Evaluation(per_slice, table, lesions, definitions, record)
