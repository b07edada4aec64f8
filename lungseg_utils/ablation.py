"""What each idea adds to a recipe: one network an idea, fold and seed, and the table of paired differences.

`benchmarks/ablation.py` trains and writes the slices' confusion counts; `10_improvements` reads them.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils import metrics
from lungseg_utils.classes import CONSOLIDATION, GROUND_GLASS
from lungseg_utils.evaluation import HEADLINE
from lungseg_utils.files import CHECKOUT, InputError, resolve_path, write_csv
from lungseg_utils.inference import InferenceSettings, Segmenter
from lungseg_utils.intervals import paired_difference
from lungseg_utils.preprocessing import Prepared, link_prepared
from lungseg_utils.report import counts_of, slice_table
from lungseg_utils.training import train
from lungseg_utils.training_config import TrainingConfig

REFERENCE = "reference"
SCORES = {
    "mean lesion Dice": HEADLINE["competition.pooled"],
    "ground glass": HEADLINE["classes.ground_glass.dice"],
    "consolidation": HEADLINE["classes.consolidation.dice"],
    "lesion Dice": metrics.lesion_dice,
    "mIoU": metrics.mean_iou,
}
KEY = ["idea", "seed", "fold"]


@dataclass(frozen=True)
class Idea:
    """What differs from the recipe: settings of the training, and of inference."""

    topic: str
    training: Mapping[str, Any] = field(default_factory=dict)
    inference: InferenceSettings = InferenceSettings()


def read_results(name: str, folder: str | Path = "") -> pd.DataFrame:
    """A table that a benchmark wrote, from `folder`, else from the checkout's benchmarks/results. InputError if absent."""
    path = (resolve_path(folder) if folder else CHECKOUT / "benchmarks" / "results") / name
    if not path.is_file():
        raise InputError(f"there is no {name} in {path.parent}; run the benchmark that writes it, or name its folder.")
    return pd.read_csv(path)


def run_idea(prepared: Prepared, slices: pd.DataFrame, idea: Idea, config: TrainingConfig, folder: Path) -> pd.DataFrame:
    """Train on the fold's train rows and answer for its validation rows: `slice_table` with the seconds that it took.

    The last weights answer, so that nothing is chosen on what is answered. Goes on where an earlier call was stopped;
    a network that stands in `folder` already is not trained again.
    """
    config = replace(config, **idea.training)
    history = folder / "history.csv"
    if not (folder / "model" / "last.safetensors").exists():
        train(link_prepared(prepared, slices, folder / "prepared"), folder, replace(config, patience=config.epochs))
    rows = slices[slices.split == "validation"]
    index = rows["index"].to_numpy(int)
    segmenter = Segmenter.load(folder / "model", settings=idea.inference, name="last")
    start = time.perf_counter()
    labels = segmenter.labels(prepared.images["medseg"][index])
    answered = (time.perf_counter() - start) / len(rows)
    counts = metrics.slice_confusion(prepared.labels["medseg"][index], labels)
    table = slice_table("medseg", index, counts, [None] * len(rows))
    seconds = {"training_seconds": pd.read_csv(history).seconds.sum(), "seconds_per_slice": answered}
    return table.assign(**seconds)


def add_rows(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Add a network's rows to the results file, which stays whole whatever happens; returns all rows."""
    table = pd.concat([pd.read_csv(path), rows]) if path.exists() else rows
    write_csv(path, table, float_format="%.4f")
    return table


def effects(rows: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """One row an idea: its scores, pooled over the slices, and what it adds to the reference, with paired intervals.

    rows: of the results file. An idea is compared on the folds and seeds that it shares with the reference: each
    slice's counts are summed over the seeds, and slices are what the bootstrap draws. Intervals (95 %) hold for these
    patients; with one seed they leave out how much training by chance differs. Raises InputError without a reference.
    """
    if reference not in set(rows.idea):
        raise InputError(f"the results hold no idea named {reference!r}; found {', '.join(map(str, rows.idea.unique()))}.")
    base = rows[rows.idea == reference]
    table = []
    for name, own in rows.groupby("idea", sort=False):
        shared = own[["seed", "fold", "index"]].merge(base[["seed", "fold", "index"]])
        mine, theirs = (_summed(part.merge(shared)) for part in (own, base))
        found = paired_difference(mine, theirs, SCORES)
        row = {"idea": name, "seeds": shared.seed.nunique(), "folds": shared.fold.nunique(), "slices": len(mine)}
        for score, function in SCORES.items():
            low, high = found[score]["interval"] or (np.nan, np.nan)
            row |= {score: float(function(mine.sum(0))), f"{score}, difference": found[score]["difference"]}
            row |= {f"{score}, low": low, f"{score}, high": high}
        each = own.drop_duplicates(KEY)
        row |= {"training minutes": each.training_seconds.mean() / 60, "ms per slice": 1000 * each.seconds_per_slice.mean()}
        table.append(row)
    return pd.DataFrame(table)


def most_disputed(rows: pd.DataFrame, idea: str) -> pd.DataFrame:
    """Slices by rising Dice of the idea's held-out answers: where model and label disagree most, for a human to look at.

    Columns: index (within MedSeg), mean lesion Dice, lesion Dice, and the pixels on which each lesion class differs.
    """
    own = rows[rows.idea == idea].sort_values("index")
    counts = _summed(own)
    table = pd.DataFrame({"index": np.sort(own["index"].unique())})
    for score in ("mean lesion Dice", "lesion Dice"):
        table[score] = SCORES[score](counts)
    for c, short in ((GROUND_GLASS, "ground glass"), (CONSOLIDATION, "consolidation")):
        table[f"{short}, label only"] = counts[:, c].sum(1) - counts[:, c, c]
        table[f"{short}, model only"] = counts[:, :, c].sum(1) - counts[:, c, c]
    return table.sort_values("mean lesion Dice", ignore_index=True)


def _summed(rows: pd.DataFrame) -> np.ndarray:
    """(N, 4, 4) counts of each slice, by rising index, summed over the seeds."""
    rows = rows.sort_values("index", kind="stable")
    slices, group = np.unique(rows["index"], return_inverse=True)
    counts = np.zeros((len(slices), 4, 4), np.int64)
    np.add.at(counts, group, counts_of(rows))
    return counts
