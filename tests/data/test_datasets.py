"""The dataset and its loaders.

What a batch holds, and that neither workers nor their number change a value.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lungseg_utils.core.classes import LESIONS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.datasets import (
    EpochBatches,
    SliceDataset,
    class_pixels,
    make_loader,
    parse_growth,
    parse_shares,
    slice_chances,
)
from lungseg_utils.data.preprocessing import load_prepared


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


@given(
    st.integers(1, 60), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.data()
)
def test_shares_make_up_the_epoch_and_weigh_what_they_hold(
    length, batch_size, pieces, processes, epoch, data
):
    whole = EpochBatches(length, batch_size, seed=5)
    whole.epoch = epoch
    steps = list(whole)
    sizes = [len(step) for step in steps]
    assert sorted(i for step in steps for _, i in step) == list(range(length)) and {
        e for step in steps for e, _ in step
    } == {epoch}
    assert (
        len(steps) == -(-length // batch_size) and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    )
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


def epoch_of(epoch, *args, **settings):
    sampler = EpochBatches(*args, **settings)
    sampler.epoch = epoch
    return [[i for _, i in batch] for batch in sampler]


@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0, 40.0]), min_size=1, max_size=60).filter(any),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_with_chances_a_slice_comes_as_often_as_it_should_and_shares_make_up_the_batch(
    chances, batch_size, pieces, processes, epoch
):
    length, chances = len(chances), np.array(chances)
    steps = epoch_of(epoch, length, batch_size, 5, chances=chances)
    sizes = [len(step) for step in steps]
    assert sum(sizes) == length and len(steps) == -(-length // batch_size) and max(sizes) - min(sizes) <= 1
    expected = length * chances / chances.sum()
    counts = np.bincount(sum(steps, []), minlength=length)
    assert (np.floor(expected - 1e-9) <= counts).all() and (counts <= np.ceil(expected + 1e-9)).all()
    if min(sizes) < pieces * processes:
        return
    shares = [
        epoch_of(epoch, length, batch_size, 5, pieces, processes, k, chances=chances)
        for k in range(processes)
    ]
    for number, step in enumerate(steps):
        parts = [part for share in shares for part in share[number * pieces : (number + 1) * pieces]]
        assert sorted(sum(parts, [])) == sorted(step)


def test_the_order_is_a_function_of_seed_and_epoch_and_none_without_chances_has_changed():
    chances = np.linspace(1, 4, 40)
    one, *others = [epoch_of(e, 40, 8, s, chances=chances) for e, s in ((1, 5), (1, 5), (2, 5), (1, 6))]
    assert [other == one for other in others] == [True, False, False]
    sampler = EpochBatches(40, 8, 5, chances=chances)
    sampler.epoch, sampler.start = 1, 3  # as a run that goes on
    assert [[i for _, i in batch] for batch in sampler] == one[3:]
    assert sum(epoch_of(1, 40, 8, 5), []) == np.random.default_rng([5, 1]).permutation(40).tolist()
    assert sorted(sum(epoch_of(1, 40, 8, 5, chances=np.ones(40)), [])) == list(range(40))


def test_over_the_epochs_chances_are_kept_on_average():
    chances = np.array([0.0, 1, 2, 4, 4, 9])
    drawn = sum((epoch_of(epoch, 6, 6, 5, chances=chances) for epoch in range(1000)), [])
    counts = np.bincount(sum(drawn, []), minlength=6)
    np.testing.assert_allclose(counts / 6000, chances / 20, atol=0.01)


def test_slice_chances():
    slices = pd.DataFrame(
        {
            "source": ["medseg"] * 2 + ["radiopaedia"] * 4,
            "ground_glass": pd.array([0, 7, 0, 1, 0, 9], "Int64"),
            "consolidation": pd.array([0, 0, 0, 1, 5, 9], "Int64"),
        },
        index=[3, 4, 8, 9, 11, 12],
    )
    assert slice_chances(slices, "every_slice") is None
    np.testing.assert_allclose(slice_chances(slices, "sources"), [1 / 2] * 2 + [1 / 4] * 4)
    np.testing.assert_allclose(slice_chances(slices, "lesions"), [1 / 3, 2 / 3, 1 / 9, 3 / 9, 2 / 9, 3 / 9])
    with pytest.raises(
        InputError, match="sampling is 'patients'; expected one of every_slice, sources, lesions"
    ):
        slice_chances(slices, "patients")


def test_each_source_gives_its_share_and_within_it_lesions_come_more_often():
    slices = pd.DataFrame(
        {
            "source": ["medseg", "medseg", "further"],
            "ground_glass": pd.array([0, 7, None], "Int64"),
            "consolidation": pd.array([0, 0, None], "Int64"),
        }
    )
    np.testing.assert_allclose(slice_chances(slices, "lesions", "medseg 0.6, further 0.4"), [0.2, 0.4, 0.4])
    np.testing.assert_allclose(slice_chances(slices, "sources", "further 0.1, medseg 0.9"), [0.45, 0.45, 0.1])
    with pytest.raises(InputError, match="expected one for each of further, medseg"):
        slice_chances(slices, "lesions", "medseg 1")
    with pytest.raises(InputError, match="set sampling to"):
        slice_chances(slices, "every_slice", "medseg 0.6, further 0.4")


@pytest.mark.parametrize("shares", ["medseg", "medseg 0.6", "medseg 1.2, radiopaedia -0.2", "medseg nan"])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(InputError, match="shares is"):
        parse_shares(shares)


def test_slices_grow_epoch_by_epoch(prepared_dir):
    assert parse_growth("") == [] and parse_growth("32x2,64x1") == [32, 32, 64]
    dataset = SliceDataset(prepared_dir, "train", 96, "medical", growth=parse_growth("32x1, 64x1"))
    assert [dataset[epoch, 0][0].shape[-1] for epoch in range(4)] == [32, 64, 96, 96]
    for growth in ("32", "32x", "32x1x1", "small x 1"):
        with pytest.raises(InputError, match="growth is"):
            parse_growth(growth)
    with pytest.raises(InputError, match="multiple of 32"):
        parse_growth("100x1")


def test_lesions_of_other_slices_are_pasted_into_lung(prepared_dir):
    """Where nothing was pasted a slice is as it was; what was pasted is another's lesion, in lung."""
    plain, pasted, always = (
        SliceDataset(prepared_dir, "train", 64, "medical", seed=5, paste=share) for share in (0, 0.5, 1)
    )
    changed = 0
    for key in [(epoch, i) for epoch in range(3) for i in range(len(plain))]:
        (image, labels, _), (new_image, new_labels, _) = plain[key], pasted[key]
        new = labels != new_labels
        assert (labels[new] == LUNG_OTHER).all() and torch.isin(new_labels[new], torch.tensor(LESIONS)).all()
        assert torch.equal(image[0][~new], new_image[0][~new])
        if new.any():
            others = [plain[key[0], i] for i in range(len(plain))]
            whole = [torch.equal(each[0][new], new_image[0][new]) for each, *_ in others]
            assert any(torch.equal(o[1][new], new_labels[new]) and w for o, w in zip(others, whole))
            assert torch.equal(pasted[key][0], new_image)  # the same whenever it is asked for
            assert torch.equal(always[key][0], new_image)
        changed += bool(new.any())
    assert 0 < changed < 3 * len(plain)


