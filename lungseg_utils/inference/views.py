"""Averaging the network's answers over mirrored and turned views of a slice."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from lungseg_utils.inference.settings import InferenceSettings


def average_views(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    settings: InferenceSettings,
    out: torch.Tensor,
) -> None:
    """Write the probabilities of images (n, 1, S, S), averaged over the views of `settings`, to out (n, 4, H, W)."""
    size, matrices = tuple(out.shape[2:]), view_matrices(settings, tuple(out.shape[2:]))
    for logits, answer in zip(
        network(images).float().contiguous(), out
    ):  # one slice's pixels stay in a CPU's cache
        torch.softmax(
            F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False), 1, out=answer[None]
        )
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
