"""Every figure of the series: functions of arrays and tables that return a matplotlib Figure, each with titles and units."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.classes import CLASSES, LESIONS, LUNG_WINDOW, SHORT_NAMES
from lungseg_utils.files import atomic_write

CLASS_COLORS = ListedColormap([c.color for c in CLASSES])
CLASS_NORM = BoundaryNorm(np.arange(len(CLASSES) + 1) - 0.5, len(CLASSES))
AGREEMENT = {"hit": "#FFFFFF", "miss": "#E69F00", "false alarm": "#CC79A7"}  # none is a class's colour


def set_style() -> None:
    """Figures for notebooks: readable, and small enough for a committed notebook (JPEG, 80 dots per inch)."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 80})
    plt.rcParams.update({
        "figure.dpi": 80, "figure.facecolor": "white", "savefig.dpi": 120, "figure.constrained_layout.use": True, "axes.titlesize": 10,
        "axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "legend.frameon": False,
    })  # fmt: skip


def save_figure(figure: Figure, folder: str | Path, name: str) -> Figure:
    """Write `folder/name.png` and give the figure back, so that a cell can end with it."""
    with atomic_write(Path(folder) / f"{name}.png", "wb") as handle:
        figure.savefig(handle, format="png")
    plt.close(figure)  # else the notebook would show it twice
    return figure


