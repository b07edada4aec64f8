"""The figure of a comparison.

One line a run, its scores with their intervals, and its differences to the first run.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lungseg_utils.evaluation.scores import HEADLINE


def plot_comparison(table: pd.DataFrame) -> Figure:
    """Above, each score with its bootstrap interval.

    Below, if there are any, the differences to the first run.

    Args:
        table: As compare_runs gives it. Runs of one setting, its seeds, have one colour.
    """
    settings = list(dict.fromkeys(table.setting))
    colors = table.setting.map({setting: f"C{k % 10}" for k, setting in enumerate(settings)})
    paired = table[[f"{name}_difference" for name in HEADLINE]].notna().any(axis=None)
    parts = ["", "_difference"] if paired else [""]
    height = len(parts) * (0.25 * len(table) + 0.9) + 0.3 * len(settings)
    figure, axes = plt.subplots(
        len(parts), len(HEADLINE), figsize=(13, height), sharey=True, squeeze=False, layout="constrained"
    )
    for row, part in zip(axes, parts):
        for ax, (name, score) in zip(row, HEADLINE.items()):
            _dots(ax, table, f"{name}{part}", colors)
            if part:
                ax.axvline(0, color="gray", linewidth=0.8)
                ax.set_xlabel("difference")
            else:
                ax.set_title(score.heading, fontsize=10)
                ax.set_xlabel("score")
    axes[0, 0].set_yticks(range(len(table)), table.run)
    axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
    figure.suptitle(
        "scores with bootstrap intervals"
        + (f"; below, paired differences to {table.run[0]}" if paired else "")
    )
    if len(settings) > 1:
        handles = [
            Line2D([], [], marker="o", color=f"C{k % 10}", label=setting)
            for k, setting in enumerate(settings)
        ]
        figure.legend(handles=handles, loc="outside lower center", frameon=False)
    return figure


def _dots(ax: Axes, table: pd.DataFrame, name: str, colors: pd.Series) -> None:
    for y, (value, low, high, color) in enumerate(
        zip(table[name], table[f"{name}_low"], table[f"{name}_high"], colors)
    ):
        ax.plot([low, high], [y, y], color=color, linewidth=1.5)
        ax.plot(value, y, "o", color=color, markersize=5)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
