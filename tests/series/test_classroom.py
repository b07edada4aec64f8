"""A class: what students and their teacher get, and nbgrader's own commands over the course."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import translate
from lungseg_utils.series.classroom import Question, find_edition, solve_key, write_class
from lungseg_utils.series.grading import collect_answers
from lungseg_utils.series.solutions import EXERCISES

NAME = "00_tiny.ipynb"
ROWS = 'rows = pd.DataFrame({"ground_glass": [0, 0, 5], "consolidation": [0, 0, 0]})'


def exercise(number, variable, given=""):
    ask = f"**Exercise.** How many?\n\nReplace the `...` and run the cell. The solution opens below. {number}"
    answer = f'{variable} = ...\ncheck("{number}", {variable}{given})'
    return [
        new_markdown_cell(ask),
        new_code_cell(answer, outputs=[new_output("stream", text="open")], execution_count=4),
        new_code_cell(f'solution("{number}")', metadata={"tags": ["solution"]}),
    ]


def tiny(folder, language="en"):
    """A notebook with two exercises, one of which depends on data, as the series' are."""
    cells = [
        new_code_cell(
            "import pandas as pd\n\nfrom lungseg_utils.series import check, check_values, solution"
        ),
        new_code_cell(
            f'run_dir: str = "runs/demo"  # unused\nlanguage: str = "{language}"  # of the texts',
            metadata={"tags": ["parameters"]},
        ),
        new_markdown_cell("A [word](../../docs/glossary.md)."),
        new_code_cell(ROWS),
        *exercise("20.2", "answer_1"),
        *exercise("1.2", "answer_2", ", rows=rows"),
    ]
    folder.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells), folder / NAME)
    return folder


def code(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def run(path):
    """Execute a notebook's code here; its names."""
    names = {}
    exec("\n".join(code(path)), names)
    return names


def test_every_exercise_of_the_series_is_found_once():
    found = [
        question.number
        for path in find_edition()
        for cell in nbformat.read(path, as_version=4).cells
        if (question := Question.of(cell))
    ]
    assert sorted(found) == sorted(EXERCISES)


def test_students_get_no_outputs_and_no_solutions(tmp_path):
    out = write_class(tmp_path / "class")
    names = [path.name for path in find_edition()]
    assert sorted(path.name for path in (out / "student" / "notebooks").iterdir()) == names
    for path in (out / "student" / "notebooks").iterdir():
        notebook = nbformat.read(path, as_version=4)
        sources = "\n".join(cell.source for cell in notebook.cells)
        assert (
            "solution(" not in sources and "check, solution" not in sources and "The solution" not in sources
        )
        assert sources.count(" = ...\ncheck(") == 3 == sources.count("Replace the `...` and run the cell.")
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_the_key_is_right(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    out = write_class(tmp_path / "class", notebooks=tiny(tmp_path / "notebooks"))
    names = run(out / "teacher" / "notebooks" / NAME)
    assert (round(names["answer_1"]), names["answer_2"]) == (40816, 2)
    assert capsys.readouterr().out.count(": right. ") == 2
    page = (out / "teacher" / "key.md").read_text()
    assert "### 20.2" in page and "40,816 voxels" in page and "... slices hold no lesion" in page
    assert "Replace" not in page
    assert run(out / "student" / "notebooks" / NAME)["answer_2"] is ...


def test_work_in_a_class_leaves_git_clean(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    out = write_class(tmp_path / "class", notebooks=tiny(tmp_path / ".git" / "notebooks"))
    (out / "student" / "notebooks" / NAME).write_text("answered")
    (out / "student" / "runs").mkdir()
    status = subprocess.run(["git", "-C", tmp_path, "status", "--short"], capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, "")


def test_a_class_in_another_language(tmp_path):
    notebooks = tiny(tmp_path / "notebooks")
    tiny(notebooks / "es", language="es")
    out = write_class(tmp_path / "class", language="es", notebooks=notebooks)
    assert 'language: str = "es"' in code(out / "student" / "notebooks" / NAME)[1]
    assert "](../docs/glossary.md)" in (out / "student" / "notebooks" / NAME).read_text()
    key = (out / "teacher" / "key.md").read_text(encoding="utf-8")
    hint = EXERCISES["20.2"].hints[0]
    assert translate(hint) in key and hint not in key
    with pytest.raises(InputError, match="expected one of en, es"):
        write_class(tmp_path / "other", language="fr", notebooks=notebooks)


def test_a_folder_with_work_in_it_is_left_alone(tmp_path):
    out = write_class(tmp_path / "class", notebooks=tiny(tmp_path / "notebooks"))
    with pytest.raises(InputError, match="expected a new folder"):
        write_class(out, notebooks=tmp_path / "notebooks")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("nbgrader"), reason="needs nbgrader: pip install -e .[nbgrader]"
)
def test_nbgrader_runs_the_course(tmp_path):
    out = write_class(tmp_path / "class", form="nbgrader", notebooks=tiny(tmp_path / "notebooks"))
    course, assignment = out / "course", Path(NAME).stem

    def nbgrader(*words):
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root), "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter")}
        environment.pop("LUNGSEG_HOME", None)  # the course's own settings name it
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), environment["PATH"]]
        )  # alembic
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=course,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    nbgrader("generate_assignment", assignment)
    released = course / "release" / assignment / NAME
    assert not any("BEGIN" in source or "def " in source or "judge" in source for source in code(released))
    answers = {"right": ("100 * 1000 / (5 * 0.7 * 0.7)", "2"), "wrong": ("2.45", "1 / 0"), "missing": None}
    for student, given in answers.items():
        handed_in = course / "submitted" / student / assignment / NAME
        handed_in.parent.mkdir(parents=True)
        shutil.copy(released, handed_in)
        notebook = nbformat.read(handed_in, as_version=4)
        for number, answer in enumerate(given or (), 1):
            for cell in notebook.cells:
                cell.source = cell.source.replace(f"answer_{number} = ...", f"answer_{number} = {answer}")
        nbformat.write(notebook, handed_in)
    nbgrader("autograde", assignment)
    nbgrader("generate_feedback", assignment)
    assert sorted(path.parts[-3] for path in course.glob("feedback/*/*/*.html")) == sorted(answers)
    nbgrader("export", "--to", "grades.csv")
    grades = pd.read_csv(course / "grades.csv").set_index("student_id")
    assert grades.score.to_dict() == {"right": 2, "wrong": 0, "missing": 0}
    assert (grades.max_score == 2).all()


@pytest.mark.slow
def test_the_keys_own_run_checks_students_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    notebooks = tiny(tmp_path / "notebooks")
    out = write_class(tmp_path / "class", notebooks=notebooks)
    key = solve_key(out)
    assert key == out / "teacher" / "runs" / "answers.json" and os.environ["LUNGSEG_HOME"] == str(tmp_path)
    handed_in = tmp_path / "handed_in"
    handed_in.mkdir()
    (handed_in / "ada.json").write_text(key.read_text())
    (handed_in / "cheat.json").write_text(key.read_text().replace('"answer": "2"', '"answer": "7"'))
    table = collect_answers(handed_in, out / "teacher").set_index(["student", "exercise"])
    assert table.checked.to_dict() == {
        ("ada", "1.2"): "yes",
        ("ada", "20.2"): "yes",
        ("cheat", "1.2"): "differs",
        ("cheat", "20.2"): "yes",
    }
