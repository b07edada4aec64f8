"""Several runs side by side.

The settings that differ, the scores, and the paired difference of each run to the first one.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import SHORT_NAMES
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.data.preprocessing import fingerprint
from lungseg_utils.evaluation.intervals import INTERVAL_NOTE, clusters, paired_difference
from lungseg_utils.evaluation.results import COUNT_COLUMNS, SCHEMA, counts_of
from lungseg_utils.evaluation.scores import HEADLINE, stored
from lungseg_utils.inference.settings import InferenceSettings

# What per_slice.csv says of the truth.
SAME_SLICES = ["source", "index", *(f"{short}_true" for short in SHORT_NAMES)]


@dataclass(frozen=True)
class Run:
    """One finished run, as its files tell.

    Attributes:
        folder: The run directory.
        name: Short, and different from the other runs'.
        parameters: The settings of training and inference, by name.
        record: metrics.json.
        scored_on: Which slices the scores are of, in words.
        scores: By name in HEADLINE; NaN where one is undefined.
        intervals: The bootstrap interval of each score; NaN where none is stored, as in schema 1.
        slices: per_slice.csv, sorted by index; None if it cannot be read.
        counts: The slices' confusion counts (N, 4, 4); None for runs of schema 1.
    """

    folder: Path
    name: str
    parameters: dict[str, Any]
    record: dict[str, Any]
    scored_on: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    slices: pd.DataFrame | None
    counts: np.ndarray | None


class Unfinished(InputError):
    """A run directory without results, or with results that are not of what lies beside them."""


def load_runs(paths: Iterable[str | Path], left_out: list[str] | None = None) -> list[Run]:
    """The runs in run directories, in this order; one that is named twice counts once.

    Args:
        paths: The run directories. A run's name is its path below the folder that all of them share.
        left_out: If given, unfinished runs are left out and the reasons added to it, as long as there is
            another.

    Raises:
        InputError: Which names the run, for a folder that is no finished run, and for a metrics.json that
            cannot be read or is newer than this package.
    """
    folders = list(dict.fromkeys(resolve_path(path) for path in paths))
    shared = os.path.commonpath([folder.parent for folder in folders])
    runs, unfinished = [], []
    for folder in folders:
        try:
            runs.append(_load_run(folder, folder.relative_to(shared).as_posix()))
        except Unfinished as error:
            unfinished.append(error)
    if unfinished and (left_out is None or not runs):
        raise unfinished[0]
    if left_out is not None:
        left_out += map(str, unfinished)
    return runs


def _load_run(folder: Path, name: str) -> Run:
    path = folder / "results" / "metrics.json"
    if (record := _read_json(path)) is None:
        found, kind = (
            ("has no results/metrics.json", Unfinished) if folder.is_dir() else ("is no folder", InputError)
        )
        raise kind(
            f"{folder} {found}; expected a run directory in which 04_results has finished; run it, or leave "
            "it out."
        )
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(f"{path} has schema {schema}; this lungseg reads schemas up to {SCHEMA}; update it.")
    runner, model = (_read_json(folder / name) or {} for name in ("run.json", "model/config.json"))
    slices, counts = _read_slices(folder / "results" / "per_slice.csv")
    try:
        rows, columns = record["size"]
        run = Run(
            folder=folder,
            name=name,
            parameters=_parameters(runner, model, record),
            record=record,
            scored_on=f"{record['slices']} {record['source']} slices of {rows} x {columns} pixels",
            scores={score: stored(record["full_size"], score) for score in HEADLINE},
            intervals={score: _interval(record, score) for score in HEADLINE},
            slices=slices,
            counts=counts,
        )
        _check_ties(run, model)
        return run
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not as the README documents it ({error!r}); run 04_results there again."
        ) from error


def _parameters(runner: dict[str, Any], model: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run. Each source knows better than those before it.

    What 04_results was given is in its own words in metrics.json; runs of schema 1, which say nothing of it,
    predicted as the defaults do.
    """
    parameters: dict[str, Any] = {}
    for stem, entry in runner.get("notebooks", {}).items():
        if stem != "04_results":
            parameters |= entry.get("parameters", {})
    parameters |= model.get("training", {})
    return parameters | record.get("inference", _as_json(asdict(InferenceSettings())))


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a JSON file gives them back: lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _interval(record: dict[str, Any], score: str) -> tuple[float, float]:
    low, high = record.get("intervals", {}).get(score) or (np.nan, np.nan)
    return float(low), float(high)


