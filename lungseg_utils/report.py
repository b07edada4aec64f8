"""What 04_results leaves behind: a line for each slice, the files under results/, and conclusions in words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils import metrics
from lungseg_utils.classes import CLASSES, LESIONS, SHORT_NAMES
from lungseg_utils.files import atomic_write


def slice_table(source: str, index: Sequence[int], per_slice: np.ndarray) -> pd.DataFrame:
    """One row a slice: its scores, and each class's Dice, true and predicted pixels. per_slice: (N, 4, 4) confusion matrices."""
    columns = {
        "accuracy": [metrics.accuracy(counts) for counts in per_slice],
        "mean_iou": [metrics.mean_iou(counts) for counts in per_slice],
        "lesion_dice": [metrics.lesion_dice(counts) for counts in per_slice],
    }
    for c, short in enumerate(SHORT_NAMES):
        columns[f"{short}_dice"] = [metrics.dice(counts)[c] for counts in per_slice]
        columns[f"{short}_true"] = per_slice[:, c].sum(axis=1)
        columns[f"{short}_predicted"] = per_slice[:, :, c].sum(axis=1)
    return pd.DataFrame({"source": source, "index": index, **columns})


def worst_to_best(table: pd.DataFrame) -> pd.Index:
    """Rows of slice_table by rising lesion Dice; slices without a lesion, true or predicted, only if there is no other."""
    ranked = table.lesion_dice.dropna().sort_values()
    return ranked.index if len(ranked) else table.index


def save_results(folder: str | Path, table: pd.DataFrame, counts: np.ndarray, record: dict[str, Any]) -> None:
    """Write per_slice.csv, confusion.csv (rows are the truth) and metrics.json, whose schema the README documents."""
    folder = Path(folder)
    with atomic_write(folder / "per_slice.csv") as handle:
        table.to_csv(handle, index=False)
    with atomic_write(folder / "confusion.csv") as handle:
        pd.DataFrame(counts, SHORT_NAMES, SHORT_NAMES).to_csv(handle, index_label="true")
    with atomic_write(folder / "metrics.json") as handle:
        json.dump({"schema": 1, **record}, handle, indent=2, allow_nan=False)


def conclusions(scores: dict[str, Any], counts: np.ndarray, epochs: int, kept: int) -> list[str]:
    """Sentences about a run, each from its numbers.

    scores: as `metrics.summary` gives; counts: confusion matrix (4, 4), rows are the truth; epochs: how many were trained; kept:
    the epoch whose weights were kept, from 1.
    """
    share = counts.sum(1) / counts.sum()
    commonest = int(share.argmax())
    gain = scores["accuracy"] - share[commonest]
    dice = {c.name: scores["classes"][c.short]["dice"] for c in CLASSES if scores["classes"][c.short]["dice"] is not None}
    best, worst = max(dice, key=dice.get), min(dice, key=dice.get)
    sentences = [
        f"**Accuracy** is {scores['accuracy']:.3f}; answering *{CLASSES[commonest].name}* everywhere would reach "
        f"{share[commonest]:.3f}, so the network adds {100 * gain:.1f} points. **mIoU** is {scores['mean_iou']:.3f}.",
        f"The best class is *{best}* (Dice {dice[best]:.3f}), the weakest *{worst}* (Dice {dice[worst]:.3f}).",
    ]
    for c, name in zip(LESIONS, ("Ground glass", "Consolidation")):
        sentences.append(_lesion_sentence(name, counts, c))
    if counts[:2].any():
        swapped = (counts[0, 1] + counts[1, 0]) / counts[:2].sum()
        sentences.append(
            f"With both lesions taken as one class Dice is {scores['lesion_dice']:.3f}; {swapped:.0%} of the lesion pixels are "
            "found, but given the other lesion's class."
        )
    sentences.append(
        f"The kept epoch is the last of {epochs}: a longer schedule may still improve it." if kept == epochs
        else f"The kept epoch is {kept} of {epochs}: later epochs did not improve the monitored score."
    )  # fmt: skip
    return sentences


def _lesion_sentence(name: str, counts: np.ndarray, c: int) -> str:
    true, predicted, hits = counts[c].sum(), counts[:, c].sum(), counts[c, c]
    if not true:
        return f"{name} does not occur in these slices" + (f", yet {predicted} pixels were given that class." if predicted else ".")
    found = f"{name}: {hits / true:.0%} of its pixels are found"
    if not predicted:
        return f"{found}; the network never answers it."
    others = counts[c].copy()
    others[c] = 0
    missed = f"; what is missed is mostly called *{CLASSES[int(others.argmax())].name}*" if others.any() else ""
    return f"{found}, and {hits / predicted:.0%} of what is called so is right{missed}."
