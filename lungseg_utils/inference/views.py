"""Mirrored and turned views of a slice: what the network says of each, kept until it is averaged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lungseg_utils.core.classes import BACKGROUND, NUM_CLASSES
from lungseg_utils.inference.postprocess import temper
from lungseg_utils.inference.settings import InferenceSettings

Frame = tuple[slice, slice]  # rows and columns
View = tuple[float, bool]  # degrees by which the slice is turned, and whether it is mirrored then


def views_of(settings: InferenceSettings) -> list[View]:
    """The views whose answers `settings` average; the first one is the slice itself."""
    sides = (False, True) if settings.flip else (False,)
    return [(degrees, mirrored) for degrees in (0.0, *settings.angles) for mirrored in sides]


@dataclass(frozen=True)
class Answers:
    """What the network said of n slices, before it is averaged and enlarged.

    To read it twice costs no second pass.

    Attributes:
        logits: By view, (n, 4, S, S).
        square: Rows and columns of the padded slices.
        frames: Of each slice, the rows and columns of its square that the network saw; air lies around them.
        inside: Rows and columns of the squares that are the slices' own.
    """

    logits: dict[View, torch.Tensor]
    square: tuple[int, int]
    frames: Sequence[Frame]
    inside: Frame

    @torch.inference_mode()
    def probabilities(self, settings: InferenceSettings, small: bool = False) -> np.ndarray:
        """Probabilities, averaged over the views of `settings` and tempered; they sum to 1.

        Args:
            settings: Their views must be among those that the network was asked for.
            small: At the network's size, the padding included, instead of in the slices' own grid.

        Returns:
            float32 (n, 4, H, W), or (n, 4, S, S).
        """
        first, *others = views_of(settings)
        plain = self.logits[first]
        size = (plain.shape[2], plain.shape[3]) if small else self.square
        out = plain.new_zeros(len(plain), NUM_CLASSES, *size)
        out[:, BACKGROUND] = 1
        for k, frame in enumerate(self.frames):  # one slice's pixels stay in a CPU's cache
            answer = out[k][:, *scaled(frame, self.square, size)]
            shown = answer.shape[1:]
            logits = F.interpolate(plain[k : k + 1], size=shown, mode="bilinear", align_corners=False)
            torch.softmax(logits, 1, out=answer[None])
            if others:
                self._average(k, others, answer)
        own = out if small else out[:, :, *self.inside].contiguous()
        return temper(own.cpu().numpy(), settings.temperature)

    def _average(self, k: int, others: Sequence[View], answer: torch.Tensor) -> None:
        """Turn slice k's own probabilities (4, H, W) into the mean with those of the other views."""
        height, width = answer.shape[1:]
        size = (height, width)
        views = torch.ones(size, device=answer.device)
        for view in others:
            back = np.linalg.inv(view_matrix(view, self.square))
            logits, inside = resample(self.logits[view][k : k + 1], back, size, "bilinear")
            answer += logits.softmax(1)[0] * inside
            views += inside
        answer /= views


def scaled(frame: Frame, before: tuple[int, int], after: tuple[int, int]) -> Frame:
    """The rows and columns of a frame in a picture of size `before`, where that picture has size `after`."""
    rows, columns = (
        slice(round(part.start * new / old), round(part.stop * new / old))
        for part, old, new in zip(frame, before, after, strict=True)
    )
    return rows, columns


def ask(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    view: View,
    square: tuple[int, int],
) -> torch.Tensor:
    """The network's logits, float32 (n, 4, S, S), of one view of images (n, 1, S, S)."""
    if view != (0.0, False):
        # By the nearest pixel, as the slides' recipe turns slices.
        height, width = images.shape[2:]
        images, _ = resample(images, view_matrix(view, square), (height, width), "nearest")
    return network(images).float().contiguous()


def view_matrix(view: View, size: tuple[int, int]) -> np.ndarray:
    """Where in the slice a place (x, y) of the view lies, (2, 2).

    Where in the slice a place (x, y) of the view lies.

    x and y run from -1 to 1 over the slice, whatever its size (height, width); the turns are true ones all
    the same.
    """
    degrees, mirrored = view
    pixels = np.diag([float(size[1]), float(size[0])])
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.linalg.inv(pixels) @ [[cos, -sin], [sin, cos]] @ pixels
    return turn @ np.diag([-1.0, 1.0]) if mirrored else turn


def resample(
    images: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, C, h, w) at `size` (H, W), each place u from matrix @ u.

    And whether that lies inside, bool (H, W).

    Outside, the border goes on, as in training: good enough to look at, while only what lies inside is an
    answer.
    """
    theta = torch.tensor(np.c_[matrix, [0, 0]], dtype=torch.float32, device=images.device)
    grid = F.affine_grid(theta[None], [1, 1, *size], align_corners=False)
    inside = (grid.abs() <= 1).all(-1)[0]
    last = 1 - 1 / torch.tensor(
        images.shape[:1:-1], device=images.device
    )  # the centre of the last pixel, (x, y)
    grid = grid.clamp(-last, last).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode, align_corners=False), inside


def square_margins(shape: tuple[int, int], pixel: tuple[float, float]) -> list[tuple[int, int]]:
    """Pixels to add before and after the rows and the columns, so that the slice is a square in mm.

    shape: rows and columns; pixel: mm between rows and between columns.
    """
    side = max(count * step for count, step in zip(shape, pixel))
    extra = [round(side / step) - count for count, step in zip(shape, pixel)]
    return [(count // 2, count - count // 2) for count in extra]
