"""A case: the answer comes back on the scan's own grid, memory stays bounded, results replace nothing but a case."""

import json
import re
import shutil
import tracemalloc
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace

import matplotlib.figure
import numpy as np
import pytest

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import body_mask
from lungseg_utils.data.phantom import phantom_volume
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.report import case as case_module
from lungseg_utils.report.case import (
    Case,
    case_id,
    check_case_folder,
    check_room,
    model_in_short,
    predict_case,
    predict_scan,
    save_case,
    square_margins,
)
from lungseg_utils.report.page import key_numbers
from lungseg_utils.scans.scan import Scan


@dataclass
class FakeSegmenter:
    """Answers by the HU of each pixel, as sure as `confidence` says; notes the shapes that it is given."""

    confidence: float = 0.97
    settings: InferenceSettings = InferenceSettings()
    seen: list = field(default_factory=list)

    def classes(self, hu):
        return hu % 4

    def batches(self, hu, batch_size=8, description=None, total=None):
        self.seen.append(hu.shape)
        probabilities = np.full((len(hu), 4, *hu.shape[1:]), (1 - self.confidence) / 3, np.float32)
        np.put_along_axis(probabilities, self.classes(hu)[:, None].astype(int), self.confidence, 1)
        yield slice(0, len(hu)), probabilities


class Reader(FakeSegmenter):
    """Finds lung by body and air, as a reader would, and lesions by what is denser in it."""

    ranges = {LUNG_OTHER: (-1100, -600), GROUND_GLASS: (-600, -450), CONSOLIDATION: (-450, -400)}

    def classes(self, hu):
        labels = np.full(hu.shape, BACKGROUND)
        for picture, label in zip(hu, labels):
            body = body_mask(picture)
            for value, (low, high) in self.ranges.items():
                label[body & (picture >= low) & (picture < high)] = value
        return labels


@pytest.fixture(scope="module")
def coarse_pictures():
    """Figures at 20 dots an inch: they are drawn to see that they can be."""
    save = matplotlib.figure.Figure.savefig
    matplotlib.figure.Figure.savefig = lambda self, target, **options: save(
        self, target, **options | {"dpi": 20}
    )
    yield
    matplotlib.figure.Figure.savefig = save


class Blind(FakeSegmenter):
    """Sees one class everywhere: background, unless `answer` says another."""

    answer = BACKGROUND

    def classes(self, hu):
        return np.full(hu.shape, self.answer)


class Wild(Blind):
    answer = LUNG_OTHER


@cache
def chest() -> np.ndarray:
    """Twelve phantom slices of 96 px, 13.5 mm apart: HU int16 (12, 96, 96)."""
    return phantom_volume(np.random.default_rng(3), 12, 96, (0.1, 0.03))[0].round().astype(np.int16)


def chest_scan(slices=12, spacing=(13.5, 3.7, 3.7), notes=()) -> Scan:
    """The middle `slices` of `chest`, as of an array."""
    hu = chest()[6 - slices // 2 :][:slices]
    return Scan(hu, spacing, None, "array", True, None, notes, hu.shape)


@pytest.fixture(scope="module")
def case() -> Case:
    return predict_case(chest_scan(notes=("The scan's own note.",)), Reader())


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5, 31, 47), (2.0, 1.3, 0.7)),
        ((5, 50, 33), (1.0, 0.5, 0.9)),
        ((3, 40, 40), None),
        ((4, 30, 41), None),
        ((2, 33, 33), (1.0, 1.0, 1.5)),
    ],
)
def test_the_network_sees_squares_and_the_answer_is_on_the_scans_grid(shape, spacing):
    hu = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    fake = FakeSegmenter()
    labels, entropy = predict_scan(
        Scan(hu, spacing, None, "array", True, None, (), shape), fake, batch_size=2
    )
    np.testing.assert_array_equal(labels, hu.clip(-1350, 150) % 4)  # and in the window of its training
    assert labels.dtype == entropy.dtype == np.uint8 and (entropy == entropy[0, 0, 0]).all()
    for _, rows, columns in fake.seen:
        height, width = rows * (spacing or (1, 1, 1))[1], columns * (spacing or (1, 1, 1))[2]
        assert height == pytest.approx(width, abs=max(spacing[1:]) if spacing else 0)
    assert sum(n for n, _, _ in fake.seen) == shape[0] and max(n for n, _, _ in fake.seen) == 2


def test_squares_in_mm_are_left_alone():
    assert square_margins((512, 512), (0.7, 0.7)) == [(0, 0), (0, 0)]
    assert square_margins((100, 200), (2.0, 1.0)) == [(0, 0), (0, 0)]
    assert square_margins((100, 201), (1.0, 1.0)) == [(50, 51), (0, 0)]


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
    monkeypatch.setattr(case_module, "write_report", stub_report)
    folder = save_case(case, tmp_path / "case")
    assert {path.name for path in folder.iterdir()} == {"report.json", "mask.npy"}
    np.testing.assert_array_equal(np.load(folder / "mask.npy"), case.labels)
    before = (folder / "mask.npy").stat().st_ino
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

    monkeypatch.setattr(case_module, "write_report", stub_report)
    folder = save_case(case, tmp_path / "case")
    monkeypatch.setattr(case_module, "write_report", full)
    for out in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="cannot be written .No space left on device."):
            save_case(case, out)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert (folder / "report.json").read_text() == '{"case": 1}'
