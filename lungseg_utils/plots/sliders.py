"""Figures that a student moves: sliders where somebody sits in front, four positions everywhere else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungseg_utils.core.classes import BACKGROUND, GROUND_GLASS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.borders import border_scores
from lungseg_utils.evaluation.metrics import accuracy, confusion_matrix, dice, iou
from lungseg_utils.plots.drawings import overlap_on
from lungseg_utils.plots.parts import describe, listed

Draw = Callable[..., None]  # draws on the axes that it gets first, by the values that the sliders have
SLIDERS = (N_("shift"), N_("size"), N_("level"), N_("width"))  # of the notebooks' drawings
SIDE = 96  # pixels, of the pictures with two shapes


def has_front_end() -> bool:
    """Whether a person's front end runs this cell.

    JupyterLab, Notebook and VS Code name the cell in their request.

    papermill, nbconvert and nbval do not, though widgets can be made there, too: as pictures that nothing
    moves.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and bool(kernel.get_parent().get("metadata", {}).get("cellId"))


def slide(
    draw: Draw,
    positions: Sequence[Mapping[str, float]],
    ranges: Mapping[str, tuple[float, float, float]],
    live: bool | None = None,
) -> Figure:
    """Four positions side by side; in a live notebook sliders above them, which move one picture.

    Args:
        draw: Called as draw(axes, **values).
        positions: Of the sliders, one mapping a picture; the first is where they start.
        ranges: (lowest, highest, step) of each slider.
        live: Whether sliders can be moved; None finds out.

    Returns:
        The figure of the positions.
    """
    if has_front_end() if live is None else live:
        _show_sliders(draw, positions[0], ranges)
    figure, axes = plt.subplots(1, len(positions), figsize=(2.7 * len(positions), 3.9), squeeze=False)
    for ax, values in zip(axes.flat, positions):
        draw(ax, **values)
    shown = [f"{ax.get_title()}: {' '.join(ax.get_xlabel().split())}" for ax in figure.axes]
    return describe(
        figure,
        _("{count} positions of the sliders. {shown}.").format(count=len(positions), shown=listed(shown)),
    )


def _show_sliders(
    draw: Draw, start: Mapping[str, float], ranges: Mapping[str, tuple[float, float, float]]
) -> None:
    """One slider a value, and below them the picture that follows."""
    import ipywidgets as w
    from IPython.display import display

    sliders: dict[str, Any] = {
        name: w.FloatSlider(start[name], min=low, max=high, step=step, description=_(name.replace("_", " ")))
        for name, (low, high, step) in ranges.items()
    }

    def redraw(**values: float) -> None:
        figure, ax = plt.subplots(figsize=(4.4, 4.6))
        draw(ax, **values)
        display(figure)
        plt.close(figure)

    display(w.HBox([w.VBox(list(sliders.values())), w.interactive_output(redraw, sliders)]))


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """A round region, boolean (SIDE, SIDE); x and y: its middle, from the picture's middle, pixels."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def two_shapes(ax: Axes, shift: float, size: float, true_size: float = 24) -> None:
    """A true and a predicted disc on axes, and five scores of the second.

    Args:
        ax: To draw on.
        shift: Of the prediction, to the right, pixels.
        size: Radius of the prediction, pixels.
        true_size: Radius of the truth, pixels.
    """
    truth, prediction = disc(0, 0, true_size), disc(shift, 0, size)
    overlap_on(ax, truth, prediction)
    true, predicted = (np.where(region, GROUND_GLASS, BACKGROUND) for region in (truth, prediction))
    counts = confusion_matrix(true, predicted)
    border = border_scores(truth, prediction)
    ax.set_title(
        _("radius {true_size:.0f} and {size:.0f}, shifted by {shift:.0f}").format(
            true_size=true_size, size=size, shift=shift
        )
    )
    ax.set_xlabel(
        _(
            "accuracy {accuracy:.2f}\nDice {dice:.2f}, IoU {iou:.2f}\nHD95 {hd95:.1f} "
            "pixels\nsurface Dice {surface_dice:.2f} (2 pixels)"
        ).format(
            accuracy=accuracy(counts),
            dice=dice(counts)[GROUND_GLASS],
            iou=iou(counts)[GROUND_GLASS],
            hd95=border["hd95_px"],
            surface_dice=border["surface_dice_2px"],
        )
    )


def windowed(hu: np.ndarray) -> Draw:
    """A drawing of this slice (H, W; HU) in the window that two sliders, level and width, set."""

    def draw(ax: Axes, level: float, width: float) -> None:
        ax.imshow(hu, "gray", vmin=level - width / 2, vmax=level + width / 2)
        ax.set(
            xticks=[],
            yticks=[],
            title=_("level {level:.0f}, width {width:.0f} HU").format(level=level, width=width),
        )
        ax.set_xlabel(
            _("black below {low:.0f},\nwhite above {high:.0f} HU").format(
                low=level - width / 2, high=level + width / 2
            )
        )

    return draw
