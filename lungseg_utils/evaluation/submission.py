"""The competition's `sub.csv`.

Written, read back and verified, drawn, and scored against a truth that the user has.

Columns Id, Predicted; one row for each (slice, row, column, lesion class), the class running fastest: ground
glass, consolidation. Ten test slices of 512 px make 10 x 512 x 512 x 2 = 5,242,880 rows of 0 or 1.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS, NUM_CLASSES
from lungseg_utils.core.files import InputError, atomic_write, resolve_path
from lungseg_utils.data.arrays import MASK_CONTRACT, to_labels
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.inference.ties import Tie, check_tie
from lungseg_utils.scans.pictures import write_picture

HEADER = b"Id,Predicted\n"
TEST_SHAPE = (10, 512, 512)  # of the competition's test slices
GZIP = b"\x1f\x8b"  # the first bytes of a compressed file, whatever its name


def submit(source: str | Path) -> tuple[Path, int]:
    """Write the competition's rows.

    Args:
        source: A run directory: `results/sub.csv` is written there from its prepared test slices and its
            model, by the model and the steps of the inference that 04_results scored (before it has run: the
            run's own model and plain argmax). Or a picture that `write_labels` wrote: its rows land beside it
            as .csv.

    Returns:
        The file, and its number of rows.

    Raises:
        InputError: The source is neither, the run's own model has learned from other prepared slices, or
            04_results has scored another model than is there now.
    """
    source = resolve_path(source)
    if source.suffix == ".png":
        path, labels = source.with_suffix(".csv"), read_labels(source)
    else:
        path, labels = source / "results" / "sub.csv", _answer(source)
    write_submission(path, labels)
    return path, labels.size * len(LESIONS)


def _answer(run_dir: Path) -> np.ndarray:
    """Labels (N, H, W) of a run's test slices."""
    hu = load_prepared(run_dir / "prepared").images["test"]
    folder, settings, _ = scored_model(run_dir)
    segmenter = Segmenter.load(folder, settings=settings)
    return segmenter.labels(hu, batch_size=2, description="test slices")


def scored_model(run_dir: str | Path) -> tuple[Path, InferenceSettings, Tie]:
    """What 04_results scored in a run directory, as long as it is still there; see `scored_by`.

    Args:
        run_dir: The run directory.

    Returns:
        The model's folder, the steps of the inference, and what ties the model to the run's prepared slices.

    Raises:
        InputError: It is another model than 04_results scored, or the run's own that learned from other
            slices.
    """
    run_dir = resolve_path(run_dir)
    path = run_dir / "results" / "metrics.json"
    model, settings, weights = scored_by(path)
    folder = model_folder(model, run_dir)
    tie = check_tie(folder, run_dir)
    if weights not in (None, tie.weights):
        raise InputError(
            f"{path} is of an earlier model than {folder}; run 04_results again, or delete it for plain "
            "argmax."
        )
    return folder, settings, tie


def write_labels(path: Path, labels: np.ndarray) -> Path:
    """Write labels, class index (N, S, S), as a PNG of kilobytes that holds all that `sub.csv` says.

    The slices stand one below another; a pixel's index is its class.
    """
    return write_picture(path, labels.reshape(-1, labels.shape[-1]))


def read_labels(path: Path) -> np.ndarray:
    """Labels uint8 (N, S, S) that `write_labels` wrote. Raises InputError for any other picture."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            labels = np.asarray(image) if image.mode == "P" else np.zeros((0, 0), np.uint8)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not readable as PNG: {error}; expected the picture of a run's labels."
        ) from error
    height, width = labels.shape
    if not height or height % width or labels.max() >= NUM_CLASSES:
        raise InputError(f"{path} holds no labels; expected square slices one below another, index = class.")
    return labels.reshape(-1, width, width)


def scored_by(path: Path) -> tuple[str, InferenceSettings, str | None]:
    """What 04_results scored.

    Args:
        path: Of its metrics.json.

    Returns:
        Model (a name or folder; empty is the run's own), steps of the inference, and the checksum of the
        weights, which older results lack.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        weights = record.get("tie", {}).get("weights")
        return str(record.get("model", "")), InferenceSettings(**record["inference"]), weights
    except (
        FileNotFoundError,
        KeyError,
    ):  # 04_results has not run, or was of schema 1, which knew argmax alone
        return "", InferenceSettings(), None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used: {error}; run 04_results again, or delete it for plain argmax."
        ) from error


def write_submission(path: str | Path, labels: np.ndarray) -> None:
    """Write `sub.csv`: 50 MB and half a second for the ten test slices.

    Args:
        path: The file.
        labels: Class index (N, H, W).
    """
    values = to_labels(labels, one_hot=False)[..., None] == np.array(LESIONS)
    with atomic_write(path, "wb") as handle:
        handle.write(_csv(values.ravel()))


def read_submission(path: str | Path, shape: tuple[int, int, int] = TEST_SHAPE) -> np.ndarray:
    """What a submission file says of ground glass and of consolidation.

    A pixel may have both (the competition allows it, though no argmax does it). Gzip-compressed files are
    read as well.

    Args:
        path: The file.
        shape: (N, H, W) of the test slices.

    Returns:
        Masks uint8 (N, H, W, 2), 0 or 1.

    Raises:
        InputError: For anything but the exact form: header, number of rows, ids 0, 1, 2 ... in order, values
            0 or 1.
    """
    path = Path(path)
    rows = int(np.prod(shape)) * len(LESIONS)
    try:
        with Path(path).open("rb") as plain:
            start = plain.read(len(GZIP))
        with (gzip.open if start == GZIP else open)(path, "rb") as handle:
            header = handle.readline(100)
            if header.strip() != HEADER.strip():
                found = f"begins with {_shown(header)}" if header else "is empty"
                raise InputError(
                    f"{path} {found}; expected a submission, first line 'Id,Predicted'; name another."
                )
            text = (HEADER + handle.read().replace(b"\r\n", b"\n")).rstrip() + b"\n"
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}; expected a sub.csv, or one compressed with gzip."
        ) from error

    if (lines := text.count(b"\n") - 1) != rows:
        why = "it is cut off, or made from other slices" if lines < rows else "it is made from other slices"
        expected = " x ".join(map(str, (*shape, len(LESIONS))))
        raise InputError(f"{path} has {lines:,} rows; expected {rows:,} = {expected}: {why}; write it again.")
    given, blank = (np.frombuffer(data, np.uint8) for data in (text, _csv(np.zeros(rows, bool))))
    places = (
        np.flatnonzero(blank == ord("\n"))[1:] - 1
    )  # of the values; all else is the same in every submission
    same = min(len(given), len(blank))
    wrong = given[:same] != blank[:same]
    wrong[places[places < same]] &= given[places[places < same]] != ord("1")
    if wrong.any():
        line = text.count(b"\n", 0, int(wrong.argmax()))
        found = _shown(text.splitlines()[line])
        raise InputError(
            f"{path}, line {line + 1}: found {found}; expected '{line - 1},0' or '{line - 1},1', ids in "
            "order from 0, "
            "values 0 or 1; write it again."
        )
    return (given[places] - ord("0")).reshape(*shape, len(LESIONS))


