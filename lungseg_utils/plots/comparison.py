"""The figure of a comparison: one axis a score, one line a run with its interval and its difference."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungseg_utils.core.files import atomic_write, write_csv
from lungseg_utils.evaluation.compare import Run, as_markdown, blocks, compare_runs, notes
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.evaluation.settings import SETTINGS_NOTE, compare_settings, setting_blocks
from lungseg_utils.plots.improvements import draw_interval
from lungseg_utils.plots.parts import STYLE, describe, listed
from lungseg_utils.plots.slices import save_figure

COLUMNS = 2


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
    """Each score of each run with its bootstrap interval, one axis a score.

    Beside a run stands its score and, where there is one, its paired difference to the first run with its
    interval.

    Args:
        table: As compare_runs gives it; where several runs have one setting, as its seeds, the setting stands
            below the run.
    """
    several = table.setting.duplicated().any()
    runs = [f"{run}\n{setting}" if several else run for run, setting in zip(table.run, table.setting)]
    return _panels(table, runs, "scores with bootstrap intervals")


def plot_settings(table: pd.DataFrame) -> Figure:
    """Each setting's mean score and its standard deviation over seeds, one axis a score.

    Beside it stands the paired difference to the first setting with its interval over slices, if there is
    one.

    Args:
        table: As compare_settings gives it.
    """
    spread = {
        f"{name}_{end}": table[name] + sign * table[f"{name}_sd"].fillna(0)
        for name in HEADLINE
        for end, sign in (("low", -1), ("high", 1))
    }
    settings = list(table.setting.str.replace(", ", "\n"))
    return _panels(table.assign(**spread), settings, "settings, mean and standard deviation over seeds")


def _panels(table: pd.DataFrame, rows: list[str], title: str) -> Figure:
    """One axis a score of HEADLINE, one line a row of the table, named by `rows`."""
    lines = -(-len(HEADLINE) // COLUMNS)
    deepest = max(row.count("\n") for row in rows)
    height = lines * ((0.32 + 0.18 * deepest) * len(table) + 0.9) + 0.6
    if table[[f"{name}_difference" for name in HEADLINE]].notna().any(axis=None):
        title += f"; beside them, paired differences to {rows[0]}".replace("\n", ", ")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(lines, COLUMNS, figsize=(13.5, height), sharey=True, squeeze=False)
        told = []
        for ax, (name, score) in zip(axes.flat, HEADLINE.items()):
            for y, (label, (_, row)) in enumerate(zip(rows, table.iterrows())):
                text = _beside(row, name)
                draw_interval(ax, y, row[name], row[f"{name}_low"], row[f"{name}_high"], text)
                told.append(f"{score.label}, {label.replace(chr(10), ', ')}: {text}")
            ax.set_title(f"{score.label} ({score.better})")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.grid(axis="x", alpha=0.3)
        for ax in list(axes.flat)[len(HEADLINE) :]:
            ax.remove()
        axes[0, 0].set_yticks(range(len(table)), rows)
        axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
        figure.suptitle(title)
    return describe(figure, f"Runs compared, {title}. {listed(told)}.")


def _beside(row: pd.Series, name: str) -> str:
    """A run's score and, if it is paired, its difference to the first run."""
    value, difference = row[name], row[f"{name}_difference"]
    if pd.isna(difference):
        return f"{value:.3f}"
    low, high = row[f"{name}_difference_low"], row[f"{name}_difference_high"]
    interval = "" if pd.isna(low) else f" [{low:+.3f}, {high:+.3f}]"
    return f"{value:.3f}  {difference:+.3f}{interval}"
