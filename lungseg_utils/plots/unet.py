"""A U-Net, drawn with what one slice becomes in it."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import ConnectionPatch

from lungseg_utils.core.classes import CLASSES
from lungseg_utils.core.language import translate as _
from lungseg_utils.core.language import translate_many as ngettext
from lungseg_utils.plots.parts import INK, SERIES, class_patch, describe, listed
from lungseg_utils.plots.slices import CLASS_COLORS, CLASS_NORM, outline

SHOWN = 3  # maps of a stage


def plot_unet(maps: Mapping[str, Sequence[Any]]) -> Figure:
    """A slice on its way through a U-Net: down the encoder, over the skips, up the decoder, to its classes.

    Of each stage, the three maps that differ most within themselves. A row is one level.

    Args:
        maps: As model.feature_maps gives, or from a network of your own: "encoder" (the slice first),
            "decoder", and "head" with the logits (4, H, W) last; (C, h, w) each, tensors or arrays.
    """
    encoder, decoder = ([np.asarray(each) for each in maps[part]] for part in ("encoder", "decoder"))
    logits = np.asarray(maps["head"][-1])
    ups = {up.shape[-1]: up for up in decoder}  # a level's last, where there are several
    rows = len(encoder)
    figure = plt.figure(figsize=(11.5, 1.3 * rows + 0.7))
    grid = figure.add_gridspec(rows, 4, width_ratios=(SHOWN, 0.5, SHOWN, 1.6), wspace=0.06)
    left: list[list[Axes]] = []
    right: list[list[Axes] | None] = []
    for row, down in enumerate(encoder):
        name = _("the slice") if row == 0 and len(down) == 1 else _said(down)
        left.append(_stage(figure, grid[row, 0], down, name))
        up = ups.get(down.shape[-1])
        level = row < rows - 1 and (row > 0 or encoder[1].shape[-1] < down.shape[-1])
        right.append(_stage(figure, grid[row, 2], up, _said(up)) if level and up is not None else None)
    classes = figure.add_subplot(grid[: (rows + 1) // 2, 3])
    answer = logits.argmax(0)
    classes.imshow(answer, cmap=CLASS_COLORS, norm=CLASS_NORM, interpolation="nearest")
    outline(classes, answer)
    classes.set(title=_("the class with\nthe largest logit"), xticks=[], yticks=[])
    logit_grid = grid[(rows + 1) // 2 :, 3].subgridspec(2, 2)
    for c in CLASSES:
        ax = figure.add_subplot(logit_grid[c.index // 2, c.index % 2])
        ax.imshow(logits[c.index], "gray")
        ax.set(xticks=[], yticks=[])
        ax.set_title(_("logit of\n{name}").format(name=textwrap.fill(c.brief, 14)))
    for row in range(rows - 1):
        _arrow(figure, left[row][0], (0.5, 0), left[row + 1][0], (0.5, 1), SERIES[0])
        here, under = right[row], right[row + 1]
        if here is None:
            continue
        if row > 0:  # the slice itself is not handed over
            _arrow(figure, left[row][-1], (1, 0.5), here[0], (0, 0.5), SERIES[1], _("skip"))
        below, leaves = (under, (0.5, 1.0)) if under else (left[row + 1], (1.0, 0.5))
        _arrow(figure, below[-1], leaves, here[-1], (0.5, 0), SERIES[0])
    top = next((stage for stage in right if stage), left[-1])
    _arrow(figure, top[-1], (1, 0.5), classes, (0, 0.5), SERIES[0])
    handles = [class_patch(c.index) for c in CLASSES]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    told = [
        _("level {number}: {maps}").format(number=row + 1, maps=_said(down))
        for row, down in enumerate(encoder)
    ]
    return describe(
        figure,
        _(
            "A slice goes down the encoder, {told}; then up the decoder through {count} blocks, "
            "joined by skips from the same level, to four logits and the class of every pixel."
        ).format(told=listed(told), count=len(decoder)),
    )


def _said(maps: np.ndarray) -> str:
    channels, height, width = maps.shape
    said = ngettext("{count} map of {height} x {width}", "{count} maps of {height} x {width}", channels)
    return said.format(count=channels, height=height, width=width)


def _stage(figure: Figure, place: SubplotSpec, maps: np.ndarray, name: str) -> list[Axes]:
    """The maps of a stage that differ most within themselves, side by side."""
    most = np.sort(np.argsort(-maps.std((1, 2)), kind="stable")[:SHOWN])
    axes = []
    cells = place.subgridspec(1, SHOWN, wspace=0.04)
    for column, k in enumerate(most):
        ax = figure.add_subplot(cells[0, column])
        ax.imshow(maps[k], "gray", interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        axes.append(ax)
    axes[len(axes) // 2].set_title(name)
    return axes


def _arrow(figure: Figure, start: Axes, at: tuple, end: Axes, to: tuple, color: str, words: str = "") -> None:
    """An arrow from one picture to another, in shares of their sides."""
    arrow = ConnectionPatch(
        at, to, "axes fraction", "axes fraction", axesA=start, axesB=end, arrowstyle="-|>", mutation_scale=14
    )
    arrow.set(color=color, linewidth=1.6)
    arrow.set_in_layout(False)
    figure.add_artist(arrow)
    if words:
        place: dict[str, Any] = {
            "textcoords": "offset points",
            "xycoords": "axes fraction",
            "ha": "left",
            "va": "bottom",
        }
        start.annotate(words, at, xytext=(6, 3), color=INK, annotation_clip=False, **place).set_in_layout(
            False
        )
