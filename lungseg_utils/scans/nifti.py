"""NIfTI volumes in, masks with the same grid and affine out.

Format: nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungseg_utils.core.files import InputError, atomic_write
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.grey import Spread, settle_values
from lungseg_utils.scans.orientation import Orientation, placement
from lungseg_utils.scans.scan import MASK_TABLE, Scan, check_size, to_int16

MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
UNPLACED = N_(
    "The file does not say how the patient lies: right and left, or front and back, may be exchanged."
)


@dataclass(frozen=True)
class NiftiFrame:
    """The file's grid: its shape, both of its affines with their codes, and its unit of length."""

    version: int
    shape: tuple[int, ...]
    orientation: Orientation
    affine: np.ndarray
    sform: tuple[np.ndarray | None, int]
    qform: tuple[np.ndarray | None, int]
    zooms: tuple[float, ...]
    unit: str


def read_nifti(path: Path) -> Scan:
    """A 3D volume or one slice, NIfTI-1 or -2, compressed or not, read slice by slice. Raises InputError."""
    import nibabel as nib

    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with path.open("rb") as raw, gzip.open(raw, "rb") if packed else raw as handle:
        try:
            head = handle.read(348)
            version = 2 if head[4:7] == b"n+2" else 1
            if version == 1 and head[344:347] != b"n+1":
                raise ValueError("no NIfTI mark")
            handle.seek(0)
            image = (nib.Nifti2Image if version == 2 else nib.Nifti1Image).from_stream(handle)
            return _read(path, version, image)
        except InputError:
            raise
        except Exception as error:  # whatever nibabel makes of a header that is none
            raise InputError(
                f"{path} is no NIfTI file, or not all of it; expected one; export it again."
            ) from error


def _read(path: Path, version: int, image) -> Scan:
    header, shape = image.header, tuple(int(n) for n in image.shape)
    grid = shape
    while len(grid) > 3 and grid[-1] == 1:
        grid = grid[:-1]
    if len(grid) == 2:
        grid = (*grid, 1)
    if len(grid) != 3 or header.get_data_dtype().kind not in "iuf":
        found = f"{header.get_data_dtype()} of shape {shape}"
        raise InputError(
            f"{path} holds {found}; expected one number a voxel in 3 dimensions; export one volume."
        )
    affine, sform, qform = image.affine, header.get_sform(coded=True), header.get_qform(coded=True)
    unit = _unit(header)
    steps = affine[:3, :3].T * MILLIMETRES.get(unit, 1.0)
    spacing = np.linalg.norm(steps, axis=1)
    if (
        not np.isfinite(affine).all()
        or not spacing.all()
        or abs(np.linalg.det(steps / spacing[:, None])) < 0.1
    ):
        raise InputError(
            f"{path} has an affine that places no volume; expected three directions; export it again."
        )
    directions = steps / spacing[:, None] * [-1, -1, 1]  # NIfTI counts to the right and to the front
    orientation, between, notes = placement(directions, spacing, path)
    # Between planes, and not along a slanted line from one to the next: a voxel's volume is the determinant.
    between = (float(abs(np.linalg.det(steps)) / (between[1] * between[2])), *between[1:])
    doubts, sized = _contradictions(header, affine, sform, qform, spacing, between[0], unit)
    notes += doubts
    check_size(tuple(grid[axis] for axis in orientation.axes))
    hu = np.empty([grid[axis] for axis in orientation.axes], np.int16)
    out = orientation.to_file(hu)
    spread = Spread()
    for k in range(grid[2]):
        position = (..., k, *(0 for _ in shape[3:])) if len(shape) > 2 else ...
        out[..., k] = to_int16(spread.seen(np.asanyarray(image.dataobj[position])))
    spread.check()
    is_hu, said = settle_values(hu)
    frame = NiftiFrame(version, shape, orientation, affine, sform, qform, header.get_zooms(), unit)
    return Scan(hu, between if sized else None, None, "nifti", is_hu, None, (*notes, *said), frame)


