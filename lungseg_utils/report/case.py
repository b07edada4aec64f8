"""One scan from the network to a folder of results.

Labels, entropy, severity, doubts, and the files that show them.

Nothing that is written carries a name, a path or a file's own text: a case is called by a checksum of its
pixels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lungseg_utils import __version__
from lungseg_utils.core.classes import BACKGROUND, LUNG_WINDOW
from lungseg_utils.core.image import body_with_rim
from lungseg_utils.core.language import language_now
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.calibration import entropy
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.report.montage import Montage, plan_montage
from lungseg_utils.report.quality import (
    CUT_OFF,
    check_scan,
    chest_doubt,
    has_text,
    joined_doubt,
    lung_outside,
    size_doubt,
)
from lungseg_utils.report.severity import severity
from lungseg_utils.scans.io import check_writable
from lungseg_utils.scans.scan import Scan

SCHEMA = 1  # of report.json
STATEMENT = N_(
    "Research software, not a medical device: these are measurements by a neural network, not a diagnosis. "
    "They may be wrong; a radiologist must look at the scan itself."
)
ZONES = {
    "right_lower": N_("right lower"),
    "right_middle": N_("right middle"),
    "right_upper": N_("right upper"),
    "left_lower": N_("left lower"),
    "left_middle": N_("left middle"),
    "left_upper": N_("left upper"),
}
OUTSIDE = 0.03  # share of the lung outside the body from which it is said


@dataclass(frozen=True)
class Case:
    """A scan with all that the report, the notebook and the command show of it."""

    scan: Scan
    labels: np.ndarray  # uint8 (N, H, W), class index on the scan's grid
    entropy: np.ndarray  # uint8 (N, H, W), predictive entropy, 0..255 for 0..1
    warnings: tuple[str, ...]  # the scan's notes, then what the checks doubt
    summary: dict[str, Any]  # report.json

    @cached_property
    def montage(self) -> Montage:
        """What the report shows of the scan; worked out once."""
        return plan_montage(self.summary["profile"], self.labels, self.scan.spacing)

    @cached_property
    def shows_text(self) -> bool:
        """Whether writing stands beside the body in a slice that the report shows; looked for once."""
        return any(has_text(self.scan.hu[i]) for i in self.montage.chosen)

    def picture(self, index: int) -> np.ndarray:
        """A slice in HU, float32, cropped as the report shows it, without what is written beside the body."""
        plan, hu = self.montage, self.scan.hu[index].astype(np.float32)
        if self.shows_text:
            hu[~body_with_rim(self.scan.hu[index])] = LUNG_WINDOW[0]
        return hu[plan.rows, plan.columns]

    @property
    def card(self) -> dict[str, Any]:
        """The model in short."""
        return self.summary["model"]


def predict_case(
    scan: Scan,
    segmenter: Segmenter,
    batch_size: int = 8,
    description: str | None = None,
) -> Case:
    """Check, segment and measure a scan; beside it, memory takes two bytes a voxel.

    Args:
        scan: What `read_scan` read.
        segmenter: Its config says what training saw, and is the report's word on the model.
        batch_size: Slices at a time.
        description: Of the progress bar; without one, none is shown.

    Returns:
        The case: labels and entropy on the scan's grid, measurements, doubts.

    Raises:
        InputError: The scan is no chest CT.
    """
    doubts = check_scan(scan, segmenter.config.get("training_ranges"))
    check_writable(scan)  # before the minutes that follow
    labels, uncertain = predict_scan(scan, segmenter, batch_size, description)
    measured, withheld = _measure(scan, labels)
    if not (withheld and measured["all"]["percent_of_lung"]["involved"] is None):
        doubts += _doubts_of(measured, lung_outside(labels, scan.hu))
    warnings = (*withheld, *scan.notes, *doubts)
    lung = [values[label != BACKGROUND] for values, label in zip(uncertain, labels)]
    pixels = sum(map(len, lung))
    summary = {
        "schema": SCHEMA,
        "case": case_id(scan.hu),
        "statement": _(STATEMENT),
        "software": f"lungseg {__version__}",
        "language": language_now(),  # of the sentences
        "scan": {
            "kind": scan.kind,
            "slices": scan.hu.shape[0],
            "rows": scan.hu.shape[1],
            "columns": scan.hu.shape[2],
            "spacing_mm": [round(float(step), 4) for step in scan.spacing] if scan.spacing else None,
            "thickness_mm": scan.thickness,
            "volume": scan.is_volume,
            "hounsfield_units": scan.is_hu,
        },
        **measured,
        "withheld": list(withheld),
        "mean_entropy_in_lung": round(sum(int(v.sum()) for v in lung) / pixels / 255, 4) if pixels else None,
        "warnings": list(warnings),
        "model": model_in_short(segmenter.config),
    }
    return Case(scan, labels, uncertain, warnings, summary)


def _measure(scan: Scan, labels: np.ndarray) -> tuple[dict[str, Any], list[str]]:
    """`severity` of a scan, and why numbers were left out of it.

    All of what is no chest, sizes where they contradict.
    """
    if reason := chest_doubt(scan):
        return severity(np.full_like(labels, BACKGROUND), scan.hu, scan.spacing), [reason]
    measured = severity(labels, scan.hu, scan.spacing, scan.is_volume, scan.places)
    reasons = []
    if scan.spacing is not None:
        lung_ml = (measured["all"]["millilitres"] or {}).get("lung")
        doubts = [
            size_doubt(scan, measured["profile"], lung_ml),
            joined_doubt(scan) if scan.is_volume else None,
        ]
        reasons = [doubt for doubt in doubts if doubt]
    return (severity(labels, scan.hu, scan.spacing) if reasons else measured), reasons


def predict_scan(
    scan: Scan, segmenter: Segmenter, batch_size: int = 8, description: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and entropy, uint8 (N, H, W) each, on the scan's grid."""
    pixel = scan.spacing[1:] if scan.spacing else (1.0, 1.0)
    labels, uncertain = np.empty(scan.hu.shape, np.uint8), np.empty(scan.hu.shape, np.uint8)
    for position, probabilities in segmenter.batches(scan.hu, batch_size, description, pixel):
        labels[position] = predict(probabilities, segmenter.settings)
        uncertain[position] = np.rint(255 * entropy(probabilities).clip(0, 1))
    return labels, uncertain


