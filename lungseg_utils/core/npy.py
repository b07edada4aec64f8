"""NumPy's file format in bounded memory: walk over a memory-mapped array, write one chunk by chunk."""

import mmap
from collections.abc import Iterator
from typing import IO

import numpy as np

from lungseg_utils.core.files import InputError
from lungseg_utils.core.progress import tqdm

INT16 = np.iinfo(np.int16)


def chunks(
    array: np.ndarray, size: int = 16, description: str | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index, array[first : first + size]), with a progress bar if described, in bounded memory.

    The way to walk over a whole memory-mapped array: see `release`.
    """
    for first in tqdm(range(0, len(array), size), desc=description, disable=description is None, leave=False):
        yield first, array[first : first + size]
        release(array)


def release(array: np.ndarray) -> None:
    """Hand the memory of a read-only memory map (or a view of one) back to the system.

    Its values stay readable.

    Pages stay resident once touched, so that a walk over the arrays would count as 2.8 GB of this process.
    """
    while isinstance(array.base, np.ndarray):
        array = array.base
    if isinstance(array.base, mmap.mmap) and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def round_to_int16(hu: np.ndarray) -> np.ndarray:
    """HU to int16, at most 0.5 HU off. Raises InputError for values that are not finite or do not fit."""
    rounded = np.rint(hu)
    if not ((rounded >= INT16.min) & (rounded <= INT16.max)).all():  # false for NaN as well
        raise InputError(
            f"the images hold values that are not finite or outside {INT16.min}..{INT16.max}; expected "
            "Hounsfield "
            "units; run `lungseg check`"
        )
    return rounded.astype(np.int16)


def write_npy_header(handle: IO[bytes], shape: tuple[int, ...], dtype: type) -> None:
    """Begin a .npy file whose values follow in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, header)
