"""Make the model that comes with the package of finished runs: `python benchmarks/ship.py RUN_DIR...`.

Rounds their weights to half precision, scores the mean of the rounded networks on the validation slices and
writes lungseg_utils/weights: weights, config, history, licence, and the card with these scores.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from lungseg_utils.core.files import InputError, atomic_write, replace_folder, resolve_path, write_csv
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.evaluation.scores import HEADLINE, stored
from lungseg_utils.inference.pretrained import PRETRAINED, WEIGHTS, read_history
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.model import Members, load_model, save_model

LICENCE = "CC-BY-NC-SA-4.0"
SMALL = 224  # pixels a side that the small model answers at


def in_half_precision(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every number rounded to float16; integers stay.

    InputError if one is too large for it.
    """
    half = model.half()
    if not all(torch.isfinite(value).all() for value in half.state_dict().values()):
        raise InputError(
            "a weight does not fit into float16 (largest 65504); expected a model whose training settled."
        )
    return half


def ship(
    model_dirs: Sequence[str | Path],
    card: str,
    out: str | Path = WEIGHTS,
    name: str = "weights",
    image_size: int = 0,
    validation: dict[str, float] | None = None,
    factors: Sequence[float] | None = None,
) -> Path:
    """Write the weights `name` of each model to `out`, as one model in half precision.

    With `card` and the licence. image_size: what it answers at; 0: as it was trained. validation: the scores
    of what ships, as a report says them; best_epoch's are those of one network at the size of training.
    factors: on the odds of ground glass and consolidation, chosen by folds (factors.py): see `Adjusted`.

    Of several models the first is a model of its own as well, in `small/`, on slices of SMALL pixels.

    Replaces an older shipped model as a whole. The licence's text is WEIGHTS's, history and account the first
    model's. Raises InputError for models that see slices differently.
    """
    models, configs = zip(*(load_model(folder, name) for folder in model_dirs), strict=True)
    for key in ("architecture", "encoder", "image_size", "resize", "frame", "preprocessing"):
        if any(config.get(key) != configs[0].get(key) for config in configs):
            raise InputError(
                f"the models differ in {key}; expected members that see slices alike; train them so."
            )
    licence, out = WEIGHTS / "LICENSE", resolve_path(out)
    with replace_folder(out) as folder:
        shutil.copy(licence, folder / "LICENSE")
        write_csv(folder / "history.csv", read_history(resolve_path(model_dirs[0])))
        config = {key: value for key, value in configs[0].items() if not key.endswith("_sha256")}
        config |= {"license": LICENCE, "weights_precision": "float16", "weights_of": name}
        config |= {"lesion_factors": list(factors)} if factors else {}
        config["image_size"] = image_size or config["image_size"]
        config |= {"validation": validation} if validation else {}
        if len(models) > 1:
            config |= {"members": len(models), "seeds": [each["training"]["seed"] for each in configs]}
        model = Members(models) if len(models) > 1 else models[0]
        save_model(folder, in_half_precision(model), config)
        if len(models) > 1:
            member = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            member |= {"member_of": "../weights.safetensors", "member": 0, "members": 1, "image_size": SMALL}
            member["validation"] = {}  # not measured here
            with atomic_write(folder / PRETRAINED["pretrained-small"] / "config.json") as handle:
                json.dump(member, handle, indent=2)
        with atomic_write(folder / "README.md") as handle:
            handle.write(card)
    return out


