"""From slices in HU to probabilities and labels at full size.

Every step beyond argmax is off unless asked for.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lungseg_utils.core.device import Device, choose_device
from lungseg_utils.core.files import InputError, first_line, resolve_path
from lungseg_utils.core.image import body_frame, resize_nearest, shrink_by_area
from lungseg_utils.core.progress import tqdm
from lungseg_utils.data.augmentation import check_frame
from lungseg_utils.data.preprocessing import Preprocessing, check_clip
from lungseg_utils.inference.openvino import compile_network, is_installed
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.inference.settings import BACKENDS, InferenceSettings
from lungseg_utils.inference.views import Answers, View, ask, square_margins, views_of
from lungseg_utils.model import load_model

AIR = -1000  # HU; what slices are padded with
PASS_PIXELS = (
    2**17
)  # of slices that a CPU takes at a time: larger activations leave its caches, up to twice as slow
# pixels through the network, from which compiling (2 s) may pay: 61 slices of 512 px, 434 of 192
WORTH_COMPILING = 16_000_000


@dataclass(frozen=True)
class Segmenter:
    """A trained network with all that its config.json says of a prediction.

    Slices in HU in, labels in their grid out.

        labels = Segmenter.load("runs/demo/model")(hu)

    Every prediction takes these steps, whoever asks for it: pad to a square, cut away the air around the
    body, clamp to the window, shrink to image_size, normalise, run the network, average the views, enlarge,
    put back into the slice, clean up.

    Attributes:
        model: The network, float32 (n, 1, image_size, image_size) to logits (n, 4, image_size, image_size).
        config: The model folder's config.json; `image_size` and `preprocessing` count here, and
            of models that have them `window`, `frame` (`body`: see `body_frame`; else the whole slice) and
            `resize` (`area`: `shrink_by_area`; else the nearest pixel).
        device: Where the network runs.
        settings: The steps between network and labels.
        backend: What runs the network; see `load`. InputError if it is unknown or cannot run here.
    """

    model: nn.Module
    config: Mapping[str, Any]
    device: Device
    settings: InferenceSettings = InferenceSettings()
    backend: str = "torch"

    def __post_init__(self) -> None:
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
        """From a folder that 03_training wrote; name: `weights`, or `last`.

        Raises InputError if it holds no usable model.

        backend: `torch`; `openvino` (a CPU, and the package installed); or `auto`: OpenVINO where it can run
        and a job has slices enough to win back the seconds that compiling takes. The labels are the same.
        """
        device = device or choose_device()
        model, config = load_model(model_dir, name)
        try:
            Preprocessing.from_dict(config["preprocessing"])
            check_clip(*map(float, config.get("window") or (0, 1)))
            check_frame(config.get("frame", "slice"))
        except (TypeError, ValueError) as error:  # InputError is a ValueError
            raise InputError(
                f"{resolve_path(model_dir) / 'config.json'} is damaged ({first_line(error)}); run "
                "03_training again."
            ) from error
        model = model.to(device=device.type).to(memory_format=torch.channels_last)
        return cls(model, config, device, settings, backend)

    def __call__(self, volume: np.ndarray, pixel: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
        """The class of every pixel, uint8 (N, H, W), of a volume (N, H, W) in HU; see `labels`."""
        return self.labels(volume, pixel=pixel)

    @property
    def image_size(self) -> int:
        """Pixels a side that the network sees."""
        return self.config["image_size"]

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """What makes z-scores of HU."""
        return Preprocessing.from_dict(self.config["preprocessing"])

    @property
    def window(self) -> tuple[float, float] | None:
        """HU to which slices are clamped before all else.

        None: as they come, for a model whose config names none.
        """
        return tuple(self.config["window"]) if self.config.get("window") else None

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

    def _network(self, pictures: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """What runs the network in a job of that many pictures: slices, and each further view of them."""
        pixels = pictures * self.image_size**2
        can_compile = self.backend == "auto" and self.device.type == "cpu" and is_installed()
        if self.backend == "openvino" or (can_compile and pixels >= WORTH_COMPILING):
            return self._compiled
        return self.model

    def batches(
        self,
        hu: np.ndarray,
        batch_size: int = 8,
        description: str | None = None,
        pixel: tuple[float, float] = (1.0, 1.0),
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """One batch of slices at a time: memory does not grow with the stack.

        The network sees squares: slices that are none, in mm, are padded with air, and the answer is cropped
        back. With `frame` `body` the air around the body is cut away: it is background. Squares are resized
        to image_size as in validation (`resize` of the config); the logits are resized back linearly.

        Args:
            hu: (N, H, W) in HU, any size and numeric type.
            batch_size: Slices at a time.
            description: Of the progress bar; without one, none is shown.
            pixel: mm between rows and between columns; only their ratio counts.

        Yields:
            The position of the batch in hu, and its probabilities, float32 (n, 4, H, W): they sum to 1,
            averaged over the views of `settings` and tempered.

        Raises:
            InputError: hu is no stack of slices in HU.
        """
        for position, answers in self.answers(hu, batch_size, description, pixel):
            yield position, answers.probabilities(self.settings)

    @torch.inference_mode()
    def answers(
        self,
        hu: np.ndarray,
        batch_size: int = 8,
        description: str | None = None,
        pixel: tuple[float, float] = (1.0, 1.0),
        views: Sequence[View] = (),
    ) -> Iterator[tuple[slice, Answers]]:
        """As `batches`, before the probabilities are made: for who makes several of them of one pass.

        Args:
            hu: As in `batches`, as all that follows but the last.
            batch_size: Slices at a time.
            description: Of the progress bar.
            pixel: mm between rows and between columns.
            views: What the network is asked for, each once; without any, what `settings` need.

        Yields:
            The position of the batch in hu, and what the network says of it.

        Raises:
            InputError: hu is no stack of slices in HU.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 slice or more.")
        if hu.ndim != 3 or hu.size == 0:
            raise InputError(
                f"hu has shape {hu.shape}; expected slices (N, H, W); use hu[None] for one slice."
            )
        if hu.dtype.kind not in "iuf":
            raise InputError(f"hu is of type {hu.dtype}; expected numbers, Hounsfield units.")
        views = views or views_of(self.settings)
        network = self._network(len(hu) * len(views))
        with tqdm(
            total=len(hu), desc=description, unit="slice", disable=description is None, leave=False
        ) as bar:
            for start in range(0, len(hu), batch_size):
                position = slice(start, min(start + batch_size, len(hu)))
                if not np.isfinite(hu[position]).all():
                    found = f"NaN or infinite values in slices {start} to {position.stop - 1}"
                    raise InputError(f"hu holds {found}; expected Hounsfield units.")
                yield position, self._answers(network, hu[position], pixel, views)
                bar.update(position.stop - start)

    def _answers(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        hu: np.ndarray,
        pixel: tuple[float, float],
        views: Sequence[View],
    ) -> Answers:
        """What the network says of a few slices (n, H, W) in HU."""
        (top, bottom), (left, right) = square_margins(hu.shape[1:], pixel)
        square = np.pad(hu, ((0, 0), (top, bottom), (left, right)), constant_values=AIR)
        whole = slice(0, square.shape[1]), slice(0, square.shape[2])
        frames = [body_frame(each) if self.config.get("frame") == "body" else whole for each in square]
        images = self.images(each[frame] for each, frame in zip(square, frames, strict=True))
        at_once = max(1, PASS_PIXELS // self.image_size**2) if self.device.type == "cpu" else len(images)
        parts = torch.split(images, at_once)
        rows, columns = hu.shape[1:]
        return Answers(
            logits={
                view: torch.cat([ask(network, part, view, square.shape[1:]) for part in parts])
                for view in views
            },
            square=square.shape[1:],
            frames=frames,
            inside=(slice(top, top + rows), slice(left, left + columns)),
        )

    def images(self, squares: Iterable[np.ndarray]) -> torch.Tensor:
        """What the network sees of squares (H, W) in HU: float32 (n, 1, image_size, image_size)."""
        shrink = shrink_by_area if self.config.get("resize") == "area" else resize_nearest
        clamped = (each.clip(*self.window) if self.window else each for each in squares)
        z = [self.preprocessing.normalise(shrink(each[None], self.image_size)) for each in clamped]
        return torch.from_numpy(np.stack(z)).to(self.device.type, memory_format=torch.channels_last)

    def probabilities(
        self, hu: np.ndarray, batch_size: int = 8, pixel: tuple[float, float] = (1.0, 1.0)
    ) -> np.ndarray:
        """All probabilities at once, float32 (N, 4, H, W): 4 MB for each slice of 512 px.

        hu: (N, H, W) in HU.
        """
        return np.concatenate([answer for _, answer in self.batches(hu, batch_size, pixel=pixel)])

    def labels(
        self,
        hu: np.ndarray,
        batch_size: int = 8,
        description: str | None = None,
        pixel: tuple[float, float] = (1.0, 1.0),
    ) -> np.ndarray:
        """The class of every pixel: the most probable one unless `settings` say more.

        Args:
            hu: (N, H, W) in HU.
            batch_size: Slices at a time.
            description: Of the progress bar; without one, none is shown.
            pixel: mm between rows and between columns; only their ratio counts.

        Returns:
            uint8 (N, H, W).

        Raises:
            InputError: hu is no stack of slices in HU.
        """
        out = np.empty(hu.shape, dtype=np.uint8)
        for position, probabilities in self.batches(hu, batch_size, description, pixel):
            out[position] = predict(probabilities, self.settings)
        return out
