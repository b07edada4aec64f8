"""Which slices of a case the report shows, and what of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS
from lungseg_utils.core.image import lung_box

SHOWN = 4  # slices in the montage
MOST_HEIGHT = 0.62  # of the montage's tiles, as a share of its width


def most_affected(lesion: np.ndarray, lung: np.ndarray, count: int = SHOWN) -> list[int]:
    """Slices with the largest lesions, from head to feet.

    Neighbours of a chosen one are left out while others remain.

    lesion, lung: (N,) pixels of each slice. Without lesions, slices with the most lung, spread likewise.
    """
    weight = np.where(lesion > 0, lesion + lung.max(), lung).astype(float)
    apart = max(np.count_nonzero(lung) // (2 * count), 1)
    chosen: list[int] = []
    order = list(np.argsort(-weight, kind="stable"))
    for near in (apart, 1):  # the second round fills up with neighbours
        for index in order:
            if len(chosen) < count and all(abs(index - other) >= near for other in chosen):
                chosen.append(int(index))
    return sorted(chosen, reverse=True)


@dataclass(frozen=True)
class Montage:
    """Which slices are shown, head first, and the rows and columns of them.

    Width over height of such a tile in mm.
    """

    chosen: list[int]
    rows: slice
    columns: slice
    shape: float

    @property
    def flat(self) -> bool:
        """Whether the three pictures of a slice stand side by side: with few slices they are larger so."""
        return len(self.chosen) < 3

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return (len(self.chosen), 3) if self.flat else (3, len(self.chosen))

    def height(self, width: float) -> float:
        """Inches that a montage of this width, in inches, takes with its titles and legend.

        At most what a page has.
        """
        down, across = self.grid
        tiles = down * 0.91 * width / across / self.shape
        return min(tiles, MOST_HEIGHT * width) + (down if self.flat else 1) * 0.25 + 0.45


def plan_montage(
    profile: Mapping[str, Any], labels: np.ndarray, spacing: tuple[float, float, float] | None
) -> Montage:
    """The most affected slices, cropped to the lungs that they show together.

    Args:
        profile: Lung and lesions of each slice, as `severity` measures them.
        labels: Class index (N, H, W).
        spacing: mm between slices, rows and columns; None: pixels count as squares.

    Returns:
        The slices and their part.
    """
    lesion = np.sum([profile[CLASSES[c].short] for c in LESIONS], axis=0)
    chosen = most_affected(lesion, np.array(profile["lung"]))
    rows, columns = lung_box(labels[chosen] != BACKGROUND)
    wide = (columns.stop - columns.start) / (rows.stop - rows.start)
    return Montage(chosen, rows, columns, wide * (spacing[2] / spacing[1] if spacing else 1))
