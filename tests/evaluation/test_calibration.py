"""Reliability, its error and entropy against scikit-learn, torchmetrics and scipy.

No probabilities are refused.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import BinaryCalibrationError

from lungseg_utils.core.classes import BACKGROUND, SHORT_NAMES
from lungseg_utils.core.files import InputError
from lungseg_utils.evaluation.calibration import (
    Reliability,
    calibration_error,
    calibration_summary,
    entropy,
    reliability,
)


def make(seed: int, slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (slices, 16, 16))
    logits = rng.normal(0, 2, (slices, 4, 16, 16)) + 2 * np.moveaxis(np.eye(4)[truth], -1, 1)
    return softmax(logits, axis=1).astype(np.float32), truth


def in_lung(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, 4) probabilities and (pixels,) truth where truth or argmax is lung, taken the plain way."""
    kept = (truth != BACKGROUND) | (probabilities.argmax(1) != BACKGROUND)
    return np.moveaxis(probabilities, 1, -1)[kept], truth[kept]


def test_against_scikit_learn_and_torchmetrics():
    probabilities, truth = make(0)
    counts = reliability(probabilities, truth)
    p, t = in_lung(probabilities, truth)
    for c in range(3):
        share, mean = calibration_curve(t == c, p[:, c], n_bins=15)
        held = counts.pixels[c] > 0
        np.testing.assert_allclose(counts.hits[c, held] / counts.pixels[c, held], share)
        np.testing.assert_allclose(counts.probability[c, held] / counts.pixels[c, held], mean)
        theirs = BinaryCalibrationError(n_bins=15)(torch.from_numpy(p[:, c]), torch.from_numpy(t == c).long())
        assert calibration_error(counts)[c] == pytest.approx(float(theirs), abs=1e-6)
    summary = calibration_summary(counts)
    assert summary["pixels"] == len(t) < truth.size
    assert summary["mean_class_error"] == pytest.approx(np.mean(list(summary["class_error"].values())))
    assert tuple(summary["class_error"]) == SHORT_NAMES[:3]
    p = p.astype(float) / p.sum(1, keepdims=True, dtype=float)
    assert summary["log_loss"] == pytest.approx(log_loss(t, p, labels=range(4)), rel=1e-5)
    assert summary["brier"] == pytest.approx(
        brier_score_loss(t, p, labels=range(4), scale_by_half=False), rel=1e-5
    )


def test_batches_add_up():
    probabilities, truth = make(1, slices=5)
    whole, total = reliability(probabilities, truth), Reliability()
    for start in (0, 2, 4):
        total += reliability(probabilities[start : start + 2], truth[start : start + 2])
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(total, name), value)
    assert not Reliability().pixels.any()  # the sums above went nowhere else


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_flips_change_nothing_and_background_does_not_count(seed):
    probabilities, truth = make(seed, slices=1)
    error = calibration_error(reliability(probabilities, truth))
    assert ((error >= 0) & (error <= 1)).all()
    np.testing.assert_allclose(
        calibration_error(reliability(probabilities[..., ::-1], truth[..., ::-1])), error
    )
    surround = np.zeros_like(probabilities)
    surround[:, BACKGROUND] = 1
    wider = (
        np.concatenate([probabilities, surround], 2),
        np.concatenate([truth, np.full_like(truth, BACKGROUND)], 1),
    )
    np.testing.assert_allclose(calibration_error(reliability(*wider)), error)


def test_certain_and_right_or_wrong():
    truth = np.array([[[0, 1, 2, 3]]])
    right = np.moveaxis(np.eye(4, dtype=np.float32)[truth], -1, 1)
    assert calibration_summary(reliability(right, truth))["mean_class_error"] == 0
    wrong = calibration_summary(reliability(right[..., ::-1], truth))
    assert wrong["brier"] == 2 and wrong["log_loss"] == pytest.approx(15.94, abs=0.01)
    assert wrong["pixels"] == 4  # the background pixel is predicted as ground glass


def test_without_lung_there_is_no_calibration():
    probabilities = np.zeros((1, 4, 2, 2), np.float32)
    probabilities[:, BACKGROUND] = 1
    summary = calibration_summary(reliability(probabilities, np.full((1, 2, 2), BACKGROUND)))
    assert (
        summary["pixels"] == 0 and summary["brier"] is None and summary["class_error"]["ground_glass"] is None
    )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_entropy_against_scipy():
    probabilities, truth = make(2)
    np.testing.assert_allclose(
        entropy(probabilities), scipy_entropy(probabilities, axis=1, base=4), rtol=1e-5
    )
    assert entropy(probabilities).shape == truth.shape and entropy(probabilities).dtype == np.float32
    extremes = np.array([[1, 0, 0, 0], [0.25] * 4], np.float32).T[None, :, None]
    np.testing.assert_allclose(entropy(extremes)[0, 0], [0, 1])


def test_what_is_no_probability_is_refused():
    probabilities, truth = make(3, slices=1)
    broken = probabilities.copy()
    broken[0, 1, 2, 3] = np.nan
    with pytest.raises(InputError, match="NaN in 1 pixels"):
        reliability(broken, truth)
    for bad in (2 * probabilities, probabilities - 0.1, np.log(probabilities)):
        with pytest.raises(InputError, match="softmax"):
            entropy(bad)
    with pytest.raises(InputError, match=r"expected \(N, 4, H, W\)"):
        entropy(probabilities[0])
    with pytest.raises(InputError, match="truth has shape"):
        reliability(probabilities, truth[0])
    with pytest.raises(InputError, match="labels from 0 to 9"):
        reliability(probabilities, np.where(truth == truth.max(), 9, 0))
