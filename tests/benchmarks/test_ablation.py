"""Ideas against a reference.

The folds, networks that are trained once, and the table of effects against its parts.
"""

from dataclasses import dataclass
from pathlib import Path

import ablation
import numpy as np
import pandas as pd
import pytest
from ablation import Idea, add_rows, run_idea
from click.testing import CliRunner
from folds import fold_splits
from safetensors.numpy import save_file

from lungseg_utils.core.classes import BACKGROUND, LUNG_OTHER, SHORT_NAMES
from lungseg_utils.core.files import InputError
from lungseg_utils.data.preprocessing import Preprocessing, load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.improvements import EFFECTS, effects, most_disputed
from lungseg_utils.evaluation.intervals import paired_difference
from lungseg_utils.evaluation.results import counts_of, slice_table
from lungseg_utils.training.config import TrainingConfig

TWINS = (6, 9)  # training slices of MedSeg that are nearly identical


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """MedSeg: 4 validation slices, 1 left out, 8 that train, two of them twins.

    9 of Radiopaedia that train; 2 of the test.
    """
    folder, rng, tables = tmp_path_factory.mktemp("ablation") / "prepared", np.random.default_rng(0), []
    folder.mkdir()
    splits = {
        "medseg": ["validation"] * 4 + ["left_out"] + ["train"] * 8,
        "radiopaedia": ["train"] * 9,
        "test": ["test"] * 2,
    }
    for source, split in splits.items():
        images = rng.integers(-1000, 200, (len(split), 16, 16)).astype(np.int16)
        if source == "medseg":
            images[TWINS[1]] = images[TWINS[0]] + 1
        np.save(folder / f"images_{source}.npy", images)
        table = pd.DataFrame({"source": source, "index": range(len(split)), "volume": pd.NA, "split": split})
        if source != "test":
            labels = rng.integers(0, 4, images.shape).astype(np.uint8)
            np.save(folder / f"labels_{source}.npy", labels)
            for c, short in enumerate(SHORT_NAMES):
                table[short] = (labels == c).sum((1, 2))
        tables.append(table)
    pd.concat(tables).to_csv(folder / "slices.csv", index=False)
    Preprocessing(low=-900.0, high=100.0, mean=-400.0, std=300.0, fit_on="radiopaedia").save(
        folder / "preprocessing.json"
    )
    return load_prepared(folder)


@pytest.fixture
def trained(monkeypatch):
    """Networks that take no time.

    The list holds (prepared folder's table, run folder, settings) of each training.
    """
    calls = []

    def train(prepared_dir, run_dir, config):
        calls.append((load_prepared(prepared_dir).slices, run_dir, config))
        (run_dir / "model").mkdir(parents=True)
        save_file({}, run_dir / "model" / "last.safetensors")
        pd.DataFrame({"seconds": [30.0, 60.0]}).to_csv(run_dir / "history.csv", index=False)

    @dataclass
    class Network:
        """Answers background on whole slices, `lung other` on bodies alone."""

        config: dict

        @staticmethod
        def load(folder, settings, name):
            assert (folder / f"{name}.safetensors").exists() and name == "last"
            return Network({"image_size": 32})

        def labels(self, hu):
            answers = {"slice": BACKGROUND, "body": LUNG_OTHER}
            return np.full(hu.shape, answers[self.config["frame"]], np.uint8)

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "Segmenter", Network)
    return calls


def keys(slices, split):
    return set(slices[slices.split == split][["source", "index"]].itertuples(index=False, name=None))


def test_held_out_slices_never_train_and_validation_slices_take_no_part(prepared):
    tables = fold_splits(prepared, 3, 4)
    held_out = [keys(slices, "validation") for slices in tables]
    assert sorted(sum(map(list, held_out), [])) == [("medseg", i) for i in range(5, 13)]  # each once
    for slices, held in zip(tables, held_out):
        training = keys(slices, "train")
        assert training == {("medseg", i) for i in range(5, 13)} - held | {
            ("radiopaedia", i) for i in (0, 4, 8)
        }
        assert len({("medseg", twin) in held for twin in TWINS}) == 1
        assert (
            keys(slices, "left_out") >= {("medseg", i) for i in range(5)} and len(keys(slices, "test")) == 2
        )
    assert keys(prepared.slices, "validation") == {
        ("medseg", i) for i in range(4)
    }  # the table itself is as it was


