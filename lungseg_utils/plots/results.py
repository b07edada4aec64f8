"""Figures of 04_results on how far its numbers can be trusted; functions of arrays and tables, as in plots.py."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, FOREGROUND, LESIONS, LUNG_OTHER, SHORT_NAMES
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.borders import REGIONS, TOLERANCES
from lungseg_utils.evaluation.burden import burden_agreement, predicted_burden, true_burden
from lungseg_utils.evaluation.calibration import BINS, Reliability, calibration_error
from lungseg_utils.evaluation.definitions import ABSENT
from lungseg_utils.evaluation.intervals import sum_by_volume
from lungseg_utils.evaluation.lesions import HU_EDGES, SIZES, LesionConfusion
from lungseg_utils.plots import slices as plots
from lungseg_utils.plots.slices import CLASS_COLORS, CLASS_NORM, _grey, _grid, overlay

AGREEMENT = {"hit": "#FFFFFF", "miss": "#E69F00", "false alarm": "#CC79A7"}  # none is a class's colour
INK, WRONG = "#333333", "#F0E442"  # with SERIES the rest of Okabe-Ito's colours, where no class is meant
SERIES = ("#0072B2", "#E69F00", "#CC79A7", "#999999")
SLIDES_MEAN_IOU = 0.57  # what the slides report
_COLORS = {c.short: c.color for c in CLASSES} | {"lung": CLASSES[LUNG_OTHER].color}
_NAMES = {c.short: c.name for c in CLASSES} | {
    "mean_iou": "mIoU",
    "lesion_dice": "lesion Dice",
    "competition.pooled": "mean Dice of both lesions",
}


def agreement(truth: np.ndarray, prediction: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """RGB picture (H, W, 3): lesion pixels found, missed and invented, each in its colour, on the dimmed slice.

    A hit has the right one of the two lesion classes; ground glass taken for consolidation is a miss.
    """
    rgb = 0.5 * _grey(hu)
    true_lesion, predicted_lesion = np.isin(truth, LESIONS), np.isin(prediction, LESIONS)
    rgb[predicted_lesion & ~true_lesion] = to_rgb(AGREEMENT["false alarm"])
    rgb[true_lesion & (truth != prediction)] = to_rgb(AGREEMENT["miss"])
    rgb[true_lesion & (truth == prediction)] = to_rgb(AGREEMENT["hit"])
    return rgb


def _agreement_handles() -> list[Patch]:
    return [Patch(facecolor=color, edgecolor="gray", label=name) for name, color in AGREEMENT.items()]


def plot_confusion(counts: np.ndarray) -> Figure:
    """Confusion matrix (4, 4) as percent of each true class (rows)."""
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, ax = plt.subplots(figsize=(5.8, 4))
    image = ax.imshow(percent, "Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        ax.text(
            column, row, f"{value:.1f}", ha="center", va="center", color="white" if value > 60 else "black"
        )
    names = [c.name for c in CLASSES]
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="predicted", ylabel="true", title="where the pixels of each class go, %")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label="% of the true class", shrink=0.8)
    return figure


def plot_results(hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str]) -> Figure:
    """The slides' four rows: predictions overlaid; radiologist's labels; agreement; the class of every pixel.

    hu, truth, prediction: (N, H, W), one column a slice.
    """
    figure, axes = _grid(4, len(hu), extra=0.8)
    rows = ("predicted lesions", "radiologist's labels", "agreement", "class of every pixel")
    for k in range(len(hu)):
        axes[0, k].imshow(overlay(hu[k], prediction[k]))
        axes[1, k].imshow(overlay(hu[k], truth[k]))
        axes[2, k].imshow(agreement(truth[k], prediction[k], hu[k]))
        axes[3, k].imshow(prediction[k], cmap=CLASS_COLORS, norm=CLASS_NORM, interpolation="nearest")
        axes[0, k].set_title(titles[k])
    for ax, name in zip(axes[:, 0], rows):
        ax.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", transform=ax.transAxes)
    handles = [Patch(color=c.color, label=c.name) for c in CLASSES]
    handles += _agreement_handles()
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def show_agreement(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str], title: str
) -> Figure:
    """Hits, misses and false alarms of slices (N, H, W), four to a row."""
    figure, axes = _grid(-(-len(hu) // 4), 4)
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(agreement(truth[k], prediction[k], hu[k]))
        ax.set_title(titles[k])
    figure.suptitle(title)
    handles = _agreement_handles()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def in_words(name: str) -> str:
    """In words: a class, a region, or a score by its dotted name, such as classes.ground_glass.dice."""
    if name.startswith("classes."):
        _, short, score = name.split(".")
        return f"{_NAMES[short]} {score.capitalize()}"
    return _NAMES.get(name, name.replace("_", " "))


def _color(name: str) -> str:
    return _COLORS.get(name.split(".")[1] if name.startswith("classes.") else name, INK)


def _rows(ax: Axes, labels: Sequence[str]) -> None:
    """Categories from top to bottom, a faint line each."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _beside(ax: Axes, row: float, text: str) -> None:
    """Text at the right of the axes."""
    where = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points"}
    ax.annotate(text, (1, row), va="center", **where)


