"""The committed notebooks: their form, their outputs, and the whole series end to end on a tiny phantom."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from lungseg_utils.core.classes import BACKGROUND, LESION, LUNG_OTHER
from lungseg_utils.core.language import LANGUAGES, load_catalogue
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import all_notebooks, edition_of, find_notebooks, run_series

NOTEBOOK_FILES = all_notebooks()
TINY = {
    "first_size": 32,
    "first_slices": 24,
    "first_epochs": 1,
    "experiment_steps": 20,
    "encoder": "resnet18",
    "encoder_weights": "none",
    "image_size": 64,
    "epochs": 1,
    "batch_size": 8,
}


@pytest.fixture(params=NOTEBOOK_FILES, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_skeleton(notebook):
    """A question and its picture, the machinery folded, then sections, recap, quiz and references."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert notebook.cells[0].source.startswith("# ") and "**The question.**" in notebook.cells[0].source
    for heading in ("**You will learn**", "## Recap", "## Quiz", "## References", "docs/glossary.md"):
        assert heading in text
    assert len(tagged(notebook, "parameters")) == len(tagged(notebook, "setup")) == 1
    setup, picture, imports, parameters, checks = code_cells(notebook)[:5]
    for cell in (setup, picture, imports, parameters, checks):
        assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source
        assert "# " in cell.source.splitlines()[0]  # JupyterLab shows the first line of a folded cell
    assert parameters == tagged(notebook, "parameters")[0]
    assert "plots.opening(" in picture.source
    assert any("image/jpeg" in output.get("data", {}) for output in picture.outputs)
    for cell in code_cells(notebook)[1:]:
        assert not re.search(r"sys\.path|^[!%]|filterwarnings|NBVAL", cell.source, re.MULTILINE), cell.source
        assert max(map(len, cell.source.splitlines())) <= 110, cell.source


def test_quiz_has_five_questions_with_answers_behind_a_click(notebook):
    [quiz] = [cell.source for cell in notebook.cells if cell.source.startswith("## Quiz")]
    assert re.findall(r"^\*\*(\d)\.\*\*", quiz, re.MULTILINE) == list("12345")
    answers = re.findall(r"<details><summary>Answer</summary>\n\n(.+?)\n\n</details>", quiz, re.DOTALL)
    assert len(answers) == 5


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


def solve(notebook):
    """The notebook with the right answers in the place of the dots."""
    for cell in code_cells(notebook):
        if found := re.match(
            r"(answer_\d) = \.\.\.\ncheck\((\"[\d.]+\"), answer_\d(?:, (.*))?\)$", cell.source
        ):
            _, exercise, given = found.groups(default="")
            cell.source = "from lungseg_utils.series.solutions import EXERCISES\n" + cell.source.replace(
                "...", f"EXERCISES[{exercise}].solve({given})", 1
            )
    return notebook


def test_three_exercises_wait_each_with_its_solution_below(notebook):
    waiting = [c for c in code_cells(notebook) if any(": open." in o.get("text", "") for o in c.outputs)]
    assert len(waiting) == len(tagged(notebook, "solution")) == 3
    for exercise, below in itertools.pairwise(notebook.cells):
        if exercise in waiting:
            [number] = re.findall(r"check\(\"([\d.]+)\"", exercise.source)
            assert below.source == f'solution("{number}")' and "<details>" in str(below.outputs)
    assert "answer_1 = ..." not in "".join(cell.source for cell in code_cells(solve(notebook)))


def lesions_of_unknown_kind(folder, size=64):
    """A folder as `lungseg import` leaves it: two slices with lung and lesion, of which kind nobody says."""
    labels = np.full((2, size, size), BACKGROUND, np.uint8)
    labels[:, 10:40, 10:40], labels[:, 20:30, 20:30] = LUNG_OTHER, LESION
    hu = np.choose(labels, [-500, 0, -850, 40, -300, 0]).astype(np.int16)
    counts = {
        name: (labels[0] == c).sum() for c, name in ((LUNG_OTHER, "lung_other"), (BACKGROUND, "background"))
    }
    rows = {"source": "coronacases", "index": [0, 1], "volume": 1, "split": "train", "ground_glass": None}
    folder.mkdir()
    np.save(folder / "images_coronacases.npy", hu)
    np.save(folder / "labels_coronacases.npy", labels)
    pd.DataFrame(rows | {"consolidation": None} | counts).to_csv(folder / "slices.csv", index=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_series_end_to_end_on_a_tiny_phantom(language, tiny_phantom, tmp_path):
    series = tmp_path / "solved"  # each notebook with its exercises solved, beside a copy of the profiles
    shutil.copytree(NOTEBOOKS / "profiles", series / "profiles")
    for path in find_notebooks(edition_of(language)):
        nbformat.write(solve(nbformat.read(path, 4)), series / path.name)
    run_series(
        folder=series,
        profile="demo",
        data_dir=str(tiny_phantom),
        run_dir=str(tmp_path),
        parameters={k: str(v) for k, v in TINY.items()}
        | {"language": language, "further_data": str(lesions_of_unknown_kind(tmp_path / "further"))},
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
    for stem in ("01_examples", "02_augmentation", "03_learning_curves", "04_four_rows", "05_draws"):
        assert (tmp_path / "figures" / f"{stem}.png").stat().st_size > 5_000
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["status"] == "finished" and run["device"] and len(run["notebooks"]) == 6
    right = load_catalogue(language).gettext("Exercise {exercise}: right. {explained}")
    right = right.format(exercise=r"\d\.\d", explained="")
    for path in find_notebooks():
        copy = nbformat.read(tmp_path / "notebooks" / path.name, 4)
        said = "".join(o.get("text", "") for c in code_cells(copy) for o in c.outputs)
        assert len(re.findall(right, said)) == 3, path.stem


@pytest.mark.slow
def test_committed_notebooks_run_again(tmp_path):
    """nbval: every cell of the demo runs from an empty folder.

    Outputs of cells tagged nbval-check-output are compared.
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
