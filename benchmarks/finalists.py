"""Recipes against each other, several seeds each.

`python benchmarks/finalists.py OUT NAME=RUN_DIR,RUN_DIR,... NAME=...`

Each RUN_DIR holds prepared/ and model/, each NAME names a recipe; the first is the reference.
`NAME:mirror=...` averages each slice with its mirror image; `NAME:ensemble=...` averages the probabilities of
all its runs, as one network. Every score at full size on the validation slices. Writes finalists.csv (a row a
recipe, seed and slice) and finalists.md to OUT; with --submission also what one recipe's first network, or
its ensemble, answers on the test slices: test_labels.png.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd

from lungseg_utils.core.files import InputError, atomic_write, resolve_path, write_csv
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.evaluation.improvements import compare_recipes, table_for_people
from lungseg_utils.evaluation.submission import write_labels
from lungseg_utils.inference.postprocess import predict
from lungseg_utils.inference.pretrained import read_history
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.inference.views import Answers


@dataclass(frozen=True)
class MeanAnswers:
    """What several networks of one size say of the same slices."""

    members: Sequence[Answers]

    def probabilities(self, settings: InferenceSettings, small: bool = False) -> np.ndarray:
        return np.mean([answers.probabilities(settings, small) for answers in self.members], axis=0)


@dataclass(frozen=True)
class Ensemble:
    """Several segmenters that answer as one: the mean of their probabilities."""

    members: list[Segmenter]

    @property
    def settings(self) -> InferenceSettings:
        return self.members[0].settings

    def answers(self, hu, batch_size=8, **options):
        streams = [member.answers(hu, batch_size, **options) for member in self.members]
        for batches in zip(*streams, strict=True):
            positions, answers = zip(*batches)
            yield positions[0], MeanAnswers(answers)


def score(segmenter, prepared) -> pd.DataFrame:
    """per_slice.csv's columns of the validation slices, and the milliseconds that each took."""
    rows, hu, truth = prepared.validation_slices()
    start = time.perf_counter()
    predictions = collect_predictions(segmenter, hu, truth, batch_size=4)
    milliseconds = 1000 * (time.perf_counter() - start) / len(rows)
    evaluation = evaluate(truth, predictions, rows.source.iloc[0], rows["index"], rows.volume)
    return evaluation.table.assign(ms_per_slice=milliseconds)


def submit(segmenter, hu: np.ndarray, out: Path) -> None:
    """Write the labels of the test slices (N, H, W) in HU to out; `lungseg submit` makes sub.csv of them."""
    settings = segmenter.settings
    labels = np.concatenate(
        [predict(answers.probabilities(settings), settings) for _, answers in segmenter.answers(hu)]
    )
    write_labels(out / "test_labels.png", labels)


@click.command(help=__doc__)
@click.argument("out", metavar="OUT")
@click.argument("recipes", nargs=-1, required=True, metavar="NAME=RUN,RUN...")
@click.option("--submission", metavar="NAME", help="The recipe that answers the test slices.")
def main(out: str, recipes: tuple[str, ...], submission: str | None) -> None:
    tables, lines, names = [], [], set()
    for recipe in recipes:
        name, _, runs = recipe.partition("=")
        name, *options = name.split(":")
        if name in names or set(options) - {"mirror", "ensemble"}:
            raise click.UsageError(
                f"{recipe.partition('=')[0]}: a name of its own is needed, and only mirror or ensemble after "
                "it"
            )
        names.add(name)
        settings = InferenceSettings(flip="mirror" in options)
        folders = [resolve_path(run) for run in runs.split(",")]
        segmenters = [Segmenter.load(folder / "model", settings=settings) for folder in folders]
        minutes = [read_history(folder / "model").seconds.sum() / 60 for folder in folders]
        if "ensemble" in options:
            segmenters, folders, minutes = [Ensemble(segmenters)], folders[:1], [sum(minutes)]
        if name == submission:
            submit(segmenters[0], load_prepared(folders[0] / "prepared").images["test"], resolve_path(out))
        own = []
        for seed, (segmenter, folder) in enumerate(zip(segmenters, folders, strict=True)):
            click.echo(f"{name}, network {seed + 1} of {len(segmenters)}")
            own.append(score(segmenter, load_prepared(folder / "prepared")).assign(recipe=name, seed=seed))
        tables += own
        cost = np.mean([table.ms_per_slice.iloc[0] for table in own])
        lines.append(f"| {name} | {len(own)} | {np.mean(minutes):.0f} | {cost:.0f} |")
    rows, reference = pd.concat(tables), recipes[0].partition("=")[0].split(":")[0]
    write_csv(resolve_path(out) / "finalists.csv", rows, float_format="%.5g")
    table = table_for_people(compare_recipes(rows, reference), reference)
    head = ["score", *table.columns]
    text = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    text += [
        f"| {' | '.join([name, *line])} |"
        for name, line in zip(table.index, table.fillna("").to_numpy(), strict=True)
    ]
    text += [
        "",
        "| recipe | networks | minutes of training, each | ms per slice |",
        "|---|---|---|---|",
        *lines,
    ]
    with atomic_write(resolve_path(out) / "finalists.md") as handle:
        handle.write("\n".join(text) + "\n")
    click.echo("\n".join(text))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