def _strip(ax: Axes, row: int, values: np.ndarray, color: str) -> None:
    """Every value a dot, spread a little (the same each time), over the median and the box of the middle half."""
    if not len(values):
        return
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.barh(row, high - low, left=low, height=0.62, color=color, alpha=0.15)
    ax.vlines(middle, row - 0.31, row + 0.31, color=color, linewidth=2)
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    ax.scatter(values, row + spread, s=14, color=color, alpha=0.6, linewidth=0)


def plot_pooled_and_per_slice(per_slice: np.ndarray) -> Figure:
    """Dice of every slice beside Dice of all pixels pooled, by class and of lesion as one.

    per_slice: (N, 4, 4) confusion counts.
    """
    counts = per_slice.sum(axis=0)
    pooled = [*metrics.dice(counts), metrics.lesion_dice(counts)]  # NaN is not drawn
    values = dict(zip(SHORT_NAMES, metrics.dice(per_slice).T)) | {"lesion": metrics.lesion_dice(per_slice)}
    figure, ax = plt.subplots(figsize=(9, 4.4))
    for row, (region, scores) in enumerate(values.items()):
        valid, color = scores[~np.isnan(scores)], _color(region)
        _strip(ax, row, valid, color)
        ax.scatter(pooled[row], row, s=90, marker="D", color="white", edgecolor=color, linewidth=2, zorder=3)
        _beside(ax, row, f"{len(valid)} of {len(scores)} slices")
    _rows(ax, [in_words(region) for region in values])
    ax.set(xlim=(-0.02, 1.02), xlabel="Dice")
    ax.set_title("one score of all pixels together, and the scores of the slices one by one")
    hollow = {"color": "white", "markeredgecolor": INK, "markeredgewidth": 2, "markersize": 9}
    handles = [
        Line2D([], [], marker="D", label="pooled", **hollow),
        Line2D([], [], marker="o", color="white", markerfacecolor=INK, label="a slice"),
        Line2D([], [], color=INK, linewidth=2, label="median of the slices"),
        Patch(color=INK, alpha=0.15, label="middle half of the slices"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def plot_intervals(
    full_size: Mapping[str, Any], intervals: Mapping[str, Sequence[float] | None], over: str = "slices"
) -> Figure:
    """Scores with their 95 % bootstrap intervals, both as metrics.json holds them; an undefined score is left out.

    over: what the bootstrap drew, slices or volumes.
    """
    scores = {name: reduce(getitem, name.split("."), full_size) for name in intervals}
    scores = {name: value for name, value in scores.items() if value is not None}
    figure, ax = plt.subplots(figsize=(8.5, 0.36 * len(scores) + 1.2))
    for row, (name, value) in enumerate(scores.items()):
        text = f"{value:.3f}  no interval"
        if interval := intervals[name]:
            text = f"{value:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]"
            ax.hlines(row, *interval, color=_color(name), linewidth=3, alpha=0.45)
        ax.plot(value, row, "o", color=_color(name), clip_on=False)
        _beside(ax, row, text)
    _rows(ax, [in_words(name) for name in scores])
    ax.set(
        xlim=(0, 1), xlabel=f"score; bars: 95 % bootstrap interval over {over}; conditional on these patients"
    )
    ax.set_title("scores and their intervals")
    return figure


def plot_burden(per_slice: np.ndarray, volumes: Sequence | None = None) -> Figure:
    """Involved share of the lung, predicted against true, and the difference against the mean (Bland and Altman 1986).

    per_slice: (N, 4, 4) confusion counts; volumes: number of each slice's volume, missing where unknown. A known
    volume is drawn as its number, at the share of its slices together.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    true, predicted = 100 * true_burden(per_slice), 100 * predicted_burden(per_slice)
    agreement = burden_agreement(true, predicted)
    top = 1.08 * np.nanmax([1, *true, *predicted])
    left.plot([0, top], [0, top], color="gray", linestyle=":", label="predicted = true")
    style = {"s": 22, "color": SERIES[0], "alpha": 0.7, "linewidth": 0}
    left.scatter(true, predicted, label=f"a slice ({agreement['values']})", **style)
    right.scatter((true + predicted) / 2, predicted - true, **style)
    if volumes is not None and pd.notna(volumes).any():
        table, counts = sum_by_volume(per_slice, volumes)
        known = table.volume.notna()
        true, predicted = 100 * true_burden(counts[known]), 100 * predicted_burden(counts[known])
        style = {"s": 170, "color": "white", "edgecolor": INK, "zorder": 3}
        left.scatter(true, predicted, label=f"a whole volume ({known.sum()}), by its number", **style)
        right.scatter((true + predicted) / 2, predicted - true, **style)
        for number, x, y in zip(table.volume[known], true, predicted):
            left.annotate(str(number), (x, y), ha="center", va="center", zorder=4)
            right.annotate(str(number), ((x + y) / 2, y - x), ha="center", va="center", zorder=4)
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    left.set(xlabel="true, % of the lung", ylabel="predicted, % of the lung")
    concordance, error = agreement["concordance"], agreement["mean_absolute_error"]
    left.set_title(
        "involved share of the lung" + ("" if concordance is None else f": concordance {concordance:.3f}")
    )
    left.legend(loc="upper left")
    right.axhline(0, color="gray", linestyle=":")
    right.margins(0.1, 0.2)
    if agreement["limits"]:
        low, high = agreement["limits"]
        for value, name, line in (
            (low, "limit", "--"),
            (agreement["bias"], "bias", "-"),
            (high, "limit", "--"),
        ):
            right.axhline(value, color=INK, linewidth=1, linestyle=line)
            _beside(right, value, f"{name} {value:+.1f}")
    right.set(
        xlabel="mean of true and predicted, % of the lung", ylabel="predicted - true, percentage points"
    )
    right.set_title(
        "95 % limits of agreement" + ("" if error is None else f"; mean absolute error {error:.1f} points")
    )
    return figure


def plot_reliability(counts: Reliability) -> Figure:
    """Reliability diagram of each lung class, and below it how many pixels have such a probability."""
    columns = len(FOREGROUND)
    figure, axes = plt.subplots(
        2, columns, figsize=(10, 4.6), height_ratios=(3, 1), sharex=True, sharey="row"
    )
    edges = np.linspace(0, 1, BINS + 1)
    for (top, bottom), c, error in zip(axes.T, FOREGROUND, calibration_error(counts)):
        pixels, color = counts.pixels[c], CLASSES[c].color
        held = pixels > 0
        top.plot([0, 1], [0, 1], color="gray", linestyle=":", label="perfect")
        top.plot(
            counts.probability[c, held] / pixels[held], counts.hits[c, held] / pixels[held], "o-", color=color
        )
        top.set_title(CLASSES[c].name + (f": error {error:.3f}" if held.any() else ": no pixels"))
        bottom.set(yscale="log", ylim=(0.01, 130), xlim=(0, 1), xlabel="predicted probability")
        bottom.stairs(100 * pixels / max(pixels.sum(), 1), edges, fill=True, color=color)
    axes[0, 0].set(ylim=(0, 1), ylabel="share that comes true")
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].set_ylabel("% of pixels")
    figure.suptitle("reliability in true-or-predicted lung; error: expected calibration error, 15 bins")
    return figure


def show_entropy(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, entropy: np.ndarray, titles: Sequence[str]
) -> Figure:
    """Prediction, predictive entropy and errors, one column a slice; all (N, H, W), entropy in 0..1."""
    figure, axes = plots._grid(3, max(len(hu), 1))
    figure.set_size_inches(2.2 * axes.shape[1] + 1.2, 7)  # the colour bar gets its own width
    for k in range(len(hu)):
        errors = 0.5 * plots._grey(hu[k])
        errors[truth[k] != prediction[k]] = to_rgb(WRONG)
        axes[0, k].imshow(plots.overlay(hu[k], prediction[k]))
        axes[1, k].imshow(entropy[k], "magma", vmin=0, vmax=1)
        axes[2, k].imshow(errors)
        axes[0, k].set_title(titles[k])
    for ax, name in zip(axes[:, 0], ("predicted lesions", "predictive entropy", "errors")):
        ax.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", transform=ax.transAxes)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "magma"), ax=axes[1, :], shrink=0.9, ticks=[0, 1])
    bar.ax.set_yticklabels(["one class\nis certain", "all four\nequal"])
    handles = [Patch(color=CLASSES[c].color, label=CLASSES[c].name) for c in LESIONS]
    handles.append(Patch(color=WRONG, label="any wrong class"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def plot_lesion_sizes(lesions: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Found lesions and false alarms by size. lesions: by size, as lesions.lesion_summary gives."""
    names = [f"{size}\n{_range(*SIZES[size])}" if size in SIZES else size for size in lesions]
    rows, found = range(len(names)), lesions.values()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.5 * len(names) + 1.3), sharey=True)
    bars = left.barh(rows, [f["recall"] or 0 for f in found], color=SERIES[0])
    left.bar_label(bars, [f"{f['found']} of {f['true']}" for f in found], padding=3)
    left.set(xlim=(0, 1.2), xticks=np.linspace(0, 1, 6), xlabel="share of the true lesions that is found")
    left.set_title("recall by true size")
    bars = right.barh(rows, [f["false_alarms_per_slice"] for f in found], color=AGREEMENT["false alarm"])
    right.bar_label(bars, [f"{f['false_alarms']} of {f['predicted']} predicted" for f in found], padding=3)
    right.margins(x=0.35)
    right.set_xlim(left=0)
    right.set(xlabel="false alarms per slice", title="false alarms by predicted size")
    for ax in (left, right):
        _rows(ax, names)
    return figure


