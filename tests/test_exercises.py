"""The exercises' check: open, right and wrong answers of every kind, never an exception."""

import numpy as np
import pytest

from lungseg_utils.exercises import check


@pytest.mark.parametrize(
    ("answer", "expected", "says"),
    [
        (..., 3, "open"), (3, 3, "right"), (3.01, 3, "right"), (3.2, 3, "hint"), (None, 3, "hint"), ("three", 3, "hint"),
        ("a", "a", "right"), (np.array([1, 2]), [1, 2], "right"), ([1, 2, 3], [1, 2], "hint"), ({"a": 1}, 3, "hint"),
        (np.int64(4), 4, "right"), (True, 1, "right"),
    ],
)  # fmt: skip
def test_answers(answer, expected, says, capsys):
    check(2, answer, expected, "a hint")
    printed = capsys.readouterr().out
    assert printed.startswith("Exercise 2: ") and says in printed
