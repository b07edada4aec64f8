"""The training's figures: the strip shows the right columns.

The live chart is one output that changes, and silent elsewhere.
"""

import io

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from lungseg_utils.plots.training import (
    LiveChart,
    plot_history,
    plot_learning_rate,
    plot_progress,
    plot_strip,
)
from lungseg_utils.series.run import own_kernel

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2],
        **{f"{part}_{score}": [0.5, 0.4] for part in ("train", "val") for score in ("loss", "miou")},
    }
)


def test_the_strip_runs_from_the_first_epoch_to_the_last(trained_dir, tmp_path):
    two = plot_strip(trained_dir / "examples.npz")
    assert [ax.get_title() for ax in two.axes[:3]] == ["true labels", "epoch 1", "epoch 2"] and len(
        two.axes
    ) == 9
    with np.load(trained_dir / "examples.npz") as examples:
        arrays = dict(examples)
    arrays["predictions"] = np.repeat(arrays["predictions"][:1], 21, axis=0)
    np.savez(tmp_path / "long.npz", **arrays)
    titles = [ax.get_title() for ax in plot_strip(tmp_path / "long.npz").axes[:7]]
    assert titles == ["true labels", *(f"epoch {n}" for n in (1, 5, 9, 13, 17, 21))]
    two.savefig(io.BytesIO())


def test_learning_rates_over_epochs():
    [ax] = plot_learning_rate([0.1, 0.3, 0.2, 0.1], steps_per_epoch=2).axes
    assert ax.lines[0].get_xydata().tolist() == [[0, 0.1], [0.5, 0.3], [1, 0.2], [1.5, 0.1]]


def test_the_history_marks_the_kept_epoch_in_every_score():
    scores = ("loss", "accuracy", "miou", "lesion_dice")
    columns = [f"{part}_{score}" for score in scores for part in ("train", "val")]
    values = np.random.default_rng(0).random((3, len(columns)))
    history = pd.DataFrame(values, columns=columns).assign(epoch=[1, 2, 3], best=[True, True, False])
    axes = plot_history(history).axes
    assert [ax.get_title() for ax in axes] == ["loss", "accuracy", "mIoU", "lesion Dice"]
    for ax, score in zip(axes, scores, strict=True):
        training, validation, kept = ax.lines
        assert training.get_ydata().tolist() == history[f"train_{score}"].tolist()
        assert validation.get_ydata().tolist() == history[f"val_{score}"].tolist()
        assert kept.get_xdata()[0] == 2 and kept.get_label() == "kept: epoch 2"


def test_progress_shows_both_parts():
    lines = plot_progress(HISTORY).axes[0].lines
    assert [line.get_label() for line in lines] == ["training", "validation"] and lines[
        0
    ].get_ydata().tolist() == [0.5, 0.4]


@pytest.mark.slow
def test_the_live_chart_is_one_output_in_a_notebook_and_nothing_in_a_terminal(capfd):
    LiveChart()(HISTORY)
    assert capfd.readouterr() == ("", "")
    source = (
        "import pandas as pd\nfrom lungseg_utils.plots.training import LiveChart\n"
        f"chart, history = LiveChart(), pd.DataFrame({HISTORY.to_dict('list')})\nfor n in (1, 2):\n    "
        "chart(history[:n])"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with own_kernel():
        NotebookClient(notebook, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    assert output.output_type == "display_data" and "image/png" in output.data
