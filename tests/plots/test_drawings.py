"""The teaching drawings show the numbers that they were given; sliders start where they should."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from lungseg_utils.plots import drawings, openings, sliders
from lungseg_utils.plots.parts import alt_text

pytestmark = pytest.mark.usefixtures("coarse_pictures")


def texts(figure):
    """All that is written on a figure's axes."""
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


@pytest.mark.parametrize("notebook", openings.OPENINGS)
def test_every_notebook_has_an_opening(notebook):
    assert openings.opening(notebook).axes


def test_the_two_answers_of_the_opening_of_04_have_one_accuracy_and_two_dice():
    titles = [ax.get_title() for ax in openings.opening("04").axes]
    (a, dice_a), (b, dice_b) = (title.split(": accuracy ")[1].split("\nDice ") for title in titles[1:])
    assert a == b and float(dice_a) > float(dice_b) + 0.2


def test_convolution_says_the_sum_of_its_window():
    patch, kernel = np.arange(35.0).reshape(5, 7), np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    figure = drawings.draw_convolution(patch, kernel, 2, 3)
    assert "their sum: -8" in texts(figure)  # a ramp of 1 a pixel: -(1 + 2 + 1) * 2


def test_overlap_counts_hits_misses_and_false_alarms():
    truth, prediction = np.zeros((2, 6, 6), bool)
    truth[1:4, 1:4] = prediction[1:4, 2:5] = True
    said = texts(drawings.draw_overlap(truth, prediction))
    assert all(part in said for part in ("hits: 6 ", "misses: 3 ", "false alarms: 3 ", "rest: 24 "))


def test_a_pixels_loss_is_that_of_its_true_class():
    logits = np.array([1.5, 0.7, 0.2, -1.0])
    expected = nn.functional.cross_entropy(torch.tensor(logits)[None], torch.tensor([1])).item()
    assert f"{expected:.2f}" in texts(drawings.draw_pixel(logits, 1))


def test_averaged_labels_invent_a_class_and_nearest_do_not():
    labels = np.zeros((8, 8), int)
    labels[:, 3:] = 2
    _, averaged, nearest = (ax.images[0].get_array() for ax in drawings.draw_mixture(labels, 4).axes)
    assert 1 in averaged and set(np.unique(nearest)) == {0, 2}


def test_borders_at_a_distance():
    truth, prediction = sliders.disc(0, 0, 20), sliders.disc(0, 0, 20)
    assert "95 %: at most 0.0 pixels" in texts(drawings.draw_borders(truth, prediction))
    assert "within 2 pixels: 0%" in texts(drawings.draw_borders(truth, sliders.disc(0, 0, 26)))


def test_two_shapes_that_are_one_have_perfect_scores():
    figure, ax = plt.subplots()
    sliders.two_shapes(ax, shift=0, size=24)
    assert "Dice 1.00, IoU 1.00" in ax.get_xlabel() and "HD95 0.0" in ax.get_xlabel()
    sliders.two_shapes(ax, shift=60, size=10)
    assert "Dice 0.00" in ax.get_xlabel() and "accuracy 0.8" in ax.get_xlabel()
    plt.close(figure)


def test_sliders_start_at_the_first_position(monkeypatch):
    import ipywidgets

    shown, drawn = [], []
    monkeypatch.setattr("IPython.display.display", shown.append)
    positions = [{"level": 40, "width": 400}, {"level": -600, "width": 1500}]
    ranges = {"level": (-1000, 500, 10), "width": (50, 2000, 50)}

    def draw(_ax, **values):
        drawn.append(values)

    figure = sliders.slide(draw, positions, ranges, live=True)
    [box] = [each for each in shown if isinstance(each, ipywidgets.HBox)]
    assert [slider.value for slider in box.children[0].children] == [40, 400]
    assert drawn == [positions[0], *positions] and len(figure.axes) == 2
    drawn.clear()
    sliders.slide(draw, positions, ranges, live=False)
    assert drawn == positions


def test_outlines_and_split_and_draws_can_be_drawn():
    hu, labels = np.zeros((2, 16, 16)), np.full((2, 16, 16), 3)
    labels[0, 4:9, 4:9] = 0
    assert "truth" in texts(drawings.show_outlines(hu, labels, np.roll(labels, 1, 2)))
    volumes = np.repeat([1, 2], 4)
    assert "by volume" in texts(drawings.draw_split(volumes, volumes == 2, volumes == 1))
    assert "draw 4" in texts(drawings.draw_draws(np.linspace(0.3, 0.9, 8)))
    assert "HU" in texts(drawings.draw_hu_scale({"lung": (-1350, 150)}))
    assert "again" in texts(drawings.draw_chain(["a", "b"], closed=True))
    assert "loss" in texts(drawings.plot_lines({"a": [1, 2]}, "loss"))
    assert "a map" in texts(drawings.show_maps({"a map": hu[0]}))


def test_drawings_say_what_is_seen():
    patch, kernel = np.arange(35.0).reshape(5, 7), np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    assert "sum of these: -8" in alt_text(drawings.draw_convolution(patch, kernel, 2, 3))
    assert all(len(alt_text(openings.opening(name))) > 40 for name in openings.OPENINGS)
