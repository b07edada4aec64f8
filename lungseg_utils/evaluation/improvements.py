"""Two recipes, each trained with several seeds, scored on the same slices.

Their scores and what lies between them.

`benchmarks/finalists.py` writes the table of slices; `10_improvements` reads it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS
from lungseg_utils.core.files import CHECKOUT, InputError, resolve_path
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.intervals import paired_difference, percentiles
from lungseg_utils.evaluation.results import counts_of
from lungseg_utils.evaluation.scores import BY_LABEL, PER_SLICE, by_label

REFERENCE = "reference"
POOLED = by_label(
    "competition.pooled",
    "classes.ground_glass.dice",
    "classes.consolidation.dice",
    "lesion_dice",
    "mean_iou",
    "accuracy",
)  # in the order of the tables
EFFECTS = {label: score for label, score in POOLED.items() if label != "accuracy"}
NETWORK = ["idea", "seed", "fold"]  # columns that tell one trained network from another


def seed_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a recipe and seed: its pooled scores. What the seeds of a recipe differ in is chance."""
    runs = rows.groupby(["recipe", "seed"], sort=False)
    return pd.DataFrame(
        [
            {"recipe": recipe, "seed": seed}
            | {name: float(score(counts_of(run).sum(0))) for name, score in POOLED.items()}
            for (recipe, seed), run in runs
        ]
    )


def compare_recipes(rows: pd.DataFrame, reference: str, draws: int = 2000) -> pd.DataFrame:
    """The scores of recipes and their differences to one of them.

    Each draw of the bootstrap takes the same slices for all recipes and seeds, so the intervals (95 %,
    percentiles) hold for these patients and these seeds. What is undefined, for a slice, a draw or a seed, is
    left out; NaN where nothing is left.

    Args:
        rows: A line a recipe, seed and slice, with the columns of per_slice.csv.
        reference: The recipe to compare with.
        draws: Of the bootstrap.

    Returns:
        One row a recipe and score: recipe, score, value (the mean over the seeds), low, high, and difference
        to the reference, with its low and high.

    Raises:
        InputError: Unless all runs have the same slices.
    """
    runs = [
        (name, seed, run.sort_values("index"))
        for (name, seed), run in rows.groupby(["recipe", "seed"], sort=False)
    ]
    index = runs[0][2]["index"].to_numpy()
    if not all(np.array_equal(run["index"], index) for _, _, run in runs) or len(set(index)) != len(index):
        raise InputError("the runs have different slices; score all on the same and each slice once.")
    if reference not in set(rows.recipe):
        raise InputError(
            f"there is no recipe {reference!r}; expected one of {', '.join(rows.recipe.unique())}."
        )
    chance = np.full(len(index), 1 / len(index))
    weights = np.vstack(
        [np.ones(len(index)), np.random.default_rng(0).multinomial(len(index), chance, size=draws)]
    )

    drawn: dict[tuple[str, str], np.ndarray] = {}  # (score, recipe) -> (1 + draws,): the real slices first
    for recipe in rows.recipe.unique():
        own = [run for name, _, run in runs if name == recipe]
        counts = [np.tensordot(weights, counts_of(run), 1) for run in own]
        for label, function in POOLED.items():
            drawn[label, recipe] = metrics.nanmean([function(each) for each in counts], axis=0)
        for score in PER_SLICE.values():
            values = [score(run).to_numpy(float) for run in own]
            drawn[score.label, recipe] = metrics.nanmean(
                [_weighted_mean(each, weights) for each in values], axis=0
            )
    table = []
    for (label, recipe), drawn_values in drawn.items():
        row = {"score": label, "recipe": recipe, "value": drawn_values[0]}
        row["low"], row["high"] = percentiles(drawn_values[1:]) or (np.nan, np.nan)
        if recipe != reference:
            difference = drawn_values - drawn[label, reference]
            row["difference"] = difference[0]
            row["difference low"], row["difference high"] = percentiles(difference[1:]) or (np.nan, np.nan)
        table.append(row)
    labels = [*POOLED, *(score.label for score in PER_SLICE.values())]
    order = {label: position for position, label in enumerate(labels)}
    return pd.DataFrame(table).sort_values(
        "score", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D,) means of values (N,), NaN left out, by weights (D, N); NaN where that leaves none."""
    known = ~np.isnan(values)
    total = weights[:, known].sum(1)
    return np.divide(
        weights[:, known] @ values[known], total, out=np.full(len(weights), np.nan), where=total > 0
    )


def table_for_people(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The comparison as text.

    A row a score, a column a recipe, value [interval], and difference [interval].
    """

    def cell(row: pd.Series, names: tuple[str, str, str], sign: str) -> str:
        value, low, high = (BY_LABEL[row.score].text(row[name], sign) for name in names)
        return f"{value} [{low}, {high}]"

    lines: dict[str, dict[str, str]] = {}
    for _, row in table.iterrows():
        line = lines.setdefault(row.score, {})
        line[row.recipe] = cell(row, ("value", "low", "high"), "")
        if row.recipe != reference:
            names = ("difference", "difference low", "difference high")
            line[f"{row.recipe}, difference"] = cell(row, names, "+")
    out = pd.DataFrame(lines).T
    less = [label for label in out.index if BY_LABEL[label].less_is_better]
    out = out.rename(index={label: f"{label} (less is better)" for label in less})
    return out


