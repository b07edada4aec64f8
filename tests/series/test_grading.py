"""The teacher's table: attempts and verdicts, what is missing, and files that say more than is true."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from lungseg_utils.cli import main
from lungseg_utils.core.files import InputError
from lungseg_utils.series.exercises import check
from lungseg_utils.series.grading import collect_answers, summarise

ROWS = pd.DataFrame({"ground_glass": [0, 0, 5], "consolidation": [0, 0, 0]})  # two slices without a lesion
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "val_miou": [0.1, 0.6, 0.5]})


@pytest.fixture
def hand_in(tmp_path, monkeypatch, capsys):
    """Answers exercises as a student and hands the file in; gives the class's folder."""
    folder = tmp_path / "class"
    folder.mkdir()

    def answer(student, *given, edited=False):
        monkeypatch.setenv("LUNGSEG_HOME", str(folder / student))
        for exercise, answer, handed_over in given:
            check(exercise, answer, **handed_over)
        path = folder / student / "runs" / "answers.json"
        if edited:
            rows = json.loads(path.read_text())
            path.write_text(json.dumps([{**row, "verdict": "right"} for row in rows]))
        return folder

    return answer


def graded(folder, key=None):
    table = collect_answers(folder, key)
    return {
        (row.student, row.exercise): (row.attempts, row.verdict, row.checked) for row in table.itertuples()
    }


def test_attempts_mistakes_and_what_is_missing(hand_in):
    hand_in("ada", ("4.1", 72.6, {}), ("4.1", lambda: np.float64(0.726), {}), ("20.3", 13, {}))
    folder = hand_in("bob", ("4.1", lambda: 1 / 0, {}), ("4.1", "0,726", {}))
    (folder / "eve").mkdir()
    table = collect_answers(folder)
    assert table.iloc[:, :6].fillna("").to_numpy().tolist() == [
        ["ada", "4.1", 2, "right", "yes", "share or percentage"],
        ["ada", "20.3", 1, "right", "yes", ""],
        ["bob", "4.1", 2, "decimal comma", "", "decimal comma"],
        ["bob", "20.3", 0, "missing", "", ""],
        ["eve", "4.1", 0, "missing", "", ""],
        ["eve", "20.3", 0, "missing", "", ""],
    ]
    assert (table["first"].dropna() <= table["time"].dropna()).all()


def test_an_edited_verdict_is_found(hand_in):
    folder = hand_in("cheat", ("20.3", 14, {}), edited=True)
    honest = hand_in("honest", ("20.3", 13, {}))
    assert graded(folder)["cheat", "20.3"] == (1, "off by one", "differs")
    assert graded(honest)["honest", "20.3"] == (1, "right", "yes")
    hand_in("late", ("20.3", 14, {}), ("20.3", 13, {}), edited=True)
    assert graded(folder)["late", "20.3"] == (2, "right", "yes")  # one of them is right all the same


def test_what_depends_on_the_data_is_checked_by_the_key(hand_in, tmp_path):
    hand_in("ada", ("1.2", 2, {"rows": ROWS}))
    folder = hand_in("cheat", ("1.2", 7, {"rows": ROWS}), edited=True)
    assert graded(folder)["ada", "1.2"] == graded(folder)["cheat", "1.2"] == (1, "right", "not checked")
    hand_in("lazy", ("1.2", lambda: 1 / 0, {"rows": ROWS}), edited=True)
    assert graded(folder)["lazy", "1.2"] == (1, "no number", "differs")  # whatever the key is
    hand_in("../teacher", ("1.2", np.int64(2), {"rows": ROWS}))
    found = graded(folder, tmp_path / "teacher")
    assert found["ada", "1.2"] == (1, "right", "yes") and found["cheat", "1.2"] == (1, "wrong", "differs")


def test_what_depends_on_a_training_is_checked_by_the_students_own(hand_in, tmp_path):
    """The key's training is not theirs: another answer than the key's may be right."""
    later = HISTORY.assign(val_miou=[0.1, 0.2, 0.5])
    for student in ("alone", "with_run"):
        folder = hand_in(student, ("3.2", 3, {"history": later}))
    hand_in("cheat", ("3.2", 1, {"history": later}), edited=True)
    for student in ("with_run", "cheat"):
        run = folder / student / "runs" / "demo"
        run.mkdir()
        later.to_csv(run / "history.csv", index=False)
    hand_in("../teacher", ("3.2", 2, {"history": HISTORY}))
    found = graded(folder, tmp_path / "teacher")
    assert found["alone", "3.2"] == (1, "right", "not checked")
    assert found["with_run", "3.2"] == (1, "right", "yes")
    assert found["cheat", "3.2"][2] == "differs"


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"exercise": "9.9"}]', '[{"exercise": 1.1}]'])
def test_one_broken_file_spoils_no_table(hand_in, content):
    folder = hand_in("ada", ("20.3", 13, {}))
    (folder / "eve.json").write_text(content)
    assert graded(folder) == {("ada", "20.3"): (1, "right", "yes"), ("eve", ""): (0, "unreadable", "")}
    assert "cannot be read" in summarise(collect_answers(folder))


def test_files_of_the_students_names_and_other_files(hand_in):
    folder = hand_in("ada", ("20.3", 13, {}))
    (folder / "ada" / "runs" / "demo").mkdir()
    (folder / "ada" / "runs" / "demo" / "run.json").write_text("{}")
    (folder / "bob.json").write_text((folder / "ada" / "runs" / "answers.json").read_text())
    (folder / "grades.csv").write_text("of an earlier call")
    assert list(graded(folder)) == [("ada", "20.3"), ("bob", "20.3")]
    assert json.loads((folder / "bob.json").read_text())[0]["answer"] == "13"


def test_folders_without_answers_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no .json"):
        collect_answers(tmp_path)
    with pytest.raises(InputError, match="there is no"):
        collect_answers(tmp_path / "nowhere")


def test_the_command_writes_the_table_beside_the_answers(hand_in, monkeypatch):
    folder = hand_in("ada", ("20.3", 13, {}), ("4.1", 0.4, {}))
    monkeypatch.chdir(folder.parent)
    result = CliRunner().invoke(main, ["grade", folder.name])
    again = CliRunner().invoke(main, ["grade", folder.name])  # its own table is no student's
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"table: {folder / 'grades.csv'}"
    assert result.stdout.splitlines()[1].split() == ["ada", "1", "0", "0", "1", "0"]
    assert len(pd.read_csv(folder / "grades.csv")) == 2
    assert again.stdout == result.stdout
