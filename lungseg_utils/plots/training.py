"""Figures of a training.

A chart that grows with it in a notebook, and a strip of the same slices as they improve.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungseg_utils.core.classes import LESIONS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.plots.agreement import TRUE_LABELS
from lungseg_utils.plots.parts import FAINT, LINES, SERIES, describe, listed
from lungseg_utils.plots.slices import (
    class_legend,
    cropped,
    mark_sides,
    name_row,
    picture_grid,
    seen,
    show_labels,
    tallest,
)

MOST = 6  # epochs in a strip
# Columns of history.csv, after train_ or val_, with their names.
SHOWN = {
    "loss": N_("loss"),
    "accuracy": HEADLINE["accuracy"].label,
    "miou": HEADLINE["mean_iou"].label,
    "lesion_dice": HEADLINE["lesion_dice"].label,
}
PARTS = {"train": N_("training"), "val": N_("validation")}


def plot_learning_rate(rates: Sequence[float], steps_per_epoch: int) -> Figure:
    """Learning rate of each step, against epochs.

    Args:
        rates: One a step.
        steps_per_epoch: How many.
    """
    figure, ax = plt.subplots(figsize=(6.5, 2.8))
    ax.plot(np.arange(len(rates)) / steps_per_epoch, rates, color=SERIES[0])
    ax.set(xlabel=_("epoch"), ylabel=_("learning rate"), title=_("OneCycle: warm up, then anneal"))
    peak = int(np.argmax(rates))
    return describe(
        figure,
        _(
            "The learning rate rises from {first:.2g} to {peak:.2g} at epoch {epoch:.1f} and "
            "falls to {last:.2g}."
        ).format(first=rates[0], peak=rates[peak], epoch=peak / steps_per_epoch, last=rates[-1]),
    )


def _draw_curves(ax: Axes, history: pd.DataFrame, score: str) -> None:
    """A score of training and validation over the epochs."""
    for (part, label), color, line in zip(PARTS.items(), SERIES, LINES):
        values = history[f"{part}_{score}"]
        ax.plot(history.epoch, values, marker=".", color=color, linestyle=line, label=_(label))
    ax.set(xlabel=_("epoch"), title=_(SHOWN[score]), ylim=(0, None if score == "loss" else 1))
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _told(history: pd.DataFrame, scores: Sequence[str]) -> str:
    """First and last values of the curves, for alternative texts."""
    first, last = history.iloc[0], history.iloc[-1]
    names = [
        (f"{_(label)} {_(SHOWN[score])}", f"{part}_{score}")
        for score in scores
        for part, label in PARTS.items()
    ]
    return listed(
        [
            _("{name} from {first:.2f} to {last:.2f}").format(name=name, first=first[key], last=last[key])
            for name, key in names
        ]
    )


def plot_history(history: pd.DataFrame) -> Figure:
    """Learning curves: loss, accuracy, mIoU and lesion Dice of training and validation.

    The kept epoch is marked.
    """
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 3.2))
    kept = history.epoch[history.best].max()
    for ax, score in zip(axes, SHOWN, strict=True):
        _draw_curves(ax, history, score)
        ax.axvline(kept, color=FAINT, linestyle=":", label=_("kept: epoch {kept}").format(kept=kept))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    told = _told(history, list(SHOWN))
    return describe(
        figure,
        _("Learning curves of {count} epochs: {told}. Epoch {kept} is kept.").format(
            count=len(history), told=told, kept=kept
        ),
    )


def plot_progress(history: pd.DataFrame) -> Figure:
    """Loss and mIoU of training and validation so far."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
    for ax, score in zip(axes, ("loss", "miou"), strict=True):
        _draw_curves(ax, history, score)
    axes[0].legend()
    told = _told(history, ("loss", "miou"))
    return describe(
        figure, _("Learning curves of {count} epochs so far: {told}.").format(count=len(history), told=told)
    )


