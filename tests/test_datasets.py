"""The dataset and its loaders: what a batch holds, and that neither workers nor their number change a value."""

import numpy as np
import pytest
import torch

from lungseg_utils.datasets import SliceDataset, class_pixels, make_loader
from lungseg_utils.files import InputError
from lungseg_utils.preprocessing import load_prepared


def batches(prepared_dir, workers, epoch):
    loader = make_loader(SliceDataset(prepared_dir, "train", 32, "reference", seed=3), 4, workers, shuffle=True)
    loader.sampler.epoch = epoch
    return list(loader)


def test_without_augmentation_an_item_is_the_normalised_slice(prepared_dir):
    prepared = load_prepared(prepared_dir)
    dataset = SliceDataset(prepared_dir, "validation", 64)
    image, labels, row = dataset[5]
    assert row == 5 and len(dataset) == 24
    expected = prepared.preprocessing.normalise(prepared.images["medseg"][5])
    np.testing.assert_array_equal(image.numpy(), expected[None])
    np.testing.assert_array_equal(labels.numpy(), prepared.labels["medseg"][5])
    assert image.dtype == torch.float32 and labels.dtype == torch.int64


def test_rows_are_those_of_the_split(prepared_dir):
    rows = torch.cat([batch[2] for batch in batches(prepared_dir, 0, 0)]).tolist()
    slices = load_prepared(prepared_dir).slices
    assert sorted(rows) == slices.index[slices.split == "train"].tolist() and rows != sorted(rows)


def test_workers_change_nothing_and_epochs_everything(prepared_dir):
    for a, b in zip(batches(prepared_dir, 0, 1), batches(prepared_dir, 2, 1), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b))
    first, second = batches(prepared_dir, 0, 0), batches(prepared_dir, 0, 1)
    assert not torch.equal(first[0][2], second[0][2])


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
