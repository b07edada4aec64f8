"""Patients of another source that the network has not seen.

`python benchmarks/patients.py PREPARED OUT [options]`.

PREPARED holds a source whose lesions are of unknown kind (coronacases.py). Each of its patients is left out
in turn, a network trained on all others, and its last weights answer for the one. A row a patient and seed
lands in OUT/patients.csv as soon as it is known; run the command again to go on.
"""

import click
import numpy as np
import pandas as pd
from ablation import add_rows
from coronacases import SOURCE
from folds import link_prepared

from lungseg_utils.core.classes import BACKGROUND, LESION, LESIONS
from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.data.preprocessing import Prepared, load_prepared
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.series.alone import training_config
from lungseg_utils.training.loop import train


def dice(answer: np.ndarray, truth: np.ndarray) -> float:
    """Of two bool arrays, all pixels of a patient counted together."""
    return float(2 * (answer & truth).sum() / (answer.sum() + truth.sum()))


def score_patient(segmenter: Segmenter, prepared: Prepared, index: np.ndarray) -> dict[str, float]:
    """Dice of the lesions, whatever their kind, and of the lung with them, on these slices of SOURCE."""
    hu, truth = (
        np.load(prepared.dir / f"{part}_{SOURCE}.npy", mmap_mode="r")[index] for part in ("images", "labels")
    )
    labels = segmenter.labels(hu)
    return {
        "lesion_dice": dice(np.isin(labels, LESIONS), truth == LESION),
        "lung_dice": dice(labels != BACKGROUND, truth != BACKGROUND),
    }


@click.command(help=__doc__)
@click.argument("prepared_dir", metavar="PREPARED")
@click.argument("out", metavar="OUT")
@click.option("--profile", default="best", show_default=True)
@click.option("--seeds", default="0", show_default=True)
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="One more training setting."
)
def main(
    prepared_dir: str, out: str, profile: str, seeds: str, parameters: tuple[tuple[str, str], ...]
) -> None:
    prepared, out = load_prepared(prepared_dir), resolve_path(out)
    rows, results = prepared.slices[prepared.slices.source == SOURCE], out / "patients.csv"
    for seed in map(int, seeds.split(",")):
        for patient, own in rows.groupby("volume"):
            done = pd.read_csv(results)[["seed", "patient"]].values.tolist() if results.exists() else []
            if [seed, patient] in done:
                continue
            click.echo(f"seed {seed}, without patient {patient}")
            folder, slices = out / f"seed{seed}_without{patient}", prepared.slices.copy()
            slices.loc[own.index, "split"] = "left_out"
            config = training_config(profile, {**dict(parameters), "seed": seed})
            train(link_prepared(prepared, slices, folder / "prepared"), folder, config)
            scores = score_patient(
                Segmenter.load(folder / "model", name="last"), prepared, own["index"].to_numpy(int)
            )
            row = pd.DataFrame([{"seed": seed, "patient": patient, "slices": len(own), **scores}])
            click.echo(add_rows(results, row).to_string(index=False))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