def _range(low: float, high: float) -> str:
    return f"{low} px and more" if np.isinf(high) else f"{low} to {high - 1} px"


def plot_borders(table: pd.DataFrame, unit: str = "px") -> Figure:
    """Distances of borders by region: HD95 of every slice, beside it the slices that have none; surface Dice.

    table: one row a slice, with the columns of boundaries.border_table; unit: of HD95, px or mm.
    """
    cases = {"only_truth": "missed", "only_prediction": "invented", "neither": "in neither"}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(1.6, 1))
    for row, region in enumerate(REGIONS):
        _strip(left, row, table[f"{region}_hd95_{unit}"].dropna().to_numpy(), _color(region))
        slices = table[f"{region}_borders"].value_counts()
        _beside(
            left, row, ", ".join(f"{slices[case]} {name}" for case, name in cases.items() if case in slices)
        )
        surface_dice = [table[f"{region}_surface_dice_{tolerance}px"].mean() for tolerance in TOLERANCES]
        right.plot(TOLERANCES, surface_dice, "o-", color=_color(region), label=in_words(region))
    _rows(left, [in_words(region) for region in REGIONS])
    left.use_sticky_edges = False  # room for the farthest dot
    left.autoscale_view()
    left.set_xlim(left=0)
    left.set(
        xlabel=f"HD95, {unit}",
        title="95th percentile of the border's distance; beside it, slices without one",
    )
    right.set(ylim=(0, 1), xticks=TOLERANCES, xlabel="tolerance, px", ylabel="normalised surface Dice")
    right.set_title("mean over the slices; missed or invented is 0")
    right.legend(loc="best")
    return figure