def case_id(hu: np.ndarray) -> str:
    """A neutral name: "case-" and eight hexadecimal digits of the SHA-256 of the HU, slice by slice.

    hu: (N, H, W).
    """
    checksum = hashlib.sha256()
    for picture in hu:
        checksum.update(np.ascontiguousarray(picture, "<i2").data)
    return f"case-{checksum.hexdigest()[:8]}"


def model_in_short(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of a model, from its config.json; None for what an older one does not say.

    No paths.
    """
    # A shipped model's own scores; else those of the epoch that training kept.
    training, best = config.get("training", {}), config.get("validation", config.get("best_epoch", {}))
    return {
        **{name: config.get(name) for name in ("architecture", "encoder", "image_size")},
        **{name: training.get(name) for name in ("train_slices", "loss", "epochs")},
        **{name: best.get(name) for name in ("epoch", "val_miou", "val_lesion_dice", "val_accuracy")},
        "weights": config.get("weights_sha256", "")[:16] or None,
        "training_ranges": "training_ranges" in config,
    }


def _doubts_of(measured: dict[str, Any], outside: float) -> list[str]:
    """Sentences about what the masks themselves make doubtful.

    outside: share of the lung beyond the body, 0..1.
    """
    lung = measured["profile"]["lung"]
    if not any(lung):
        return [_("The network found no lung: nothing can be measured.")]
    doubts = []
    if outside > OUTSIDE:
        doubts.append(
            _(
                "{outside:.0%} of what was labelled as lung lies outside the body: the masks are wrong there."
            ).format(outside=outside)
        )
    if measured["profile"]["position_unit"] == "mm":
        below, above = (area > CUT_OFF * max(lung) for area in (lung[0], lung[-1]))
        if below or above:
            said = {
                (True, False): _(
                    "The lungs go on beyond the lowest slice: millilitres and thirds are of the part that "
                    "is shown."
                ),
                (False, True): _(
                    "The lungs go on beyond the highest slice: millilitres and thirds are of the part that "
                    "is shown."
                ),
                (True, True): _(
                    "The lungs go on beyond the lowest and the highest slice: millilitres and thirds are of "
                    "the part that is shown."
                ),
            }
            doubts.append(said[below, above])
        if measured["score"] is None:
            doubts.append(
                _("Too little of the lungs' height is in the scan: no thirds and no severity score.")
            )
    if measured["score"] and measured["score"]["zones_without_lung"]:
        zones = ", ".join(_(ZONES[name]) for name in measured["score"]["zones_without_lung"])
        doubts.append(
            _("No lung was found in some zones ({zones}): they add nothing to the severity score.").format(
                zones=zones
            )
        )
    return doubts
