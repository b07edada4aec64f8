"""Predictions at full size, whatever the batch and the slice.

Each optional step does what it says, if asked for.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from helpers import AS_IS, CPU, ByValue, phantom_chest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, special

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import body_frame, resize_nearest, shrink_by_area
from lungseg_utils.data.augmentation import FRAMES
from lungseg_utils.data.datasets import SliceDataset
from lungseg_utils.data.preprocessing import Preprocessing, load_prepared
from lungseg_utils.inference import segmenter as inference
from lungseg_utils.inference.postprocess import predict, remove_lung_islands, remove_small_lesions, temper
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.inference.views import resample, square_margins, view_matrix

ALL_VIEWS = InferenceSettings(flip=True, angles=(-10, 10))
UNSCALED = Preprocessing(low=-1, high=1, mean=0, std=1, fit_on="all")


class Toy(torch.nn.Module):
    """Logits that depend on a pixel's own value alone: a turned slice gets the turned answer."""

    def forward(self, images):
        return torch.cat([images / 100, -images / 100, images * 0, images * 0 - 1], 1)


class Placed(torch.nn.Module):
    """Logits that depend on where a pixel stands in the frame, whatever it shows.

    Class 0 left, class 1 right.
    """

    def forward(self, images):
        right = torch.linspace(-4, 4, images.shape[-1]).expand_as(images)
        return torch.cat([-right, right, images * 0 - 9, images * 0 - 9], 1)


@pytest.fixture(scope="module")
def segmenter(trained_dir):
    return Segmenter.load(trained_dir / "model", CPU)


@pytest.fixture(scope="module")
def hu(prepared_dir):
    return load_prepared(prepared_dir).images["medseg"][:5]


@pytest.fixture(scope="module")
def probabilities(segmenter, hu):
    return segmenter.probabilities(hu)


def smooth_slices(height, width):
    noise = np.random.default_rng(0).normal(size=(2, height, width))
    return 3000 * ndimage.gaussian_filter(noise, (0, 6, 6))


def test_probabilities_sum_to_one_and_labels_are_the_most_probable(segmenter, hu):
    probabilities = segmenter.probabilities(hu, batch_size=2)
    assert probabilities.shape == (5, 4, 64, 64)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(segmenter.labels(hu, batch_size=2), probabilities.argmax(1))


@pytest.mark.parametrize("steps", [InferenceSettings(), replace(ALL_VIEWS, temperature=2)])
def test_the_batch_does_not_change_a_prediction(segmenter, hu, steps):
    segmenter = replace(segmenter, settings=steps)
    together = segmenter.probabilities(hu, 5)
    np.testing.assert_allclose(together, segmenter.probabilities(hu, 1), atol=1e-5)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-5)


def test_one_batch_at_a_time(segmenter, hu):
    """The network sees batch_size slices before the first answer is out, however long the stack."""
    seen = []
    hook = segmenter.model.register_forward_hook(lambda module, images, logits: seen.append(len(images[0])))
    position, probabilities = next(
        replace(segmenter, settings=ALL_VIEWS).batches(np.repeat(hu, 100, axis=0), 2)
    )
    hook.remove()
    assert position == slice(0, 2) and probabilities.shape == (2, 4, 64, 64) and seen == 6 * [2]


@pytest.mark.parametrize("steps", [InferenceSettings(), ALL_VIEWS])
def test_a_cpu_takes_few_slices_at_a_time_and_answers_alike(segmenter, hu, steps, monkeypatch):
    whole = replace(segmenter, settings=steps).probabilities(hu, 5)
    seen = []
    hook = segmenter.model.register_forward_hook(lambda module, images, logits: seen.append(len(images[0])))
    monkeypatch.setattr(inference, "PASS_PIXELS", 2 * segmenter.image_size**2)
    parts = replace(segmenter, settings=steps).probabilities(hu, 5)
    monkeypatch.setattr(inference, "PASS_PIXELS", 1)
    next(segmenter.batches(hu, 5))
    hook.remove()
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    views = 1 if steps == InferenceSettings() else 6
    assert seen == [*views * [2, 2, 1], *5 * [1]]


def test_a_segmenter_is_called_with_a_volume(segmenter, hu):
    np.testing.assert_array_equal(segmenter(hu), segmenter.labels(hu))


@pytest.mark.parametrize("size", [(50, 70), (17, 9), (1, 1), (33, 200)])
def test_any_size_of_slice(segmenter, size):
    steps = replace(ALL_VIEWS, thresholds=(0.5, 0.5, 1, 1), min_lung_share=0.1, min_lesion_pixels=5)
    for chosen in (InferenceSettings(), steps):
        labels = replace(segmenter, settings=chosen).labels(np.full((2, *size), -800, np.int16))
        assert labels.shape == (2, *size) and labels.dtype == np.uint8 and labels.max() <= BACKGROUND


