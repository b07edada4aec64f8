"""Clip, robust range, z-score: fitted on training slices, stored beside the model, applied everywhere alike.

The reference recipe: clip to [-1500, 500] HU; the 5th and 95th percentiles of the clipped training values
bound a robust range; mean and standard deviation of the values strictly inside it make the z-score of all
images.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lungseg_utils.core import files
from lungseg_utils.core.classes import SHORT_NAMES
from lungseg_utils.core.files import (
    InputError,
    atomic_write,
    locked,
    quoted,
    replace_folder,
    resolve_path,
    write_csv,
)
from lungseg_utils.core.npy import INT16, chunks, round_to_int16, write_npy_header
from lungseg_utils.data.arrays import FILES, CTData, to_labels

PERCENTILES = (5, 95)
UNITS = "HU; mean and std after clipping"
INTEGER_COLUMNS = ("volume", *SHORT_NAMES)
FINGERPRINT_LENGTH = 32  # older models have 16 digits, which covered neither pixels nor labels


def run_first(prepared_dir: Path) -> str:
    """What makes a prepared folder, as the end of a message."""
    command = f"lungseg run --run-dir {quoted(resolve_path(prepared_dir).parent)} --only 02"
    return f"run 02_preprocessing first (notebooks/02_preprocessing.ipynb, or `{command}`)"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The fitted numbers, all in HU.

    Low and high only say where mean and std were taken; nothing is cut there.
    """

    clip_min: float = -1500.0
    clip_max: float = 500.0
    low: float
    high: float
    mean: float
    std: float
    fit_on: str

    def __post_init__(self) -> None:
        numbers = (self.clip_min, self.clip_max, self.low, self.high, self.mean, self.std)
        numeric = all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers)
        if not (numeric and self.clip_min < self.clip_max and self.low <= self.high and self.std > 0):
            raise InputError(
                f"found {self}; expected finite numbers, clip_min < clip_max, low <= high and std > 0"
            )

    def normalise(self, hu: np.ndarray) -> np.ndarray:
        """Clip and z-score: HU of any shape in, float32 of the same shape out."""
        hu = np.asarray(hu, dtype=np.float32)
        return (np.clip(hu, self.clip_min, self.clip_max) - np.float32(self.mean)) / np.float32(self.std)

    def to_dict(self) -> dict:
        """The fields and their units, as stored in preprocessing.json and in a model's config.json."""
        return {**asdict(self), "units": UNITS}

    @classmethod
    def from_dict(cls, fields: dict) -> "Preprocessing":
        """The inverse of `to_dict`.

        Raises InputError for missing, unknown or unusable fields and other units.
        """
        names = [*cls.__dataclass_fields__, "units"]
        if not isinstance(fields, dict) or fields.keys() != set(names) or fields["units"] != UNITS:
            raise InputError(
                f"preprocessing is {fields!r}; expected the fields {', '.join(names)}, units {UNITS!r}"
            )
        return cls(**{name: value for name, value in fields.items() if name != "units"})

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        with atomic_write(path) as handle:
            handle.write(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Preprocessing":
        """Read what `save` wrote.

        Raises InputError if there is no such file or it does not hold the fields.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:  # InputError is a ValueError
            raise InputError(
                f"{path} is not a usable preprocessing.json: {error}; {run_first(Path(path).parent)}"
            ) from error


@dataclass(frozen=True)
class Prepared:
    """What 02_preprocessing wrote, memory-mapped.

    images: source -> (N, H, W) int16 HU, not clipped. labels: source -> (N, H, W) uint8 class index; no
    "test". slices: the table of `data.make_slices`; its column index counts within a source.
    """

    dir: Path
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    slices: pd.DataFrame
    preprocessing: Preprocessing

    def validation_slices(self) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """Rows of the validation slices, their images (N, H, W) in HU and their labels.

        They are of one source.
        """
        rows = self.slices[self.slices.split == "validation"]
        if rows.empty:
            raise InputError(f"{self.dir}/slices.csv has no validation slice; {run_first(self.dir)}")
        source, index = rows.source.iloc[0], rows["index"].to_numpy(int)
        return rows, self.images[source][index], self.labels[source][index]


def hu_histogram(images: np.ndarray, indices: np.ndarray, description: str | None = None) -> np.ndarray:
    """(65536,) number of pixels at each HU from -32768 on, of the slices `indices` of (N, H, W) images."""
    wanted = np.zeros(len(images), bool)
    wanted[indices] = True
    counts = np.zeros(INT16.max - INT16.min + 1, np.int64)
    for first, chunk in chunks(images, description=description):
        for index in np.flatnonzero(wanted[first : first + len(chunk)]):
            values = round_to_int16(chunk[index]).ravel().astype(np.int32) - INT16.min
            counts += np.bincount(values, minlength=len(counts))
    return counts


def weighted_percentile(values: np.ndarray, counts: np.ndarray, percent: float) -> float:
    """np.percentile(np.repeat(values, counts), percent), linear, for ascending values, without the repeat."""
    cumulative = np.cumsum(counts)
    position = percent / 100 * (cumulative[-1] - 1)
    ranks = [math.floor(position), math.ceil(position)]
    below, above = values[np.searchsorted(cumulative, ranks, side="right")]
    return float(below + (position - ranks[0]) * (above - below))


def check_fit_on(fit_on: str) -> None:
    """Raises InputError for what is neither "all" nor a source with labels."""
    sources = [source for source, (_, masks) in FILES.items() if masks]
    if fit_on not in ("all", *sources):
        raise InputError(f"fit_on is {fit_on!r}; expected 'all' or one of {', '.join(sources)}")


def check_clip(clip_min: float, clip_max: float) -> None:
    """Raises InputError unless there is something between the two."""
    if not clip_min < clip_max:
        raise InputError(
            f"clip_min is {clip_min} and clip_max {clip_max}; expected clip_min below clip_max, in HU"
        )


def fit_preprocessing(
    data: CTData,
    slices: pd.DataFrame,
    fit_on: str = "radiopaedia",
    clip_min: float = -1500.0,
    clip_max: float = 500.0,
) -> Preprocessing:
    """Fit on the training slices of one source, or of all.

    One pass with a histogram of one bin a HU, so memory does not grow with the data; the bins are exactly the
    values that `prepare` stores. Percentiles are within 0.5 HU of np.percentile's on the unrounded values
    (mean and std within 1 HU on the competition's arrays: values that round to the ends of the range count as
    outside).

    Args:
        data: The arrays.
        slices: The table of `make_slices`.
        fit_on: "radiopaedia" (the reference recipe), "medseg" or "all".
        clip_min: HU; below, values do not count.
        clip_max: HU; above, values do not count.

    Raises:
        InputError: If there is nothing to fit on.
    """
    check_fit_on(fit_on)
    check_clip(clip_min, clip_max)
    sources = data.sources if fit_on == "all" else (fit_on,)
    training = slices[slices["split"] == "train"]
    counts = np.zeros(INT16.max - INT16.min + 1, np.int64)
    for source in sources:
        indices = training.loc[training["source"] == source, "index"].to_numpy(int)
        counts += hu_histogram(data.images[source], indices, f"fit, {source}")
    if not counts.any():
        raise InputError(
            f"no training slice in {fit_on}; expected at least one; choose another fit_on or split"
        )
    values = np.clip(np.arange(INT16.min, INT16.max + 1), clip_min, clip_max).astype(np.float64)
    low, high = (weighted_percentile(values, counts, percent) for percent in PERCENTILES)
    inside = np.where((values > low) & (values < high), counts, 0)
    if np.count_nonzero(inside) < 2:
        raise InputError(
            f"hardly any value between {low:.0f} and {high:.0f} HU in {fit_on}; expected CT images; look at "
            "them"
        )
    mean = float(np.average(values, weights=inside))
    std = math.sqrt(np.average((values - mean) ** 2, weights=inside))
    clip = {"clip_min": float(clip_min), "clip_max": float(clip_max)}
    return Preprocessing(**clip, low=low, high=high, mean=mean, std=std, fit_on=fit_on)


def prepare(data: CTData, slices: pd.DataFrame, preprocessing: Preprocessing, out_dir: str | Path) -> Path:
    """Write the prepared folder, chunk by chunk.

    images_SOURCE.npy (int16 HU), labels_SOURCE.npy (uint8), slices.csv and preprocessing.json. An older
    prepared folder is replaced at the end, and stays as it was if anything fails.

    Args:
        data: The arrays.
        slices: The table of `make_slices`.
        preprocessing: From `fit_preprocessing`.
        out_dir: The folder to write.

    Returns:
        The folder.

    Raises:
        InputError: If out_dir holds something else, the slices are not those of the data, HU do not fit into
            int16, or another process writes in the run directory, the folder that holds out_dir.
    """
    out_dir = resolve_path(out_dir)
    if misfit := _misfit(slices, data.images, data.masks):
        raise InputError(
            f"the {misfit} rows of slices are not the slices of {data.dir}; use make_slices of this data"
        )
    if out_dir.exists() and not (out_dir.is_dir() and _is_replaceable(out_dir)):
        raise InputError(
            f"{out_dir} holds other things; expected a new name or an older prepared folder; rename"
        )
    with locked(out_dir.parent, "02_preprocessing"), replace_folder(out_dir) as new:
        for source, images in data.images.items():
            _write_npy(new / f"images_{source}.npy", images, images.shape, np.int16, round_to_int16)
        for source, masks in data.masks.items():
            convert = partial(to_labels, one_hot=masks.ndim == 4)
            _write_npy(new / f"labels_{source}.npy", masks, masks.shape[:3], np.uint8, convert)
        write_csv(new / "slices.csv", slices)
        preprocessing.save(new / "preprocessing.json")
    return out_dir


def load_prepared(prepared_dir: str | Path) -> Prepared:
    """Memory-map a prepared folder; on Windows, where nothing that is mapped can be replaced, read it.

    Raises:
        InputError: Which names 02_preprocessing, if a part is missing or misfits.
    """
    folder = resolve_path(prepared_dir)
    preprocessing = Preprocessing.load(folder / "preprocessing.json")
    labelled = [source for source, (_, masks) in FILES.items() if masks]
    mode: Literal["r"] | None = None if files.WINDOWS else "r"
    try:
        slices = pd.read_csv(folder / "slices.csv").astype(dict.fromkeys(INTEGER_COLUMNS, "Int64"))
        images, labels = (
            {s: np.load(folder / f"{kind}_{s}.npy", mode, allow_pickle=False) for s in sources}
            for kind, sources in (("images", FILES), ("labels", labelled))
        )
        if "split" not in slices:
            raise ValueError("slices.csv has no column split")
        misfit = _misfit(slices, images, labels)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{folder} is not a complete prepared folder: {error}; {run_first(folder)}"
        ) from error
    if misfit:
        raise InputError(
            f"{folder}: the {misfit} images, labels and slices.csv differ in number or size; "
            f"{run_first(folder)}"
        )
    return Prepared(folder, images, labels, slices, preprocessing)


def fingerprint(prepared_dir: str | Path) -> str:
    """Checksum of all that a training sees of a prepared folder.

    Pixels, labels, the slices' table and preprocessing.

    What was made from one prepared folder says so by it: checkpoint, model and results. Each file is read
    once a process and again when it has changed (half a gigabyte takes a second).
    """
    folder = resolve_path(prepared_dir)
    return _fingerprint([folder / "slices.csv", folder / "preprocessing.json", *folder.glob("*.npy")])


def data_fingerprint(folder: Path) -> str:
    """Checksum of the arrays (.npy) and tables (.csv) in a data folder, wherever it lies."""
    return _fingerprint([*folder.glob("*.npy"), *folder.glob("*.csv")])


def _fingerprint(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        about = path.stat()
        digest = _digest(path.resolve(), about.st_size, about.st_mtime_ns, about.st_ino)
        whole.update(f"{path.name} {digest}\n".encode())
    return whole.hexdigest()[:FINGERPRINT_LENGTH]


@cache
def _digest(path: Path, _size: int, _changed: int, _inode: int) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _misfit(slices: pd.DataFrame, images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> str | None:
    """The first source whose images, labels and rows of slices do not belong together, None if all do."""
    for source, array in images.items():
        listed = slices.loc[slices["source"] == source, "index"].tolist()
        if listed != list(range(len(array))) or labels.get(source, array).shape[:3] != array.shape:
            return source
    return None


def _is_replaceable(folder: Path) -> bool:
    """An empty folder, or one that `prepare` wrote."""
    return (folder / "preprocessing.json").exists() or not any(folder.iterdir())


def _write_npy(path: Path, array: np.ndarray, shape: tuple[int, ...], dtype: type, convert: Callable) -> None:
    """Write convert(array) as .npy chunk by chunk.

    A memory map opened for writing would keep its pages resident.
    """
    with path.open("wb") as handle:
        write_npy_header(handle, shape, dtype)
        parts = chunks(array, description=path.stem)
        handle.writelines(np.ascontiguousarray(convert(chunk)).tobytes() for _, chunk in parts)
