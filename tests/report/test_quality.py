"""Checks before a prediction.

What is refused, what is doubted in which words, and what training leaves to compare.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from lungseg_utils.core.classes import LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import body_mask, body_with_rim
from lungseg_utils.data.datasets import SliceDataset
from lungseg_utils.data.features import FEATURES, slice_features
from lungseg_utils.data.phantom import _burn_text, phantom_volume
from lungseg_utils.report.quality import (
    CHEST_VOLUME,
    aerated_share,
    check_scan,
    chest_doubt,
    joined_doubt,
    lung_outside,
    size_doubt,
)
from lungseg_utils.scans.scan import Scan
from lungseg_utils.training.model_card import training_ranges


@pytest.fixture(scope="module")
def chest() -> Scan:
    """Eight phantom slices of 128 px, 13.5 mm apart."""
    hu, _ = phantom_volume(np.random.default_rng(3), 8, 128, (0.1, 0.03))
    return Scan(hu.round().astype(np.int16), (13.5, 2.8, 2.8), None, "nifti", True, None, (), None)


def test_a_chest_passes_without_a_word(chest):
    assert check_scan(chest) == [] and chest.is_volume


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: np.full_like(hu, 40), "all pixels are 40"),
        (
            lambda hu: ((np.clip(hu, -1350, 150) + 1350) / 1500 * 255).astype(np.int16),
            "values run from 0 to 255",
        ),
        (lambda hu: np.where(np.arange(128) < 4, 31073, hu), "values lie above 4000, up to 31073"),
        (lambda hu: hu + 1024, "expected Hounsfield units"),  # the rescale intercept was forgotten
        (lambda hu: np.where(hu < -400, -1000, 1500).astype(np.int16), "0% within 150 of 0"),
        (lambda hu: np.where(body_mask(hu[4]), 40, -1000)[None].astype(np.int16), "no body with lungs"),
        (
            lambda hu: np.tile(np.where(np.arange(128) < 64, 40, -1000), (1, 128, 1)).astype(np.int16),
            "no body with lungs",
        ),
    ],
)
def test_what_is_no_chest_in_hu_is_refused(chest, change, words):
    with pytest.raises(InputError, match=words):
        check_scan(replace(chest, hu=change(chest.hu)))


def test_another_modality_is_refused(chest):
    with pytest.raises(InputError, match="modality is not CT"):
        check_scan(replace(chest, modality="MR"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thickness": 8.0}, ["Slices are 8 mm thick", "13.5 mm apart"]),
        ({"spacing": None}, ["pixel's size"]),
        ({"spacing": (5.0, 0.5, 0.5)}, ["is it a whole chest", "is it a whole chest"]),
    ],
)
def test_doubts_about_the_geometry_are_sentences(chest, change, words):
    found = check_scan(replace(chest, **change))
    assert len(found) == len(words) and all(word in sentence for word, sentence in zip(words, found))


def test_single_slices_are_no_volume(chest):
    assert not replace(chest, spacing=None).is_volume and not replace(chest, hu=chest.hu[:1]).is_volume
    others = [phantom_volume(np.random.default_rng(seed), 1, 128, (0.1, 0.0))[0][0] for seed in range(6)]
    unlike = replace(chest, hu=np.stack(others).astype(np.int16))
    assert not unlike.is_volume and any("unlike each other" in sentence for sentence in check_scan(unlike))


def test_training_ranges_are_of_the_training_slices_alone(prepared_dir):
    ranges = training_ranges(SliceDataset(prepared_dir, "train", 32))
    assert set(ranges) == {"slices", *FEATURES} and 0 < ranges["slices"] <= 10
    assert all(low <= high for low, high in (ranges[name] for name in FEATURES))
    assert -1100 < ranges["low_hu"][0] < -500 < ranges["median_hu"][1] < 200
    json.dumps(ranges, allow_nan=False)


def test_a_scan_is_compared_with_what_training_saw(chest):
    values = [slice_features(hu) for hu in chest.hu]
    ranges = {name: [min(v[name] for v in values), max(v[name] for v in values)] for name in FEATURES}
    assert check_scan(chest, ranges) == []
    noisy = chest.hu + np.random.default_rng(0).normal(0, 120, chest.hu.shape)
    found = check_scan(
        replace(chest, hu=noisy.astype(np.int16)), {"slices": 8, "noise_hu": ranges["noise_hu"]}
    )
    assert len(found) == 1 and found[0].startswith(
        "Unlike most training slices: the noise in soft tissue is "
    )
    small = np.pad(chest.hu, ((0, 0), (150, 150), (150, 150)), constant_values=-1000)
    found = check_scan(replace(chest, hu=small), {"body_percent": ranges["body_percent"]})
    assert len(found) == 1 and "the picture that the body fills is" in found[0]


def test_noise_is_measured_in_hu():
    clean = np.full((128, 128), -1000.0)
    clean[20:110, 20:110] = 40
    clean[50:80, 40:60] = -850
    noisy = clean + np.random.default_rng(0).normal(0, 20, clean.shape)
    assert slice_features(noisy)["noise_hu"] == pytest.approx(20, abs=1.5)
    assert slice_features(noisy)["lung_percent"] == pytest.approx(100 * 600 / 8100, abs=0.5)


def test_burned_in_text_is_told_from_table_and_anatomy(chest):
    large = np.full((8, 256, 256), -1000, np.int16)
    large[:, 64:192, 64:192] = chest.hu
    large[:, 215:218, 40:220] = -200  # a table
    plain = replace(chest, hu=large)
    assert not any("Text" in sentence for sentence in check_scan(plain))
    burned = large.copy()
    for hu in burned:
        _burn_text(np.random.default_rng(1), hu, 300)
    found = [sentence for sentence in check_scan(replace(plain, hu=burned)) if "Text" in sentence]
    assert len(found) == 1
    shown = body_with_rim(burned[4])
    assert shown.shape == (256, 256) and not shown[burned[4] != large[4]].any() and shown[128, 128]


def test_a_crop_at_the_lungs_still_has_a_body_around_them(chest):
    hu = chest.hu[7]
    lungs = np.argwhere(body_mask(hu) & (hu < -600))
    (top, left), (bottom, right) = lungs.min(0) + 4, lungs.max(0) - 4
    cut = hu[top:bottom, left:right]
    inside = body_mask(cut)
    assert inside[cut < -600].mean() > 0.95
    assert lung_outside(np.full((1, *cut.shape), LUNG_OTHER, np.uint8), cut[None]) < 0.05
    assert aerated_share(cut) > aerated_share(hu) > CHEST_VOLUME


def test_a_wall_that_noise_broke_is_mended():
    clean = np.full((128, 128), -1000.0)
    clean[20:110, 20:110] = 40
    clean[32:98, 32:98] = -850
    clean[60:62, 15:40] = -1000  # a gap
    noisy = np.random.default_rng(0).normal(clean, 200)
    assert body_mask(noisy)[30:100, 30:100].mean() > 0.95


def test_gas_is_no_aerated_lung(chest):
    gas = chest.hu.copy()
    for hu in gas:
        hu[body_mask(hu) & (hu < -500)] = -980
    assert max(map(aerated_share, chest.hu)) > CHEST_VOLUME > 2 * max(map(aerated_share, gas))
    assert chest_doubt(chest) is None and "look like a chest" in chest_doubt(replace(chest, hu=gas))


def test_blank_slices_at_the_ends_are_no_other_scan(chest):
    hu = chest.hu.copy()
    hu[[0, -1]] = -1024
    assert joined_doubt(replace(chest, hu=hu)) is None
    two = np.concatenate([chest.hu, hu[:1], chest.hu[:, ::-1] // 2])
    assert "8 and 10" in joined_doubt(replace(chest, hu=two))


def profile(*lung, step=10.0):
    return {"lung": list(lung), "position": [step * i for i in range(len(lung))]}


@pytest.mark.parametrize(("lung", "step", "millilitres", "words"), [
    ((0, 100, 200, 200, 100, 0), 2.0, 120.0, "6 mm high"),
    ((0, 100, 200, 200, 100, 0), 30.0, 150.0, "measure 150 ml"),
    ((150, 100, 200, 200, 100, 0), 2.0, 120.0, None),  # a part of the lungs
    ((0, 100, 200, 200, 100, 0), 60.0, 4000.0, None),
    ((0, 100, 200, 200, 100, 0), 60.0, 14000.0, "14,000 ml"),
    ((0, 100, 200, 200, 200, 200, 100, 0), 100.0, 9000.0, "500 mm high"),
])  # fmt: skip
def test_lungs_of_impossible_size_are_noticed(chest, lung, step, millilitres, words):
    found = size_doubt(chest, profile(*lung, step=step), millilitres)
    assert found is None if words is None else words in found
