"""Several runs side by side: the settings that differ, the scores, and the paired difference of each run to the first one."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import SHORT_NAMES
from lungseg_utils.core.files import InputError, atomic_write, resolve_path, write_csv
from lungseg_utils.evaluation.evaluator import HEADLINE
from lungseg_utils.evaluation.intervals import INTERVAL_NOTE, clusters, paired_difference
from lungseg_utils.evaluation.results import COUNT_COLUMNS, SCHEMA, counts_of
from lungseg_utils.inference.settings import InferenceSettings

SAME_SLICES = [
    "source",
    "index",
    *(f"{short}_true" for short in SHORT_NAMES),
]  # what per_slice.csv says of the truth
PLAIN = json.loads(
    json.dumps(asdict(InferenceSettings()))
)  # how runs of schema 1 predicted, which say nothing of it
# The scores of HEADLINE with their headings, of two lines where there is more than one of a kind.
LABELS = {
    "accuracy": "accuracy",
    "mean_iou": "mIoU",
    "classes.ground_glass.dice": "ground glass\nDice",
    "classes.consolidation.dice": "consolidation\nDice",
    "competition.pooled": "mean of both\nDice",
    "lesion_dice": "lesion as one\nDice",
}


@dataclass(frozen=True)
class Run:
    """A run directory's settings, its metrics.json (`record`) and, where it can be read, its per_slice.csv (`slices`).

    slices: sorted by index; counts: the slices' confusion counts (N, 4, 4), which runs of schema 1 lack.
    """

    folder: Path
    name: str
    parameters: dict[str, Any]
    record: dict[str, Any]
    slices: pd.DataFrame | None
    counts: np.ndarray | None

    def score(self, name: str) -> float:
        """A score by its name in HEADLINE; NaN where it is undefined."""
        value = self.record["full_size"]
        for key in name.split("."):
            value = value[key]
        return np.nan if value is None else float(value)

    def interval(self, name: str) -> tuple[float, float]:
        """The bootstrap interval of a score; NaN where none is stored, as in schema 1."""
        low, high = self.record.get("intervals", {}).get(name) or (np.nan, np.nan)
        return float(low), float(high)

    def scored_on(self) -> str:
        """Which slices the scores are of, in words."""
        rows, columns = self.record["size"]
        return f"{self.record['slices']} {self.record['source']} slices of {rows} x {columns} pixels"


def load_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs in these run directories, in this order; one that is named twice counts once.

    A run's name is its path below the folder that all of them share. Raises InputError, naming the run, for a folder that
    is no finished run, and for a metrics.json that cannot be read or is newer than this package.
    """
    folders = list(dict.fromkeys(resolve_path(path) for path in paths))
    shared = os.path.commonpath([folder.parent for folder in folders])
    return [_load_run(folder, folder.relative_to(shared).as_posix()) for folder in folders]


def _load_run(folder: Path, name: str) -> Run:
    path = folder / "results" / "metrics.json"
    if (record := _read_json(path)) is None:
        found = "has no results/metrics.json" if folder.is_dir() else "is no folder"
        raise InputError(
            f"{folder} {found}; expected a run directory in which 04_results has finished; run it, or leave it out."
        )
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(f"{path} has schema {schema}; this lungseg reads schemas up to {SCHEMA}; update it.")
    runner, model = (_read_json(folder / name) or {} for name in ("run.json", "model/config.json"))
    try:
        # Each source knows better than those before it. What 04_results was given is in its own words in metrics.json.
        executed = [
            entry.get("parameters", {})
            for stem, entry in runner.get("notebooks", {}).items()
            if stem != "04_results"
        ]
        parameters = {name: value for given in executed for name, value in given.items()}
        parameters |= model.get("training", {})
        parameters |= record["inference"] if "inference" in record else PLAIN
        run = Run(folder, name, parameters, record, *_read_slices(folder / "results" / "per_slice.csv"))
        run.scored_on(), [(run.score(score), run.interval(score)) for score in LABELS]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not as the README documents it ({error!r}); run 04_results there again."
        ) from error
    return run


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
            f"{path} holds a {type(record).__name__}; expected a JSON object; run the notebook that wrote it again."
        )
    return record


def _read_slices(path: Path) -> tuple[pd.DataFrame | None, np.ndarray | None]:
    try:
        table = pd.read_csv(path).sort_values(["source", "index"], ignore_index=True)
        table[SAME_SLICES]  # KeyError if one is missing
        whole = {"volume", *COUNT_COLUMNS} <= {*table} and table[list(COUNT_COLUMNS)].notna().all(axis=None)
        return table, counts_of(table) if whole else None
    except (OSError, ValueError, KeyError):
        return None, None


def differing_parameters(runs: Sequence[Run]) -> list[str]:
    """Names of the settings whose values are not the same in all runs, or not known in some."""
    names = dict.fromkeys(
        name for run in runs for name in run.parameters if name not in ("run_dir", "prepared")
    )
    return [
        name
        for name in names
        if any(run.parameters.get(name) != runs[0].parameters.get(name) for run in runs)
    ]


