"""Figures of what pixel scores hide: borders, lesions one by one and by the wrong name, involved lung."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.borders import REGIONS, TOLERANCES
from lungseg_utils.evaluation.burden import burden_agreement, predicted_burden, true_burden
from lungseg_utils.evaluation.intervals import sum_by_volume
from lungseg_utils.evaluation.lesions import HU_EDGES, SIZES, LesionConfusion
from lungseg_utils.plots.agreement import AGREEMENT
from lungseg_utils.plots.parts import (
    FAINT,
    FEW,
    INK,
    LINES,
    SERIES,
    beside,
    color_of,
    describe,
    listed,
    name_of,
    name_rows,
    strip,
)


def plot_burden(per_slice: np.ndarray, volumes: Sequence | None = None) -> Figure:
    """Involved share of the lung, predicted against true, and the difference against the mean.

    Bland and Altman 1986.

    Args:
        per_slice: (N, 4, 4) confusion counts.
        volumes: Number of each slice's volume, missing where unknown. A known volume is drawn as its number,
            at the share of its slices together.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6))
    true, predicted = 100 * true_burden(per_slice), 100 * predicted_burden(per_slice)
    found = burden_agreement(true, predicted)
    top = 1.08 * np.nanmax([1, *true, *predicted])
    left.plot([0, top], [0, top], color=FAINT, linestyle=":", label=_("predicted = true"))
    style: dict[str, Any] = {"s": 22, "color": SERIES[0], "alpha": 0.7, "linewidth": 0}
    left.scatter(true, predicted, label=_("a slice ({count})").format(count=found["values"]), **style)
    right.scatter((true + predicted) / 2, predicted - true, **style)
    if volumes is not None and pd.Series(volumes, dtype="Int64").notna().any():
        _draw_volumes(left, right, *sum_by_volume(per_slice, volumes))
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    left.set(xlabel=_("true, % of the lung"), ylabel=_("predicted, % of the lung"))
    left.set_title(
        _("involved share of the lung")
        if found["concordance"] is None
        else _("involved share of the lung: concordance {concordance:.3f}").format(**found)
    )
    left.legend(loc="upper left")
    right.axhline(0, color=FAINT, linestyle=":")
    right.margins(0.1, 0.2)
    if found["limits"]:
        low, high = found["limits"]
        _draw_level(right, low, _("limit"), "--")
        _draw_level(right, found["bias"], _("bias"), "-")
        _draw_level(right, high, _("limit"), "--")
    right.set_xlabel(_("mean of true and predicted, % of the lung"))
    right.set_ylabel(_("predicted - true, percentage points"))
    if found["bias"] is None:
        right.set_title(_("95 % limits of agreement"))
        told = _("Involved share of the lung, predicted against true: {values} slices.")
    else:
        title = _("95 % limits of agreement; mean absolute error {mean_absolute_error:.1f} points")
        right.set_title(title.format(**found))
        told = _(
            "Involved share of the lung, predicted against true: {values} slices, bias {bias:+.1f} "
            "percentage points; mean absolute error {mean_absolute_error:.1f} points."
        )
    return describe(figure, told.format(**found))


def _draw_volumes(left: Axes, right: Axes, table: pd.DataFrame, counts: np.ndarray) -> None:
    """Each known volume as its number; table, counts: as sum_by_volume gives."""
    known = table.volume.notna()
    true, predicted = 100 * true_burden(counts[known]), 100 * predicted_burden(counts[known])
    style: dict[str, Any] = {"s": 170, "color": "white", "edgecolor": INK, "zorder": 3}
    left.scatter(
        true, predicted, label=_("a whole volume ({count}), by its number").format(count=known.sum()), **style
    )
    right.scatter((true + predicted) / 2, predicted - true, **style)
    for number, x, y in zip(table.volume[known], true, predicted):
        left.annotate(str(number), (x, y), ha="center", va="center", zorder=4)
        right.annotate(str(number), ((x + y) / 2, y - x), ha="center", va="center", zorder=4)


def _draw_level(ax: Axes, value: float, name: str, line: str) -> None:
    ax.axhline(value, color=INK, linewidth=1, linestyle=line)
    beside(ax, value, f"{name} {value:+.1f}")


def _said(words: str, value: float | None) -> str:
    """The words with the value in them; nothing where there is none."""
    return "" if value is None else words.format(value)


