"""The competition's five arrays: find them, memory-map them, check them, split them.

Source: kaggle.com/c/covid-segmentation (arrays of medicalsegmentation.com). data/README.md is the data card.
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from lungseg_utils.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, NUM_CLASSES, SHORT_NAMES
from lungseg_utils.files import InputError, resolve_path

FILES = {  # source: images, masks; "radiopedia" is the competition's own spelling
    "medseg": ("images_medseg.npy", "masks_medseg.npy"),
    "radiopaedia": ("images_radiopedia.npy", "masks_radiopedia.npy"),
    "test": ("test_images_medseg.npy", None),
}
KAGGLE_INPUT = Path("/kaggle/input")
REFERENCE_VALIDATION = 24  # the reference recipe validates on the first 24 MedSeg slices
VALIDATION_VOLUME = 1  # see make_slices
VOLUME_JUMP = 100.0  # HU; see infer_volumes
SAME_SCAN = 0.98  # correlation of two volumes' slices; the competition's 2 and 3 have 0.999, all others at most 0.90
IMAGE_CONTRACT = "(N, H, W) or (N, H, W, 1), float64, float32 or int16"
MASK_CONTRACT = "(N, H, W, 4) one-hot, or (N, H, W) or (N, H, W, 1) class index; numbers"
HOW_TO_GET = (
    "get the arrays with `kaggle competitions download -c covid-segmentation` or "
    '`kagglehub.competition_download("covid-segmentation")` (join the competition first), or make synthetic ones with '
    "`lungseg phantom data/practice` and use them with `--data-dir data/practice`"
)


@dataclass(frozen=True)
class Finding:
    """One line of `check_data`: level (ok, warning or error), what was looked at, what was found and expected."""

    level: str
    item: str
    found: str
    expected: str


@dataclass(frozen=True)
class CTData:
    """The arrays of one folder, memory-mapped: nothing is read before it is used.

    images: source -> (N, H, W), HU. masks: source -> (N, H, W, 4) one-hot or (N, H, W) class index; no "test".
    volumes: (N of radiopaedia,) volume number of each Radiopaedia slice, from 1.
    """

    dir: Path
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    volumes: np.ndarray

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources that have labels."""
        return tuple(self.masks)

    def labels(self, source: str, index: int | slice) -> np.ndarray:
        """Class index, uint8: (H, W) for one slice, (n, H, W) for a range. See `to_labels` for overlapping masks."""
        masks = self.masks[source]
        labels = to_labels(masks[index], one_hot=masks.ndim == 4)
        release(masks)
        return labels


def find_data(data_dir: str | Path = "phantom") -> Path:
    """Folder of the arrays.

    "phantom": data/phantom, always the default set of this version's generator (made if there is none, made anew if
    there is another); no environment variable changes that. "auto": the folder in LUNGSEG_DATA_DIR, else wherever
    images_medseg.npy lies under /kaggle/input, else data/. Anything else: that folder.
    Raises InputError if there is nothing there, or data/phantom holds other files.
    """
    marker = FILES["medseg"][0]
    if data_dir == "phantom":
        from lungseg_utils.phantom import default_phantom  # it imports this module

        return default_phantom(resolve_path("data/phantom"))
    if data_dir != "auto":
        folder = resolve_path(data_dir)
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; expected the folder of the five .npy files; {HOW_TO_GET}")
        return folder
    if os.environ.get("LUNGSEG_DATA_DIR"):
        folder = resolve_path(os.environ["LUNGSEG_DATA_DIR"])
        if not (folder / marker).is_file():
            raise InputError(f"no {marker} in LUNGSEG_DATA_DIR, {folder}; correct or unset the variable; {HOW_TO_GET}")
        return folder
    # The mount point depends on how the data were attached, so search; the shallowest, then the first by name.
    found = sorted(KAGGLE_INPUT.rglob(marker), key=lambda path: (len(path.parts), path))
    for folder in [*(path.parent for path in found), resolve_path("data")]:
        if (folder / marker).is_file():
            return folder
    raise InputError(
        f"no {marker} under {KAGGLE_INPUT} or in {resolve_path('data')}, and LUNGSEG_DATA_DIR is not set; {HOW_TO_GET}"
    )


def load_data(folder: str | Path) -> CTData:
    """Memory-map the five arrays of a folder (never unpickled); volumes from volumes.csv if there, else inferred.

    Raises InputError if a file is missing or unreadable, or shapes or types do not fit. Reads the Radiopaedia images
    once to infer the volumes (seconds); `check_data` looks at the values of everything.
    """
    folder = resolve_path(folder)
    images, masks, findings = open_arrays(folder)
    for finding in findings:
        if finding.level == "error":
            raise InputError(
                f"{folder / finding.item}: found {finding.found}; expected {finding.expected}; "
                f"`lungseg check {folder}` lists all problems; {HOW_TO_GET}"
            )
    return CTData(folder, images, masks, volume_numbers(folder, images["radiopaedia"]))