def compare_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run, the first run first. Seeds of one setting stand together, and none is averaged away.

    Columns: `run`; `setting`, the differing parameters but the seed, in words; each differing parameter; `scored_on`; for each
    name of HEADLINE: NAME, its bootstrap interval NAME_low and NAME_high, the paired difference run minus first run
    NAME_difference, and its interval NAME_difference_low and NAME_difference_high. NaN for what there is not: `notes` says why.
    """
    first, rows = runs[0], []
    differing = differing_parameters(runs)
    for run in runs:
        row = {"run": run.name, "setting": _setting(run, differing)}
        row |= {name: run.parameters.get(name) for name in differing} | {"scored_on": run.scored_on()}
        paired = {}
        if run is not first and not why_unpaired(first, run):
            paired = paired_difference(run.counts, first.counts, HEADLINE, clusters(first.slices.volume))
        for name in LABELS:
            row[name] = run.score(name)
            row[f"{name}_low"], row[f"{name}_high"] = run.interval(name)
            found = paired.get(name, {"difference": None, "interval": None})
            row[f"{name}_difference"] = np.nan if found["difference"] is None else found["difference"]
            row[f"{name}_difference_low"], row[f"{name}_difference_high"] = found["interval"] or (
                np.nan,
                np.nan,
            )
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.iloc[np.argsort(pd.factorize(table.setting)[0], kind="stable")].reset_index(drop=True)


def _setting(run: Run, differing: Sequence[str]) -> str:
    return ", ".join(f"{name} {_words(run.parameters.get(name))}" for name in differing if name != "seed")


def why_unpaired(first: Run, run: Run) -> str | None:
    """Why there is no paired difference between two runs; None if there is one."""
    if run.scored_on() != first.scored_on():
        return f"{run.scored_on()}, but {first.scored_on()} in {first.name}: these scores cannot be ranked"
    for one in (first, run):
        if one.slices is None:
            return (
                f"results/per_slice.csv of {one.name} is missing or unreadable, so they may be other slices"
            )
    if not run.slices[SAME_SLICES].equals(first.slices[SAME_SLICES]):
        return f"other slices, or other labels, than in {first.name}: these scores cannot be ranked"
    for one in (first, run):
        if one.counts is None:
            return f"results/per_slice.csv of {one.name} has no confusion counts, as older runs have none; run 04_results there again"
    return None


def notes(runs: Sequence[Run]) -> list[str]:
    """How to read the table; what it lacks, and why."""
    first, *others = runs
    found = [INTERVAL_NOTE]
    differing = differing_parameters(runs)
    if "seed" in differing and len({_setting(run, differing) for run in runs}) < len(runs):
        found.append(
            "Runs that differ in nothing but the seed show what chance alone does; a smaller difference says little."
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
    """The table of compare_runs in words and in parts that fit a screen: title -> rows of cells of one or two lines."""
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
    paired = table[table[[f"{name}_difference" for name in LABELS]].notna().any(axis=1)]
    if len(paired):
        parts[f"Paired difference to {table.run[0]}"] = _score_rows(paired, "_difference", "+")
    return parts


def _words(value: Any) -> str:
    return (
        "-" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _score_rows(table: pd.DataFrame, part: str = "", sign: str = "") -> list[list[str]]:
    """Each score over its interval; the interval without leading zeros, so that six scores fit on a line."""
    rows = [["run", *LABELS.values()]]
    for _, row in table.iterrows():
        rows.append([row.run])
        for value, low, high in (
            row[[name, f"{name}_low", f"{name}_high"]] for name in (f"{label}{part}" for label in LABELS)
        ):
            text = "-" if np.isnan(value) else f"{value:{sign}.3f}"
            if not np.isnan(low):
                text += re.sub(r"\b0\.", ".", f"\n{low:{sign}.3f} to {high:{sign}.3f}")
            rows[-1].append(text)
    return rows


def as_text(parts: dict[str, list[list[str]]], width: int = 24) -> str:
    """`blocks` for a terminal. Of a longer line of a cell the last `width` characters are shown."""
    text = []
    for title, rows in parts.items():
        lines = []  # of cells of one line each
        for row in rows:
            cells = [cell.split("\n") for cell in row]
            lines += [
                [cell[k] if k < len(cell) else "" for cell in cells] for k in range(max(map(len, cells)))
            ]
        lines = [[cell if len(cell) <= width else f"…{cell[1 - width :]}" for cell in line] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text += [f"{title}:", *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines), ""]
    return "\n".join(text)


def as_markdown(parts: dict[str, list[list[str]]], sentences: Sequence[str]) -> str:
    """`blocks` and `notes` as a Markdown document."""
    text = ["# Comparison of runs", ""]
    for title, (heading, *rows) in parts.items():
        lines = [heading, ["---"] * len(heading), *rows]
        text += [f"## {title}", "", *(f"| {' | '.join(line)} |".replace("\n", "<br>") for line in lines), ""]
    return "\n".join([*text, *(f"- {sentence}" for sentence in sentences), ""])


def save_comparison(folder: str | Path, runs: Sequence[Run], table: pd.DataFrame) -> None:
    """Write comparison.csv (the whole table) and comparison.md."""
    write_csv(Path(folder) / "comparison.csv", table)
    with atomic_write(Path(folder) / "comparison.md") as handle:
        handle.write(as_markdown(blocks(table), notes(runs)))
