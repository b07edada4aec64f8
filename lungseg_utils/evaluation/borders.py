"""How far predicted borders lie from the true ones.

HD95 and normalised surface Dice, slice by slice, by MONAI.

A border is the region's pixels that have a pixel outside it, or the slice's edge, above, below, left or right
of them; distances run between the centres of border pixels. What is empty: a region in neither truth nor
prediction has no score; one that is only in one of them has surface Dice 0 and no HD95, for there is nothing
to measure to. HD95 thus hides misses and false alarms: read it beside the number of such slices, which every
table here carries.
"""

from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS, LESIONS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.core.progress import tqdm
from lungseg_utils.evaluation.metrics import check_stacks, mean_and_median

REGIONS = {
    "ground_glass": (GROUND_GLASS,),
    "consolidation": (CONSOLIDATION,),
    "lesion": LESIONS,
    "lung": (*LESIONS, LUNG_OTHER),  # the whole lung: where its border is wrong, so is any share of it
}
CASES = ("both", "only_truth", "only_prediction", "neither")  # where a region is
TOLERANCES = (1, 2, 3)  # pixels


def border_table(
    truth: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float] | None = None
) -> pd.DataFrame:
    """One row a slice, with the scores of the border of each region.

    Columns: `REGION_borders` (one of CASES), `REGION_hd95_px` and `REGION_surface_dice_1px`, `_2px`, `_3px`;
    with a spacing also `REGION_hd95_mm`.

    HD95: the distance within which 95 % of one border's pixels have the other border, the larger of the two
    directions (Huttenlocher et al. 1993, doi:10.1109/34.232073; the percentile spares it single stray
    pixels). Normalised surface Dice: share of both borders' pixels with the other border within the tolerance
    (Nikolov et al. 2021, doi:10.2196/26151).

    truth, prediction: class index (N, H, W); the prediction may hold metrics.NO_CLASS. spacing: mm between
    rows and between columns; the tolerances stay in pixels. Raises InputError for other shapes or labels and
    for a spacing that is not above 0.
    """
    check_stacks(truth, prediction)
    if spacing is not None and (np.shape(spacing) != (2,) or not all(0 < mm < np.inf for mm in spacing)):
        raise InputError(
            f"spacing is {spacing}; expected two numbers above 0: mm between rows, mm between columns."
        )
    rows = []
    for true, predicted in tqdm(zip(truth, prediction), "borders", len(truth), unit="slice", leave=False):
        row: dict[str, Any] = {}
        for region, classes in REGIONS.items():
            scores = border_scores(np.isin(true, classes), np.isin(predicted, classes), spacing)
            row |= {f"{region}_{name}": value for name, value in scores.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def border_scores(
    true: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float] | None = None
) -> dict[str, float | str]:
    """The scores of one region of one slice, as in border_table, its name left out.

    True, predicted: bool (H, W).
    """
    units = {"px": None} if spacing is None else {"px": None, "mm": spacing}
    case = _where(bool(true.any()), bool(predicted.any()))
    hd95 = dict.fromkeys(units, np.nan)
    surface_dice = dict.fromkeys(TOLERANCES, np.nan if case == "neither" else 0.0)
    if case == "both":
        from monai.metrics import get_mask_edges, get_surface_distance  # here, because it takes seconds

        # MONAI's own metrics find borders and distances anew for each of them and each tolerance; once is
        # enough.
        borders = get_mask_edges(predicted, true)
        for unit, size in units.items():
            ways = [get_surface_distance(a, b, spacing=size) for a, b in (borders, borders[::-1])]
            hd95[unit] = float(max(np.percentile(distances, 95) for distances in ways))
            if unit == "px":
                surface_dice = {t: float((np.concatenate(ways) <= t).mean()) for t in TOLERANCES}
    return {
        "borders": case,
        **{f"hd95_{unit}": value for unit, value in hd95.items()},
        **{f"surface_dice_{t}px": value for t, value in surface_dice.items()},
    }


def _where(true: bool, predicted: bool) -> str:
    """One of CASES, by whether the region is there."""
    if true and predicted:
        return "both"
    if true:
        return "only_truth"
    return "only_prediction" if predicted else "neither"


def border_summary(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """border_table's scores for metrics.json, for each region.

    The mean, median and number of slices of every score, and `cases`, the number of slices in each of CASES.
    """
    regions = {}
    for region in REGIONS:
        names = [
            name for name in table.columns if name.startswith((f"{region}_hd95", f"{region}_surface_dice"))
        ]
        scores = {name.removeprefix(f"{region}_"): mean_and_median(table[name]) for name in names}
        regions[region] = {
            **scores,
            "cases": {case: int((table[f"{region}_borders"] == case).sum()) for case in CASES},
        }
    return regions
