"""How long every score of 24 slices of 512 x 512 takes: `python benchmarks/scoring.py`.

Forward passes and figures apart.

The slices are the phantom's; the "network" answers the truth, moved by some pixels and blurred with smooth
noise, so that there are as many borders and lesions as in a real answer. Prints a Markdown table of wall
seconds.
"""

import resource
import tempfile
import time

import numpy as np
import torch
from scipy import ndimage

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.phantom import write_phantom
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.borders import border_table
from lungseg_utils.evaluation.burden import burden_summary
from lungseg_utils.evaluation.calibration import Reliability, entropy, reliability
from lungseg_utils.evaluation.definitions import definitions_table
from lungseg_utils.evaluation.evaluator import Predictions, evaluate
from lungseg_utils.evaluation.intervals import bootstrap, paired_difference
from lungseg_utils.evaluation.lesions import lesion_confusion, lesion_table
from lungseg_utils.evaluation.scores import HEADLINE

SLICES, SIZE = 24, 512


def answer(truth: np.ndarray) -> np.ndarray:
    """Probabilities (N, 4, H, W) of an imperfect network. truth: class index (N, H, W)."""
    rng = np.random.default_rng(0)
    logits = 6.0 * np.moveaxis(np.eye(NUM_CLASSES, dtype=np.float32)[np.roll(truth, 3, axis=1)], -1, 1)
    logits += 40 * ndimage.gaussian_filter(rng.standard_normal(logits.shape, np.float32), (0, 0, 6, 6))
    return torch.from_numpy(logits).softmax(1).numpy()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(
            write_phantom(folder, medseg=SLICES, volumes=1, slices_per_volume=1, test=1, size=SIZE)
        )
        hu, truth = np.array(data.images["medseg"]), data.labels("medseg", slice(None))
    probabilities = answer(truth)
    labels = probabilities.argmax(1).astype(np.uint8)
    half = np.where(probabilities.max(1) > 0.5, labels, metrics.NO_CLASS).astype(np.uint8)
    import monai.metrics  # noqa: F401  seven seconds once a process, not a matter of scoring

    def per_slice() -> np.ndarray:
        return metrics.slice_confusion(truth, labels)

    def calibration() -> Reliability:
        return sum(
            (reliability(probabilities[k : k + 8], truth[k : k + 8]) for k in range(0, SLICES, 8)),
            Reliability(),
        )

    def everything() -> None:
        predictions = Predictions(
            labels, labels, half, calibration(), entropy=entropy(probabilities), small=labels, steps={}
        )
        evaluate(truth, predictions, "medseg", range(SLICES), [None] * SLICES)

    counts = per_slice()
    jobs = {
        "confusion counts": per_slice,
        "pixel scores, pooled and per slice": lambda: (
            metrics.summary(counts),
            metrics.per_slice_summary(counts),
        ),
        "intervals, 2000 draws": lambda: bootstrap(counts, HEADLINE),
        "paired difference, 2000 draws": lambda: paired_difference(counts, counts, HEADLINE),
        "borders: HD95, surface Dice": lambda: border_table(truth, labels),
        "lesions one by one": lambda: lesion_table(truth, labels),
        "burden": lambda: burden_summary(counts),
        "every definition, full size": lambda: definitions_table(truth, {"argmax": labels, "0.5": half}, 24),
        "ground glass against consolidation": lambda: lesion_confusion(hu, truth, labels),
        "calibration": calibration,
        "entropy": lambda: entropy(probabilities),
        "**`evaluate`: all that metrics.json and per_slice.csv hold**": everything,
    }
    print(f"| score of {SLICES} slices, {SIZE} x {SIZE} | seconds |\n|---|---|")
    for name, job in jobs.items():
        start = time.perf_counter()
        job()
        print(f"| {name} | {time.perf_counter() - start:.2f} |", flush=True)
    print(
        f"\nPeak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB; "
        f"{torch.get_num_threads()} threads."
    )