def plot_definitions(table: pd.DataFrame) -> Figure:
    """mIoU of the same predictions under every definition, a dot for each; ringed, the averaging of the slides' 0.57.

    table: as definitions.definitions_table gives, of one size or several, at least one row.
    """
    names = table.averaging + ", " + table["size"] + ", " + table.rule
    order = list(dict.fromkeys(names.iloc[np.argsort(pd.factorize(table.averaging)[0], kind="stable")]))
    smallest = min(
        table["size"], key=lambda size: int(size.split()[0])
    )  # the slides score at the network's size
    slides = table["size"].eq(smallest) & table.rule.eq("argmax") & table.averaging.eq("batch")
    slides &= table.absent.eq("skipped if not true") & table.background.eq("with")
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.36 * len(order) + 1.6), sharex=True, sharey=True)
    for ax, background in zip(axes, ("with", "without")):
        height = names.map(order.index) - 0.24
        for (absent, rows), color, marker in zip(table.groupby("absent", sort=False), SERIES, "oDs^"):
            rows = rows[rows.background == background]
            label = f"absent class {ABSENT[absent]}"
            ax.scatter(rows.mean_iou, height[rows.index], 24, color=color, marker=marker, label=label)
            ringed = rows.index[slides[rows.index]]
            ax.scatter(table.mean_iou[ringed], height[ringed], 130, facecolor="none", edgecolor=INK)
            height += 0.16  # below one another, because they often agree
        _rows(ax, order)
        ax.set(xlabel="mIoU", title=f"mean {background} background")
    axes[0].axvline(
        SLIDES_MEAN_IOU, color=INK, linestyle="--", linewidth=1, label=f"{SLIDES_MEAN_IOU}: the slides"
    )
    handles, labels = axes[0].get_legend_handles_labels()
    ring = Line2D(
        [], [], color="white", marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK
    )
    figure.legend(
        [*handles, ring],
        [*labels, "as the slides average, from these predictions"],
        loc="outside lower center",
        ncols=2,
    )
    figure.suptitle("one set of predictions, every definition of mIoU in use")
    return figure