def test_lesions_are_given_only_where_their_kind_is_known(prepared_dir, tmp_path):
    shutil.copytree(prepared_dir, tmp_path / "prepared")
    slices = pd.read_csv(tmp_path / "prepared" / "slices.csv")
    slices.loc[slices.source == "radiopaedia", ["ground_glass", "consolidation"]] = np.nan
    slices.to_csv(tmp_path / "prepared" / "slices.csv", index=False)
    dataset = SliceDataset(tmp_path / "prepared", "train", 32, paste=1)
    assert [set(dataset.slices.source.iloc[each]) for each in dataset.givers] == [{"medseg"}]
    slices[["ground_glass", "consolidation"]] = 0
    slices.to_csv(tmp_path / "prepared" / "slices.csv", index=False)
    assert not SliceDataset(tmp_path / "prepared", "train", 32).givers
    with pytest.raises(InputError, match=r"paste is 0.5, and no slice in split 'train' .* set paste to 0"):
        SliceDataset(tmp_path / "prepared", "train", 32, paste=0.5)


def test_loading_takes_no_random_numbers_from_the_model(prepared_dir):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(prepared_dir, 0, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_class_pixels(prepared_dir):
    dataset = SliceDataset(prepared_dir, "validation", 64)
    counted = class_pixels(dataset, [0, 1, 2])
    expected = load_prepared(prepared_dir).slices.iloc[:3][
        ["ground_glass", "consolidation", "lung_other", "background"]
    ]
    np.testing.assert_array_equal(counted, expected.to_numpy(int))


def test_missing_preparation_and_empty_splits_are_refused(prepared_dir, tmp_path):
    with pytest.raises(InputError, match="02_preprocessing"):
        SliceDataset(tmp_path, "train", 64)
    with pytest.raises(InputError, match="no slice in split 'holdout'"):
        SliceDataset(prepared_dir, "holdout", 64)
    with pytest.raises(InputError, match="augmentation"):
        SliceDataset(prepared_dir, "train", 64, "strong")
