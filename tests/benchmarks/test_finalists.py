"""Recipes side by side.

The values against the scores themselves, draws in pairs, what is undefined, what is refused.
"""

import runpy
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import CPU

from lungseg_utils.core.files import CHECKOUT, InputError
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.evaluation.improvements import compare_recipes, seed_scores, table_for_people
from lungseg_utils.evaluation.intervals import bootstrap
from lungseg_utils.evaluation.results import counts_of, slice_table
from lungseg_utils.evaluation.scores import BY_LABEL
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings

pytestmark = pytest.mark.slow

SLICES = 12


def make_run(recipe, seed, quality=8.0, number=SLICES):
    pixels = np.random.default_rng(0).integers(50, 500, (number, 4))  # the same truth in all runs
    rng = np.random.default_rng([seed, int(quality)])
    shares = rng.dirichlet([quality, 1, 1, 1], (number, 4))
    counts = [
        [rng.multinomial(n, np.roll(p, c)) for c, (n, p) in enumerate(zip(*pair))]
        for pair in zip(pixels, shares)
    ]
    table = slice_table("medseg", range(number), np.array(counts), [None] * number)
    columns = {"lesion_hd95_px": rng.gamma(2, 5, number), "lesion_surface_dice_2px": rng.random(number)}
    columns |= {"lesion_borders": rng.choice(["both", "only_truth"], number)}
    columns |= {"burden_true": rng.random(number), "burden_predicted": rng.random(number)}
    return table.assign(**columns, recipe=recipe, seed=seed)


def test_each_seeds_scores_stand_by_themselves():
    runs = [make_run("a", 0), make_run("a", 1), make_run("b", 0, 20)]
    table = seed_scores(pd.concat(runs))
    assert table[["recipe", "seed"]].to_numpy().tolist() == [["a", 0], ["a", 1], ["b", 0]]
    np.testing.assert_allclose(table["mIoU"], [metrics.mean_iou(counts_of(run).sum(0)) for run in runs])


def score_of(table, score, recipe):
    return table[(table.score == score) & (table.recipe == recipe)].iloc[0]


def test_values_are_the_means_over_the_seeds_of_the_scores_themselves():
    runs = [make_run("a", 0), make_run("a", 1), make_run("b", 0, 20), make_run("b", 1, 20)]
    table = compare_recipes(pd.concat([run.sample(frac=1, random_state=0) for run in runs]), "a")
    assert table.score[0] == "mean lesion Dice"  # what the page is about
    assert {*table.score} == {*BY_LABEL} and (table.score[::2].values == table.score[1::2].values).all()
    for name, (one, two) in {"a": runs[:2], "b": runs[2:]}.items():
        for score, function in {
            "mean lesion Dice": lambda counts: metrics.dice(counts)[:2].mean(),
            "ground glass Dice": lambda counts: metrics.dice(counts)[0],
            "consolidation Dice": lambda counts: metrics.dice(counts)[1],
            "lesion Dice": metrics.lesion_dice,
            "mIoU": metrics.mean_iou,
            "accuracy": metrics.accuracy,
        }.items():
            expected = np.mean([function(counts_of(run).sum(0)) for run in (one, two)])
            assert score_of(table, score, name).value == pytest.approx(expected)
        for score, function in {
            "HD95 of the lesion, px": lambda run: run.lesion_hd95_px.mean(),
            "surface Dice of the lesion, 2 px": lambda run: run.lesion_surface_dice_2px.mean(),
            "burden, absolute error": lambda run: (run.burden_predicted - run.burden_true).abs().mean(),
        }.items():
            assert score_of(table, score, name).value == pytest.approx(
                np.mean([function(run) for run in (one, two)])
            )
    assert ((table.low < table.value) & (table.value < table.high)).all()
    b = table[table.recipe == "b"].set_index("score")
    a = table[table.recipe == "a"].set_index("score")
    np.testing.assert_allclose(b.difference, b.value - a.value)
    assert a.difference.isna().all() and (b["difference low"] < b["difference high"]).all()


def test_one_seeds_interval_is_the_bootstraps():
    run = make_run("a", 0)
    found = score_of(compare_recipes(run, "a", draws=4000), "mIoU", "a")
    expected = bootstrap(counts_of(run), {"mIoU": metrics.mean_iou}, draws=4000)["mIoU"]
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.1 * np.ptp(expected))


def test_identical_recipes_differ_by_exactly_nothing():
    runs = [make_run("a", 0), make_run("a", 1)]
    table = compare_recipes(pd.concat([*runs, *(run.assign(recipe="b") for run in runs)]), "a")
    columns = ["difference", "difference low", "difference high"]
    assert (table.loc[table.recipe == "b", columns] == 0).all(axis=None)


def test_all_recipes_are_drawn_on_the_same_slices():
    run = make_run("a", 0)
    better = run.assign(recipe="b", lesion_hd95_px=run.lesion_hd95_px - 1, burden_predicted=run.burden_true)
    table = compare_recipes(
        pd.concat([run, better, run.assign(recipe="b", seed=1, lesion_hd95_px=run.lesion_hd95_px - 3)]), "a"
    )
    row = score_of(table, "HD95 of the lesion, px", "b")
    assert row[["difference", "difference low", "difference high"]].tolist() == pytest.approx([-2, -2, -2])
    assert row.high - row.low > 1  # the slices themselves are not alike
    assert score_of(table, "burden, absolute error", "b").difference < 0


