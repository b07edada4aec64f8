"""Figures of how sure the network is, and how often it is right when it is."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure

from lungseg_utils.core.classes import CLASSES, FOREGROUND, LESIONS
from lungseg_utils.core.language import translate as _
from lungseg_utils.evaluation.calibration import BINS, Reliability, calibration_error
from lungseg_utils.plots.parts import FAINT, FEW, WRONG, area_patch, class_patch, describe, listed
from lungseg_utils.plots.slices import (
    cropped,
    grey_picture,
    mark_sides,
    name_row,
    picture_grid,
    show_labels,
    tallest,
)


def plot_reliability(counts: Reliability) -> Figure:
    """Reliability diagram of each lung class, and below it how many pixels have such a probability.

    A class without pixels has no diagram; a bin of too few pixels is left out of the curve.
    """
    shown = [c for c in FOREGROUND if counts.pixels[c].max() >= FEW]
    if not shown:
        figure, ax = plt.subplots(figsize=(6, 1.2))
        ax.set_axis_off()
        words = _("no reliability diagram: too few pixels of lung")
        ax.text(0.5, 0.5, words, ha="center", va="center")
        return describe(figure, words)
    figure, axes = plt.subplots(
        2,
        len(shown),
        figsize=(3.6 * len(shown), 5.2),
        height_ratios=(3, 1),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    edges, told, errors = np.linspace(0, 1, BINS + 1), [], calibration_error(counts)
    for (top, bottom), c in zip(axes.T, shown):
        pixels, color, error = counts.pixels[c], CLASSES[c].line, errors[c]
        held = pixels >= FEW
        top.plot([0, 1], [0, 1], color=FAINT, linestyle=":", label=_("perfect"))
        top.plot(
            counts.probability[c, held] / pixels[held], counts.hits[c, held] / pixels[held], "o-", color=color
        )
        top.set_title(_("{name}\nerror {error:.3f}").format(name=CLASSES[c].name, error=error))
        bottom.set(yscale="log", ylim=(0.01, 130), xlim=(0, 1), xlabel=_("predicted probability"))
        bottom.stairs(100 * pixels / pixels.sum(), edges, fill=True, color=color)
        told.append(f"{CLASSES[c].name} {error:.3f}")
    axes[0, 0].set(ylim=(0, 1), ylabel=_("share that comes true"))
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].set_ylabel(_("% of pixels"))
    figure.suptitle(
        _("reliability in true or predicted lung; bins below {few} pixels are left out").format(few=FEW)
    )
    return describe(
        figure, _("Reliability diagrams. Expected calibration error: {told}.").format(told=listed(told))
    )


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
    boxes = cropped(truth, prediction)
    figure, axes = picture_grid(3, max(len(hu), 1), tall=tallest(boxes))
    figure.set_size_inches(2.3 * axes.shape[1] + 1.4, 3 * 2.3 * tallest(boxes) + 0.8)  # and a colour bar
    for k, box in enumerate(boxes):
        errors = 0.5 * grey_picture(hu[k][box])
        errors[truth[k][box] != prediction[k][box]] = to_rgb(WRONG)
        show_labels(axes[0, k], hu[k][box], prediction[k][box])
        axes[1, k].imshow(entropy[k][box], "magma", vmin=0, vmax=1)
        axes[2, k].imshow(errors)
        axes[0, k].set_title(titles[k])
        mark_sides(axes[0, k])
    for ax, name in zip(axes[:, 0], (_("predicted lesions"), _("predictive entropy"), _("errors"))):
        name_row(ax, name)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "magma"), ax=axes[1, :], shrink=0.9, ticks=[0, 1])
    bar.ax.set_yticklabels([_("one class\nis certain"), _("all four\nequal")])
    handles = [*map(class_patch, LESIONS), area_patch(WRONG, label=_("any wrong class"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    told = [
        _("{title}: entropy {entropy:.2f} on average, {wrong:.1%} of the pixels wrong").format(
            title=title, entropy=entropy[k].mean(), wrong=(truth[k] != prediction[k]).mean()
        )
        for k, title in enumerate(titles)
    ]
    return describe(
        figure,
        _("Predicted lesions, entropy and errors, one column a slice. {told}.").format(told=listed(told)),
    )
