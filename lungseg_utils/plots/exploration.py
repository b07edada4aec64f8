"""What 01 and 02 draw: class shares, HU, lesions, volumes, preprocessing steps."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungseg_utils.core.classes import CLASSES, LUNG_WINDOW
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.parts import FAINT, INK, LINES, SERIES, class_patch, describe, listed

SQUARES = 10  # a side: each of the hundred is one per cent
SPIKE = 5  # per cent of a class's pixels in the window's last bin, above which it is explained


def plot_class_shares(shares: pd.DataFrame) -> Figure:
    """A hundred squares a source, each one per cent of the pixels, filled class by class to the exact area.

    Args:
        shares: One row a source, one column a class short name, in percent.
    """
    figure, axes = plt.subplots(1, len(shares), figsize=(5 * len(shares), 3.2), squeeze=False)
    told = []
    for ax, (source, row) in zip(axes.flat, shares.iterrows()):
        start, handles = 0.0, []
        for c in CLASSES:
            share = float(row[c.short])
            _fill_squares(ax, start, start + share, c.index)
            handles.append(class_patch(c.index))
            handles[-1].set_label(f"{c.name}: {share:.2f} %")
            start += share
        ax.set(xlim=(0, SQUARES), ylim=(SQUARES, 0), aspect="equal", xticks=[], yticks=[], title=source)
        for k in range(SQUARES + 1):
            ax.axhline(k, color="white", linewidth=1.5)
            ax.axvline(k, color="white", linewidth=1.5)
        ax.spines[:].set_visible(False)
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
        told.append(f"{source}: " + ", ".join(f"{c.name} {row[c.short]:.2f} %" for c in CLASSES))
    figure.suptitle(_("of a hundred pixels: each square is 1 %"))
    return describe(
        figure, _("A hundred squares for the pixels of each source. {told}.").format(told=listed(told))
    )


def _fill_squares(ax: Axes, start: float, end: float, c: int) -> None:
    """Fill the squares from start to end, row by row, those at the ends in part; each is 1 wide and high."""
    patch = class_patch(c)
    hatched = bool(CLASSES[c].hatch)
    for k in range(int(start), int(np.ceil(min(end, SQUARES**2)))):
        left, right = max(start - k, 0), min(end - k, 1)
        box = Rectangle((k % SQUARES + left, k // SQUARES), right - left, 1, facecolor=CLASSES[c].color)
        box.set(edgecolor=patch.get_edgecolor() if hatched else "none", hatch=CLASSES[c].hatch, linewidth=0)
        ax.add_patch(box)


def plot_hu_histograms(histograms: Mapping[str, np.ndarray], edges: np.ndarray) -> Figure:
    """HU of each class.

    Args:
        histograms: By source, (4, bins) pixel counts.
        edges: (bins + 1,), HU.
    """
    figure, axes = plt.subplots(
        1, len(histograms), figsize=(5.5 * len(histograms), 3.8), squeeze=False, sharey=True
    )
    told = []
    for ax, (source, counts) in zip(axes.flat, histograms.items()):
        percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for c, line in zip(CLASSES, LINES):
            ax.stairs(percent[c.index], edges, color=c.line, linestyle=line, label=c.name, linewidth=1.8)
        ax.set(xlabel=_("Hounsfield units"), title=source, ylim=(0, 25))
        ax.set_ylabel(_("share of the class's pixels, %"))
        _explain_spike(ax, percent, edges)
        ax.legend(loc="upper right")
        centres = (edges[:-1] + edges[1:]) / 2
        means = ", ".join(f"{c.name} {percent[c.index] @ centres / 100:.0f}" for c in CLASSES)
        told.append(_("{source}, mean HU: {means}").format(source=source, means=means))
    return describe(
        figure,
        _("Curves of the Hounsfield units of each class, which overlap. {told}.").format(told=listed(told)),
    )


def _explain_spike(ax: Axes, percent: np.ndarray, edges: np.ndarray) -> None:
    """Name the bin in which an export in the lung window put all that is darker."""
    k = int(np.searchsorted(edges, LUNG_WINDOW[0], side="right")) - 1
    highest = percent[:, k].max() if 0 <= k < percent.shape[1] else 0
    if highest > SPIKE:
        ax.annotate(
            _("{low} HU: all that is\ndarker was exported as this").format(low=LUNG_WINDOW[0]),
            (edges[k], min(highest, 20)),
            xytext=(0.01, 0.98),
            textcoords="axes fraction",
            va="top",
            color=INK,
            arrowprops={"arrowstyle": "->", "color": INK},
        )


def plot_lesions(
    lesions: Mapping[str, pd.DataFrame],
    places: Mapping[str, np.ndarray],
    bodies: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Sizes and places of lesions by source.

    Args:
        lesions: Tables with a column `percent`.
        places: (64, 64) shares of slices.
        bodies: (64, 64), how much of each place is solid tissue, for the outlines of body and lungs.
    """
    figure, axes = plt.subplots(1, 1 + len(places), figsize=(4.4 + 3.3 * len(places), 3.4))
    for (source, table), color, line in zip(lesions.items(), SERIES, LINES):
        axes[0].hist(
            np.log10(table.percent.clip(lower=1e-3)),
            np.linspace(-3, 1.5, 28),
            histtype="step",
            linewidth=1.8,
            color=color,
            linestyle=line,
            label=source,
        )
    axes[0].set_xticks([-3, -2, -1, 0, 1], ["0.001", "0.01", "0.1", "1", "10"])
    axes[0].set(xlabel=_("size of a lesion, % of the slice"), ylabel=_("lesions"), title=_("how large"))
    axes[0].set_ylim(top=1.35 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(loc="upper left")
    for ax, (source, share) in zip(axes[1:], places.items()):
        image = ax.imshow(100 * share, "magma", vmin=0)
        if bodies is not None:
            ax.contour(bodies[source], [0.5], colors="white", linewidths=1)
            ax.set_xlabel(_("white: body and lungs"))
        ax.set(xticks=[], yticks=[], title=_("where: {source}").format(source=source))
        figure.colorbar(image, ax=ax, label=_("% of slices with a lesion here"), shrink=0.8)
    told = [
        _("{source}: {count} lesions, half of them below {median:.2f} % of the slice").format(
            source=source, count=len(table), median=table.percent.median()
        )
        for source, table in lesions.items()
    ]
    most = [
        _("{source}: at most {share:.0f} % of the slices at one place").format(
            source=source, share=100 * share.max()
        )
        for source, share in places.items()
    ]
    return describe(
        figure, _("Sizes of the lesions and where they lie. {told}.").format(told=listed([*told, *most]))
    )


def plot_volumes(
    jumps: np.ndarray, volumes: np.ndarray, lesion_percent: np.ndarray, threshold: float
) -> Figure:
    """The jump to each slice from the one before, and the lesion share of each slice, by volume.

    Args:
        jumps: (N - 1,), mean absolute differences in HU.
        volumes: (N,) numbers from 1.
        lesion_percent: (N,) of the slice's pixels.
        threshold: HU; a jump above it may begin a volume.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 4.8), sharex=True)
    top.plot(np.arange(1, len(volumes)), jumps, linewidth=1, color=SERIES[0])
    label = _("a new volume above {threshold:.0f} HU").format(threshold=threshold)
    top.axhline(threshold, color=FAINT, linestyle=":", label=label)
    top.set(ylabel=_("jump, HU"), title=_("how much each slice differs from the one before"))
    top.legend(loc="upper right")
    means = []
    for k, number in enumerate(np.unique(volumes)):
        index = np.nonzero(volumes == number)[0]
        bottom.fill_between(index, lesion_percent[index], color=SERIES[0], step="mid")
        bottom.axvspan(index[0] - 0.5, index[-1] + 0.5, color="0.93" if k % 2 else "white", zorder=0)
        place = bottom.get_xaxis_transform()
        bottom.annotate(str(number), (index.mean(), 0.98), xycoords=place, va="top", ha="center")
        means.append(
            _("volume {number}: {mean:.1f} %").format(number=number, mean=lesion_percent[index].mean())
        )
    bottom.set(
        xlabel=_("slice"),
        ylabel=_("lesion, % of pixels"),
        title=_("lesions along the volumes, which have their numbers"),
    )
    bottom.xaxis.get_major_locator().set_params(integer=True)
    bottom.set_ylim(0, 1.2 * max(lesion_percent.max(), 0.1))
    told = _("{jumps} jumps above {threshold:.0f} HU part {volumes} volumes").format(
        jumps=(jumps > threshold).sum(), threshold=threshold, volumes=len(means)
    )
    return describe(
        figure, _("{told}. Mean share of lesion pixels: {means}.").format(told=told, means=listed(means))
    )


def plot_steps(steps: Mapping[str, np.ndarray], units: Sequence[str]) -> Figure:
    """One slice after each preprocessing step, with its histogram.

    Below a step in the unit of the one before stands how many pixels it changes.

    Args:
        steps: By name, (H, W).
        units: Of each step's values.
    """
    figure, axes = plt.subplots(
        2, len(steps), figsize=(3.5 * len(steps), 5.6), height_ratios=(2, 1), squeeze=False
    )
    told, images = [], list(steps.values())
    units = [_(unit) for unit in units]
    for k, ((top, bottom), (name, image), unit) in enumerate(zip(axes.T, steps.items(), units)):
        shown = top.imshow(image, "gray")
        figure.colorbar(shown, ax=top, label=unit, shrink=0.7)
        top.set(title=name, xticks=[], yticks=[])
        words = _("from {lowest:.5g} to {highest:.5g} {unit}").format(
            lowest=image.min(), highest=image.max(), unit=unit
        )
        if k and units[k - 1] == unit:
            changed = _("changes {share:.1%}\nof the pixels").format(share=(image != images[k - 1]).mean())
            top.set_xlabel(changed)  # in two lines: beside it stands the colour bar
            words = f"{words}, {changed}".replace("\n", " ")
        bottom.hist(image.ravel(), 100, color=FAINT)
        bottom.set(xlabel=unit, ylabel=_("pixels"), yscale="log")
        told.append(f"{name}: {words}")
    return describe(
        figure, _("One slice and its histogram after each step. {told}.").format(told=listed(told))
    )


def plot_distributions(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], low: float, high: float
) -> Figure:
    """Values by source, one row each, before and after normalisation.

    Args:
        before: By source, HU.
        after: By source, z-scores.
        low: Where the robust range begins, HU.
        high: Where it ends, HU.
    """
    figure, axes = plt.subplots(
        len(before), 2, figsize=(10, 1.35 * len(before) + 1.2), sharex="col", sharey=True, squeeze=False
    )
    for (left, right), source in zip(axes, before):
        for ax, values in ((left, before[source]), (right, after[source])):
            ax.hist(
                values, 120, density=False, weights=np.full(len(values), 100 / len(values)), color=SERIES[0]
            )
            ax.set_yscale("log")
            ax.axvline(values.mean(), color=INK, linestyle="--", linewidth=1.2, label=_("mean"))
        left.axvspan(low, high, color="0.88", zorder=0, label=_("robust range"))
        left.set_ylabel(_("{source}\n% of pixels").format(source=source))
    axes[0, 0].set_title(_("before: clipped HU"))
    axes[0, 1].set_title(_("after: z-scores"))
    axes[-1, 0].set_xlabel(_("HU"))
    axes[-1, 1].set_xlabel(_("z-score"))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    told = [
        _("{source}: mean {before:.0f} HU, then z-score {after:.2f}").format(
            source=source, before=before[source].mean(), after=after[source].mean()
        )
        for source in before
    ]
    return describe(figure, _("Histograms before and after normalisation. {told}.").format(told=listed(told)))


def plot_bars(values: Mapping[str, float | None], xlabel: str, title: str) -> Figure:
    """Named numbers as horizontal bars, the first on top.

    Args:
        values: By name; None is left out.
        xlabel: What they are, with the unit.
        title: Of the figure.
    """
    known = {name: value for name, value in values.items() if value is not None}
    figure, ax = plt.subplots(figsize=(6.5, 0.42 * len(known) + 1.1))
    bars = ax.barh(list(known), list(known.values()), color=SERIES[0])
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=xlabel, title=title)
    told = [f"{name} {value:.3g}" for name, value in known.items()]
    return describe(figure, f"{title}, {xlabel}: {listed(told)}.")
