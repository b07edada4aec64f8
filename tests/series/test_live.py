"""What a training says of itself while it runs, and how it is read."""

import json
import os
import time

import pytest
from helpers import CPU, TINY_CONFIG

from lungseg_utils.series.live import in_minutes, training_line
from lungseg_utils.training import live
from lungseg_utils.training.loop import train

NOTE = {"epoch": 2, "epochs": 5, "step": 3, "steps": 8, "loss": 0.41239, "seconds_left": 700}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (700, "12 min"), (5400, "1 h 30 min"), (7500, "2 h 05 min")],
)
def test_times_in_words(seconds, words):
    assert in_minutes(seconds) == words


def test_a_note_is_one_line_and_an_old_or_broken_one_is_none(tmp_path):
    assert training_line(tmp_path) == ""
    path = tmp_path / live.LIVE
    path.parent.mkdir()
    path.write_text(json.dumps(NOTE))
    assert training_line(tmp_path) == "epoch 2/5, step 3/8, loss 0.412, 12 min left"
    os.utime(path, (1, 1))
    assert training_line(tmp_path, since=time.time() - 60) == ""
    path.write_text("{")
    assert training_line(tmp_path) == ""


def test_a_training_notes_how_far_it_is_and_takes_the_note_away(prepared_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.0)
    notes = []
    note = live.LiveNote.after_step

    def keep(self, learner):
        note(self, learner)
        notes.append(json.loads((tmp_path / live.LIVE).read_text()))

    monkeypatch.setattr(live.LiveNote, "after_step", keep)
    train(prepared_dir, tmp_path, TINY_CONFIG, CPU)
    steps = notes[0]["steps"]
    assert [(n["epoch"], n["step"]) for n in notes] == [(e, s + 1) for e in (1, 2) for s in range(steps)]
    assert all(n["loss"] > 0 and n["epochs"] == 2 for n in notes)
    assert notes[-1]["seconds_left"] == 0
    assert not (tmp_path / "checkpoint").exists()
