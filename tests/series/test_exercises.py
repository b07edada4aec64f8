"""The exercises' check: what it says to usual wrong answers, hint by hint, and what it keeps."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lungseg_utils.series.exercises import check, solution
from lungseg_utils.series.solutions import EXERCISES

SCORE = "mean lesion Dice"
MISSING = np.arange(16).reshape(4, 4) > 6  # all but seven pixels
GIVEN = {
    "0.1": {},
    "0.2": {},
    "0.3": {"epochs": 16, "slices": 96},
    "1.1": {
        "shares": pd.DataFrame(
            {"background": [74.31, 88.82], "lung_other": [19.9, 10.2]}, ["medseg", "radiopaedia"]
        )
    },
    "1.2": {
        "rows": pd.DataFrame({"ground_glass": [0, 0, 5, 7, 0, 9, 8], "consolidation": [0, 0, 0, 3, 4, 5, 6]})
    },
    "1.3": {
        "percent": pd.Series([1.0, 2.0, 9.0, 8.0, 0.0, 0.0, 11.0, 0.0, 7.0]),
        "volumes": np.array([1, 1, 2, 2, 3, 3, 3, 3, 3]),
    },
    "2.1": {"p": SimpleNamespace(mean=-596.2, std=456.5)},
    "2.2": {"p": SimpleNamespace(mean=-596.2, std=456.5)},
    "2.3": {"image": np.zeros(3, np.int16)},
    "3.3": {},
    "3.1": {"sizes": pd.DataFrame({"side": [64, 32, 4, 128]}), "image_size": 128},
    "3.2": {
        "history": pd.DataFrame(
            {
                "epoch": [1, 2, 3, 4],
                "val_miou": [0.1, 0.6, 0.5, 0.4],
                "train_miou": [0.1, 0.2, 0.3, 0.7],
                "val_loss": [3.0, 2.0, 1.0, 1.5],
            }
        )
    },
    "4.1": {},
    "4.2": {"counts": np.array([[60, 10, 20, 10], [5, 70, 15, 10], [30, 2, 900, 8], [1, 2, 3, 4000]])},
    "4.3": {
        "table": pd.DataFrame(
            {
                "burden_predicted": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
                "burden_true": [0.1, 0.1, 0.1, 0.1, 0.6, 0.7],
            }
        )
    },
    "10.2": {
        "effects": pd.DataFrame(
            {
                f"{SCORE}, difference": [-0.3, 0.1, 0.2, 0.3, 0.4, 0.5],
                f"{SCORE}, low": [-0.4, -0.1, -0.1, 0.1, 0.2, 0.3],
                f"{SCORE}, high": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
            }
        )
    },
    "5.1": {},
    "5.2": {},
    "5.3": {},
    "10.1": {},
    "10.3": {
        "comparison": pd.DataFrame(
            {
                "recipe": ["reference", "profile", "ensemble"],
                "score": SCORE,
                "value": [0.174, 0.522, 0.533],
                "difference": [np.nan, 0.348, 0.359],
            }
        )
    },
    "20.2": {},
    "20.3": {},
    "20.1": {
        "labels": np.repeat([3, 0, 2], 16).reshape(3, 4, 4)
        + np.repeat([0, 1, 0], 16).reshape(3, 4, 4) * 3 * MISSING
    },
}
# exercise, what a student assigns, the verdict that is kept, and a part of what check says
USUAL = [
    ("1.1", 88, "nearly", "round instead of cutting digits off"),
    ("1.1", 0.8882, "share or percentage", "off by 100"),
    ("1.1", "88,82", "decimal comma", "write 88.82"),
    ("1.1", (88, 82), "decimal comma", "write 88.82"),
    ("1.1", "88.82 %", "text", "write 88.82, without quotes"),
    ("1.1", "a lot", "text", "a number is asked"),
    ("1.1", [88.82], "list", "a list with one value"),
    ("1.1", pd.Series([74.31, 88.82]), "list", "of 2 values"),
    ("1.1", 74.31, "known mistake", "MedSeg's share"),
    ("1.1", 81.565, "known mistake", "mean of both sources"),
    ("1.1", 11.18, "the rest", "add up to the whole"),
    ("1.1", None, "nothing", "`print` shows a value"),
    ("1.1", float("nan"), "not finite", "missing value"),
    ("1.1", KeyError("radiopedia"), "exception", "KeyError: 'radiopedia'"),
    ("1.1", lambda: 1 / 0, "exception", "ZeroDivisionError: division by zero"),
    ("1.1", True, "true or false", "True or False"),
    ("1.2", 5, "known mistake", "do hold a lesion"),
    ("1.2", 3, "known mistake", "without ground glass"),
    ("1.2", 1, "off by one", "off by one"),
    ("1.2", 2.5, "no whole number", "A whole number is asked"),
    ("1.3", 3, "known mistake", "single slice"),
    ("1.3", 8.5, "known mistake", "the volume's number is asked"),
    ("2.1", 596.2, "known mistake", "divide it by the standard deviation"),
    ("2.1", -1.306, "sign", "not the sign"),
    ("2.2", 456.5, "known mistake", "one standard deviation"),
    ("2.2", -1052.7, "known mistake", "z-score of -1"),
    ("2.3", 2, "known mistake", "bytes of a pixel"),
    ("2.3", 0.25, "upside down", "swapped"),
    ("2.3", 32, "known mistake", "64 are bits"),
    ("3.3", 10.48, "known mistake", "10 % are forgotten"),
    ("3.3", 90, "known mistake", "does not add up"),
    ("3.1", 5, "known mistake", "halved"),
    ("3.2", 4, "known mistake", "mIoU of training"),
    ("4.1", 0.3986, "known mistake", "the other way round"),
    ("4.1", 72.6, "share or percentage", "off by 100"),
    ("4.2", 35 / 180, "known mistake", "Rows and columns are swapped"),
    ("4.2", 35 / 200, "known mistake", "Rows and columns are swapped"),
    ("4.2", 55, "known mistake", "number of pixels"),
    ("4.2", 70 / 200, "known mistake", "one lesion class taken for the other"),
    ("4.3", 4, "known mistake", "equal"),
    ("4.3", "three", "text", "without quotes"),
    ("10.2", 5, "known mistake", "may still cross"),
    ("10.1", 0.63, "known mistake", "none does"),
    ("10.1", 0.45, "known mistake", "do not simply add up"),
    ("10.3", 0.522, "known mistake", "the score itself"),
    ("10.3", 0.359, "known mistake", "gain of the ensemble"),
    ("20.2", 40.8, "known mistake", "1000 cubic millimetres"),
    ("20.2", 408.2, "known mistake", "one millilitre"),
    ("20.3", 12, "known mistake", "50 % itself"),
    ("20.1", 1, "known mistake", "Python counts from 0"),
    ("20.1", 7, "known mistake", "number of pixels"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The file of answers, in a folder of its own."""
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    return tmp_path / "runs" / "answers.json"


