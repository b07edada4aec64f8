"""The notebooks' exercises: the right answers, three hints each, what is often taken for the answer.

Read it when you have tried! `solution("1.1")` shows a right answer behind a click.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lungseg_utils.core.language import translate

Solve = Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    solve: The right answer from what the notebook hands over, a whole number where it counts or names
        something; its source is what `solution` shows. hints: Three sentences, each more open.
    explained: Why the right answer is right; {answer} stands for it. mistakes: What is often taken for the
        answer, from the same things, each with a sentence on it.
    """

    solve: Solve
    hints: tuple[str, str, str]
    explained: str
    mistakes: tuple[tuple[Solve, str], ...] = ()


def solution_texts(solve: Solve) -> list[str]:
    """What a reader reads in the source of a right answer: its docstring and comments."""
    texts = [inspect.getdoc(solve) or "", *re.findall(r"(?<=  # ).+", inspect.getsource(solve))]
    return [text for text in texts if re.search("[a-z]{2}", text)]


def solution_source(solve: Solve) -> str:
    """The source of a right answer, its docstring and comments in the reader's language."""
    source = inspect.getsource(solve)
    for text in solution_texts(solve):
        source = source.replace(text, translate(text))
    return source


def side_without_padding() -> int:
    """0.1."""
    return 512 - 2  # one pixel is lost at each border


def weights_of_first_convolution() -> int:
    """0.2."""
    return 16 * (3 * 3 * 1 + 1)  # sixteen kernels of 3 x 3 for one channel, a bias each


