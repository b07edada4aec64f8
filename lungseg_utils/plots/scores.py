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
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.scores import HEADLINE, stored
from lungseg_utils.plots.parts import (
    FAINT,
    INK,
    SERIES,
    beside,
    color_of,
    describe,
    listed,
    name_of,
    name_rows,
    strip,
)

SLIDES_MEAN_IOU = 0.57  # what the slides report


def plot_confusion(counts: np.ndarray) -> Figure:
    """Confusion matrix as percent of each true class.

    Args:
        counts: (4, 4), rows are the truth.
    """
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, ax = plt.subplots(figsize=(6.6, 4.4))
    image = ax.imshow(percent, "Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        ax.text(
            column, row, f"{value:.1f}", ha="center", va="center", color="white" if value > 60 else "black"
        )
    names = [c.name for c in CLASSES]
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel=_("predicted"), ylabel=_("true"), title=_("where the pixels of each class go, %"))
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label=_("% of the true class"), shrink=0.8)
    told = []
    for name, row in zip(names, percent):
        shares = [f"{share:.1f} % {other}" for share, other in zip(row, names)]
        told.append(f"{name}: {', '.join(shares)}")
    return describe(
        figure,
        _("Confusion matrix, where the pixels of each true class go. {told}.").format(told=listed(told)),
    )


