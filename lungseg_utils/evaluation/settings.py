"""Settings side by side: runs that differ in nothing but the seed, and the fold, taken together.

One run is one draw. A setting's mean and spread over its seeds, and the paired difference of two settings
seed by seed, say more than any two runs.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.evaluation.compare import Run, differing_parameters, setting_of, why_unpaired
from lungseg_utils.evaluation.intervals import clusters, mean_paired_difference
from lungseg_utils.evaluation.scores import HEADLINE, Score

REPEATS = ("seed", "validation_volume")  # what is drawn anew to see what chance does
SETTINGS_NOTE = (
    "Settings, seeds taken together: ± is the standard deviation over the seeds. A paired difference is the "
    "mean over the seeds; below it stands its interval over slices, with these trained networks, and in how "
    "many seeds the setting is above. Where seeds disagree on the sign, the difference is chance "
    "until more of them say otherwise."
)


def by_setting(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each setting, in the order of the runs; a setting is named by what differs."""
    differing = differing_parameters(runs)
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(setting_of(run, differing, REPEATS) or "all", []).append(run)
    return found


def compare_settings(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a setting, the first run's setting first.

    Args:
        runs: From `load_runs`.

    Returns:
        Columns: `setting`; `runs`, how many; `pairs`, how many of them have a partner of the same seed, fold
        and slices in the first setting; for each name of HEADLINE: NAME, the mean of the runs' scores,
        NAME_sd, their standard deviation, NAME_difference, the mean of the paired differences to the first
        setting, NAME_difference_low and NAME_difference_high, its interval over slices, and NAME_above, in
        how many pairs the difference is above 0. NaN for what there is not.
    """
    settings = by_setting(runs)
    first = next(iter(settings.values()))
    rows = []
    for setting, own in settings.items():
        pairs = [] if own is first else _pairs(own, first)
        row: dict[str, Any] = {"setting": setting, "runs": len(own), "pairs": len(pairs)}
        differences = mean_paired_difference(pairs, HEADLINE) if pairs else {}
        for name in HEADLINE:
            scores = np.array([run.scores[name] for run in own])
            row[name] = scores.mean()
            row[f"{name}_sd"] = scores.std(ddof=1) if len(scores) > 1 else np.nan
            mean, interval, each = differences.get(name, (np.nan, None, []))
            row[f"{name}_difference"] = mean
            row[f"{name}_difference_low"], row[f"{name}_difference_high"] = interval or (np.nan, np.nan)
            row[f"{name}_above"] = sum(one > 0 for one in each) if each else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _pairs(runs: Sequence[Run], first: Sequence[Run]) -> list[tuple[np.ndarray, np.ndarray, Any]]:
    """Counts of each run and of its partner of the same seed and fold, and the slices' volumes."""
    partners = {_repeat(run): run for run in first}
    pairs = []
    for run in runs:
        partner = partners.get(_repeat(run))
        if partner is None or why_unpaired(partner, run):
            continue
        if run.counts is None or partner.counts is None or partner.slices is None:  # why_unpaired says so
            continue
        pairs.append((run.counts, partner.counts, clusters(partner.slices.volume)))
    return pairs


def _repeat(run: Run) -> tuple[Any, ...]:
    return tuple(run.parameters.get(name) for name in REPEATS)


def setting_blocks(table: pd.DataFrame) -> dict[str, list[list[str]]]:
    """The table of `compare_settings` in words, as compare.blocks does it: title -> rows of cells."""
    heading = [score.heading for score in HEADLINE.values()]
    means = [["setting", "runs", *heading]]
    for _, row in table.iterrows():
        means.append([row.setting, str(row.runs), *(_mean(row, *item) for item in HEADLINE.items())])
    parts = {"Settings, mean ± standard deviation over seeds": means}
    if (table.pairs > 0).any():
        paired = [["setting", *heading]]
        for _, row in table[table.pairs > 0].iterrows():
            paired.append([row.setting, *(_gap(row, *item) for item in HEADLINE.items())])
        parts[f"Paired difference to {table.setting[0]}, seed by seed"] = paired
    return parts


def _mean(row: pd.Series, name: str, score: Score) -> str:
    if np.isnan(row[name]):
        return "-"
    spread = row[f"{name}_sd"]
    return score.text(row[name]) + ("" if np.isnan(spread) else f"\n± {score.text(spread)}")


def _gap(row: pd.Series, name: str, score: Score) -> str:
    mean, low, high = (row[f"{name}_difference{end}"] for end in ("", "_low", "_high"))
    if np.isnan(mean):
        return "-"
    text = score.text(mean, "+")
    if not np.isnan(low):
        interval = f"{score.text(low, '+')} to {score.text(high, '+')}"
        text += "\n" + re.sub(r"\b0\.", ".", interval)
    return f"{text}\n{row[f'{name}_above']:.0f} of {row['pairs']} above"
