"""Figures of a training.

A chart that grows with it in a notebook, and a strip of the same slices as they improve.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lungseg_utils.core.classes import LESIONS
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.plots.parts import SERIES
from lungseg_utils.plots.slices import class_legend, overlay

MOST = 6  # epochs in a strip
# Columns of history.csv, after train_ or val_, with their names.
SHOWN = {
    "loss": "loss",
    "accuracy": HEADLINE["accuracy"].label,
    "miou": HEADLINE["mean_iou"].label,
    "lesion_dice": HEADLINE["lesion_dice"].label,
}


def plot_learning_rate(rates: Sequence[float], steps_per_epoch: int) -> Figure:
    """Learning rate of each step, against epochs.

    Args:
        rates: One a step.
        steps_per_epoch: How many.
    """
    figure, ax = plt.subplots(figsize=(6, 2.5))
    ax.plot(np.arange(len(rates)) / steps_per_epoch, rates)
    ax.set(xlabel="epoch", ylabel="learning rate", title="OneCycle: warm up, then anneal")
    return figure


def plot_history(history: pd.DataFrame) -> Figure:
    """Learning curves: loss, accuracy, mIoU and lesion Dice of training and validation.

    The kept epoch is marked.
    """
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.8))
    kept = history.epoch[history.best].max()
    for ax, (score, name) in zip(axes, SHOWN.items(), strict=True):
        ax.plot(history.epoch, history[f"train_{score}"], marker=".", label="training")
        ax.plot(history.epoch, history[f"val_{score}"], marker=".", label="validation")
        ax.axvline(kept, color="gray", linestyle=":", label=f"kept: epoch {kept}")
        ax.set(xlabel="epoch", title=name, ylim=(0, None if score == "loss" else 1))
    axes[0].legend()
    return figure


def plot_progress(history: pd.DataFrame) -> Figure:
    """Loss and mIoU of training and validation so far."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6))
    for ax, score in zip(axes, ("loss", "miou"), strict=True):
        for part, label in {"train": "training", "val": "validation"}.items():
            ax.plot(history.epoch, history[f"{part}_{score}"], marker=".", label=label)
        ax.set(xlabel="epoch", title=SHOWN[score], ylim=(0, None if score == "loss" else 1))
    axes[0].legend()
    return figure


def plot_monitors(history: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """What each quantity to monitor would have kept: its best epoch, marked on all three curves.

    Args:
        history: One row an epoch.
        kept: One row a quantity, as training.kept_by_monitor gives.
    """
    titles = {f"val_{score}": f"validation {SHOWN[score]}" for score in ("loss", "miou", "lesion_dice")}
    figure, axes = plt.subplots(1, len(titles), figsize=(12, 3.4))
    for ax, (score, title) in zip(axes, titles.items()):
        ax.plot(history.epoch, history[score], color="0.6", marker=".")
        for size, color, (monitor, row) in zip((190, 110, 45), SERIES, kept.iterrows()):  # one epoch: rings
            label = f"kept by {titles[str(monitor)]}: epoch {row.epoch:.0f}"
            ax.scatter(row.epoch, row[score], size, color=color, label=label, zorder=3)
        ax.set(xlabel="epoch", title=title)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_yscale("log")  # one bad epoch would flatten the rest
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(titles))
    return figure


class LiveChart:
    """Called with the history after each epoch, it redraws one picture in the cell's output.

    Elsewhere it does nothing.
    """

    def __init__(self):
        self._shown = None

    def __call__(self, history: pd.DataFrame) -> None:
        """Draw the history so far in place of the last drawing."""
        if not _in_notebook():
            return
        from IPython.display import display

        figure = plot_progress(history)
        if self._shown is None:
            self._shown = display(figure, display_id=True)
        else:
            self._shown.update(figure)
        plt.close(figure)  # else the notebook would show it again at the end of the cell


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def plot_strip(path: str | Path) -> Figure:
    """A few validation slices, one a row.

    Labels first, then the predictions after up to six epochs, evenly spaced.

    path: the examples.npz of a run directory.
    """
    with np.load(path) as examples:
        hu, truth, predictions, rows = (examples[name] for name in ("hu", "truth", "predictions", "rows"))
    epochs = np.unique(np.linspace(0, len(predictions) - 1, MOST).round().astype(int))
    columns = {"radiologist's labels": truth} | {f"epoch {epoch + 1}": predictions[epoch] for epoch in epochs}
    figure, axes = plt.subplots(
        len(hu), len(columns), figsize=(1.7 * len(columns), 1.75 * len(hu) + 0.5), squeeze=False
    )
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for k, row in enumerate(axes):
        row[0].set_ylabel(f"slice {rows[k]}")
        for ax, labels in zip(row, columns.values(), strict=True):
            ax.imshow(overlay(hu[k], labels[k]))
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    class_legend(figure, LESIONS)
    return figure