def _csv(values: np.ndarray) -> bytes:
    """The file's text. values: bool, one a row.

    Rows whose ids have as many digits are one array of characters.
    """
    parts, start = [HEADER], 0
    while start < len(values):
        digits = len(str(start))
        stop = min(10**digits, len(values))
        rows = np.empty((stop - start, digits + 3), np.uint8)
        rows[:, digits:] = np.frombuffer(b",0\n", np.uint8)
        rows[:, digits + 1] += values[start:stop]
        ids = np.arange(start, stop, dtype=np.uint32)
        for column in reversed(range(digits)):
            ids, digit = np.divmod(ids, 10)
            rows[:, column] = digit + ord("0")
        parts.append(rows.tobytes())
        start = stop
    return b"".join(parts)


def _shown(line: bytes) -> str:
    """A line for a message, not too long."""
    return repr(line[:40].decode(errors="replace").strip())


def load_truth(path: str | Path) -> np.ndarray:
    """True masks, bool (N, H, W, 2), of a .npy file.

    One-hot (N, H, W, 4), or class index (N, H, W) or (N, H, W, 1).

    One-hot channels are taken as they are, also where a pixel has both lesions: the submission has a row for
    each. Raises InputError for anything else.
    """
    path = resolve_path(path)
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is not readable as .npy: {error}; expected masks, {MASK_CONTRACT}."
        ) from error
    if not isinstance(masks, np.ndarray):
        raise InputError(f"{path} is an archive of arrays; expected one array in a .npy, {MASK_CONTRACT}.")
    if masks.ndim == 4 and masks.shape[3] == 1:
        masks = masks[..., 0]
    one_hot = masks.ndim == 4 and masks.shape[3] == NUM_CLASSES
    if not (one_hot or masks.ndim == 3) or masks.size == 0 or masks.dtype.kind not in "buif":
        raise InputError(f"{path} holds {masks.shape} {masks.dtype}; expected masks, {MASK_CONTRACT}.")
    allowed = (0, 1) if one_hot else range(NUM_CLASSES)
    if not np.isin(masks, allowed).all():  # probabilities, say
        known = ", ".join(map(str, allowed))
        raise InputError(f"{path} holds values other than {known}; expected masks, {MASK_CONTRACT}.")
    return masks[..., list(LESIONS)] != 0 if one_hot else masks[..., None] == np.array(LESIONS)


