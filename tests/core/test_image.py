"""Where the body lies in a slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg_utils.core.classes import BACKGROUND
from lungseg_utils.core.image import body_frame
from lungseg_utils.data.phantom import phantom_volume

AIR = -1000
HU, LABELS = (each[3:9] for each in phantom_volume(np.random.default_rng(3), 12, 96, (0.1, 0.03)))


def in_air(picture, above, below, left, right, air=AIR):
    return np.pad(picture, ((above, below), (left, right)), constant_values=air)


@given(st.sampled_from(range(len(HU))), st.tuples(*4 * [st.integers(0, 150)]))
def test_the_frame_holds_the_lungs_wherever_they_lie_and_little_air(index, margins):
    hu = in_air(HU[index], *margins)
    lung = in_air(LABELS[index] != BACKGROUND, *margins, air=False)
    frame = body_frame(hu)
    assert lung[frame].sum() == lung.sum()
    shares = [(part.stop - part.start) / side for part, side in zip(frame, hu.shape, strict=True)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)  # the slice's proportions
    assert max(shares) <= min(max(1.15 * 96 / min(hu.shape) + 0.04, 0.36), 1)


def test_a_picture_without_air_around_it_or_without_a_body_stays_whole():
    whole = (slice(0, 60), slice(0, 60))
    assert body_frame(HU[2][20:80, 20:80]) == whole
    for hu in (AIR, 40, -500):
        assert body_frame(np.full((60, 60), hu)) == whole


def test_what_is_too_small_for_a_chest_is_not_magnified_further():
    hu = np.full((256, 256), AIR)
    hu[100:120, 200:220] = 40  # an arm
    rows, columns = body_frame(hu)
    assert rows.stop - rows.start == columns.stop - columns.start == 85
    assert columns.start <= 200 and 220 <= columns.stop <= 256 and rows.start <= 100 and rows.stop >= 120


def test_lungs_alone_are_not_cut():
    hu = in_air(HU[2], *4 * [60])
    lung = in_air(LABELS[2] != BACKGROUND, *4 * [60], air=False)
    assert lung[body_frame(np.where(lung, hu, AIR))].sum() == lung.sum()
