"""The check of the notebooks' exercises.

It explains itself, keeps what was answered, and never stops a notebook.
"""

import json
import math
import re
from contextlib import suppress
from datetime import datetime
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML

from lungseg_utils.core.files import InputError, atomic_write, resolve_path
from lungseg_utils.core.language import translate as _
from lungseg_utils.series.solutions import EXERCISES, Exercise, solution_source

ANSWERS = "runs/answers.json"
PRECISION = 0.005  # of the right number: 89 is right for 88.82, 88 is not
NEARLY = 0.05
Diagnosis = tuple[str, str]  # what it is, for the teacher; a sentence, for the student


def check(exercise: str, answer: Any, **given: Any) -> None:
    """Say whether an answer is right: counts exactly, other numbers within half a per cent.

    A wrong one is explained where its kind is known, and each opens a further hint. Every attempt is kept in
    runs/answers.json: exercise, attempt, answer, verdict and time.

    Args:
        exercise: Its number, as in "1.2".
        answer: The reader's; ... while it is open; a function without arguments is called.
        **given: What the right answer is worked out from.
    """
    if exercise not in EXERCISES:
        print(
            _("Exercise {exercise}: there is none; expected one of {known}.").format(
                exercise=exercise, known=", ".join(EXERCISES)
            )
        )
        return
    if answer is ...:
        print(
            _("Exercise {exercise}: open. Replace the ... above and run the cell again.").format(
                exercise=exercise
            )
        )
        return
    asked = EXERCISES[exercise]
    try:
        expected = asked.solve(**given)
    except Exception as error:  # whatever the notebook's names hold by now
        names = ", ".join(f"`{name}`" for name in given)
        print(
            _(
                "Exercise {exercise}: cannot be checked, because {names} no longer holds what the "
                "notebook made ({error}: {message}). Run the cells above again."
            ).format(exercise=exercise, names=names, error=type(error).__name__, message=error)
        )
        return
    answer = _value(answer)
    verdict, sentence = diagnose(answer, expected, asked, given)
    attempt = _keep(exercise, answer, verdict)
    if verdict == "right":
        print(
            _("Exercise {exercise}: right. {explained}").format(
                exercise=exercise, explained=_(asked.explained).format(answer=expected)
            )
        )
        return
    shown = min(attempt, len(asked.hints))
    print(_("Exercise {exercise}: not yet. {sentence}").format(exercise=exercise, sentence=sentence).rstrip())
    print(
        _("Hint {number} of {count}: {hint}").format(
            number=shown, count=len(asked.hints), hint=_(asked.hints[shown - 1])
        )
    )


def judge(exercise: str, answer: Any, **given: Any) -> str:
    """The verdict of `check` alone: "right", or the kind of mistake. Nothing is printed or kept."""
    asked = EXERCISES[exercise]
    return diagnose(_value(answer), asked.solve(**given), asked, given)[0]


def solution(exercise: str) -> HTML:
    """The source of a right answer behind a click, for notebooks, their exports and the web.

    Args:
        exercise: Its number, as in "1.2".

    Returns:
        HTML, a cell's output.

    Raises:
        InputError: For a number that no exercise has.
    """
    if exercise not in EXERCISES:
        raise InputError(f"there is no exercise {exercise}; expected one of {', '.join(EXERCISES)}.")
    source = solution_source(EXERCISES[exercise].solve)
    summary = _("Solution of exercise {exercise}: click when you have tried").format(exercise=exercise)
    return HTML(f"<details><summary>{escape(summary)}</summary><pre>{escape(source)}</pre></details>")


def diagnose(answer: Any, expected: float, asked: Exercise, given: dict[str, Any]) -> Diagnosis:
    """What an answer is: "right", or the kind of mistake with a sentence on it.

    Args:
        answer: The reader's, or the error that it ended with.
        expected: The right one; a whole number must be met exactly.
        asked: The exercise.
        given: What the right answer is worked out from.

    Returns:
        The verdict and the sentence, which is empty for a right answer and for one that nothing is known of.
    """
    if isinstance(answer, BaseException):
        return _raised(answer)
    return (
        _not_a_number(answer)
        or _right(float(answer), expected)
        or _known_mistake(float(answer), asked, given)
        or _usual_mistake(float(answer), expected)
        or ("wrong", "")
    )


def _value(answer: Any) -> Any:
    """What a function without arguments gives, or the error that it ends with; another answer as it is."""
    if not callable(answer) or isinstance(answer, type):
        return answer
    try:
        return answer()
    except Exception as error:
        return error


def _raised(error: BaseException) -> Diagnosis:
    return "exception", (
        _(
            "Your code ended with {error}: {message}. Run it in a cell of its own, read the last "
            "line of the message, and look at the values that it uses."
        ).format(error=type(error).__name__, message=error)
    )


