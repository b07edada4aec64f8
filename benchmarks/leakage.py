"""How much a random split of slices flatters: `python benchmarks/leakage.py PREPARED_DIR OUT_DIR [options]`.

Every second slice of each held-out volume is validation. One network per held-out volume and seed is trained
on the same common slices plus equally many slices of that one volume: those between its validation slices. So
each volume is scored by one network that has seen its other slices (as a random split would have it) and by
all the others, which have seen as many slices of another volume instead. Nothing else differs: same counts,
steps, schedule and seed; the last weights are scored, so nothing is chosen on validation.

A finished network is not trained again: call it again with more seeds or after an interruption.
"""

import json
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
from folds import link_prepared
from tqdm.auto import tqdm

from lungseg_utils.core.files import InputError, atomic_write, resolve_path
from lungseg_utils.data.preprocessing import Prepared, fingerprint, load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.intervals import paired_difference
from lungseg_utils.evaluation.scores import by_label
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train

SCORES = by_label("lesion_dice", "classes.ground_glass.dice", "classes.consolidation.dice", "mean_iou")


def split_slices(
    slices: pd.DataFrame, volumes: list[int], common: int
) -> tuple[pd.DataFrame, dict[int, pd.DataFrame]]:
    """Common training slices, and for each held-out volume its seen slices.

    The same number from each, evenly spaced.

    slices: the table of a prepared folder. Common are the MedSeg training slices and, evenly spaced, as many
    slices of the other Radiopaedia volumes as make `common`. Validation slices (even positions of a held-out
    volume) are in neither.
    """
    radiopaedia = slices[slices.source == "radiopaedia"]
    if len(volumes) < 2:
        raise InputError(
            f"volumes are {volumes}; expected at least two: each is the others' clean comparison."
        )
    if unknown := set(volumes) - set(radiopaedia.volume):
        raise InputError(
            f"volumes {sorted(unknown)} are not in {sorted(set(radiopaedia.volume))}; name others."
        )
    medseg = slices[(slices.source == "medseg") & (slices.split == "train")]
    if common < len(medseg):
        raise InputError(f"common is {common}; expected at least the {len(medseg)} MedSeg training slices.")
    others = radiopaedia[~radiopaedia.volume.isin(volumes)]
    odd = {v: radiopaedia[radiopaedia.volume == v].iloc[1::2] for v in volumes}
    count = min(map(len, odd.values()))
    seen = {v: evenly(table, count) for v, table in odd.items()}
    return pd.concat([medseg, evenly(others, common - len(medseg))]), seen


def evenly(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows of the table, evenly spaced."""
    return table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)]


def train_one(prepared: Prepared, training: pd.DataFrame, folder: Path, config: TrainingConfig) -> None:
    """Train on the named rows, in a prepared folder whose arrays are links.

    `folder`/model/last.safetensors at the end.
    """
    slices = prepared.slices.copy()
    slices["split"] = "left_out"
    slices.loc[training.index, "split"] = "train"
    # The engine wants validation slices to report on; MedSeg's serve, and nothing is chosen by them.
    slices.loc[prepared.slices.index[prepared.slices.split == "validation"][:4], "split"] = "validation"
    train(link_prepared(prepared, slices, folder / "prepared"), folder, config)


def score(folder: Path, prepared: Prepared, validation: pd.DataFrame) -> np.ndarray:
    """(N, 4, 4) confusion matrices of the last weights on the validation rows, at full size."""
    path = folder / "counts.npy"
    if not path.exists():
        segmenter = Segmenter.load(folder / "model", name="last")
        rows = validation["index"].to_numpy(int)
        prediction = segmenter.labels(prepared.images["radiopaedia"][rows])
        truth = prepared.labels["radiopaedia"][rows]
        counts = metrics.slice_confusion(truth, prediction)
        with atomic_write(path, "wb") as handle:
            np.save(handle, counts)
    return np.load(path)


def differences(counts: dict[tuple[int, int], np.ndarray], volume: np.ndarray) -> pd.DataFrame:
    """One row a held-out volume, seed and score.

    Leaking, clean, their paired difference and its interval over slices.

    counts: by (seed, volume seen in training), (N, 4, 4) of all validation slices; volume: (N,) of each
    validation slice.
    """
    rows = []
    for (seed, v), seen in counts.items():
        here = volume == v
        others = [matrices[here] for (s, other), matrices in counts.items() if s == seed and other != v]
        clean = sum(
            others
        )  # the other networks' matrices added up, and this one's as often: no score depends on the scale
        leaking = len(others) * seen[here]
        for name, found in paired_difference(leaking, clean, SCORES).items():
            low, high = found["interval"] or (None, None)
            rows.append(
                {
                    "volume": v,
                    "seed": seed,
                    "slices": int(here.sum()),
                    "score": name,
                    "leaking": float(SCORES[name](leaking.sum(0))),
                    "clean": float(SCORES[name](clean.sum(0))),
                    "difference": found["difference"],
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


@click.command(help=__doc__)
@click.argument("prepared_dir")
@click.argument("out_dir")
@click.option("--volumes", default="1,2,4,5,8,9", show_default=True, help="held-out volumes, at least two")
@click.option("--seeds", default="0", show_default=True)
@click.option("--common", default=120, show_default=True, help="training slices that all networks share")
@click.option("--image-size", default=128, show_default=True)
@click.option("--epochs", default=12, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option("--encoder", default="efficientnet-b2", show_default=True)
@click.option("--encoder-weights", default="none", show_default=True)
@click.option("--loss", default="dice_cross_entropy", show_default=True)
def main(prepared_dir, out_dir, volumes, seeds, common, **settings):
    prepared, out = load_prepared(prepared_dir), resolve_path(out_dir)
    volumes, seeds = [int(v) for v in volumes.split(",")], [int(s) for s in seeds.split(",")]
    shared, seen = split_slices(prepared.slices, volumes, common)
    radiopaedia = prepared.slices[prepared.slices.source == "radiopaedia"]
    validation = pd.concat([radiopaedia[radiopaedia.volume == v].iloc[::2] for v in volumes])
    print(
        f"{len(shared)} common training slices and {len(seen[volumes[0]])} of one volume; {len(validation)} "
        "validation slices"
    )
    plan = {"volumes": volumes, "common": common, **settings, "prepared": fingerprint(prepared.dir)}
    if (out / "plan.json").exists() and json.loads((out / "plan.json").read_text()) != plan:
        raise InputError(f"{out} holds networks of other settings (plan.json); name another folder.")
    with atomic_write(out / "plan.json") as handle:
        json.dump(plan, handle, indent=2)

    counts = {}
    for seed in seeds:
        for v in tqdm(volumes, desc=f"seed {seed}", unit="network"):
            folder = out / f"seed{seed}_volume{v}"
            if not (folder / "model" / "last.safetensors").exists():
                config = TrainingConfig(**settings, seed=seed, patience=settings["epochs"])
                train_one(prepared, pd.concat([shared, seen[v]]), folder, config)
            counts[seed, v] = score(folder, prepared, validation)
    table = differences(counts, validation.volume.to_numpy(int))
    with atomic_write(out / "leakage.csv") as handle:
        table.round(4).to_csv(handle, index=False, lineterminator="\n")
    print(table.round(3).to_string(index=False))
    print(table.groupby("score", sort=False)[["leaking", "clean", "difference"]].mean().round(3))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