def read_results(name: str, folder: str | Path = "") -> pd.DataFrame:
    """A table that a benchmark wrote.

    Args:
        name: Of the file.
        folder: Where it lies; the checkout's benchmarks/results if not given.

    Raises:
        InputError: If it is absent.
    """
    path = (resolve_path(folder) if folder else CHECKOUT / "benchmarks" / "results") / name
    if not path.is_file():
        raise InputError(
            f"there is no {name} in {path.parent}; run the benchmark that writes it, or name its folder."
        )
    return pd.read_csv(path)


def effects(rows: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """What each idea adds to the reference.

    An idea is compared on the folds and seeds that it shares with the reference: each slice's counts are
    summed over the seeds, and slices are what the bootstrap draws. Intervals (95 %) hold for these patients;
    with one seed they leave out how much training by chance differs.

    Args:
        rows: Of the results file.
        reference: The recipe to compare with.

    Returns:
        One row an idea: its scores, pooled over the slices, and what it adds, with paired intervals.

    Raises:
        InputError: Without a reference.
    """
    if reference not in set(rows.idea):
        raise InputError(
            f"the results hold no idea named {reference!r}; found {', '.join(map(str, rows.idea.unique()))}."
        )
    base = rows[rows.idea == reference]
    table = []
    for name, own in rows.groupby("idea", sort=False):
        shared = own[["seed", "fold", "index"]].merge(base[["seed", "fold", "index"]])
        mine, theirs = (_summed(part.merge(shared)) for part in (own, base))
        found = paired_difference(mine, theirs, EFFECTS)
        row = {
            "idea": name,
            "seeds": shared.seed.nunique(),
            "folds": shared.fold.nunique(),
            "slices": len(mine),
        }
        for score, function in EFFECTS.items():
            low, high = found[score]["interval"] or (np.nan, np.nan)
            row |= {score: float(function(mine.sum(0))), f"{score}, difference": found[score]["difference"]}
            row |= {f"{score}, low": low, f"{score}, high": high}
        each = own.drop_duplicates(NETWORK)
        row |= {
            "training minutes": each.training_seconds.mean() / 60,
            "ms per slice": 1000 * each.seconds_per_slice.mean(),
        }
        table.append(row)
    return pd.DataFrame(table)


def most_disputed(rows: pd.DataFrame, idea: str) -> pd.DataFrame:
    """Where model and label disagree most, for a human to look at.

    Args:
        rows: Of the results file.
        idea: Whose held-out answers.

    Returns:
        Slices by rising Dice: index (within MedSeg), mean lesion Dice, lesion Dice, and the pixels on which
        each lesion class differs.
    """
    own = rows[rows.idea == idea].sort_values("index")
    counts = _summed(own)
    table = pd.DataFrame({"index": np.sort(own["index"].unique())})
    for score in ("mean lesion Dice", "lesion Dice"):
        table[score] = POOLED[score](counts)
    for c, short in ((GROUND_GLASS, "ground glass"), (CONSOLIDATION, "consolidation")):
        table[f"{short}, label only"] = counts[:, c].sum(1) - counts[:, c, c]
        table[f"{short}, model only"] = counts[:, :, c].sum(1) - counts[:, c, c]
    return table.sort_values("mean lesion Dice", ignore_index=True)


def _summed(rows: pd.DataFrame) -> np.ndarray:
    """(N, 4, 4) counts of each slice, by rising index, summed over the seeds."""
    rows = rows.sort_values("index", kind="stable")
    slices, group = np.unique(rows["index"], return_inverse=True)
    counts = np.zeros((len(slices), 4, 4), np.int64)
    np.add.at(counts, group, counts_of(rows))
    return counts
