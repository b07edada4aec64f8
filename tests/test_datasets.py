"""The dataset and its loaders: what a batch holds, and that neither workers nor their number change a value."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lungseg_utils.datasets import EpochBatches, SliceDataset, class_pixels, make_loader
from lungseg_utils.files import InputError
from lungseg_utils.preprocessing import load_prepared


def batches(prepared_dir, workers, epoch):
    dataset = SliceDataset(prepared_dir, "train", 32, "reference", seed=3)
    sampler = EpochBatches(len(dataset), 4, seed=3)
    sampler.epoch = epoch
    return list(make_loader(dataset, sampler, workers))


def test_without_augmentation_an_item_is_the_normalised_slice(prepared_dir):
    prepared = load_prepared(prepared_dir)
    dataset = SliceDataset(prepared_dir, "validation", 64)
    image, labels, row = dataset[5]
    assert row == 5 and len(dataset) == 24
    expected = prepared.preprocessing.normalise(prepared.images["medseg"][5])
    np.testing.assert_array_equal(image.numpy(), expected[None])
    np.testing.assert_array_equal(labels.numpy(), prepared.labels["medseg"][5])
    assert image.dtype == torch.float32 and labels.dtype == torch.uint8


def test_rows_are_those_of_the_split(prepared_dir):
    rows = torch.cat([batch[2] for batch in batches(prepared_dir, 0, 0)]).tolist()
    slices = load_prepared(prepared_dir).slices
    assert sorted(rows) == slices.index[slices.split == "train"].tolist() and rows != sorted(rows)


def test_workers_change_nothing_and_epochs_everything(prepared_dir):
    for a, b in zip(batches(prepared_dir, 0, 1), batches(prepared_dir, 2, 1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b))
    first, second = batches(prepared_dir, 0, 0), batches(prepared_dir, 0, 1)
    assert not torch.equal(first[0][2], second[0][2])


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.data())
def test_shares_make_up_the_epoch_and_weigh_what_they_hold(length, batch_size, pieces, processes, epoch, data):
    whole = EpochBatches(length, batch_size, seed=5)
    whole.epoch = epoch
    steps = list(whole)
    sizes = [len(step) for step in steps]
    assert sorted(i for step in steps for _, i in step) == list(range(length)) and {e for step in steps for e, _ in step} == {epoch}
    assert len(steps) == -(-length // batch_size) and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    if min(sizes) < pieces * processes:
        with pytest.raises(InputError, match="accumulation x processes"):
            EpochBatches(length, batch_size, 5, pieces, processes)
        return
    start = data.draw(st.integers(0, len(steps) - 1))
    shares, weights = [], []
    for process in range(processes):
        own = EpochBatches(length, batch_size, 5, pieces, processes, process)
        own.epoch, own.start = epoch, start  # what is done already is not seen again
        shares.append(list(own))
        weights.append(list(own.weights()))
        assert len(own) == len(shares[-1]) == len(weights[-1]) == (len(steps) - start) * pieces
    for number, step in enumerate(steps[start:]):
        here = slice(number * pieces, (number + 1) * pieces)
        parts = [(part, weight) for s, w in zip(shares, weights) for part, weight in zip(s[here], w[here])]
        assert sorted(i for part, _ in parts for i in part) == sorted(step)
        means = [weight * np.mean([i for _, i in part]) for part, weight in parts]
        assert np.mean(means) == pytest.approx(np.mean([i for _, i in step]))


def test_loading_takes_no_random_numbers_from_the_model(prepared_dir):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(prepared_dir, 0, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_class_pixels(prepared_dir):
    dataset = SliceDataset(prepared_dir, "validation", 64)
    counted = class_pixels(dataset, [0, 1, 2])
    expected = load_prepared(prepared_dir).slices.iloc[:3][["ground_glass", "consolidation", "lung_other", "background"]]
    np.testing.assert_array_equal(counted, expected.to_numpy(int))


def test_missing_preparation_and_empty_splits_are_refused(prepared_dir, tmp_path):
    with pytest.raises(InputError, match="02_preprocessing"):
        SliceDataset(tmp_path, "train", 64)
    with pytest.raises(InputError, match="no slice in split 'holdout'"):
        SliceDataset(prepared_dir, "holdout", 64)
    with pytest.raises(InputError, match="augmentation"):
        SliceDataset(prepared_dir, "train", 64, "strong")
