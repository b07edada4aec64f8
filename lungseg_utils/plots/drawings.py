"""Drawings that explain: a convolution, the U-Net, the training loop, overlap, borders, draws of a bootstrap.

They are drawn from real numbers wherever there are some, so that a student who changes a number sees the
drawing change.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.parts import INK, SERIES, describe, listed
from lungseg_utils.plots.slices import CLASS_COLORS, CLASS_NORM, grey_picture

PAPER = "#F2F2F2"
OVERLAP = {
    N_("TP, hits"): "#FFFFFF",
    N_("FN, misses"): SERIES[1],
    N_("FP, false alarms"): SERIES[2],
    N_("TN, the rest"): "#D9D9D9",
}


def draw_convolution(patch: np.ndarray, kernel: np.ndarray, row: int, column: int) -> Figure:
    """One step of a convolution in numbers: the patch, the kernel, and the one number that they give.

    Args:
        patch: (H, W) numbers, such as HU.
        kernel: (3, 3).
        row: Of the middle of the window in the patch.
        column: Of the middle of the window in the patch.
    """
    window = patch[row - 1 : row + 2, column - 1 : column + 2]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), width_ratios=(max(patch.shape) / 3, 1, 1.2))
    names = (_("a patch of the slice, HU"), _("kernel"), _("products"))
    for ax, values, name in zip(axes, (patch, kernel, window * kernel + 0), names, strict=True):
        _numbers(ax, values)
        ax.set_title(name)
    box = Rectangle((column - 1.5, row - 1.5), 3, 3, fill=False, edgecolor=SERIES[1], linewidth=3)
    axes[0].add_patch(box)
    axes[2].set_xlabel(
        _("their sum: {sum:.0f}").format(sum=(window * kernel).sum()), fontsize=12, color=SERIES[0]
    )
    figure.suptitle(_("window x kernel, number by number, then add"))
    return describe(
        figure,
        _(
            "A patch of {rows} x {columns} numbers with a window of 3 x 3, a kernel, their "
            "products, and the sum of these: {sum:.0f}."
        ).format(rows=patch.shape[0], columns=patch.shape[1], sum=(window * kernel).sum()),
    )


def _numbers(ax: Axes, values: np.ndarray) -> None:
    """A small array as a picture with its numbers in it."""
    span = max(float(np.abs(values).max()), 1e-9)
    low, high = (values.min(), values.max()) if values.min() < -300 else (-span, span)
    ax.imshow(values, "gray", vmin=low, vmax=max(high, low + 1))
    middle = (low + high) / 2
    for (i, j), value in np.ndenumerate(values):
        ax.text(
            j, i, f"{value + 0.0:.4g}", ha="center", va="center", color="black" if value > middle else "white"
        )
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def show_maps(maps: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Pictures of any numbers side by side, each in its own greys.

    Args:
        maps: By title, (H, W).
        title: Of the figure.
    """
    figure, axes = plt.subplots(1, len(maps), figsize=(2.3 * len(maps), 2.8), squeeze=False)
    for ax, (name, values) in zip(axes.flat, maps.items()):
        ax.imshow(values, "gray")
        ax.set(title=name, xticks=[], yticks=[])
    figure.suptitle(title)
    return describe(figure, f"{title or _('Pictures in greys, side by side')}: {listed(list(maps))}.")


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, style: str = "-"
) -> None:
    """From the right side of one picture to the left side of the next."""
    ends = ((start[0] + 0.42, start[1]), (end[0] - 0.42, end[1]))
    ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=11, color=color, linestyle=style))


def draw_chain(steps: Sequence[str], title: str = "", closed: bool = False) -> Figure:
    """Boxes with words, an arrow from each to the next; closed: and from the last back to the first.

    Args:
        steps: Words, maybe of several lines.
        title: Of the figure.
        closed: Whether it is a loop.
    """
    figure, ax = plt.subplots(figsize=(min(11, 2.1 * len(steps)), 2.0 if closed else 1.5))
    for x, words in enumerate(steps):
        box = FancyBboxPatch((x - 0.38, -0.3), 0.76, 0.6, "round,pad=0.02", facecolor=PAPER, edgecolor=INK)
        ax.add_patch(box)
        ax.text(x, 0, words, ha="center", va="center")
        if x:
            _arrow(ax, (x - 1, 0), (x, 0), INK)
    if closed:
        ends = ((len(steps) - 1, -0.33), (0, -0.33))
        bow = f"arc3,rad={-0.9 / len(steps)}"
        back = FancyArrowPatch(*ends, connectionstyle=bow, arrowstyle="-|>", mutation_scale=11, color=INK)
        ax.add_patch(back)
        ax.text((len(steps) - 1) / 2, -0.68, _("again, with other slices"), ha="center")
    ax.set(xlim=(-0.55, len(steps) - 0.45), ylim=(-1.05 if closed else -0.45, 0.45), title=title)
    ax.set_axis_off()
    told = (
        _("Boxes with arrows, each to the next, the last back to the first: {steps}.")
        if closed
        else _("Boxes with arrows, each to the next: {steps}.")
    )
    return describe(
        figure,
        told.format(steps=listed([words.replace(chr(10), " ") for words in steps])),
    )


