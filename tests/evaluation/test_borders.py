"""Distances between borders against hand-worked cases, MONAI and scipy's distance transform."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import to_labels
from lungseg_utils.evaluation.borders import (
    CASES,
    REGIONS,
    TOLERANCES,
    border_scores,
    border_summary,
    border_table,
)
from lungseg_utils.evaluation.metrics import NO_CLASS

SPACING = (0.7, 1.3)  # mm
masks = arrays(bool, (12, 9))
shapes = st.sampled_from(
    (0, 2, 5)
).flatmap(  # blocks make shapes with an inside; they often touch the slice's edge
    lambda shift: arrays(bool, (4, 3)).map(
        lambda m: np.roll(np.kron(m, np.ones((5, 5), bool)), shift, (0, 1))
    )
)
pairs = st.one_of(st.tuples(masks, masks), st.tuples(shapes, shapes))

EMPTY = np.zeros((16, 16), bool)
FULL = ~EMPTY
DOT, CORNER, SQUARE = EMPTY.copy(), EMPTY.copy(), EMPTY.copy()
DOT[7, 4] = CORNER[0, 15] = SQUARE[3:9, 2:10] = True
RANDOM = np.random.default_rng(0).random((16, 16)) < 0.4
EXTREMES = {"empty": EMPTY, "full": FULL, "dot": DOT, "corner": CORNER, "square": SQUARE, "hole": ~SQUARE}
EXTREMES["random"] = RANDOM


def border(mask):
    """Pixels with a neighbour outside, above, below, left or right; beyond the slice is outside."""
    around = np.pad(mask, 1)
    return mask & ~(around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:])


def by_scipy(true, predicted, spacing=None):
    """The same scores from dense distance maps of the whole slice."""
    one, other = border(true), border(predicted)
    units = {"px": None} | ({"mm": spacing} if spacing else {})
    scores = {"borders": "both", **{f"hd95_{unit}": np.nan for unit in units}}
    if not one.any() or not other.any():
        value = np.nan if not one.any() and not other.any() else 0
        scores["borders"] = "only_truth" if one.any() else "only_prediction" if other.any() else "neither"
        return scores | {f"surface_dice_{t}px": value for t in TOLERANCES}
    for unit, size in units.items():
        there = ndimage.distance_transform_edt(~other, sampling=size)[one]
        back = ndimage.distance_transform_edt(~one, sampling=size)[other]
        scores[f"hd95_{unit}"] = max(np.percentile(there, 95), np.percentile(back, 95))
        if unit == "px":
            close = {t: (there <= t).sum() + (back <= t).sum() for t in TOLERANCES}
    return scores | {f"surface_dice_{t}px": n / (one.sum() + other.sum()) for t, n in close.items()}


def same(ours, theirs):
    assert ours.pop("borders") == theirs.pop("borders")
    assert ours == pytest.approx(theirs, rel=1e-6, nan_ok=True)


@given(pairs)
@settings(max_examples=60)
def test_agrees_with_scipy(pair):
    same(border_scores(*pair, SPACING), by_scipy(*pair, SPACING))


@pytest.mark.parametrize("true", EXTREMES)
@pytest.mark.parametrize("predicted", EXTREMES)
def test_agrees_with_scipy_and_monai_at_the_extremes(true, predicted):
    true, predicted = EXTREMES[true], EXTREMES[predicted]
    ours = border_scores(true, predicted, SPACING)
    check_against_monai(ours, true, predicted)
    same(ours, by_scipy(true, predicted, SPACING))


def check_against_monai(ours, true, predicted):
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    t, p = (torch.from_numpy(mask)[None, None] for mask in (true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own, on empty masks and its own deprecated arguments
        for tolerance in TOLERANCES:
            theirs = compute_surface_dice(p, t, [tolerance], include_background=True)
            assert ours[f"surface_dice_{tolerance}px"] == pytest.approx(float(theirs), rel=1e-6, nan_ok=True)
        if ours["borders"] == "both":  # else MONAI says infinite or NaN
            for unit, spacing in (("px", None), ("mm", SPACING)):
                theirs = compute_hausdorff_distance(
                    p, t, include_background=True, percentile=95, spacing=spacing
                )
                assert ours[f"hd95_{unit}"] == pytest.approx(float(theirs), rel=1e-6)


def test_real_masks_agree_with_scipy_and_monai(real_data):
    stored = np.load(real_data / "masks_medseg.npy", mmap_mode="r")
    truth = to_labels(stored[[3, 40]], one_hot=True)
    prediction = truth.copy()
    prediction[0] = np.roll(truth[0], 4, axis=0)  # shifted; the other one grown
    prediction[1][ndimage.binary_dilation(truth[1] < LUNG_OTHER, iterations=2)] = GROUND_GLASS
    table = border_table(truth, prediction, SPACING)
    for k, (region, classes) in [(k, item) for k in range(2) for item in REGIONS.items()]:
        ours = table.iloc[k][[name for name in table if name.startswith(f"{region}_")]]
        ours = {name.removeprefix(f"{region}_"): value for name, value in ours.items()}
        masks = np.isin(truth[k], classes), np.isin(prediction[k], classes)
        check_against_monai(ours, *masks)
        same(ours, by_scipy(*masks, SPACING))


def test_two_dots_are_as_far_apart_as_pythagoras_says():
    true, predicted = EMPTY.copy(), EMPTY.copy()
    true[2, 3] = predicted[2 + 3, 3 + 4] = True
    scores = border_scores(true, predicted, spacing=(2.0, 0.5))
    assert scores["hd95_px"] == 5 and scores["hd95_mm"] == pytest.approx((6**2 + 2**2) ** 0.5)
    assert scores["surface_dice_3px"] == 0


def test_a_line_shifted_by_two_pixels_is_right_from_a_tolerance_of_two():
    true = EMPTY.copy()
    true[3:13, 5] = True
    scores = border_scores(true, np.roll(true, 2, axis=1))
    assert scores["hd95_px"] == 2
    assert [scores[f"surface_dice_{t}px"] for t in TOLERANCES] == [0, 1, 1]


def test_a_square_inside_a_square():
    """Borders of 28 and 36 pixels, one pixel apart; the outer corners are a diagonal away."""
    inner, outer = EMPTY.copy(), EMPTY.copy()
    inner[4:12, 4:12] = outer[3:13, 3:13] = True
    scores = border_scores(inner, outer)
    assert (
        scores["surface_dice_1px"] == pytest.approx((28 + 36 - 4) / (28 + 36))
        and scores["surface_dice_2px"] == 1
    )
    assert scores["hd95_px"] == pytest.approx(2**0.5)  # four of 36 are more than the 5 % that HD95 spares


def test_hd95_spares_one_stray_pixel_in_a_hundred():
    true = np.zeros((120, 60), bool)
    true[10:110, 3] = True
    stray = true.copy()
    stray[50, 53] = True
    scores = border_scores(true, stray)
    assert scores["hd95_px"] == 0 and scores["surface_dice_3px"] == pytest.approx(200 / 201)


@given(pairs)
@settings(max_examples=60)
def test_properties(pair):
    true, predicted = pair
    scores = border_scores(true, predicted, SPACING)
    numbers = {name: value for name, value in scores.items() if name != "borders"}
    back = border_scores(predicted, true, SPACING)
    assert {name: back[name] for name in numbers} == pytest.approx(numbers, nan_ok=True)  # symmetry
    flipped = border_scores(true[::-1, ::-1], predicted[::-1, ::-1], SPACING)
    assert flipped == pytest.approx(scores, nan_ok=True)
    # In a larger slice the same: neither the cropping nor the slice's edge, which a shape may touch, changes
    # a value.
    inside = border_scores(np.pad(true, ((0, 30), (25, 0))), np.pad(predicted, ((0, 30), (25, 0))), SPACING)
    assert inside == pytest.approx(scores, nan_ok=True)
    dices = [scores[f"surface_dice_{t}px"] for t in TOLERANCES]
    assert np.isnan(dices).all() or 0 <= dices[0] <= dices[1] <= dices[2] <= 1
    assert not scores["hd95_px"] > np.hypot(*true.shape)
    perfect = border_scores(true, true)
    if true.any():
        assert perfect["hd95_px"] == 0 and perfect["surface_dice_1px"] == 1


def test_the_table_counts_what_hd95_cannot_see_and_nothing_warns():
    truth = np.full((4, 8, 8), BACKGROUND, np.uint8)
    prediction = truth.copy()
    truth[0, 2:5, 2:5] = prediction[0, 2:5, 2:5] = GROUND_GLASS  # found
    truth[1, 2:5, 2:5] = GROUND_GLASS  # missed, called consolidation
    prediction[1, 2:5, 2:5] = CONSOLIDATION
    prediction[2, 0, 0] = LUNG_OTHER  # false alarm
    prediction[3] = NO_CLASS  # no region at all
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = border_table(truth, prediction)
    assert list(table.ground_glass_borders) == ["both", "only_truth", "neither", "neither"]
    assert not [name for name in table if name.endswith("_mm")] and len(table.columns) == 4 * 5
    summary = border_summary(table)
    assert set(summary) == set(REGIONS) and all(
        set(scores["cases"]) == set(CASES) for scores in summary.values()
    )
    assert summary["ground_glass"] == {
        "hd95_px": {"mean": 0, "median": 0, "slices": 1},  # perfect, as if nothing had been missed
        **{f"surface_dice_{t}px": {"mean": 0.5, "median": 0.5, "slices": 2} for t in TOLERANCES},
        "cases": {"both": 1, "only_truth": 1, "only_prediction": 0, "neither": 2},
    }
    assert summary["lesion"]["surface_dice_1px"]["mean"] == 1  # as one class both lesions are found
    assert summary["lung"]["cases"] == {"both": 2, "only_truth": 0, "only_prediction": 1, "neither": 1}


def test_a_spacing_adds_millimetres():
    truth = np.random.default_rng(0).integers(0, 4, (2, 8, 8))
    columns = set(border_table(truth, truth, SPACING)) - set(border_table(truth, truth))
    assert columns == {f"{region}_hd95_mm" for region in REGIONS}
    assert border_summary(border_table(truth, truth, SPACING))["lung"]["hd95_mm"]["mean"] == 0


@pytest.mark.parametrize("spacing", [(0.7,), (0.7, 0), (0.7, np.nan), 0.7])
def test_a_bad_spacing_gets_one_clear_sentence(spacing):
    with pytest.raises(InputError, match="expected two numbers above 0: mm between rows"):
        border_table(np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int), spacing)


def test_one_slice_alone_is_no_stack():
    with pytest.raises(InputError, match=r"shape \(4, 4\); expected \(N, H, W\)"):
        border_table(np.zeros((4, 4), int), np.zeros((4, 4), int))
