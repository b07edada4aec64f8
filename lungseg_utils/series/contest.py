"""A contest for a class: a phantom whose test labels the teacher keeps, with a baseline to beat."""

import json
import secrets
from pathlib import Path

import numpy as np

from lungseg_utils.core.files import atomic_write, new_folder, replace_folder
from lungseg_utils.data.arrays import FILES
from lungseg_utils.data.phantom import STAMP, kept_labels, write_phantom
from lungseg_utils.evaluation.submission import write_submission
from lungseg_utils.inference.pretrained import pretrained_dir
from lungseg_utils.inference.segmenter import Segmenter

STUDENTS, TEACHER = "students", "teacher"
TRUTH = "masks_test.npy"
SUBMISSIONS = "submissions"
SEEDS = 2**63  # too many to try


def write_contest(out: str | Path, seed: int | None = None, model: str = "pretrained", **sizes: int) -> Path:
    """Write a data set for students, and the labels of its test slices for their teacher.

    students/ is a phantom like any other, but for the seed, which would give the labels away;
    teacher/ has these labels, the seed, and submissions/ with a baseline: a shipped model's answer.

    Args:
        out: A new or empty folder.
        seed: A number that students cannot guess; drawn at random if not given.
        model: The baseline's, a name of a shipped one.
        **sizes: As `write_phantom` takes them.

    Returns:
        The folder.

    Raises:
        InputError: There is something in `out`, or for impossible sizes.
    """
    out = new_folder(out)
    with replace_folder(out) as new:
        data = write_phantom(new / STUDENTS, seed=secrets.randbelow(SEEDS) if seed is None else seed, **sizes)
        stamp = json.loads((data / STAMP).read_text(encoding="utf-8"))
        submissions = new / TEACHER / SUBMISSIONS
        submissions.mkdir(parents=True)
        for folder, says in ((new / TEACHER, stamp), (data, {**stamp, "seed": "the teacher's"})):
            with atomic_write(folder / STAMP) as handle:
                handle.write(json.dumps(says, indent=2) + "\n")
        truth = kept_labels(stamp["test"], stamp["size"], stamp["seed"])
        with atomic_write(new / TEACHER / TRUTH, "wb") as handle:
            np.save(handle, truth)
        hu = np.load(data / FILES["test"][0])[..., 0]
        labels = Segmenter.load(pretrained_dir(model)).labels(hu, batch_size=2, description="baseline")
        write_submission(submissions / "baseline.csv", labels)
    return out