def plot_lesion_sizes(lesions: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Found lesions and false alarms by size.

    Args:
        lesions: By size, as lesions.lesion_summary gives.
    """
    names = [f"{_(size)}\n{_range(*SIZES[size])}" if size in SIZES else _(size) for size in lesions]
    rows, found = range(len(names)), lesions.values()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.62 * len(names) + 1.4), sharey=True)
    bars = left.barh(rows, [f["recall"] or 0 for f in found], color=SERIES[0])
    left.bar_label(
        bars, [_("{found} of {true}").format(found=f["found"], true=f["true"]) for f in found], padding=3
    )
    left.set(xlim=(0, 1.2), xticks=np.linspace(0, 1, 6), xlabel=_("share of the true lesions that is found"))
    left.set_title(_("recall by true size"))
    bars = right.barh(rows, [f["false_alarms_per_slice"] for f in found], color=AGREEMENT["false alarm"])
    right.bar_label(
        bars,
        [
            _("{false_alarms} of {predicted} predicted").format(
                false_alarms=f["false_alarms"], predicted=f["predicted"]
            )
            for f in found
        ],
        padding=3,
    )
    right.margins(x=0.35)
    right.set_xlim(left=0)
    right.set(xlabel=_("false alarms per slice"), title=_("false alarms by predicted size"))
    for ax in (left, right):
        name_rows(ax, names)
    told = [
        _("{size}: {found} of {true} found, {false_alarms} of {predicted} predicted are false alarms").format(
            size=_(size),
            found=f["found"],
            true=f["true"],
            false_alarms=f["false_alarms"],
            predicted=f["predicted"],
        )
        for size, f in lesions.items()
    ]
    return describe(figure, _("Lesions by size. {told}.").format(told=listed(told)))


def _range(low: float, high: float) -> str:
    return (
        _("{low} px and more").format(low=low)
        if np.isinf(high)
        else _("{low} to {high} px").format(low=low, high=high - 1)
    )


def plot_borders(table: pd.DataFrame, unit: str = "px") -> Figure:
    """Distances of borders by region: HD95 of every slice, beside it the slices that have none; surface Dice.

    Args:
        table: One row a slice, with the columns of borders.border_table.
        unit: Of HD95, px or mm.
    """
    cases = {"only_truth": _("missed"), "only_prediction": _("only predicted"), "neither": _("neither")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.4), width_ratios=(1.6, 1))
    told = []
    for (row, region), line, marker in zip(enumerate(REGIONS), [*LINES, *LINES], "osD^v"):
        distances = table[f"{region}_hd95_{unit}"].dropna().to_numpy()
        strip(left, row, distances, color_of(region))
        if len(distances):
            told.append(f"{name_of(region)} {np.median(distances):.1f} {unit}")
        slices = table[f"{region}_borders"].value_counts()
        without = [f"{slices[case]} {name}" for case, name in cases.items() if case in slices]
        beside(left, row, ", ".join(without))
        surface_dice = [table[f"{region}_surface_dice_{tolerance}px"].mean() for tolerance in TOLERANCES]
        style = {"color": color_of(region), "linestyle": line, "marker": marker}
        right.plot(TOLERANCES, surface_dice, label=name_of(region), **style)
    name_rows(left, [name_of(region) for region in REGIONS])
    left.use_sticky_edges = False  # room for the farthest dot
    left.autoscale_view()
    left.set_xlim(left=0)
    left.set(
        xlabel=_("HD95, {unit}").format(unit=unit),
        title=_("95th percentile of the distance; beside it, slices without"),
    )
    right.set(ylim=(0, 1), xticks=TOLERANCES, xlabel=_("tolerance, px"), ylabel=_("normalised surface Dice"))
    right.set_title(_("mean over the slices"))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return describe(
        figure, _("Distances of borders. Median HD95 of the slices: {told}.").format(told=listed(told))
    )


def plot_lesion_confusion(counts: LesionConfusion) -> Figure:
    """Lesion pixels found, by the right or the wrong name: how many, at which HU, where they are swapped.

    What has too few pixels is told in the legend and not drawn; without enough swapped pixels, no map is.
    """
    pixels = counts.histograms.sum(-1)
    swapped, found = counts.places[0, 1] + counts.places[1, 0], counts.places.sum((0, 1))
    mapped = pixels[0, 1] + pixels[1, 0] >= FEW
    panels = 1 + mapped
    figure, axes = plt.subplots(
        1, panels, figsize=(7 + 4.5 * mapped, 4.6), width_ratios=(1.6, 1)[:panels], squeeze=False
    )
    ax = axes[0, 0]
    for true in LESIONS:
        for predicted in LESIONS:
            _draw_densities(ax, counts.histograms[true, predicted], true, predicted)
    ax.set(xlabel=_("Hounsfield units (end bins: all beyond)"), ylabel=_("% of the group's pixels"))
    ax.set_title(_("found lesion pixels: at what density they get which name"))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    if mapped:
        place = axes[0, 1]
        image = place.imshow(100 * swapped / max(counts.slices, 1), "magma", vmin=0)
        if 0 < found.astype(bool).mean() < 1:  # else there is no line to draw
            place.contour(found > 0, [0.5], colors="white", linewidths=1)
        figure.colorbar(image, ax=place, label=_("% of the place, mean over the slices"), shrink=0.9)
        place.set(
            xticks=[], yticks=[], title=_("where the two are swapped"), xlabel=_("white line: lesions found")
        )
    told = [_group(pixels[true, predicted], true, predicted) for true in LESIONS for predicted in LESIONS]
    return describe(
        figure, _("Found lesion pixels by the name that they get. {told}.").format(told=listed(told))
    )


def _group(pixels: int, true: int, predicted: int) -> str:
    """A group of found lesion pixels in words."""
    called = _("named so") if true == predicted else _("called {name}").format(name=CLASSES[predicted].name)
    return _("{name}, {called}: {pixels:,} px").format(name=CLASSES[true].name, called=called, pixels=pixels)


def _draw_densities(ax: Axes, pixels: np.ndarray, true: int, predicted: int) -> None:
    """HU of the pixels of one true class that were given one name; pixels: by HU_EDGES."""
    label = _group(int(pixels.sum()), true, predicted)
    if pixels.sum() < FEW:
        ax.plot([], [], linestyle="none", label=_("{label} (too few to draw)").format(label=label))
        return
    line = "-" if true == predicted else (0, (2, 1))
    share = 100 * pixels / pixels.sum()
    ax.stairs(share, HU_EDGES, label=label, color=CLASSES[true].line, linestyle=line, linewidth=1.8)
