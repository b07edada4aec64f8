"""Slices with predictions and labels: where they agree, what was missed and what is a false alarm."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.parts import area_patch, class_patch, describe, listed, seen_on, whole
from lungseg_utils.plots.slices import (
    CLASS_COLORS,
    CLASS_NORM,
    cropped,
    grey_picture,
    hatch,
    mark_sides,
    name_row,
    outline,
    picture_grid,
    region_line,
    seen,
    show_labels,
    tallest,
)

# Light, middle and dark, so that a grey print tells them apart; none is a class's colour. Four such steps do
# not fit between black and white: what was found by the other lesion's name is a hit with dots.
OTHER_CLASS = N_("found, other lesion class")
AGREEMENT = {
    N_("hit"): "#FFFFFF",
    OTHER_CLASS: "#FFFFFF",
    N_("miss"): "#CC7A00",
    N_("false alarm"): "#741C5C",
}
HATCHED = {OTHER_CLASS: "....", "miss": "////"}
DIMMED = 0.75  # of the slice's brightness below the colours
TRUE_LABELS = N_("true labels")


def _kinds(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Lesion pixels found, found as the other lesion class, missed, and false alarms, bool (H, W) each."""
    true_lesion, predicted_lesion = np.isin(truth, LESIONS), np.isin(prediction, LESIONS)
    return {
        "hit": true_lesion & (truth == prediction),
        OTHER_CLASS: true_lesion & predicted_lesion & (truth != prediction),
        "miss": true_lesion & ~predicted_lesion,
        "false alarm": predicted_lesion & ~true_lesion,
    }


def agreement(truth: np.ndarray, prediction: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """RGB picture (H, W, 3): the kinds of lesion pixels in their colours over the dimmed slice."""
    rgb = DIMMED * grey_picture(hu)
    for name, where in _kinds(truth, prediction).items():
        rgb[where] = to_rgb(AGREEMENT[name])
    return rgb


def _draw_agreement(ax: Axes, truth: np.ndarray, prediction: np.ndarray, hu: np.ndarray) -> None:
    ax.imshow(agreement(truth, prediction, hu))
    kinds = _kinds(truth, prediction)
    for name, pattern in HATCHED.items():
        hatch(ax, kinds[name], pattern, seen_on(AGREEMENT[name]))
    region_line(ax, kinds["false alarm"], "#FFFFFF")  # dark on a dark lung without it


def _handles() -> list[Patch]:
    return [area_patch(color, HATCHED.get(name, ""), _(name)) for name, color in AGREEMENT.items()]


def _counted(truth: np.ndarray, prediction: np.ndarray) -> str:
    """How many pixels of each kind in one line, for alternative texts."""
    return ", ".join(
        f"{_(name)} {whole(where.sum())} px" for name, where in _kinds(truth, prediction).items()
    )


def plot_results(
    hu: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    titles: Sequence[str],
    labels_name: str = TRUE_LABELS,
) -> Figure:
    """The slides' four rows: predictions overlaid; labels; agreement; the class of every pixel.

    Each slice is cropped to its lungs.

    Args:
        hu: (N, H, W), HU, one column a slice.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        titles: One a slice.
        labels_name: Whose labels they are, such as "radiologist's labels"; a phantom has no radiologist.
    """
    labels_name, boxes = _(labels_name), cropped(truth, prediction)
    figure, axes = picture_grid(4, len(hu), extra=1.2, tall=tallest(boxes))
    for k, box in enumerate(boxes):
        picture, true, predicted = hu[k][box], truth[k][box], prediction[k][box]
        show_labels(axes[0, k], picture, predicted)
        show_labels(axes[1, k], picture, true)
        _draw_agreement(axes[2, k], true, predicted, picture)
        axes[3, k].imshow(predicted, cmap=CLASS_COLORS, norm=CLASS_NORM, interpolation="nearest")
        outline(axes[3, k], predicted)
        axes[0, k].set_title(titles[k])
        mark_sides(axes[0, k])
    for ax, name in zip(
        axes[:, 0], (_("predicted lesions"), labels_name, _("agreement"), _("predicted classes"))
    ):
        name_row(ax, name)
    handles = [*map(class_patch, range(len(CLASSES))), *_handles()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if len(hu) > 3 else 2)
    told = [
        _("{title}: true {true}; predicted {predicted}; {counted}").format(
            title=title, true=seen(t), predicted=seen(p), counted=_counted(t, p)
        )
        for title, t, p in zip(titles, truth, prediction)
    ]
    return describe(
        figure,
        _(
            "Four rows of pictures, one column a slice: predicted lesions, {labels_name}, their "
            "agreement, the predicted class of every pixel. {told}."
        ).format(labels_name=labels_name, told=listed(told)),
    )


def show_agreement(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str], title: str
) -> Figure:
    """What was found, missed or a false alarm, four slices to a row, each cropped to its lungs.

    Args:
        hu: (N, H, W), HU.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        titles: One a slice.
        title: Of the figure.
    """
    boxes = cropped(truth, prediction)
    figure, axes = picture_grid(-(-len(hu) // 4), 4, tall=tallest(boxes))
    for k, (box, ax) in enumerate(zip(boxes, axes.flat)):
        _draw_agreement(ax, truth[k][box], prediction[k][box], hu[k][box])
        ax.set_title(titles[k])
        mark_sides(ax)
    figure.suptitle(title)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=len(AGREEMENT))
    told = [f"{name}: {_counted(t, p)}" for name, t, p in zip(titles, truth, prediction)]
    return describe(figure, _("CT slices, {title}. {told}.").format(title=title, told=listed(told)))
