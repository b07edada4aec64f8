"""Which slices train, validate and test."""

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import NUM_CLASSES, SHORT_NAMES
from lungseg_utils.core.files import InputError
from lungseg_utils.core.npy import chunks
from lungseg_utils.data.arrays import CTData, to_labels
from lungseg_utils.data.similarity import SAME_SCAN, near_duplicates

REFERENCE_VALIDATION = 24  # the reference recipe validates on the first 24 MedSeg slices
VALIDATION_VOLUME = 1  # see make_slices
SUBMISSION_VALIDATION = 2  # MedSeg slices that do not train in the split for a submission
SPLITS = ("reference", "by_volume", "submission")


def check_split(split: str) -> None:
    """Raises InputError for an unknown split."""
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; expected one of {', '.join(SPLITS)}.")


def make_slices(
    data: CTData, split: str = "reference", validation_volume: int = VALIDATION_VOLUME
) -> pd.DataFrame:
    """The table of all slices, with a split.

    "reference": MedSeg 0..23 validation, all else training; a training MedSeg slice that is near-identical to
    a validation slice is left out. "by_volume": one Radiopaedia volume validation, all else training, but for
    volumes that hold a slice of it as good as identical: they are the same scan (of the competition's, 2 and
    3). Its default is volume 1: of the nine it has by far the most slices with both lesions (43 of 45 with
    ground glass, 40 with consolidation), and 87 % of Radiopaedia's ground-glass and 84 % of its consolidation
    pixels stay for training (volume 3 would take two thirds of the consolidations; volumes 6 and 7 have
    none). "submission": all labelled slices train but MedSeg 0 and 1, which show how a training goes; no
    score of theirs says how good the model is.

    Args:
        data: The arrays.
        split: One of SPLITS.
        validation_volume: Of "by_volume".

    Returns:
        One row a slice: source, index, volume, split (train, validation, test or left_out), pixels of each
        class. Volume is missing outside Radiopaedia, class pixels for the unlabelled test slices (pandas NA,
        Int64).

    Raises:
        InputError: For an unknown split or volume.
    """
    check_split(split)
    if split == "by_volume" and validation_volume not in data.volumes:
        known = ", ".join(map(str, np.unique(data.volumes)))
        raise InputError(
            f"validation_volume is {validation_volume!r}; this data has the volumes {known}; choose one"
        )
    tables = []
    for source, images in data.images.items():
        table = pd.DataFrame(
            {"source": source, "index": np.arange(len(images)), "volume": pd.NA, "split": "train"}
        )
        if source == "radiopaedia":
            table["volume"] = data.volumes
        if source == "test":
            table["split"] = "test"
        elif split == "by_volume":
            if source == "radiopaedia":
                validation = data.volumes == validation_volume
                pairs = np.array([(i, j) for i, j, _ in near_duplicates(images, SAME_SCAN)], int).reshape(
                    -1, 2
                )
                shared = pairs[validation[pairs].any(axis=1)]
                table.loc[np.isin(data.volumes, data.volumes[shared]), "split"] = "left_out"
                table.loc[validation, "split"] = "validation"
        elif source == "medseg":
            first = REFERENCE_VALIDATION if split == "reference" else SUBMISSION_VALIDATION
            table.loc[: first - 1, "split"] = "validation"
            twins = [j for i, j, _ in near_duplicates(images) if i < first <= j]
            table.loc[twins, "split"] = "left_out"
        table[list(SHORT_NAMES)] = _class_pixels(data, source) if source in data.masks else pd.NA
        tables.append(table.astype(dict.fromkeys(("volume", *SHORT_NAMES), "Int64")))
    return pd.concat(tables, ignore_index=True)


def _class_pixels(data: CTData, source: str) -> np.ndarray:
    """(N, 4) number of pixels of each class in each slice."""
    one_hot = data.masks[source].ndim == 4
    rows = []
    for _, chunk in chunks(data.masks[source], description=f"classes, {source}"):
        rows += [np.bincount(to_labels(mask, one_hot).ravel(), minlength=NUM_CLASSES) for mask in chunk]
    return np.array(rows)
