"""How sure is a score.

Bootstrap intervals over slices or volumes from stored confusion counts, and two runs compared.

Percentile intervals (Efron and Tibshirani 1993, chapter 13). A draw takes as many slices as there are, with
replacement; their counts are summed and scored, as the pooled score is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _

INTERVAL_NOTE = N_(
    "Intervals are conditional on these patients and on this trained network: they say nothing about other "
    "hospitals, "
    "nor about another seed. Slices of one patient are alike; drawn one by one, as where patients are not "
    "known, they make "
    "intervals too narrow."
)

Scores = Mapping[
    str, Callable[[np.ndarray], np.ndarray]
]  # by name, counts (..., 4, 4) -> score (...), NaN undefined
Interval = tuple[float, float] | None
Volumes = Sequence[Any] | pd.Series  # the number of each slice's volume; None, NaN or NA where unknown


def interval_note() -> str:
    """What the intervals leave out, for readers."""
    return _(INTERVAL_NOTE)


def clusters(volumes: Volumes) -> Volumes | None:
    """The volumes for `bootstrap` to draw whole.

    Args:
        volumes: Of each slice, missing where unknown.

    Returns:
        The volumes where at least three are known; None (draw slices) where fewer are.
    """
    return volumes if pd.Series(volumes).nunique() >= 3 else None


def bootstrap(
    per_slice: np.ndarray,
    scores: Scores,
    volumes: Volumes | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """(low, high) of each pooled score.

    Conditional on these patients and on this trained network (INTERVAL_NOTE).

    per_slice: (N, 4, 4) confusion counts. volumes: number of each slice's volume; whole volumes are then
    drawn (cluster bootstrap), because slices of one volume are alike, and drawing them one by one makes
    intervals too narrow; a slice whose volume is missing is drawn by itself. With a handful of volumes an
    interval is itself only a rough guess. A draw in which a score is undefined (its class is absent) is left
    out; None if that leaves less than half of the draws, or if there is only one slice, or one volume, to
    draw from.
    """
    drawn = _draw(per_slice, volumes, draws, seed)
    return {name: percentiles(score(drawn), level) for name, score in scores.items()}


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    scores: Scores,
    volumes: Volumes | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Run a minus run b, each draw scoring both on the same slices: what both find hard cancels out.

    Args:
        a: (N, 4, 4) confusion counts.
        b: (N, 4, 4) confusion counts of the same slices in the same order.
        scores: Score functions by name.
        volumes: See `bootstrap`.
        draws: Of the bootstrap.
        level: Of the intervals.
        seed: Of the draws.

    Returns:
        By score: `difference` of the pooled scores; `interval` (low, high) of it, as in bootstrap;
        `share_above`, the share of the valid draws in which a scores above b (not a p-value). Each is None
        where it is undefined.

    Raises:
        InputError: If the slices are not the same.
    """
    if len(a) != len(b):
        raise InputError(f"The runs have {len(a)} and {len(b)} slices; expected the same slices in both.")
    if (different := (a.sum(-1) != b.sum(-1)).any(-1)).any():
        raise InputError(
            f"The runs differ in the true pixels of {different.sum()} slices, first at position "
            f"{different.argmax()}; "
            "score both on the same slices, in the same order and at the same size."
        )
    drawn_a, drawn_b = (
        _draw(run, volumes, draws, seed) for run in (a, b)
    )  # by one seed, so of the same slices
    record = {}
    for name, score in scores.items():
        pooled = float(score(a.sum(0)) - score(b.sum(0)))
        differences = score(drawn_a) - score(drawn_b)
        interval = percentiles(differences, level)
        record[name] = {
            "difference": None if np.isnan(pooled) else pooled,
            "interval": interval,
            "share_above": interval and float((differences[~np.isnan(differences)] > 0).mean()),
        }
    return record


def mean_paired_difference(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, Volumes | None]],
    scores: Scores,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, Interval, list[float]]]:
    """The mean over pairs of runs of first minus second, such as one setting minus another, seed by seed.

    Each draw scores all of them on the same slices, so the interval is over slices; what another seed would
    do, the spread of the pairs shows.

    Args:
        pairs: Confusion counts (N, 4, 4) of two runs on the same slices, and their volumes: see `bootstrap`.
        scores: Score functions by name.
        draws: Of the bootstrap.
        level: Of the intervals.
        seed: Of the draws.

    Returns:
        By score: the mean difference, its interval, and the difference of each pair; NaN where undefined.
    """
    drawn = [(_draw(a, volumes, draws, seed), _draw(b, volumes, draws, seed)) for a, b, volumes in pairs]
    found = {}
    for name, score in scores.items():
        each = [float(score(a.sum(0)) - score(b.sum(0))) for a, b, _ in pairs]
        differences = np.mean([score(a) - score(b) for a, b in drawn], axis=0)
        found[name] = (float(np.mean(each)), percentiles(differences, level), each)
    return found


def sum_by_volume(per_slice: np.ndarray, volumes: Volumes) -> tuple[pd.DataFrame, np.ndarray]:
    """Volumes in rising order (a table: volume, slices), and their slices' counts summed, (V, 4, 4).

    Slices of unknown volume (MedSeg has none) are one more row, the last, whose volume is missing (pandas
    NA). Raises InputError unless there is one volume for each slice.
    """
    if len(volumes) != len(per_slice):
        raise InputError(
            f"There are {len(volumes)} volume numbers for {len(per_slice)} slices; expected one for each."
        )
    codes, names = pd.factorize(pd.Series(volumes, dtype="Int64"), sort=True, use_na_sentinel=False)
    counts = np.zeros((len(names), *per_slice.shape[1:]), per_slice.dtype)
    np.add.at(counts, codes, per_slice)
    return pd.DataFrame({"volume": names, "slices": np.bincount(codes, minlength=len(names))}), counts


def volume_scores(per_slice: np.ndarray, scores: Scores, volumes: Volumes | None = None) -> pd.DataFrame:
    """Pooled scores of each volume, one by one.

    Args:
        per_slice: (N, 4, 4) confusion counts.
        scores: Score functions by name.
        volumes: Of each slice; if not given, one row for the whole.

    Returns:
        Rows as sum_by_volume's: volume, slices, and a column a score.
    """
    table, counts = sum_by_volume(per_slice, [pd.NA] * len(per_slice) if volumes is None else volumes)
    return table.assign(**{name: score(counts) for name, score in scores.items()})


def _draw(per_slice: np.ndarray, volumes: Volumes | None, draws: int, seed: int) -> np.ndarray:
    """Summed counts of each draw, (draws, 4, 4). The same seed, volumes and N draw the same slices."""
    units = per_slice
    if volumes is not None:
        table, summed = sum_by_volume(per_slice, volumes)
        units = np.concatenate(
            [summed[table.volume.notna()], per_slice[pd.Series(volumes, dtype="Int64").isna().to_numpy()]]
        )
    if len(units) < 2:
        return np.zeros(
            (draws, *per_slice.shape[1:]), per_slice.dtype
        )  # nothing varies: no score, hence no interval
    weights = np.random.default_rng(seed).multinomial(
        len(units), np.full(len(units), 1 / len(units)), size=draws
    )
    return (weights @ units.reshape(len(units), -1)).reshape(draws, *per_slice.shape[1:])


def percentiles(values: np.ndarray, level: float = 0.95) -> Interval:
    """(low, high) of the draws' values (D,), NaN left out; None if less than half of them are left."""
    valid = values[~np.isnan(values)]
    if 2 * len(valid) < len(values) or not len(valid):
        return None
    low, high = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
