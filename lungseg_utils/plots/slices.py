"""Slices drawn, with labels over them; the style of every figure, and how a figure is saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS, LUNG_OTHER, LUNG_WINDOW
from lungseg_utils.core.files import atomic_write
from lungseg_utils.core.image import lung_box
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.parts import STYLE, alt_text, class_patch, describe, listed

CLASS_COLORS = ListedColormap([c.color for c in CLASSES])
CLASS_NORM = BoundaryNorm(np.arange(len(CLASSES) + 1) - 0.5, len(CLASSES))
OUTLINE = {c.index: c.color if c.index == LUNG_OTHER else "#FFFFFF" for c in CLASSES}
CASED = [withStroke(linewidth=2.2, foreground="black")]  # a light line or letter is then seen on any grey
QUALITY = 80  # of JPEGs


def set_style() -> None:
    """Figures for notebooks: readable, described, and small enough for a committed notebook (JPEG)."""
    from IPython import get_ipython
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": QUALITY})
    plt.rcParams.update(STYLE)
    if shell := get_ipython():
        formatters = shell.display_formatter.formatters
        formatters["image/jpeg"].for_type(Figure, _described_jpeg)
        formatters["text/plain"].for_type(Figure, lambda figure, printer, _: printer.text(_described(figure)))


def _described_jpeg(figure: Figure) -> tuple[str, dict[str, str]]:
    """A figure as IPython shows it, with the text that nbconvert writes into the picture's `alt`."""
    from IPython.core.pylabtools import print_figure

    picture = print_figure(figure, "jpeg", base64=True, pil_kwargs={"quality": QUALITY})
    return picture, {"alt": alt_text(figure)}


def _described(figure: Figure) -> str:
    return alt_text(figure) or repr(figure)


def save_figure(figure: Figure, folder: str | Path, name: str) -> Figure:
    """Write `folder/name.png` and give the figure back, so that a cell can end with it.

    Args:
        figure: To write; its alternative text becomes the file's description.
        folder: Made if there is none.
        name: Without the ending.

    Returns:
        The figure.
    """
    with atomic_write(Path(folder) / f"{name}.png", "wb") as handle:
        figure.savefig(handle, format="png", metadata={"Description": alt_text(figure)})
    plt.close(figure)  # else the notebook would show it twice
    return figure


