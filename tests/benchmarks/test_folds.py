"""Folds: what is alike stays together, sizes are even, too few groups are refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from folds import fold_splits, make_folds
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg_utils.core.files import InputError


def pictures(sizes, seed=0):
    """Groups of nearly identical pictures, shuffled; pictures of two groups have nothing in common.

    (N, 16, 16), group (N,)
    """
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(sizes), 16, 16))[group] + 0.05 * rng.normal(size=(len(group), 16, 16)), group


@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.integers(2, 5))
@settings(max_examples=40)
def test_groups_stay_whole_and_folds_are_even(sizes, folds):
    images, group = pictures(sizes)
    if len(sizes) < folds:
        with pytest.raises(
            InputError, match=f"{len(sizes)} groups of slices correlate by 0.9; expected {folds} or more"
        ):
            make_folds(images, folds, 0.9)
        return
    fold = make_folds(images, folds, 0.9)
    assert all(len(set(fold[group == g])) == 1 for g in range(len(sizes)))
    filled = np.bincount(fold, minlength=folds)
    assert len(filled) == folds and filled.min() > 0 and np.ptp(filled) <= max(sizes)
    np.testing.assert_array_equal(fold, make_folds(images, folds, 0.9))


def test_slices_that_are_alike_by_way_of_a_third_are_together():
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(2, 16, 16))
    others = rng.normal(size=(5, 16, 16))
    images = np.concatenate([[a], others, [(a + c) / 2, c]])  # the middle one correlates by 0.7 with both
    fold = make_folds(images, 2, 0.5)
    assert fold[0] == fold[-2] == fold[-1] and np.bincount(fold).tolist() == [4, 4]


def test_further_sources_train_in_every_fold():
    images, _ = pictures([1] * 6)
    rows = [("medseg", i, "train") for i in range(6)] + [("radiopaedia", i, "train") for i in range(4)]
    rows += [("other", 0, "train"), ("other", 1, "left_out"), ("medseg", 6, "validation")]
    slices = pd.DataFrame(rows, columns=["source", "index", "split"])
    for table in fold_splits(SimpleNamespace(slices=slices, images={"medseg": images}), 3, 2):
        others = table[table.source != "medseg"].split.tolist()
        assert others == ["train", "left_out", "train", "left_out", "train", "left_out"]
        medseg = table[table.source == "medseg"].split.value_counts()
        assert medseg.to_dict() == {"train": 4, "validation": 2, "left_out": 1}


def test_near_decides_what_is_alike():
    images, _ = pictures([3, 3])
    assert sorted(np.bincount(make_folds(images, 2, 0.9))) == [3, 3]
    assert np.bincount(make_folds(images, 6, 0.9999)).tolist() == [1] * 6
