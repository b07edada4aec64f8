"""A scan to try `lungseg predict` and the notebook of it with: a phantom as a scanner's NIfTI file.

No real patient.
"""

from pathlib import Path

import numpy as np

from lungseg_utils.core.files import resolve_path
from lungseg_utils.data.anatomy import make_patient
from lungseg_utils.data.phantom import render
from lungseg_utils.scans.nifti import save_compressed

FIELD, HEIGHT = 380.0, 290.0  # mm: across the picture, and from below the diaphragm to the shoulders


def write_example_scan(path: str | Path, slices: int = 29, size: int = 256, seed: int = 5) -> Path:
    """Write a .nii.gz of a phantom with ground glass and consolidation; same seed, same bytes.

    int16 HU (size, size, slices), axes to the patient's right, front and head as NIfTI counts: not the order
    in which a slice is looked at.

    Args:
        path: The file to write.
        slices: How many.
        size: Pixels a side.
        seed: Of the patient.

    Returns:
        The path.
    """
    import nibabel as nib

    path, step, pixel = resolve_path(path), HEIGHT / slices, FIELD / size
    hu, _ = _draw(slices, size, seed)
    affine = np.diag([pixel, pixel, step, 1.0])
    affine[:2, 3] = -FIELD / 2
    image = nib.Nifti1Image(np.rint(hu[:, ::-1, ::-1]).astype(np.int16).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    return save_compressed(image, path)


def example_truth(slices: int = 29, size: int = 256, seed: int = 5) -> np.ndarray:
    """The true labels of `write_example_scan`'s phantom, as `read_scan` orders its slices.

    Args:
        slices: As there.
        size: As there.
        seed: As there.

    Returns:
        Class index uint8 (slices, size, size).
    """
    return _draw(slices, size, seed)[1]


def _draw(slices: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels of the phantom, (slices, size, size) each, from feet to head."""
    rng = np.random.default_rng(seed)
    known = dict(
        fov=FIELD, window=(-1024.0, 1000.0), surround=None, shift=(0.0, 0.0), effusion=(0.0, 0.0), noise=20.0
    )
    patient = make_patient(rng, (0, HEIGHT), (0.12, 0.05), **known)
    return render(rng, patient, np.arange(slices) * (HEIGHT / slices), size)
