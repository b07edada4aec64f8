"""Figures of how sure the network is, and how often it is right when it is."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lungseg_utils.core.classes import CLASSES, FOREGROUND, LESIONS
from lungseg_utils.evaluation.calibration import BINS, Reliability, calibration_error
from lungseg_utils.plots.parts import WRONG
from lungseg_utils.plots.slices import grey_picture, overlay, picture_grid


def plot_reliability(counts: Reliability) -> Figure:
    """Reliability diagram of each lung class, and below it how many pixels have such a probability."""
    columns = len(FOREGROUND)
    figure, axes = plt.subplots(
        2, columns, figsize=(10, 4.6), height_ratios=(3, 1), sharex=True, sharey="row"
    )
    edges = np.linspace(0, 1, BINS + 1)
    for (top, bottom), c, error in zip(axes.T, FOREGROUND, calibration_error(counts)):
        pixels, color = counts.pixels[c], CLASSES[c].color
        held = pixels > 0
        top.plot([0, 1], [0, 1], color="gray", linestyle=":", label="perfect")
        top.plot(
            counts.probability[c, held] / pixels[held], counts.hits[c, held] / pixels[held], "o-", color=color
        )
        top.set_title(CLASSES[c].name + (f": error {error:.3f}" if held.any() else ": no pixels"))
        bottom.set(yscale="log", ylim=(0.01, 130), xlim=(0, 1), xlabel="predicted probability")
        bottom.stairs(100 * pixels / max(pixels.sum(), 1), edges, fill=True, color=color)
    axes[0, 0].set(ylim=(0, 1), ylabel="share that comes true")
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].set_ylabel("% of pixels")
    figure.suptitle("reliability in true-or-predicted lung; error: expected calibration error, 15 bins")
    return figure


def show_entropy(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, entropy: np.ndarray, titles: Sequence[str]
) -> Figure:
    """Prediction, predictive entropy and errors, one column a slice.

    Args:
        hu: (N, H, W), HU.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        entropy: (N, H, W), 0..1.
        titles: One a slice.
    """
    figure, axes = picture_grid(3, max(len(hu), 1))
    figure.set_size_inches(2.2 * axes.shape[1] + 1.2, 7)  # the colour bar gets its own width
    for k in range(len(hu)):
        errors = 0.5 * grey_picture(hu[k])
        errors[truth[k] != prediction[k]] = to_rgb(WRONG)
        axes[0, k].imshow(overlay(hu[k], prediction[k]))
        axes[1, k].imshow(entropy[k], "magma", vmin=0, vmax=1)
        axes[2, k].imshow(errors)
        axes[0, k].set_title(titles[k])
    for ax, name in zip(axes[:, 0], ("predicted lesions", "predictive entropy", "errors")):
        ax.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", transform=ax.transAxes)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "magma"), ax=axes[1, :], shrink=0.9, ticks=[0, 1])
    bar.ax.set_yticklabels(["one class\nis certain", "all four\nequal"])
    handles = [Patch(color=CLASSES[c].color, label=CLASSES[c].name) for c in LESIONS]
    handles.append(Patch(color=WRONG, label="any wrong class"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure
