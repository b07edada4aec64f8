"""The submission's masks over the test slices."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS, LUNG_WINDOW
from lungseg_utils.core.files import resolve_path
from lungseg_utils.core.language import translate as _
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.evaluation.submission import TEST_SHAPE, read_submission
from lungseg_utils.plots.parts import STYLE
from lungseg_utils.plots.slices import save_figure, show_slices


def plot_submission(masks: np.ndarray, hu: np.ndarray | None = None) -> Figure:
    """What a submission says, consolidation on top, over slices or black.

    Args:
        masks: (N, H, W, 2), 0 or 1.
        hu: (N, H, W), HU.
    """
    labels = np.full(masks.shape[:3], BACKGROUND, np.uint8)
    for c in LESIONS:
        labels[masks[..., c] != 0] = c
    seen = hu is not None
    hu = np.full(masks.shape[:3], LUNG_WINDOW[0], np.int16) if hu is None else hu
    titles = [
        _("test {number}: {first:.1%} + {second:.1%}").format(
            number=i, first=mask[..., 0].mean(), second=mask[..., 1].mean()
        )
        for i, mask in enumerate(masks)
    ]
    names = " + ".join(CLASSES[c].name for c in LESIONS)
    title = _("submission; share of pixels: {names}").format(names=names)
    with plt.rc_context(STYLE):
        return show_slices(list(hu), list(labels), titles, columns=5, title=title, sides=seen)


def check_submission(path: str | Path, run_dir: str | Path | None = None) -> tuple[Path, np.ndarray]:
    """Read `path` and draw it, over the run's test slices if there is a run.

    Returns the figure's path and the masks.

    The figure stands beside the file, as .png. Raises InputError for what is no submission for these slices.
    """
    path = resolve_path(path)
    hu = None if run_dir is None else load_prepared(resolve_path(run_dir) / "prepared").images["test"]
    masks = read_submission(path, TEST_SHAPE if hu is None else hu.shape)
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    save_figure(plot_submission(masks, hu), path.parent, name)
    return path.parent / f"{name}.png", masks
