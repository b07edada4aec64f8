"""From slices in HU to probabilities and labels at full size. Every step beyond argmax is off unless asked for."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.core.device import Device, choose_device
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import resize_nearest
from lungseg_utils.data.preprocessing import Preprocessing
from lungseg_utils.inference.openvino import compile_network, is_installed
from lungseg_utils.inference.postprocess import predict, temper
from lungseg_utils.inference.settings import BACKENDS, InferenceSettings
from lungseg_utils.inference.views import average_views, view_matrices
from lungseg_utils.model import load_model

PASS_PIXELS = (
    2**17
)  # of slices that a CPU takes at a time: larger activations leave its caches, up to twice as slow
WORTH_COMPILING = 16_000_000  # pixels through the network, from which compiling (2 s) may pay: 61 slices of 512 px, 434 of 192


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
            raise InputError(
                "backend is 'openvino', which is not installed; run `pip install openvino`, or use 'auto'."
            )
        if self.backend == "openvino" and self.device.type != "cpu":
            raise InputError(
                f"backend is 'openvino' and the device {self.device.type}; it needs a CPU; use 'auto'."
            )

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        device: Device | None = None,
        settings: InferenceSettings = InferenceSettings(),
        name: str = "weights",
        backend: str = "auto",
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
                raise InputError(
                    f"OpenVINO cannot run this network ({why}); use the backend 'torch'."
                ) from error
            warnings.warn(
                f"OpenVINO cannot run this network ({why}); PyTorch does, more slowly.", stacklevel=2
            )
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
            raise InputError(
                f"hu has shape {hu.shape}; expected slices (N, H, W); use hu[None] for one slice."
            )
        if hu.dtype.kind not in "iuf":
            raise InputError(f"hu is of type {hu.dtype}; expected numbers, Hounsfield units.")
        network = self._network(total or len(hu))
        at_once = max(1, PASS_PIXELS // self.image_size**2) if self.device.type == "cpu" else batch_size
        for start in tqdm(
            range(0, len(hu), batch_size), description, disable=description is None, leave=False
        ):
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
