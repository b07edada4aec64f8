"""Figures: the pictures that carry a claim are checked pixel by pixel, every figure can be drawn and saved."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from lungseg_utils import plots
from lungseg_utils.core.classes import CLASSES
from lungseg_utils.plots.agreement import AGREEMENT, agreement


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def test_agreement_shows_hits_misses_and_false_alarms():
    truth = np.array([[0, 0, 0, 1, 2, 3, 3]])
    prediction = np.array([[0, 1, 2, 1, 2, 0, 3]])
    expected = ["hit", "miss", "miss", "hit", None, "false alarm", None]
    picture = agreement(truth, prediction, np.full((1, 7), -1350.0))
    for pixel, name in zip(picture[0], expected):
        assert tuple(pixel) == pytest.approx(to_rgb(AGREEMENT[name]) if name else (0, 0, 0))


def test_colours_of_agreement_are_no_class_colours():
    assert not {c.color.lower() for c in CLASSES} & {color.lower() for color in AGREEMENT.values()}


def test_overlay_colours_only_the_named_classes():
    labels = np.array([[0, 1, 2, 3]])
    picture = plots.overlay(np.full((1, 4), 150.0), labels, classes=(0,), alpha=1)
    assert tuple(picture[0, 0]) == pytest.approx(to_rgb(CLASSES[0].color)) and (picture[0, 1:] == 1).all()


def test_four_rows_one_column_a_slice_and_every_class_named():
    stack = np.zeros((3, 8, 8), np.uint8)
    figure = plots.plot_results(stack.astype(float), stack, stack, ["a", "b", "c"])
    assert len(figure.axes) == 12 and [ax.get_title() for ax in figure.axes[:3]] == ["a", "b", "c"]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {c.name for c in CLASSES} | set(AGREEMENT)


def test_confusion_is_in_percent_of_the_truth():
    counts = np.diag([1, 2, 3, 4])
    counts[3, 0] = 4
    texts = [text.get_text() for text in plots.plot_confusion(counts).axes[0].texts]
    assert texts[-4:] == ["50.0", "0.0", "0.0", "50.0"]


def test_a_saved_figure_is_whole_and_closed(tmp_path):
    figure = plots.plot_bars({"a": 1.0, "b": 2.0}, "units", "title")
    assert plots.save_figure(figure, tmp_path / "new", "bars") is figure
    assert (tmp_path / "new" / "bars.png").read_bytes().startswith(b"\x89PNG") and not plt.get_fignums()
