"""Slices with predictions and labels: where they agree, what was missed and what was invented."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.plots.slices import CLASS_COLORS, CLASS_NORM, grey_picture, overlay, picture_grid

AGREEMENT = {"hit": "#FFFFFF", "miss": "#E69F00", "false alarm": "#CC79A7"}  # none is a class's colour


def agreement(truth: np.ndarray, prediction: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """RGB picture (H, W, 3).

    Lesion pixels found, missed and invented, each in its colour, on the dimmed slice.

    A hit has the right one of the two lesion classes; ground glass taken for consolidation is a miss.
    """
    rgb = 0.5 * grey_picture(hu)
    true_lesion, predicted_lesion = np.isin(truth, LESIONS), np.isin(prediction, LESIONS)
    rgb[predicted_lesion & ~true_lesion] = to_rgb(AGREEMENT["false alarm"])
    rgb[true_lesion & (truth != prediction)] = to_rgb(AGREEMENT["miss"])
    rgb[true_lesion & (truth == prediction)] = to_rgb(AGREEMENT["hit"])
    return rgb


def _handles() -> list[Patch]:
    return [Patch(facecolor=color, edgecolor="gray", label=name) for name, color in AGREEMENT.items()]


def plot_results(hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str]) -> Figure:
    """The slides' four rows: predictions overlaid; radiologist's labels; agreement; the class of every pixel.

    Args:
        hu: (N, H, W), HU, one column a slice.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        titles: One a slice.
    """
    figure, axes = picture_grid(4, len(hu), extra=0.8)
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
    handles += _handles()
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def show_agreement(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str], title: str
) -> Figure:
    """Hits, misses and false alarms, four slices to a row.

    Args:
        hu: (N, H, W), HU.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        titles: One a slice.
        title: Of the figure.
    """
    figure, axes = picture_grid(-(-len(hu) // 4), 4)
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(agreement(truth[k], prediction[k], hu[k]))
        ax.set_title(titles[k])
    figure.suptitle(title)
    handles = _handles()
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