def plot_monitors(history: pd.DataFrame, kept: pd.DataFrame) -> Figure:
    """What each quantity to monitor would have kept: its best epoch, marked on all three curves.

    An epoch that several would have kept is one mark, named after all of them.

    Args:
        history: One row an epoch.
        kept: One row a quantity, as training.kept_by_monitor gives.
    """
    titles = {
        "val_loss": _("validation loss"),
        "val_miou": _("validation mIoU"),
        "val_lesion_dice": _("validation lesion Dice"),
    }
    figure, axes = plt.subplots(1, len(titles), figsize=(11.5, 3.6))
    by_epoch = {}
    for __, rows in kept.groupby("epoch"):
        epoch, names = int(rows.epoch.iloc[0]), _(" and by ").join(titles[str(name)] for name in rows.index)
        by_epoch[epoch] = _("epoch {epoch}: kept by {names}").format(epoch=epoch, names=names)
    for ax, (score, title) in zip(axes, titles.items()):
        ax.plot(history.epoch, history[score], color=FAINT, marker=".")
        for (epoch, label), color, marker in zip(by_epoch.items(), SERIES, "oDs"):
            value = history[score][history.epoch == epoch]
            ax.scatter(
                [epoch], value, 70, color=color, marker=marker, edgecolor="white", label=label, zorder=3
            )
        ax.set(xlabel=_("epoch"), title=title)
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_yscale("log")  # one bad epoch would flatten the rest
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("{x:g}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=1)
    return describe(
        figure,
        _("Validation curves with the epochs to keep. {told}.").format(told=listed(list(by_epoch.values()))),
    )


class LiveChart:
    """A picture in the cell's output that is redrawn when it is called with the history after each epoch.

    Its place is where it is made: above whatever is printed meanwhile. Elsewhere it does nothing.
    """

    def __init__(self):
        self._shown = None
        if _in_notebook():
            from IPython.display import display

            self._shown = display({}, raw=True, display_id=True)

    def __call__(self, history: pd.DataFrame) -> None:
        """Draw the history so far in place of the last drawing."""
        if self._shown is None:
            return
        figure = plot_progress(history)
        self._shown.update(figure)
        plt.close(figure)  # else the notebook would show it again at the end of the cell


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def plot_strip(path: str | Path, labels_name: str = TRUE_LABELS) -> Figure:
    """A few validation slices, one a row, each cropped to its lungs.

    Labels first, then the predictions after up to six epochs, evenly spaced.

    Args:
        path: The examples.npz of a run directory.
        labels_name: Whose labels they are, such as "radiologist's labels"; a phantom has no radiologist.
    """
    with np.load(path) as examples:
        hu, truth, predictions, rows = (examples[name] for name in ("hu", "truth", "predictions", "rows"))
    labels_name = _(labels_name)
    epochs = np.unique(np.linspace(0, len(predictions) - 1, MOST).round().astype(int))
    columns = {labels_name: truth} | {
        _("epoch {epoch}").format(epoch=epoch + 1): predictions[epoch] for epoch in epochs
    }
    boxes = cropped(truth)
    figure, axes = picture_grid(len(hu), len(columns), 1.7, tall=tallest(boxes))
    for ax, title in zip(axes[0], columns, strict=True):
        ax.set_title(title)
    for k, (box, row) in enumerate(zip(boxes, axes)):
        name_row(row[0], _("slice {number}").format(number=rows[k]))
        mark_sides(row[0])
        for ax, labels in zip(row, columns.values(), strict=True):
            show_labels(ax, hu[k][box], labels[k][box])
    class_legend(figure, LESIONS)
    told = [
        _("slice {number}: {seen}").format(
            number=row, seen=", ".join(f"{name} {seen(labels[k])}" for name, labels in columns.items())
        )
        for k, row in enumerate(rows)
    ]
    return describe(
        figure,
        _("Validation slices, one a row: {labels_name}, then predictions. {told}.").format(
            labels_name=labels_name, told=listed(told)
        ),
    )
