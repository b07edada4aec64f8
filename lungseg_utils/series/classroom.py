"""A class of the notebooks: copies for students, the teacher's key, a course for nbgrader.

An exercise is a markdown cell with the question, a cell that assigns `...` and calls `check`, and a cell
tagged `solution`; everything here is made from these three.
"""

import ast
import copy
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lungseg_utils.core.files import InputError, atomic_write, new_folder, replace_folder
from lungseg_utils.core.language import ENGLISH, set_language
from lungseg_utils.core.language import translate as _
from lungseg_utils.series.exercises import ANSWERS
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import all_notebooks, edition_of, find_notebooks, run_series
from lungseg_utils.series.solutions import EXERCISES, solution_source

FORMS = ("plain", "nbgrader")
OPEN = "`...`"  # in the paragraph under a question: what to do with it, then where the solution is
IMPORTED = re.compile(r"(?m)^(from lungseg_utils\.series import .*), solution$")
UNKNOWN = re.compile(r"\{answer[^}]*\}")  # where an explanation names an answer that depends on the data
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
NBGRADER_CONFIG = '''\
"""The course's settings for nbgrader: docs/teaching.md says what to do with it."""

import os
from pathlib import Path

course = Path(__file__).resolve().parent
os.environ.setdefault("LUNGSEG_HOME", str(course))  # where data/ and runs/ of what is executed go

c = get_config()  # noqa: F821
c.CourseDirectory.root = str(course)
c.CourseDirectory.course_id = "lungseg"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE"}
c.ExecutePreprocessor.timeout = 3600  # a training takes minutes
'''


@dataclass(frozen=True)
class Question:
    """An exercise as it stands in a notebook.

    number: As in "1.2". variable: Takes the answer. check: The call, as source. given: What it hands over, as
    source.
    """

    number: str
    variable: str
    check: str
    given: str

    @classmethod
    def of(cls, cell: NotebookNode) -> "Question | None":
        """The question whose answer a cell takes; None for other cells."""
        if cell.cell_type != "code" or "check(" not in cell.source:
            return None
        try:
            call = ast.parse(cell.source).body[-1].value
            if call.func.id != "check":
                return None
            given = ", ".join(map(ast.unparse, call.keywords))
            return cls(call.args[0].value, call.args[1].id, ast.unparse(call), given)
        except (SyntaxError, AttributeError, IndexError):  # %pip, or another check
            return None

    def solved(self) -> str:
        """The right answer as code: the function that works it out, and its call."""
        solve = EXERCISES[self.number].solve
        source = solution_source(solve)
        [function] = ast.parse(source).body
        body = source.splitlines()[function.body[0].lineno - 1 :]  # type: ignore[attr-defined]
        head = f"def {solve.__name__}({', '.join(inspect.signature(solve).parameters)}):"
        call = f"{self.variable} = {solve.__name__}({self.given})"
        return "\n".join([head, *body, "", "", call])

    def explained(self) -> str:
        """Why the answer is right; "..." stands for one that depends on the data."""
        asked = EXERCISES[self.number]
        explained = _(asked.explained)
        return UNKNOWN.sub("...", explained) if self.given else explained.format(answer=asked.solve())


def write_class(
    out: str | Path,
    language: str = ENGLISH,
    form: str = "plain",
    notebooks: Path = NOTEBOOKS,
    complete: Callable[[Path], None] | None = None,
) -> Path:
    """Write what a class needs: student/ or, for nbgrader, course/; and teacher/, the key.

    Args:
        out: A new or empty folder. Git leaves it alone, wherever it is.
        language: Of the notebooks.
        form: "plain", or "nbgrader": a course folder for its own commands.
        notebooks: The series' folder.
        complete: What else goes into student/, as `fill_offline` puts it there.

    Returns:
        The folder.

    Raises:
        InputError: There is something in `out`, or there are no notebooks, or none in this language.
    """
    out = new_folder(out)
    if form not in FORMS:
        raise InputError(f"the format is {form!r}; expected one of {', '.join(FORMS)}.")
    series = {path.name: nbformat.read(path, as_version=4) for path in find_edition(language, notebooks)}
    set_language(language)  # the key speaks it, too
    with replace_folder(out) as new:
        (new / ".gitignore").write_text("*\n", encoding="utf-8")
        teacher = new / "teacher"
        for name, notebook in series.items():
            if form == "plain":
                _write(new / "student" / "notebooks" / name, student_copy(notebook))
            else:
                _write(new / "course" / "source" / Path(name).stem / name, course_copy(notebook))
            _write(teacher / "notebooks" / name, key_copy(notebook))
        if complete:
            complete(new / "student")
        with atomic_write(teacher / "key.md") as handle:
            handle.write(key_page(series))
        if form == "nbgrader":
            with atomic_write(new / "course" / "nbgrader_config.py") as handle:
                handle.write(NBGRADER_CONFIG)
    return out


