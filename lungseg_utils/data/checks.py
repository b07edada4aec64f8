"""The contract of data/README.md, checked on every file and value.

`lungseg check` and the first look of 01_eda.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import BACKGROUND, NUM_CLASSES, SHORT_NAMES
from lungseg_utils.core.files import InputError, quoted, resolve_path
from lungseg_utils.core.npy import chunks
from lungseg_utils.data.arrays import FILES, CTData, Finding, OpenedArrays, how_to_get, open_arrays, to_labels

MAX_OVERLAP = 0.05  # share of pixels; above it, masks are not one-hot with slips but something else
HU_CONTRACT = "HU, not 0..255 or 0..1: minimum in -3100..-500, maximum in 0..4100"


@dataclass(frozen=True)
class DataReport:
    """All that `check_data` found. `str(report)` is the table as plain text, its last line `volumes: N`."""

    findings: tuple[Finding, ...]
    opened: OpenedArrays

    @property
    def arrays(self) -> CTData:
        """The arrays that were checked.

        Raises InputError if a file is missing, unreadable, or does not fit.
        """
        return self.opened.data()

    @property
    def volumes(self) -> int:
        """Number of Radiopaedia volumes; 0 if they could not be read."""
        try:
            return len(np.unique(self.opened.volumes))
        except (KeyError, InputError):
            return 0

    @property
    def usable(self) -> bool:
        """True if nothing breaks the contract; warnings do not."""
        return all(finding.level != "error" for finding in self.findings)

    def require_usable(self) -> None:
        """Print a note for each thing that is odd.

        Raises InputError, with the first line of the table that is an error.
        """
        for finding in self.findings:
            if finding.level == "warning":
                print(f"note: {finding.item}: {finding.found}; expected {finding.expected}")
        folder = self.opened.dir
        errors = [finding for finding in self.findings if finding.level == "error"]
        if errors:
            worst, more = errors[0], f", and {len(errors) - 1} more" if errors[1:] else ""
            raise InputError(
                f"{folder / worst.item}: found {worst.found}; expected {worst.expected}{more}; "
                f"`lungseg check {quoted(folder)}` lists all; {how_to_get(folder)}"
            )

    def frame(self) -> pd.DataFrame:
        """The findings as a table with columns level, item, found, expected."""
        return pd.DataFrame(self.findings, columns=["level", "item", "found", "expected"])

    def __str__(self) -> str:
        rows = [("level", "item", "found", "expected")]
        rows += [(f.level, f.item, f.found, f.expected) for f in self.findings]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows
        ]
        return "\n".join([*lines, f"volumes: {self.volumes}"])


def check_data(folder: str | Path) -> DataReport:
    """Check the contract of data/README.md on every file and value.

    All findings are reported, the first does not stop it. Nothing is raised for bad data: a missing,
    truncated or pickled file is a finding. Numbers of slices are facts.

    Args:
        folder: Where the five arrays should be.
    """
    opened = open_arrays(resolve_path(folder))
    findings = list(opened.findings)
    seen: dict[bytes, str] = {}
    for source, array in opened.images.items():
        findings += _check_images(FILES[source][0], array, seen)
    for source, array in opened.masks.items():
        findings += _check_masks(str(FILES[source][1]), array)
    if "radiopaedia" in opened.images:
        try:
            sizes = ", ".join(map(str, np.unique(opened.volumes, return_counts=True)[1]))
            count = len(np.unique(opened.volumes))
            findings.append(Finding("ok", "volumes", f"{count} of {sizes} slices", "a fact"))
        except InputError as error:
            expected = "volume,first_slice from 0 on, ascending"
            findings.append(Finding("error", "volumes.csv", str(error), expected))
    return DataReport(tuple(findings), opened)


def _check_images(name: str, images: np.ndarray, seen: dict[bytes, str]) -> list[Finding]:
    """Finite, HU, blank, duplicate. `seen` holds the digest of each slice so far, of all files."""
    broken, blank, odd, duplicates, low, high = 0, [], [], [], np.inf, -np.inf
    for first, chunk in chunks(images, description=name):
        for index, image in enumerate(chunk, first):
            values = image[np.isfinite(image)]
            broken += image.size - values.size
            if values.size == 0:
                continue
            darkest, brightest = float(values.min()), float(values.max())
            low, high = min(low, darkest), max(high, brightest)
            if brightest - darkest < 1:
                blank.append(index)
                continue
            if not _looks_like_hu(darkest, brightest):
                odd.append(index)
            twin = seen.setdefault(
                hashlib.blake2b(np.ascontiguousarray(image).data).digest(), f"{name} {index}"
            )
            if twin != f"{name} {index}":
                duplicates.append(f"{index} = {twin}")
    hu = _looks_like_hu(low, high)
    return [
        Finding("error" if broken else "ok", name, f"{broken} pixels not finite", "0"),
        Finding(
            "ok" if hu else "error",
            name,
            f"{low:.0f} to {high:.0f}" + ("" if hu else ", not HU"),
            HU_CONTRACT,
        ),
        Finding("warning" if odd and hu else "ok", name, f"range unlike HU in {_some(odd)}", "0 slices"),
        Finding("warning" if blank else "ok", name, f"blank: {_some(blank)}", "0 slices"),
        Finding("warning" if duplicates else "ok", name, f"duplicates: {_some(duplicates)}", "0 slices"),
    ]


def _looks_like_hu(low: float, high: float) -> bool:
    """Neither 0..1, 0..255, z-scores nor raw detector values: see HU_CONTRACT."""
    return -3100 <= low <= -500 and 0 <= high <= 4100


def _check_masks(name: str, masks: np.ndarray) -> list[Finding]:
    """Values, channel sums, slices that hold each class."""
    one_hot = masks.ndim == 4
    allowed = 2 if one_hot else NUM_CLASSES
    strange, none, several, pixels, holding = 0, 0, 0, 0, np.zeros(NUM_CLASSES, int)
    for _, chunk in chunks(masks, description=name):
        for mask in chunk:
            known = np.logical_or.reduce([mask == value for value in range(allowed)])
            strange += known.size - np.count_nonzero(known)
            if one_hot:
                total = sum((mask[..., channel] != 0).astype(np.uint8) for channel in range(NUM_CLASSES))
                none += int(np.count_nonzero(total == 0))
                several += int(np.count_nonzero(total > 1))
                pixels += total.size
            else:
                mask = np.where(known, mask, BACKGROUND)
            holding += np.bincount(to_labels(mask, one_hot).ravel(), minlength=NUM_CLASSES) > 0
    values = "0 or 1" if one_hot else "0, 1, 2 or 3"
    findings = [Finding("error" if strange else "ok", name, f"{strange} values other than {values}", "0")]
    if one_hot:
        level = (
            "ok" if none + several == 0 else "warning" if none + several <= MAX_OVERLAP * pixels else "error"
        )
        which = f"{none} without class, {several} with several"
        found = f"channel sum not 1: {none + several} of {pixels} pixels ({which})"
        findings.append(Finding(level, name, found, f"0; up to {MAX_OVERLAP:.0%} are settled by a rule"))
    for short, count in zip(SHORT_NAMES, holding):
        level = "ok" if count else "warning"
        findings.append(Finding(level, name, f"{short} in {count} of {len(masks)} slices", "at least 1"))
    return findings


def _some(items: list) -> str:
    """Number of slices, and the first few."""
    listed = ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")
    return f"{len(items)} slice{'' if len(items) == 1 else 's'}" + (f" ({listed})" if items else "")
