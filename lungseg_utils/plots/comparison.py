"""The figure of a comparison.

One line a run, its scores with their intervals, and its differences to the first run.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lungseg_utils.core.files import atomic_write, write_csv
from lungseg_utils.evaluation.compare import Run, as_markdown, blocks, compare_runs, notes
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.evaluation.settings import SETTINGS_NOTE, compare_settings, setting_blocks
from lungseg_utils.plots.slices import save_figure


def save_comparison(
    folder: Path, runs: Sequence[Run], left_out: Sequence[str] = ()
) -> tuple[dict[str, list[list[str]]], list[str], list[Path]]:
    """Compare runs and write comparison.csv, .md and .png.

    Where a setting has several runs, its seeds, settings.csv and .png as well.

    Args:
        folder: Where to.
        runs: From `load_runs`; the first is what the others are compared with.
        left_out: Why others are not among them.

    Returns:
        The tables in words, title -> rows of cells; how to read them; the figures.
    """
    table, settings = compare_runs(runs), compare_settings(runs)
    parts, sentences = blocks(table), [*notes(runs), *(f"Left out: {reason}" for reason in left_out)]
    figures = ["comparison"]
    write_csv(folder / "comparison.csv", table)
    save_figure(plot_comparison(table), folder, "comparison")
    if (settings.runs > 1).any():
        parts, sentences = setting_blocks(settings) | parts, [SETTINGS_NOTE, *sentences]
        figures.insert(0, "settings")
        write_csv(folder / "settings.csv", settings)
        save_figure(plot_settings(settings), folder, "settings")
    with atomic_write(folder / "comparison.md") as handle:
        handle.write(as_markdown(parts, sentences))
    return parts, sentences, [folder / f"{name}.png" for name in figures]


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


def plot_settings(table: pd.DataFrame) -> Figure:
    """Above, each setting's mean score and its standard deviation over seeds.

    Below, if there are any, the paired differences to the first setting with their intervals over slices.

    Args:
        table: As compare_settings gives it.
    """
    parts = ["", "_difference"] if (table.pairs > 0).any() else [""]
    spread = {f"{name}_{end}": table[name] + sign * table[f"{name}_sd"].fillna(0)
              for name in HEADLINE for end, sign in (("low", -1), ("high", 1))}  # fmt: skip
    table = table.assign(**spread)
    colors = pd.Series([f"C{k % 10}" for k in range(len(table))])
    figure, axes = plt.subplots(
        len(parts),
        len(HEADLINE),
        figsize=(13, len(parts) * (0.3 * len(table) + 1.0)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, part in zip(axes, parts):
        for ax, (name, score) in zip(row, HEADLINE.items()):
            _dots(ax, table, f"{name}{part}", colors)
            if part:
                ax.axvline(0, color="gray", linewidth=0.8)
                ax.set_xlabel("difference")
            else:
                ax.set_title(score.heading, fontsize=10)
                ax.set_xlabel("mean, sd over seeds")
    axes[0, 0].set_yticks(range(len(table)), table.setting.str.replace(", ", "\n"))
    axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
    figure.suptitle(
        "settings, seeds taken together"
        + (f"; below, paired differences to {table.setting[0]}" if len(parts) > 1 else "")
    )
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
