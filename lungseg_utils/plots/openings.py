"""The picture with which each notebook begins: one question, seen before a word is read."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lungseg_utils.core.classes import BACKGROUND, CLASSES, CONSOLIDATION, LESIONS, LUNG_OTHER
from lungseg_utils.core.language import ENGLISH, set_language
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.phantom import phantom_slice
from lungseg_utils.evaluation.metrics import accuracy, confusion_matrix, lesion_dice
from lungseg_utils.plots.parts import INK, SERIES, describe
from lungseg_utils.plots.slices import grey_picture, set_style, show_labels, show_slices

SIZE = 192  # pixels a side of an opening's slices


def opening(notebook: str, language: str = ENGLISH) -> Figure:
    """The opening picture of a notebook, by its number; of phantoms, the same on every machine.

    Args:
        notebook: As in "03".
        language: Of the notebook, whose parameters stand below.
    """
    set_language(language)
    set_style()
    figure = OPENINGS[notebook]()
    plt.close(figure)  # else the notebook would show it twice
    return figure


def _phantoms(*numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels of some phantoms, (N, SIZE, SIZE) each."""
    drawn = [phantom_slice(np.random.default_rng([0, 0, k]), SIZE) for k in numbers]
    return np.stack([hu for hu, _ in drawn]), np.stack([labels for _, labels in drawn])


def _numbers_to_classes() -> Figure:
    hu, labels = _phantoms(3)
    part = hu[0, 60:66, 40:47]
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.3))
    axes[0].imshow(part, "gray")
    for (i, j), value in np.ndenumerate(part):
        axes[0].text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=9, color="white",
                     bbox={"facecolor": "black", "alpha": 0.4, "linewidth": 0, "pad": 0.6})  # fmt: skip
    axes[1].imshow(grey_picture(hu[0]))
    axes[1].add_patch(plt.Rectangle((40, 60), 7, 6, fill=False, edgecolor=SERIES[1], linewidth=2))
    show_labels(axes[2], hu[0], labels[0])
    for ax, title in zip(axes, (_("what the computer gets"), _("what you see"), _("what we want"))):
        ax.set(xticks=[], yticks=[], title=title)
    return describe(
        figure,
        _(
            "Left a table of Hounsfield units, in the middle the CT slice that it is part of, "
            "right the slice with its hazy places marked."
        ),
    )


def _from_well_to_ill(*places: int) -> list[np.ndarray]:
    """HU of slices out of twelve phantoms that are sorted by the share of their lung that is ill."""
    hu, labels = _phantoms(*range(12))
    share = np.isin(labels, LESIONS).sum((1, 2)) / np.maximum((labels != BACKGROUND).sum((1, 2)), 1)
    return [hu[k] for k in np.argsort(share)[list(places)]]


def _which_is_ill() -> Figure:
    title = _("which of these lungs are ill?")
    return show_slices(_from_well_to_ill(7, 0, 9), titles=list("ABC"), columns=3, title=title)


def _three_greys() -> Figure:
    hu = _phantoms(3)[0]
    figure, axes = plt.subplots(1, 3, figsize=(8.5, 3.2))
    for ax, (low, high), name in zip(axes, ((-1350, 150), (-160, 240), (-3000, 3000)), "ABC"):
        ax.imshow(hu[0], "gray", vmin=low, vmax=high)
        ax.set(xticks=[], yticks=[], title=name)
    figure.suptitle(_("three patients?"))
    return describe(
        figure,
        _(
            "One CT slice three times, in a lung window, a mediastinum window and a very wide "
            "one: three very different pictures."
        ),
    )


def _the_rare_class() -> Figure:
    labels = _phantoms(*range(16))[1]
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    squares = np.floor(400 * counts / counts.sum()).astype(int)
    squares[-1] += 400 - squares.sum()
    grid = np.repeat(np.arange(len(CLASSES)), squares).reshape(10, 40, order="F")
    figure, ax = plt.subplots(figsize=(9, 3))
    for c in CLASSES:
        rows, columns = np.nonzero(grid == c.index)
        share = counts[c.index] / counts.sum()
        ax.scatter(columns, rows, 60, marker="s", color=c.color, label=f"{c.name}: {share:.1%}")
    ax.set_axis_off()
    ax.set_title(_("400 pixels; {count} of them are consolidation").format(count=squares[CONSOLIDATION]))
    figure.legend(loc="outside lower center", ncols=4)
    return describe(
        figure,
        _("400 squares, one for each 400th of the pixels; {count} of them are consolidation.").format(
            count=squares[CONSOLIDATION]
        ),
    )


