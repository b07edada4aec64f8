"""Where and at what HU the two lesions are swapped, on slices small enough to count by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg_utils.core.files import InputError
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.lesions import HU_EDGES, LesionConfusion, lesion_confusion


def test_counts_by_hand():
    truth, prediction = np.full((2, 2, 128, 128), 3)
    hu = np.full((2, 128, 128), -850.0)
    truth[0, 0:2, 0:2] = 0  # one place, upper left, all of it taken for consolidation
    prediction[0, 0:2, 0:2] = 1
    hu[0, 0:2, 0:2] = -600
    truth[1, 127, 126] = 1  # a quarter of the place at the lower right, taken for ground glass
    prediction[1, 127, 126] = 0
    hu[1, 127, 126] = 900  # beyond the last edge
    truth[1, 64, 64] = prediction[1, 64, 64] = 1
    truth[1, 70, 70] = 0  # missed, so not confused
    prediction[1, 80, 80] = 1  # a false alarm

    found = lesion_confusion(hu, truth, prediction)
    assert found.slices == 2
    assert found.histograms.sum((2,)).tolist() == [[0, 4], [1, 1]]
    assert found.histograms[0, 1, np.searchsorted(HU_EDGES, -600)] == 4  # the left edge is included
    assert found.histograms[1, 0, -1] == 1
    assert found.places[0, 1, 0, 0] == 1 and found.places[0, 1].sum() == 1
    assert found.places[1, 0, 63, 63] == 0.25 and found.places[1, 1, 32, 32] == 0.25


@given(st.integers(0, 1000), st.sampled_from([(32, 32), (50, 70), (128, 64)]))
@settings(max_examples=20)
def test_counts_agree_with_the_confusion_matrix_flip_and_add_up(seed, size):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 4, (2, 3, *size))
    hu = rng.normal(-400, 400, truth.shape)
    whole = lesion_confusion(hu, truth, prediction)
    lesions = metrics.confusion_matrix(truth, prediction)[:2, :2]
    np.testing.assert_array_equal(whole.histograms.sum(-1), lesions)
    np.testing.assert_allclose(whole.places.sum((2, 3)) * size[0] * size[1] / 64**2, lesions)
    parts = [lesion_confusion(hu[part], truth[part], prediction[part]) for part in (slice(0, 2), slice(2, 3))]
    total = sum(parts, LesionConfusion())
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(total, name), value)
    if size == (128, 64):  # divides into the places: a mirrored slice has mirrored places
        mirrored = lesion_confusion(hu[..., ::-1], truth[..., ::-1], prediction[..., ::-1])
        np.testing.assert_array_equal(mirrored.places, whole.places[..., ::-1])
    swapped = lesion_confusion(hu, prediction, truth)
    np.testing.assert_array_equal(swapped.histograms, whole.histograms.transpose(1, 0, 2))


def test_other_shapes_are_refused():
    labels = np.zeros((2, 8, 8), int)
    with pytest.raises(InputError, match="hu has shape"):
        lesion_confusion(np.zeros((2, 8, 9)), labels, labels)
    with pytest.raises(InputError):
        lesion_confusion(np.zeros((8, 8)), labels[0], labels[0])