def _unit(header: Any) -> str:
    """The header's unit of length; a code that no standard has says nothing."""
    try:
        return header.get_xyzt_units()[0]
    except KeyError:
        return "unknown"


def _contradictions(
    header: Any,
    affine: np.ndarray,
    sform: tuple,
    qform: tuple,
    spacing: np.ndarray,
    plane_step: float,
    unit: str,
) -> tuple[list[str], bool]:
    """What the header says twice and differently, as notes, and whether the sizes may be used.

    spacing: (3,) mm along the file's axes by the affine; plane_step: mm from plane to plane.
    """
    notes = []
    pixdim = np.array(header.get_zooms()[:3], float) * MILLIMETRES.get(unit, 1.0)
    default = np.allclose(pixdim, MILLIMETRES.get(unit, 1.0))
    pixdim = np.append(pixdim, spacing[len(pixdim) :])  # a slice in two dimensions has two
    given, named = (" x ".join(f"{mm:.4g}" for mm in sizes) for sizes in (spacing, pixdim))
    same = np.isclose(pixdim, spacing, rtol=0.01) | np.isclose(pixdim, plane_step, rtol=0.01)
    sized = True
    if not (sform[1] or qform[1]):
        notes.append(_(UNPLACED))
        sized = not default
    elif np.array_equal(abs(affine), np.eye(4)) and default:  # ITK's reverses two axes
        notes.append(
            _("The affine is the identity, as programs write it that know no sizes. {unplaced}").format(
                unplaced=_(UNPLACED)
            )
        )
        sized = False
    elif not same.all() and not default:
        notes.append(
            _(
                "The header contradicts itself: voxels of {given} mm by its affine, of {named} mm by "
                "pixdim. No sizes are given; export it again if you need them."
            ).format(given=given, named=named)
        )
        sized = False
    elif not same.all():
        notes.append(
            _(
                "pixdim says {named} mm, which is what a header holds by default; the affine's "
                "{given} mm are used."
            ).format(named=named, given=given)
        )
    if sform[1] and qform[1]:
        ways = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (sform[0], qform[0])]
        if not np.allclose(ways[0], ways[1], atol=0.1):
            mirrored = np.linalg.det(ways[0]) * np.linalg.det(ways[1]) < 0
            notes.append(
                _(
                    "sform and qform disagree on how the patient lies: right and left, or front and back, "
                    "are exchanged between them. The sform is used; a viewer that takes the qform shows it "
                    "otherwise, so check the sides."
                )
                if mirrored
                else _(
                    "sform and qform disagree on how the patient lies. The sform is used; a viewer that "
                    "takes the qform shows it otherwise, so check the sides."
                )
            )
    return notes, sized


def write_nifti(path: Path, frame: NiftiFrame, labels: np.ndarray) -> Path:
    """mask.nii.gz: MASK_VALUES, uint8, in the file's grid; labels: uint8 (N, H, W).

    No text of the header is copied.
    """
    import nibabel as nib

    values = frame.orientation.to_file(MASK_TABLE[labels]).reshape(frame.shape)
    image = (nib.Nifti2Image if frame.version == 2 else nib.Nifti1Image)(values, frame.affine)
    image.header.set_zooms(frame.zooms)
    image.header.set_xyzt_units(frame.unit)
    image.set_qform(*frame.qform, update_affine=False)
    image.set_sform(*frame.sform, update_affine=False)
    return save_compressed(image, path)


def save_volume(values: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    """A .nii.gz of values, uint8 in three dimensions, placed by affine (4, 4) in mm."""
    import nibabel as nib

    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return save_compressed(image, path)


def save_compressed(image, path: Path) -> Path:
    """Write nibabel's image as .nii.gz, without a name or a time in the archive's header.

    Same image, same bytes.
    """
    with atomic_write(path, "wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as handle:
        image.to_stream(handle)
    return path
