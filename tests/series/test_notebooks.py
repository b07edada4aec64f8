"""The committed notebooks: their form, their outputs, and the whole series end to end on a tiny phantom."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import all_notebooks, run_series

NOTEBOOK_FILES = all_notebooks()
TINY = {"encoder": "resnet18", "encoder_weights": "none", "image_size": 64, "epochs": 1, "batch_size": 8}


@pytest.fixture(params=NOTEBOOK_FILES, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_skeleton(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert notebook.cells[0].source.startswith("# ") and "You will learn" in notebook.cells[0].source
    for heading in ("## Summary", "## Exercises", "## References"):
        assert heading in text
    assert len(tagged(notebook, "parameters")) == len(tagged(notebook, "setup")) == 1
    assert len(tagged(notebook, "solution")) == 3
    code = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])
    ]
    for cell in code:
        assert not re.search(r"sys\.path|^[!%]|^def |^class |filterwarnings", cell.source, re.MULTILINE), (
            cell.source
        )
        assert max(map(len, cell.source.splitlines())) <= 110, cell.source


def test_committed_outputs_are_whole_clean_and_small(notebook, request):
    path = request.node.callspec.params["notebook"]
    assert path.stat().st_size < 1_000_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type != "error" and output.get("name") != "stderr", output
    assert not re.search(
        r"Warning|/tmp/|/home/|/root/|Traceback \(", json.dumps([cell.outputs for cell in code])
    )


def test_open_exercises_wait_and_solutions_are_right(notebook):
    for cell in tagged(notebook, "solution"):
        assert cell.source.startswith("# Solution\n")  # JupyterLab shows the first line of a folded cell
        assert re.fullmatch(
            r"Exercise \d+\.\d: right\.\n", "".join(o.get("text", "") for o in cell.outputs)
        ), cell.source
    waiting = [
        o.text
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if ": open." in o.get("text", "")
    ]
    assert len(waiting) == 3


@pytest.mark.slow
def test_series_end_to_end_on_a_tiny_phantom(tiny_phantom, tmp_path):
    run_series(
        profile="demo",
        data_dir=str(tiny_phantom),
        run_dir=str(tmp_path),
        parameters={k: str(v) for k, v in TINY.items()},
    )
    record = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert (record["schema"], record["slices"], record["size"]) == (2, 24, [64, 64])
    classes = record["full_size"]["classes"]
    assert sum(c["pixels"] for c in classes.values()) == 24 * 64 * 64
    table = pd.read_csv(tmp_path / "results" / "per_slice.csv")
    assert table[[f"{short}_true" for short in classes]].sum().tolist() == [
        c["pixels"] for c in classes.values()
    ]
    confusion = pd.read_csv(tmp_path / "results" / "confusion.csv", index_col="true").to_numpy()
    assert record["full_size"]["accuracy"] == pytest.approx(confusion.trace() / confusion.sum())
    submission = pd.read_csv(tmp_path / "results" / "sub.csv")
    assert len(submission) == 2 * 64 * 64 * 2 and submission.Predicted.isin([0, 1]).all()
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    for stem in ("01_examples", "02_augmentation", "03_learning_curves", "04_four_rows"):
        assert (tmp_path / "figures" / f"{stem}.png").stat().st_size > 5_000
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["status"] == "finished" and run["device"] and len(run["notebooks"]) == 4


@pytest.mark.slow
def test_committed_notebooks_run_again(tmp_path):
    """nbval: every cell of the demo runs from an empty folder.

    Outputs marked NBVAL_CHECK_OUTPUT are compared.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        *map(str, NOTEBOOK_FILES),
    ]
    environment = {**os.environ, "LUNGSEG_HOME": str(tmp_path), "LUNGSEG_DATA_DIR": "/nowhere"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=NOTEBOOKS)
    assert done.returncode == 0, done.stdout[-3000:]
    scores = json.loads((tmp_path / "runs" / "demo" / "results" / "metrics.json").read_text())
    assert 0.2 < scores["full_size"]["lesion_dice"] < 0.95  # the demo's task is neither hopeless nor trivial