def shipped_card(config: dict, table: str) -> str:
    """The shipped model's card.

    What it is, what it learned from, how good it is (`table`, Markdown), what it is not for.
    """
    training, best = config["training"], config["best_epoch"]
    seeds = ", ".join(map(str, config.get("seeds", [training["seed"]])))
    if config["weights_of"] == "last":
        epochs = training["epochs"]
        weights = (
            f"The last weights of {epochs} epochs; nothing was chosen on the slices of the scores above."
        )
    else:
        weights = (
            f"Best epoch {best['epoch']} of {training['epochs']} by {training['monitor']}, chosen on the "
            "slices of the scores "
            "above, which flatters them a little."
        )
    if "lesion_factors" in config:
        ground_glass, consolidation = config["lesion_factors"]
        weights += (
            f" The odds of ground glass are multiplied by {ground_glass} and of consolidation by "
            f"{consolidation}, as folds of the training slices chose."
        )
    if config.get("frame") == "body":
        weights += " It is shown the body, without the air around it."
    if "members" in config:
        weights = f"Mean probability of {config['members']} networks. {weights}"
    weights = f"Seed {seeds}, {config['device']}. {weights}"
    return f"""---
license: cc-by-nc-sa-4.0
library_name: lungseg
pipeline_tag: image-segmentation
tags: [medical, chest-ct, covid-19]
---
# Lung infection in chest CT: {config["architecture"]}, {config["encoder"]}

Labels every pixel of an axial chest CT slice as ground glass opacity, consolidation, other lung or background.

```python
from lungseg_utils.inference import load_pretrained

labels = load_pretrained()(hu)  # (N, H, W) Hounsfield units in, class index out
```

## Intended use
Teaching and research. **Not a medical device**: it must not decide about a patient. It has seen COVID-19 of 2020 alone, so that
it may call other diseases, effusion or scars ground glass or consolidation, and miss what it has never seen.

## Data
{training["train_slices"]} training slices: of the Kaggle competition "COVID-19 CT Images Segmentation" MedSeg 24.. and nine Radiopaedia volumes
(CC BY-NC-SA; of volume 3, the same scan as volume 2, every third slice), and 252 of four patients of the Coronacases Initiative, by way of COVID-19-CT-Seg (Ma et al. 2020, CC BY-NC-SA):
8-bit pictures, contrast equalised, lesions of unknown kind. Drawn in the shares {training["shares"]}. MedSeg 0..23 were
left out, so that the scores below can be repeated. MedSeg's slices carry no patient ids and come from 40-odd patients: some of
those 24 slices may show a patient whom the network has seen. The images remain their authors'. The encoder started from ImageNet
weights (Apache 2.0).

## Scores
{table}

## Training
{weights} `config.json` has every setting and version.

```json
{json.dumps(training, indent=2)}
```

## Limits
Nearly all is one kind of scanner export: 8-bit windows and estimated Hounsfield units. What other windows, equalised contrast,
a smaller body in the picture, noise and blur cost is in benchmarks/robustness.md. There are no borders in the data sharper than a
reader draws them. No children, no other disease, no contrast phase was checked.

## Licence
Weights: CC BY-NC-SA 4.0 (LICENSE in this folder), as the Radiopaedia cases. Code: MIT.
"""  # noqa: E501 (paragraphs of a page)


@click.command(help=__doc__)
@click.argument("run_dirs", nargs=-1, required=True)
@click.option("--weights", default="weights", help="weights: of each run's best epoch; last: of its last.")
@click.option("--image-size", default=0, help="Pixels a side to answer at.  [default: as trained]")
@click.option("--factors", nargs=2, type=float, help="On the odds of ground glass and consolidation.")
@click.option("--out", default=str(WEIGHTS), help="Where the model goes.  [default: lungseg_utils/weights]")
def main(
    run_dirs: tuple[str, ...], weights: str, image_size: int, factors: tuple[float, float] | None, out: str
) -> None:
    model_dirs = [resolve_path(run_dir) / "model" for run_dir in run_dirs]
    rows, hu, truth = load_prepared(resolve_path(run_dirs[0]) / "prepared").validation_slices()
    with tempfile.TemporaryDirectory() as folder:  # what is scored is what ships, rounded and put together
        made = ship(model_dirs, "", Path(folder) / "model", weights, image_size, factors=factors)
        segmenter = Segmenter.load(made)
        config = json.loads((Path(folder) / "model" / "config.json").read_text(encoding="utf-8"))
    source = rows.source.iloc[0]
    predictions = collect_predictions(segmenter, hu, truth, batch_size=4)
    record = evaluate(truth, predictions, source, rows["index"], rows.volume).record
    lines = [
        (
            f"{len(rows)} validation slices of {source} at full size, argmax; 95 % bootstrap intervals over "
            "the "
            "slices."
        ),
        "",
    ]
    lines += ["| score | value | interval |", "|---|---|---|"]
    for key, score in HEADLINE.items():
        name = f"{score.label} ({score.meaning})" if score.meaning else score.label
        value = score.text(stored(record["full_size"], key))
        low, high = map(score.text, record["intervals"][key])
        lines.append(f"| {name} | {value} | {low} to {high} |")
    border, burden = record["borders"]["lesion"], record["burden"]["slices"]
    lines.append(f"| lesion border, HD95, median | {border['hd95_px']['median']:.0f} px | |")
    lines.append(f"| surface Dice of the lesion at 2 px, mean | {border['surface_dice_2px']['mean']:.2f} | |")
    lines.append(
        f"| involved lung, mean absolute error | {100 * burden['mean_absolute_error']:.1f} points | |"
    )
    full = record["full_size"]
    scores = {"val_miou": "mean_iou", "val_lesion_dice": "lesion_dice", "val_accuracy": "accuracy"}
    validation = {name: round(full[score], 3) for name, score in scores.items()}
    ship(model_dirs, shipped_card(config, "\n".join(lines)), out, weights, image_size, validation, factors)
    click.echo("\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
