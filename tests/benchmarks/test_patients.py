"""Scores of a patient whose labels leave the kind of a lesion open."""

import numpy as np
from patients import score_patient
from sklearn.metrics import f1_score

from lungseg_utils.core.classes import BACKGROUND, LESION, LUNG_OTHER


class Says:
    """A segmenter that answers what it is told."""

    def __init__(self, answers):
        self.answers = answers

    def labels(self, hu):
        return self.answers[hu[:, 0, 0]]


class Folder:
    def __init__(self, folder):
        self.dir = folder


def test_both_kinds_count_as_lesion_and_lesions_as_lung(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.choice([LUNG_OTHER, BACKGROUND, LESION], (5, 8, 8)).astype(np.uint8)
    answers = rng.integers(0, 4, (5, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "labels_coronacases.npy", truth)
    np.save(tmp_path / "images_coronacases.npy", np.arange(5).repeat(64).reshape(5, 8, 8))
    scores = score_patient(Says(answers), Folder(tmp_path), np.array([1, 4]))
    own, said = truth[[1, 4]].ravel(), answers[[1, 4]].ravel()
    assert np.isclose(scores["lesion_dice"], f1_score(own == LESION, said < 2))
    assert np.isclose(scores["lung_dice"], f1_score(own != BACKGROUND, said != BACKGROUND))
