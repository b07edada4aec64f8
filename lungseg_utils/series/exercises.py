"""The notebooks' exercises.

What is right, a hint, and a check that explains itself and never stops the notebook.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

# number: (the right answer from what the notebook hands over, a hint). Read it when you have tried!
EXERCISES: dict[str, tuple[Callable[..., Any], str]] = {
    "1.1": (lambda shares: shares.background["radiopaedia"], "Look at the table `shares`: one row a source."),
    "1.2": (
        lambda rows: int(((rows.ground_glass == 0) & (rows.consolidation == 0)).sum()),
        "A slice counts if both ground_glass and consolidation are 0.",
    ),
    "1.3": (
        lambda percent, volumes: int(percent.groupby(volumes).mean().idxmax()),
        "Average `percent` over the slices of each volume.",
    ),
    "2.1": (
        lambda p: float(p.normalise(np.zeros(1))[0]),
        "Water is 0 HU: subtract the mean, divide by the standard deviation.",
    ),
    "2.2": (lambda p: p.mean + p.std, "Solve z = (HU - mean) / std for HU."),
    "2.3": (
        lambda image: 8 / image.itemsize,
        "Compare bytes per pixel: `prepared.images['medseg'].itemsize`.",
    ),
    "3.1": (lambda: np.log(0.1) / np.log(0.99), "Solve (1 - 0.01)^n = 0.1 for n."),
    "3.2": (lambda sizes, image_size: image_size / sizes.side.min(), "Or look at the table of section 3.2."),
    "3.3": (
        lambda history: int(history.epoch[history.val_miou.idxmax()]),
        "Find the row of `history` with the highest val_miou.",
    ),
    "4.1": (lambda: 2 * 0.57 / (1 + 0.57), "Dice = 2 IoU / (1 + IoU)."),
    "4.2": (
        lambda counts: counts[:2, 2:].sum() / max(counts[:2].sum(), 1),
        "Take rows 0 and 1 (true lesions) and columns 2 and 3 (missed) of `counts`.",
    ),
    "4.3": (
        lambda table: int((table.burden_predicted > table.burden_true).sum()),
        "Compare the columns burden_predicted and burden_true of `table`.",
    ),
    "10.1": (
        lambda effects: int((effects["mean lesion Dice, low"] > 0).sum()),
        "Count the rows of `added` whose interval starts above 0.",
    ),
    "10.2": (lambda: 1 - 0.95**9, "The chance that none of nine does is 0.95 ** 9."),
    "10.3": (
        lambda comparison: float(comparison.query("score == 'mean lesion Dice'").difference.dropna().iloc[0]),
        "One row of `comparison` has the score 'mean lesion Dice' and a difference.",
    ),
    "20.1": (lambda: 100 * 1000 / (5 * 0.7 * 0.7), "A millilitre is 1000 cubic millimetres."),
    "20.2": (
        lambda: 0 + 1 + 2 + 3 + 3 + 4,
        "0 % is 0; below 25 %, 50 % and 75 % are 1, 2 and 3; 50 % itself is not below 50 %.",
    ),
    "20.3": (
        lambda labels: int((labels < 2).sum((1, 2)).argmax()) + 1,
        "Count the pixels of classes 0 and 1 in each slice of `case.labels`.",
    ),
}


def check(exercise: str, answer: Any, **given: Any) -> None:
    """Say whether an answer is right: counts exactly, other numbers within 1 %.

    Args:
        exercise: Its number, as in "1.2".
        answer: The reader's; ... while it is open.
        **given: What the right answer is worked out from.
    """
    if answer is ...:
        print(f"Exercise {exercise}: open. Replace the ... above and run the cell again.")
        return
    solve, hint = EXERCISES[exercise]
    expected = solve(**given)
    try:
        right = (
            float(answer) == expected
            if isinstance(expected, int)
            else bool(np.isclose(float(answer), expected, rtol=0.01))
        )
    except (TypeError, ValueError):  # not a number at all
        right = False
    print(f"Exercise {exercise}: right." if right else f"Exercise {exercise}: not yet. {hint}")
