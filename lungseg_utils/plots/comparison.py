"""The figure of a comparison: one axis a score, one line a run with its interval and its difference."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.plots.improvements import draw_interval
from lungseg_utils.plots.parts import STYLE, describe, listed

COLUMNS = 2


def plot_comparison(table: pd.DataFrame) -> Figure:
    """Each score of each run with its bootstrap interval, one axis a score.

    Beside a run stands its score and, where there is one, its paired difference to the first run with its
    interval.

    Args:
        table: As compare_runs gives it; where several runs have one setting, as its seeds, the setting stands
            below the run.
    """
    paired = table[[f"{name}_difference" for name in HEADLINE]].notna().any(axis=None)
    several = table.setting.duplicated().any()
    runs = [f"{run}\n{setting}" if several else run for run, setting in zip(table.run, table.setting)]
    rows = -(-len(HEADLINE) // COLUMNS)
    height = rows * ((0.5 if several else 0.32) * len(table) + 0.9) + 0.6
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(13.5, height), sharey=True, squeeze=False)
        told = []
        for ax, (name, score) in zip(axes.flat, HEADLINE.items()):
            for y, (_, row) in enumerate(table.iterrows()):
                text = _beside(row, name)
                draw_interval(ax, y, row[name], row[f"{name}_low"], row[f"{name}_high"], text)
                told.append(f"{score.label}, {row.run}: {text}")
            ax.set_title(f"{score.label} ({score.better})")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.grid(axis="x", alpha=0.3)
        for ax in list(axes.flat)[len(HEADLINE) :]:
            ax.remove()
        axes[0, 0].set_yticks(range(len(table)), runs)
        axes[0, 0].set_ylim(len(table) - 0.5, -0.5)
        title = "scores with bootstrap intervals"
        if paired:
            title = f"scores with bootstrap intervals; beside them, paired differences to {table.run.iloc[0]}"
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
