"""TODO"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from folds import link_prepared

from lungseg_utils.core.files import write_csv
from lungseg_utils.data.preprocessing import Prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.results import slice_table
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train

REFERENCE = "reference"


@dataclass(frozen=True)
class Idea:
    """What differs from the recipe: settings of the training, and of inference."""

    topic: str
    training: Mapping[str, Any] = field(default_factory=dict)
    inference: InferenceSettings = InferenceSettings()


def run_idea(
    prepared: Prepared, slices: pd.DataFrame, idea: Idea, config: TrainingConfig, folder: Path
) -> pd.DataFrame:
    """Train on the fold's train rows and answer for its validation rows: `slice_table` with the seconds that it took.

    The last weights answer, so that nothing is chosen on what is answered. Goes on where an earlier call was stopped;
    a network that stands in `folder` already is not trained again.
    """
    config = replace(config, **idea.training)
    history = folder / "history.csv"
    if not (folder / "model" / "last.safetensors").exists():
        train(
            link_prepared(prepared, slices, folder / "prepared"),
            folder,
            replace(config, patience=config.epochs),
        )
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
