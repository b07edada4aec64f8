"""A case: its answer on the scan's own grid, bounded memory, results replace nothing but a case."""

import json
import re
import shutil
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import AS_IS, CPU, Blind, ByValue, FakeSegmenter, Reader, chest_scan

from lungseg_utils.core.classes import BACKGROUND, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.data.phantom import phantom_volume
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.report import page
from lungseg_utils.report.case import (
    Case,
    case_id,
    model_in_short,
    predict_case,
    predict_scan,
)
from lungseg_utils.report.page import check_case_folder, check_room, key_numbers, save_case
from lungseg_utils.scans.scan import Scan


class Wild(Blind):
    answer = LUNG_OTHER


@pytest.fixture(scope="module")
def case() -> Case:
    return predict_case(chest_scan(notes=("The scan's own note.",)), Reader())


@pytest.mark.parametrize("spacing", [(2.0, 1.3, 0.7), (1.0, 0.5, 0.9), (3.0, 0.7, 0.7), None])
def test_a_case_has_the_labels_of_the_segmenter(spacing):
    config = {"image_size": 32, "preprocessing": AS_IS.to_dict(), "window": (-1350, 150)}
    segmenter = Segmenter(ByValue(), config, CPU)
    hu = chest_scan().hu[:, 8:90]
    scan = Scan(hu, spacing, None, "array", True, None, (), hu.shape)
    case = predict_case(scan, segmenter, batch_size=5)
    np.testing.assert_array_equal(case.labels, segmenter(scan.hu, spacing[1:] if spacing else (1.0, 1.0)))
    assert len(np.unique(case.labels)) > 1 and case.entropy.shape == hu.shape


def test_entropy_is_scaled_to_a_byte():
    scan = Scan(np.zeros((1, 8, 8), np.int16), None, None, "array", True, None, (), (8, 8))
    for confidence, value in ((0.25, 255), (1.0, 0)):
        assert (predict_scan(scan, FakeSegmenter(confidence))[1] == value).all()


def test_a_case_is_measured_and_keeps_the_scans_notes(case):
    assert case.warnings[0] == "The scan's own note." and case.summary["warnings"] == list(case.warnings)
    assert case.summary["all"]["percent_of_lung"]["involved"] > 0 and case.summary["score"]["of"] == 24
    assert case.summary["scan"]["volume"] and 0 < case.summary["mean_entropy_in_lung"] < 1
    assert (
        case.card["encoder"] is None and case.card["training_ranges"] is False
    )  # an older config.json says less
    json.dumps(case.summary, allow_nan=False)


def test_the_name_of_a_case_is_a_checksum_of_the_pixels_alone():
    hu = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert case_id(hu) == case_id(np.asfortranarray(hu)) and case_id(hu) != case_id(hu[::-1])
    assert case_id(hu).startswith("case-") and len(case_id(hu)) == 13


def test_the_card_has_no_path_of_the_machine_that_trained():
    config = {
        "encoder": "resnet18",
        "training": {"encoder_weights": "/home/someone/weights.pt", "train_slices": 7},
        "best_epoch": {"val_miou": 0.5},
        "device": "cpu of someone",
        "weights_sha256": "ab" * 32,
    }
    card = model_in_short(config)
    assert card["train_slices"] == 7 and card["weights"] == "ab" * 8 and "someone" not in json.dumps(card)


def test_doubts_about_the_masks():
    nothing = predict_case(chest_scan(slices=3), Blind())
    assert "found no lung" in nothing.warnings[-1] and nothing.summary["mean_entropy_in_lung"] is None
    everywhere = predict_case(chest_scan(slices=3), Wild())
    assert any("lies outside the body" in text for text in everywhere.warnings)
    part = predict_case(chest_scan(slices=3), Reader())
    assert not any("lies outside the body" in text for text in part.warnings)
    assert any("go on beyond the" in text for text in part.warnings)
    assert (
        any("no thirds and no severity score" in text for text in part.warnings)
        and part.summary["score"] is None
    )


def bowel(slices=12):
    """Slices of 96 px of a belly: tissue, and two bubbles of gas as large as lungs."""
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    hu = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40, -1000)
    for side in (-1, 1):
        hu = np.where(((x - side * 0.4) / 0.3) ** 2 + (y / 0.3) ** 2 < 1, -960, hu)
    return np.random.default_rng(0).normal(hu, 15, (slices, 96, 96)).round().astype(np.int16)


