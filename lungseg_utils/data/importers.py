"""Published data sets of COVID-19 CT with masks, converted to the project's arrays.

`lungseg import KIND SOURCE OUT`.

medseg and radiopaedia become the competition's own arrays. covid19-ct-seg and mosmed mark lesions without
their kind: each becomes a further source of training slices, with labels that say no more than its masks do
(training/losses.py).
"""

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from lungseg_utils.core.classes import (
    BACKGROUND,
    CONSOLIDATION,
    GROUND_GLASS,
    LUNG_OTHER,
    LUNG_WINDOW,
    NUM_CLASSES,
    SHORT_NAMES,
)
from lungseg_utils.core.files import (
    InputError,
    atomic_write,
    first_line,
    link,
    locked,
    replace_folder,
    resolve_path,
    write_csv,
)
from lungseg_utils.core.npy import round_to_int16, write_npy_header
from lungseg_utils.core.progress import tqdm
from lungseg_utils.data.arrays import FILES
from lungseg_utils.data.preprocessing import INTEGER_COLUMNS, load_prepared
from lungseg_utils.data.published_sets import KINDS, Kind

MOST_VOXELS = 2**30  # six times the largest published volume; a header that claims more is broken
SIZE = 512  # pixels a side, as in the competition
AGAIN = "run `lungseg import` again"


@dataclass(frozen=True)
class Case:
    """The files of one volume (or of one stack of slices), and its number of slices."""

    name: str
    image: Path
    lesions: Path | None
    lungs: Path | None
    slices: int


def open_scan(path: Path) -> Any:
    """The NIfTI file, its voxels unread. Raises InputError if it is none, not 3D, or impossibly large."""
    import nibabel

    try:
        scan: Any = nibabel.load(path)
    except Exception as error:  # nibabel's own errors, OSError, EOFError, zlib's
        raise InputError(
            f"{path} is not readable as NIfTI ({first_line(error)}); get the file again"
        ) from error
    if len(scan.shape) != 3 or not 0 < math.prod(scan.shape) <= MOST_VOXELS:
        raise InputError(
            f"{path} has the shape {scan.shape}; expected (columns, rows, slices) of a CT; get it again"
        )
    return scan


