"""What is missing: where the lesion lies, or of which kind it is? `python benchmarks/kinds.py RUN_DIR`.

On the run's MedSeg slices: the lesion's outline from the reader or from a model; its kind from the reader,
from the model, or from one line in HU, above which the local mean is called consolidation. The reader's
outline with the best such line is what brightness alone can say.
"""

import click
import numpy as np
from scipy.ndimage import gaussian_filter

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LESIONS
from lungseg_utils.core.files import resolve_path
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation import metrics
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.inference.segmenter import Segmenter

SIGMA = 4.0  # pixels of 512, of the local mean
LINES = range(-800, 101, 25)  # HU


def local_mean(hu: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """HU around each pixel, averaged over lesion pixels alone; both arguments (N, H, W)."""
    sums, weights = (
        np.array([gaussian_filter(each, SIGMA) for each in images])
        for images in (np.where(lesion, hu, 0).astype(np.float32), lesion.astype(np.float32))
    )
    return sums / np.maximum(weights, 1e-3)


def by_brightness(lesion: np.ndarray, mean_hu: np.ndarray, line: float | np.ndarray) -> np.ndarray:
    """Labels (N, H, W): a lesion pixel above the line is consolidation, another ground glass."""
    return np.where(lesion, np.where(mean_hu > line, CONSOLIDATION, GROUND_GLASS), BACKGROUND)


def scores(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean lesion Dice, ground glass, consolidation, of all pixels; a kind that is nowhere has none."""
    each = metrics.dice(metrics.confusion_matrix(truth, labels.astype(np.uint8)))[list(LESIONS)]
    return np.array([np.nanmean(each), *each])


def best_line(truth: np.ndarray, lesion: np.ndarray, mean_hu: np.ndarray) -> int:
    """The line with the highest mean lesion Dice."""
    return max(LINES, key=lambda line: scores(truth, by_brightness(lesion, mean_hu, line))[0])


@click.command(help=__doc__)
@click.argument("run_dir")
@click.option("--model", default="pretrained", help="A model's folder, or one of the shipped names.")
def main(run_dir: str, model: str) -> None:
    prepared = load_prepared(resolve_path(run_dir) / "prepared")
    slices = prepared.slices[prepared.slices.source == "medseg"]
    train, held = (slices["index"][slices.split == split].to_numpy(int) for split in ("train", "validation"))
    train_hu, train_truth = prepared.images["medseg"][train], prepared.labels["medseg"][train]
    hu, truth = prepared.images["medseg"][held], prepared.labels["medseg"][held]

    lesion, answer = np.isin(truth, LESIONS), Segmenter.load(model_folder(model, ""))(hu)
    found = np.isin(answer, LESIONS)
    mean_hu, mean_found = local_mean(hu, lesion), local_mean(hu, found)

    train_lesion = np.isin(train_truth, LESIONS)
    train_mean = local_mean(train_hu, train_lesion)
    line = best_line(train_truth, train_lesion, train_mean)
    own, found_line = best_line(truth, lesion, mean_hu), best_line(truth, found, mean_found)
    each = np.array([best_line(*one) for one in zip(truth[:, None], lesion[:, None], mean_hu[:, None])])
    both = [line for line, labels in zip(each, truth) if {*LESIONS} <= {*np.unique(labels)}]

    rows = {
        ("the reader's", f"the training slices' best line, {line} HU"): by_brightness(lesion, mean_hu, line),
        ("the reader's", f"their own best line, {own} HU"): by_brightness(lesion, mean_hu, own),
        ("the reader's", "the best line of each slice"): by_brightness(lesion, mean_hu, each[:, None, None]),
        ("the model's", f"their own best line, {found_line} HU"): by_brightness(
            found, mean_found, found_line
        ),
        ("the model's", "the model's"): answer,
        ("the model's", "the reader's, where it marks a lesion"): np.where(found & lesion, truth, answer),
    }
    training = f"the reader's, {len(train)} training slices", f"their own best line, {line} HU"
    table = [(*name, scores(truth, labels)) for name, labels in rows.items()]
    table.append((*training, scores(train_truth, by_brightness(train_lesion, train_mean, line))))
    click.echo("| outline | kind | mean lesion Dice | ground glass | consolidation |\n|---|---|---|---|---|")
    for outline, kind, values in table:
        click.echo(f"| {outline} | {kind} | {' | '.join(f'{value:.3f}' for value in values)} |")
    spread = f"{min(both)} to {max(both)} HU, median {np.median(both):.0f}"
    click.echo(f"\nBest line of each of the {len(both)} slices with both kinds: {spread}.")


if __name__ == "__main__":
    main()