def _check_ties(run: Run, model: dict[str, Any]) -> None:
    """Raises Unfinished if model/ or prepared/ were made anew since 04_results.

    The settings are then not the scores'.
    """
    tie = run.record.get("tie")  # older results have none
    if not tie:
        return
    stale = None
    if not run.record.get("model") and model and model.get("weights_sha256") != tie["weights"]:
        stale = "model"
    if (run.folder / "prepared" / "slices.csv").exists() and fingerprint(run.folder / "prepared") != tie[
        "prepared"
    ]:
        stale = "prepared"
    if stale:
        raise Unfinished(
            f"{run.folder}: results/ is of an earlier {stale}/ than is there now; run what follows it again, "
            "or leave it out."
        )


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected JSON; run the notebook that wrote it again."
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path} holds a {type(record).__name__}; expected a JSON object; run the notebook that wrote it "
            "again."
        )
    return record


def _read_slices(path: Path) -> tuple[pd.DataFrame | None, np.ndarray | None]:
    """per_slice.csv, by rising index, and its confusion counts; None for what it lacks."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return None, None
    if not {*SAME_SLICES} <= {*table}:
        return None, None
    table = table.sort_values(["source", "index"], ignore_index=True)
    if not {"volume", *COUNT_COLUMNS} <= {*table} or table[list(COUNT_COLUMNS)].isna().any(axis=None):
        return table, None
    return table, counts_of(table)


def differing_parameters(runs: Sequence[Run]) -> list[str]:
    """Names of the settings whose values are not the same in all runs, or not known in some."""
    names = dict.fromkeys(
        name
        for run in runs
        for name in run.parameters
        if name not in ("run_dir", "prepared", "prepared_before", "language")
    )
    return [
        name
        for name in names
        if any(run.parameters.get(name) != runs[0].parameters.get(name) for run in runs)
    ]


def compare_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """Runs side by side; seeds of one setting stand together, and none is averaged away.

    Args:
        runs: From `load_runs`; the first is what the others are compared with.

    Returns:
        One row a run, the first run first. Columns: `run`; `setting`, the differing parameters but the seed,
        in words; each differing parameter; `scored_on`; for each name of HEADLINE: NAME, its bootstrap
        interval NAME_low and NAME_high, the paired difference run minus first run NAME_difference, and its
        interval NAME_difference_low and NAME_difference_high. NaN for what there is not: `notes` says why.
    """
    first, rows = runs[0], []
    differing = differing_parameters(runs)
    for run in runs:
        row: dict[str, Any] = {"run": run.name, "setting": setting_of(run, differing)}
        row |= {name: run.parameters.get(name) for name in differing} | {"scored_on": run.scored_on}
        differences = _differences(first, run)
        for name in HEADLINE:
            row[name] = run.scores[name]
            row[f"{name}_low"], row[f"{name}_high"] = run.intervals[name]
            found = differences.get(name, {"difference": None, "interval": None})
            row[f"{name}_difference"] = np.nan if found["difference"] is None else found["difference"]
            low, high = found["interval"] or (np.nan, np.nan)
            row[f"{name}_difference_low"], row[f"{name}_difference_high"] = low, high
        rows.append(row)
    table = pd.DataFrame(rows)
    setting_first_seen, _ = pd.factorize(table.setting)
    return table.iloc[np.argsort(setting_first_seen, kind="stable")].reset_index(drop=True)


def _differences(first: Run, run: Run) -> dict[str, dict[str, Any]]:
    """paired_difference of the run minus the first one; empty where the two cannot be paired."""
    if run is first or why_unpaired(first, run):
        return {}
    if run.counts is None or first.counts is None or first.slices is None:  # why_unpaired has said so
        return {}
    return paired_difference(run.counts, first.counts, HEADLINE, clusters(first.slices.volume))


def setting_of(run: Run, differing: Sequence[str], aside: Sequence[str] = ("seed",)) -> str:
    """The differing parameters of a run in words, but for those that are put aside."""
    return ", ".join(f"{name} {_words(run.parameters.get(name))}" for name in differing if name not in aside)


def why_unpaired(first: Run, run: Run) -> str | None:
    """Why there is no paired difference between two runs; None if there is one."""
    if run.scored_on != first.scored_on:
        return f"{run.scored_on}, but {first.scored_on} in {first.name}: these scores cannot be ranked"
    if first.slices is None or run.slices is None:
        name = first.name if first.slices is None else run.name
        return f"results/per_slice.csv of {name} is missing or unreadable, so they may be other slices"
    if not run.slices[SAME_SLICES].equals(first.slices[SAME_SLICES]):
        return f"other slices, or other labels, than in {first.name}: these scores cannot be ranked"
    for one in (first, run):
        if one.counts is None:
            return (
                f"results/per_slice.csv of {one.name} has no confusion counts, as older runs have none; "
                "run 04_results there again"
            )
    return None


def notes(runs: Sequence[Run]) -> list[str]:
    """How to read the table; what it lacks, and why."""
    first, *others = runs
    found = [INTERVAL_NOTE]
    differing = differing_parameters(runs)
    if "seed" in differing and len({setting_of(run, differing) for run in runs}) < len(runs):
        found.append(
            "Runs that differ in nothing but the seed show what chance alone does; a smaller difference says "
            "little."
        )
    if old := [run.name for run in runs if not run.record.get("intervals")]:
        found.append(f"No intervals for {', '.join(old)}: older runs have none; run 04_results there again.")
    reasons: dict[str, list[str]] = {}
    for run in others:
        if reason := why_unpaired(first, run):
            reasons.setdefault(reason, []).append(run.name)
    return found + [
        f"No paired difference for {', '.join(names)}: {reason}." for reason, names in reasons.items()
    ]


def blocks(table: pd.DataFrame) -> dict[str, list[list[str]]]:
    """The table of compare_runs in words and in parts that fit a screen.

    Title -> rows of cells of one or two lines.
    """
    settings = [*table.loc[:, "setting":"scored_on"]][1:]
    where = ""
    if table.scored_on.nunique() == 1:
        settings.remove("scored_on")
        where = f" on {table.scored_on[0]}"
    table = table.assign(scored_on=table.scored_on.str.replace(" of ", "\nof "))
    parts = {}
    if settings:
        rows = [["run", *settings], *([row.run, *map(_words, row[settings])] for _, row in table.iterrows())]
        few = len(settings) > len(table)  # few runs that differ in much: one column a run
        parts["Settings that differ"] = [list(column) for column in zip(*rows)] if few else rows
    parts[f"Scores{where}; below each its 95 % bootstrap interval"] = _score_rows(table)
    paired = table[table[[f"{name}_difference" for name in HEADLINE]].notna().any(axis=1)]
    if len(paired):
        parts[f"Paired difference to {table.run[0]}"] = _score_rows(paired, "_difference", "+")
    return parts


def _words(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _score_rows(table: pd.DataFrame, part: str = "", sign: str = "") -> list[list[str]]:
    """A line a run, a cell a score: the score over its interval. `part` ends the names of the columns."""
    rows = [["run", *(score.heading for score in HEADLINE.values())]]
    for _, row in table.iterrows():
        cells = []
        for name, score in HEADLINE.items():
            value, low, high = (row[f"{name}{part}{end}"] for end in ("", "_low", "_high"))
            text = "-" if np.isnan(value) else score.text(value, sign)
            if not np.isnan(low):
                interval = f"{score.text(low, sign)} to {score.text(high, sign)}"
                # Without leading zeros, so that six scores fit on a line.
                text += "\n" + re.sub(r"\b0\.", ".", interval)
            cells.append(text)
        rows.append([row.run, *cells])
    return rows


def as_text(parts: dict[str, list[list[str]]], width: int = 24) -> str:
    """`blocks` for a terminal. Of a longer line of a cell the last `width` characters are shown."""
    text = []
    for title, rows in parts.items():
        lines: list[list[str]] = []  # of cells of one line each
        for row in rows:
            cells = [cell.split("\n") for cell in row]
            lines += map(list, zip_longest(*cells, fillvalue=""))
        lines = [[_tail(cell, width) for cell in line] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text += [f"{title}:", *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines), ""]
    return "\n".join(text)


def _tail(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"…{cell[1 - width :]}"


def as_markdown(parts: dict[str, list[list[str]]], sentences: Sequence[str]) -> str:
    """`blocks` and `notes` as a Markdown document."""
    text = ["# Comparison of runs", ""]
    for title, (heading, *rows) in parts.items():
        lines = [heading, ["---"] * len(heading), *rows]
        text += [f"## {title}", "", *(f"| {' | '.join(line)} |".replace("\n", "<br>") for line in lines), ""]
    return "\n".join([*text, *(f"- {sentence}" for sentence in sentences), ""])
