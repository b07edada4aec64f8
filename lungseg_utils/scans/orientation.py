"""How a volume lies in the patient: axes exchanged and reversed, and never a value interpolated."""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import translate as _

# Slices to the head, rows to the back, columns to the left, in DICOM's coordinates (left, posterior,
# superior).
LPS = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)
LARGE_ANGLE = 5  # degrees; patients never lie quite straight


@dataclass(frozen=True)
class Orientation:
    """How a file's array lies in the patient: hu is its view with axes in the order `axes`, some reversed."""

    axes: tuple[int, ...]
    reversed: tuple[bool, ...]  # of hu's axes

    def to_hu(self, array: np.ndarray) -> np.ndarray:
        """View of an array of the file's axes as (N, H, W)."""
        return array.transpose(self.axes)[self._steps]

    def to_file(self, volume: np.ndarray) -> np.ndarray:
        """View of (N, H, W) in the file's axes: undoes `to_hu`."""
        return volume[self._steps].transpose(np.argsort(self.axes))

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if back else 1) for back in self.reversed)


AS_IT_IS = Orientation((0, 1, 2), (False, False, False))


@dataclass(frozen=True)
class ArrayFrame:
    """The shape of an array or a picture, and how hu is a view of its three axes."""

    shape: tuple[int, ...]
    orientation: Orientation


def orient(directions: np.ndarray) -> Orientation:
    """The exchange of axes that brings a file's array closest to axial slices as a radiologist sees them.

    directions: (3, 3), row i is the unit vector (to the patient's left, back, head: LPS) along the file's
    axis i.
    """
    along = directions @ LPS.T  # cosine of file axis i with hu's axis j
    axes = max(permutations(range(3)), key=lambda order: sum(abs(along[order[j], j]) for j in range(3)))
    return Orientation(axes, tuple(bool(along[axes[j], j] < 0) for j in range(3)))


def placement(
    directions: np.ndarray, spacing: np.ndarray, path: Path
) -> tuple[Orientation, tuple[float, float, float], list[str]]:
    """Orientation, mm between slices, rows and columns of hu, and notes.

    directions: as in `orient`; spacing: (3,), mm along the file's axes. Raises InputError for coarse sagittal
    or coronal slices: seen from below, they would be bands.
    """
    orientation = orient(directions)
    planes, rows, columns = (float(spacing[axis]) for axis in orientation.axes)
    between = (planes, rows, columns)
    if max(between[1:]) > 2 * min(between[1:]):
        raise InputError(
            f"{path} has pixels of {between[1]:.1f} x {between[2]:.1f} mm in the axial plane, so its slices "
            "lie in "
            "another plane; expected axial slices; export the axial series."
        )
    cosines = [abs(directions[axis] @ LPS[j]) for j, axis in enumerate(orientation.axes)]
    angle = round(float(np.degrees(np.arccos(np.clip(min(cosines), 0, 1)))))
    oblique = _(
        "The scan lies oblique or tilted by {angle} degrees; it is used in its own planes, "
        "and not straightened."
    ).format(angle=angle)
    return orientation, between, [oblique] if angle > LARGE_ANGLE else []
