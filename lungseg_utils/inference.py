"""From slices in HU to probabilities and labels at full size. Every step beyond argmax is off unless asked for."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn
from tqdm.auto import tqdm

from lungseg_utils.classes import BACKGROUND, LESIONS, NUM_CLASSES
from lungseg_utils.device import Device, choose_device
from lungseg_utils.files import InputError
from lungseg_utils.model import load_model
from lungseg_utils.openvino_backend import compile_network, is_installed
from lungseg_utils.preprocessing import Preprocessing

EIGHT_CONNECTED = np.ones((3, 3), bool)  # pixels that touch at a corner belong together
BACKENDS = ("auto", "torch", "openvino")
PASS_PIXELS = 2**17  # of slices that a CPU takes at a time: larger activations leave its caches, up to twice as slow
WORTH_COMPILING = 16_000_000  # pixels through the network, from which compiling (2 s) may pay: 61 slices of 512 px, 434 of 192


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """The steps between network and labels, in their order; the defaults do nothing. InputError if one cannot work.

    The first three make the probabilities (`Segmenter.batches`), the others make labels of them (`predict`).
    """

    flip: bool = False  # average with the mirror image; left and right only: slices lie anterior up
    angles: Sequence[float] = ()  # degrees; average with the slice turned by each, and turned and mirrored with flip
    temperature: float = 1.0  # see `temper`; above 1 less certain
    thresholds: Sequence[float] = (1.0,) * NUM_CLASSES  # see `predict`; the lower, the more often answered
    min_lung_share: float = 0.0  # see `remove_lung_islands`; of the largest piece of lung in the slice
    min_lesion_pixels: int = 0  # see `remove_small_lesions`; of the slice's own size

    def __post_init__(self):
        if not all(0 < abs(degrees) <= 45 for degrees in self.angles):
            raise InputError(f"angles are {list(self.angles)}; expected degrees from -45 to 45, without 0.")
        if not 0 < self.temperature < np.inf:
            raise InputError(f"temperature is {self.temperature}; expected a number above 0; 1 changes nothing.")
        if len(self.thresholds) != NUM_CLASSES or not all(0 < threshold < np.inf for threshold in self.thresholds):
            raise InputError(
                f"thresholds are {list(self.thresholds)}; expected {NUM_CLASSES} numbers above 0, one for each class."
            )
        if not 0 <= self.min_lung_share <= 1:
            raise InputError(f"min_lung_share is {self.min_lung_share}; expected a share from 0 (off) to 1.")
        if not 0 <= self.min_lesion_pixels < np.inf:
            raise InputError(f"min_lesion_pixels is {self.min_lesion_pixels}; expected 0 (off) or more pixels.")


@dataclass(frozen=True)
class Segmenter:
    """A trained network with its preprocessing: slices in HU in, labels at their own size out.

        labels = Segmenter.load("runs/demo/model")(hu)

    backend: what runs the network; see `load`. InputError if it is unknown or cannot run here.
    """

    model: nn.Module
    preprocessing: Preprocessing
    image_size: int
    device: Device
    settings: InferenceSettings = InferenceSettings()
    backend: str = "torch"

    def __post_init__(self):
        if self.backend not in BACKENDS:
            raise InputError(f"backend is {self.backend!r}; expected one of {', '.join(BACKENDS)}.")
        if self.backend == "openvino" and not is_installed():
            raise InputError("backend is 'openvino', which is not installed; run `pip install openvino`, or use 'auto'.")
        if self.backend == "openvino" and self.device.type != "cpu":
            raise InputError(f"backend is 'openvino' and the device {self.device.type}; it needs a CPU; use 'auto'.")

    @classmethod
    def load(
        cls, model_dir: str | Path, device: Device | None = None, settings: InferenceSettings = InferenceSettings(),
        name: str = "weights", backend: str = "auto",
    ) -> "Segmenter":
        """From a folder that 03_training wrote; name: `weights`, or `last`. Raises InputError if it holds no usable model.

        backend: `torch`; `openvino` (a CPU, and the package installed); or `auto`: OpenVINO where it can run and a job
        has slices enough to win back the seconds that compiling takes. The labels are the same.
        """
        device = device or choose_device()
        model, config = load_model(model_dir, name)
        model = model.to(device.type, memory_format=torch.channels_last)
        preprocessing = Preprocessing.from_dict(config["preprocessing"])
        return cls(model, preprocessing, config["image_size"], device, settings, backend)

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """The class of every pixel, uint8 (N, H, W), of a volume (N, H, W) in HU; see `labels`."""
        return self.labels(volume)

    @cached_property
    def _compiled(self) -> Callable[[torch.Tensor], torch.Tensor]:
        try:
            return compile_network(self.model, self.image_size)
        except Exception as error:  # OpenVINO and torch's tracing raise anything
            why = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            if self.backend == "openvino":
                raise InputError(f"OpenVINO cannot run this network ({why}); use the backend 'torch'.") from error
            warnings.warn(f"OpenVINO cannot run this network ({why}); PyTorch does, more slowly.", stacklevel=2)
            return self.model

    def _network(self, slices: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """What runs the network in a job of that many slices."""
        pixels = slices * (1 + len(view_matrices(self.settings, (1, 1)))) * self.image_size**2
        can_compile = self.backend == "auto" and self.device.type == "cpu" and is_installed()
        if self.backend == "openvino" or (can_compile and pixels >= WORTH_COMPILING):
            return self._compiled
        return self.model

    @torch.inference_mode()
    def batches(
        self, hu: np.ndarray, batch_size: int = 8, description: str | None = None, total: int | None = None
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """(position, probabilities) of one batch of slices at a time: memory does not grow with the stack.

        hu: (N, H, W) in HU, any size and numeric type, else InputError. probabilities: float32 (n, 4, H, W), they sum
        to 1, averaged over the views of `settings` and tempered. Shows a progress bar if described. total: number of
        slices of the whole job, where hu is a part of it; the backend `auto` decides by it.
        Slices are resized to image_size as in validation (nearest neighbour); the logits are resized back linearly.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 slice or more.")
        if hu.ndim != 3 or hu.size == 0:
            raise InputError(f"hu has shape {hu.shape}; expected slices (N, H, W); use hu[None] for one slice.")
        if hu.dtype.kind not in "iuf":
            raise InputError(f"hu is of type {hu.dtype}; expected numbers, Hounsfield units.")
        network = self._network(total or len(hu))
        at_once = max(1, PASS_PIXELS // self.image_size**2) if self.device.type == "cpu" else batch_size
        for start in tqdm(range(0, len(hu), batch_size), description, disable=description is None, leave=False):
            position = slice(start, min(start + batch_size, len(hu)))
            if not np.isfinite(hu[position]).all():
                found = f"NaN or infinite values in slices {start} to {position.stop - 1}"
                raise InputError(f"hu holds {found}; expected Hounsfield units.")
            z = self.preprocessing.normalise(resize_nearest(hu[position], self.image_size))
            images = torch.from_numpy(z)[:, None].to(self.device.type, memory_format=torch.channels_last)
            out = images.new_empty(len(images), NUM_CLASSES, *hu.shape[1:])
            for seen, answer in zip(images.split(at_once), out.split(at_once)):
                average_views(network, seen, self.settings, answer)
            yield position, temper(out.cpu().numpy(), self.settings.temperature)

    def probabilities(self, hu: np.ndarray, batch_size: int = 8) -> np.ndarray:
        """All probabilities at once, float32 (N, 4, H, W): 4 MB for each slice of 512 px. hu: (N, H, W) in HU."""
        return np.concatenate([probabilities for _, probabilities in self.batches(hu, batch_size)])

    def labels(self, hu: np.ndarray, batch_size: int = 8, description: str | None = None) -> np.ndarray:
        """The class of every pixel, uint8 (N, H, W): the most probable one unless `settings` say more.

        hu: (N, H, W) in HU.
        """
        out = np.empty(hu.shape, dtype=np.uint8)
        for position, probabilities in self.batches(hu, batch_size, description):
            out[position] = predict(probabilities, self.settings)
        return out


def predict(probabilities: np.ndarray, settings: InferenceSettings = InferenceSettings()) -> np.ndarray:
    """Labels uint8 (N, H, W) of probabilities (N, 4, H, W): thresholds, then both clean-ups. InputError for NaN.

    The label is the class with the largest p / threshold, so that every pixel has exactly one, whatever the thresholds
    (p > threshold leaves pixels with none or with two). Only their ratios count, and equal ones are argmax; with two
    classes and thresholds t and 1 - t it is p > t. It is the best decision where missing a class costs 1 / threshold
    (Elkan 2001, The foundations of cost-sensitive learning).
    """
    if probabilities.ndim != 4 or probabilities.shape[1] != NUM_CLASSES:
        raise InputError(f"probabilities have shape {probabilities.shape}; expected (N, {NUM_CLASSES}, H, W).")
    if not np.isfinite(probabilities).all():
        raise InputError("probabilities hold NaN or infinite values; the network's training may have diverged.")
    if len(set(settings.thresholds)) > 1:
        probabilities = probabilities / np.asarray(settings.thresholds, probabilities.dtype)[:, None, None]
    labels = np.empty((len(probabilities), *probabilities.shape[2:]), np.uint8)
    for scores, slice_ in zip(probabilities, labels):  # argmax(0), the first of equals, in a fifth of NumPy's time
        best, slice_[:] = scores[0], 0
        for c in range(1, NUM_CLASSES):
            np.maximum(slice_, (scores[c] > best) * np.uint8(c), out=slice_)
            best = np.maximum(best, scores[c])
    return remove_small_lesions(remove_lung_islands(labels, settings.min_lung_share), settings.min_lesion_pixels)


def temper(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, 4, ...) as if the logits had been divided by T (Guo et al. 2017): p ** (1 / T), sum 1.

    Which class is the most probable stays. Averages over views are tempered after averaging, as Rahaman and Thiery 2021
    found best for ensembles.
    """
    if temperature == 1:
        return probabilities
    tempered = (probabilities / probabilities.max(1, keepdims=True)) ** np.float32(1 / temperature)
    return tempered / tempered.sum(1, keepdims=True)


def remove_lung_islands(labels: np.ndarray, min_share: float) -> np.ndarray:
    """Labels (N, H, W) in which stray pieces of lung, with the lesions in them, are background.

    Lung is all that is not background; a piece is what hangs together (8-connected). Stray is a piece with less than
    min_share of the pixels of the slice's largest, so that the small lungs near apex and base stay.
    """
    labels = labels.copy()
    for slice_ in labels if min_share else ():
        pieces, _ = ndimage.label(slice_ != BACKGROUND, EIGHT_CONNECTED)
        pixels = np.bincount(pieces.ravel())
        pixels[0] = 0  # what is no piece is background already
        slice_[(pixels < min_share * pixels.max())[pieces]] = BACKGROUND
    return labels


def remove_small_lesions(labels: np.ndarray, min_pixels: int) -> np.ndarray:
    """Labels (N, H, W) in which lesions below min_pixels take the class around them: of the nearest pixel that stays.

    A lesion is what hangs together (8-connected) of one class: specks of consolidation within ground glass go, too.
    """
    labels = labels.copy()
    for slice_ in labels if min_pixels > 1 else ():
        small = np.zeros(slice_.shape, bool)
        for c in LESIONS:
            lesions, _ = ndimage.label(slice_ == c, EIGHT_CONNECTED)
            small |= (np.bincount(lesions.ravel()) < min_pixels)[lesions] & (lesions > 0)
        if small.any() and not small.all():
            nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
            slice_[:] = slice_[tuple(nearest)]
    return labels


def average_views(
    network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, settings: InferenceSettings, out: torch.Tensor
) -> None:
    """Write the probabilities of images (n, 1, S, S), averaged over the views of `settings`, to out (n, 4, H, W)."""
    size, matrices = tuple(out.shape[2:]), view_matrices(settings, tuple(out.shape[2:]))
    for logits, answer in zip(network(images).float().contiguous(), out):  # one slice's pixels stay in a CPU's cache
        torch.softmax(F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False), 1, out=answer[None])
    views = torch.ones(size, device=out.device)
    for matrix in matrices:
        seen, _ = resample(images, matrix, images.shape[2:], "nearest")  # as the slides' recipe turns slices
        back, inside = resample(network(seen).float(), np.linalg.inv(matrix), size, "bilinear")
        out += back.softmax(1) * inside
        views += inside
    if matrices:
        out /= views


def view_matrices(settings: InferenceSettings, size: tuple[int, int]) -> list[np.ndarray]:
    """(2, 2) matrices, one for each view beside the slice itself: where in the slice a place (x, y) of the view lies.

    x and y run from -1 to 1 over the slice, whatever its size (height, width); the turns are true ones all the same.
    """
    pixels = np.diag([float(size[1]), float(size[0])])
    matrices = []
    for degrees in (0.0, *settings.angles):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.linalg.inv(pixels) @ [[cos, -sin], [sin, cos]] @ pixels
        matrices += [turn, turn @ np.diag([-1.0, 1.0])] if settings.flip else [turn]
    return matrices[1:]


def resample(
    images: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, C, h, w) at `size` (H, W), each place u from matrix @ u; and whether that lies inside, bool (H, W).

    Outside, the border goes on, as in training: good enough to look at, while only what lies inside is an answer.
    """
    theta = torch.tensor(np.c_[matrix, [0, 0]], dtype=torch.float32, device=images.device)
    grid = F.affine_grid(theta[None], [1, 1, *size], align_corners=False)
    inside = (grid.abs() <= 1).all(-1)[0]
    last = 1 - 1 / torch.tensor(images.shape[:1:-1], device=images.device)  # the centre of the last pixel, (x, y)
    grid = grid.clamp(-last, last).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode, align_corners=False), inside


def resize_nearest(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices or labels (N, H, W) as (N, size, size), by the nearest pixel: the one that OpenCV takes in validation."""

    def nearest(side: int) -> np.ndarray:
        return np.minimum(np.floor(np.arange(size) * (1 / (size / side))).astype(int), side - 1)

    rows, columns = map(nearest, slices.shape[1:])
    return slices[:, rows[:, None], columns]
