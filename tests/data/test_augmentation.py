"""Augmentations: the size they give, what they may not invent, what a draw depends on."""

import albumentations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import shrink_by_area
from lungseg_utils.data.augmentation import (
    AUGMENTATIONS,
    Picture,
    ScannerJitter,
    Unsharp,
    augment,
    build_augmentation,
)


@pytest.fixture(scope="module")
def hu_and_labels():
    y, x = np.mgrid[:96, :96]
    labels = np.full((96, 96), 3, np.uint8)
    labels[(x - 48) ** 2 + (y - 48) ** 2 < 900] = 2
    labels[40:60, 40:60] = 0  # touches classes 2 only: a mixture of 0 and 2 would be 1
    hu = np.choose(labels, [-600.0, 0.0, -850.0, 40.0]).astype(np.float32)
    return hu, labels


@pytest.mark.parametrize("name", AUGMENTATIONS)
@given(key=st.tuples(*[st.integers(0, 2**31)] * 3))
@settings(max_examples=15)
def test_size_type_classes_and_repeatability(name, key, hu_and_labels):
    hu, labels = hu_and_labels
    pipeline = build_augmentation(name, 64, 96)
    image, mask = augment(pipeline, hu, labels, key)
    assert image.shape == mask.shape == (64, 64) and image.dtype == np.float32 and mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 2, 3}
    augment(pipeline, hu, labels, (1, 2, 3))  # what a pipeline did before changes nothing
    again = augment(pipeline, hu, labels, key)
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], mask)


@pytest.mark.parametrize("name", ["reference", "medical", "scanners"])
def test_image_and_mask_move_together(name, hu_and_labels):
    labels = hu_and_labels[1]
    marked = np.where(labels == 0, 1000, -1000).astype(np.float32)
    for epoch in range(5):
        image, mask = augment(build_augmentation(name, 64, 96), marked, labels, (0, epoch, 0))
        assert (
            (image > 0) == (mask == 0)
        ).mean() > 0.97  # linear interpolation may move the edge by half a pixel


def test_epochs_and_slices_differ(hu_and_labels):
    pipeline = build_augmentation("reference", 64, 96)
    views = [
        augment(pipeline, *hu_and_labels, key)[0].tobytes()
        for key in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    ]
    assert len(set(views)) == 4


def test_scanner_jitter_stays_within_its_limits():
    hu = np.full((64, 64), -500, np.float32)
    jitter = albumentations.Compose([ScannerJitter(offset=40, gain=0, gamma=0, noise=0, p=1)])
    shifts = []
    for seed in range(30):
        jitter.set_random_seed(seed)
        shifts.append(float(jitter(image=hu)["image"].mean()) + 500)
    assert -40 <= min(shifts) < -20 and 20 < max(shifts) <= 40


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="none, reference, medical, scanners"):
        build_augmentation("strong", 64)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_argument_that_albumentations_does_not_know_is_an_error(monkeypatch):
    rotate = albumentations.Rotate
    monkeypatch.setattr(albumentations, "Rotate", lambda **settings: rotate(angle_limit=10))
    with pytest.raises(ValueError, match="angle_limit"):
        build_augmentation("reference", 64)


def test_slices_shrink_to_the_mean_of_the_area_that_a_pixel_covers():
    hu = np.array([[0, 4, 10, 10], [8, 4, 10, 10], [1, 1, -1, 0], [1, 1, 0, 1]], np.float32)
    labels = np.zeros((4, 4), np.uint8)
    image, _ = augment(build_augmentation("none", 2, 4, "area"), hu, labels, (0, 0, 0))
    np.testing.assert_array_equal(image, [[4, 10], [1, 0]])
    np.testing.assert_array_equal(shrink_by_area(hu[None].astype(np.int16), 2), [[[4, 10], [1, 0]]])
    nearest, _ = augment(build_augmentation("none", 2, 4), hu, labels, (0, 0, 0))
    np.testing.assert_array_equal(nearest, hu[::2, ::2])
    with pytest.raises(InputError, match="resize is 'cubic'; expected one of nearest, area"):
        build_augmentation("none", 2, 4, "cubic")


def a_chest():
    """Trunk with two lungs in air, HU float32 (256, 256)."""
    y, x = np.mgrid[:256, :256]
    hu = np.full((256, 256), -1000.0)
    hu[((x - 128) / 110) ** 2 + ((y - 128) / 80) ** 2 < 1] = 50
    for middle in (80, 176):
        hu[((x - middle) / 32) ** 2 + ((y - 128) / 50) ** 2 < 1] = -850
    return (hu + np.random.default_rng(0).normal(0, 15, hu.shape)).astype(np.float32)


def test_a_picture_is_read_back_in_hu():
    hu = a_chest()
    for equalise, closeness in ((0.0, 60), (1.0, 250)):
        pipeline = albumentations.Compose([Picture(equalise, p=1)])
        pipeline.set_random_seed(1)
        seen = pipeline(image=hu)["image"]
        assert seen.dtype == np.float32 and not np.array_equal(seen, hu)
        assert np.abs(seen - hu).mean() < closeness
    nothing = np.full((64, 64), 40, np.float32)  # no body in it: left as it was
    np.testing.assert_array_equal(pipeline(image=nothing)["image"], nothing)


def test_a_soft_or_coarse_slice_keeps_its_hu():
    hu, soft = a_chest(), albumentations.Compose([Unsharp(p=1)])
    for seed in range(4):
        soft.set_random_seed(seed)
        seen = soft(image=hu)["image"]
        assert seen.shape == hu.shape and np.abs(np.diff(seen)).mean() < np.abs(np.diff(hu)).mean()
        assert seen.mean() == pytest.approx(hu.mean(), abs=2)
