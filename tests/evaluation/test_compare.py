"""Comparing runs: what differs, scores, paired differences, runs of other kinds, the command."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import CPU
from matplotlib import pyplot as plt
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from lungseg_utils.cli import main
from lungseg_utils.core.files import InputError
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.compare import as_text, blocks, compare_runs, load_runs, notes
from lungseg_utils.evaluation.evaluator import collect_predictions, evaluate
from lungseg_utils.evaluation.intervals import bootstrap
from lungseg_utils.evaluation.metrics import confusion_matrix, summary
from lungseg_utils.evaluation.results import COUNT_COLUMNS, save_results, slice_table
from lungseg_utils.evaluation.scores import HEADLINE
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.plots.comparison import plot_comparison
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.loop import train

TRUTH = np.random.default_rng(0).choice(4, size=(6, 32, 32), p=[0.1, 0.05, 0.25, 0.6])
NEAR, FAR = (0.1, 0.5)  # shares of the pixels that a run gets wrong on purpose


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


def predict(wrong, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(TRUTH.shape) < wrong, rng.integers(0, 4, TRUTH.shape), TRUTH)


def write_run(folder, prediction, parameters=None, truth=TRUTH, source="medseg", volume=None):
    """A run directory as 04_results leaves it, schema 2."""
    counts = np.array([confusion_matrix(t, p) for t, p in zip(truth, prediction)])
    table = slice_table(source, range(len(truth)), counts, volume or [None] * len(truth))
    intervals = {
        name: found and list(found) for name, found in bootstrap(counts, HEADLINE, draws=200).items()
    }
    record = {
        "source": source,
        "slices": len(truth),
        "size": list(truth.shape[1:]),
        "full_size": summary(counts),
    }
    save_results(
        folder / "results",
        table,
        counts.sum(0),
        {**record, "intervals": intervals, "inference": {"flip": False}},
    )
    write_parameters(folder, **{"epochs": 3, **(parameters or {})})
    return folder


def write_parameters(folder, **given):
    """run.json as far as it is read: what 03 was given, and something else that 04 was."""
    entries = {
        "03_training": {"run_dir": str(folder), **given},
        "04_results": {"batch_size": 99, "angle": 0.5},
    }
    notebooks = {
        stem: {"status": "finished", "parameters": parameters} for stem, parameters in entries.items()
    }
    (folder / "run.json").write_text(
        json.dumps({"notebooks": {"02_preprocessing": {"status": "pending"}, **notebooks}})
    )


def make_old(folder):
    """The same run as schema 1 left it: no intervals, no counts."""
    path = folder / "results" / "metrics.json"
    record = json.loads(path.read_text())
    del record["intervals"], record["inference"]
    path.write_text(json.dumps({**record, "schema": 1}))
    path = folder / "results" / "per_slice.csv"
    pd.read_csv(path).drop(columns=["volume", *COUNT_COLUMNS]).to_csv(path, index=False)
    return folder


@pytest.fixture
def near(tmp_path):
    return write_run(tmp_path / "near", predict(NEAR))


@pytest.fixture
def far(tmp_path):
    return write_run(tmp_path / "far", predict(FAR))


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Two losses by two seeds, in the order of a shell's loop over seeds."""
    folder = tmp_path_factory.mktemp("batch")
    return [
        write_run(folder / f"{loss}-{seed}", predict(wrong, seed), {"loss": loss, "seed": seed})
        for seed in (0, 1)
        for loss, wrong in (("cross_entropy", FAR), ("dice_cross_entropy", NEAR))
    ]


def compare(*folders):
    return compare_runs(load_runs(folders))


