"""Make the model that comes with the package of a finished run: `python benchmarks/ship.py RUN_DIR`.

Rounds the kept weights to half precision, scores the rounded network on the run's validation slices and writes
lungseg_utils/weights: weights, config, history, licence, and the card with these scores.
"""

import json

import click
from ship import in_half_precision, model_card, ship

from lungseg_utils.core.files import InputError, resolve_path
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.inference.segmenter import Segmenter

POOLED = {
    "competition.pooled": "mean Dice of ground glass and consolidation", "classes.ground_glass.dice": "Dice, ground glass",
    "classes.consolidation.dice": "Dice, consolidation", "lesion_dice": "Dice, lesion (both as one)", "mean_iou": "mIoU",
    "accuracy": "accuracy",
}  # fmt: skip


@click.command(help=__doc__)
@click.argument("run_dir")
def main(run_dir: str) -> None:
    run_dir = resolve_path(run_dir)
    prepared = load_prepared(run_dir / "prepared")
    rows, hu, truth = prepared.validation_slices()
    source = rows.source.iloc[0]
    segmenter = Segmenter.load(run_dir / "model")
    in_half_precision(segmenter.model).float()  # the rounded weights, as they are shipped
    predictions = collect_predictions(segmenter, hu, truth, batch_size=4)
    record = evaluate(truth, predictions, source, rows["index"], rows.volume).record
    lines = [
        f"{len(rows)} validation slices of {source} at full size, argmax; 95 % bootstrap intervals over the slices.",
        "",
    ]
    lines += ["| score | value | interval |", "|---|---|---|"]
    for key, name in POOLED.items():
        value = record["full_size"]
        for part in key.split("."):
            value = value[part]
        low, high = record["intervals"][key]
        lines.append(f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |")
    border, burden = record["borders"]["lesion"], record["burden"]["slices"]
    lines.append(f"| lesion border, HD95, median | {border['hd95_px']['median']:.0f} px | |")
    lines.append(f"| surface Dice of the lesion at 2 px, mean | {border['surface_dice_2px']['mean']:.2f} | |")
    lines.append(
        f"| involved lung, mean absolute error | {100 * burden['mean_absolute_error']:.1f} points | |"
    )
    config = json.loads((run_dir / "model" / "config.json").read_text(encoding="utf-8"))
    ship(run_dir / "model", model_card(config, "\n".join(lines)))
    click.echo("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}")