def channel_counts(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Each lesion class against the rest, as counts (N, 4, 4) for `metrics.competition_score`.

    truth, predicted: masks (N, H, W, 2), which may overlap, so that no label map holds them. Each class has
    its hits on the diagonal, its misses and false alarms against background, and by that the right Dice;
    nothing else is counted.
    """
    counts = np.zeros((len(truth), NUM_CLASSES, NUM_CLASSES), np.int64)
    for c in LESIONS:
        true, said = truth[..., c] != 0, predicted[..., c] != 0
        for part, row, column in (
            (true & said, c, c),
            (true & ~said, c, BACKGROUND),
            (~true & said, BACKGROUND, c),
        ):
            counts[:, row, column] = part.sum((1, 2))
    return counts


def score_submission(path: str | Path, truth_path: str | Path) -> dict[str, Any]:
    """The competition's score and each lesion class's pooled F1 by name.

    `pooled` and `per_image` are the two readings of its rule.
    """
    truth = load_truth(truth_path)
    counts = channel_counts(truth, read_submission(resolve_path(path), truth.shape[:3]))
    f1 = metrics.dice(counts.sum(0))
    return {**metrics.competition_score(counts), "classes": {CLASSES[c].name: float(f1[c]) for c in LESIONS}}


def rank_submissions(folder: str | Path, truth_path: str | Path) -> pd.DataFrame:
    """All submissions of a folder, the best first.

    Args:
        folder: Holds a .csv or .csv.gz of each name, or a folder of that name with one.
        truth_path: The true masks, as `load_truth` takes them.

    Returns:
        One row a submission: name, score (pixels of all slices pooled), averaged (over slices), a column for
        each lesion class (its pooled F1), problem (why it has no score, empty if it has).

    Raises:
        InputError: For a folder without a submission, and for masks that cannot be used.
    """
    folder = resolve_path(folder)
    paths = sorted(path for path in folder.rglob("*.csv*") if path.name.endswith((".csv", ".csv.gz")))
    if not paths:
        raise InputError(f"{folder} holds no .csv; expected submissions; name their folder.")
    load_truth(truth_path)
    rows = []
    for path in paths:
        name = path.relative_to(folder).parts[0].removesuffix(".gz").removesuffix(".csv")
        try:
            scores = score_submission(path, truth_path)
            numbers = {"score": scores["pooled"], "averaged": scores["per_image"], **scores["classes"]}
            rows.append({"name": name, **numbers, "problem": ""})
        except InputError as error:
            rows.append({"name": name, "problem": str(error)})
    columns = ["name", "score", "averaged", *(CLASSES[c].name for c in LESIONS), "problem"]
    return pd.DataFrame(rows, columns=columns).sort_values("score", ascending=False, ignore_index=True)
