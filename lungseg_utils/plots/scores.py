"""Figures of the pixel scores.

Where the pixels go, by slice, with intervals, by definition, by step of the inference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, SHORT_NAMES
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.definitions import ABSENT
from lungseg_utils.evaluation.scores import HEADLINE, stored
from lungseg_utils.plots.parts import INK, NAMES, SERIES, beside, color_of, name_rows, strip

SLIDES_MEAN_IOU = 0.57  # what the slides report


def plot_confusion(counts: np.ndarray) -> Figure:
    """Confusion matrix as percent of each true class.

    Args:
        counts: (4, 4), rows are the truth.
    """
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


def plot_pooled_and_per_slice(per_slice: np.ndarray) -> Figure:
    """Dice of every slice beside Dice of all pixels pooled, by class and of lesion as one.

    Args:
        per_slice: (N, 4, 4) confusion counts.
    """
    counts = per_slice.sum(axis=0)
    pooled = [*metrics.dice(counts), metrics.lesion_dice(counts)]  # NaN is not drawn
    values = dict(zip(SHORT_NAMES, metrics.dice(per_slice).T)) | {"lesion": metrics.lesion_dice(per_slice)}
    figure, ax = plt.subplots(figsize=(9, 4.4))
    for row, (region, scores) in enumerate(values.items()):
        valid, color = scores[~np.isnan(scores)], color_of(region)
        strip(ax, row, valid, color)
        ax.scatter(pooled[row], row, s=90, marker="D", color="white", edgecolor=color, linewidth=2, zorder=3)
        beside(ax, row, f"{len(valid)} of {len(scores)} slices")
    name_rows(ax, [NAMES[region] for region in values])
    ax.set(xlim=(-0.02, 1.02), xlabel="Dice")
    ax.set_title("one score of all pixels together, and the scores of the slices one by one")
    hollow: dict[str, Any] = {"color": "white", "markeredgecolor": INK, "markeredgewidth": 2, "markersize": 9}
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
    """Scores with their 95 % bootstrap intervals; an undefined score is left out.

    Args:
        full_size: Scores as metrics.json holds them.
        intervals: Theirs, as metrics.json holds them.
        over: What the bootstrap drew, slices or volumes.
    """
    scores = {name: stored(full_size, name) for name in intervals}
    scores = {name: value for name, value in scores.items() if not np.isnan(value)}
    figure, ax = plt.subplots(figsize=(8.5, 0.36 * len(scores) + 1.2))
    for row, (name, value) in enumerate(scores.items()):
        text = f"{value:.3f}  no interval"
        if interval := intervals[name]:
            text = f"{value:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]"
            ax.hlines(row, interval[0], interval[1], color=color_of(name), linewidth=3, alpha=0.45)
        ax.plot(value, row, "o", color=color_of(name), clip_on=False)
        beside(ax, row, text)
    name_rows(ax, [HEADLINE[name].label for name in scores])
    ax.set(
        xlim=(0, 1), xlabel=f"score; bars: 95 % bootstrap interval over {over}; conditional on these patients"
    )
    ax.set_title("scores and their intervals")
    return figure


def plot_definitions(table: pd.DataFrame) -> Figure:
    """mIoU of the same predictions under every definition, a dot for each.

    Ringed, the averaging of the slides' 0.57.

    Args:
        table: As definitions.definitions_table gives, of one size or several, at least one row.
    """
    names = table.averaging + ", " + table["size"] + ", " + table.rule
    order = list(dict.fromkeys(names.iloc[np.argsort(pd.factorize(table.averaging)[0], kind="stable")]))
    # The slides score at the network's size.
    smallest = min(table["size"], key=lambda size: int(size.split()[0]))
    slides = table["size"].eq(smallest) & table.rule.eq("argmax") & table.averaging.eq("batch")
    slides &= table.absent.eq("skipped if not true") & table.background.eq("with")
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.36 * len(order) + 1.6), sharex=True, sharey=True)
    for ax, background in zip(axes, ("with", "without")):
        height = names.map(order.index) - 0.24
        for (absent, rows), color, marker in zip(table.groupby("absent", sort=False), SERIES, "oDs^"):
            rows = rows[rows.background == background]
            label = f"absent class {ABSENT[str(absent)]}"
            ax.scatter(rows.mean_iou, height[rows.index], 24, color=color, marker=marker, label=label)
            ringed = rows.index[slides[rows.index]]
            ax.scatter(table.mean_iou[ringed], height[ringed], 130, facecolor="none", edgecolor=INK)
            height += 0.16  # below one another, because they often agree
        name_rows(ax, order)
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


def plot_inference_steps(
    scores: Mapping[str, float], differences: Mapping[str, Mapping[str, Any]], name: str, over: str = "slices"
) -> Figure:
    """A score with each switchable step of the inference, and its difference to the plain prediction.

    Args:
        scores: By step.
        differences: By step, as intervals.paired_difference gives of the step minus the first.
        name: Of the score.
        over: What the bootstrap drew, slices or volumes.
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
            beside(right, row, f"{found['difference']:+.3f}")
    right.locator_params(axis="x", nbins=5)
    right.set_xlabel(f"difference; bars: 95 % bootstrap interval over {over}")
    right.set_title(f"against {steps[0]}, paired; conditional on these patients")
    for ax in (left, right):
        name_rows(ax, steps)
    return figure
