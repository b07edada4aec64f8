"""By how much to answer consolidation more often: `python benchmarks/factors.py PREPARED OUT IDEA...`.

PREPARED and OUT are ablation.py's, with the folds and seeds of its networks. For the mean of all networks of
the ideas that answered for a fold: which factors on the probabilities of ground glass and consolidation score
best on the other folds, and what they bring on this one. Slices at half their size.
"""

import itertools
import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
from folds import fold_splits

from lungseg_utils.core.classes import LESIONS, SHORT_NAMES
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings

GROUND_GLASS_FACTORS = (0.6, 0.7, 0.8, 0.9, 1, 1.15, 1.3, 1.5, 1.8)
CONSOLIDATION_FACTORS = (*GROUND_GLASS_FACTORS, 2.2, 2.7, 3.3, 4, 5)
GRID = list(itertools.product(GROUND_GLASS_FACTORS, CONSOLIDATION_FACTORS))


def fold_counts(networks: list[Path], hu: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion counts (len(GRID), 4, 4) of the networks' mean on a fold's slices (N, H, W)."""
    segmenters = [Segmenter.load(folder / "model", name="last") for folder in networks]
    p = np.mean([each.probabilities(hu)[:, :, ::2, ::2] for each in segmenters], 0)
    steps = (InferenceSettings(thresholds=(1 / g, 1 / c, 1, 1)) for g, c in GRID)
    return np.array([metrics.slice_confusion(truth[:, ::2, ::2], predict(p, each)).sum(0) for each in steps])


def best(counts: np.ndarray) -> int:
    """The place in GRID with the highest mean Dice of both lesions; counts: (len(GRID), 4, 4)."""
    return int(metrics.dice(counts)[:, list(LESIONS)].mean(1).argmax())


@click.command(help=__doc__)
@click.argument("prepared_dir", metavar="PREPARED")
@click.argument("out", metavar="OUT")
@click.argument("ideas", nargs=-1, required=True)
def main(prepared_dir: str, out: str, ideas: tuple[str, ...]) -> None:
    prepared, out = load_prepared(prepared_dir), resolve_path(out)
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    counts = []
    for number, slices in enumerate(fold_splits(prepared, plan["folds"], plan["radiopaedia_step"])):
        names = [f"seed*_fold{number}_{idea.replace(' ', '_')}" for idea in ideas]
        networks = [folder for name in names for folder in out.glob(name)]
        if not networks:
            raise InputError(f"{out} holds no network of {', '.join(ideas)} for fold {number}; run it first.")
        index = slices[slices.split == "validation"]["index"].to_numpy(int)
        hu, truth = prepared.images["medseg"][index], prepared.labels["medseg"][index]
        counts.append(fold_counts(networks, hu, truth))
    counts = np.array(counts)
    pooled = counts.sum(0)
    chosen = [best(pooled - each) for each in counts]
    rows = {
        "argmax": pooled[GRID.index((1, 1))],
        "factors of the other folds": sum(each[place] for each, place in zip(counts, chosen, strict=True)),
        f"factors of all folds, {GRID[best(pooled)]}": pooled[best(pooled)],
    }
    scores = {
        name: {
            "mean lesion Dice": metrics.dice(each)[list(LESIONS)].mean(),
            **dict(zip(SHORT_NAMES, metrics.dice(each), strict=True)),
            "lesion": metrics.lesion_dice(each),
            "mIoU": metrics.mean_iou(each),
        }
        for name, each in rows.items()
    }
    click.echo(pd.DataFrame(scores).T.round(4).to_string())


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
