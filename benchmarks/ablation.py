"""What each idea adds to the reference recipe: `python benchmarks/ablation.py PREPARED OUT [options]`.

PREPARED is a run's prepared/ folder. Cross-validation over MedSeg's training slices: similar slices are in
one fold, Radiopaedia always trains, and the validation slices take no part. Each network gets the same number
of training slices, but where an idea is to train longer. A row a slice lands in OUT/ablation.csv as soon as a
network has answered for its fold; run the command again to go on, with more folds or seeds or ideas to add
them.

`--list` shows the ideas. `--ideas` names those to run, `reference` among them or done before.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pandas as pd
from folds import fold_splits, link_prepared

from lungseg_utils.core.files import InputError, atomic_write, resolve_path, write_csv
from lungseg_utils.data.preprocessing import Prepared, fingerprint, load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.improvements import NETWORK, REFERENCE, effects
from lungseg_utils.evaluation.results import slice_table
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.series.alone import training_config
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train


@dataclass(frozen=True)
class Idea:
    """What differs from the recipe: settings of the training, and of inference, and what is looked at."""

    topic: str
    training: Mapping[str, Any] = field(default_factory=dict)
    inference: InferenceSettings = InferenceSettings()
    frame: str = ""  # the recipe's own


BEST = {"loss": "weighted_dice_cross_entropy", "augmentation": "medical", "sampling": "lesions"}
DOUBTING = "soft_kind_lesion_dice_cross_entropy"
IDEAS = {
    REFERENCE: Idea("reference"),
    "from scratch": Idea("start", {"encoder_weights": "none"}),
    "EfficientNet-Lite0": Idea("start", {"encoder": "tu-tf_efficientnet_lite0"}),
    "EfficientNet-Lite1": Idea("start", {"encoder": "tu-tf_efficientnet_lite1"}),
    "EfficientNet-B2 from scratch": Idea("start", {"encoder": "efficientnet-b2", "encoder_weights": "none"}),
    "cross-entropy + Dice": Idea("loss", {"loss": "dice_cross_entropy"}),
    "class weights": Idea("loss", {"loss": "weighted_cross_entropy"}),
    "class weights + Dice": Idea("loss", {"loss": "weighted_dice_cross_entropy"}),
    "class weights + Dice + Dice of the lesion": Idea("loss", {"loss": "lesion_dice_cross_entropy"}),
    "balanced sources": Idea("sampling", {"sampling": "sources"}),
    "balanced sources and lesions": Idea("sampling", {"sampling": "lesions"}),
    "medical augmentation": Idea("augmentation", {"augmentation": "medical"}),
    "what people make of a scan": Idea("augmentation", {"augmentation": "scanners"}),
    "scSE attention": Idea("architecture", {"architecture": "unet_scse"}),
    "U-Net++": Idea("architecture", {"architecture": "unetplusplus"}),
    "FPN": Idea("architecture", {"architecture": "fpn"}),
    "EMA of the weights": Idea("schedule", {"ema_decay": 0.99}),
    "twice as long": Idea("schedule", {"epochs": 2}),
    "twice the learning rate": Idea("schedule", {"learning_rate": 0.002}),
    "batches of 24": Idea("schedule", {"batch_size": 24}),
    "growing slices": Idea("size", {"growth": "192x4"}),
    "half more pixels a side": Idea("size", {"image_size": 1.5}),
    "twice the pixels a side": Idea("size", {"image_size": 2}),
    "slices shrink by area": Idea("size", {"resize": "area"}),
    "mirrored views": Idea("inference", inference=InferenceSettings(flip=True)),
    "the body without the air around it": Idea("inference", frame="body"),
    "lesions pasted from other slices": Idea("augmentation", {"paste": 0.5}),
    "stochastic depth": Idea("network", {"drop_path": 0.2}),
    "a lesion's kind is doubted": Idea("loss", {"loss": DOUBTING}),
    "pasted lesions and stochastic depth": Idea("together", {"paste": 0.5, "drop_path": 0.2}),
    "all three": Idea("together", {"paste": 0.5, "drop_path": 0.2, "loss": DOUBTING}),
    "Dice, medical, EMA": Idea(
        "together",
        {"loss": "dice_cross_entropy", "augmentation": "medical", "sampling": "lesions", "ema_decay": 0.99},
    ),
    "all that the profile takes": Idea("together", BEST),
}

FACTORS = ("epochs", "image_size")  # an idea's value is times the recipe's


def run_idea(
    prepared: Prepared, slices: pd.DataFrame, idea: Idea, config: TrainingConfig, folder: Path
) -> pd.DataFrame:
    """Train on the fold's train rows and answer for its validation rows.

    `slice_table` with the seconds that it took.

    The last weights answer, so that nothing is chosen on what is answered. Goes on where an earlier call was
    stopped; a network that stands in `folder` already is not trained again.
    """
    config = replace(config, **idea.training)
    history = folder / "history.csv"
    if not (folder / "model" / "last.safetensors").exists():
        train(
            link_prepared(prepared, slices, folder / "prepared"),
            folder,
            replace(config, patience=config.epochs),
        )
    rows = slices[slices.split == "validation"]
    index = rows["index"].to_numpy(int)
    segmenter = Segmenter.load(folder / "model", settings=idea.inference, name="last")
    frame = idea.frame or config.frame
    segmenter = replace(segmenter, config={**segmenter.config, "frame": frame})
    start = time.perf_counter()
    labels = segmenter.labels(prepared.images["medseg"][index])
    answered = (time.perf_counter() - start) / len(rows)
    counts = metrics.slice_confusion(prepared.labels["medseg"][index], labels)
    table = slice_table("medseg", index, counts, [None] * len(rows))
    seconds = {"training_seconds": pd.read_csv(history).seconds.sum(), "seconds_per_slice": answered}
    return table.assign(**seconds)


def add_rows(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Add a network's rows to the results file, which stays whole whatever happens; returns all rows."""
    table = pd.concat([pd.read_csv(path), rows]) if path.exists() else rows
    write_csv(path, table, float_format="%.4f")
    return table


