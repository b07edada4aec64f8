"""What 04_results says and leaves behind.

The split in words, a line for each slice, the files, conclusions in words.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import CLASSES, LESIONS, SHORT_NAMES
from lungseg_utils.core.files import atomic_write, write_csv
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation import metrics

SCHEMA = 2  # of metrics.json, as the README documents it
COUNT_COLUMNS = tuple(f"{true}_as_{predicted}" for true in SHORT_NAMES for predicted in SHORT_NAMES)


def split_statement(slices: pd.DataFrame, doubt: str | None = None) -> list[str]:
    """Sentences on what a split holds apart, and what it cannot exclude.

    Args:
        slices: With the columns source, volume, split.
        doubt: Why the split says nothing about the model that is scored, as `inference.check_tie` has it.
    """
    train, validation = slices[slices.split == "train"], slices[slices.split == "validation"]
    sources = _(" and ").join(
        _("{count} of {source}").format(count=count, source=source)
        for source, count in train.source.value_counts(sort=False).items()
    )
    sentences = [
        _("Validation: {count} slices of {source}. Training: {sources}.").format(
            count=len(validation), source=validation.source.iloc[0], sources=sources
        )
    ]
    if doubt:
        return [*sentences, _(doubt)]
    volumes = validation.volume.dropna().unique()
    shared = sorted(set(volumes) & set(train.volume.dropna()))
    if shared:
        sentences.append(
            _("**Leaking:** slices of volume {volumes} are on both sides; the scores are too good.").format(
                volumes=", ".join(map(str, shared))
            )
        )
    elif len(volumes):
        if same := sorted(set(slices[slices.split == "left_out"].volume.dropna())):
            sentences.append(
                _("Volume {volumes} is left out: it holds slices of the same scan.").format(
                    volumes=", ".join(map(str, same))
                )
            )
        sentences.append(
            _(
                "Volume {volumes} is held back whole: as far as a volume is a patient, no patient is on "
                "both sides. It is one scan from one scanner: other patients may fare differently."
            ).format(volumes=", ".join(map(str, volumes)))
        )
    else:
        left_out = (slices.split == "left_out").sum()
        sentences.append(
            _(
                "These slices carry no patient ids. They are known to be several of a patient, "
                "shuffled, so that **the same patient may be on both sides** and the scores better "
                "than for a new one. {left_out} near-identical training slices were left out; that "
                "is a lower bound of what is shared, since pixels do not show whose they are."
            ).format(left_out=left_out)
        )
    return sentences


def slice_table(
    source: str, index: Sequence[int], per_slice: np.ndarray, volume: Sequence[int | None]
) -> pd.DataFrame:
    """One row a slice: its scores, each class's Dice, true and predicted pixels, and its confusion counts.

    per_slice: (N, 4, 4) confusion matrices; volume: number of each slice's volume, missing where it is not
    known.
    """
    columns = {
        "accuracy": metrics.accuracy(per_slice),
        "mean_iou": metrics.mean_iou(per_slice),
        "lesion_dice": metrics.lesion_dice(per_slice),
    }
    for c, short in enumerate(SHORT_NAMES):
        columns[f"{short}_dice"] = metrics.dice(per_slice)[:, c]
        columns[f"{short}_true"] = per_slice[:, c].sum(axis=1)
        columns[f"{short}_predicted"] = per_slice[:, :, c].sum(axis=1)
    columns |= dict(zip(COUNT_COLUMNS, per_slice.reshape(len(per_slice), -1).T, strict=True))
    volumes = pd.array(volume, dtype="Int64")
    return pd.DataFrame({"source": source, "index": index, "volume": volumes, **columns})


def counts_of(table: pd.DataFrame) -> np.ndarray:
    """The (N, 4, 4) confusion matrices that `slice_table` wrote into its columns."""
    return table[list(COUNT_COLUMNS)].to_numpy(np.int64).reshape(-1, len(SHORT_NAMES), len(SHORT_NAMES))


def worst_to_best(table: pd.DataFrame) -> pd.Index:
    """Rows of slice_table by rising lesion Dice.

    Slices without a lesion, true or predicted, only if there is no other.
    """
    ranked = table.lesion_dice.dropna().sort_values()
    return ranked.index if len(ranked) else table.index


def save_results(folder: str | Path, table: pd.DataFrame, counts: np.ndarray, record: dict[str, Any]) -> None:
    """Write per_slice.csv, confusion.csv (rows are the truth) and metrics.json.

    docs/metrics.md documents its schema.
    """
    folder = Path(folder)
    write_csv(folder / "per_slice.csv", table)
    with atomic_write(folder / "confusion.csv") as handle:
        pd.DataFrame(counts, SHORT_NAMES, SHORT_NAMES).to_csv(handle, index_label="true")
    with atomic_write(folder / "metrics.json") as handle:
        json.dump({"schema": SCHEMA, **record}, handle, indent=2, allow_nan=False)


def conclusions(record: dict[str, Any], counts: np.ndarray, epochs: int, kept: int) -> list[str]:
    """Sentences about a run, each from its numbers.

    Args:
        record: As `evaluation.evaluate` gives.
        counts: Confusion matrix (4, 4), rows are the truth.
        epochs: How many were trained.
        kept: The epoch whose weights were kept, from 1.
    """
    scores = record["full_size"]
    share = counts.sum(1) / counts.sum()
    commonest = int(share.argmax())
    gain = scores["accuracy"] - share[commonest]
    dice = {
        c.name: scores["classes"][c.short]["dice"]
        for c in CLASSES
        if scores["classes"][c.short]["dice"] is not None
    }
    best, worst = max(dice, key=dice.__getitem__), min(dice, key=dice.__getitem__)
    mean_iou = f"{scores['mean_iou']:.3f}"
    if interval := record["intervals"]["mean_iou"]:
        mean_iou = _("{score} ({low:.3f} to {high:.3f} over other draws of these slices)").format(
            score=mean_iou, low=interval[0], high=interval[1]
        )
    sentences = [
        (
            _(
                "**Accuracy** is {accuracy:.3f}; answering *{name}* everywhere would reach "
                "{share:.3f}, so the network adds {gain:.1f} points. **mIoU** is {mean_iou}."
            ).format(
                accuracy=scores["accuracy"],
                name=CLASSES[commonest].name,
                share=share[commonest],
                gain=100 * gain,
                mean_iou=mean_iou,
            )
        ),
        (
            _(
                "The best class is *{best}* (Dice {highest:.3f}), the weakest *{worst}* (Dice {lowest:.3f})."
            ).format(best=best, highest=dice[best], worst=worst, lowest=dice[worst])
        ),
    ]
    for c, name in zip(LESIONS, (_("Ground glass"), _("Consolidation"))):
        sentences.append(_lesion_sentence(name, counts, c))
    if counts[:2].any():
        swapped = (counts[0, 1] + counts[1, 0]) / counts[:2].sum()
        sentences.append(
            _(
                "With both lesions taken as one class Dice is {lesion_dice:.3f}; {swapped:.0%} of "
                "the lesion pixels are found, but given the other lesion's class."
            ).format(lesion_dice=scores["lesion_dice"], swapped=swapped)
        )
    lesions = record["lesions"]["all"]
    if lesions["true"]:
        sentences.append(
            _(
                "Of {true} lesions {found} are found ({recall:.0%}), with "
                "{false_alarms_per_slice:.1f} false alarms a slice."
            ).format(**lesions)
        )
    burden = record["burden"]["slices"]
    if burden["limits"]:
        low, high = (100 * limit for limit in burden["limits"])
        sentences.append(
            _(
                "The involved share of the lung is off by {bias:+.1f} points on average (95 % limits "
                "of agreement: {low:+.0f} to {high:+.0f} points)."
            ).format(bias=100 * burden["bias"], low=low, high=high)
        )
    sentences.append(
        _("The kept epoch is the last of {epochs}: a longer schedule may still improve it.").format(
            epochs=epochs
        )
        if kept == epochs
        else _(
            "The kept epoch is {kept} of {epochs}: later epochs did not improve the monitored score."
        ).format(kept=kept, epochs=epochs)
    )
    return sentences


def _lesion_sentence(name: str, counts: np.ndarray, c: int) -> str:
    true, predicted, hits = counts[c].sum(), counts[:, c].sum(), counts[c, c]
    others = counts[c].copy()
    others[c] = 0
    if not true and not predicted:
        said = _("{name} does not occur in these slices.")
    elif not true:
        said = _("{name} does not occur in these slices, yet {pixels} pixels were given that class.")
    elif not predicted:
        said = _("{name}: {found:.0%} of its pixels are found; the network never answers it.")
    elif not others.any():
        said = _(
            "{name}: {found:.0%} of its pixels are found, and {right:.0%} of what is called so is right."
        )
    else:
        said = _(
            "{name}: {found:.0%} of its pixels are found, and {right:.0%} of what is called so is right; "
            "what is missed is mostly called *{other}*."
        )
    return said.format(
        name=name,
        pixels=predicted,
        found=hits / max(true, 1),
        right=hits / max(predicted, 1),
        other=CLASSES[int(others.argmax())].name,
    )
