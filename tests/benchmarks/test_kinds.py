"""benchmarks/kinds.py: brightness alone, and what it cannot say."""

import numpy as np
import pytest
from kinds import best_line, by_brightness, local_mean, scores

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS


def slices(line):
    """HU and labels of two slices whose reader drew the line between the kinds there, in two halves."""
    hu = np.full((2, 64, 64), -900.0)
    hu[:, 10:30, 5:20], hu[:, 10:30, 40:60] = line - 200, line + 200
    labels = np.select([hu == line - 200, hu == line + 200], [GROUND_GLASS, CONSOLIDATION], BACKGROUND)
    return hu, labels


@pytest.mark.parametrize("line", [-500, -100])
def test_the_readers_line_is_found_and_explains_all(line):
    hu, truth = slices(line)
    lesion = truth != BACKGROUND
    mean_hu = local_mean(hu, lesion)
    np.testing.assert_allclose(mean_hu[lesion], hu[lesion], atol=1)  # the air around them has no part in it
    found = best_line(truth, lesion, mean_hu)
    assert line - 200 <= found < line + 200
    np.testing.assert_allclose(scores(truth, by_brightness(lesion, mean_hu, found)), 1)


def test_one_line_cannot_serve_two_readers():
    (hu, labels), (other_hu, other_labels) = slices(-600), slices(-100)
    hu, truth = np.concatenate([hu, other_hu]), np.concatenate([labels, other_labels])
    lesion = truth != BACKGROUND
    mean_hu = local_mean(hu, lesion)
    line = best_line(truth, lesion, mean_hu)
    assert scores(truth, by_brightness(lesion, mean_hu, line))[0] < 0.9
    each = np.array([-600, -600, -100, -100])[:, None, None]
    np.testing.assert_allclose(scores(truth, by_brightness(lesion, mean_hu, each)), 1)