def invoke(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_scores_are_the_runs_own_and_the_differences_sklearn_s(near, far):
    def scores(prediction):
        t, p = TRUTH.ravel(), prediction.ravel()
        ground_glass, consolidation = f1_score(t, p, labels=[0, 1], average=None)
        lesion = f1_score(t < 2, p < 2)
        mean_iou = jaccard_score(t, p, average="macro")
        return [
            accuracy_score(t, p),
            mean_iou,
            ground_glass,
            consolidation,
            (ground_glass + consolidation) / 2,
            lesion,
        ]

    table = compare(near, far)
    first, second = scores(predict(NEAR)), scores(predict(FAR))
    assert table.loc[0, list(HEADLINE)].tolist() == pytest.approx(first)
    assert table.loc[1, list(HEADLINE)].tolist() == pytest.approx(second)
    differences = table[[f"{name}_difference" for name in HEADLINE]]
    assert differences.loc[0].isna().all() and differences.loc[1].tolist() == pytest.approx(
        np.subtract(second, first).tolist()
    )
    for name in HEADLINE:
        value, low, high = table.loc[1, [name, f"{name}_low", f"{name}_high"]]
        assert low < value < high
        value, low, high = table.loc[
            1, [f"{name}_difference", f"{name}_difference_low", f"{name}_difference_high"]
        ]
        assert low < value < high < 0


def test_equal_predictions_differ_by_exactly_nothing(near, tmp_path):
    table = compare(near, shutil.copytree(near, tmp_path / "copy"))
    for part in ("", "_low", "_high"):
        assert (table.loc[1, [f"{name}_difference{part}" for name in HEADLINE]] == 0).all()


def test_slices_are_paired_by_index_whatever_their_order(near, far):
    expected = compare(near, far)
    path = far / "results" / "per_slice.csv"
    pd.read_csv(path).iloc[::-1].to_csv(path, index=False)
    pd.testing.assert_frame_equal(compare(near, far), expected)


def test_many_volumes_are_drawn_whole(near, far, tmp_path):
    volume = [1, 1, 2, 2, 3, 3]
    by_slice = compare(near, far)
    for folder, wrong in ((near, NEAR), (far, FAR)):
        write_run(folder, predict(wrong), volume=volume)
    by_volume = compare(near, far)
    assert by_volume.accuracy_difference.equals(by_slice.accuracy_difference)
    # Three volumes: a draw is one of ten sums, so the interval is that of the best and the worst volume.
    counts = {run.name: run.counts.reshape(3, 2, 4, 4).sum(1) for run in load_runs([near, far])}
    extremes = sorted(np.trace(f - n) / f.sum() for n, f in zip(counts["near"], counts["far"]))
    low, high = by_volume.loc[1, ["accuracy_difference_low", "accuracy_difference_high"]]
    assert (low, high) == pytest.approx((extremes[0], extremes[-1]))


def test_only_settings_that_differ_seeds_side_by_side(batch):
    table = compare(*batch)
    assert list(table.columns[:5]) == ["run", "setting", "loss", "seed", "scored_on"]
    assert table.run.tolist() == [
        "cross_entropy-0",
        "cross_entropy-1",
        "dice_cross_entropy-0",
        "dice_cross_entropy-1",
    ]
    assert table.setting.tolist() == 2 * ["loss cross_entropy"] + 2 * ["loss dice_cross_entropy"]
    assert table.seed.tolist() == [0, 1, 0, 1]
    assert compare(batch[3], *batch).run[0] == "dice_cross_entropy-1" and len(compare(batch[3], *batch)) == 4


def test_the_model_knows_its_settings_better_than_the_last_call(near, far):
    for folder, batch_size in ((near, 4), (far, 8)):
        write_parameters(folder, batch_size=16, split="reference")
        (folder / "model").mkdir()
        training = {"batch_size": batch_size, "prepared": str(folder), "prepared_before": [str(folder)]}
        (folder / "model" / "config.json").write_text(json.dumps({"training": training}))
    [one, _] = load_runs([near, far])
    assert one.parameters["split"] == "reference" and one.parameters["batch_size"] == 4
    assert compare(near, far).batch_size.tolist() == [4, 8]
    assert not {"split", "prepared", "prepared_before"} & {*compare(near, far)}


def test_an_old_run_is_shown_and_what_it_lacks_is_said(near, far):
    make_old(far)
    table = compare(near, far)
    assert table.loc[1, "accuracy"] == pytest.approx(accuracy_score(TRUTH.ravel(), predict(FAR).ravel()))
    assert (
        table.loc[1, [f"{name}_{part}" for name in HEADLINE for part in ("low", "high", "difference")]]
        .isna()
        .all()
    )
    [_, no_intervals, no_difference] = notes(load_runs([near, far]))
    assert no_intervals.startswith("No intervals for far: ") and "04_results" in no_intervals
    assert no_difference.startswith("No paired difference for far: ") and "older" in no_difference
    assert "Paired difference" not in as_text(blocks(table))
    assert not any("+" in text.get_text() for ax in plot_comparison(table).axes for text in ax.texts)
    assert (
        "per_slice.csv of far" in notes(load_runs([far, near]))[-1]
    )  # the first run is the one that lacks them


def test_an_old_run_predicted_as_the_defaults_do(near, far):
    path = near / "results" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "inference": {"flip": True, "angles": []}}))
    table = compare(near, make_old(far))
    assert table.flip.tolist() == [True, False] and "angles" not in table