def test_every_exercise_is_tried_here():
    assert set(GIVEN) == set(EXERCISES)


@pytest.mark.parametrize(("exercise", "answer", "verdict", "says"), USUAL)
def test_a_wrong_answer_is_explained(exercise, answer, verdict, says, kept, capsys):
    check(exercise, answer, **GIVEN[exercise])
    printed = capsys.readouterr().out
    assert printed.startswith(f"Exercise {exercise}: not yet. ") and says in printed
    assert printed.splitlines()[1] == f"Hint 1 of 3: {EXERCISES[exercise].hints[0]}"
    assert json.loads(kept.read_text())[0]["verdict"] == verdict


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_right_answer_is_explained_and_no_mistake_is_right(exercise, capsys):
    asked, given = EXERCISES[exercise], GIVEN[exercise]
    right = asked.solve(**given)
    for answer in (right, np.float64(right), lambda: right):
        check(exercise, answer, **given)
        explained = asked.explained.format(answer=right)
        assert capsys.readouterr().out == f"Exercise {exercise}: right. {explained}\n"
    for mistaken, _ in asked.mistakes:
        check(exercise, mistaken(**given), **given)
        assert ": not yet. " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "right"), [(88.82, True), (89, True), (88.8, True), (88, False), (90, False)]
)
def test_numbers_are_right_within_half_a_per_cent(answer, right, capsys):
    check("1.1", answer, **GIVEN["1.1"])
    assert (": right. " in capsys.readouterr().out) is right


def test_each_new_answer_opens_a_hint_and_the_same_one_does_not(capsys):
    for answer, hint in ((50, 1), (50, 1), (51, 2), (52, 3), (53, 3)):
        check("1.1", answer, **GIVEN["1.1"])
        assert f"Hint {hint} of 3: " in capsys.readouterr().out
    check("1.1", 88.82, **GIVEN["1.1"])
    check("1.1", 50, **GIVEN["1.1"])
    assert "Hint 1 of 3: " in capsys.readouterr().out  # after a right answer they begin again
    for asked in EXERCISES.values():
        assert len(set(asked.hints)) == 3


def test_what_is_open_unknown_or_broken_is_said_and_not_kept(kept, capsys):
    check("1.1", ..., **GIVEN["1.1"])
    check("9.9", 3)
    check("1.1", 3, shares=[1, 2])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Exercise 1.1: open.") and lines[1].startswith("Exercise 9.9: there is none")
    assert "`shares` no longer holds" in lines[2] and not kept.exists()


def test_answers_are_kept_for_a_teacher(kept, capsys):
    for answer in (88, "88,82", lambda: 88.82):
        check("1.1", answer, **GIVEN["1.1"])
    rows = json.loads(kept.read_text())
    assert [(row["exercise"], row["attempt"], row["answer"], row["verdict"]) for row in rows] == [
        ("1.1", 1, "88", "nearly"),
        ("1.1", 2, "'88,82'", "decimal comma"),
        ("1.1", 3, "88.82", "right"),
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", row["time"]) for row in rows)


def test_a_check_works_where_nothing_can_be_written(kept, capsys):
    kept.parent.write_text("no folder")
    check("20.3", 12)
    assert "Hint 1 of 3" in capsys.readouterr().out


def test_a_solution_is_behind_a_click_and_says_nothing_of_right():
    for exercise, asked in EXERCISES.items():
        html = solution(exercise).data
        assert html.startswith("<details><summary>") and asked.solve.__name__ in html
        assert "right." not in html