def _which_is_better() -> Figure:
    hu, labels = _phantoms(3)
    lesion = np.isin(labels[0], LESIONS)
    # A calls a rim of healthy lung ill, B misses as many pixels of the lesion: the same accuracy.
    lung = labels[0] != BACKGROUND
    rows, columns = np.mgrid[:SIZE, :SIZE]
    middle = np.array([rows[lesion].mean(), columns[lesion].mean()])
    far = np.hypot(rows - middle[0], columns - middle[1])
    half = int(0.7 * lesion.sum())
    near = np.argsort(np.where(lung & ~lesion, far, np.inf), axis=None)[:half]
    lost = np.argsort(np.where(lesion, far, np.inf), axis=None)[:half]
    a, b = labels[0].copy(), labels[0].copy()
    a.flat[near] = LESIONS[0]
    b.flat[lost] = LUNG_OTHER
    titles = [_("truth")]
    for name, answer in (("A", a), ("B", b)):
        counts = confusion_matrix(labels[0], answer)
        titles.append(
            _("{name}: accuracy {accuracy:.3f}\nDice {lesion_dice:.2f}").format(
                name=name, accuracy=accuracy(counts), lesion_dice=lesion_dice(counts)
            )
        )
    return show_slices([hu[0]] * 3, [labels[0], a, b], titles, 3, title=_("which is better?"))


def two_networks() -> tuple[np.ndarray, np.ndarray]:
    """Made up Dice of the same 24 slices by network A and network B, (24,) each."""
    rng = np.random.default_rng(3)
    hard = rng.beta(5, 2.2, 24)
    return hard, np.clip(hard + rng.normal(0.015, 0.08, 24), 0, 1)


def _is_it_better() -> Figure:
    rng = np.random.default_rng(0)
    figure, ax = plt.subplots(figsize=(7.5, 2.3))
    for row, values in enumerate(two_networks()):
        ax.scatter(values, np.full(24, row) + rng.uniform(-0.12, 0.12, 24), 28, color=SERIES[0], alpha=0.6)
        ax.vlines(values.mean(), row - 0.35, row + 0.35, color=SERIES[1], linewidth=3)
        ax.text(1.04, row, _("mean {mean:.3f}").format(mean=values.mean()), va="center")
    ax.set_yticks([0, 1], [_("network A"), _("network B")])
    ax.set(xlabel=_("Dice of each of 24 slices (made up)"), ylim=(1.5, -0.5), xlim=(0, 1.22))
    return describe(
        figure,
        _(
            "Dice of 24 slices by two networks, two rows of dots that spread widely; the mean of "
            "B is a little higher."
        ),
    )


def _best_of_nine() -> Figure:
    found = np.random.default_rng(4).normal(0, 0.02, 9)
    figure, ax = plt.subplots(figsize=(7.5, 2.8))
    bars = ax.barh(
        [_("idea {number}").format(number=k + 1) for k in range(9)], found, color="0.7", edgecolor=INK
    )
    bars[int(found.argmax())].set_color(SERIES[1])
    ax.axvline(0, color=INK)
    ax.invert_yaxis()
    ax.set(
        xlabel=_("gain in Dice on 24 slices"), title=_("nine ideas, tried once each: which would you keep?")
    )
    return describe(
        figure,
        _("Nine bars around zero, gains and losses in Dice of nine ideas; the largest gain is marked."),
    )


def _how_much() -> Figure:
    title = _("how much of each lung is ill? guess in per cent")
    return show_slices(_from_well_to_ill(6, 4, 9, 7), titles=list("ABCD"), title=title)


OPENINGS: dict[str, Callable[[], Figure]] = {
    "00": _numbers_to_classes,
    "01": _which_is_ill,
    "02": _three_greys,
    "03": _the_rare_class,
    "04": _which_is_better,
    "05": _is_it_better,
    "10": _best_of_nine,
    "20": _how_much,
}