def steps_in_all(epochs: int, slices: int) -> int:
    """0.3."""
    return epochs * -(-slices // 8)  # the last batch of an epoch may be smaller: round up


def background_everywhere(shares: Any) -> float:
    """All pixels of background are right, all others wrong."""
    return float(shares.loc["radiopaedia", "background"])


def slices_without_lesion(rows: pd.DataFrame) -> int:
    """Neither of the two lesion classes has a pixel."""
    return int(((rows.ground_glass == 0) & (rows.consolidation == 0)).sum())


def most_affected_volume(percent: Any, volumes: np.ndarray) -> int:
    """The volume whose slices have the largest mean share."""
    return int(percent.groupby(volumes).mean().idxmax())


def score_of_water(p: Any) -> float:
    """Water is 0 HU by definition."""
    return (0 - p.mean) / p.std


def hu_of_one(p: Any) -> float:
    """The z-score, solved for HU."""
    return 1 * p.std + p.mean


def times_smaller(image: np.ndarray) -> float:
    """float64 takes eight bytes a pixel."""
    return 8 / image.itemsize


def steps_to_forget() -> float:
    """(1 - 0.01) ** n = 0.1, solved for n."""
    return float(np.log(0.1) / np.log(1 - 0.01))


def times_shorter(sizes: pd.DataFrame, image_size: int) -> float:
    """The input's side over the smallest side."""
    return float(image_size / sizes.side.min())


def epoch_by_miou(history: Any) -> int:
    """The epoch in the row with the highest validation mIoU."""
    return int(history.epoch[history.val_miou.idxmax()])


def dice_of_iou() -> float:
    """Dice = 2 IoU / (1 + IoU)."""
    return 2 * 0.57 / (1 + 0.57)


def missed_lesion(counts: np.ndarray) -> float:
    """True lesions are rows 0 and 1; lung other and background are columns 2 and 3."""
    return float(counts[:2, 2:].sum() / max(counts[:2].sum(), 1))


def slices_overestimated(table: pd.DataFrame) -> int:
    """Slices whose predicted share is larger than the true one."""
    return int((table.burden_predicted > table.burden_true).sum())


def width_with_four_times_as_many() -> float:
    """5.1."""
    return 0.10 / 4**0.5  # the spread of a mean falls with the square root


def surface_dice_of_three_pixels() -> int:
    """5.2."""
    return 0  # no border pixel has the other border within 2 pixels


def points_underconfident() -> float:
    """5.3."""
    return 100 * 1600 / 2000 - 70


def ideas_above_zero(effects: pd.DataFrame) -> int:
    """The lower end of the interval is above zero."""
    return int((effects["mean lesion Dice, low"] > 0).sum())


def one_of_nine() -> float:
    """One minus the chance that none of the nine does."""
    return 1 - (1 - 0.05) ** 9


def gain_over_reference(comparison: pd.DataFrame) -> float:
    """One row has this recipe and this score."""
    return float(comparison.query("recipe == 'profile' and score == 'mean lesion Dice'").difference.iloc[0])


def voxels_of_100_ml() -> float:
    """A millilitre is 1000 cubic millimetres."""
    return 100 * 1000 / (5 * 0.7 * 0.7)


def score_of_zones() -> int:
    """The grades of 0, 12, 30, 50, 60 and 80 %."""
    return 0 + 1 + 2 + 3 + 3 + 4


def slice_with_most_lesion(labels: np.ndarray) -> int:
    """Counted from 1: Python counts from 0."""
    return int((labels < 2).sum((1, 2)).argmax()) + 1


EXERCISES: dict[str, Exercise] = {
    "0.1": Exercise(
        side_without_padding,
        (
            "Where can the middle of the window not stand?",
            "The window needs a neighbour on each side, so its middle cannot stand on the border.",
            "One pixel is lost at the left and one at the right.",
        ),
        "{answer}: a pixel is lost at every border. Networks add a frame of zeros first: the size stays.",
        (
            (lambda: 512, "This is the size with padding; `convolve` has none."),
            (lambda: 511, "A pixel is lost on one side. And on the other?"),
            (lambda: 510 * 510, "This is the number of all pixels; one side is asked."),
        ),
    ),
    "0.2": Exercise(
        weights_of_first_convolution,
        (
            "How many numbers has one kernel of 3 x 3?",
            "Each of the 16 kernels has nine weights for the one channel that comes in, and a bias.",
            "Sixteen times nine and one.",
        ),
        "{answer}. The second convolution has 16 channels in: 16 x (9 x 16 + 1) = 2,320.",
        (
            (lambda: 16 * 9, "Each kernel has a bias as well."),
            (lambda: 9, "This is one kernel; there are sixteen, each with a bias."),
            (lambda: 10, "This is one kernel with its bias; there are sixteen."),
        ),
    ),
    "0.3": Exercise(
        steps_in_all,
        (
            "How many batches has one epoch?",
            "An epoch has as many steps as batches of 8, the last one maybe smaller.",
            "Divide `len(images[train])` by 8, round up, and multiply by `first_epochs`.",
        ),
        "{answer} small steps have made this network out of random numbers.",
        (
            (lambda slices, **_: -(-slices // 8), "This is one epoch; there were several."),
            (lambda epochs, slices: epochs * slices, "This counts slices; a step takes 8 of them."),
        ),
    ),
    "1.1": Exercise(
        background_everywhere,
        (
            "Which pixels does such a network get right?",
            "It is right for every pixel of background, so accuracy is a share in a table above.",
            "Look at the table `shares`: the row of radiopaedia, the column `background`.",
        ),
        "It is right for {answer:.2f} % of the pixels without having found a single lesion: this is why "
        "accuracy says little here.",
        (
            (
                lambda shares: shares.loc["medseg", "background"],
                "This is MedSeg's share; Radiopaedia is asked.",
            ),
            (
                lambda shares: shares.background.mean(),
                "This is the mean of both sources; Radiopaedia is asked.",
            ),
            (lambda shares: shares.loc["radiopaedia", "lung_other"], "This is the share of other lung."),
        ),
    ),
    "1.2": Exercise(
        slices_without_lesion,
        (
            "Which classes are lesions?",
            "A slice counts if it has no pixel of ground glass and no pixel of consolidation.",
            "Compare `rows.ground_glass` and `rows.consolidation` with 0, join the two by & and sum.",
        ),
        "{answer} slices hold no lesion. A network must learn from them, too, what is not one.",
        (
            (
                lambda rows: ((rows.ground_glass > 0) | (rows.consolidation > 0)).sum(),
                "These are the slices that do hold a lesion.",
            ),
            (
                lambda rows: (rows.ground_glass == 0).sum(),
                "These are the slices without ground glass; some of them may have consolidation.",
            ),
            (
                lambda rows: (rows.consolidation == 0).sum(),
                "These are the slices without consolidation; some of them have ground glass.",
            ),
            (lambda rows: rows.shape[0], "These are all slices."),
        ),
    ),
    "1.3": Exercise(
        most_affected_volume,
        (
            "Volumes have different numbers of slices: compare means.",
            "Average `percent` over the slices of each volume, then look for the largest mean.",
            "`percent.groupby(arrays.volumes).mean()` has one mean per volume; `idxmax` names the largest.",
        ),
        "Volume {answer} has the largest share. Few volumes, that is patients, hold most of the disease.",
        (
            (
                lambda percent, volumes: percent.groupby(volumes).max().idxmax(),
                "This volume has the single slice with most lesion; the share of the whole volume is asked.",
            ),
            (
                lambda percent, volumes: percent.groupby(volumes).sum().idxmax(),
                "This volume has most lesion pixels, because it has many slices; compare shares.",
            ),
            (
                lambda percent, volumes: percent.groupby(volumes).mean().max(),
                "This is the share itself; the volume's number is asked.",
            ),
        ),
    ),
    "2.1": Exercise(
        score_of_water,
        (
            "How many HU has water?",
            "Water is 0 HU; put it into the formula of the z-score.",
            "Subtract the mean from 0 and divide by the standard deviation: both are in `preprocessing`.",
        ),
        "Water lies {answer:.2f} standard deviations above the mean: most of these pixels are air and lung.",
        (
            (lambda p: -p.mean, "This is the difference to the mean; divide it by the standard deviation."),
            (
                lambda p: -p.mean / p.std**2,
                "This is divided by the variance; the standard deviation is its root.",
            ),
        ),
    ),
    "2.2": Exercise(
        hu_of_one,
        (
            "A z-score counts standard deviations from the mean.",
            "Solve z = (HU - mean) / std for HU.",
            "HU = z * std + mean, with z = 1.",
        ),
        "One standard deviation above the mean are {answer:.0f} HU.",
        (
            (lambda p: p.std, "This is one standard deviation; the pixel lies that far from the mean."),
            (lambda p: p.mean - p.std, "This pixel has a z-score of -1."),
            (
                lambda p: (1 - p.mean) / p.std,
                "This is the z-score of 1 HU; the HU of a z-score of 1 are asked.",
            ),
        ),
    ),
    "2.3": Exercise(
        times_smaller,
        (
            "Compare how many bytes a pixel takes.",
            "A float64 takes 8 bytes; how many does a whole number of 16 bits take?",
            "Divide 8 by `prepared.images['medseg'].itemsize`.",
        ),
        "Eight bytes against two: {answer:.0f} times smaller, and never more than half a HU away.",
        (
            (
                lambda image: image.itemsize,
                "These are the bytes of a pixel in `prepared/`; the factor is asked.",
            ),
            (lambda image: 64 / image.itemsize, "64 are bits; the other number counts bytes."),
        ),
    ),
    "3.1": Exercise(
        times_shorter,
        (
            "Which stage has the smallest side?",
            "The encoder halves the side some times: count how often.",
            "Divide `image_size` by the smallest number in the column `side` of `sizes`.",
        ),
        "The side is {answer:.0f} times smaller there: a pixel of the deepest stage looks far around.",
        (
            (
                lambda sizes, **_: sizes.side.min(),
                "This is the smallest side itself; the factor is asked.",
            ),
            (
                lambda sizes, image_size: np.log2(image_size / sizes.side.min()),
                "So often is the side halved.",
            ),
            (
                lambda sizes, image_size: (image_size / sizes.side.min()) ** 2,
                "So many times fewer pixels it has.",
            ),
        ),
    ),
    "3.2": Exercise(
        epoch_by_miou,
        (
            "Look at the curve of the validation mIoU.",
            "Find the row of `history` with the highest `val_miou`.",
            "`history.val_miou.idxmax()` names the row; the epoch stands in its column `epoch`.",
        ),
        "Epoch {answer} has the highest validation mIoU. Another quantity may prefer another epoch.",
        (
            (
                lambda history: history.epoch[history.train_miou.idxmax()],
                "This epoch has the highest mIoU of training; validation is asked.",
            ),
            (lambda history: history.epoch[history.val_loss.idxmin()], "This epoch has the lowest loss."),
            (lambda history: history.val_miou.max(), "This is the mIoU itself; the epoch's number is asked."),
        ),
    ),
    "3.3": Exercise(
        steps_to_forget,
        (
            "When 90 % are forgotten, which share is left?",
            "Solve (1 - 0.01) ** n = 0.1 for n.",
            "Take logarithms: n = log(0.1) / log(0.99).",
        ),
        "After {answer:.0f} steps: more than the demo makes in its first epochs, so the averages lag behind.",
        (
            (
                lambda: np.log(0.9) / np.log(0.99),
                "After so many steps 10 % are forgotten, and 90 % are left.",
            ),
            (lambda: np.log(0.1) / np.log(0.9), "This is for a momentum of 0.1."),
            (lambda: 90, "What is forgotten does not add up, since each step takes 1 % of what is left."),
        ),
    ),
    "4.1": Exercise(
        dice_of_iou,
        (
            "Write both with hits, misses and false alarms, and eliminate.",
            "Dice = 2 IoU / (1 + IoU).",
            "2 * 0.57 / (1 + 0.57)",
        ),
        "An IoU of 0.57 is a Dice of {answer:.3f}. Dice is never the smaller one: compare like with like.",
        (
            (lambda: 0.57 / (2 - 0.57), "This is the IoU of a Dice of 0.57, the other way round."),
            (lambda: 2 * 0.57, "This is more than 1, which no Dice can be."),
            (lambda: 0.57, "Dice and IoU agree only at 0 and 1."),
        ),
    ),
    "4.2": Exercise(
        missed_lesion,
        (
            "Rows are the truth, columns the prediction.",
            "Take rows 0 and 1 (true lesions) and columns 2 and 3 (missed) of `counts`.",
            "`counts[:2, 2:].sum()` are missed; divide by all true lesion pixels, `counts[:2].sum()`.",
        ),
        "{answer:.1%} of the lesion pixels are missed altogether; the rest have at least a lesion's name.",
        (
            (
                lambda counts: counts[2:, :2].sum() / counts[:, :2].sum(),
                "Rows and columns are swapped: this is the share of the predicted lesions that are none.",
            ),
            (
                lambda counts: counts[2:, :2].sum() / counts[:2].sum(),
                "Rows and columns are swapped: these are false alarms.",
            ),
            (
                lambda counts: counts[:2, 2:].sum() / counts.sum(),
                "Divide by the true lesion pixels, not by all.",
            ),
            (
                lambda counts: counts[:2, 2:].sum(),
                "This is the number of pixels; divide by all true lesion pixels.",
            ),
            (
                lambda counts: 1 - counts[[0, 1], [0, 1]].sum() / counts[:2].sum(),
                "This also counts one lesion class taken for the other, which is not missed.",
            ),
        ),
    ),
    "4.3": Exercise(
        slices_overestimated,
        (
            "Compare two columns of `table`, slice by slice.",
            "The columns are `burden_predicted` and `burden_true`.",
            "A comparison gives True or False for each slice; `sum` counts the True ones.",
        ),
        "In {answer} slices the network sees more disease than there is.",
        (
            (
                lambda table: (table.burden_predicted < table.burden_true).sum(),
                "In so many slices it is smaller, not larger.",
            ),
            (
                lambda table: (table.burden_predicted >= table.burden_true).sum(),
                "Slices in which the two are equal do not count.",
            ),
            (
                lambda table: (table.burden_predicted > table.burden_true).mean(),
                "This is a share; count the slices.",
            ),
        ),
    ),
    "5.1": Exercise(
        width_with_four_times_as_many,
        (
            "How does the spread of a mean fall with the number of values?",
            "It falls with the square root of their number.",
            "Four times as many: the square root of 4 is 2.",
        ),
        "{answer:.2f}: half as wide. To halve it again takes sixteen times as many.",
        (
            (
                lambda: 0.025,
                "That would be so if the spread fell with the number itself; it is its square root.",
            ),
            (lambda: 0.10, "More slices tell more."),
        ),
    ),
    "5.2": Exercise(
        surface_dice_of_three_pixels,
        (
            "How far is each border pixel from the other border?",
            "Surface Dice is the share of border pixels with the other border within the tolerance.",
            "All are 3 pixels away; the tolerance is 2.",
        ),
        "{answer}, and with a tolerance of 3 it would be 1. So say the tolerance with the score.",
        ((lambda: 1, "This is with a tolerance of 3 pixels; here it is 2."),),
    ),
    "5.3": Exercise(
        points_underconfident,
        (
            "How often was it right, in per cent?",
            "1600 of 2000 were right; compare this share with what it had said.",
            "80 % came true, 70 % were said.",
        ),
        "{answer:.0f} points: it was right 80 % of the time and said 70, so it was underconfident.",
        ((lambda: 80, "This is how often it was right; the difference to 70 is asked."),),
    ),
    "10.1": Exercise(
        one_of_nine,
        (
            "Begin with the chance that none of the nine does.",
            "One does not with a chance of 0.95, and they are independent.",
            "None does with 0.95 ** 9; the rest is what is asked.",
        ),
        "{answer:.0%}: who tries nine ideas finds one that seems to help more often than one time in three.",
        (
            (lambda: 0.95**9, "This is the chance that none does."),
            (lambda: 9 * 0.05, "Chances of things that may happen together do not simply add up."),
            (lambda: 0.05**9, "This is the chance that all nine do."),
        ),
    ),
    "10.2": Exercise(
        ideas_above_zero,
        (
            "An interval lies above zero if its lower end does.",
            "The lower ends are the column 'mean lesion Dice, low' of `added`.",
            '`(added["mean lesion Dice, low"] > 0).sum()`',
        ),
        "Of {answer} ideas these slices can tell that they help; of the others they cannot.",
        (
            (
                lambda effects: (effects["mean lesion Dice, difference"] > 0).sum(),
                "So many differences are above zero; their intervals may still cross it.",
            ),
            (
                lambda effects: (effects["mean lesion Dice, high"] > 0).sum(),
                "So many intervals reach above zero; count those that begin above it.",
            ),
            (
                lambda effects: (effects["mean lesion Dice, high"] < 0).sum(),
                "So many lie below zero as a whole.",
            ),
        ),
    ),
    "10.3": Exercise(
        gain_over_reference,
        (
            "It is one number of the table `comparison`.",
            "Take the rows of the recipe `profile`, and of these the one with the score 'mean lesion Dice'.",
            "`comparison.query(\"recipe == 'profile' and score == 'mean lesion Dice'\")` has it.",
        ),
        "The profile's mean lesion Dice is {answer:.3f} higher; the interval says how sure that is.",
        (
            (
                lambda comparison: comparison.query(
                    "recipe == 'profile' and score == 'mean lesion Dice'"
                ).value.iloc[0],
                "This is the score itself; its difference to the reference is asked.",
            ),
            (
                lambda comparison: comparison.query(
                    "recipe == 'ensemble' and score == 'mean lesion Dice'"
                ).difference.iloc[0],
                "This is the gain of the ensemble; the recipe `profile` is asked.",
            ),
        ),
    ),
    "20.1": Exercise(
        slice_with_most_lesion,
        (
            "Count the lesion pixels of each slice.",
            "Lesions are the classes 0 and 1 of `case.labels`; sum over rows and columns.",
            "`np.isin(case.labels, core.LESIONS).sum((1, 2)).argmax()` counts from 0.",
        ),
        "Slice {answer} has the largest area of lesions: look at it in the browser.",
        (
            (
                lambda labels: (labels < 2).sum((1, 2)).argmax(),
                "Python counts from 0; here the first slice is number 1.",
            ),
            (
                lambda labels: (labels < 2).sum((1, 2)).max(),
                "This is the number of pixels; the slice is asked.",
            ),
            (
                lambda labels: (labels < 3).sum((1, 2)).argmax() + 1,
                "This slice has the largest area of lung; lesions are asked.",
            ),
        ),
    ),
    "20.2": Exercise(
        voxels_of_100_ml,
        (
            "What is the volume of one voxel?",
            "One voxel has 5 x 0.7 x 0.7 cubic millimetres; a millilitre has 1000.",
            "Divide 100 * 1000 by 5 * 0.7 * 0.7.",
        ),
        "{answer:,.0f} voxels. Without a spacing there are no millilitres.",
        (
            (lambda: 5 * 0.7 * 0.7, "This is the volume of one voxel in cubic millimetres."),
            (lambda: 100 / (5 * 0.7 * 0.7), "A millilitre is 1000 cubic millimetres, not one."),
            (lambda: 1000 / (5 * 0.7 * 0.7), "So many voxels make one millilitre; 100 are asked."),
        ),
    ),
    "20.3": Exercise(
        score_of_zones,
        (
            "Grade each zone by itself, then add.",
            "0 % is 0; below 25 %, 50 % and 75 % are 1, 2 and 3; more is 4.",
            "50 % itself is not below 50 %: the grades are 0, 1, 2, 3, 3 and 4.",
        ),
        "The score is {answer} of 24.",
        (
            (lambda: 12, "50 % itself is not below 50 %, so its grade is 3."),
            (lambda: 232, "These are the shares themselves; add their grades."),
        ),
    ),
}
