"""Severity: hand-made lungs whose sides, thirds, millilitres and grades are counted by hand."""

import json

import numpy as np
import pytest

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.report.severity import (
    left_lung,
    midline,
    severity,
    severity_score,
    third_of_slices,
    zone_grade,
)

SPACING = (10.0, 2.0, 1.0)


def chest(slices=12, right=(10, 25), left=(35, 50)):
    """Two block lungs, columns `right` and `left`, rows 10 to 29, in a body: labels and HU (N, 40, 60)."""
    labels = np.full((slices, 40, 60), BACKGROUND, np.uint8)
    for columns in (right, left):
        if columns:
            labels[:, 10:30, slice(*columns)] = LUNG_OTHER
    hu = np.where(labels == LUNG_OTHER, -850, 40).astype(np.int16)
    hu[:, :3] = hu[:, -3:] = hu[:, :, :3] = hu[:, :, -3:] = -1000
    return labels, hu


def test_percent_and_millilitres_by_class_side_and_third():
    labels, hu = chest()
    labels[8:, 10:30, 10:25] = GROUND_GLASS  # the upper third on the image's left, the patient's right
    labels[:2, 10:20, 35:50] = CONSOLIDATION
    found = severity(labels, hu, SPACING, volume=True)
    lung = 12 * 20 * 30
    assert found["all"]["millilitres"]["lung"] == lung * 20 / 1000
    assert found["all"]["percent_of_lung"]["ground_glass"] == round(100 * 4 * 20 * 15 / lung, 2)
    assert found["all"]["percent_of_lung"]["involved"] == round(100 * (4 * 300 + 2 * 150) / lung, 2)
    assert found["sides"]["right"]["percent_of_lung"]["involved"] == pytest.approx(100 / 3, abs=0.01)
    assert found["sides"]["left"]["percent_of_lung"] == {
        "ground_glass": 0,
        "consolidation": 8.33,
        "lung_other": 91.67,
        "involved": 8.33,
    }
    assert found["thirds"]["upper"]["percent_of_lung"]["ground_glass"] == 50
    assert found["thirds"]["middle"]["percent_of_lung"]["involved"] == 0
    assert found["thirds"]["lower"]["millilitres"]["consolidation"] == 2 * 150 * 20 / 1000
    zones = found["score"]["zones"]
    assert zones["right_upper"] == {"percent": 100, "grade": 4} and zones["left_lower"] == {
        "percent": 25,
        "grade": 2,
    }
    assert (
        found["score"]["total"] == 6 and found["score"]["of"] == 24 and "adapted" in found["score"]["method"]
    )
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("percent", "grade"),
    [(0, 0), (0.4, 0), (0.6, 1), (24, 1), (25, 2), (49, 2), (50, 3), (74, 3), (75, 4), (100, 4)],
)
def test_grades_follow_the_published_limits(percent, grade):
    assert zone_grade(percent / 100) == grade


def test_a_zone_without_lung_has_no_grade_and_is_named():
    zones = np.zeros((3, 2, 4), np.int64)
    zones[:, 0, LUNG_OTHER] = 10
    zones[0, 0, GROUND_GLASS] = 90
    score = severity_score(zones)
    assert score["total"] == 4 and score["zones"]["left_upper"] is None
    assert score["zones_without_lung"] == ["left_lower", "left_middle", "left_upper"]


@pytest.mark.parametrize(
    ("right", "left", "share"),
    [
        ((10, 25), None, 1),
        (None, (35, 50), 0),
        ((10, 33), None, 1),
        (None, (26, 50), 0),
        ((6, 14), (20, 56), 8 / 44),
    ],
)
def test_sides_hold_with_one_lung_or_a_small_one(right, left, share):
    labels, hu = chest(right=right, left=left)
    found = severity(labels, hu, SPACING, volume=True)
    total = found["all"]["millilitres"]["lung"]
    assert found["sides"]["right"]["millilitres"]["lung"] / total == pytest.approx(share, abs=0.01)


def test_touching_lungs_are_cut_at_the_midline_and_a_lung_that_leans_over_stays_whole():
    labels, hu = chest(right=(10, 30), left=(30, 50))
    found = severity(labels, hu, SPACING, volume=True)
    assert found["sides"]["right"]["millilitres"]["lung"] == 12 * 20 * 20 * 20 / 1000
    labels, hu = chest()
    labels[:, 10:12, 25:33] = (
        LUNG_OTHER  # the right lung's tongue before the heart, over the middle of the body
    )
    found = severity(labels, hu, SPACING, volume=True)
    assert found["sides"]["left"]["millilitres"]["lung"] == 12 * 300 * 20 / 1000


def test_the_midline_is_the_bodys_not_the_pictures():
    labels, hu = chest()
    labels, hu = (
        np.pad(a, ((0, 0), (0, 0), (40, 0)), constant_values=v)
        for a, v in ((labels, BACKGROUND), (hu, -1000))
    )
    assert 65 <= midline(labels, hu) <= 75
    assert left_lung(labels[0] != BACKGROUND, midline(labels, hu)).sum() == 300


def test_thirds_ignore_stray_pixels_and_need_enough_lung():
    lung = np.array([1, 0, *[1000] * 9, 0, 3])
    third = third_of_slices(lung, np.full(13, 15.0))
    assert third.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert (
        third_of_slices(lung, np.full(13, 5.0)) is None
        and third_of_slices(np.full(5, 9), np.full(5, 50.0)) is None
    )
    assert third_of_slices(np.zeros(13, int), np.full(13, 15.0)) is None


def test_unordered_slices_have_no_zones_no_millilitres_and_their_own_midlines():
    labels, hu = (
        np.pad(a, ((0, 0), (0, 0), (0, 30)), constant_values=v)
        for a, v in zip(chest(slices=2), (BACKGROUND, -1000))
    )
    hu[1], labels[1] = np.roll(hu[1], 25, axis=1), np.roll(labels[1], 25, axis=1)
    labels[0, 10:30, 10:25] = labels[1, 10:30, 35:50] = GROUND_GLASS  # the right lung of each
    found = severity(labels, hu, SPACING, volume=False)
    assert found["sides"]["right"]["percent_of_lung"]["ground_glass"] == 100
    assert found["sides"]["left"]["percent_of_lung"]["involved"] == 0
    assert found["score"] is None and found["thirds"] is None and found["all"]["millilitres"] is None
    assert found["profile"]["position"] == [1, 2] and found["profile"]["area_unit"] == "cm2"


def test_no_lung_at_all_is_said_with_none():
    labels, hu = chest(right=None, left=None)
    found = severity(labels, hu, SPACING, volume=True)
    assert found["all"]["percent_of_lung"]["involved"] is None and found["all"]["millilitres"]["lung"] == 0
    assert found["score"] is None
    json.dumps(found, allow_nan=False)


def test_the_profile_has_the_areas_and_the_limits_of_the_thirds():
    labels, hu = chest()
    labels[3, 10:30, 10:20] = CONSOLIDATION
    profile = severity(labels, hu, SPACING, volume=True)["profile"]
    assert profile["position"][:3] == [0, 10, 20] and profile["position_unit"] == "mm"
    assert profile["lung"][0] == 600 * 2 / 100 and profile["consolidation"][3] == 200 * 2 / 100
    assert profile["third_limits"] == [-5, 35, 75, 115]