@pytest.mark.parametrize("change", ["labels", "source", "size", "number"])
def test_scores_of_other_slices_are_shown_but_not_ranked(near, tmp_path, change):
    truth, prediction, source = TRUTH.copy(), predict(FAR), "medseg"
    if change == "labels":
        truth[0, 0, 0] = (truth[0, 0, 0] + 1) % 4
    if change == "source":
        source = "radiopaedia"
    if change == "size":
        truth, prediction = truth[:, :16], prediction[:, :16]
    if change == "number":
        truth, prediction = truth[:5], prediction[:5]
    other = write_run(tmp_path / "other", prediction, truth=truth, source=source)
    table = compare(near, other)
    assert table[list(HEADLINE)].notna().all(axis=None) and table.accuracy_difference.isna().all()
    [note] = notes(load_runs([near, other]))[1:]
    assert note.startswith("No paired difference for other: ") and note.endswith("cannot be ranked.")
    text = as_text(blocks(table))
    assert ("scored_on" in text) == (change != "labels") and max(map(len, text.splitlines())) <= 120


def test_without_the_single_slices_there_is_no_difference(near, far):
    path = far / "results" / "per_slice.csv"
    hole = pd.read_csv(path).astype({"lung_other_as_background": "float"})
    hole.loc[0, "lung_other_as_background"] = np.nan
    hole.to_csv(path, index=False)
    assert compare(near, far).accuracy_difference.isna().all() and "far" in notes(load_runs([near, far]))[-1]
    for damage in (
        lambda: path.write_text("source,index\nmedseg,0\n"),
        lambda: path.write_bytes(b"\xff\xfe,"),
        path.unlink,
    ):
        damage()
        assert "per_slice.csv of far is missing or unreadable" in notes(load_runs([near, far]))[-1]
        assert compare(near, far).accuracy_difference.isna().all()


def test_an_undefined_score_is_a_dash(tmp_path):
    truth = np.full((3, 8, 8), 3)
    table = compare(*(write_run(tmp_path / name, truth, truth=truth) for name in "ab"))
    assert table.lesion_dice.isna().all() and table.accuracy.eq(1).all()
    lines = as_text(blocks(table)).splitlines()
    assert lines[3].split() == ["a", "1.000", "1.000", "-", "-", "-", "-"]


def break_run(folder, how):
    path = folder / "results" / "metrics.json"
    record = json.loads(path.read_text())
    if how == "no folder":
        shutil.rmtree(folder)
    elif how == "no results":
        path.unlink()
    elif how == "truncated":
        path.write_text(path.read_text()[:100])
    elif how == "a list":
        path.write_text("[1]")
    elif how == "newer":
        path.write_text(json.dumps({**record, "schema": 3}))
    elif how == "foreign":
        path.write_text('{"loss": 0.3}')
    elif how == "a word for a score":
        path.write_text(json.dumps({**record, "full_size": {**record["full_size"], "accuracy": "good"}}))
    elif how == "run.json":
        (folder / "run.json").write_text("{")


@pytest.mark.parametrize(("how", "words"), [
    ("no folder", "is no folder"), ("truncated", "cannot be read"),
    ("a list", "expected a JSON object"), ("newer", "schema 3; this lungseg reads schemas up to 2; update"),
    ("foreign", "run 04_results there again"), ("a word for a score", "run 04_results there again"),
    ("run.json", "run.json cannot be read"),
])  # fmt: skip
def test_what_is_no_readable_run_gets_one_sentence_that_names_it(near, far, how, words):
    break_run(far, how)
    result = invoke(near, far)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr.startswith(f"error: {far}")
        and words in result.stderr
        and result.stderr.count("\n") == 1
    )
    with pytest.raises(InputError):
        load_runs([far])


def test_an_unfinished_run_is_left_out_and_said_but_alone_it_is_refused(near, far):
    break_run(far, "no results")
    result = invoke(near, far)
    assert result.exit_code == 0 and "no results/metrics.json" in " ".join(result.output.split())
    with pytest.raises(InputError, match="no results/metrics.json"):
        load_runs([far])


def test_names_tell_runs_apart(near, tmp_path):
    inner = shutil.copytree(near, tmp_path / "batch" / "near")
    assert [run.name for run in load_runs([near, inner, near])] == ["near", "batch/near"]
    assert [run.name for run in load_runs([near])] == ["near"]