def test_slices_without_an_hd95_are_left_out_and_none_at_all_is_no_value():
    run = make_run("a", 0)
    run.loc[[2, 5], "lesion_hd95_px"] = np.nan
    never = make_run("b", 0).assign(lesion_hd95_px=np.nan)
    table = compare_recipes(pd.concat([run, never]), "a")
    assert score_of(table, "HD95 of the lesion, px", "a").value == pytest.approx(run.lesion_hd95_px.mean())
    none = score_of(table, "HD95 of the lesion, px", "b")
    assert (
        none[["value", "low", "high", "difference", "difference low"]].isna().all()
    )  # not 0, the best of all
    table = compare_recipes(pd.concat([run, never.assign(recipe="a", seed=1)]), "a")  # one seed has none
    assert score_of(table, "HD95 of the lesion, px", "a").value == pytest.approx(run.lesion_hd95_px.mean())


def test_a_class_that_few_slices_or_none_show_is_no_warning():
    run = make_run("a", 0)
    names = [name for name in run if name.startswith("consolidation_as") or name.endswith("as_consolidation")]
    for shown, known in ((3, True), (0, False)):
        rare = run.copy()
        rare.loc[shown:, names] = 0
        row = score_of(compare_recipes(rare, "a", draws=300), "consolidation Dice", "a")
        assert np.isfinite([row.value, row.low, row.high]).tolist() == [known] * 3


def test_only_runs_on_the_same_slices_are_compared():
    run, other = make_run("a", 0), make_run("b", 0)
    for rows in (
        [run, other.iloc[1:]],
        [run, other.assign(index=other["index"] + 1)],
        [pd.concat([run, run]), other],
    ):
        with pytest.raises(InputError, match="the runs have different slices"):
            compare_recipes(pd.concat(rows), "a")
    with pytest.raises(InputError, match="no recipe 'c'; expected one of a, b"):
        compare_recipes(pd.concat([run, other]), "c")


def test_the_table_for_people():
    line = {"score": "mIoU", "recipe": "a", "value": 0.51234, "low": 0.4, "high": 0.6}
    b = {
        **line,
        "recipe": "b",
        "value": 0.6,
        "difference": 0.08766,
        "difference low": -0.01,
        "difference high": 0.2,
    }
    hd95 = {"score": "HD95 of the lesion, px", "value": 12.34, "low": 1.0, "high": 20.0}
    away = {"difference": -0.5, "difference low": -1.0, "difference high": 0.25}
    text = table_for_people(
        pd.DataFrame([line, b, {**hd95, "recipe": "a"}, {**hd95, "recipe": "b", **away}]), "a"
    )
    assert list(text) == ["a", "b", "b, difference"] and list(text.index) == [
        "mIoU",
        "HD95 of the lesion, px (less is better)",
    ]
    assert text.loc["mIoU"].tolist() == [
        "0.512 [0.400, 0.600]",
        "0.600 [0.400, 0.600]",
        "+0.088 [-0.010, +0.200]",
    ]
    assert text.iloc[1].tolist() == ["12.3 [1.0, 20.0]", "12.3 [1.0, 20.0]", "-0.5 [-1.0, +0.2]"]


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(CHECKOUT / "benchmarks" / "finalists.py"))


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities(benchmark):
    def member(value):
        def answers(hu, batch_size):
            for start in range(0, len(hu), batch_size):
                found = np.full((min(batch_size, len(hu) - start), 4, 2, 2), value)
                yield (
                    slice(start, start + batch_size),
                    SimpleNamespace(probabilities=lambda settings, small, found=found: found),
                )

        return SimpleNamespace(settings="own", answers=answers)

    ensemble = benchmark["Ensemble"]([member(0.2), member(0.4), member(0.9)])
    answers = [
        (position, found.probabilities("own")) for position, found in ensemble.answers(np.zeros((3, 2, 2)), 2)
    ]
    assert [position for position, _ in answers] == [slice(0, 2), slice(2, 4)] and ensemble.settings == "own"
    assert answers[1][1].shape == (1, 4, 2, 2) and np.allclose(answers[0][1], 0.5)


def test_the_benchmark_from_runs_to_tables(benchmark, prepared_dir, trained_dir, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    shutil.copytree(prepared_dir, run / "prepared")
    shutil.copytree(trained_dir / "model", run / "model")
    shutil.copy(trained_dir / "history.csv", run)
    call = CliRunner().invoke
    done = call(benchmark["main"], [str(out), f"one:mirror={run}", f"both:ensemble:mirror={run},{run}"])
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(out / "finalists.csv")
    assert rows.groupby(["recipe", "seed"], sort=False)["index"].agg(list).tolist() == [list(range(24))] * 2
    prepared = load_prepared(prepared_dir)
    answers = Segmenter.load(trained_dir / "model", CPU, InferenceSettings(flip=True)).labels(
        prepared.images["medseg"][:24]
    )
    expected = [metrics.confusion_matrix(*pair) for pair in zip(prepared.labels["medseg"], answers)]
    for _, own in rows.groupby("recipe"):  # an ensemble of one network and itself answers as the one does
        np.testing.assert_array_equal(counts_of(own), expected)
    text = (out / "finalists.md").read_text()
    assert "| score | one | both | both, difference |" in text and "[+0.000, +0.000]" in text
    minutes = pd.read_csv(run / "history.csv").seconds.sum() / 60
    assert f"| one | 1 | {minutes:.0f} |" in text and f"| both | 1 | {2 * minutes:.0f} |" in text
    for wrong in (["a=x", "a:mirror=x"], ["a:miror=x"]):
        done = call(benchmark["main"], [str(out), *(recipe.replace("x", str(run)) for recipe in wrong)])
        assert (
            done.exit_code == 2 and "a name of its own is needed, and only mirror or ensemble" in done.output
        )
