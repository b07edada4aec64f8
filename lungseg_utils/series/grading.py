"""What a class has answered, for its teacher: one table, in which every right answer is checked once more.

A student's answers.json is a text file that its owner can edit. What stays is the answer itself, and whether
that is right can be worked out again: from the exercise alone, from what the student's run left, or from the
answers of the teacher's own run, the key.
"""

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from lungseg_utils.core.files import InputError, input_path
from lungseg_utils.series.exercises import diagnose
from lungseg_utils.series.solutions import EXERCISES

ANSWERS = "answers.json"
HISTORY, CONFUSION, PER_SLICE = "history.csv", "results/confusion.csv", "results/per_slice.csv"
COLUMNS = ["student", "exercise", "attempts", "verdict", "checked", "mistake", "first", "time"]
BEST_FIRST = ("yes", "not checked", "differs")
KEPT = ("exercise", "answer", "verdict", "time")  # of each attempt, as texts
NUMBER = re.compile(r"(?:np\.\w+\()?([^()]+)\)?")  # as `check` keeps it, NumPy's too

# What depends on a training, and so on the machine: a file of the run, and how it is handed over.
OF_A_RUN: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "3.2": (HISTORY, lambda path: {"history": pd.read_csv(path)}),
    "4.2": (CONFUSION, lambda path: {"counts": pd.read_csv(path, index_col=0).to_numpy()}),
    "4.3": (PER_SLICE, lambda path: {"table": pd.read_csv(path)}),
}


def collect_answers(folder: str | Path, key: str | Path | None = None) -> pd.DataFrame:
    """What a class has answered, for the teacher.

    Args:
        folder: A folder or a file for each student, of the student's name: answers.json or a whole runs/ is
            in the folder, the file is such an answers.json.
        key: The teacher's own answers.json, all of them right, or a folder with it; without it, what depends
            on the data is not checked again.

    Returns:
        One row a student and exercise that somebody has answered: student, exercise, attempts, verdict
        ("right" if ever, else the last; "missing"; "unreadable" for a file that holds no answers), checked
        (of right ones: "yes"; "differs" if the answer is not right, or not by the key, though the file says
        so; "not checked" if there is nothing to check it with), mistake (verdict of the last wrong answer,
        empty without one), first and time (of the first and the last attempt).

    Raises:
        InputError: There is no such folder, it holds no .json, or the key holds no answers.
    """
    folder = input_path(folder)
    students = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir() or path.suffix == ".json"]
    answered = {path: list(_files(path)) for path in students}
    if not any(answered.values()):
        raise InputError(f"{folder} holds no .json; expected the students' answers.json; name their folder.")
    right = _read_key(input_path(key)) if key else {}
    rows: dict[Path, list[dict[str, str]] | None] = {}
    asked: set[str] = set()
    for path, files in answered.items():
        try:
            read = [row for file in files for row in _read(file)]
            rows[path], asked = read, asked | {row["exercise"] for row in read}
        except InputError:
            rows[path] = None
    order = [exercise for exercise in EXERCISES if exercise in asked]
    table = [
        {"student": path.stem if path.is_file() else path.name, **row}
        for path in students
        for row in _graded(rows[path], order, path, right)
    ]
    return pd.DataFrame(table, columns=COLUMNS).fillna({"checked": "", "mistake": ""})


def summarise(table: pd.DataFrame) -> str:
    """A line a student, as text: how many answers are right, and what is to be looked at."""
    lines = ["student                 right  not checked  differs  wrong  missing"]
    for student, own in table.groupby("student", sort=False):
        if (own.verdict == "unreadable").any():
            lines.append(f"{student:22}  answers.json cannot be read")
            continue
        right, differs, missing = own.verdict == "right", own.checked == "differs", own.verdict == "missing"
        trusted, wrong = own.checked == "not checked", ~right & ~differs & ~missing
        counts = [(right & ~trusted).sum(), trusted.sum(), differs.sum(), wrong.sum(), missing.sum()]
        lines.append(f"{student:22}{counts[0]:7}{counts[1]:13}{counts[2]:9}{counts[3]:7}{counts[4]:9}")
    return "\n".join(lines)


def _files(student: Path) -> Iterator[Path]:
    """A student's files of answers."""
    return iter([student]) if student.is_file() else iter(sorted(student.rglob(ANSWERS)))


def _read(path: Path) -> list[dict[str, str]]:
    """The attempts of a file, in order; InputError if it holds none."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        texts = all(isinstance(row[name], str) for row in rows for name in KEPT)
        if isinstance(rows, list) and texts and all(row["exercise"] in EXERCISES for row in rows):
            return [{name: row[name] for name in KEPT} for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"{path} holds no answers; expected the answers.json that `check` writes.")


def _read_key(path: Path) -> dict[str, Any]:
    """The right answer of each exercise that the teacher's run has answered."""
    files = list(_files(path))
    if not files:
        raise InputError(f"{path} holds no {ANSWERS}; expected the key's; run the teacher's notebooks first.")
    rows = [row for file in files for row in _read(file)]
    return {row["exercise"]: _number(row["answer"]) for row in rows if row["verdict"] == "right"}


def _graded(
    rows: list[dict[str, str]] | None, order: list[str], student: Path, key: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The table's rows of a student."""
    if rows is None:
        yield {"exercise": "", "attempts": 0, "verdict": "unreadable"}
        return
    for exercise in order:
        attempts = [row for row in rows if row["exercise"] == exercise]
        if not attempts:
            yield {"exercise": exercise, "attempts": 0, "verdict": "missing"}
            continue
        verdicts = [row["verdict"] for row in attempts]
        verdict, checked = verdicts[-1], ""
        claimed = [row["answer"] for row in attempts if row["verdict"] == "right"]
        if claimed:
            again = [_check_again(exercise, said, student, key) for said in claimed]
            verdict, checked = min(again, key=lambda found: BEST_FIRST.index(found[1]))
        times = [row["time"] for row in attempts]
        yield {
            "exercise": exercise,
            "attempts": len(attempts),
            "verdict": verdict,
            "checked": checked,
            "mistake": next((v for v in reversed(verdicts) if v != "right"), ""),
            "first": min(times),
            "time": max(times),
        }


def _check_again(exercise: str, said: str, student: Path, key: dict[str, Any]) -> tuple[str, str]:
    """What an answer is that the student's file calls right: its verdict, and one of BEST_FIRST."""
    asked, given = EXERCISES[exercise], _number(said)
    if not isinstance(given, int | float):  # whatever is asked
        return "no number", "differs"
    own = list(_own_right_answers(exercise, student))
    right = own or ([key[exercise]] if exercise in key else [])
    verdicts = [diagnose(given, expected, asked, {})[0] for expected in right]
    if "right" in verdicts:
        return "right", "yes"
    if not right or (exercise in OF_A_RUN and not own):  # the key's training is not the student's
        return "right", "not checked"
    return verdicts[0], "differs"


def _own_right_answers(exercise: str, student: Path) -> Iterator[Any]:
    """Right answers that need no key: from the exercise alone, or from the runs that a student handed in."""
    solve = EXERCISES[exercise].solve
    if not inspect.signature(solve).parameters:
        yield solve()
    elif exercise in OF_A_RUN:
        name, hand_over = OF_A_RUN[exercise]
        for path in student.rglob(name):
            with suppress(Exception):  # whatever a student's file holds
                yield solve(**hand_over(path))


def _number(said: str) -> Any:
    """The number that `check` has kept as text; the text if it is none."""
    found = NUMBER.fullmatch(said)
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(found[1]) if found else said
    return said