def test_the_command_prints_and_keeps_the_comparison(batch, tmp_path):
    result = invoke(*batch, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 120
    for words in (
        "Settings that differ:",
        "Paired difference to cross_entropy-0:",
        "bootstrap interval",
        "the seed show",
    ):
        assert words in result.stdout
    assert sum(line.startswith("dice_cross_entropy-1 ") for line in result.stdout.splitlines()) == 3
    written = pd.read_csv(tmp_path / "out" / "comparison.csv")
    pd.testing.assert_frame_equal(written, compare(*batch), check_dtype=False)
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert (
        "| cross_entropy-0 | cross_entropy | 0 |" in markdown and "conditional on these patients" in markdown
    )
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG") and not plt.get_fignums()


def test_the_comparison_stays_with_the_first_run_by_default(near, far):
    result = invoke(far, near)
    assert result.stdout.endswith(f"comparison: {far / 'compare'}\n")
    assert {path.name for path in (far / "compare").iterdir()} == {
        "comparison.csv",
        "comparison.md",
        "comparison.png",
        "settings.csv",
        "settings.png",
    }
    assert not (near / "compare").exists()


def test_few_runs_that_differ_in_much_get_a_column_each(near, far):
    for folder, value in ((near, 1), (far, 2)):
        write_parameters(folder, a=value, b=value, data_dir=f"/a/long/way/to/the/folder/of/the/data/{value}")
    lines = as_text(blocks(compare(near, far))).splitlines()
    assert [line.split() for line in lines[1:4]] == [["run", "near", "far"], ["a", "1", "2"], ["b", "1", "2"]]
    assert lines[4].split() == ["data_dir", "…he/folder/of/the/data/1", "…he/folder/of/the/data/2"]


def test_figure_has_one_axis_a_score_and_one_line_a_run(batch):
    table = compare(*batch)
    axes = plot_comparison(table).axes
    assert [ax.get_title() for ax in axes] == [
        f"{score.label} (more is better)" for score in HEADLINE.values()
    ]
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == [f"{run}\n{setting}" for run, setting in zip(table.run, table.setting)]
    for ax, name in zip(axes, HEADLINE):
        dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_array_equal(dots, table[name])
        second = table.iloc[1]
        assert ax.texts[1].get_text().startswith(f"{second[name]:.3f}  {second[f'{name}_difference']:+.3f} [")


@pytest.mark.slow
def test_three_seeds_by_two_losses_on_a_tiny_phantom(prepared_dir, tmp_path):
    """The README's batch.

    Seed 0 of each loss by `lungseg run`, the other seeds by the functions that its notebooks call.
    """
    tiny = {"encoder": "resnet18", "encoder_weights": "none", "image_size": 32, "epochs": 1, "batch_size": 8}
    options = [word for name, value in tiny.items() for word in ("-p", name, str(value))]
    for loss in ("cross_entropy", "dice_cross_entropy"):
        first = tmp_path / f"{loss}-0"
        shutil.copytree(prepared_dir, first / "prepared")
        command = [
            "run",
            "--profile",
            "demo",
            "--from",
            "03",
            "--run-dir",
            str(first),
            "-p",
            "loss",
            loss,
            *options,
        ]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        for seed in (1, 2):
            folder = tmp_path / f"{loss}-{seed}"
            settings = json.loads((first / "model" / "config.json").read_text())["training"]
            train(prepared_dir, folder, TrainingConfig.from_names({**settings, "seed": seed}), CPU)
            score_run(prepared_dir, folder)
            shutil.copy(first / "run.json", folder)  # what the model's own settings do not override
    runs = sorted(tmp_path.iterdir())
    result = invoke(*runs)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(runs[0] / "compare" / "comparison.csv")
    assert table.run.tolist() == [
        f"{loss}-{seed}" for loss in ("cross_entropy", "dice_cross_entropy") for seed in range(3)
    ]
    assert [*table.columns[:5]] == [
        "run",
        "setting",
        "loss",
        "seed",
        "scored_on",
    ] and table.seed.tolist() == [0, 1, 2] * 2
    assert set(table.scored_on) == {"24 medseg slices of 64 x 64 pixels"}
    assert table.accuracy.nunique() > 1 and table.accuracy_difference.notna().tolist() == [False] + 5 * [True]
    assert len(notes(load_runs(runs))) == 2, result.output  # nothing is missing


def score_run(prepared_dir, folder):
    """results/ of a trained run, as 04_results writes it."""
    prepared = load_prepared(prepared_dir)
    rows = prepared.slices.query("split == 'validation'")
    index = rows["index"].to_numpy(int)
    hu, truth = prepared.images["medseg"][index], prepared.labels["medseg"][index]
    predictions = collect_predictions(Segmenter.load(folder / "model", CPU), hu, truth)
    found = evaluate(truth, predictions, "medseg", index, rows.volume)
    save_results(folder / "results", found.table, found.per_slice.sum(0), found.record)