@pytest.mark.parametrize(("hu", "words"), [
    (np.zeros((50, 50)), "hu\\[None\\]"),
    (np.zeros((0, 50, 50)), "expected slices"),
    (np.full((1, 50, 50), "-800"), "expected numbers"),
    (np.pad(np.full((3, 9, 9), np.nan), ((0, 0), (3, 3), (3, 3))), "slices 0 to 1; expected Hounsfield"),
    (np.full((1, 50, 50), -np.inf), "NaN or infinite"),
])  # fmt: skip
def test_unusable_slices_are_refused(segmenter, hu, words):
    with pytest.raises(InputError, match=words):
        segmenter.labels(hu, batch_size=2)


def test_a_batch_without_slices_is_refused(segmenter, hu):
    with pytest.raises(InputError, match="batch_size is -1; expected 1 slice or more"):
        segmenter.labels(hu, batch_size=-1)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(("resize", "shrink"), [("nearest", resize_nearest), ("area", shrink_by_area)])
def test_the_network_sees_in_use_what_it_saw_in_validation(
    segmenter, prepared_dir, hu, resize, shrink, frame
):
    dataset = SliceDataset(prepared_dir, "validation", segmenter.image_size, resize=resize, frame=frame)
    seen = []
    probe = replace(
        segmenter,
        model=lambda images: seen.append(images) or images.repeat(1, 4, 1, 1),
        config={**segmenter.config, "resize": resize, "frame": frame},
    )
    probe.probabilities(hu)
    for i, image in enumerate(torch.cat(seen)):
        shown = hu[i][body_frame(hu[i])] if frame == "body" else hu[i]
        small = segmenter.preprocessing.normalise(shrink(shown[None], segmenter.image_size))
        np.testing.assert_array_equal(small, dataset[i][0].numpy())
        np.testing.assert_array_equal(small, image.numpy())


