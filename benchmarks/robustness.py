"""Models on validation slices changed in known ways: `python benchmarks/robustness.py PREPARED_DIR MODEL...`.

MODEL: a model's folder, or `pretrained`. Prints a Markdown table: for each change and model the pooled Dice
of the lesion (both kinds as one) and of consolidation, at full size, argmax. The tables are in
benchmarks/robustness.md.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import cv2
import numpy as np
from tqdm.auto import tqdm

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION
from lungseg_utils.core.files import InputError
from lungseg_utils.data.grey import AIR_HU, fit_grey
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.inference.segmenter import Segmenter

Change = Callable[
    [np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # HU float32 and labels (H, W), in and out


def as_picture(
    hu: np.ndarray, labels: np.ndarray, window: tuple[float, float], clip_limit: float = 0, tiles: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Through 8 bits of this window and read back as `lungseg predict` does.

    Equalised locally if there is a clip limit.
    """
    low, high = window
    grey = np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if clip_limit:
        grey = cv2.createCLAHE(clip_limit, (tiles, tiles)).apply(grey)
    return fit_grey([grey]).hu(grey).astype(np.float32), labels


def placed(
    hu: np.ndarray, labels: np.ndarray, scale: float = 1.0, degrees: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Smaller in the picture, air around it, and turned about the middle."""
    size = hu.shape[::-1]
    matrix = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), degrees, scale)
    sharp = cv2.GaussianBlur(hu, (0, 0), 0.5 / scale) if scale < 1 else hu  # else thinning out would alias
    moved = cv2.warpAffine(sharp, matrix, size, flags=cv2.INTER_LINEAR, borderValue=AIR_HU)
    return moved, cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=BACKGROUND)


def noisy(hu: np.ndarray, labels: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    return hu + np.random.default_rng(0).normal(0, sigma, hu.shape).astype(np.float32), labels


def shifted(hu: np.ndarray, labels: np.ndarray, offset: float) -> tuple[np.ndarray, np.ndarray]:
    return hu + offset, labels


def blurred(hu: np.ndarray, labels: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    return cv2.GaussianBlur(hu, (0, 0), sigma), labels


LUNG, WIDE = (-1350, 150), (-1000, 400)
CHANGES: dict[str, Change] = {
    "as they are": lambda hu, labels: (hu, labels),
    "8 bits, -1350 to 150 HU": partial(as_picture, window=LUNG),
    "8 bits, -1000 to 400 HU": partial(as_picture, window=WIDE),
    "equalised, clip limit 1.5": partial(as_picture, window=LUNG, clip_limit=1.5),
    "equalised, clip limit 3": partial(as_picture, window=LUNG, clip_limit=3),
    "body at 0.6 of its size": partial(placed, scale=0.6),
    "body at 0.45 of its size": partial(placed, scale=0.45),
    "HU 100 lower": partial(shifted, offset=-100),
    "HU 100 higher": partial(shifted, offset=100),
    "noise of 60 HU": partial(noisy, sigma=60),
    "blur of 2 px": partial(blurred, sigma=2),
    "turned by 15 degrees": partial(placed, degrees=15),
}


@click.command(help=__doc__)
@click.argument("prepared_dir")
@click.argument("models", nargs=-1, required=True)
def main(prepared_dir: str, models: tuple[str, ...]) -> None:
    _, images, labels = load_prepared(prepared_dir).validation_slices()
    segmenters = [Segmenter.load(model_folder(model, Path())) for model in models]
    table = [f"| change | {' | '.join(f'{Path(model).name}, lesion / consolidation' for model in models)} |"]
    table += ["|---" * (1 + len(models)) + "|"]
    for name, change in tqdm(CHANGES.items()):
        pairs = zip(images.astype(np.float32), labels, strict=True)
        hu, truth = map(np.stack, zip(*(change(*pair) for pair in pairs), strict=True))
        counts = [metrics.slice_confusion(truth, segmenter.labels(hu)).sum(0) for segmenter in segmenters]
        cells = [f"{metrics.lesion_dice(c):.3f} / {metrics.dice(c)[CONSOLIDATION]:.3f}" for c in counts]
        table.append(f"| {name} | {' | '.join(cells)} |")
    click.echo("\n".join(table))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