def draw_pixel(logits: np.ndarray, truth: int) -> Figure:
    """One pixel's four logits, its probabilities, and the loss that its true class gives.

    Args:
        logits: (4,).
        truth: Class index.
    """
    p = np.exp(logits - logits.max())
    p /= p.sum()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 2.8))
    names, colors = [c.name for c in CLASSES], [c.color for c in CLASSES]
    for ax, values, title in (
        (left, logits, _("logits: any numbers")),
        (middle, p, _("softmax: probabilities")),
    ):
        bars = ax.barh(names, values, color=colors, edgecolor=INK)
        ax.bar_label(bars, fmt="%.2f", padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.25)
        ax.set_title(title)
    middle.set_yticks([])
    share = np.linspace(0.005, 1, 200)
    right.plot(share, -np.log(share), color=INK)
    right.plot(p[truth], -np.log(p[truth]), "o", color=SERIES[1], markersize=9)
    right.annotate(
        f"{-np.log(p[truth]):.2f}", (p[truth], -np.log(p[truth])), xytext=(8, 6), textcoords="offset points"
    )
    right.set(
        xlabel=_("probability of the true class"),
        ylabel=_("loss"),
        title=_("truth: {name}").format(name=names[truth]),
    )
    return describe(
        figure,
        _("One pixel, truth {name}. Logits, then probabilities: {classes}. Loss {loss:.2f}.").format(
            name=names[truth],
            classes=listed([f"{n} {x:.2f}, {q:.2f}" for n, x, q in zip(names, logits, p)]),
            loss=-np.log(p[truth]),
        ),
    )


def draw_overlap(truth: np.ndarray, prediction: np.ndarray, title: str = "") -> Figure:
    """Two regions and what every score is made of: hits TP, misses FN, false alarms FP, the rest TN.

    Args:
        truth: Boolean (H, W).
        prediction: Boolean (H, W).
        title: Of the figure.
    """
    figure, ax = plt.subplots(figsize=(7.2, 3.6))
    overlap_on(ax, truth, prediction)
    told = [
        _("{name}: {pixels:,} pixels").format(name=_(name), pixels=part.sum())
        for name, part in _parts(truth, prediction).items()
    ]
    for words, color in zip(told, OVERLAP.values(), strict=True):
        ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=color, edgecolor=INK, label=words))
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(title)  # it may be wider than the axes
    return describe(figure, _("Two regions that overlap. {told}.").format(told=listed(told)))