@given(st.integers(2, 90), st.integers(2, 90), st.integers(1, 90))
def test_resizing_agrees_with_opencv(height, width, size):
    image = np.random.default_rng(0).integers(0, 255, (1, height, width)).astype(np.uint8)
    expected = cv2.resize(image[0], (size, size), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(resize_nearest(image, size)[0], expected)


@pytest.mark.parametrize(("field", "values"), [
    ("angles", [(0,), (90,), (10, float("nan"))]),
    ("temperature", [0, -1, float("nan"), float("inf")]),
    ("thresholds", [(1, 1, 1), (1, 1, 1, 0), (1, 1, 1, float("nan"))]),
    ("min_lung_share", [-0.1, 1.1]),
    ("min_lesion_pixels", [-1, float("nan")]),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused(field, values):
    for value in values:
        with pytest.raises(InputError, match=f"{field} .*expected"):
            InferenceSettings(**{field: value})


def test_the_steps_come_from_the_names_of_a_notebook_and_do_nothing_where_a_name_is_missing():
    names = {"flip": True, "angle": 10, "consolidation_threshold": 0.5, "min_lesion_pixels": 20, "epochs": 3}
    expected = InferenceSettings(flip=True, angles=(-10, 10), thresholds=(1, 0.5, 1, 1), min_lesion_pixels=20)
    assert InferenceSettings.from_names(names) == expected
    assert InferenceSettings.from_names({"angle": 0.0}) == InferenceSettings()


def test_a_mirrored_view_changes_nothing_where_the_network_does_not_care(segmenter):
    hu = smooth_slices(64, 48)
    toy = replace(segmenter, model=Toy(), config={**segmenter.config, "preprocessing": UNSCALED.to_dict()})
    both = replace(toy, settings=InferenceSettings(flip=True))
    np.testing.assert_allclose(both.probabilities(hu), toy.probabilities(hu), atol=1e-5)


def test_views_average_probabilities_not_logits(segmenter):
    """A network that answers by place alone.

    The mirror image brings the opposite answer, and the mean is even.
    """
    placed = replace(
        segmenter, model=Placed(), config={**segmenter.config, "preprocessing": UNSCALED.to_dict()}
    )
    hu = np.zeros((1, 32, 32))
    plain = placed.probabilities(hu)
    both = replace(placed, settings=InferenceSettings(flip=True)).probabilities(hu)
    np.testing.assert_allclose(both, (plain + plain[..., ::-1]) / 2, atol=1e-6)
    assert (
        both[:, :2].max() > 0.49
    )  # averaged logits would leave (0, 0, -9, -9) everywhere, which hides the certainty


@pytest.mark.parametrize("size", [(128, 128), (96, 128)])
def test_turned_views_are_turned_back(segmenter, size):
    """Smooth slices, a network that does not care.

    What is left is interpolation, and no shift, also at the border.
    """
    hu = smooth_slices(*size)
    toy = replace(
        segmenter,
        model=Toy(),
        config={**segmenter.config, "preprocessing": UNSCALED.to_dict(), "image_size": 128},
    )
    turned = replace(toy, settings=ALL_VIEWS)
    as_square = (1 / hu.shape[1], 1 / hu.shape[2])  # no padding, whose edge is not smooth
    plain = toy.probabilities(hu, pixel=as_square)
    error = np.abs(turned.probabilities(hu, pixel=as_square) - plain)
    assert error.max() < 0.1 and error.mean() < 0.01
    wrong = np.abs(np.roll(plain, 4, axis=-1) - plain)
    assert wrong.mean() > 0.05  # a shift of four pixels would show


def test_a_view_is_turned_as_scipy_turns():
    image = smooth_slices(64, 96)[:1]
    matrix = view_matrix((10, False), (64, 96))
    turned, inside = resample(torch.from_numpy(image)[None].float(), matrix, (64, 96), "bilinear")
    expected = ndimage.rotate(image[0], 10, reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(turned[0, 0].numpy(), expected, atol=1e-2 * np.abs(image).max())
    expected = ndimage.rotate(np.ones((64, 96)), 10, reshape=False, order=0, mode="constant") > 0
    assert (inside.numpy() != expected).mean() < 0.02 and 0.6 < inside.numpy().mean() < 0.95


def test_what_a_turn_loses_at_the_border_is_not_averaged(segmenter):
    """A view answers for nothing outside its frame: the corners are the plain answer alone."""
    slices = smooth_slices(64, 64)

    class Tinted(Toy):
        """Answers `lung other` with certainty once the slice is turned: its marked row has moved."""

        def forward(self, images):
            logits = super().forward(images)
            logits[:, 2] += 100 * (images[:, 0, 32].std(1) > 1e-3).float()[:, None, None]
            return logits

    slices[:, 32] = 5.0  # the mark
    plain = replace(
        segmenter,
        model=Tinted(),
        config={**segmenter.config, "preprocessing": UNSCALED.to_dict(), "image_size": 64},
    )
    turned = replace(plain, settings=InferenceSettings(angles=(10,))).probabilities(slices)
    corners = (slice(None), slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
    np.testing.assert_array_equal(turned[corners], plain.probabilities(slices)[corners])
    middle = (slice(None), 2, slice(20, 40), slice(20, 40))
    np.testing.assert_allclose(turned[middle], (1 + plain.probabilities(slices)[middle]) / 2, atol=1e-5)


@given(st.floats(0.05, 20))
def test_temperature_divides_the_logits(temperature):
    logits = np.random.default_rng(0).normal(0, 8, (2, 4, 5, 3)).astype(np.float32)
    probabilities = special.softmax(logits, 1)
    tempered = temper(probabilities, temperature)
    np.testing.assert_allclose(tempered, special.softmax(logits / temperature, 1), atol=1e-5)
    np.testing.assert_array_equal(tempered.argmax(1), probabilities.argmax(1))
    assert temper(probabilities, 1) is probabilities


def test_temperature_is_applied_after_the_views(segmenter, hu):
    segmenter = replace(segmenter, settings=ALL_VIEWS)
    tempered = replace(segmenter, settings=replace(ALL_VIEWS, temperature=3)).probabilities(hu)
    np.testing.assert_array_equal(tempered, temper(segmenter.probabilities(hu), 3))


@given(st.tuples(*4 * [st.floats(0.01, 10)]), st.floats(0.1, 10))
def test_thresholds_give_one_class_and_only_their_ratios_count(thresholds, factor):
    probabilities = special.softmax(np.random.default_rng(1).normal(0, 2, (1, 4, 9, 9)), 1)
    labels = predict(probabilities, InferenceSettings(thresholds=thresholds))
    assert labels.shape == (1, 9, 9) and labels.max() < 4
    scaled = InferenceSettings(thresholds=tuple(factor * t for t in thresholds))
    np.testing.assert_array_equal(predict(probabilities, scaled), labels)
    equal = InferenceSettings(thresholds=4 * (factor,))
    np.testing.assert_array_equal(predict(probabilities, equal), probabilities.argmax(1))


def test_between_two_classes_a_threshold_is_a_threshold():
    p = np.linspace(0, 1, 102)[1:-1]
    probabilities = np.stack([p, 0 * p, 0 * p, 1 - p])[None, :, None]
    labels = predict(probabilities, InferenceSettings(thresholds=(0.2, 1, 1, 0.8)))
    np.testing.assert_array_equal(labels[0, 0], np.where(p > 0.2, GROUND_GLASS, BACKGROUND))


def test_thresholds_are_the_costs_of_a_miss():
    """Against the decision with the least expected cost, where missing a class costs 1 / threshold."""
    probabilities = np.random.default_rng(2).dirichlet(np.ones(4), 200)
    thresholds = np.array([0.2, 0.5, 1, 2])
    costs = (1 - np.eye(4)) / thresholds[:, None]  # (truth, answer)
    labels = predict(probabilities.T[None, :, None], InferenceSettings(thresholds=thresholds))
    np.testing.assert_array_equal(labels[0, 0], (probabilities @ costs).argmin(1))


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        (np.full((1, 4, 2, 2), np.nan), "NaN"),
        (np.full((4, 2, 2), 0.25), "shape"),
        (np.full((1, 3, 2, 2), 0.3), "shape"),
    ],
)
def test_unusable_probabilities_are_refused(probabilities, words):
    with pytest.raises(InputError, match=words):
        predict(probabilities)


def labels_of(*rows):
    """(1, H, W) labels from text: g ground glass, c consolidation, l lung other, . background."""
    return np.array([["gcl.".index(pixel) for pixel in row] for row in rows], np.uint8)[None]


def test_among_equally_probable_classes_the_first_is_the_label():
    probabilities = np.random.default_rng(0).integers(0, 3, (2, 4, 20, 30)).astype(np.float32)
    np.testing.assert_array_equal(predict(probabilities), probabilities.argmax(1))


def test_lung_islands_become_background_with_their_lesions():
    before = labels_of("lll....g",
                       "lgl...cl",
                       "lll.....",
                       "....ll..",
                       "....ll..")  # fmt: skip
    # Pieces of 9, 3 and 4 pixels; the third touches none of the others.
    after = remove_lung_islands(before, 0.4)
    np.testing.assert_array_equal(
        after, labels_of("lll.....", "lgl.....", "lll.....", "....ll..", "....ll..")
    )
    np.testing.assert_array_equal(remove_lung_islands(before, 0.3), before)
    only = labels_of("lll.....", "lgl.....", "lll.....", "........", "........")
    np.testing.assert_array_equal(remove_lung_islands(before, 1), only)
    np.testing.assert_array_equal(remove_lung_islands(before, 0), before)


def test_pieces_that_touch_at_a_corner_are_one():
    corner = labels_of("ll..", "ll..", "..l.", "....")
    np.testing.assert_array_equal(remove_lung_islands(corner, 0.9), corner)
    lesion = labels_of("gl", "lg")
    np.testing.assert_array_equal(remove_small_lesions(lesion, 2), lesion)


def test_small_lesions_take_the_class_around_them():
    before = labels_of("lllllllll",
                       "lglgggggl",
                       "lllggcggl",
                       "lllgggggl",
                       "........l",
                       ".c......l",
                       "........l")  # fmt: skip
    after = labels_of(
        "lllllllll", "lllgggggl", "lllgggggl", "lllgggggl", "........l", "........l", "........l"
    )
    np.testing.assert_array_equal(remove_small_lesions(before, 2), after)
    np.testing.assert_array_equal(remove_small_lesions(before, 1), before)
    np.testing.assert_array_equal(remove_small_lesions(before, 14), after)
    assert not np.isin(remove_small_lesions(before, 15), (GROUND_GLASS, CONSOLIDATION)).any()


@pytest.mark.parametrize("label", range(4))
def test_clean_up_leaves_a_slice_of_one_class(label):
    labels = np.full((1, 4, 4), label, np.uint8)
    np.testing.assert_array_equal(remove_small_lesions(remove_lung_islands(labels, 0.5), 100), labels)


def test_clean_up_works_slice_by_slice_and_leaves_its_input():
    first, second = labels_of("ll.", "...", "..g"), labels_of("g..", "...", "...")
    both = np.concatenate([first, second])
    kept = both.copy()
    cleaned = remove_small_lesions(remove_lung_islands(both, 0.6), 0)
    np.testing.assert_array_equal(cleaned, np.concatenate([labels_of("ll.", "...", "..."), second]))
    np.testing.assert_array_equal(both, kept)


def test_every_step_from_one_forward_pass(segmenter, hu, probabilities):
    """predict on stored probabilities is what a Segmenter with the same settings answers.

    By default it is argmax.
    """
    np.testing.assert_array_equal(predict(probabilities), probabilities.argmax(1))
    steps = InferenceSettings(thresholds=(0.3, 0.2, 1, 1), min_lung_share=0.2, min_lesion_pixels=20)
    labels = predict(probabilities, steps)
    np.testing.assert_array_equal(labels, replace(segmenter, settings=steps).labels(hu))
    assert (labels != probabilities.argmax(1)).any()


def test_a_lesion_that_survives_is_as_large_as_asked(probabilities):
    before = predict(probabilities)
    labels = remove_small_lesions(before, 12)
    assert (labels != before).any()
    for slice_ in labels:
        for c in (GROUND_GLASS, CONSOLIDATION):
            pieces, _ = ndimage.label(slice_ == c, np.ones((3, 3)))
            assert (np.bincount(pieces.ravel())[1:] >= 12).all()


@pytest.mark.parametrize(
    ("shape", "pixel"),
    [
        ((5, 31, 47), (1.3, 0.7)),
        ((5, 50, 33), (0.5, 0.9)),
        ((3, 40, 40), (1.0, 1.0)),
        ((2, 33, 33), (1.0, 1.5)),
    ],
)
def test_the_network_sees_squares_in_mm_and_the_answer_is_on_the_slices_grid(shape, pixel):
    network = ByValue()
    segmenter = Segmenter(network, {"image_size": 32, "preprocessing": AS_IS.to_dict()}, CPU)
    ramp = np.linspace(-1000, 400, shape[1])[:, None] + np.zeros(shape)
    labels = segmenter(ramp, pixel)
    assert labels.shape == shape and all(images.shape[1:] == (1, 32, 32) for images in network.seen)
    side = max(shape[1] * pixel[0], shape[2] * pixel[1])
    inside = (network.seen[0][0, 0] > -1).float()  # not air
    assert inside.any(1).float().mean().item() == pytest.approx(shape[1] * pixel[0] / side, abs=0.1)
    assert inside.any(0).float().mean().item() == pytest.approx(shape[2] * pixel[1] / side, abs=0.1)
    assert labels[0, 0, 0] == labels[0, 1, -1] == 2 and labels[0, -1, 0] == 3  # top dark, bottom bright


@pytest.mark.parametrize("steps", [InferenceSettings(), ALL_VIEWS])
def test_the_air_around_a_body_is_cut_away_and_the_answer_put_back(steps):
    """To a network that is shown the body, a chest in a wide picture is the chest of a tight one."""
    config = {"image_size": 192, "preprocessing": AS_IS.to_dict(), "frame": "body", "resize": "area"}
    segmenter = Segmenter(ByValue(), config, CPU, steps)
    tight = phantom_chest()[5:7].repeat(3, axis=1).repeat(3, axis=2)
    wide = np.pad(tight, ((0, 0), (120, 360), (390, 90)), constant_values=-1000)
    labels = segmenter(wide)
    inside = (slice(None), slice(120, 408), slice(390, 678))
    shown = tight > -950  # air is lung to this network, but where it was cut away
    assert (labels[inside] == segmenter(tight))[shown].mean() > 0.95
    labels[inside] = BACKGROUND  # the frame leaves a rim of air, of which the network says something
    assert (labels != BACKGROUND).mean() < 0.02
    _, answers = next(segmenter.answers(wide))
    small = answers.probabilities(steps, small=True)
    np.testing.assert_allclose(small.sum(1), 1, rtol=1e-5)
    assert (small.argmax(1) == resize_nearest(segmenter(wide), 192)).mean() > 0.9


def test_squares_in_mm_are_left_alone():
    assert square_margins((512, 512), (0.7, 0.7)) == [(0, 0), (0, 0)]
    assert square_margins((100, 200), (2.0, 1.0)) == [(0, 0), (0, 0)]
    assert square_margins((100, 201), (1.0, 1.0)) == [(50, 51), (0, 0)]


def test_only_a_window_in_the_config_clamps():
    hu = np.array([[[-1400.0, -500.0], [150.0, 900.0]]]).repeat(8, 1).repeat(8, 2)
    for window, low, high in ((None, -1400, 900), ([-1350, 150], -1350, 150)):
        network = ByValue()
        config = {
            "image_size": 32,
            "preprocessing": {**AS_IS.to_dict(), "clip_max": 1000.0},
            "window": window,
        }
        Segmenter(network, config, CPU)(hu)
        seen = network.seen[0] * AS_IS.std + AS_IS.mean
        assert (round(seen.min().item()), round(seen.max().item())) == (low, high)