def class_legend(figure: Figure, classes: Sequence[int] = (0, 1, 2), outlined: Sequence[int] = ()) -> None:
    """Names and colours of the classes below the figure; those that are only outlined as a line."""
    handles = [_outline_handle(c) if c in outlined else class_patch(c) for c in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _outline_handle(c: int) -> Line2D:
    return Line2D([], [], color=OUTLINE[c], linewidth=1.2, path_effects=CASED, label=CLASSES[c].name)


def grey_picture(hu: np.ndarray) -> np.ndarray:
    """RGB picture (H, W, 3) in 0..1 of a slice in the lung window."""
    low, high = LUNG_WINDOW
    return np.repeat(np.clip((hu - low) / (high - low), 0, 1)[..., None], 3, axis=-1)


def overlay(
    hu: np.ndarray, labels: np.ndarray, classes: Sequence[int] = LESIONS, alpha: float = 0.5
) -> np.ndarray:
    """The slice in the lung window, the named classes in their colours on top.

    Args:
        hu: (H, W), HU.
        labels: Class index (H, W).
        classes: Those to show.
        alpha: Opacity of the colours, 0..1.

    Returns:
        RGB (H, W, 3) in 0..1.
    """
    rgb = grey_picture(hu)
    for c in classes:
        rgb[labels == c] = (1 - alpha) * rgb[labels == c] + alpha * np.array(to_rgb(CLASSES[c].color))
    return rgb


def show_labels(ax: Axes, hu: np.ndarray, labels: np.ndarray, classes: Sequence[int] = LESIONS) -> None:
    """A slice with labels over it: lesions tinted and outlined, consolidation hatched, lung only outlined.

    Args:
        ax: Where to draw.
        hu: (H, W), HU.
        labels: Class index (H, W).
        classes: Those to show.
    """
    ax.imshow(overlay(hu, labels, [c for c in classes if c in LESIONS]))
    outline(ax, labels, classes)


def outline(ax: Axes, labels: np.ndarray, classes: Sequence[int] = LESIONS) -> None:
    """The outlines of the named classes, light on dark, so that they are seen on every grey; hatches, too."""
    # All lung first: its outline runs around the lesions.
    for c in sorted(classes, reverse=True):
        region = labels != BACKGROUND if c == LUNG_OTHER else labels == c
        region_line(ax, region, OUTLINE[c])
        if CLASSES[c].hatch:
            hatch(ax, region, CLASSES[c].hatch, OUTLINE[c])


def region_line(ax: Axes, region: np.ndarray, color: str, **style: Any) -> None:
    """A cased line around a region, bool (H, W)."""
    padded = np.pad(region, 1).astype(float)  # a region at the picture's edge is closed there
    side = [np.arange(-1, n + 1) for n in reversed(region.shape)]
    if padded.mean() > 0:
        width = {"linewidths": style.pop("linewidths", 0.8)}
        drawn = ax.contour(*side, padded, [0.5], colors=[color], **width, **style)
        drawn.set_path_effects([withStroke(linewidth=width["linewidths"] + 1, foreground="black")])
        ax.set(xlim=(-0.5, region.shape[1] - 0.5), ylim=(region.shape[0] - 0.5, -0.5))


def hatch(ax: Axes, region: np.ndarray, pattern: str, color: str) -> None:
    """A hatch over a region, bool (H, W)."""
    if region.any() and not region.all():
        drawn = ax.contourf(region.astype(float), [0.5, 1.5], colors="none", hatches=[pattern])
        drawn.set(edgecolor=color, linewidth=0)


def mark_sides(ax: Axes, points: float | None = None) -> None:
    """R at the patient's right, which is the picture's left, and L, in the style's size or in points."""
    for x, side, align in ((0.03, "R", "left"), (0.97, "L", "right")):
        place: dict[str, Any] = {"ha": align, "va": "top", "transform": ax.transAxes}
        mark = ax.text(x, 0.97, side, color="white", fontsize=points, path_effects=CASED, **place)
        mark.set_in_layout(False)


def picture_grid(
    rows: int, columns: int, size: float = 2.3, extra: float = 0.6, tall: float = 1
) -> tuple[Figure, np.ndarray]:
    """A figure for rows x columns pictures `size` inches wide, and its axes (rows, columns).

    Args:
        rows: How many.
        columns: How many.
        size: Inches.
        extra: Height for titles and legend, inches.
        tall: Height of a picture over its width.
    """
    height = rows * size * tall + extra
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, height), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def cropped(*labels: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns around the lungs of each slice, in any of the labels, (N, H, W) class index each."""
    return [lung_box(np.stack(each) != BACKGROUND) for each in zip(*labels, strict=True)]


def tallest(boxes: Sequence[tuple[slice, slice]]) -> float:
    """The largest height over width of boxes; 1 without any."""
    return max(
        ((rows.stop - rows.start) / (columns.stop - columns.start) for rows, columns in boxes), default=1
    )


def name_row(ax: Axes, name: str) -> None:
    """A row of pictures' name, upright beside its first."""
    ax.text(-0.04, 0.5, name, rotation=90, va="center", ha="right", transform=ax.transAxes)


def seen(labels: np.ndarray, classes: Sequence[int] = LESIONS) -> str:
    """How much of the lung each class takes, for alternative texts.

    Args:
        labels: Class index (H, W).
        classes: Those to name.
    """
    lung = (labels != BACKGROUND).sum()
    if not lung:
        return _("no lung")
    shares = [
        _("{name} {share:.0f} % of the lung").format(
            name=CLASSES[c].name, share=100 * (labels == c).sum() / lung
        )
        for c in classes
    ]
    return ", ".join(shares)


def show_slices(
    hu: Sequence[np.ndarray],
    labels: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] = (),
    columns: int = 4,
    classes: Sequence[int] = (0, 1),
    title: str = "",
    sides: bool = True,
    plain_above: bool = False,
) -> Figure:
    """Slices in the lung window; with labels, the named classes drawn over them.

    Args:
        hu: (H, W) each, HU.
        labels: Class index (H, W) each.
        titles: One a slice.
        columns: Slices to a row.
        classes: Those to show.
        title: Of the figure.
        sides: Whether to mark the patient's sides; not where slices are mirrored or turned.
        plain_above: With labels, each slice once more without them, above, in one row.
    """
    columns = len(hu) if plain_above else min(columns, len(hu))
    rows = 2 if plain_above else -(-len(hu) // columns)
    figure, axes = picture_grid(rows, columns)
    for k, ax in zip(range(len(hu)), axes[-1] if plain_above else axes.flat):
        if labels is None:
            ax.imshow(grey_picture(hu[k]))
        else:
            show_labels(ax, hu[k], labels[k], classes)
        above = axes[0, k] if plain_above else ax
        above.set_title(titles[k] if k < len(titles) else "")
        if plain_above:
            above.imshow(grey_picture(hu[k]))
        if sides:
            mark_sides(above)
    if plain_above:
        for ax, name in zip(axes[:, 0], (_("as it is"), _("with labels"))):
            name_row(ax, name)
    title = title or _("lung window, {low} to {high} HU").format(low=LUNG_WINDOW[0], high=LUNG_WINDOW[1])
    figure.suptitle(title)
    if labels is not None:
        class_legend(figure, classes, outlined=[c for c in classes if c not in LESIONS])
    named = [
        titles[k] if k < len(titles) else _("slice {number}").format(number=k + 1) for k in range(len(hu))
    ]
    if labels is not None:
        named = [
            f"{name}: {seen(labels[k], [c for c in classes if c in LESIONS])}" for k, name in enumerate(named)
        ]
    return describe(figure, _("CT slices, {title}. {named}.").format(title=title, named=listed(named)))
