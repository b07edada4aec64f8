"""The figures of 04_results draw the numbers that they were given, or say that there are none."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lungseg_utils import plots
from lungseg_utils.core.classes import CLASSES, SHORT_NAMES
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.borders import REGIONS, border_table
from lungseg_utils.evaluation.burden import predicted_burden, true_burden
from lungseg_utils.evaluation.calibration import Reliability, reliability
from lungseg_utils.evaluation.definitions import definitions_table
from lungseg_utils.evaluation.intervals import bootstrap, paired_difference
from lungseg_utils.evaluation.lesions import (
    HU_EDGES,
    LesionConfusion,
    lesion_confusion,
    lesion_summary,
    lesion_table,
)
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.plots import parts
from lungseg_utils.training.loop import kept_by_monitor

SCORES = {key: HEADLINE[key] for key in ("mean_iou", "classes.ground_glass.dice", "lesion_dice")}
RNG = np.random.default_rng(0)
TRUTH = np.repeat(np.repeat(RNG.integers(0, 4, (6, 8, 8)), 8, 1), 8, 2)
PREDICTION = np.where(RNG.random(TRUTH.shape) < 0.7, TRUTH, RNG.integers(0, 4, TRUTH.shape))
HU = RNG.normal(-500, 300, TRUTH.shape)
COUNTS = np.array([metrics.confusion_matrix(t, p) for t, p in zip(TRUTH, PREDICTION)])
NOTHING = np.zeros((3, 4, 4), int)  # three slices without a lung
NOTHING[:, 3, 3] = 64


def dots(ax: plt.Axes) -> list[list[float]]:
    """Every set of dots in the axes, as (x, y) pairs."""
    return [group.get_offsets().tolist() for group in ax.collections if isinstance(group, PathCollection)]


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    found = [
        text.get_text()
        for ax in figure.axes
        for text in [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
    ]
    return "\n".join([*found, *(text.get_text() for legend in figure.legends for text in legend.get_texts())])


def test_pooled_and_per_slice():
    counts = COUNTS.copy()
    counts[0, 1] = counts[0, :, 1] = 0
    figure = plots.plot_pooled_and_per_slice(counts)
    drawn = {(round(x, 9), round(y)) for group in dots(figure.axes[0]) for x, y in group}
    for row in range(4):
        values = [*metrics.dice(counts)[:, row], metrics.dice(counts.sum(0))[row]]
        assert {(round(value, 9), row) for value in values if not np.isnan(value)} <= drawn
    assert "5 of 6 slices" in texts(figure)
    assert texts(plots.plot_pooled_and_per_slice(NOTHING)).count("0 of 3 slices") == 4  # all but background


def test_intervals_and_their_label():
    intervals = {**bootstrap(COUNTS, SCORES, draws=100), "lesion_dice": None}
    figure = plots.plot_intervals(metrics.summary(COUNTS), intervals, over="volumes")
    bar = figure.axes[0].collections[0].get_segments()[0]
    assert bar[:, 0].tolist() == list(intervals["mean_iou"])
    said = texts(figure)
    assert "over volumes; conditional on these patients" in said and "no interval" in said
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == [
        "mIoU",
        "ground glass Dice",
    ]
    figure = plots.plot_intervals(metrics.summary(NOTHING), bootstrap(NOTHING, SCORES, draws=20))
    assert len(figure.axes[0].lines) == 1  # mIoU of background alone; what has no score is left out


def test_burden_in_percent_and_volumes_by_number():
    figure = plots.plot_burden(COUNTS, pd.array([4, 4, 9, 9, pd.NA, pd.NA], dtype="Int64"))
    left, right = figure.axes
    true, predicted = 100 * true_burden(COUNTS), 100 * predicted_burden(COUNTS)
    np.testing.assert_allclose(dots(left)[0], np.c_[true, predicted])
    np.testing.assert_allclose(dots(right)[0], np.c_[(true + predicted) / 2, predicted - true])
    volume = COUNTS[:2].sum(0)
    np.testing.assert_allclose(dots(left)[1][0], [100 * true_burden(volume), 100 * predicted_burden(volume)])
    assert [text.get_text() for text in left.texts] == ["4", "9"]
    assert f"bias {np.mean(predicted - true):+.1f}" in texts(figure)
    assert "concordance" not in texts(plots.plot_burden(NOTHING, [1, 1, 2]))


def test_reliability_curves():
    shuffled = RNG.permuted(np.tile([0.1, 0.2, 0.3, 0.4], (6, 64, 64, 1)), axis=3)
    counts = reliability(np.moveaxis(shuffled, 3, 1), TRUTH)
    figure = plots.plot_reliability(counts)
    for c in range(3):
        held = counts.pixels[c] > 0
        _, curve = figure.axes[c].lines
        np.testing.assert_allclose(curve.get_xdata(), [0.1, 0.2, 0.3, 0.4])
        np.testing.assert_allclose(curve.get_ydata(), counts.hits[c, held] / counts.pixels[c, held])
        shares = figure.axes[3 + c].patches[0].get_data().values
        np.testing.assert_allclose(shares, 100 * counts.pixels[c] / counts.pixels[c].sum())
    rare = np.array([[1], [10**6], [1]])  # only consolidation has enough pixels to draw
    one = Reliability(*(np.minimum(each, rare) for each in (counts.pixels, counts.probability, counts.hits)))
    assert [ax.get_title().split("\n")[0] for ax in plots.plot_reliability(one).axes[:1]] == ["consolidation"]
    assert "too few pixels" in texts(plots.plot_reliability(Reliability()))


def test_entropy_beside_the_errors():
    entropy = RNG.random((2, 64, 64))
    figure = plots.show_entropy(HU[:2], TRUTH[:2], PREDICTION[:2], entropy, ["a", "b"])
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), entropy[1])
    marked = (figure.axes[5].images[0].get_array() == to_rgb(parts.WRONG)).all(-1)
    np.testing.assert_array_equal(marked, TRUTH[1] != PREDICTION[1])
    texts(plots.show_entropy(HU[:0], TRUTH[:0], PREDICTION[:0], entropy[:0], []))


def test_lesions_by_size():
    lesions = lesion_summary(lesion_table(TRUTH, PREDICTION), len(TRUTH))
    figure = plots.plot_lesion_sizes(lesions)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [
        found["recall"] or 0 for found in lesions.values()
    ]
    assert f"{lesions['small']['false_alarms']} of {lesions['small']['predicted']} predicted" in texts(figure)
    nothing = np.full((2, 16, 16), 3)
    lesions = lesion_summary(lesion_table(nothing, nothing), 2)
    assert texts(plots.plot_lesion_sizes(lesions)).count("0 of 0") == 8


def test_borders_and_what_has_none():
    truth, prediction = TRUTH[:4, :16, :16].copy(), PREDICTION[:4, :16, :16].copy()
    truth[0] = prediction[1] = prediction[2] = truth[2] = 3
    table = border_table(truth, prediction)
    figure = plots.plot_borders(table)
    left, right = figure.axes
    assert left.texts[-1].get_text() == "1 missed, 1 only predicted, 1 neither"
    hd95 = table[[f"{region}_hd95_px" for region in REGIONS]].to_numpy()
    assert sorted(x for group in dots(left) for x, _ in group) == sorted(hd95[~np.isnan(hd95)])
    for line, region in zip(right.lines, REGIONS):
        scores = table[[f"{region}_surface_dice_{t}px" for t in (1, 2, 3)]]
        np.testing.assert_allclose(line.get_ydata(), scores.mean())
    texts(plots.plot_borders(border_table(np.full((1, 16, 16), 3), np.full((1, 16, 16), 3))))


def test_definitions_differ_by_one_change_each():
    predictions = {
        "argmax": PREDICTION,
        "0.5 threshold": np.where(PREDICTION == 1, metrics.NO_CLASS, PREDICTION),
    }
    small = {rule: labels[:, ::2, ::2] for rule, labels in predictions.items()}
    sizes = [definitions_table(TRUTH, predictions, 4), definitions_table(TRUTH[:, ::2, ::2], small, 4)]
    table = pd.concat(sizes, ignore_index=True)
    [ax] = plots.plot_definitions(table).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    drawn = dict(zip(names, [value for [[value, _]] in dots(ax)], strict=True))

    def score(**definition):
        query = " and ".join(f"`{name}` == '{value}'" for name, value in definition.items())
        return table.query(query).mean_iou.item()

    ours = {
        "size": "64 x 64",
        "rule": "argmax",
        "averaging": "pooled",
        "absent": "skipped",
        "background": "with",
    }
    assert len(drawn) == 9 and drawn["ours: all pixels pooled, 64 x 64, argmax"] == score(**ours)
    assert drawn["without background"] == score(**ours | {"background": "without"})
    assert drawn["at 32 x 32"] == score(**ours | {"size": "32 x 32"})
    assert drawn["by 0.5 threshold"] == score(**ours | {"rule": "0.5 threshold"})
    slides = {"averaging": "batch", "size": "32 x 32", "absent": "skipped if not true"}
    assert drawn["as the slides: mean over batches, 32 x 32"] == score(**ours | slides)
    assert "0.57: the slides" in texts(ax.figure)


def test_lesions_by_the_wrong_name():
    counts = lesion_confusion(HU, TRUTH, PREDICTION)
    curves, where = plots.plot_lesion_confusion(counts).axes[:2]
    swapped = counts.places[0, 1] + counts.places[1, 0]
    np.testing.assert_allclose(where.images[0].get_array(), 100 * swapped / 6)
    for curve, pixels in zip(curves.patches, counts.histograms.reshape(4, -1), strict=True):
        np.testing.assert_allclose(curve.get_data().values, 100 * pixels / pixels.sum())
        np.testing.assert_array_equal(curve.get_data().edges, HU_EDGES)
        assert f"{pixels.sum():,} px" in curve.get_label()


def test_what_is_too_little_to_draw_is_said_and_not_drawn():
    counts = lesion_confusion(HU, TRUTH, TRUTH)  # nothing is swapped
    figure = plots.plot_lesion_confusion(counts)
    [ax] = figure.axes
    assert len(ax.patches) == 2 and texts(figure).count("(too few to draw)") == 2
    assert texts(plots.plot_lesion_confusion(LesionConfusion())).count("(too few to draw)") == 4


def test_monitors_keep_their_own_epochs():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3, 4], "val_loss": [3.0, 1, 2, 4], "val_miou": [0.1, 0.2, 0.5, 0.3]}
    )
    history["val_lesion_dice"] = [0.1, 0.2, 0.3, 0.4]
    figure = plots.plot_monitors(history, kept_by_monitor(history))
    assert dots(figure.axes[1]) == [
        [[2, 0.2]],
        [[3, 0.5]],
        [[4, 0.3]],
    ]  # the three kept epochs on the mIoU's curve
    assert "epoch 2: kept by validation loss" in texts(figure)
    history.loc[3, "val_miou"] = 0.6
    one = plots.plot_monitors(history, kept_by_monitor(history))
    assert dots(one.axes[1]) == [[[2, 0.2]], [[4, 0.6]]]  # two in one are one mark with both names
    assert "epoch 4: kept by validation mIoU and by validation lesion Dice" in texts(one)


def test_inference_steps_against_the_first():
    better = np.array([metrics.confusion_matrix(t, t) for t in TRUTH])
    score = metrics.accuracy
    scores = {"argmax": score(COUNTS.sum(0)), "better": score(better.sum(0)), "same": score(COUNTS.sum(0))}
    pairs = {"better": better, "same": COUNTS}
    differences = {step: paired_difference(run, COUNTS, {"a": score})["a"] for step, run in pairs.items()}
    figure = plots.plot_inference_steps(scores, differences, "accuracy")
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == list(scores.values())
    assert right.collections[0].get_segments()[0][:, 0].tolist() == list(differences["better"]["interval"])
    assert f"{differences['better']['difference']:+.3f}" in texts(figure) and "against argmax" in texts(
        figure
    )
    texts(plots.plot_inference_steps({"argmax": 0.5}, {}, "accuracy"))


def test_colours_of_series_are_no_class_colours():
    used = {parts.INK, parts.WRONG, *parts.SERIES}
    assert not {c.color for c in CLASSES} & used and {*SHORT_NAMES} < {*parts.COLORS}
