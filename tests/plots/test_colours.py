"""Colours keep apart: for all readers, for those without green (deuteranopia), and in a grey print."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lungseg_utils.core.classes import (
    BACKGROUND,
    CLASSES,
    CONSOLIDATION,
    GROUND_GLASS,
    LUNG_OTHER,
    LUNG_WINDOW,
)
from lungseg_utils.plots import parts
from lungseg_utils.plots.agreement import AGREEMENT, HATCHED, OTHER_CLASS
from lungseg_utils.plots.slices import OUTLINE, grey_picture

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # WCAG 2.2
# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
HEALTHY_LUNG = (-900, -750)  # HU that lesions lie on


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen_by_all(color):
    return linear(color) @ LUMINANCE  # a grey print keeps the luminance, and nothing else


def seen_without_green(color):
    return np.clip(DEUTERANOPIA @ linear(color), 0, 1) @ LUMINANCE


@pytest.fixture(params=[seen_by_all, seen_without_green])
def contrast(request):
    def ratio(one, other):
        dark, light = sorted([request.param(one), request.param(other)])
        return (light + 0.05) / (dark + 0.05)

    return ratio


def test_lesions_and_lung_keep_apart(contrast):
    kinds = (LUNG_OTHER, GROUND_GLASS, CONSOLIDATION)
    for one, other in combinations(kinds, 2):
        assert contrast(CLASSES[one].color, CLASSES[other].color) >= 3, (one, other)
    assert contrast(CLASSES[BACKGROUND].color, CLASSES[LUNG_OTHER].color) >= 3
    # Four steps of 3 do not fit between black and white: consolidation is hatched, in a light colour.
    assert contrast(CLASSES[CONSOLIDATION].color, OUTLINE[CONSOLIDATION]) >= 3
    assert [c.index for c in CLASSES if c.hatch] == [CONSOLIDATION]


def test_lines_and_marks_are_seen_on_white_paper(contrast):
    for color in [*(c.line for c in CLASSES), *parts.SERIES, parts.INK, parts.FAINT]:
        assert contrast(color, "white") >= 3, color
    for lesion in (GROUND_GLASS, CONSOLIDATION):
        assert contrast(CLASSES[lesion].color, "white") >= 3
    assert contrast(parts.area_patch(CLASSES[LUNG_OTHER].color).get_edgecolor(), "white") >= 3


def test_outlines_are_seen_on_every_grey(contrast):
    """Light with a black case: one of the two differs from whatever lies beside it."""
    for c, color in OUTLINE.items():
        assert contrast(color, "black") >= 3
        for hu in (*HEALTHY_LUNG, -550, -234, *LUNG_WINDOW):
            grey = grey_picture(np.full((1, 1), hu))[0, 0]
            assert max(contrast(color, grey), contrast("black", grey)) >= 3, (c, hu)
    for grey in (grey_picture(np.full((1, 1), hu))[0, 0] for hu in HEALTHY_LUNG):
        assert contrast(OUTLINE[GROUND_GLASS], grey) >= 3


def test_hits_misses_and_false_alarms_keep_apart(contrast):
    for one, other in combinations(AGREEMENT, 2):  # by their luminance, else by one's hatch
        if contrast(AGREEMENT[one], AGREEMENT[other]) < 3:
            assert {one, other} == {"hit", OTHER_CLASS}
    assert set(HATCHED) == {OTHER_CLASS, "miss"} and len(set(HATCHED.values())) == 2
    for name in HATCHED:
        assert contrast(AGREEMENT[name], parts.seen_on(AGREEMENT[name])) >= 3


def test_series_have_lines_of_their_own():
    assert len(parts.SERIES) == len(set(parts.SERIES)) == len(parts.LINES) == len(set(parts.LINES))
