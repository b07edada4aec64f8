"""Slices drawn, with labels over them; the style of every figure, and how a figure is saved."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, LESIONS, LUNG_WINDOW
from lungseg_utils.core.files import atomic_write

CLASS_COLORS = ListedColormap([c.color for c in CLASSES])
CLASS_NORM = BoundaryNorm(np.arange(len(CLASSES) + 1) - 0.5, len(CLASSES))


def set_style() -> None:
    """Figures for notebooks: readable, and small enough for a committed notebook (JPEG, 80 dots per inch)."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 80})
    plt.rcParams.update(
        {
            "figure.dpi": 80,
            "figure.facecolor": "white",
            "savefig.dpi": 120,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 9,
            "legend.frameon": False,
        }
    )


def save_figure(figure: Figure, folder: str | Path, name: str) -> Figure:
    """Write `folder/name.png` and give the figure back, so that a cell can end with it.

    Args:
        figure: To write.
        folder: Made if there is none.
        name: Without the ending.

    Returns:
        The figure.
    """
    with atomic_write(Path(folder) / f"{name}.png", "wb") as handle:
        figure.savefig(handle, format="png")
    plt.close(figure)  # else the notebook would show it twice
    return figure


def class_legend(figure: Figure, classes: Sequence[int] = (0, 1, 2)) -> None:
    """Names and colours of the classes below the figure."""
    handles = [Patch(color=CLASSES[c].color, label=CLASSES[c].name) for c in classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


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


def picture_grid(rows: int, columns: int, size: float = 2.2, extra: float = 0.5) -> tuple[Figure, np.ndarray]:
    """A figure for rows x columns pictures of `size` inches, and its axes (rows, columns).

    extra: height, inches.
    """
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size + extra), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def show_slices(
    hu: Sequence[np.ndarray],
    labels: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] = (),
    columns: int = 4,
    classes: Sequence[int] = (0, 1),
    title: str = "",
) -> Figure:
    """Slices in the lung window; with labels, the named classes drawn over them.

    Args:
        hu: (H, W) each, HU.
        labels: Class index (H, W) each.
        titles: One a slice.
        columns: Slices to a row.
        classes: Those to show.
        title: Of the figure.
    """
    columns = min(columns, len(hu))
    figure, axes = picture_grid(-(-len(hu) // columns), columns)
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(grey_picture(hu[k]) if labels is None else overlay(hu[k], labels[k], classes))
        ax.set_title(titles[k] if k < len(titles) else "")
    figure.suptitle(title or f"lung window, {LUNG_WINDOW[0]} to {LUNG_WINDOW[1]} HU")
    if labels is not None:
        class_legend(figure, classes)
    return figure
