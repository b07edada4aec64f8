"""One scan from the network to a folder of results: labels, entropy, severity, doubts, and the files that show them.

Nothing that is written carries a name, a path or a file's own text: a case is called by a checksum of its pixels.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from lungseg_utils import __version__
from lungseg_utils.core.classes import BACKGROUND, LUNG_WINDOW
from lungseg_utils.evaluation.calibration import entropy
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.report.quality import check_scan, is_volume, lung_outside
from lungseg_utils.report.severity import severity
from lungseg_utils.scans.scan import Scan

if TYPE_CHECKING:
    from lungseg_utils.inference.segmenter import Segmenter


SCHEMA = 1  # of report.json
AIR = -1000  # HU; what slices are padded with
STATEMENT = (
    "Research software, not a medical device: these are measurements by a neural network, not a diagnosis. "
    "They may be wrong; a radiologist must look at the scan itself."
)
CUT_OFF = 0.25  # of the largest slice's lung area: a first or last slice with more shows that the lungs go on beyond it
OUTSIDE = 0.03  # share of the lung outside the body from which it is said


@dataclass(frozen=True)
class Case:
    """A scan with all that the report, the notebook and the command show of it."""

    scan: Scan
    labels: np.ndarray  # uint8 (N, H, W), class index on the scan's grid
    entropy: np.ndarray  # uint8 (N, H, W), predictive entropy, 0..255 for 0..1
    warnings: tuple[str, ...]  # the scan's notes, then what the checks doubt
    summary: dict[str, Any]  # report.json

    @property
    def card(self) -> dict[str, Any]:
        """The model in short."""
        return self.summary["model"]


def predict_case(
    scan: Scan,
    segmenter: "Segmenter",
    config: dict[str, Any] | None = None,
    batch_size: int = 8,
    description: str | None = None,
) -> Case:
    """Check, segment and measure a scan; beside it, memory takes two bytes a voxel. InputError for what is no chest CT.

    config: the model's config.json, for its card and what its training saw. Shows a progress bar if described.
    """
    config = config or {}
    doubts = check_scan(scan, config.get("training_ranges"))
    labels, uncertain = predict_scan(scan, segmenter, batch_size, description)
    volume = is_volume(scan)
    measured = severity(labels, scan.hu, scan.spacing, volume)
    warnings = (*scan.notes, *doubts, *_doubts_of(measured, lung_outside(labels, scan.hu)))
    lung = [values[label != BACKGROUND] for values, label in zip(uncertain, labels)]
    pixels = sum(map(len, lung))
    summary = {
        "schema": SCHEMA,
        "case": case_id(scan.hu),
        "statement": STATEMENT,
        "software": f"lungseg {__version__}",
        "scan": {
            "kind": scan.kind, "slices": scan.hu.shape[0], "rows": scan.hu.shape[1], "columns": scan.hu.shape[2],
            "spacing_mm": [round(float(step), 4) for step in scan.spacing] if scan.spacing else None,
            "thickness_mm": scan.thickness, "volume": volume, "hounsfield_units": scan.is_hu,
        },
        **measured,
        "mean_entropy_in_lung": round(sum(int(v.sum()) for v in lung) / pixels / 255, 4) if pixels else None,
        "warnings": list(warnings),
        "model": model_in_short(config),
    }  # fmt: skip
    return Case(scan, labels, uncertain, warnings, summary)


def predict_scan(
    scan: Scan, segmenter: "Segmenter", batch_size: int = 8, description: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and entropy, uint8 (N, H, W) each, on the scan's grid.

    The network sees squares: slices that are none, in mm, are padded with air, and the answer is cropped back. It sees
    the window that most of its training slices came in: clamping to it raised the shipped model's lesion Dice on the
    validation slices by 0.013 [0.002, 0.027] (benchmarks/finalists.md).
    """
    margins = square_margins(scan.hu.shape[1:], scan.spacing[1:] if scan.spacing else (1.0, 1.0))
    own = tuple(slice(before, before + side) for (before, _), side in zip(margins, scan.hu.shape[1:]))
    labels, uncertain = np.empty(scan.hu.shape, np.uint8), np.empty(scan.hu.shape, np.uint8)
    with tqdm(total=len(scan.hu), desc=description, unit="slice", disable=description is None) as bar:
        for start in range(0, len(scan.hu), batch_size):
            at = slice(start, start + batch_size)
            hu = np.pad(scan.hu[at].clip(*LUNG_WINDOW), ((0, 0), *margins), constant_values=AIR)
            for _, probabilities in segmenter.batches(hu, batch_size, total=len(scan.hu)):
                probabilities = np.ascontiguousarray(probabilities[(slice(None), slice(None), *own)])
                labels[at] = predict(probabilities, segmenter.settings)
                uncertain[at] = np.rint(255 * entropy(probabilities).clip(0, 1))
            bar.update(len(hu))
    return labels, uncertain


def square_margins(shape: tuple[int, int], pixel: tuple[float, float]) -> list[tuple[int, int]]:
    """Pixels to add before and after the rows and the columns, so that the slice is a square in mm.

    shape: rows and columns; pixel: mm between rows and between columns.
    """
    side = max(count * step for count, step in zip(shape, pixel))
    extra = [round(side / step) - count for count, step in zip(shape, pixel)]
    return [(count // 2, count - count // 2) for count in extra]


def case_id(hu: np.ndarray) -> str:
    """A neutral name: "case-" and eight hexadecimal digits of the SHA-256 of the HU, slice by slice. hu: (N, H, W)."""
    checksum = hashlib.sha256()
    for picture in hu:
        checksum.update(np.ascontiguousarray(picture, "<i2"))
    return f"case-{checksum.hexdigest()[:8]}"


def model_in_short(config: dict[str, Any]) -> dict[str, Any]:
    """What the report says of a model, from its config.json; None for what an older one does not say. No paths."""
    training, best = config.get("training", {}), config.get("best_epoch", {})
    return {
        **{name: config.get(name) for name in ("architecture", "encoder", "image_size")},
        **{name: training.get(name) for name in ("train_slices", "loss", "epochs")},
        **{name: best.get(name) for name in ("epoch", "val_miou", "val_lesion_dice", "val_accuracy")},
        "weights": config.get("weights_sha256", "")[:16] or None,
        "training_ranges": "training_ranges" in config,
    }


def _doubts_of(measured: dict[str, Any], outside: float) -> list[str]:
    """Sentences about what the masks themselves make doubtful; outside: share of the lung beyond the body, 0..1."""
    lung = measured["profile"]["lung"]
    if not any(lung):
        return ["The network found no lung: nothing can be measured."]
    doubts = []
    if outside > OUTSIDE:
        doubts.append(
            f"{outside:.0%} of what was labelled as lung lies outside the body: the masks are wrong there."
        )
    if measured["profile"]["position_unit"] == "mm":
        ends = [
            name for name, area in (("lowest", lung[0]), ("highest", lung[-1])) if area > CUT_OFF * max(lung)
        ]
        if ends:
            doubts.append(
                f"The lungs go on beyond the {' and the '.join(ends)} slice: "
                "millilitres and thirds are of the part that is shown."
            )
        if measured["score"] is None:
            doubts.append("Too little of the lungs' height is in the scan: no thirds and no severity score.")
    if measured["score"] and measured["score"]["zones_without_lung"]:
        zones = ", ".join(name.replace("_", " ") for name in measured["score"]["zones_without_lung"])
        doubts.append(f"No lung was found in some zones ({zones}): they add nothing to the severity score.")
    return doubts