@click.command(help=__doc__)
@click.argument("prepared_dir", metavar="PREPARED")
@click.argument("out", metavar="OUT")
@click.option("--ideas", default=",".join(IDEAS), help="names, parted by commas  [default: all]")
@click.option(
    "--folds", type=click.IntRange(2), default=5, show_default=True, help="into how many the slices fall"
)
@click.option("--run-folds", default="0,1,2,3,4", show_default=True, help="which of them to run")
@click.option("--seeds", default="0", show_default=True)
@click.option(
    "--radiopaedia-step", default=4, show_default=True, help="every which slice of it is trained on"
)
@click.option(
    "--encoder", default="tu-tf_efficientnet_lite2", show_default=True, help="with ImageNet weights"
)
@click.option("--image-size", default=128, show_default=True)
@click.option("--epochs", default=5, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
@click.option(
    "-p",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="One more setting of the recipe that all ideas are added to; repeatable.",
)
@click.option("--list", "listing", is_flag=True, help="Only show the ideas.")
def main(
    prepared_dir, out, ideas, folds, run_folds, seeds, radiopaedia_step, parameters, listing, **settings
):
    if listing:
        for name, idea in IDEAS.items():
            click.echo(f"{name:30} {idea.topic:14} {dict(idea.training) or ''}")
        return
    prepared, out = load_prepared(prepared_dir), resolve_path(out)
    wanted = [name.strip() for name in ideas.split(",")]
    if unknown := set(wanted) - set(IDEAS):
        raise click.UsageError(
            f"unknown ideas {', '.join(sorted(unknown))}; --list shows those that there are"
        )
    if any(int(fold) >= folds for fold in run_folds.split(",")):
        raise click.UsageError(f"--run-folds is {run_folds}; expected numbers from 0 to {folds - 1}")
    recipe = training_config(None, {**settings, "encoder_weights": "imagenet", **dict(parameters)})
    plan = {
        "folds": folds,
        "radiopaedia_step": radiopaedia_step,
        **asdict(recipe),
        "prepared": fingerprint(prepared.dir),
    }
    if (out / "plan.json").exists() and json.loads((out / "plan.json").read_text()) != plan:
        raise click.UsageError(f"{out} holds networks of other settings (plan.json); name another folder")
    with atomic_write(out / "plan.json") as handle:
        json.dump(plan, handle, indent=2)

    splits, results = fold_splits(prepared, folds, radiopaedia_step), out / "ablation.csv"
    jobs = [
        (int(seed), int(fold), name)
        for seed in seeds.split(",")
        for fold in run_folds.split(",")
        for name in wanted
    ]
    for number, (seed, fold, name) in enumerate(jobs, start=1):
        done = pd.read_csv(results)[NETWORK].values.tolist() if results.exists() else []
        if [name, seed, fold] in done:
            continue
        click.echo(f"network {number} of {len(jobs)}: {name}, fold {fold}, seed {seed}")
        idea = IDEAS[name]
        # A network that only answers otherwise is the reference's own.
        folder = out / f"seed{seed}_fold{fold}_{(name if idea.training else REFERENCE).replace(' ', '_')}"
        factors = {
            key: round(value * getattr(recipe, key)) for key, value in idea.training.items() if key in FACTORS
        }
        idea = replace(idea, training={**idea.training, **factors})
        rows = run_idea(prepared, splits[fold], idea, replace(recipe, seed=seed), folder)
        rows = rows.assign(idea=name, topic=idea.topic, seed=seed, fold=fold)
        table = add_rows(
            results, rows[[*NETWORK, "topic", *rows.columns.difference([*NETWORK, "topic"], sort=False)]]
        )
        if REFERENCE in set(table.idea):
            shown = [
                "idea",
                "seeds",
                "folds",
                "mean lesion Dice",
                "mean lesion Dice, difference",
                "mIoU",
                "training minutes",
            ]
            click.echo(effects(table)[shown].round(3).to_string(index=False))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
