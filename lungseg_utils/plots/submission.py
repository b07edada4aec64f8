"""The submission's masks over the test slices."""

import numpy as np
from matplotlib.figure import Figure

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS, LUNG_WINDOW
from lungseg_utils.plots.slices import slices as plots


def _shown(line: bytes) -> str:
    """A line for a message, not too long."""
    return repr(line[:40].decode(errors="replace").strip())


def plot_submission(masks: np.ndarray, hu: np.ndarray | None = None) -> Figure:
    """What a submission says, consolidation on top, over slices or black. masks: (N, H, W, 2); hu: (N, H, W)."""
    labels = np.full(masks.shape[:3], BACKGROUND, np.uint8)
    for c in LESIONS:
        labels[masks[..., c] != 0] = c
    hu = np.full(masks.shape[:3], LUNG_WINDOW[0], np.int16) if hu is None else hu
    titles = [
        f"test {i}: " + " + ".join(f"{share:.1%}" for share in mask.mean((0, 1)))
        for i, mask in enumerate(masks)
    ]
    names = " + ".join(CLASSES[c].name for c in LESIONS)
    figure = plots.show_slices(hu, labels, titles, columns=5, title=f"submission; share of pixels: {names}")
    figure.set_layout_engine("constrained")
    return figure
