"""Everything about one set of predictions at once: the parts belong together, and bad input is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import CPU

from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import resize_nearest
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.calibration import calibration_summary, entropy
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.evaluation.results import counts_of, save_results
from lungseg_utils.evaluation.scores import HEADLINE, PER_SLICE, stored
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings


@pytest.fixture(scope="module")
def evaluated(prepared_dir, trained_dir):
    prepared = load_prepared(prepared_dir)
    hu, truth = prepared.images["radiopaedia"], prepared.labels["radiopaedia"]
    volume = prepared.slices[prepared.slices.source == "radiopaedia"].volume
    predictions = collect_predictions(Segmenter.load(trained_dir / "model", CPU), hu, truth, batch_size=3)
    return (
        truth,
        predictions,
        evaluate(truth, predictions, "radiopaedia", range(len(truth)), volume, 4, spacing=(0.7, 0.7)),
    )


def test_predictions_of_one_pass(prepared_dir, trained_dir, evaluated):
    truth, predictions, _ = evaluated
    segmenter = Segmenter.load(trained_dir / "model", CPU)
    probabilities = segmenter.probabilities(load_prepared(prepared_dir).images["radiopaedia"])
    np.testing.assert_array_equal(predictions.labels, probabilities.argmax(1))
    np.testing.assert_array_equal(predictions.argmax, probabilities.argmax(1))
    sure = predictions.thresholded != metrics.NO_CLASS
    np.testing.assert_array_equal(sure, probabilities.max(1) > 0.5)
    np.testing.assert_array_equal(predictions.thresholded[sure], predictions.labels[sure])
    lung = ((truth != 3) | (predictions.labels != 3)).sum()
    assert (predictions.reliability.pixels.sum(1) == lung).all()
    switched = InferenceSettings(thresholds=(1e-6, 1, 1, 1))
    other = collect_predictions(
        Segmenter.load(trained_dir / "model", CPU, switched), truth.astype(np.int16), truth
    )
    assert (
        (other.labels == 0).mean() > 0.99 > (other.argmax == 0).mean()
    )  # the settings reach the labels, not the argmax


def test_no_view_goes_through_the_network_twice_whatever_is_asked(prepared_dir, trained_dir):
    prepared = load_prepared(prepared_dir)
    hu, truth = prepared.images["medseg"][:5], prepared.labels["medseg"][:5]
    segmenter = Segmenter.load(trained_dir / "model", CPU)
    steps = {
        "plain": InferenceSettings(),
        "thresholds": InferenceSettings(thresholds=(0.2, 0.2, 1, 1)),
        "islands": InferenceSettings(min_lung_share=0.5),
        "specks": InferenceSettings(min_lesion_pixels=20),
        "tempered": InferenceSettings(temperature=2.0),
        "mirrored": InferenceSettings(flip=True),
        "turned": InferenceSettings(flip=True, angles=(-10, 10), temperature=0.5),
    }
    seen = []
    hook = segmenter.model.register_forward_hook(lambda module, images, logits: seen.append(len(images[0])))
    collect_predictions(segmenter, hu, truth, 2)
    assert sum(seen) == len(hu)
    seen.clear()
    predictions = collect_predictions(segmenter, hu, truth, 2, steps)
    assert sum(seen) == 6 * len(hu)  # as they are, mirrored, turned to both sides, turned and mirrored
    hook.remove()

    for name, settings in steps.items():  # as if each had its own pass
        alone = replace(segmenter, settings=settings)
        counts = metrics.slice_confusion(truth, alone.labels(hu, 2))
        np.testing.assert_array_equal(predictions.steps[name].per_slice, counts)
        expected = calibration_summary(collect_predictions(alone, hu, truth, 2).reliability)
        assert calibration_summary(predictions.steps[name].reliability) == expected
    size = segmenter.image_size
    own = segmenter.labels(resize_nearest(hu, size), 2)
    np.testing.assert_array_equal(predictions.small, own)
    np.testing.assert_allclose(predictions.entropy, entropy(segmenter.probabilities(hu, 2)), atol=1e-3)


def test_the_record_is_json_and_agrees_with_the_tables(evaluated, tmp_path):
    truth, _, evaluation = evaluated
    save_results(tmp_path, evaluation.table, evaluation.per_slice.sum(0), evaluation.record)
    record = json.loads((tmp_path / "metrics.json").read_text())
    table = pd.read_csv(tmp_path / "per_slice.csv")
    np.testing.assert_array_equal(counts_of(table), evaluation.per_slice)
    counts = evaluation.per_slice.sum(0)
    for key, score in HEADLINE.items():
        assert stored(record["full_size"], key) == pytest.approx(float(score(counts)), nan_ok=True)
        assert key in record["intervals"]
    for key, score in PER_SLICE.items():
        values = score(table)
        expected = values.sum() if key.endswith("only_truth") else values.mean()
        assert stored(record, key) == pytest.approx(expected, nan_ok=True)
    assert record["slices"] == len(table) == len(truth) and record["spacing_mm"] == [0.7, 0.7]
    assert sum(record["borders"]["lung"]["cases"].values()) == len(truth)
    assert record["borders"]["lung"]["hd95_mm"]["slices"] == table.lung_hd95_mm.notna().sum() > 0
    volumes = record["burden"]["volumes"]
    assert volumes["values"] + volumes["no_true_lung"] == 2  # this phantom's second volume shows no lung
    assert record["per_slice"]["accuracy"]["slices"] == len(truth)
    assert record["lesions"]["all"]["true"] == (evaluation.lesions.kind == "true").sum()
    ours = next(
        row for row in record["definitions"] if row["averaging"] == "pooled" and row["absent"] == "skipped"
    )
    assert ours["mean_iou"] == pytest.approx(record["full_size"]["mean_iou"])
    assert {row["size"] for row in record["definitions"]} == {"64 x 64", "256 x 256"}


def test_masks_that_do_not_fit_are_refused(evaluated):
    truth, predictions, _ = evaluated
    with pytest.raises(InputError, match="expected the same shape"):
        evaluate(truth[:2], predictions, "radiopaedia", range(2), [1, 1])
    odd = truth.copy()
    odd[0, 0, 0] = 7
    with pytest.raises(InputError, match="expected 0 to 3"):
        evaluate(odd, replace(predictions, labels=truth), "radiopaedia", range(len(truth)), [1] * len(truth))
