"""The figures of the improvements show the tables' numbers under the right names."""

import io

import numpy as np
import pandas as pd
import pytest

from lungseg_utils.evaluation.scores import BY_LABEL, by_label
from lungseg_utils.plots.improvements import plot_effects, plot_recipes

SCORE = "mean lesion Dice"
EFFECTS = pd.DataFrame(
    {
        "idea": ["focal", "EMA", "class weights"],
        "slices": 76,
        SCORE: [0.5, 0.6, 0.55],
        "training minutes": [3.0, 4.0, 5.0],
        f"{SCORE}, difference": [-0.02, 0.05, 0.01],
        f"{SCORE}, low": [-0.06, 0.02, np.nan],
        f"{SCORE}, high": [0.01, 0.08, np.nan],
    }
)
TOPICS = {"focal": "loss", "EMA": "schedule", "class weights": "loss", "reference": "reference"}


def drawn(figure):
    """The figure's axes, after it was drawn as a notebook would."""
    figure.savefig(io.BytesIO())
    return figure.axes


def test_effects_lie_at_their_differences_the_best_on_top_and_full_where_they_are_sure():
    [ax] = drawn(plot_effects(EFFECTS, TOPICS))
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "EMA (schedule)",
        "class weights (loss)",
        "focal (loss)",
    ]
    assert ax.yaxis_inverted()
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == [0.05, 0.01, -0.02]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True, True]
    bars = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 2]
    assert bars[0] == [0.02, 0.08] and bars[2] == [-0.06, 0.01]
    assert "held-out slices" in ax.get_title() and "more is better" in ax.get_title()


@pytest.mark.parametrize("scores", [[*BY_LABEL], [*by_label()][:4], [*by_label()][:1]])
def test_each_score_has_a_panel_that_says_which_way_is_better(scores):
    rows = [
        {"score": score, "recipe": recipe, "value": k + n, "low": k + n - 0.5, "high": k + n + 0.5}
        for k, score in enumerate(scores)
        for n, recipe in enumerate(("reference", "best"))
    ]
    axes = drawn(plot_recipes(pd.DataFrame(rows)))
    assert len(axes) == len(scores)
    for k, (ax, score) in enumerate(zip(axes, scores)):
        less = score.startswith(("HD95", "burden", "share of slices"))
        assert ax.get_title() == f"{score}\n({'less' if less else 'more'} is better)"
        assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"] == [k, k + 1]
        assert ax.get_ylim() == (1.5, -0.5)  # the reference on top
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["reference", "best"]
