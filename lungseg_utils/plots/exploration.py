"""What 01 and 02 draw: class shares, HU, lesions, volumes, preprocessing steps."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lungseg_utils.core.classes import CLASSES, SHORT_NAMES


def plot_class_shares(shares: pd.DataFrame) -> Figure:
    """Share of the pixels by class.

    Args:
        shares: One row a source, one column a class short name, in percent.
    """
    figure, axes = plt.subplots(1, len(shares), figsize=(4 * len(shares), 2.4), squeeze=False, sharex=True)
    for ax, (source, row) in zip(axes.flat, shares.iterrows()):
        bars = ax.barh([c.name for c in CLASSES], row[list(SHORT_NAMES)], color=[c.color for c in CLASSES])
        ax.bar_label(bars, fmt="%.2f %%", padding=3)
        ax.set(xscale="log", xlim=(0.05, 400), xlabel="share of all pixels, % (log scale)", title=source)
    return figure


def plot_hu_histograms(histograms: Mapping[str, np.ndarray], edges: np.ndarray) -> Figure:
    """HU of each class.

    Args:
        histograms: By source, (4, bins) pixel counts.
        edges: (bins + 1,), HU.
    """
    figure, axes = plt.subplots(
        1, len(histograms), figsize=(5 * len(histograms), 3), squeeze=False, sharey=True
    )
    for ax, (source, counts) in zip(axes.flat, histograms.items()):
        for c in CLASSES:
            total = max(counts[c.index].sum(), 1)
            ax.stairs(100 * counts[c.index] / total, edges, color=c.color, label=c.name, linewidth=1.5)
        ax.set(xlabel="Hounsfield units", ylabel="share of the class's pixels, %", title=source, ylim=(0, 25))
    axes.flat[0].legend(loc="upper left")
    return figure


def plot_lesions(lesions: Mapping[str, pd.DataFrame], places: Mapping[str, np.ndarray]) -> Figure:
    """Sizes and places of lesions by source.

    Args:
        lesions: Tables with a column `percent`.
        places: (64, 64) shares of slices.
    """
    figure, axes = plt.subplots(1, 1 + len(places), figsize=(4 + 3 * len(places), 3))
    for source, table in lesions.items():
        axes[0].hist(
            np.log10(table.percent.clip(lower=1e-3)),
            np.linspace(-3, 1.5, 28),
            histtype="step",
            linewidth=1.5,
            label=source,
        )
    axes[0].set_xticks([-3, -2, -1, 0, 1], ["0.001", "0.01", "0.1", "1", "10"])
    axes[0].set(xlabel="size of a lesion, % of the slice", ylabel="lesions", title="how large")
    axes[0].legend()
    for ax, (source, share) in zip(axes[1:], places.items()):
        image = ax.imshow(100 * share, "magma", vmin=0)
        ax.set(xticks=[], yticks=[], title=f"where: {source}")
        figure.colorbar(image, ax=ax, label="% of slices with a lesion here", shrink=0.8)
    return figure


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
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
    top.plot(np.arange(1, len(volumes)), jumps, linewidth=0.8)
    top.axhline(threshold, color="gray", linestyle=":", label=f"a new volume above {threshold:.0f} HU")
    top.set(ylabel="jump, HU", title="how much each slice differs from the one before")
    top.legend(loc="upper right")
    for number in np.unique(volumes):
        index = np.nonzero(volumes == number)[0]
        bottom.fill_between(index, lesion_percent[index], alpha=0.8)
        bottom.annotate(
            str(number), (index.mean(), 0), xytext=(0, 3), textcoords="offset points", ha="center"
        )
    bottom.set(
        xlabel="slice",
        ylabel="lesion, % of pixels",
        title="lesions along the volumes (numbers: volumes found)",
    )
    return figure


def plot_steps(steps: Mapping[str, np.ndarray], units: Sequence[str]) -> Figure:
    """One slice after each preprocessing step, with its histogram.

    Args:
        steps: By name, (H, W).
        units: Of each step's values.
    """
    figure, axes = plt.subplots(
        2, len(steps), figsize=(3.2 * len(steps), 5), height_ratios=(2, 1), squeeze=False
    )
    for (top, bottom), (name, image), unit in zip(axes.T, steps.items(), units):
        shown = top.imshow(image, "gray")
        figure.colorbar(shown, ax=top, label=unit, shrink=0.7)
        top.set(title=name, xticks=[], yticks=[])
        bottom.hist(image.ravel(), 100, color="gray")
        bottom.set(xlabel=unit, ylabel="pixels", yscale="log")
    return figure


def plot_distributions(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], low: float, high: float
) -> Figure:
    """Values by source before and after normalisation.

    Args:
        before: By source, HU.
        after: By source, z-scores.
        low: Where the robust range begins, HU.
        high: Where it ends, HU.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    for ax, values, unit in ((left, before, "HU"), (right, after, "z-score")):
        for source, sample in values.items():
            ax.hist(sample, 120, density=True, histtype="step", linewidth=1.5, label=source)
        ax.set(xlabel=unit, ylabel="density", yscale="log")
    left.axvspan(low, high, color="gray", alpha=0.2, label="robust range")
    left.set_title("before: clipped HU")
    right.set_title("after: z-scores")
    left.legend()
    return figure


def plot_bars(values: Mapping[str, float | None], xlabel: str, title: str) -> Figure:
    """Named numbers as horizontal bars, the first on top.

    Args:
        values: By name; None is left out.
        xlabel: What they are, with the unit.
        title: Of the figure.
    """
    known = {name: value for name, value in values.items() if value is not None}
    figure, ax = plt.subplots(figsize=(6, 0.35 * len(known) + 0.9))
    bars = ax.barh(list(known), list(known.values()))
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=xlabel, title=title)
    return figure
