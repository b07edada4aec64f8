"""MHA, MHD and NRRD in, by SimpleITK where it is installed; their masks are NIfTI in the same grid."""

import re
from pathlib import Path

import numpy as np

from lungseg_utils.core.files import InputError
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.grey import Spread, settle_values
from lungseg_utils.scans.nifti import UNPLACED, NiftiFrame
from lungseg_utils.scans.orientation import placement
from lungseg_utils.scans.scan import Scan, check_size, to_int16

NO_ITK = (
    "reading MHA, MHD and NRRD takes SimpleITK; expected it to be installed; "
    "pip install SimpleITK, or give NIfTI."
)
HEADER = 2**14  # bytes, in which a header ends
# Without these the library assumes 1 mm, and the axes of DICOM.
SIZES = re.compile(
    rb"^(element ?(spacing|size) *=|spacings:|space directions:)", re.IGNORECASE | re.MULTILINE
)
PLACES = re.compile(rb"^((transformmatrix|orientation|rotation) *=|space:)", re.IGNORECASE | re.MULTILINE)


def read_itk(path: Path) -> Scan:
    """A 3D volume of MetaImage or NRRD, compressed or not. Raises InputError."""
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise InputError(NO_ITK) from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = reader.GetSize()  # along x, y, z of the file
        if len(shape) != 3 or reader.GetNumberOfComponents() != 1:
            found = f"{reader.GetNumberOfComponents()} values a voxel in {len(shape)} dimensions"
            raise InputError(f"{path} holds {found}; expected one number a voxel in 3; export one volume.")
        spacing, origin = np.array(reader.GetSpacing()), np.array(reader.GetOrigin())
        if not spacing.all():
            raise InputError(f"{path} has voxels of 0 mm; expected sizes above 0; export it again.")
        directions = np.reshape(reader.GetDirection(), (3, 3)).T * np.sign(spacing)[:, None]
        spacing = abs(spacing)
        orientation, between, notes = placement(directions, spacing, path)
        check_size(tuple(shape[axis] for axis in orientation.axes))
        image = reader.Execute()
    except RuntimeError as error:  # all of ITK's own
        raise InputError(
            f"{path} is no MHA, MHD or NRRD, or not all of it; expected one; export it again."
        ) from error
    spread = Spread()
    file = to_int16(spread.seen(sitk.GetArrayViewFromImage(image).T))
    spread.check()
    hu = np.array(orientation.to_hu(file), order="C")  # a copy: the view's memory goes with the image
    is_hu, said = settle_values(hu)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (directions * spacing[:, None]).T, origin
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # NIfTI counts to the right and to the front
    with path.open("rb") as handle:
        header = handle.read(HEADER)
    known = bool(SIZES.search(header))
    if known and np.allclose(spacing, 1) and np.array_equal(directions, np.eye(3)) and not origin.any():
        known = False
        notes.append(
            _(
                "The file gives 1 mm in all directions, as programs write it that know no sizes: "
                "none are given."
            )
        )
    if not PLACES.search(header):
        notes.append(_(UNPLACED))
    frame = NiftiFrame(1, shape, orientation, affine, (affine, 1), (affine, 1), tuple(spacing.tolist()), "mm")
    return Scan(hu, between if known else None, None, "nifti", is_hu, None, (*notes, *said), frame)
