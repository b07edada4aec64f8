"""What the optional steps of inference bring.

`python benchmarks/inference_steps.py RUN_DIR --out DIR [options]`.

Every value is chosen by cross-validation over MedSeg's training slices and then measured on the run's
validation slices, with the run's own network. Each fold trains one network, with the run's settings but for
the options below, on the other folds and on every few Radiopaedia slices; slices that resemble each other are
in one fold. The last weights answer for the fold, so that nothing is chosen on what is answered;
normalisation is the run's. Each value is chosen alone: temperature by log loss, all others by the mean of
both lesions' Dice, pooled over all slices.

Writes inference_steps.csv, inference_steps.md and inference_steps.json (the values) to DIR, beside the folds;
a finished fold is not trained again.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from folds import fold_splits, link_prepared
from tqdm.auto import tqdm

from lungseg_utils.core.files import InputError, atomic_write, resolve_path, write_csv
from lungseg_utils.core.image import resize_nearest
from lungseg_utils.data.preprocessing import Prepared, fingerprint, load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.calibration import Reliability, calibration_summary, reliability
from lungseg_utils.evaluation.intervals import paired_difference
from lungseg_utils.evaluation.scores import HEADLINE, by_label
from lungseg_utils.inference.postprocess import predict, temper
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train

PLAIN = InferenceSettings()
MIRROR = replace(PLAIN, flip=True)
TURNS = replace(MIRROR, angles=(-10, 10))
FACTORS = (1, 0.7, 0.5, 0.35, 0.25, 1.4, 2)
TEMPERATURES = (1, 0.6, 0.8, 1.25, 1.5, 2, 2.5, 3, 4)
Stream = Iterator[
    tuple[np.ndarray, list[np.ndarray]]
]  # labels (n, H, W); probabilities (n, 4, H, W) by STEPS["views"]
Tally = tuple[np.ndarray, dict[str, Any]]  # confusion counts (N, 4, 4); calibration_summary
STEPS = {  # name: candidates; the first is off, and wins a tie
    "views": (PLAIN, MIRROR, TURNS),
    "temperature": [replace(PLAIN, temperature=t) for t in TEMPERATURES],
    "thresholds": [replace(PLAIN, thresholds=(g, c, 1, 1)) for g in FACTORS for c in FACTORS],
    "lung islands": [replace(PLAIN, min_lung_share=share) for share in (0, 0.02, 0.05, 0.1, 0.2, 0.3)],
    "small lesions": [replace(PLAIN, min_lesion_pixels=pixels) for pixels in (0, 10, 25, 50, 100, 200, 400)],
}


mean_lesion_dice = HEADLINE["competition.pooled"]
SCORES = by_label("competition.pooled", "lesion_dice", "mean_iou")


def answer_fold(prepared: Prepared, slices: pd.DataFrame, folder: Path, config: TrainingConfig) -> Path:
    """Train on the train rows of `slices` and answer for its validation rows.

    held_out.npz in `folder`, made once.

    rows: lines of slices; and for each of STEPS["views"], by its position, log probabilities float16 (n, 4,
    S, S).
    """
    path = folder / "held_out.npz"
    if path.exists():
        return path
    links = link_prepared(prepared, slices, folder / "prepared")
    if not (folder / "model" / "last.safetensors").exists():  # written at the end of a training
        train(links, folder, config)
    rows = slices[slices.split == "validation"]
    segmenter = Segmenter.load(folder / "model", name="last")
    hu = resize_nearest(prepared.images["medseg"][rows["index"].to_numpy(int)], config.image_size)
    answers = {}
    for number, settings in enumerate(STEPS["views"]):
        probabilities = replace(segmenter, settings=settings).probabilities(hu)
        answers[str(number)] = np.log(np.maximum(probabilities, 1e-30)).astype(np.float16)
    with atomic_write(path, "wb") as handle:
        np.savez(handle, rows=rows.index, **answers)
    return path


def out_of_fold(prepared: Prepared, paths: list[Path]) -> Stream:
    """One held-out slice after the other, at full size."""
    for path in paths:
        held_out = np.load(path)
        answers = [held_out[str(number)] for number in range(len(STEPS["views"]))]
        for k, index in enumerate(prepared.slices["index"][held_out["rows"]]):
            truth = prepared.labels["medseg"][index][None]
            logits = (torch.from_numpy(answer[k : k + 1]).float() for answer in answers)
            # Log probabilities are the logits but for a constant in each pixel, which softmax takes out
            # again.
            full = [F.interpolate(each, size=truth.shape[1:], mode="bilinear").softmax(1) for each in logits]
            yield truth, [probabilities.numpy() for probabilities in full]


def validation(segmenter: Segmenter, hu: np.ndarray, truth: np.ndarray, batch_size: int = 4) -> Stream:
    """One batch of validation slices after the other."""
    for views in zip(*(replace(segmenter, settings=view).batches(hu, batch_size) for view in STEPS["views"])):
        yield truth[views[0][0]], [probabilities for _, probabilities in views]


def tally(
    stream: Stream, wanted: Iterable[InferenceSettings], description: str, slices: int
) -> dict[InferenceSettings, Tally]:
    """Confusion counts (N, 4, 4) and calibration of each of the settings, from the same forward passes."""
    wanted = dict.fromkeys(wanted)
    counts, calibration = {s: [] for s in wanted}, {s: Reliability() for s in wanted}
    with tqdm(desc=description, total=slices, unit="slice") as progress:
        for truth, views in stream:
            done = {}
            for s in wanted:
                key = STEPS["views"].index(replace(PLAIN, flip=s.flip, angles=s.angles)), s.temperature
                if key not in done:
                    tempered = temper(views[key[0]], s.temperature)
                    done[key] = tempered, reliability(tempered, truth)
                calibration[s] += done[key][1]
                counts[s] += [*metrics.slice_confusion(truth, predict(done[key][0], s))]
            progress.update(len(truth))
    return {s: (np.array(counts[s]), calibration_summary(calibration[s])) for s in wanted}


def choose(tallies: dict[InferenceSettings, Tally]) -> dict[str, InferenceSettings]:
    """The best candidate of each step."""

    def log_loss(s: InferenceSettings) -> float:
        return -tallies[s][1]["log_loss"]

    def lesion_dice(s: InferenceSettings) -> float:
        return mean_lesion_dice(tallies[s][0].sum(0))

    return {step: max(STEPS[step], key=log_loss if step == "temperature" else lesion_dice) for step in STEPS}


def combine(chosen: dict[str, InferenceSettings]) -> InferenceSettings:
    """All steps at once.

    Thresholds were chosen at temperature 1: raised to 1 / T they give the same labels.
    """
    temperature = chosen["temperature"].temperature
    return replace(
        chosen["views"],
        temperature=temperature,
        min_lung_share=chosen["lung islands"].min_lung_share,
        thresholds=tuple(round(t ** (1 / temperature), 4) for t in chosen["thresholds"].thresholds),
        min_lesion_pixels=chosen["small lesions"].min_lesion_pixels,
    )


def effects(settings: dict[str, InferenceSettings], measured: dict, crossed: dict) -> pd.DataFrame:
    """One row for each of the settings.

    Scores on the validation slices, and differences from argmax with intervals.
    """
    table = []
    for name, s in settings.items():
        counts, calibration = measured[s]
        gain = mean_lesion_dice(crossed[s][0].sum(0)) - mean_lesion_dice(crossed[PLAIN][0].sum(0))
        values = {key: value for key, value in asdict(s).items() if value != getattr(PLAIN, key)}
        row = {
            "step": name,
            "settings": ", ".join(f"{key} {value}" for key, value in values.items()) or "off",
        }
        row |= {"cross-validated gain": gain}
        differences = paired_difference(counts, measured[PLAIN][0], SCORES)
        for score, function in SCORES.items():
            low, high = differences[score]["interval"] or (np.nan, np.nan)
            row |= {score: function(counts.sum(0)), f"{score}, difference": differences[score]["difference"]}
            row |= {f"{score}, low": low, f"{score}, high": high}
        table.append(
            row | {"calibration error": calibration["mean_class_error"], "log loss": calibration["log_loss"]}
        )
    return pd.DataFrame(table)


def markdown(table: pd.DataFrame) -> str:
    """The table for people."""
    columns = ["step", "settings", "cross-validated gain", "mean lesion Dice"]
    columns += [*(f"{score}, difference" for score in SCORES), "calibration error", "log loss"]
    lines = [columns, ["---"] * len(columns)]
    for _, row in table.iterrows():
        differences = [
            "{:+.4f} [{:+.4f}, {:+.4f}]".format(
                *(row[f"{score}, {part}"] for part in ("difference", "low", "high"))
            )
            for score in SCORES
        ]
        first = [
            row["step"],
            row["settings"],
            f"{row['cross-validated gain']:+.4f}",
            f"{row['mean lesion Dice']:.4f}",
        ]
        lines.append([*first, *differences, f"{row['calibration error']:.4f}", f"{row['log loss']:.4f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@click.command(help=__doc__)
@click.argument("run_dir")
@click.option("--out", required=True, metavar="DIR")
@click.option("--folds", type=click.IntRange(2), default=3, show_default=True)
@click.option(
    "--near", default=0.9, show_default=True, help="correlation from which two slices are in one fold"
)
@click.option(
    "--radiopaedia-step", default=4, show_default=True, help="every which slice of it is trained on"
)
@click.option("--image-size", default=128, show_default=True)
@click.option("--epochs", default=8, show_default=True)
@click.option("--batch-size", default=8, show_default=True)
def main(run_dir: str, out: str, folds: int, near: float, radiopaedia_step: int, **options: int) -> None:
    run_dir, out = resolve_path(run_dir), resolve_path(out)
    prepared, segmenter = load_prepared(run_dir / "prepared"), Segmenter.load(run_dir / "model")
    recipe = json.loads((run_dir / "model" / "config.json").read_text())["training"]
    known = {name: value for name, value in recipe.items() if name in TrainingConfig.__dataclass_fields__}
    config = TrainingConfig(**{**known, **options, "patience": options["epochs"]})

    plan = {"folds": folds, "near": near, "radiopaedia_step": radiopaedia_step, **asdict(config)}
    plan["prepared"] = fingerprint(prepared.dir)
    if (out / "plan.json").exists() and json.loads((out / "plan.json").read_text()) != plan:
        raise InputError(f"{out} holds folds of other settings (plan.json); name another --out.")
    with atomic_write(out / "plan.json") as handle:
        json.dump(plan, handle, indent=2)

    splits = fold_splits(prepared, folds, radiopaedia_step, near)
    sizes = [int((slices.split == "validation").sum()) for slices in splits]
    jobs = enumerate(tqdm(splits, "folds"))
    paths = [answer_fold(prepared, slices, out / f"fold_{number}", config) for number, slices in jobs]
    candidates = [candidate for step in STEPS.values() for candidate in step]
    crossed = tally(out_of_fold(prepared, paths), candidates, "choosing", sum(sizes))
    chosen = choose(crossed)
    everything = combine(chosen)
    crossed |= tally(out_of_fold(prepared, paths), [everything], "all steps", sum(sizes))

    rows, hu, truth = prepared.validation_slices()
    settings = {"argmax": PLAIN, "mirror": MIRROR, "mirror and turns": TURNS}
    settings |= {step: chosen[step] for step in STEPS if step != "views"} | {"all": everything}
    measured = tally(validation(segmenter, hu, truth), settings.values(), "validation", len(rows))
    table = effects(settings, measured, crossed)

    given = {"folds": folds, "near": near, "radiopaedia-step": radiopaedia_step, **options}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    best = next(name for name, s in settings.items() if s == chosen["views"])
    text = (
        f"```sh\npython benchmarks/inference_steps.py RUN_DIR --out DIR {flags}\n```\n\n"
        f"Chosen by {folds}-fold cross-validation over {sum(sizes)} MedSeg training slices (folds of "
        f"{', '.join(map(str, sizes))}); its gain in mean lesion Dice flatters, as values were chosen there. "
        f"Of the views it chooses: {best}. Measured on {len(rows)} validation slices of "
        f"{rows.source.iloc[0]} at full size with the "
        f"run's network ({segmenter.image_size} px); differences from argmax with paired bootstrap intervals "
        "(95 %), "
        f"conditional on these patients.\n\n{markdown(table)}\n"
    )
    write_csv(out / "inference_steps.csv", table)
    with atomic_write(out / "inference_steps.json") as handle:
        json.dump({name: asdict(s) for name, s in (chosen | {"all": everything}).items()}, handle, indent=2)
    with atomic_write(out / "inference_steps.md") as handle:
        handle.write(text)
    print(text)


if __name__ == "__main__":
    main()