def solve_key(out: Path) -> Path:
    """Run the key's notebooks on the phantom.

    Args:
        out: What `write_class` wrote.

    Returns:
        teacher/runs/answers.json in it, by which students' answers are checked again.

    Raises:
        NotebookError: When a notebook fails.
    """
    home, folder = out / "teacher", out / "teacher" / "notebooks"
    with _at_home(home):
        run_series(folder=folder)
        for path in all_notebooks(folder):
            if path not in find_notebooks(folder):
                run_series(only=path.stem, folder=folder)
    return home / ANSWERS


@contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    """Within, relative paths start at `folder`, here and in kernels."""
    before = os.environ.get("LUNGSEG_HOME")
    os.environ["LUNGSEG_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LUNGSEG_HOME"]
        if before is not None:
            os.environ["LUNGSEG_HOME"] = before


def find_edition(language: str = ENGLISH, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks in a language, in order; InputError if there are none."""
    folder = edition_of(language, notebooks)
    if found := all_notebooks(folder):
        return found
    raise InputError(
        f"there are no notebooks in {folder}; expected a checkout (git clone, then pip install -e .), since "
        "the installed package carries no notebooks."
    )


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without outputs and without solutions."""
    made = _without_outputs(notebook)
    made.cells = [cell for cell in made.cells if "solution" not in cell.metadata.get("tags", ())]
    for cell, after in zip(made.cells, made.cells[1:], strict=False):
        if Question.of(after):
            cell.source = _without_what_follows(cell.source)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.source = IMPORTED.sub(r"\1", cell.source)
    return made


def key_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without outputs, the right answers filled in."""
    made = student_copy(notebook)
    for cell in made.cells:
        if question := Question.of(cell):
            cell.source = f"{question.solved()}\n{question.check}"
    return made


def course_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook as the source of an nbgrader assignment: each answer gives a point."""
    made = student_copy(notebook)
    cells = []
    for cell in made.cells:
        question = Question.of(cell)
        if not question:
            cells.append(cell)
            continue
        name = question.number.replace(".", "-")
        cell.source = f"{question.variable} = ...\n### BEGIN SOLUTION\n{question.solved()}\n### END SOLUTION"
        cell.metadata["nbgrader"] = _grading(f"answer-{name}", solution=True)
        given = f", {question.given}" * bool(question.given)
        test = (
            f"{question.check}\n### BEGIN HIDDEN TESTS\n"
            "from lungseg_utils.series.exercises import judge\n\n"
            f'assert judge("{question.number}", {question.variable}{given}) == "right"\n### END HIDDEN TESTS'
        )
        tested = nbformat.v4.new_code_cell(test, id=f"{cell.id}-check")
        tested.metadata["nbgrader"] = {**_grading(f"check-{name}", grade=True, locked=True), "points": 1}
        cells += [cell, tested]
    made.cells = cells
    return made


def key_page(series: dict[str, NotebookNode]) -> str:
    """Every exercise on one page, in Markdown: question, solution, why it is right, hints, usual mistakes.

    series: name -> notebook.
    """
    parts = [_("# The key")]
    for name, notebook in series.items():
        parts.append(f"## {name}")
        for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
            if not (question := Question.of(cell)):
                continue
            asked = EXERCISES[question.number]
            hints = [f"{place}. {_(hint)}" for place, hint in enumerate(asked.hints, 1)]
            parts += [
                f"### {question.number}",
                before.source.rpartition(OPEN)[0].rpartition("\n\n")[0],
                f"```python\n{question.solved()}\n```",
                question.explained(),
                "\n".join(hints),
                "\n".join(f"- {_(mistake[1])}" for mistake in asked.mistakes),
            ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs, whose links start in notebooks/, as a class has it in every language."""
    made = copy.deepcopy(notebook)
    made.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = cell.source.replace("](../../", "](../")
    return made


def _without_what_follows(source: str) -> str:
    """A question without the sentences after the one that says to replace the `...`."""
    text, found, rest = source.rpartition(OPEN)
    return text + found + rest[: rest.find(".") + 1] if found else source


def _grading(name: str, *, grade: bool = False, solution: bool = False, locked: bool = False) -> dict:
    """A cell's metadata for nbgrader, its schema 3."""
    about = {"grade_id": name, "grade": grade, "solution": solution, "locked": locked}
    return {**about, "schema_version": 3, "task": False, "cell_type": "code"}


def _write(path: Path, notebook: NotebookNode) -> None:
    """One notebook, in a folder that is being made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
