"""What several figures of results share: colours, names, rows, dots."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lungseg_utils.core.classes import CLASSES, LUNG_OTHER

INK, WRONG = "#333333", "#F0E442"  # with SERIES the rest of Okabe-Ito's colours, where no class is meant
SERIES = ("#0072B2", "#E69F00", "#CC79A7", "#999999")
NAMES = {c.short: c.name for c in CLASSES} | {"lesion": "lesion", "lung": "lung"}  # of classes and regions
COLORS = {c.short: c.color for c in CLASSES} | {"lung": CLASSES[LUNG_OTHER].color}


def color_of(name: str) -> str:
    """The colour of a class or region, or of a score of one class by its dotted name; INK for all else."""
    if name.startswith("classes."):
        _, name, _ = name.split(".")
    return COLORS.get(name, INK)


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Categories from top to bottom, a faint line each."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def beside(ax: Axes, row: float, text: str) -> None:
    """Text at the right of the axes."""
    edge = ("axes fraction", "data")
    ax.annotate(text, (1, row), va="center", xycoords=edge, xytext=(6, 0), textcoords="offset points")


def strip(ax: Axes, row: int, values: np.ndarray, color: str) -> None:
    """Every value a dot over the median and the box of the middle half.

    The dots are spread a little, the same each time.
    """
    if not len(values):
        return
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    ax.barh(row, high - low, left=low, height=0.62, color=color, alpha=0.15)
    ax.vlines(middle, row - 0.31, row + 0.31, color=color, linewidth=2)
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    ax.scatter(values, row + spread, s=14, color=color, alpha=0.6, linewidth=0)
