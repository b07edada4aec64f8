"""A contest: what students get does not give the hidden labels away, and submissions are ranked."""

import json
import shutil

import numpy as np
import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import load_data
from lungseg_utils.data.phantom import NAMES, STAMP
from lungseg_utils.evaluation.submission import rank_submissions, write_submission
from lungseg_utils.series.contest import write_contest

SIZES = dict(medseg=1, volumes=1, slices_per_volume=2, size=64)


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "contest"
    return write_contest(folder, seed=271828, model="pretrained-small", **SIZES)


def test_students_get_data_but_neither_labels_nor_seed(contest):
    teacher = json.loads((contest / "teacher" / "phantom.json").read_text())
    students = contest / "students"
    assert str(teacher["seed"]) not in (students / "phantom.json").read_text()
    assert {path.name for path in students.iterdir()} == {*NAMES, STAMP}
    assert load_data(students).images["test"].shape == (10, 64, 64)


def test_the_hidden_labels_are_those_of_the_test_slices(contest):
    truth = np.load(contest / "teacher" / "masks_test.npy")
    hu = np.load(contest / "students" / "test_images_medseg.npy")[..., 0]
    assert truth.shape == hu.shape
    lung = hu[truth == 2].mean()
    assert lung < -600 < hu[truth < 2].mean() and lung < hu[np.roll(truth, 1, axis=0) == 2].mean() - 50


def test_another_contest_is_another(contest, tmp_path):
    other = write_contest(tmp_path / "other", model="pretrained-small", **SIZES)
    ours, theirs = (np.load(folder / "teacher" / "masks_test.npy") for folder in (contest, other))
    assert (ours != theirs).any()
    with pytest.raises(InputError, match="expected a new folder"):
        write_contest(other)


def test_submissions_are_ranked_and_a_broken_one_is_named(contest, tmp_path):
    truth = contest / "teacher" / "masks_test.npy"
    shutil.copy(contest / "teacher" / "submissions" / "baseline.csv", tmp_path)
    (tmp_path / "perfect").mkdir()
    write_submission(tmp_path / "perfect" / "sub.csv", np.load(truth))
    write_submission(tmp_path / "nothing.csv", np.full_like(np.load(truth), 3))
    (tmp_path / "broken.csv").write_text("Id,Predicted\n0,1\n")
    ranked = rank_submissions(tmp_path, truth)
    assert ranked.name.tolist() == ["perfect", "baseline", "nothing", "broken"]
    assert ranked.score[0] == 1 > ranked.score[1] > 0 == ranked.score[2] and np.isnan(ranked.score[3])
    assert "has 1 rows" in ranked.problem[3] and (ranked.problem[:3] == "").all()
    with pytest.raises(InputError, match="holds no .csv"):
        rank_submissions(contest / "students", truth)
