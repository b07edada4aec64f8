"""The figures of 01 to 03 draw the numbers that they were given, each under its name."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lungseg_utils import plots
from lungseg_utils.core.classes import CLASSES, SHORT_NAMES

RNG = np.random.default_rng(0)


def test_class_shares_are_squares_of_one_per_cent_to_the_exact_area():
    shares = pd.DataFrame(
        [[4.5, 2.2, 19.8, 73.5], [0.7, 0.1, 9.6, 89.6]], ["medseg", "radiopaedia"], SHORT_NAMES
    )
    figure = plots.plot_class_shares(shares)
    for ax, (source, row) in zip(figure.axes, shares.iterrows(), strict=True):
        assert ax.get_title() == source
        for c in CLASSES:
            boxes = [box for box in ax.patches if to_hex(box.get_facecolor()) == c.color.lower()]
            assert sum(box.get_width() * box.get_height() for box in boxes) == pytest.approx(row[c.short])
        assert sum(box.get_width() for box in ax.patches) == pytest.approx(100)
        said = [text.get_text() for text in ax.get_legend().get_texts()]
        assert said == [f"{c.name}: {row[c.short]:.2f} %" for c in CLASSES]


def test_hu_histograms_are_shares_of_each_class():
    edges = np.linspace(-1000, 200, 7)
    counts = RNG.integers(1, 50, (4, 6))
    [ax] = plots.plot_hu_histograms({"medseg": counts}, edges).axes
    for curve, pixels, c in zip(ax.patches, counts, CLASSES, strict=True):
        np.testing.assert_allclose(curve.get_data().values, 100 * pixels / pixels.sum())
        assert curve.get_label() == c.name
    assert ax.get_legend()


def test_the_spike_of_an_export_is_explained():
    edges, counts = np.arange(-1600, 601, 20), np.ones((4, 110))
    counts[3, 12] = 100  # -1360 to -1340 HU
    first, second = plots.plot_hu_histograms({"a": counts, "b": np.ones((4, 110))}, edges).axes
    assert first.texts[0].get_text().startswith("-1350 HU") and not second.texts


def test_lesions_by_size_and_place():
    percent, place = pd.DataFrame({"percent": [0.01, 0.02, 1.0]}), RNG.random((64, 64))
    figure = plots.plot_lesions({"medseg": percent}, {"medseg": place})
    sizes, where = figure.axes[:2]
    assert sizes.patches[0].get_xy()[:, 1].max() >= 1 and sizes.get_legend_handles_labels()[1] == ["medseg"]
    np.testing.assert_allclose(where.images[0].get_array(), 100 * place)
    assert where.get_title() == "where: medseg" and not where.collections
    body = np.pad(np.ones((40, 40)), 12)
    where = plots.plot_lesions({"medseg": percent}, {"medseg": place}, {"medseg": body}).axes[1]
    assert where.collections and "body" in where.get_xlabel()


def test_volumes_are_numbered_where_they_lie():
    jumps, volumes = RNG.random(5) * 300, np.array([1, 1, 1, 2, 2, 2])
    top, bottom = plots.plot_volumes(jumps, volumes, RNG.random(6), 100).axes
    assert top.lines[0].get_xydata().tolist() == [[k, jump] for k, jump in enumerate(jumps, 1)]
    assert top.lines[1].get_ydata()[0] == 100
    assert {text.get_text(): text.xy[0] for text in bottom.texts} == {"1": 1, "2": 4}
    assert len({tuple(area.get_facecolor()[0]) for area in bottom.collections}) == 1  # no rainbow


def test_each_step_is_a_picture_over_its_histogram():
    steps = {"as it comes": RNG.normal(size=(8, 8)), "clipped": RNG.normal(size=(8, 8))}
    figure = plots.plot_steps(steps, ["HU", "z-score"])
    for ax, below, (name, image) in zip(figure.axes[:2], figure.axes[2:4], steps.items()):
        assert ax.get_title() == name
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
        assert sum(bar.get_height() for bar in below.patches) == image.size
    assert [ax.get_xlabel() for ax in figure.axes[2:4]] == ["HU", "z-score"]
    clipped = {"as it comes": np.array([[0.0, 3, 5, 9]]), "clipped": np.array([[0.0, 3, 5, 5]])}
    assert plots.plot_steps(clipped, ["HU", "HU"]).axes[1].get_xlabel() == "changes 25.0%\nof the pixels"


def test_distributions_before_and_after():
    before, after = {"medseg": RNG.normal(-600, 300, 500)}, {"medseg": RNG.normal(size=500)}
    before["test"], after["test"] = before["medseg"] - 100, after["medseg"] - 1
    figure = plots.plot_distributions(before, after, -900, -100)
    rows = np.reshape(figure.axes, (2, 2))
    assert [ax.get_ylabel().split()[0] for ax in rows[:, 0]] == ["medseg", "test"]  # no outlines that overlap
    for (left, right), source in zip(rows, before):
        assert left.lines[0].get_xdata()[0] == before[source].mean()
        assert right.lines[0].get_xdata()[0] == after[source].mean()
    assert [ax.get_xlabel() for ax in rows[1]] == ["HU", "z-score"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean", "robust range"]


def test_bars_leave_out_what_is_not_known():
    [ax] = plots.plot_bars({"encoder": 2.5, "decoder": None, "head": 1.0}, "million", "parameters").axes
    assert [bar.get_width() for bar in ax.patches] == [2.5, 1.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["encoder", "head"]
    assert (ax.get_xlabel(), ax.get_title()) == ("million", "parameters")
