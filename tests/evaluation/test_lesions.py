"""Lesions one by one against a flood fill in plain Python, and the rule by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import to_labels
from lungseg_utils.evaluation.lesions import SIZES, lesion_summary, lesion_table
from lungseg_utils.evaluation.metrics import NO_CLASS

EMPTY = np.full((1, 40, 40), BACKGROUND, np.uint8)


def flood_fill(mask):
    """8-connected components as sets of pixels, by a walk over neighbours."""
    left, found = set(zip(*(axis.tolist() for axis in np.nonzero(mask)))), []
    while left:
        walk, component = [left.pop()], set()
        while walk:
            row, column = walk.pop()
            component.add((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            walk += near
        found.append(component)
    return found


def by_flood_fill(truth, prediction):
    rows = []
    for index, labels in enumerate(zip(truth, prediction)):
        masks = [(side == GROUND_GLASS) | (side == CONSOLIDATION) for side in labels]
        for kind, mine, other in (("true", *masks), ("predicted", *masks[::-1])):
            for component in flood_fill(mine):
                if len(component) >= 10:
                    shared = sum(bool(other[pixel]) for pixel in component)
                    rows.append(
                        (index, kind, len(component), shared / len(component), 10 * shared >= len(component))
                    )
    return sorted(rows)


def check(truth, prediction):
    rows = lesion_table(truth, prediction).itertuples(index=False, name=None)
    assert sorted(rows) == by_flood_fill(truth, prediction)


coarse = arrays(np.uint8, (2, 5, 6), elements=st.sampled_from([0, 1, 2, 3, 3]))
blocks = coarse.map(lambda labels: np.kron(labels, np.ones((3, 3), np.uint8)))
noise = arrays(np.uint8, (2, 15, 18), elements=st.integers(0, 4))


@given(blocks, st.one_of(blocks, noise))
@settings(max_examples=60)
def test_agrees_with_a_flood_fill(truth, prediction):
    check(truth, prediction)


@pytest.mark.parametrize("truth", [BACKGROUND, GROUND_GLASS])
@pytest.mark.parametrize("prediction", [BACKGROUND, CONSOLIDATION, NO_CLASS])
def test_empty_and_full_slices(truth, prediction):
    check(np.full((2, 12, 12), truth), np.full((2, 12, 12), prediction))


def test_real_masks_agree_with_a_flood_fill(real_data):
    masks = np.load(real_data / "masks_medseg.npy", mmap_mode="r")
    truth = to_labels(masks[:3, ::2, ::2], one_hot=True)  # every second pixel: a walk in Python is slow
    check(truth, np.roll(truth, 5, axis=1))
    check(truth, truth[::-1])


@pytest.mark.parametrize(("pixels", "found"), [(0, False), (1, False), (2, True), (20, True)])
def test_a_lesion_is_found_from_a_tenth_of_its_pixels(pixels, found):
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[0, 5, 10:30] = GROUND_GLASS
    prediction[0, 5, 10 : 10 + pixels] = (
        CONSOLIDATION  # the other lesion class; and a piece too small to be a lesion
    )
    table = lesion_table(truth, prediction)
    assert table.hit[table.kind == "true"].tolist() == [found]
    assert table.overlap.iloc[0] == pixels / 20


def test_a_region_of_less_than_a_tenth_lesion_is_a_false_alarm_even_where_it_finds_one():
    truth, prediction = EMPTY.copy(), EMPTY.copy()
    truth[0, 0:4, 0:4] = GROUND_GLASS
    prediction[0] = GROUND_GLASS  # all of the slice
    summary = lesion_summary(lesion_table(truth, prediction), slices=1)
    assert summary["all"]["recall"] == 1 and summary["all"]["false_alarms"] == 1


def test_corners_connect_and_specks_do_not_count():
    truth = EMPTY.copy()
    truth[0, np.arange(10), np.arange(10)] = GROUND_GLASS  # ten pixels, corner to corner
    truth[0, 20, 20:29] = CONSOLIDATION  # nine
    table = lesion_table(truth, EMPTY)
    assert table.pixels.tolist() == [10]


def test_the_two_lesions_touching_are_one_unless_asked_for_one_of_them():
    truth = EMPTY.copy()
    truth[0, :4, :4], truth[0, :4, 4:9], truth[0, :4, 9:] = GROUND_GLASS, CONSOLIDATION, LUNG_OTHER
    assert lesion_table(truth, truth).pixels.tolist() == [36, 36]
    assert lesion_table(truth, truth, classes=(CONSOLIDATION,)).pixels.tolist() == [20, 20]


def test_summary_by_size():
    truth = np.full((4, 60, 60), BACKGROUND)
    prediction = truth.copy()
    truth[0, :4, :4] = GROUND_GLASS  # small, missed
    truth[1, :10, :10] = prediction[1, :10, :10] = GROUND_GLASS  # medium: from 100 pixels, found
    truth[1, 20:24, :4] = prediction[1, 20:24, :4] = CONSOLIDATION  # small, found
    prediction[2, :40, :40] = GROUND_GLASS  # a large false alarm
    summary = lesion_summary(lesion_table(truth, prediction), slices=4)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary and set(summary) == {"all", *SIZES}
    assert summary["small"] == {
        "true": 2,
        "found": 1,
        "recall": 0.5,
        "predicted": 1,
        "false_alarms": 0,
        "false_alarms_per_slice": 0,
    }
    assert summary["medium"]["recall"] == 1 and summary["large"]["recall"] is None
    assert summary["large"]["false_alarms_per_slice"] == summary["all"]["false_alarms_per_slice"] == 0.25
    assert summary["all"]["true"] == 3 and summary["all"]["recall"] == 2 / 3


def test_no_lesion_anywhere():
    table = lesion_table(EMPTY, EMPTY)
    assert len(table) == 0 and lesion_summary(table, slices=1)["all"]["recall"] is None


def test_labels_must_be_stacks_of_one_shape():
    with pytest.raises(InputError, match="same shape"):
        lesion_table(EMPTY, EMPTY[:, 1:])
    with pytest.raises(InputError, match="expected \\(N, H, W\\)"):
        lesion_table(EMPTY[0], EMPTY[0])
