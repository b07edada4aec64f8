"""Predictions at full size, whatever the batch and the slice, and the submission file."""

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import CPU
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg_utils.classes import CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.datasets import SliceDataset
from lungseg_utils.files import InputError
from lungseg_utils.inference import Segmenter, resize_nearest, write_submission
from lungseg_utils.preprocessing import load_prepared


@pytest.fixture(scope="module")
def segmenter(trained_dir):
    return Segmenter.load(trained_dir / "model", CPU)


@pytest.fixture(scope="module")
def hu(prepared_dir):
    return load_prepared(prepared_dir).images["medseg"][:5]


def test_probabilities_sum_to_one_and_labels_are_the_most_probable(segmenter, hu):
    probabilities = segmenter.probabilities(hu, batch_size=2)
    assert probabilities.shape == (5, 4, 64, 64)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(segmenter.labels(hu, batch_size=2), probabilities.argmax(1))


def test_the_batch_does_not_change_a_prediction(segmenter, hu):
    np.testing.assert_allclose(segmenter.probabilities(hu, 5), segmenter.probabilities(hu, 1), atol=1e-5)


def test_any_size_of_slice(segmenter):
    assert segmenter.labels(np.full((2, 50, 70), -800, np.int16)).shape == (2, 50, 70)
    with pytest.raises(InputError, match="hu\\[None\\]"):
        segmenter.labels(np.zeros((50, 50)))


def test_the_network_sees_in_use_what_it_saw_in_validation(segmenter, prepared_dir, hu):
    dataset = SliceDataset(prepared_dir, "validation", segmenter.image_size)
    for i in range(len(hu)):
        small = segmenter.preprocessing.normalise(resize_nearest(hu[i : i + 1], segmenter.image_size))
        np.testing.assert_array_equal(small, dataset[i][0].numpy())


@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 90))
@settings(deadline=None)
def test_resizing_agrees_with_opencv(height, width, size):
    image = np.random.default_rng(0).integers(0, 255, (1, height, width)).astype(np.uint8)
    expected = cv2.resize(image[0], (size, size), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_nearest(image, size)[0], expected)


def test_submission_has_the_competitions_order(tmp_path):
    labels = np.full((2, 3, 4), LUNG_OTHER, np.uint8)
    labels[1, 2, 3], labels[0, 0, 1] = CONSOLIDATION, GROUND_GLASS
    write_submission(tmp_path / "sub.csv", labels)
    table = pd.read_csv(tmp_path / "sub.csv")
    assert list(table.columns) == ["Id", "Predicted"] and table.Id.tolist() == list(range(2 * 3 * 4 * 2))
    back = table.Predicted.to_numpy().reshape(2, 3, 4, 2)
    np.testing.assert_array_equal(back[..., 0], labels == GROUND_GLASS)
    np.testing.assert_array_equal(back[..., 1], labels == CONSOLIDATION)
