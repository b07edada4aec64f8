"""The figures of 10_improvements: what each idea adds, and recipes side by side."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lungseg_utils.evaluation.scores import BY_LABEL


def plot_effects(table: pd.DataFrame, topics: dict[str, str], score: str = "mean lesion Dice") -> Figure:
    """Each idea's difference to the reference with its paired interval, in the colour of its topic.

    Args:
        table: As evaluation.effects gives it, the reference left out.
        topics: By idea.
        score: Which one.
    """
    table = table.sort_values(f"{score}, difference").reset_index(drop=True)
    colors = {
        topic: f"C{k % 10}" for k, topic in enumerate(dict.fromkeys(topics[idea] for idea in table.idea))
    }
    figure, ax = plt.subplots(figsize=(8, 0.35 * len(table) + 1.2), layout="constrained")
    for y, (_, row) in enumerate(table.iterrows()):
        color = colors[topics[row.idea]]
        ax.plot([row[f"{score}, low"], row[f"{score}, high"]], [y, y], color=color, linewidth=1.5)
        ax.plot(row[f"{score}, difference"], y, "o", color=color, label=topics[row.idea])
    ax.axvline(0, color="gray", linewidth=0.8)
    ax.set_yticks(range(len(table)), table.idea)
    ax.set_xlabel(f"{score}: difference to the reference, with 95 % paired interval")
    ax.set_title("what each idea adds by itself, on held-out slices")
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(
        unique.values(),
        unique.keys(),
        title="topic",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        frameon=False,
    )
    ax.grid(axis="x", alpha=0.3)
    return figure


def plot_recipes(table: pd.DataFrame) -> Figure:
    """Each score of each recipe with its interval, one panel a score.

    Args:
        table: As evaluation.compare_recipes gives it.
    """
    scores, recipes = list(dict.fromkeys(table.score)), list(dict.fromkeys(table.recipe))
    columns = 3
    figure, axes = plt.subplots(
        -(-len(scores) // columns),
        columns,
        figsize=(11, 0.35 * len(recipes) * len(scores) / columns + 3),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, score in zip(axes.flat, scores):
        for y, recipe in enumerate(recipes):
            row = table[(table.score == score) & (table.recipe == recipe)].iloc[0]
            ax.plot([row.low, row.high], [y, y], color=f"C{y}", linewidth=2)
            ax.plot(row.value, y, "o", color=f"C{y}")
        ax.set_title(f"{score} ({BY_LABEL[score].better})", fontsize=9)
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(recipes)), recipes)
    axes[0, 0].set_ylim(len(recipes) - 0.5, -0.5)
    for ax in list(axes.flat)[len(scores) :]:
        ax.remove()
    figure.suptitle("means over the seeds, with 95 % bootstrap intervals over the slices")
    return figure
