"""The exercises' check: open, right and wrong answers of every kind, never an exception."""

import numpy as np
import pytest

from lungseg_utils.series import exercises
from lungseg_utils.series.exercises import check


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (..., 3, "open"),
        (3, 3, "right"),
        (np.int64(3), 3, "right"),
        (118, 117, "a hint"),
        (3.01, 3.0, "right"),
        (3.2, 3.0, "a hint"),
        (None, 3, "a hint"),
        ("three", 3, "a hint"),
        ([1, 2], 3.0, "a hint"),
        (float("nan"), 3.0, "a hint"),
    ],
)
def test_answers(answer, expected, says, capsys, monkeypatch):
    monkeypatch.setitem(exercises.EXERCISES, "9.9", (lambda value: value, "a hint"))
    check("9.9", answer, value=expected)
    printed = capsys.readouterr().out
    assert printed.startswith("Exercise 9.9: ") and says in printed
