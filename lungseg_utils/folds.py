"""Folds for cross-validation whose parts share no near-identical slices."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lungseg_utils.data import near_duplicates
from lungseg_utils.files import InputError


def make_folds(images: np.ndarray, folds: int, near: float) -> np.ndarray:
    """(N,) fold of each slice: slices that correlate by `near` or more are together; folds of about equal size.

    images: (N, H, W). Raises InputError if there are fewer groups of slices than folds.
    """
    pairs = np.array([(i, j) for i, j, _ in near_duplicates(images, near)], int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(images), len(images)))
    _, group = connected_components(graph, directed=False)
    sizes = np.bincount(group)
    if len(sizes) < folds:
        raise InputError(f"{len(sizes)} groups of slices correlate by {near}; expected {folds} or more; raise near.")
    fold_of, filled = np.zeros(len(sizes), int), np.zeros(folds, int)
    order = np.random.default_rng(0).permutation(len(sizes))
    for g in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first, into the emptiest fold
        fold_of[g] = filled.argmin()
        filled[fold_of[g]] += sizes[g]
    return fold_of[group]