def class_legend(figure: Figure, classes: Sequence[int] = (0, 1, 2)) -> None:
    """Names and colours of the classes below the figure."""
    handles = [Patch(color=CLASSES[c].color, label=CLASSES[c].name) for c in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _grey(hu: np.ndarray) -> np.ndarray:
    """RGB picture (H, W, 3) in 0..1 of a slice in the lung window."""
    low, high = LUNG_WINDOW
    return np.repeat(np.clip((hu - low) / (high - low), 0, 1)[..., None], 3, axis=-1)


def overlay(hu: np.ndarray, labels: np.ndarray, classes: Sequence[int] = LESIONS, alpha: float = 0.5) -> np.ndarray:
    """RGB picture (H, W, 3) in 0..1: the slice in the lung window, the named classes in their colours on top."""
    rgb = _grey(hu)
    for c in classes:
        rgb[labels == c] = (1 - alpha) * rgb[labels == c] + alpha * np.array(to_rgb(CLASSES[c].color))
    return rgb


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


def _grid(rows: int, columns: int, size: float = 2.2, extra: float = 0.5) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size + extra), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def show_slices(
    hu: Sequence[np.ndarray], labels: Sequence[np.ndarray] | None = None, titles: Sequence[str] = (),
    columns: int = 4, classes: Sequence[int] = (0, 1), title: str = "",
) -> Figure:  # fmt: skip
    """Slices (H, W) in HU in the lung window; with labels, the named classes drawn over them."""
    columns = min(columns, len(hu))
    figure, axes = _grid(-(-len(hu) // columns), columns)
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(_grey(hu[k]) if labels is None else overlay(hu[k], labels[k], classes))
        ax.set_title(titles[k] if k < len(titles) else "")
    figure.suptitle(title or f"lung window, {LUNG_WINDOW[0]} to {LUNG_WINDOW[1]} HU")
    if labels is not None:
        class_legend(figure, classes)
    return figure


def plot_class_shares(shares: pd.DataFrame) -> Figure:
    """Share of the pixels by class. shares: one row a source, one column a class short name, in percent."""
    figure, axes = plt.subplots(1, len(shares), figsize=(4 * len(shares), 2.4), squeeze=False, sharex=True)
    for ax, (source, row) in zip(axes.flat, shares.iterrows()):
        bars = ax.barh([c.name for c in CLASSES], row[list(SHORT_NAMES)], color=[c.color for c in CLASSES])
        ax.bar_label(bars, fmt="%.2f %%", padding=3)
        ax.set(xscale="log", xlim=(0.05, 400), xlabel="share of all pixels, % (log scale)", title=source)
    return figure


def plot_hu_histograms(histograms: Mapping[str, np.ndarray], edges: np.ndarray) -> Figure:
    """HU of each class. histograms: by source, (4, bins) pixel counts; edges: (bins + 1,) HU."""
    figure, axes = plt.subplots(1, len(histograms), figsize=(5 * len(histograms), 3), squeeze=False, sharey=True)
    for ax, (source, counts) in zip(axes.flat, histograms.items()):
        for c in CLASSES:
            total = max(counts[c.index].sum(), 1)
            ax.stairs(100 * counts[c.index] / total, edges, color=c.color, label=c.name, linewidth=1.5)
        ax.set(xlabel="Hounsfield units", ylabel="share of the class's pixels, %", title=source, ylim=(0, 25))
    axes.flat[0].legend(loc="upper left")
    return figure


def plot_lesions(lesions: Mapping[str, pd.DataFrame], places: Mapping[str, np.ndarray]) -> Figure:
    """Sizes and places of lesions by source. lesions: tables with a column `percent`; places: (64, 64) shares of slices."""
    figure, axes = plt.subplots(1, 1 + len(places), figsize=(4 + 3 * len(places), 3))
    for source, table in lesions.items():
        axes[0].hist(np.log10(table.percent.clip(lower=1e-3)), np.linspace(-3, 1.5, 28), histtype="step", linewidth=1.5, label=source)
    axes[0].set_xticks([-3, -2, -1, 0, 1], ["0.001", "0.01", "0.1", "1", "10"])
    axes[0].set(xlabel="size of a lesion, % of the slice", ylabel="lesions", title="how large")
    axes[0].legend()
    for ax, (source, share) in zip(axes[1:], places.items()):
        image = ax.imshow(100 * share, "magma", vmin=0)
        ax.set(xticks=[], yticks=[], title=f"where: {source}")
        figure.colorbar(image, ax=ax, label="% of slices with a lesion here", shrink=0.8)
    return figure


def plot_volumes(jumps: np.ndarray, volumes: np.ndarray, lesion_percent: np.ndarray, threshold: float) -> Figure:
    """The jump to each slice from the one before (HU, mean absolute), and the lesion share of each slice, by volume.

    jumps: (N - 1,); volumes: (N,) numbers from 1; lesion_percent: (N,) of the slice's pixels.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
    top.plot(np.arange(1, len(volumes)), jumps, linewidth=0.8)
    top.axhline(threshold, color="gray", linestyle=":", label=f"a new volume above {threshold:.0f} HU")
    top.set(ylabel="jump, HU", title="how much each slice differs from the one before")
    top.legend(loc="upper right")
    for number in np.unique(volumes):
        index = np.nonzero(volumes == number)[0]
        bottom.fill_between(index, lesion_percent[index], alpha=0.8)
        bottom.annotate(str(number), (index.mean(), 0), xytext=(0, 3), textcoords="offset points", ha="center")
    bottom.set(xlabel="slice", ylabel="lesion, % of pixels", title="lesions along the volumes (numbers: volumes found)")
    return figure


def plot_steps(steps: Mapping[str, np.ndarray], units: Sequence[str]) -> Figure:
    """One slice after each preprocessing step, with its histogram. steps: by name, (H, W); units: of each step's values."""
    figure, axes = plt.subplots(2, len(steps), figsize=(3.2 * len(steps), 5), height_ratios=(2, 1), squeeze=False)
    for (top, bottom), (name, image), unit in zip(axes.T, steps.items(), units):
        shown = top.imshow(image, "gray")
        figure.colorbar(shown, ax=top, label=unit, shrink=0.7)
        top.set(title=name, xticks=[], yticks=[])
        bottom.hist(image.ravel(), 100, color="gray")
        bottom.set(xlabel=unit, ylabel="pixels", yscale="log")
    return figure


def plot_distributions(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], low: float, high: float) -> Figure:
    """Values by source before (HU) and after (z-scores) normalisation; low and high bound the robust range, HU."""
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


def plot_learning_rate(rates: Sequence[float], steps_per_epoch: int) -> Figure:
    """Learning rate of each step, against epochs."""
    figure, ax = plt.subplots(figsize=(6, 2.5))
    ax.plot(np.arange(len(rates)) / steps_per_epoch, rates)
    ax.set(xlabel="epoch", ylabel="learning rate", title="OneCycle: warm up, then anneal")
    return figure


def plot_bars(values: Mapping[str, float | None], xlabel: str, title: str) -> Figure:
    """Named numbers as horizontal bars, the first on top; None is left out."""
    values = {name: value for name, value in values.items() if value is not None}
    figure, ax = plt.subplots(figsize=(6, 0.35 * len(values) + 0.9))
    bars = ax.barh(list(values), list(values.values()))
    ax.bar_label(bars, fmt="%.3g", padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=xlabel, title=title)
    return figure


def plot_history(history: pd.DataFrame) -> Figure:
    """Learning curves: loss, accuracy, mIoU and lesion Dice of training and validation; the kept epoch is marked."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.8))
    kept = history.epoch[history.best].max()
    for ax, (score, name) in zip(
        axes, {"loss": "loss", "accuracy": "pixel accuracy", "miou": "mIoU", "lesion_dice": "lesion Dice"}.items()
    ):
        ax.plot(history.epoch, history[f"train_{score}"], marker=".", label="training")
        ax.plot(history.epoch, history[f"val_{score}"], marker=".", label="validation")
        ax.axvline(kept, color="gray", linestyle=":", label=f"kept: epoch {kept}")
        ax.set(xlabel="epoch", title=name, ylim=(0, None if score == "loss" else 1))
    axes[0].legend()
    return figure


def plot_confusion(counts: np.ndarray) -> Figure:
    """Confusion matrix (4, 4) as percent of each true class (rows)."""
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, ax = plt.subplots(figsize=(5.8, 4))
    image = ax.imshow(percent, "Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if value > 60 else "black")
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


def show_agreement(hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str], title: str) -> Figure:
    """Hits, misses and false alarms of slices (N, H, W), four to a row."""
    figure, axes = _grid(-(-len(hu) // 4), 4)
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(agreement(truth[k], prediction[k], hu[k]))
        ax.set_title(titles[k])
    figure.suptitle(title)
    handles = _agreement_handles()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
