"""What several figures share: the style, colours, alternative texts, names, rows, dots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, LUNG_OTHER, SHORT_NAMES
from lungseg_utils.core.language import translate as _

FEW = 100  # pixels below which a curve says nothing
DPI = 80  # dots per inch in a notebook; a browser shows 96 of them as an inch
POINTS = 11  # the least size of text: more than 9 pt when a browser shows it
INK, FAINT, WRONG = "#333333", "#6B6B6B", "#F0E442"  # text and what matters most; what matters least; errors
SERIES = ("#0072B2", "#B35500", "#8F3B76", "#5F5F5F")  # where no class is meant
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), "-.")  # of the series, so that a grey print tells them apart
COLORS = {c.short: c.line for c in CLASSES} | {"lung": CLASSES[LUNG_OTHER].line}
STYLE: dict[Any, Any] = {
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "savefig.dpi": 120,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": POINTS,
    **{f"{what}.labelsize": POINTS for what in ("axes", "xtick", "ytick")},
    "axes.titlesize": POINTS,
    "figure.titlesize": POINTS + 1,
    "legend.fontsize": POINTS,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}


def describe(figure: Figure, text: str) -> Figure:
    """Give a figure its alternative text: what is seen, for whoever cannot see it; gives the figure back.

    Notebooks and saved files carry the text along.
    """
    figure.set_label(text.replace("\n", ", "))  # a title may have lines, an attribute has none
    return figure


def alt_text(figure: Figure) -> str:
    """The alternative text of a figure; empty if it has none."""
    return str(figure.get_label())


def listed(parts: Sequence[str]) -> str:
    """Parts as one text, for alternative texts."""
    return "; ".join(parts)


def name_of(region: str) -> str:
    """A region's name for people: a class by its short name, "lesion" or "lung"."""
    if region in SHORT_NAMES:
        return CLASSES[SHORT_NAMES.index(region)].name
    return {"lesion": _("lesion"), "lung": _("lung")}[region]


def whole(number: float) -> str:
    """A whole number as the reader's language groups its digits, or does not: 4,277 may be read as 4.277."""
    return format(number, _(",.0f"))


def color_of(name: str) -> str:
    """The colour of a class's or region's lines, or of a score of one class by its dotted name; else INK."""
    if name.startswith("classes."):
        name = name.split(".")[1]
    return COLORS.get(name, INK)


def class_patch(c: int) -> Patch:
    """A class in a legend: filled, hatched and edged as in the pictures."""
    return area_patch(CLASSES[c].color, CLASSES[c].hatch, CLASSES[c].name)


def area_patch(color: str, hatch: str = "", label: str = "") -> Patch:
    """A filled area with an edge; what hatches it is seen on it."""
    patch = Patch(facecolor=color, edgecolor=seen_on(color) if hatch else INK, hatch=hatch, label=label)
    return patch


def seen_on(color: str) -> str:
    """White or black: what is seen on this colour."""
    red, green, blue = to_rgb(to_hex(color))
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.45 else "black"


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