def _not_a_number(answer: Any) -> Diagnosis | None:
    """What is wrong with an answer that is no plain number."""
    if answer is None:
        return (
            "nothing",
            _("The answer is None: `print` shows a value, but gives none. Assign the value itself."),
        )
    if isinstance(answer, str):
        return _text(answer)
    if isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, int) for part in answer):
        return "decimal comma", (
            _(
                "Python reads a decimal comma as two numbers, {whole} and {part}: write "
                "{whole}.{part}, with a point."
            ).format(whole=answer[0], part=answer[1])
        )
    if isinstance(answer, bool | np.bool_):
        return "true or false", _("The answer is True or False; a number is asked.")
    if isinstance(answer, dict | set | list | tuple | np.ndarray | pd.Series | pd.DataFrame):
        size = answer.size if hasattr(answer, "size") else len(answer)
        kind = type(answer).__name__
        if size == 1:
            return (
                "list",
                _(
                    "The answer is a {kind} with one value in it; give the value itself, as with `[0]`."
                ).format(kind=kind),
            )
        return "list", _("The answer is a {kind} of {size} values; one number is asked.").format(
            kind=kind, size=size
        )
    try:
        number = float(answer)
    except (TypeError, ValueError):
        return "no number", _("The answer is of type {kind}; a number is asked.").format(
            kind=type(answer).__name__
        )
    if not math.isfinite(number):
        return "not finite", _(
            "The answer is no finite number: look for a division by zero or a missing value."
        )
    return None


def _text(answer: str) -> Diagnosis:
    if re.fullmatch(r"\s*[-+]?\d+,\d+\s*%?\s*", answer):
        point = answer.replace(",", ".").replace("%", "").strip()
        return (
            "decimal comma",
            _("This is a text with a decimal comma: write {point}, with a point and no quotes.").format(
                point=point
            ),
        )
    if found := re.fullmatch(r"\s*([-+]?[\d.]+)\s*(%|HU|px|ml)?\s*", answer):
        return "text", _("The answer is a text: write {number}, without quotes and without a unit.").format(
            number=found[1]
        )
    return "text", _("The answer is a text; a number is asked, without quotes.")


def _right(number: float, expected: float) -> Diagnosis | None:
    exact = isinstance(expected, int)
    right = number == expected if exact else math.isclose(number, expected, rel_tol=PRECISION)
    return ("right", "") if right else None


def _known_mistake(number: float, asked: Exercise, given: dict[str, Any]) -> Diagnosis | None:
    for mistaken, sentence in asked.mistakes:
        with suppress(Exception):  # what is only looked for must not fail
            if _same(number, float(mistaken(**given))):
                return "known mistake", _(sentence)
    return None


def _usual_mistake(number: float, expected: float) -> Diagnosis | None:
    """What is usual with numbers of any kind."""
    right, counted = float(expected), isinstance(expected, int)
    usual = [
        (
            counted and abs(number - right) == 1,
            "off by one",
            _("You are off by one: does your count begin with 0 or with 1, and is the last one in it?"),
        ),
        (
            counted and not number.is_integer(),
            "no whole number",
            _("A whole number is asked: something is counted or named here."),
        ),
        (
            _same(100 * number, right) or _same(number, 100 * right),
            "share or percentage",
            _(
                "You are off by 100: a share goes from 0 to 1, a percentage to 100, and the other "
                "one is asked."
            ),
        ),
        (_same(-number, right), "sign", _("The size is right, but not the sign.")),
        (
            _same(1 - number, right) or _same(100 - number, right),
            "the rest",
            _("This is the rest: your number and the right one add up to the whole."),
        ),
        (
            number != 0 and _same(1 / number, right),
            "upside down",
            _("This is one divided by the right number: numerator and denominator are swapped."),
        ),
        (
            any(_same(number * 10**power, right) for power in (-3, -1, 1, 3)),
            "power of ten",
            _("The digits are right, but the decimal point is at the wrong place: look at the units."),
        ),
        (
            not counted and math.isclose(number, right, rel_tol=NEARLY),
            "nearly",
            _("You are close: give more digits, and round instead of cutting digits off."),
        ),
    ]
    return next(((verdict, sentence) for found, verdict, sentence in usual if found), None)


def _same(number: float, other: float) -> bool:
    return math.isclose(number, other, rel_tol=PRECISION)


def _keep(exercise: str, answer: Any, verdict: str) -> int:
    """Add an attempt to the answers; gives its number, counted from the first or the last right one.

    The same answer once more is the same attempt.
    """
    path = resolve_path(ANSWERS)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        last = next((row for row in reversed(kept) if row["exercise"] == exercise), None)
    except (OSError, ValueError, TypeError, KeyError):  # missing, or something else
        kept, last = [], None
    shown = repr(answer)[:80]
    if last and last["answer"] == shown and last["verdict"] == verdict:
        return int(last["attempt"])
    attempt = 1 if last is None or last["verdict"] == "right" else int(last["attempt"]) + 1
    row = {
        "exercise": exercise,
        "attempt": attempt,
        "answer": shown,
        "verdict": verdict,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    try:
        with atomic_write(path) as handle:
            json.dump([*kept, row], handle, indent=1)
    except (OSError, InputError):  # a read-only folder: the check still says what it has to say
        pass
    return attempt
