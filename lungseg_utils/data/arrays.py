"""The competition's five arrays: find them, memory-map them, check them, split them.

Source: kaggle.com/c/covid-segmentation (arrays of medicalsegmentation.com). data/README.md is the data card.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, NUM_CLASSES
from lungseg_utils.core.files import InputError, quoted, resolve_path
from lungseg_utils.core.npy import release
from lungseg_utils.data.similarity import infer_volumes

FILES = {  # source: images, masks; "radiopedia" is the competition's own spelling
    "medseg": ("images_medseg.npy", "masks_medseg.npy"),
    "radiopaedia": ("images_radiopedia.npy", "masks_radiopedia.npy"),
    "test": ("test_images_medseg.npy", None),
}
IMAGE_CONTRACT = "(N, H, W) or (N, H, W, 1), float64, float32 or int16"
MASK_CONTRACT = "(N, H, W, 4) one-hot, or (N, H, W) or (N, H, W, 1) class index; numbers"
HOW_TO_GET = (
    "get the arrays with `kaggle competitions download -c covid-segmentation` or "
    '`kagglehub.competition_download("covid-segmentation")` (join the competition first), or make synthetic '
    "ones with "
    "`lungseg phantom data/practice` and use them with `--data-dir data/practice`"
)


@dataclass(frozen=True)
class Finding:
    """One line of `check_data`.

    Level (ok, warning or error), what was looked at, what was found and expected.
    """

    level: str
    item: str
    found: str
    expected: str


@dataclass(frozen=True)
class CTData:
    """The arrays of one folder, memory-mapped: nothing is read before it is used.

    Attributes:
        images: source -> (N, H, W), HU.
        masks: source -> (N, H, W, 4) one-hot or (N, H, W) class index; no "test".
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
        """Class index, uint8: (H, W) for one slice, (n, H, W) for a range.

        See `to_labels` for overlapping masks.
        """
        masks = self.masks[source]
        labels = to_labels(masks[index], one_hot=masks.ndim == 4)
        release(masks)
        return labels


@dataclass(frozen=True)
class OpenedArrays:
    """What a folder's files hold, memory-mapped.

    The arrays that can be used, and what was found of each file.

    Attributes:
        dir: The folder.
        images: Source to (N, H, W).
        masks: Source to (N, H, W, 4) one-hot or (N, H, W) class index.
        findings: One for each file, and for each pair whose sizes differ.
    """

    dir: Path
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    findings: tuple[Finding, ...]

    @cached_property
    def volumes(self) -> np.ndarray:
        """Volume number of each Radiopaedia slice; inferring them reads these images once (seconds)."""
        return volume_numbers(self.dir, self.images["radiopaedia"])

    def data(self) -> CTData:
        """The arrays as notebooks use them.

        Raises InputError if a file is missing, unreadable, or does not fit.
        """
        for finding in self.findings:
            if finding.level == "error":
                raise InputError(
                    f"{self.dir / finding.item}: found {finding.found}; expected {finding.expected}; "
                    f"`lungseg check {quoted(self.dir)}` lists all problems; {how_to_get(self.dir)}"
                )
        return CTData(self.dir, self.images, self.masks, self.volumes)


def load_data(folder: str | Path) -> CTData:
    """Memory-map the five arrays of a folder (never unpickled).

    Volumes from volumes.csv if there, else inferred.

    `check_data` looks at the values of everything, and has the same arrays.

    Args:
        folder: Where the five files are.

    Returns:
        The arrays.

    Raises:
        InputError: A file is missing or unreadable, or shapes or types do not fit.
    """
    return open_arrays(resolve_path(folder)).data()


def how_to_get(folder: Path) -> str:
    """What to do where arrays are missing in a folder.

    Name where they lie, packed or deeper, else where to get them.
    """
    marker = FILES["medseg"][0]
    if (folder / marker).is_file():
        return "get the competition's own files again, or correct these"
    inside = sorted(path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}/{marker}"))
    if inside:
        found = inside[0].parent
        return f"they are in {found}: name that folder, as in --data-dir {quoted(found)}"
    around = folder.parent if folder.suffix == ".zip" or not folder.is_dir() else folder
    for path in [folder] if folder.is_file() else sorted(around.glob("*.zip")):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(Path(name).name in (marker, f"{marker}.zip") for name in archive.namelist()):
                    unpack = f"python -m zipfile -e {quoted(path)} {quoted(path.with_suffix(''))}"
                    return f"they are packed in {path}: {unpack}, and name that folder"
    return HOW_TO_GET


