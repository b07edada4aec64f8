"""What a score is, said once.

Its name in files, its name for people, how it is worked out, and which way is better.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS, LESIONS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation import metrics


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score, called with what it is a function of.

    Attributes:
        key: Its dotted name in metrics.json: of a score of HEADLINE below `full_size`, and in `intervals`; it
            is also the name of its columns in comparison.csv.
        label: Its name for people, in tables and figures and in the columns of the benchmarks' tables.
        function: What works it out; see HEADLINE and PER_SLICE.
        meaning: What the label leaves open, in a few words.
        less_is_better: Whether a smaller value is the better one.
        digits: How many to show after the point.
    """

    key: str
    label: str
    function: Callable[[Any], Any]
    meaning: str = ""
    less_is_better: bool = False
    digits: int = 3

    def __call__(self, data: Any) -> Any:
        """The score of `data`, as `function` takes it."""
        return self.function(data)

    @property
    def heading(self) -> str:
        """The label in two lines, for a narrow column."""
        return self.label.replace(" Dice", "\nDice")

    @property
    def better(self) -> str:
        """Which way is better, in words."""
        return _("less is better") if self.less_is_better else _("more is better")

    def text(self, value: float, sign: str = "") -> str:
        """A value, or with the sign "+" a difference, as people read it."""
        return f"{value:{sign}.{self.digits}f}"


def _dice_of(c: int) -> Callable[[np.ndarray], Any]:
    return lambda counts: metrics.dice(counts)[..., c]


def _mean_lesion_dice(counts: np.ndarray) -> Any:
    return metrics.nanmean(metrics.dice(counts)[..., list(LESIONS)])


def _missed(table: pd.DataFrame) -> pd.Series:
    return (table.lesion_borders == "only_truth").astype(float)


def _burden_error(table: pd.DataFrame) -> pd.Series:
    return (table.burden_predicted - table.burden_true).abs()


def _by_key(*scores: Score) -> dict[str, Score]:
    return {score.key: score for score in scores}


# Pooled: functions of counts (..., 4, 4), summed over the slices, to (...), NaN where the score is undefined.
# They are reported with intervals, and runs are compared by them.
HEADLINE = _by_key(
    Score(key="accuracy", label=N_("accuracy"), function=metrics.accuracy),
    Score(key="mean_iou", label="mIoU", function=metrics.mean_iou),
    Score(key="classes.ground_glass.dice", label=N_("ground glass Dice"), function=_dice_of(GROUND_GLASS)),
    Score(key="classes.consolidation.dice", label=N_("consolidation Dice"), function=_dice_of(CONSOLIDATION)),
    Score(
        key="competition.pooled",
        label=N_("mean lesion Dice"),
        function=_mean_lesion_dice,
        meaning="mean of ground glass and consolidation",
    ),
    Score(
        key="lesion_dice",
        label=N_("lesion Dice"),
        function=metrics.lesion_dice,
        meaning="both lesions as one class",
    ),
)

# Per slice: functions of the table of per_slice.csv to one value a slice, NaN where undefined; the score is
# their mean.
PER_SLICE = _by_key(
    Score(
        key="borders.lesion.cases.only_truth",
        label=N_("share of slices whose lesion is missed"),
        function=_missed,
        meaning="metrics.json has their number",
        less_is_better=True,
    ),
    Score(
        key="borders.lesion.hd95_px.mean",
        label=N_("HD95 of the lesion, px"),
        function=lambda table: table.lesion_hd95_px,
        less_is_better=True,
        digits=1,
    ),
    Score(
        key="borders.lesion.surface_dice_2px.mean",
        label=N_("surface Dice of the lesion, 2 px"),
        function=lambda table: table.lesion_surface_dice_2px,
    ),
    Score(
        key="burden.slices.mean_absolute_error",
        label=N_("burden, absolute error"),
        function=_burden_error,
        less_is_better=True,
    ),
)

BY_LABEL = {score.label: score for score in (*HEADLINE.values(), *PER_SLICE.values())}


def by_label(*keys: str) -> dict[str, Score]:
    """These scores of HEADLINE in this order, all of them if none is named, by their labels."""
    return {HEADLINE[key].label: HEADLINE[key] for key in keys or HEADLINE}


def stored(record: Mapping[str, Any], key: str) -> float:
    """The number under a dotted name, NaN for None.

    Args:
        record: metrics.json, or its `full_size` for a score of HEADLINE.
        key: Such as `classes.ground_glass.dice`.

    Raises:
        KeyError: Nothing has that name.
    """
    value: Any = record
    for part in key.split("."):
        value = value[part]
    return np.nan if value is None else float(value)