@pytest.mark.parametrize("slices", [1, 12])
def test_what_is_no_chest_keeps_its_mask_and_loses_its_numbers(slices):
    hu = bowel(slices)
    found = predict_case(replace(chest_scan(), hu=hu), Reader())
    assert (
        found.warnings[0].startswith("This does not look like a chest") and (found.labels != BACKGROUND).any()
    )
    assert key_numbers(found.summary) == [("-", "numbers withheld")]
    assert found.summary["score"] is None and found.summary["all"]["millilitres"] is None
    assert not any("lung in" in words for _, words in key_numbers(found.summary))


@pytest.mark.parametrize(("spacing", "words"), [
    ((13.5, 0.37, 0.37), "body's largest slice measures"),  # centimetres taken for millimetres
    ((13.5, 37.0, 37.0), "body's largest slice measures"),
    ((60.0, 3.7, 3.7), "lungs are [0-9]+ mm high"),
])  # fmt: skip
def test_sizes_that_no_body_has_are_withheld_and_shares_stay(spacing, words):
    found = predict_case(chest_scan(spacing=spacing), Reader()).summary
    assert re.search(words, found["withheld"][0]) and found["withheld"][0] == found["warnings"][0]
    assert found["score"] is None and found["all"]["millilitres"] is None
    assert found["all"]["percent_of_lung"]["involved"] > 0


def test_two_scans_one_after_the_other_are_no_volume_and_two_in_turn_are_refused():
    other = (
        phantom_volume(np.random.default_rng(8), 12, 96, (0.1, 0.03))[0].round().astype(np.int16)[:, :, ::-1]
    )
    other = np.roll(other, 15, 1)
    scan = chest_scan()
    joined = predict_case(replace(scan, hu=np.concatenate([scan.hu, other])), Reader()).summary
    assert (
        any("changes as between two scans" in text for text in joined["withheld"]) and joined["score"] is None
    )
    mixed = np.stack([scan.hu, other], 1).reshape(-1, 96, 96)
    with pytest.raises(InputError, match="every second slice shows another scan"):
        predict_case(replace(scan, hu=mixed), Reader())


def test_uneven_steps_are_measured_as_even_ones_are():
    scan = chest_scan()
    kept = [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    places = tuple(13.5 * i for i in kept)
    thinned = predict_case(replace(scan, hu=scan.hu[kept], places=places), Reader()).summary
    whole = predict_case(scan, Reader()).summary
    assert thinned["all"]["millilitres"]["lung"] == pytest.approx(
        whole["all"]["millilitres"]["lung"], rel=0.03
    )
    assert thinned["profile"]["third_limits"] == whole["profile"]["third_limits"]
    assert thinned["profile"]["position"] == [round(place, 2) for place in places]


def test_a_full_disk_is_known_before_the_prediction(tmp_path, monkeypatch):
    assert check_room(tmp_path / "case", chest_scan()) == tmp_path / "case" and not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="has 0 MiB of room"):
        check_room(tmp_path / "case", chest_scan())


def test_memory_is_the_masks_and_a_few_slices():
    few = chest_scan(slices=2)
    scan = Scan(np.repeat(few.hu, 300, 0), (1.0, 3.7, 3.7), None, "array", True, None, (), None)
    fake = FakeSegmenter()
    predict_case(few, fake)  # what is imported and cached once
    tracemalloc.start()
    predict_case(scan, fake)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        peak < 4 * scan.hu.size
    )  # bytes: less than one float32 copy of the stack, masks and entropy included


def stub_report(case, folder):
    (folder / "report.json").write_text('{"case": 1}')


def test_results_replace_an_earlier_case_and_nothing_else(case, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "write_report", stub_report)
    folder = save_case(case, tmp_path / "case")
    assert {path.name for path in folder.iterdir()} == {"report.json", "mask.npy"}
    np.testing.assert_array_equal(np.load(folder / "mask.npy"), case.labels)
    before = (folder / "mask.npy").stat().st_ino
    (folder / ".DS_Store").touch()  # a file manager's own
    save_case(case, folder)
    assert (folder / "mask.npy").stat().st_ino != before
    (folder / "letter.txt").write_text("mine")
    for other, words in ((folder, "holds letter.txt"), (folder / "letter.txt", "is a file")):
        with pytest.raises(InputError, match=words):
            save_case(case, other)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "mask.npy").write_bytes(b"somebody else's")
    with pytest.raises(InputError, match="holds mask.npy"):
        check_case_folder(alone)
    (tmp_path / "empty").mkdir()
    check_case_folder(tmp_path / "empty")


def test_a_failure_leaves_the_earlier_case_as_it_was(case, tmp_path, monkeypatch):
    def full(case, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_report", stub_report)
    folder = save_case(case, tmp_path / "case")
    monkeypatch.setattr(page, "write_report", full)
    for out in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="No space left on device"):
            save_case(case, out)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert (folder / "report.json").read_text() == '{"case": 1}'