def test_a_network_is_trained_once_with_the_ideas_settings_and_answers_for_its_fold(
    prepared, trained, tmp_path
):
    [slices, *_] = fold_splits(prepared, 3, 4)
    idea = Idea("loss", {"loss": "weighted_cross_entropy", "epochs": 6})
    rows = run_idea(prepared, slices, idea, TrainingConfig(epochs=3, seed=7, patience=1), tmp_path / "a")
    [(seen, _, config)] = trained
    assert keys(seen, "train") == keys(slices, "train") and keys(seen, "validation") == keys(
        slices, "validation"
    )
    assert (config.loss, config.epochs, config.patience, config.seed) == (
        "weighted_cross_entropy",
        6,
        6,
        7,
    )  # it is never stopped early
    assert set(rows["index"]) == {i for _, i in keys(slices, "validation")} and set(
        rows.training_seconds
    ) == {90}
    labels = prepared.labels["medseg"][rows["index"]]
    expected = [metrics.confusion_matrix(truth, np.full_like(truth, BACKGROUND)) for truth in labels]
    np.testing.assert_array_equal(counts_of(rows), expected)
    body = run_idea(prepared, slices, Idea("inference", frame="body"), TrainingConfig(), tmp_path / "a")
    expected = [metrics.confusion_matrix(truth, np.full_like(truth, LUNG_OTHER)) for truth in labels]
    np.testing.assert_array_equal(counts_of(body), expected)
    again = run_idea(prepared, slices, idea, TrainingConfig(), tmp_path / "a")
    assert len(trained) == 1 and again.drop(columns="seconds_per_slice").equals(
        rows.drop(columns="seconds_per_slice")
    )


def test_the_benchmark_goes_on_where_it_stopped(prepared, trained, tmp_path):
    def run(ideas, folds, *more):
        before = len(trained)
        arguments = [
            str(prepared.dir),
            str(tmp_path),
            "--folds",
            "2",
            "--ideas",
            ideas,
            "--run-folds",
            folds,
            *more,
        ]
        done = CliRunner().invoke(ablation.main, arguments)
        return done, [(Path(folder).name, config) for _, folder, config in trained[before:]]

    done, networks = run("reference,mirrored views,twice as long", "0")
    assert done.exit_code == 0, done.output
    assert [name for name, _ in networks] == [
        "seed0_fold0_reference",
        "seed0_fold0_twice_as_long",
    ]  # mirrored: the same one
    assert [config.epochs for _, config in networks] == [5, 10]
    assert run("reference,mirrored views,twice as long", "0")[1] == []
    _, networks = run("reference,class weights", "0,1")
    assert [name for name, _ in networks] == [
        "seed0_fold0_class_weights",
        "seed0_fold1_reference",
        "seed0_fold1_class_weights",
    ]
    rows = pd.read_csv(tmp_path / "ablation.csv")
    assert not rows.duplicated(["idea", "seed", "fold", "index"]).any()
    assert rows.groupby(["idea", "fold"]).ngroups == 6 and set(rows.topic) == {
        "reference",
        "inference",
        "schedule",
        "loss",
    }
    assert effects(rows).set_index("idea").folds.to_dict() == {
        "reference": 2,
        "mirrored views": 1,
        "twice as long": 1,
        "class weights": 2,
    }
    done, networks = run("reference", "0", "--image-size", "64")
    assert done.exit_code == 2 and "name another folder" in done.output and not networks
    assert "unknown ideas magic" in run("magic", "0")[0].output


def make_rows(idea, seed, fold, counts, index):
    rows = slice_table("medseg", index, counts, [None] * len(counts))
    columns = {"idea": idea, "topic": "t", "seed": seed, "fold": fold, "training_seconds": 60.0 * (seed + 1)}
    return rows.assign(**columns, seconds_per_slice=0.25)


def random_counts(number, seed, truth_seed=0):
    """The same slices whatever the seed of the answers."""
    pixels = np.random.default_rng(truth_seed).integers(50, 500, (number, 4))
    shares = np.random.default_rng(seed).dirichlet([8, 1, 1, 1], (number, 4))
    rng = np.random.default_rng(seed + 1)
    rows = [
        [rng.multinomial(n, np.roll(p, c)) for c, (n, p) in enumerate(zip(*pair))]
        for pair in zip(pixels, shares)
    ]
    return np.array(rows)


def test_effects_are_the_paired_differences_of_counts_summed_over_seeds():
    index = np.array([20, 3, 11, 8, 5, 30])
    counts = {
        (idea, seed): random_counts(6, 10 * k + seed)
        for k, idea in enumerate(("reference", "b"))
        for seed in (0, 1)
    }
    parts = [
        make_rows(idea, seed, fold, each[3 * fold : 3 * fold + 3], index[3 * fold : 3 * fold + 3])
        for (idea, seed), each in counts.items()
        for fold in (1, 0)
    ]
    table = effects(pd.concat(parts)).set_index("idea")
    order = np.argsort(index)
    mine, theirs = ((counts[idea, 0] + counts[idea, 1])[order] for idea in ("b", "reference"))
    found = paired_difference(mine, theirs, EFFECTS)
    for score, function in EFFECTS.items():
        assert table[score].to_dict() == {"reference": function(theirs.sum(0)), "b": function(mine.sum(0))}
        b = table.loc["b"]
        assert b[f"{score}, difference"] == pytest.approx(found[score]["difference"])
        assert (b[f"{score}, low"], b[f"{score}, high"]) == pytest.approx(found[score]["interval"])
        zero = table.loc["reference", [f"{score}, {part}" for part in ("difference", "low", "high")]]
        assert (zero == 0).all()
    assert table.loc["b", ["seeds", "folds", "slices", "training minutes", "ms per slice"]].tolist() == [
        2,
        2,
        6,
        1.5,
        250,
    ]