def to_labels(masks: np.ndarray, one_hot: bool) -> np.ndarray:
    """Class index, uint8, of one-hot (..., 4) or class-index (...) masks.

    Pixels may carry several classes or none (data/README.md). The rule: consolidation over ground glass over
    lung other over background (the denser finding wins, as in a radiologist's reading), and background where
    none is set. Raises InputError for class indices other than 0..3.
    """
    if one_hot:
        labels = np.full(masks.shape[:-1], BACKGROUND, np.uint8)
        for index in (LUNG_OTHER, GROUND_GLASS, CONSOLIDATION):
            labels[masks[..., index] != 0] = index
        return labels
    labels = masks.astype(np.uint8)
    if (labels != masks).any() or (labels >= NUM_CLASSES).any():
        raise InputError(
            "the masks hold values other than 0, 1, 2 and 3; expected class indices; run `lungseg check`"
        )
    return labels


def open_arrays(folder: Path) -> OpenedArrays:
    """Memory-map what can be used of a folder's files, without a last axis of 1; nothing is refused yet."""
    images: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    findings = []
    for source, (image_name, mask_name) in FILES.items():
        image, finding = _open_array(folder / image_name, IMAGE_CONTRACT, _is_image_type, (1,))
        findings.append(finding)
        if image is not None:
            images[source] = image
        if mask_name is None:
            continue
        mask, finding = _open_array(folder / mask_name, MASK_CONTRACT, _is_number, (1, NUM_CLASSES))
        findings.append(finding)
        if mask is not None:
            masks[source] = mask
        if image is not None and mask is not None and image.shape != mask.shape[:3]:
            found, expected = f"(N, H, W) {mask.shape[:3]}", f"{image.shape}, as in {image_name}"
            findings.append(Finding("error", mask_name, found, expected))
    return OpenedArrays(folder, images, masks, tuple(findings))


def _is_image_type(dtype: np.dtype) -> bool:
    return dtype in (np.float64, np.float32, np.int16)


def _is_number(dtype: np.dtype) -> bool:
    return dtype.kind in "buif"


def _open_array(
    path: Path, contract: str, has_right_type: Callable[[np.dtype], bool], last: tuple[int, ...]
) -> tuple[np.ndarray | None, Finding]:
    """The array of a file, None if it breaks the contract, and what was found.

    last: sizes that a fourth axis may have.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of arrays (.npz)")
        found = f"{array.shape} {array.dtype}"
    except FileNotFoundError:
        return None, Finding("error", path.name, "no such file", contract)
    except Exception as error:  # whatever numpy finds wrong with the file is the finding
        why = str(error).splitlines()[0] if str(error) else "empty"
        return None, Finding("error", path.name, f"not readable as .npy: {why}", contract)
    right_axes = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in last)
    if not right_axes or array.size == 0 or not has_right_type(array.dtype):
        return None, Finding("error", path.name, found, contract)
    return array[..., 0] if array.shape[3:] == (1,) else array, Finding("ok", path.name, found, contract)


def volume_numbers(folder: Path, images: np.ndarray) -> np.ndarray:
    """Volume number of each slice.

    From volumes.csv (columns volume, first_slice) beside the arrays, else inferred.
    """
    path = folder / "volumes.csv"
    if not path.exists():
        return infer_volumes(images)
    try:
        table = (
            pd.read_csv(path)[["volume", "first_slice"]].astype("Int64").astype("int64")
        )  # Int64 refuses 3.5
        first = table["first_slice"].to_numpy()
        usable = first[0] == 0 and (np.diff(first) > 0).all() and first[-1] < len(images)
        usable = usable and table["volume"].is_unique and (table["volume"] > 0).all()
    except (OSError, TypeError, ValueError, KeyError, IndexError) as error:
        raise InputError(
            f"{path} is not a table of volume,first_slice ({error}); correct or delete it"
        ) from error
    if not usable:
        raise InputError(
            f"{path}: found {table.to_numpy().tolist()}; expected different volume numbers from 1 on, first "
            "slices "
            f"ascending from 0 to below {len(images)}; correct or delete it"
        )
    return np.repeat(table["volume"].to_numpy(), np.diff([*first, len(images)]))
