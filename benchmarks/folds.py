"""Folds for cross-validation whose parts share no near-identical slices."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lungseg_utils.core.files import InputError, link, write_csv
from lungseg_utils.data.preprocessing import Prepared
from lungseg_utils.data.similarity import near_duplicates

NEAR = 0.9  # slices that correlate so are in one fold


def link_prepared(prepared: Prepared, slices: pd.DataFrame, out_dir: Path) -> Path:
    """The same prepared slices under another split, `slices`, in out_dir.

    The arrays are links, not copies.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    for array in prepared.dir.glob("*.npy"):
        (out_dir / array.name).unlink(missing_ok=True)
        link(array, out_dir / array.name)
    write_csv(out_dir / "slices.csv", slices)
    prepared.preprocessing.save(out_dir / "preprocessing.json")
    return out_dir


def make_folds(images: np.ndarray, folds: int, near: float) -> np.ndarray:
    """(N,) fold of each slice: slices that correlate by `near` or more are together.

    Folds of about equal size.

    images: (N, H, W). Raises InputError if there are fewer groups of slices than folds.
    """
    pairs = np.array([(i, j) for i, j, _ in near_duplicates(images, near)], int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(images), len(images)))
    _, group = connected_components(graph, directed=False)
    sizes = np.bincount(group)
    if len(sizes) < folds:
        raise InputError(
            f"{len(sizes)} groups of slices correlate by {near}; expected {folds} or more; raise near."
        )
    fold_of, filled = np.zeros(len(sizes), int), np.zeros(folds, int)
    order = np.random.default_rng(0).permutation(len(sizes))
    for g in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first, into the emptiest fold
        fold_of[g] = filled.argmin()
        filled[fold_of[g]] += sizes[g]
    return fold_of[group]


def fold_splits(
    prepared: Prepared, folds: int, radiopaedia_step: int, near: float = NEAR
) -> list[pd.DataFrame]:
    """One table of slices a fold.

    MedSeg's training slices of the fold are `validation`, those of the others `train`.

    So are every radiopaedia_step-th training slice of Radiopaedia and all training slices of further
    sources; all else, the validation slices too, is left out.
    """
    training = prepared.slices[prepared.slices.split == "train"]
    medseg, radiopaedia = (training[training.source == source] for source in ("medseg", "radiopaedia"))
    always = [
        *radiopaedia.index[::radiopaedia_step],
        *training.index.difference([*medseg.index, *radiopaedia.index]),
    ]
    fold = make_folds(prepared.images["medseg"][medseg["index"].to_numpy(int)], folds, near)
    tables = []
    for number in range(folds):
        slices = prepared.slices.copy()
        slices.loc[slices.split != "test", "split"] = "left_out"
        slices.loc[[*medseg.index[fold != number], *always], "split"] = "train"
        slices.loc[medseg.index[fold == number], "split"] = "validation"
        tables.append(slices)
    return tables