def to_labels(masks: np.ndarray, one_hot: bool) -> np.ndarray:
    """Class index, uint8, of one-hot (..., 4) or class-index (...) masks.

    Pixels may carry several classes or none (data/README.md). The rule: consolidation over ground glass over lung
    other over background (the denser finding wins, as in a radiologist's reading), and background where none is set.
    Raises InputError for class indices other than 0..3.
    """
    if one_hot:
        labels = np.full(masks.shape[:-1], BACKGROUND, np.uint8)
        for index in (LUNG_OTHER, GROUND_GLASS, CONSOLIDATION):
            labels[masks[..., index] != 0] = index
        return labels
    labels = masks.astype(np.uint8)
    if (labels != masks).any() or (labels >= NUM_CLASSES).any():
        raise InputError("the masks hold values other than 0, 1, 2 and 3; expected class indices; run `lungseg check`")
    return labels


def chunks(array: np.ndarray, size: int = 16, description: str | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index, array[first : first + size]), with a progress bar if described, in bounded memory.

    The way to walk over a whole memory-mapped array: see `release`.
    """
    for first in tqdm(range(0, len(array), size), desc=description, disable=description is None, leave=False):
        yield first, array[first : first + size]
        release(array)


def release(array: np.ndarray) -> None:
    """Hand the memory of a read-only memory map (or a view of one) back to the system; its values stay readable.

    Pages stay resident once touched, so that a walk over the arrays would count as 2.8 GB of this process.
    """
    while isinstance(array.base, np.ndarray):
        array = array.base
    if isinstance(array.base, mmap.mmap) and not array.flags.writeable and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def thumbnails(images: np.ndarray) -> np.ndarray:
    """(N, 64, 64) float32 area means of (N, H, W) images."""
    small = np.empty((len(images), 64, 64), np.float32)
    for first, chunk in chunks(images):
        for index, image in enumerate(chunk, first):
            cv2.resize(np.asarray(image, np.float32), (64, 64), dst=small[index], interpolation=cv2.INTER_AREA)
    return small


def infer_volumes(images: np.ndarray) -> np.ndarray:
    """Volume number, from 1, of each slice of (N, H, W) images in HU that stand volume after volume.

    A new volume begins at a jump, the mean absolute difference between neighbouring slices at 64 px, that exceeds
    100 HU and twice the mean of the jumps before and after it (thick slices differ much, but evenly). On the
    competition's Radiopaedia images, jumps within the nine volumes are at most 61 HU and 1.3 times their neighbours,
    those between volumes at least 138 HU and 5.8 times. Volumes of a single slice are not found: see volumes.csv.
    """
    jumps = np.abs(np.diff(thumbnails(images), axis=0)).mean(axis=(1, 2))
    padded = np.pad(jumps, 1, mode="reflect") if len(jumps) > 1 else np.zeros(len(jumps) + 2)
    around = (padded[:-2] + padded[2:]) / 2
    return np.concatenate([[1], 1 + np.cumsum((jumps > VOLUME_JUMP) & (jumps > 2 * around))])


def near_duplicates(images: np.ndarray, threshold: float = 0.95) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation), i < j, of (N, H, W) images whose pixels correlate by `threshold` or more at 64 px.

    The closest pair first; blank slices are in no pair.
    """
    flat = thumbnails(images).reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    correlation = np.triu(flat @ flat.T, k=1)
    pairs = [(int(i), int(j), float(correlation[i, j])) for i, j in np.argwhere(correlation >= threshold)]
    return sorted(pairs, key=lambda pair: -pair[2])


