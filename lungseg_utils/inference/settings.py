"""The steps between network and labels, checked when they are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.core.files import InputError

BACKENDS = ("auto", "torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """The steps between network and labels, in their order; the defaults do nothing.

    InputError if one cannot work.

    The first three make the probabilities (`Segmenter.batches`), the others make labels of them (`predict`).
    """

    flip: bool = False  # average with the mirror image; left and right only: slices lie anterior up
    angles: Sequence[
        float
    ] = ()  # degrees; average with the slice turned by each, and turned and mirrored with flip
    temperature: float = 1.0  # see `temper`; above 1 less certain
    thresholds: Sequence[float] = (1.0,) * NUM_CLASSES  # see `predict`; the lower, the more often answered
    min_lung_share: float = 0.0  # see `remove_lung_islands`; of the largest piece of lung in the slice
    min_lesion_pixels: int = 0  # see `remove_small_lesions`; of the slice's own size

    def __post_init__(self) -> None:
        if not all(0 < abs(degrees) <= 45 for degrees in self.angles):
            raise InputError(f"angles are {list(self.angles)}; expected degrees from -45 to 45, without 0.")
        if not 0 < self.temperature < np.inf:
            raise InputError(
                f"temperature is {self.temperature}; expected a number above 0; 1 changes nothing."
            )
        if len(self.thresholds) != NUM_CLASSES or not all(
            0 < threshold < np.inf for threshold in self.thresholds
        ):
            raise InputError(
                f"thresholds are {list(self.thresholds)}; expected {NUM_CLASSES} numbers above 0, one for "
                "each class."
            )
        if not 0 <= self.min_lung_share <= 1:
            raise InputError(f"min_lung_share is {self.min_lung_share}; expected a share from 0 (off) to 1.")
        if not 0 <= self.min_lesion_pixels < np.inf:
            raise InputError(
                f"min_lesion_pixels is {self.min_lesion_pixels}; expected 0 (off) or more pixels."
            )

    @classmethod
    def from_names(cls, names: Mapping[str, Any]) -> "InferenceSettings":
        """The steps by 04's names for them; other names are left out.

        Args:
            names: Such as a notebook's `globals()`: `flip`, `angle` (degrees, to either side), `temperature`,
                `ground_glass_threshold`, `consolidation_threshold`, `min_lung_share`, `min_lesion_pixels`.
                What is missing does nothing.

        Returns:
            The steps.

        Raises:
            InputError: A step cannot work.
        """
        angle = names.get("angle", 0.0)
        lesions = (names.get(f"{lesion}_threshold", 1.0) for lesion in ("ground_glass", "consolidation"))
        same = ("flip", "temperature", "min_lung_share", "min_lesion_pixels")
        return cls(
            angles=(-angle, angle) if angle else (),
            thresholds=(*lesions, 1.0, 1.0),
            **{name: names[name] for name in same if name in names},
        )
