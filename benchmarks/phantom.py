"""How close the phantom comes to the real arrays: `python benchmarks/phantom.py REAL_DIR [PHANTOM_DIR]`.

Prints a Markdown table, "real / phantom" in each cell; without PHANTOM_DIR the default phantom is taken. One
pass over each array in bounded memory, seconds to a minute for the real ones at 512 px. The table is in
benchmarks/phantom.md.
"""

import sys
from itertools import combinations

import numpy as np

from lungseg_utils.core.classes import CLASSES, LESIONS, NUM_CLASSES
from lungseg_utils.core.image import thumbnails
from lungseg_utils.core.npy import chunks
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.find import find_data

HU = np.arange(-2000, 2000)  # the bins of the histograms
STEP = 25  # HU, the grid of thresholds


def measure(folder: str) -> dict[str, dict[str, str]]:
    """Row -> source -> what was measured."""
    data, rows = load_data(find_data(folder)), {}
    for source in data.sources:
        counts, with_lesion = np.zeros((NUM_CLASSES, len(HU)), np.int64), 0
        for first, chunk in chunks(data.images[source], description=source):
            labels = data.labels(source, slice(first, first + len(chunk)))
            hu = np.clip(np.rint(chunk).astype(np.int32), HU[0], HU[-1]) - HU[0]
            bins = (labels * np.int32(len(HU)) + hu).ravel()
            counts += np.bincount(bins, minlength=counts.size).reshape(counts.shape)
            with_lesion += np.isin(labels, LESIONS).any(axis=(1, 2)).sum()
        means = counts @ HU / counts.sum(axis=1)
        stds = np.sqrt(counts @ HU**2 / counts.sum(axis=1) - means**2)
        for c in CLASSES:
            share = 100 * counts[c.index].sum() / counts.sum()
            rows.setdefault(f"{c.name}, share of pixels, %", {})[source] = f"{share:.2f}"
            rows.setdefault(f"{c.name}, HU mean", {})[source] = f"{means[c.index]:.0f}"
            rows.setdefault(f"{c.name}, HU standard deviation", {})[source] = f"{stds[c.index]:.0f}"
        rows.setdefault("slices with a lesion, %", {})[source] = (
            f"{100 * with_lesion / len(data.images[source]):.0f}"
        )
        rows.setdefault("lesions in the lungs, Dice of the best HU interval", {})[source] = (
            f"{threshold(counts):.2f}"
        )
    small = thumbnails(data.images["radiopaedia"]).reshape(len(data.volumes), -1)
    jumps, new = np.abs(np.diff(small, axis=0)).mean(axis=1), np.diff(data.volumes) != 0
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(small[:-1][~new], small[1:][~new], strict=True)]
    rows["neighbouring slices of a volume, median correlation"] = {"radiopaedia": f"{np.median(alike):.3f}"}
    for name, values in (("within", jumps[~new]), ("between", jumps[new])):
        rows[f"jumps {name} volumes, HU"] = {"radiopaedia": f"{values.min():.0f} to {values.max():.0f}"}
    return rows


def threshold(counts: np.ndarray) -> float:
    """Dice of the HU interval that tells lesions from the rest of the lung best.

    counts: (4, len(HU)) by class.
    """
    lesion, lung = counts[list(LESIONS)].sum(axis=0), counts[: NUM_CLASSES - 1].sum(axis=0)
    hits, guessed = (np.cumsum([0, *x.reshape(-1, STEP).sum(axis=1)]) for x in (lesion, lung))
    pairs = combinations(range(len(hits)), 2)
    return max(2 * (hits[b] - hits[a]) / (guessed[b] - guessed[a] + lesion.sum()) for a, b in pairs)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    real, phantom = measure(sys.argv[1]), measure(sys.argv[2] if len(sys.argv) > 2 else "phantom")
    print("| | MedSeg, real / phantom | Radiopaedia, real / phantom |\n|---|---|---|")
    for row, found in real.items():
        cells = (f"{found[s]} / {phantom[row][s]}" if s in found else "" for s in ("medseg", "radiopaedia"))
        print(f"| {row} | {' | '.join(cells)} |")