def plot_pooled_and_per_slice(per_slice: np.ndarray) -> Figure:
    """Dice of every slice beside Dice of all pixels pooled, by class and of lesion as one.

    Args:
        per_slice: (N, 4, 4) confusion counts.
    """
    counts = per_slice.sum(axis=0)
    pooled = [*metrics.dice(counts), metrics.lesion_dice(counts)]  # NaN is not drawn
    values = dict(zip(SHORT_NAMES, metrics.dice(per_slice).T)) | {"lesion": metrics.lesion_dice(per_slice)}
    figure, ax = plt.subplots(figsize=(10, 4.8))
    told = []
    for row, (region, scores) in enumerate(values.items()):
        valid, color = scores[~np.isnan(scores)], color_of(region)
        strip(ax, row, valid, color)
        ax.scatter(pooled[row], row, s=90, marker="D", color="white", edgecolor=color, linewidth=2, zorder=3)
        beside(ax, row, _("{count} of {all} slices").format(count=len(valid), all=len(scores)))
        if len(valid):
            told.append(
                _("{region}: pooled {pooled:.2f}, median of the slices {median:.2f}").format(
                    region=name_of(region), pooled=pooled[row], median=np.median(valid)
                )
            )
    name_rows(ax, [name_of(region) for region in values])
    ax.set(xlim=(-0.02, 1.02), xlabel="Dice")
    ax.set_title(_("one score of all pixels together, and the scores of the slices one by one"))
    hollow: dict[str, Any] = {"color": "white", "markeredgecolor": INK, "markeredgewidth": 2, "markersize": 9}
    handles = [
        Line2D([], [], marker="D", label=_("pooled"), **hollow),
        Line2D([], [], marker="o", color="white", markerfacecolor=INK, label=_("a slice")),
        Line2D([], [], color=INK, linewidth=2, label=_("median of the slices")),
        Patch(color=INK, alpha=0.15, label=_("middle half of the slices")),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return describe(
        figure, _("Dice of all pixels together and of each slice. {told}.").format(told=listed(told))
    )


def plot_intervals(
    full_size: Mapping[str, Any], intervals: Mapping[str, Sequence[float] | None], over: str = N_("slices")
) -> Figure:
    """Scores with their 95 % bootstrap intervals; an undefined score is left out.

    Args:
        full_size: Scores as metrics.json holds them.
        intervals: Theirs, as metrics.json holds them.
        over: What the bootstrap drew, slices or volumes.
    """
    scores = {name: stored(full_size, name) for name in intervals}
    scores = {name: value for name, value in scores.items() if not np.isnan(value)}
    figure, ax = plt.subplots(figsize=(9.5, 0.42 * len(scores) + 1.3))
    told = []
    for row, (name, value) in enumerate(scores.items()):
        text = _("{value:.3f}  no interval").format(value=value)
        if interval := intervals[name]:
            text = f"{value:.3f}  [{interval[0]:.3f}, {interval[1]:.3f}]"
            ax.hlines(row, interval[0], interval[1], color=color_of(name), linewidth=3, alpha=0.45)
        ax.plot(value, row, "o", color=color_of(name), clip_on=False)
        beside(ax, row, text)
        told.append(f"{_(HEADLINE[name].label)} {text}")
    name_rows(ax, [_(HEADLINE[name].label) for name in scores])
    ax.set(
        xlim=(0, 1),
        xlabel=_("score; bars: 95 % bootstrap interval over {over}; conditional on these patients").format(
            over=_(over)
        ),
    )
    ax.set_title(_("scores and their intervals"))
    return describe(figure, _("Scores with their 95 % intervals. {told}.").format(told=listed(told)))


def plot_definitions(table: pd.DataFrame) -> Figure:
    """mIoU of the same predictions: ours, then other definitions with one thing changed, then the slides'.

    Args:
        table: As definitions.definitions_table gives, of one size or several, at least one row.
    """
    rows = _definitions(table)
    values = [float(row.mean_iou) for row in rows.values()]
    figure, ax = plt.subplots(figsize=(9.5, 0.42 * len(rows) + 1.4))
    for y, value in enumerate(values):
        ax.hlines(y, values[0], value, color=FAINT, linewidth=1.5)
        ends = y in (0, len(values) - 1)
        ax.scatter(value, y, 60, color=SERIES[0] if ends else "white", edgecolor=SERIES[0], zorder=3)
        beside(ax, y, f"{value:.3f}" if y == 0 else f"{value:.3f}  ({value - values[0]:+.3f})")
    ax.axvline(values[0], color=FAINT, linewidth=1, label=_("ours"))
    slides = _("{miou}: the slides, on the real slices").format(miou=SLIDES_MEAN_IOU)
    ax.axvline(SLIDES_MEAN_IOU, color=INK, linestyle="--", linewidth=1.2, label=slides)
    name_rows(ax, list(rows))
    ax.set(xlabel="mIoU", title=_("one set of predictions, one change of the definition at a time"))
    figure.legend(loc="outside lower center", ncols=2)
    told = [f"{name} {value:.3f}" for name, value in zip(rows, values)]
    return describe(
        figure, _("mIoU of the same predictions under other definitions. {told}.").format(told=listed(told))
    )


def _definitions(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Rows of the table to draw, by their names: ours, one change each, the slides'."""

    def pixels(size: str) -> int:
        return int(size.split()[0])

    sizes, rules = sorted(table["size"].unique(), key=pixels), list(table.rule.unique())
    ours = {
        "size": sizes[-1],
        "rule": rules[0],
        "averaging": "pooled",
        "absent": "skipped",
        "background": "with",
    }
    changes: dict[str, dict[str, str]] = {
        _("ours: all pixels pooled, {size}, {rule}").format(size=sizes[-1], rule=_(rules[0])): {}
    }
    changes[_("without background")] = {"background": "without"}
    changes |= {_("at {size}").format(size=size): {"size": size} for size in reversed(sizes[:-1])}
    changes |= {_("by {rule}").format(rule=_(rule)): {"rule": rule} for rule in rules[1:]}
    changes[_("mean over batches")] = {"averaging": "batch"}
    changes[_("mean over slices")] = {"averaging": "slice"}
    for absent, name in (
        ("counts 0", _("mean over slices, absent class counts 0")),
        ("counts 1", _("mean over slices, absent class counts 1")),
    ):
        changes[name] = {"averaging": "slice", "absent": absent}
    slides = {"size": sizes[0], "averaging": "batch", "absent": "skipped if not true"}
    changes[_("as the slides: mean over batches, {size}").format(size=sizes[0])] = slides
    keys = table[[*ours]]
    return {
        name: table[(keys == pd.Series(ours | change)).all(axis=1)].iloc[0]
        for name, change in changes.items()
    }


def plot_inference_steps(
    scores: Mapping[str, float],
    differences: Mapping[str, Mapping[str, Any]],
    name: str,
    over: str = N_("slices"),
) -> Figure:
    """A score with each switchable step of the inference, and its difference to the plain prediction.

    Args:
        scores: By step.
        differences: By step, as intervals.paired_difference gives of the step minus the first.
        name: Of the score.
        over: What the bootstrap drew, slices or volumes.
    """
    steps, name = list(scores), _(name)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 0.45 * len(steps) + 1.4), sharey=True)
    bars = left.barh(range(len(steps)), list(scores.values()), color=[FAINT] + [SERIES[0]] * (len(steps) - 1))
    left.bar_label(bars, fmt="%.3f", padding=3)
    left.margins(x=0.15)
    left.set(xlabel=name, title=_("with each step alone"))
    right.axvline(0, color="gray", linestyle=":")
    for row, step in enumerate(steps):
        found = differences.get(step)
        if found and found["difference"] is not None:
            if found["interval"]:
                right.hlines(row, *found["interval"], color=SERIES[0], linewidth=3, alpha=0.45)
            right.plot(found["difference"], row, "o", color=SERIES[0])
            beside(right, row, f"{found['difference']:+.3f}")
    right.locator_params(axis="x", nbins=5)
    right.set_xlabel(_("difference; bars: 95 % interval over {over}").format(over=_(over)))
    right.set_title(_("against {step}, paired, on these patients").format(step=steps[0]))
    for ax in (left, right):
        name_rows(ax, steps)
    told = [f"{step} {value:.3f}" for step, value in scores.items()]
    return describe(
        figure,
        _("{name} with each step of the inference alone. {told}.").format(name=name, told=listed(told)),
    )