def make_slices(data: CTData, split: str = "reference", validation_volume: int = VALIDATION_VOLUME) -> pd.DataFrame:
    """One row a slice: source, index, volume, split (train, validation, test, left_out), pixels of each class.

    "reference": MedSeg 0..23 validation, all else training; a training MedSeg slice that is near-identical to a
    validation slice is left out. "by_volume": one Radiopaedia volume validation, all else training, but for volumes
    that hold a slice of it as good as identical: they are the same scan (of the competition's, 2 and 3). Its default is
    volume 1: of the nine it has by far the most slices with both lesions (43 of 45 with ground glass, 40 with
    consolidation), and 87 % of Radiopaedia's ground-glass and 84 % of its consolidation pixels stay for training
    (volume 3 would take two thirds of the consolidations; volumes 6 and 7 have none).
    Volume is missing outside Radiopaedia, class pixels for the unlabelled test slices (pandas NA, Int64).
    Raises InputError for an unknown split or volume.
    """
    if split not in ("reference", "by_volume"):
        raise InputError(f"split is {split!r}; expected 'reference' or 'by_volume'")
    if split == "by_volume" and validation_volume not in data.volumes:
        known = ", ".join(map(str, np.unique(data.volumes)))
        raise InputError(f"validation_volume is {validation_volume!r}; this data has the volumes {known}; choose one")
    tables = []
    for source, images in data.images.items():
        table = pd.DataFrame({"source": source, "index": np.arange(len(images)), "volume": pd.NA, "split": "train"})
        if source == "radiopaedia":
            table["volume"] = data.volumes
        if source == "test":
            table["split"] = "test"
        elif split == "by_volume":
            if source == "radiopaedia":
                validation = data.volumes == validation_volume
                pairs = np.array([(i, j) for i, j, _ in near_duplicates(images, SAME_SCAN)], int).reshape(-1, 2)
                shared = pairs[validation[pairs].any(axis=1)]
                table.loc[np.isin(data.volumes, data.volumes[shared]), "split"] = "left_out"
                table.loc[validation, "split"] = "validation"
        elif source == "medseg":
            table.loc[: REFERENCE_VALIDATION - 1, "split"] = "validation"
            twins = [j for i, j, _ in near_duplicates(images) if i < REFERENCE_VALIDATION <= j]
            table.loc[twins, "split"] = "left_out"
        table[list(SHORT_NAMES)] = _class_pixels(data, source) if source in data.masks else pd.NA
        tables.append(table.astype({column: "Int64" for column in ("volume", *SHORT_NAMES)}))
    return pd.concat(tables, ignore_index=True)


def open_arrays(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[Finding]]:
    """The arrays that can be used, without a last axis of 1, and a finding for each file and pair of files."""
    images, masks, findings = {}, {}, []
    for source, (image_name, mask_name) in FILES.items():
        for name, arrays, contract in ((image_name, images, IMAGE_CONTRACT), (mask_name, masks, MASK_CONTRACT)):
            if name is None:
                continue
            try:
                array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
                found, shape, dtype = f"{array.shape} {array.dtype}", array.shape, array.dtype
                last = (1,) if arrays is images else (1, 4)
                fits = min(shape, default=0) > 0 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in last))
                fits &= dtype in (np.float64, np.float32, np.int16) if arrays is images else dtype.kind in "buif"
            except FileNotFoundError:
                found, fits = "no such file", False
            except Exception as error:  # whatever numpy finds wrong with the file is the finding
                found, fits = f"not readable as .npy: {str(error).splitlines()[0] if str(error) else 'empty'}", False
            if fits:
                arrays[source] = array[..., 0] if shape[3:] == (1,) else array
            findings.append(Finding("ok" if fits else "error", name, found, contract))
        if source in images and source in masks and images[source].shape != masks[source].shape[:3]:
            found, expected = masks[source].shape[:3], images[source].shape
            findings.append(Finding("error", mask_name, f"(N, H, W) {found}", f"{expected}, as in {image_name}"))
    return images, masks, findings


def volume_numbers(folder: Path, images: np.ndarray) -> np.ndarray:
    """Volume number of each slice: from volumes.csv (columns volume, first_slice) beside the arrays, else inferred."""
    path = folder / "volumes.csv"
    if not path.exists():
        return infer_volumes(images)
    try:
        table = pd.read_csv(path)[["volume", "first_slice"]].astype("Int64").astype("int64")  # Int64 refuses 3.5
        first = table["first_slice"].to_numpy()
        usable = first[0] == 0 and (np.diff(first) > 0).all() and first[-1] < len(images)
        usable = usable and table["volume"].is_unique and (table["volume"] > 0).all()
    except (OSError, TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} is not a table of volume,first_slice ({error}); correct or delete it") from error
    if not usable:
        raise InputError(
            f"{path}: found {table.to_numpy().tolist()}; expected different volume numbers from 1 on, first slices "
            f"ascending from 0 to below {len(images)}; correct or delete it"
        )
    return np.repeat(table["volume"].to_numpy(), np.diff([*first, len(images)]))


def _class_pixels(data: CTData, source: str) -> np.ndarray:
    """(N, 4) number of pixels of each class in each slice."""
    one_hot = data.masks[source].ndim == 4
    rows = []
    for _, chunk in chunks(data.masks[source], description=f"classes, {source}"):
        rows += [np.bincount(to_labels(mask, one_hot).ravel(), minlength=NUM_CLASSES) for mask in chunk]
    return np.array(rows)