def case_slices(kind: Kind, case: Case, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """HU float32 and labels uint8, both (size, size), of each slice.

    From feet to head or, of a stack, as in the file.

    Front up, the patient's right at the image's left; padded with air to a square. The masks are turned like
    the image: voxel belongs to voxel in all of these sets, whatever a mask's own header says. One case is in
    memory, as stored. Raises InputError for unreadable files, values that are not finite, and mask values
    that the set does not have.
    """
    from lungseg_utils.core.classes import LESION, NOT_LESION  # it imports torch

    shared = kind.shared is not None and case.name.startswith(kind.shared)
    turn = _turn(case.image, kind.stack, as_stored=shared)
    images, to_hu = _voxels(case.image, turn)
    lesions = _voxels(case.lesions, turn) if case.lesions else None
    lungs = _voxels(case.lungs, turn) if case.lungs else None
    outside = BACKGROUND if kind.lungs else NOT_LESION
    meaning = (GROUND_GLASS, CONSOLIDATION, BACKGROUND) if kind.effusion else (LESION,)
    grey = shared and to_hu(images.min()) >= 0 and to_hu(images.max()) <= 255  # as HU there would be no air
    for z, image in enumerate(images):
        hu = to_hu(image)
        if grey:
            hu = LUNG_WINDOW[0] + hu * np.float32((LUNG_WINDOW[1] - LUNG_WINDOW[0]) / 255)
        if not np.isfinite(hu).all():
            raise InputError(
                f"{case.image} holds values that are not finite; expected HU; get the file again"
            )
        labels = np.full(hu.shape, outside, np.uint8)
        if lungs:
            voxels, to_mask = lungs
            labels[to_mask(voxels[z]) != 0] = LUNG_OTHER
        if lesions:
            voxels, to_mask = lesions
            mask = to_mask(voxels[z])
            if not np.isin(mask, range(len(meaning) + 1)).all():
                raise InputError(
                    f"{case.lesions} holds values other than 0 to {len(meaning)}; get the published mask"
                )
            for value, label in enumerate(meaning, 1):
                labels[mask == value] = label
        square = to_square(hu, size, float(hu.min()), cv2.INTER_AREA)
        yield square, to_square(labels, size, outside, cv2.INTER_NEAREST_EXACT)


def to_square(picture: np.ndarray, size: int, fill: float, interpolation: int) -> np.ndarray:
    """(H, W) padded with `fill` at both sides to a square, then resized to (size, size).

    Nothing is stretched.
    """
    height, width = picture.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    edges = (top, side - height - top, left, side - width - left)
    square = cv2.copyMakeBorder(np.ascontiguousarray(picture), *edges, cv2.BORDER_CONSTANT, value=fill)
    if side < size and interpolation == cv2.INTER_AREA:
        interpolation = cv2.INTER_LINEAR  # enlarging by areas would repeat pixels
    return square if side == size else cv2.resize(square, (size, size), interpolation=interpolation)


def _turn(path: Path, stack: bool, as_stored: bool) -> np.ndarray:
    """nibabel's transform of the stored axes.

    Columns to the patient's left, rows to the back, slices to the head.

    The slices of a stack stay in their order. as_stored: columns and rows are so already and the header errs.
    That of COVID-19-CT-Seg's Radiopaedia cases calls the back the front; their users turn them by hand (on
    GitHub neuro-ml/COVID-19-Triage, scripts/prepare_medseg.py; haydengunraj/COVIDNet-CT,
    radiopaedia_coronacases.py).
    """
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    axes = io_orientation(open_scan(path).affine)
    if np.isnan(axes).any() or axes[2, 0] != 2:
        raise InputError(
            f"{path}: its third axis does not run along the body; expected axial slices; get it again"
        )
    if as_stored:
        return np.array([[0, 1], [1, 1], axes[2]])
    turn = ornt_transform(axes, axcodes2ornt(("L", "P", "S")))
    if stack:
        turn[2, 1] = 1
    return turn


def _voxels(path: Path, turn: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The voxels in the file's own type, turned, (N, H, W), and what makes them float32 values."""
    from nibabel.orientations import apply_orientation

    scan = open_scan(path)
    try:
        stored = scan.dataobj.get_unscaled()
    except Exception as error:  # as in open_scan
        raise InputError(
            f"{path} is not readable to its end ({first_line(error)}); get the file again"
        ) from error
    slope, intercept = np.float32(scan.dataobj.slope), np.float32(scan.dataobj.inter)

    def measured(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32) * slope + intercept

    return apply_orientation(stored, turn).T, measured


def import_data(name: str, source: str | Path, out: str | Path, size: int = SIZE) -> Path:
    """Convert a published data set.

    Args:
        name: medseg and radiopaedia become images_*.npy float32 (N, size, size, 1) HU and masks_*.npy uint8
            one-hot (N, size, size, 4); each adds to what the other wrote in `out`. covid19-ct-seg and mosmed
            become images_*.npy int16 (N, size, size) HU, labels_*.npy uint8 (N, size, size) and slices.csv;
            see `add_to_prepared`. Beside them a text file names source, licence, mapping and overlaps.
        source: The folder with the published files.
        out: The folder to write, whole or not at all.
        size: Pixels a side.

    Returns:
        The folder `out`.

    Raises:
        InputError: For an unknown name, another layout, files that are not what they should be, or an `out`
            that holds anything else.
    """
    if name not in KINDS:
        raise InputError(f"kind is {name!r}; expected one of {', '.join(KINDS)}")
    kind, source, out = KINDS[name], resolve_path(source), resolve_path(out)
    cases, kept = find_cases(kind, source), _kept(kind, out)
    with replace_folder(out) as new:
        for path in kept:
            _link(path, new / path.name)
        images, labels = (new / file for file in kind.arrays)
        _write_arrays(kind, cases, images, labels, size)
        if kind.stack and "val_im" in (scans := _scans(source)):
            test = Case("val_im", scans["val_im"], None, None, open_scan(scans["val_im"]).shape[2])
            _write_arrays(kind, [test], new / FILES["test"][0], None, size)
        if not kind.competition:
            write_csv(new / "slices.csv", _slices_table(kind, cases, labels))
        elif not kind.stack:
            starts = np.cumsum([0, *(case.slices for case in cases)])[:-1]
            write_csv(
                new / "volumes.csv", pd.DataFrame({"volume": range(1, len(cases) + 1), "first_slice": starts})
            )
        with atomic_write(new / kind.note) as handle:
            found = ", ".join(f"{case.name} ({case.slices})" for case in cases)
            handle.write(
                "\n".join([*kind.about, "Research data: nothing here is a medical device or medical advice."])
            )
            handle.write(f"\nConverted by `lungseg import {name}`, files (slices): {found}.\n")
    return out


def find_cases(kind: Kind, source: Path) -> list[Case]:
    """The cases, 2 before 10. Raises InputError that names what is missing."""
    parts = [part for part in (kind.images, kind.lesions, kind.lungs) if part]
    if kind.stack:
        scans = _scans(source)
        files = {part: {kind.images: scans[part]} for part in parts if part in scans}
    else:
        found = [part for part in parts if (source / part).is_dir()]
        files = {part: _scans(source / part, kind.suffix if part == kind.lesions else "") for part in found}
    if missing := [part for part in parts if not files.get(part)]:
        layout = ", ".join(f"{part}{'' if kind.stack else '/*'}.nii.gz" for part in parts)
        raise InputError(
            f"{source} has no {', '.join(missing)}; expected {layout}; unpack the published files there"
        )
    # MosMedData has many studies without a mask; in the other sets each file has its counterparts
    names = set(files[kind.lesions]) if kind.suffix else set().union(*files.values())
    cases = []
    for name in sorted(
        names, key=lambda text: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", text)]
    ):
        if missing := [part for part in parts if name not in files[part]]:
            raise InputError(
                f"{source}: {name} is not in {', '.join(missing)}; expected it; unpack the files again"
            )
        paths = [files[part][name] for part in parts]
        shapes = [open_scan(path).shape for path in paths]
        if len(set(shapes)) > 1:
            sizes = ", ".join(f"{part} {shape}" for part, shape in zip(parts, shapes))
            raise InputError(
                f"{source}: {name} has the shapes {sizes}; expected the same; get files of one version"
            )
        image, lesions, lungs, *_ = *paths, None, None
        cases.append(Case(name, image, lesions, lungs, shapes[0][2]))
    return cases


def add_to_prepared(imported_dir: str | Path, prepared_dir: str | Path) -> Path:
    """Make an imported covid19-ct-seg or mosmed set a further source of the prepared folder.

    Its arrays are linked and its rows follow those of slices.csv: those of split "train" train from then on,
    by losses.partial_cross_entropy; validation and test stay as they were. 02_preprocessing undoes it.

    Args:
        imported_dir: What `import_data` wrote.
        prepared_dir: What 02_preprocessing wrote.

    Returns:
        The prepared folder.

    Raises:
        InputError: If either folder is not what it should be, or holds this source already.
    """
    imported, prepared = resolve_path(imported_dir), load_prepared(prepared_dir)
    try:
        slices = pd.read_csv(imported / "slices.csv").astype(dict.fromkeys(INTEGER_COLUMNS, "Int64"))
        source = slices["source"].iat[0]
        arrays = [imported / f"{part}_{source}.npy" for part in ("images", "labels")]
        shapes = [np.load(path, mmap_mode="r", allow_pickle=False).shape for path in arrays]
    except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
        raise InputError(f"{imported} is no imported source of training slices ({error}); {AGAIN}") from error
    if shapes[0] != shapes[1] or slices["index"].tolist() != list(range(shapes[0][0])):
        raise InputError(f"{imported}: its images, labels and slices.csv differ in number or size; {AGAIN}")
    if source in set(prepared.slices["source"]):
        raise InputError(
            f"{prepared.dir} holds {source} already; expected it once; run 02_preprocessing to start anew"
        )
    with locked(prepared.dir.parent, "02_preprocessing"):
        for path in arrays:
            (prepared.dir / path.name).unlink(missing_ok=True)  # of an earlier try that was cut off
            link(path, prepared.dir / path.name)
        write_csv(prepared.dir / "slices.csv", pd.concat([prepared.slices, slices], ignore_index=True))
    return prepared.dir


def _scans(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Name without suffix -> file, of the .nii and .nii.gz files whose names end with the suffix."""
    stems = {re.sub(r"\.nii(\.gz)?$", "", path.name): path for path in sorted(folder.glob("*.nii*"))}
    return {stem.removesuffix(suffix): path for stem, path in stems.items() if stem.endswith(suffix)}


def _write_arrays(kind: Kind, cases: list[Case], images: Path, labels: Path | None, size: int) -> None:
    """Write the slices of all cases, one after the other; no labels where there is no file for them."""
    count = sum(case.slices for case in cases)
    image_type, last = (np.float32, ((1,), (NUM_CLASSES,))) if kind.competition else (np.int16, ((), ()))
    with ExitStack() as stack:
        handles = []
        for path, dtype, axes in zip((images, labels), (image_type, np.uint8), last):
            if path:
                handles.append(stack.enter_context(path.open("wb")))
                write_npy_header(handles[-1], (count, size, size, *axes), dtype)
        progress = stack.enter_context(tqdm(total=count, desc=images.stem, unit="slice", leave=False))
        for case in cases:
            for hu, label in case_slices(kind, case, size):
                if kind.competition:
                    label = (label[..., None] == np.arange(NUM_CLASSES)).astype(np.uint8)
                else:
                    hu = round_to_int16(hu)
                for handle, array in zip(handles, (hu, label)):
                    handle.write(array.tobytes())
                progress.update()


def _slices_table(kind: Kind, cases: list[Case], labels: Path) -> pd.DataFrame:
    """As `data.make_slices` has it.

    The pixels of a class are missing where the slice's labels leave them open.
    """
    from lungseg_utils.core.classes import CLASS_SETS

    pixels = np.array(
        [np.bincount(x.ravel(), minlength=max(CLASS_SETS) + 1) for x in np.load(labels, mmap_mode="r")]
    )
    counts = [case.slices for case in cases]
    split = ["left_out" if kind.shared and case.name.startswith(kind.shared) else "train" for case in cases]
    table = pd.DataFrame({"source": kind.source, "index": np.arange(len(pixels))})
    table["volume"], table["split"] = np.repeat(range(1, len(cases) + 1), counts), np.repeat(split, counts)
    for c, short in enumerate(SHORT_NAMES):
        is_open = np.any(
            [pixels[:, label] > 0 for label, classes in CLASS_SETS.items() if c in classes], axis=0
        )
        table[short] = pd.array(pixels[:, c], "Int64")
        table.loc[is_open, short] = pd.NA
    return table


def _kept(kind: Kind, out: Path) -> list[Path]:
    """What stays in `out`: files of the competition's other kind.

    Raises InputError for what no import wrote.
    """
    if out.exists() and not out.is_dir():
        raise InputError(
            f"{out} is a file; expected a new name or the folder of an earlier import; choose another"
        )
    present = sorted(out.iterdir()) if out.exists() else []
    names = {path.name for path in present}
    imported = [other for other in KINDS.values() if other.note in names]
    together = [other for other in imported if other == kind or (other.competition and kind.competition)]
    if foreign := sorted(names.difference(*(other.files for other in together))):
        raise InputError(
            f"{out} holds {foreign[0]}; expected a new name or this kind's earlier import; choose another"
        )
    return [path for path in present if path.name not in kind.files]


def _link(path: Path, target: Path) -> None:
    """A second name for the file; a copy where the file system knows no such thing."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