def test_effects_by_hand():
    reference, idea = np.zeros((2, 1, 4, 4), int)
    reference[0], idea[0] = np.diag([6, 5, 20, 50]), np.diag([9, 5, 20, 50])
    reference[0, 0, 2], idea[0, 0, 2] = (
        4,
        1,
    )  # ground glass: Dice 12 / 16 and 18 / 19; consolidation 1 in both
    rows = pd.concat([make_rows("reference", 0, 0, reference, [1]), make_rows("idea", 0, 0, idea, [1])])
    table = effects(rows).set_index("idea")
    assert table["ground glass Dice"].tolist() == [12 / 16, 18 / 19] and table[
        "consolidation Dice"
    ].tolist() == [1, 1]
    assert table["mean lesion Dice, difference"]["idea"] == pytest.approx((18 / 19 - 12 / 16) / 2)
    assert table["lesion Dice"]["reference"] == 22 / 26
    assert np.isnan(table["mIoU, low"]["idea"])  # no interval from one slice
    [worst] = most_disputed(rows, "reference").to_dict("records")
    assert (worst["ground glass, label only"], worst["ground glass, model only"], worst["lesion Dice"]) == (
        4,
        0,
        22 / 26,
    )


def test_ideas_are_compared_on_the_folds_and_seeds_that_both_have():
    a, b = random_counts(6, 1), random_counts(6, 2)
    base = [
        make_rows("reference", 0, fold, a[3 * fold :][:3], range(3 * fold, 3 * fold + 3)) for fold in (0, 1)
    ]
    rows = pd.concat(
        [*base, make_rows("b", 0, 1, b[3:], range(3, 6)), make_rows("b", 1, 1, b[3:], range(3, 6))]
    )
    b_row = effects(rows).set_index("idea").loc["b"]
    assert b_row[["seeds", "folds", "slices"]].tolist() == [1, 1, 3]
    assert b_row["mIoU"] == metrics.mean_iou(b[3:].sum(0))
    assert b_row["mIoU, difference"] == pytest.approx(
        metrics.mean_iou(b[3:].sum(0)) - metrics.mean_iou(a[3:].sum(0))
    )
    with pytest.raises(InputError, match="no idea named 'reference'; found b"):
        effects(rows[rows.idea == "b"])


def test_a_class_that_is_nowhere_has_no_effect():
    a, b = random_counts(4, 1), random_counts(4, 2)
    for counts in (a, b):
        counts[:, 1] = 0
        counts[:, :, 2] += counts[:, :, 1]
        counts[:, :, 1] = 0
    table = effects(pd.concat([make_rows("reference", 0, 0, a, range(4)), make_rows("b", 0, 0, b, range(4))]))
    assert (
        table[["consolidation Dice", "consolidation Dice, difference", "consolidation Dice, low"]]
        .isna()
        .all(axis=None)
    )
    assert table["mean lesion Dice"].equals(table["ground glass Dice"])


def test_the_results_file_gives_back_the_rows(tmp_path):
    parts = [
        make_rows(idea, 0, 0, random_counts(3, k), range(3)) for k, idea in enumerate(("reference", "b"))
    ]
    for rows in parts:
        table = add_rows(tmp_path / "ablation.csv", rows)
    read = pd.read_csv(tmp_path / "ablation.csv")
    pd.testing.assert_frame_equal(effects(read), effects(pd.concat(parts)))
    pd.testing.assert_frame_equal(effects(table), effects(read))


def test_the_most_disputed_slices_come_first():
    counts = random_counts(5, 1)
    counts[2] = np.diag(counts[2].sum(1))  # no dispute
    table = most_disputed(make_rows("a", 0, 0, counts, [9, 8, 7, 6, 5]), "a")
    assert table["index"].iloc[-1] == 7 and table["mean lesion Dice"].is_monotonic_increasing
    disputed = [name for name in table if "only" in name]
    assert len(disputed) == 4 and (table[disputed].iloc[-1] == 0).all()
    by_index = table.set_index("index")
    assert by_index["consolidation, model only"][9] == counts[0, [0, 2, 3], 1].sum()
    assert by_index["mean lesion Dice"][5] == pytest.approx(metrics.dice(counts[4])[:2].mean())