def plot_lesion_confusion(counts: LesionConfusion) -> Figure:
    """Lesion pixels found, but by the wrong name: where on the slice, and the HU of those named right and wrong."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), width_ratios=(1, 1.5))
    swapped, found = counts.places[0, 1] + counts.places[1, 0], counts.places.sum((0, 1))
    image = left.imshow(
        100 * swapped / max(counts.slices, 1), "magma", vmin=0, vmax=None if swapped.any() else 1
    )
    if 0 < found.astype(bool).mean() < 1:  # else there is no line to draw
        left.contour(found > 0, [0.5], colors="white", linewidths=0.6, alpha=0.7)
    figure.colorbar(image, ax=left, label="% of the place, mean over the slices", shrink=0.9)
    left.set(xticks=[], yticks=[], title="where the two are swapped\n(within the line: lesions found)")
    for true in LESIONS:
        for predicted in LESIONS:
            pixels = counts.histograms[true, predicted]
            right_name = true == predicted
            called = "named so" if right_name else f"called {CLASSES[predicted].name}"
            few = ", too few to draw" if pixels.sum() < 100 else ""
            label = f"{CLASSES[true].name}, {called} ({pixels.sum():,} px{few})"
            style = {
                "color": CLASSES[true].color,
                "linestyle": "-" if right_name else (0, (2, 1)),
                "linewidth": 1.6,
            }
            share = 100 * pixels / max(pixels.sum(), 1)
            right.stairs(0 * share if few else share, HU_EDGES, label=label, **style)
    right.set(
        xlabel="Hounsfield units (end bins: all beyond)",
        ylabel="% of the group's pixels",
        title="at what density",
    )
    right.set_ylim(0, 1.45 * max(right.get_ylim()[1], 1))  # room for the legend
    right.legend(loc="upper left", fontsize="small")
    return figure


def plot_monitors(history: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """What each quantity to monitor would have kept: its best epoch, marked on all three curves.

    history: one row an epoch; kept: one row a quantity, as training.kept_by_monitor gives.
    """
    titles = {
        "val_loss": "validation loss",
        "val_miou": "validation mIoU",
        "val_lesion_dice": "validation lesion Dice",
    }
    figure, axes = plt.subplots(1, len(titles), figsize=(12, 3.4))
    for ax, (score, title) in zip(axes, titles.items()):
        ax.plot(history.epoch, history[score], color="0.6", marker=".")
        for size, color, (monitor, row) in zip((190, 110, 45), SERIES, kept.iterrows()):  # one epoch: rings
            label = f"kept by {titles[monitor]}: epoch {row.epoch:.0f}"
            ax.scatter(row.epoch, row[score], size, color=color, label=label, zorder=3)
        ax.set(xlabel="epoch", title=title)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_yscale("log")  # one bad epoch would flatten the rest
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(titles))
    return figure


def plot_inference_steps(
    scores: Mapping[str, float], differences: Mapping[str, Mapping[str, Any]], name: str, over: str = "slices"
) -> Figure:
    """A score with each switchable step of the inference, and its difference to the first: the plain prediction.

    scores: by step; differences: by step, as intervals.paired_difference gives of the step minus the first; name: of
    the score; over: what the bootstrap drew, slices or volumes.
    """
    steps = list(scores)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.4 * len(steps) + 1.3), sharey=True)
    bars = left.barh(range(len(steps)), list(scores.values()), color=["0.7"] + [SERIES[0]] * (len(steps) - 1))
    left.bar_label(bars, fmt="%.3f", padding=3)
    left.margins(x=0.15)
    left.set(xlabel=name, title="with each step alone")
    right.axvline(0, color="gray", linestyle=":")
    for row, step in enumerate(steps):
        found = differences.get(step)
        if found and found["difference"] is not None:
            if found["interval"]:
                right.hlines(row, *found["interval"], color=SERIES[0], linewidth=3, alpha=0.45)
            right.plot(found["difference"], row, "o", color=SERIES[0])
            _beside(right, row, f"{found['difference']:+.3f}")
    right.locator_params(axis="x", nbins=5)
    right.set_xlabel(f"difference; bars: 95 % bootstrap interval over {over}")
    right.set_title(f"against {steps[0]}, paired; conditional on these patients")
    for ax in (left, right):
        _rows(ax, steps)
    return figure