def overlap_on(ax: Axes, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Truth (line) and prediction (dashed; boolean, H x W) on axes, in the colours of OVERLAP."""
    picture = np.empty((*truth.shape, 3))
    for name, part in _parts(truth, prediction).items():
        picture[part] = to_rgb(OVERLAP[name])
    ax.imshow(picture, interpolation="nearest")
    for region, style in ((truth, "-"), (prediction, "--")):
        if region.any() and not region.all():
            ax.contour(region, [0.5], colors=INK, linestyles=style, linewidths=1.5)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _parts(truth: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """The four kinds of pixels, by the names of OVERLAP."""
    kinds = (truth & prediction, truth & ~prediction, ~truth & prediction, ~truth & ~prediction)
    return dict(zip(OVERLAP, kinds, strict=True))


def draw_hu_scale(windows: Mapping[str, tuple[float, float]]) -> Figure:
    """The Hounsfield scale with what lies where on it, and windows: what each makes black and white.

    Args:
        windows: By name, (black, white) in HU.
    """
    tissues = {
        _("air"): -1000,
        _("healthy lung"): -850,
        _("ground glass"): -550,
        _("consolidation"): -230,
        _("fat"): -100,
        _("water"): 0,
        _("muscle"): 50,
        _("bone"): 400,
    }
    low, high = -1400, 600
    figure, axes = plt.subplots(1 + len(windows), 1, figsize=(9, 1.5 + 0.42 * len(windows)), sharex=True,
                                height_ratios=(3, *[1] * len(windows)))  # fmt: skip
    top = axes[0]
    for k, (name, hu) in enumerate(tissues.items()):
        top.annotate(name, (hu, 0), (hu, 0.25 + 0.28 * (k % 3)), ha="center",
                     arrowprops={"arrowstyle": "-", "color": "0.6"})  # fmt: skip
    top.set(ylim=(0, 1.05), yticks=[], xlim=(low, high), title=_("the Hounsfield scale, HU"))
    top.spines["left"].set_visible(False)
    for ax, (name, (black, white)) in zip(axes[1:], windows.items()):
        ramp = np.clip((np.linspace(low, high, 400) - black) / (white - black), 0, 1)[None]
        ax.imshow(ramp, "gray", aspect="auto", extent=(low, high, 0, 1), vmin=0, vmax=1)
        ax.set_ylabel(_(name), rotation=0, ha="right", va="center")
        ax.set_yticks([])
    axes[-1].set_xlabel(_("HU; below: the grey that each window gives it"))
    return describe(
        figure,
        _("The Hounsfield scale: {tissues}. Windows: {windows}.").format(
            tissues=listed([f"{name} {hu} HU" for name, hu in tissues.items()]),
            windows=listed(
                [
                    _("{name}, black at {black}, white at {white}").format(name=_(name), black=a, white=b)
                    for name, (a, b) in windows.items()
                ]
            ),
        ),
    )


def draw_split(volumes: Sequence[int], random: Sequence[bool], whole: Sequence[bool]) -> Figure:
    """Neighbouring slices as squares: a random split parts neighbours, a split by volume does not.

    Args:
        volumes: The number of each slice's volume.
        random: Whether each slice validates, drawn at random.
        whole: Whether each slice validates, volume by volume.
    """
    figure, axes = plt.subplots(2, 1, figsize=(10, 2.4))
    for ax, held, name in zip(axes, (random, whole), (_("random: neighbours are separated"), _("by volume"))):
        for k, (volume, validates) in enumerate(zip(volumes, held)):
            x = k + 0.8 * (volume - volumes[0])
            color = SERIES[1] if validates else SERIES[0]
            ax.add_patch(Rectangle((x, 0), 0.85, 1, facecolor=color))
        ax.set(xlim=(-0.3, x + 1.3), ylim=(-0.1, 1.1), title=name)
        ax.set_axis_off()
    for color, name in ((SERIES[0], _("learns")), (SERIES[1], _("validates"))):
        axes[0].bar(0, 0, color=color, label=name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return describe(
        figure,
        _(
            "Slices of some volumes as squares in a row, twice. A random split colours some here "
            "and there, so that neighbours are separated; a split by volume colours one whole "
            "volume."
        ),
    )


def draw_mixture(labels: np.ndarray, small: int) -> Figure:
    """Why labels are never averaged: a mask made smaller by averaging, and by the nearest pixel.

    Args:
        labels: Class index (H, W).
        small: Pixels a side afterwards; H and W are multiples of it.
    """
    step = len(labels) // small
    mean = labels.reshape(small, step, small, step).mean(axis=(1, 3))
    nearest = labels[step // 2 :: step, step // 2 :: step]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
    pictures = {
        _("labels"): labels,
        _("averaged, then rounded: wrong"): np.rint(mean),
        _("nearest pixel: right"): nearest,
    }
    for ax, (name, picture) in zip(axes, pictures.items()):
        ax.imshow(picture, cmap=CLASS_COLORS, norm=CLASS_NORM, interpolation="nearest")
        ax.set(title=name, xticks=[], yticks=[])
    for c in CLASSES:
        axes[0].bar(0, 0, color=c.color, label=c.name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return describe(
        figure,
        _(
            "A mask of four classes; made smaller by averaging, with consolidation that is not "
            "there; and by the nearest pixel, with no class that was not there."
        ),
    )


def plot_lines(lines: Mapping[str, Sequence[float]], ylabel: str, xlabel: str = N_("step"), every: int = 1,
               title: str = "", dashed: Sequence[str] = ()) -> Figure:  # fmt: skip
    """Named curves on one axis, each named at its end.

    Args:
        lines: By name.
        ylabel: What they show, with the unit.
        xlabel: What they run over.
        every: Steps between two values.
        title: Of the figure.
        dashed: Names whose line is dashed.
    """
    xlabel, ylabel = _(xlabel), _(ylabel)
    figure, ax = plt.subplots(figsize=(7, 3))
    drawn = {name: np.asarray(values, dtype=float) for name, values in lines.items()}
    for k, (name, values) in enumerate(drawn.items()):
        at = every * np.arange(1, len(values) + 1)
        style = "--" if name in dashed else "-"
        ax.plot(
            at, values, style, marker="." if len(values) < 40 else "", color=[*SERIES, INK][k % 5], label=name
        )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(title)  # it may be wider than the axes
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return describe(
        figure,
        _("{title}, {ylabel} over {xlabel}. {lines}.").format(
            title=title or ylabel,
            ylabel=ylabel,
            xlabel=xlabel,
            lines=listed(
                [
                    _("{name}: from {first:.3g} to {last:.3g}").format(name=name, first=v[0], last=v[-1])
                    for name, v in drawn.items()
                ]
            ),
        ),
    )


def draw_draws(values: np.ndarray, draws: int = 4, seed: int = 0) -> Figure:
    """What a bootstrap draws: slices with replacement, some twice, some not at all; and the means.

    Args:
        values: A score of each slice.
        draws: How many are shown.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    figure, ax = plt.subplots(figsize=(8, 0.5 * draws + 1.3))
    for row in range(draws + 1):
        picked = np.arange(len(values)) if row == 0 else rng.integers(len(values), size=len(values))
        counts = np.bincount(picked, minlength=len(values))
        ax.scatter(values, np.full(len(values), row), 30 * counts, color=SERIES[0], alpha=0.45, linewidth=0)
        ax.vlines(values[picked].mean(), row - 0.35, row + 0.35, color=SERIES[1], linewidth=3)
    ax.set_yticks(
        range(draws + 1), [_("the slices"), *(_("draw {number}").format(number=k + 1) for k in range(draws))]
    )
    ax.invert_yaxis()
    ax.set(xlabel=_("Dice of a slice; the larger the dot, the more often drawn; bar: the mean"))
    return describe(
        figure,
        _(
            "Dice of {count} slices as dots in a row, mean {mean:.2f}; below it {draws} "
            "draws of a bootstrap: some dots larger, some gone, each with another mean."
        ).format(count=len(values), mean=values.mean(), draws=draws),
    )


def draw_borders(truth: np.ndarray, prediction: np.ndarray) -> Figure:
    """Every border pixel of the prediction with its distance to the true border, and the distances sorted.

    Args:
        truth: Boolean (H, W).
        prediction: Boolean (H, W).
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    edges = [region & ~binary_erosion(region) for region in (truth, prediction)]
    distances = distance_transform_edt(~edges[0])[edges[1]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.imshow(np.where(truth, 0.93, 1.0), "gray", vmin=0, vmax=1)
    left.contour(truth, [0.5], colors=INK, linewidths=2)
    rows, columns = np.nonzero(edges[1])
    dots = left.scatter(columns, rows, 9, c=distances, cmap="viridis")
    figure.colorbar(dots, ax=left, label=_("distance to the true border, pixels"))
    left.set(xticks=[], yticks=[], title=_("line: true border; dots: predicted"))
    right.plot(np.linspace(0, 100, len(distances)), np.sort(distances), color=INK)
    hd95 = np.percentile(distances, 95)
    right.axvline(
        95, color=SERIES[1], linestyle="--", label=_("95 %: at most {hd95:.1f} pixels").format(hd95=hd95)
    )
    right.axhline(
        2,
        color=SERIES[0],
        linestyle=":",
        label=_("within 2 pixels: {share:.0%}").format(share=(distances <= 2).mean()),
    )
    right.set(
        xlabel=_("share of the border, %"), ylabel=_("distance, pixels"), title=_("the distances, sorted")
    )
    right.legend()
    return describe(
        figure,
        _(
            "A true region with the border of the predicted one, coloured by distance; 95 % of "
            "it lie within {hd95:.1f} pixels, {share:.0%} within 2."
        ).format(hd95=hd95, share=(distances <= 2).mean()),
    )


def show_outlines(
    hu: np.ndarray, truth: np.ndarray, prediction: np.ndarray, titles: Sequence[str] = ()
) -> Figure:
    """Slices with the outlines of true and predicted lesions: nothing is covered.

    Args:
        hu: (N, H, W), HU.
        truth: Class index (N, H, W).
        prediction: Class index (N, H, W).
        titles: One a slice.
    """
    columns = min(4, len(hu))
    rows = -(-len(hu) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.7 * rows + 0.4), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    lines = ((_("truth"), truth, "#FFFFFF", "-"), (_("network"), prediction, SERIES[1], "--"))
    for k, ax in zip(range(len(hu)), axes.flat):
        ax.imshow(grey_picture(hu[k]))
        for _name, labels, color, style in lines:
            region = np.isin(labels[k], LESIONS)
            if region.any():
                ax.contour(region, [0.5], colors=color, linestyles=style, linewidths=1.3)
        ax.set_title(titles[k] if k < len(titles) else "")
    for name, _labels, color, style in lines:
        axes[0, 0].plot([], [], style, color=color, label=name)
    legend = figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    legend.set_frame_on(True)
    legend.get_frame().set_facecolor("0.4")
    for text in legend.get_texts():
        text.set_color("white")
    return describe(
        figure,
        _(
            "{count} CT slices with the outlines of true lesions in white and of predicted ones "
            "dashed: {titles}."
        ).format(
            count=len(hu),
            titles=listed(
                [
                    titles[k] if k < len(titles) else _("slice {number}").format(number=k + 1)
                    for k in range(len(hu))
                ]
            ),
        ),
    )
