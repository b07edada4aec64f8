"""The figures of 10_improvements: what each idea adds, and recipes side by side."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.scores import BY_LABEL
from lungseg_utils.plots.parts import FAINT, SERIES, beside, describe, listed


def plot_effects(
    table: pd.DataFrame,
    topics: dict[str, str],
    score: str = "mean lesion Dice",
    baseline: str = N_("the reference"),
) -> Figure:
    """Each idea's difference to a baseline with its paired interval, the best on top.

    A full dot's interval does not reach zero.

    Args:
        table: As evaluation.effects gives it, the reference left out.
        topics: By idea; named behind it.
        score: Which one.
        baseline: What the differences are to.
    """
    table = table.sort_values(f"{score}, difference", ascending=False).reset_index(drop=True)
    figure, ax = plt.subplots(figsize=(10, 0.42 * len(table) + 1.6))
    told = []
    for y, (__, row) in enumerate(table.iterrows()):
        value, low, high = (float(row[f"{score}, {part}"]) for part in ("difference", "low", "high"))
        sure = low > 0 or high < 0
        ax.plot([low, high], [y, y], color=SERIES[0], linewidth=2)
        ax.plot(value, y, "o", color=SERIES[0], markerfacecolor=SERIES[0] if sure else "white")
        told.append(f"{row.idea} {value:+.3f} [{low:+.3f}, {high:+.3f}]")
    ax.axvline(0, color=FAINT, linewidth=1)
    ax.set_yticks(range(len(table)), [f"{idea} ({topics[idea]})" for idea in table.idea])
    ax.invert_yaxis()
    ax.set_xlabel(
        _("{score}: difference to {baseline}, with 95 % paired interval").format(
            score=_(score), baseline=_(baseline)
        )
    )
    ax.set_title(_("what each idea adds, on held-out slices (more is better)"))
    dot: dict[str, Any] = {"color": SERIES[0], "marker": "o", "linewidth": 2}
    chance = _("cannot be distinguished from chance: the interval holds 0")
    handles = [
        Line2D([], [], label=_("distinguished from chance"), **dot),
        Line2D([], [], label=chance, markerfacecolor="white", **dot),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    ax.grid(axis="x", alpha=0.3)
    return describe(
        figure,
        _("{score}, what each idea adds to {baseline}. {told}.").format(
            score=_(score), baseline=_(baseline), told=listed(told)
        ),
    )


def plot_recipes(table: pd.DataFrame) -> Figure:
    """Each score of each recipe with its interval, one panel a score.

    Args:
        table: As evaluation.compare_recipes gives it.
    """
    scores, recipes = list(dict.fromkeys(table.score)), list(dict.fromkeys(table.recipe))
    columns = 3
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(11.5, rows * (0.34 * len(recipes) + 1)), sharey=True, squeeze=False
    )
    told = []
    for ax, score in zip(axes.flat, scores):
        for y, recipe in enumerate(recipes):
            row = table[(table.score == score) & (table.recipe == recipe)].iloc[0]
            draw_interval(ax, y, row.value, row.low, row.high)
            told.append(f"{_(score)}, {recipe}: {row.value:.3f}")
        ax.set_title(f"{_(score)}\n({BY_LABEL[score].better})")
        ax.grid(axis="x", alpha=0.3)
        ax.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(range(len(recipes)), recipes)
    axes[0, 0].set_ylim(len(recipes) - 0.5, -0.5)
    for ax in list(axes.flat)[len(scores) :]:
        ax.remove()
    figure.suptitle(_("means over the seeds, with 95 % bootstrap intervals over the slices"))
    return describe(
        figure, _("Each score of each recipe, means over the seeds. {told}.").format(told=listed(told))
    )


def draw_interval(ax: Axes, y: float, value: float, low: float, high: float, text: str = "") -> None:
    """A dot on the line of its interval, and a text beside the axes."""
    ax.plot([low, high], [y, y], color=SERIES[0], linewidth=2)
    ax.plot(value, y, "o", color=SERIES[0], markersize=6)
    if text:
        beside(ax, y, text)
