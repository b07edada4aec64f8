"""The figures of a case's report: each draws into a figure of its own or into a part of the page."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS, LUNG_WINDOW
from lungseg_utils.core.image import body_with_rim
from lungseg_utils.plots.slices import overlay
from lungseg_utils.report.case import Case
from lungseg_utils.report.quality import has_text
from lungseg_utils.report.severity import SIDES, THIRDS

INK, FAINT = "#22303c", "#7b8794"
GRADE_COLORS = ("#f4f6f8", "#fde4cf", "#f9b98a", "#ec8142", "#c1440e")
OUTLINED = [withStroke(linewidth=2, foreground="black")]


def draw_montage(figure: FigureBase, case: Case) -> None:
    """The most affected slices, three pictures of each.

    As it is, with the lesions, and the entropy in the lungs.
    """
    plan, labels, spacing, profile = (
        case.montage,
        case.labels,
        case.scan.spacing,
        case.summary["profile"],
    )
    hide = any(has_text(case.scan.hu[i]) for i in plan.chosen)
    aspect = spacing[1] / spacing[2] if spacing else 1
    axes = figure.subplots(*plan.grid, squeeze=False, gridspec_kw={"wspace": 0.01, "hspace": 0.01})
    for k, (i, three) in enumerate(zip(plan.chosen, axes if plan.flat else axes.T)):
        hu = case.scan.hu[i].astype(np.float32)
        if hide:
            hu[~body_with_rim(case.scan.hu[i])] = LUNG_WINDOW[0]
        hu, label = hu[plan.rows, plan.columns], labels[i, plan.rows, plan.columns]
        plain = overlay(hu, label, ())
        inside = np.ma.masked_where(label == BACKGROUND, case.entropy[i, plan.rows, plan.columns] / 255)
        three[0].imshow(plain, aspect=aspect)
        three[1].imshow(overlay(hu, label, LESIONS, 0.45), aspect=aspect)
        three[2].imshow(0.35 * plain, aspect=aspect)
        three[2].imshow(inside, "magma", vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
        lesion = sum(profile[CLASSES[c].short][i] for c in LESIONS)
        share = f": {100 * lesion / profile['lung'][i]:.0f} % involved" if profile["lung"][i] else ": no lung"
        three[0].set_title(f"slice {i + 1} of {len(labels)}{share}", fontsize=8, color=INK)
        for ax, name in zip(three, ("CT", "lesions", "entropy")):
            ax.set_axis_off()
            ax.text(
                0.02,
                0.97,
                "R",
                color="white",
                fontsize=8,
                va="top",
                transform=ax.transAxes,
                path_effects=OUTLINED,
            )
            if k == 0 and not plan.flat:
                beside = {"rotation": 90, "va": "center", "ha": "right", "transform": ax.transAxes}
                ax.text(-0.03, 0.5, name, fontsize=8, color=INK, **beside)
            elif plan.flat and name != "CT":
                ax.set_title(name, fontsize=8, color=INK)
    if spacing:
        _scale_bar(axes[0, 0 if plan.flat else -1], 50 / spacing[2], "5 cm")
    last = list(axes[:, 2] if plan.flat else axes[2])
    scale = ScalarMappable(Normalize(0, 1), "magma")
    bar = figure.colorbar(scale, ax=last, shrink=0.8, aspect=14, pad=0.01, ticks=(0, 0.5, 1))
    bar.ax.tick_params(labelsize=7, colors=INK)
    handles = [Patch(color=CLASSES[c].color, label=CLASSES[c].name) for c in LESIONS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _scale_bar(ax: Axes, length: float, text: str) -> None:
    """A white bar of `length` columns in the lower right corner."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = right - 0.04 * (right - left) - length, bottom + 0.05 * (top - bottom)
    outline = [withStroke(linewidth=3.5, foreground="black")]
    ax.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt", path_effects=outline)
    ax.text(
        x + length / 2, y, text, color="white", fontsize=7, ha="center", va="bottom", path_effects=OUTLINED
    )
    ax.set(xlim=(left, right), ylim=(bottom, top))


def regions_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measured regions by their names, in the order of bars and table."""
    regions = {"both lungs": summary["all"]} | {f"{name} lung": summary["sides"][name] for name in SIDES}
    if summary["thirds"]:
        regions |= {f"{name} third": summary["thirds"][name] for name in reversed(THIRDS)}
    return regions


def draw_bars(figure: FigureBase, case: Case) -> None:
    """Share of the lung that each lesion class takes, stacked, for the whole, each side and each third."""
    regions, ax = regions_of(case.summary), figure.subplots()
    left = np.zeros(len(regions))
    for c in LESIONS:
        width = np.array([region["percent_of_lung"][CLASSES[c].short] or 0 for region in regions.values()])
        ax.barh(list(regions), width, left=left, color=CLASSES[c].color, height=0.66)
        left += width
    reach = max(left.max(), 5.0)
    for k, region in enumerate(regions.values()):
        ax.text(left[k] + 0.015 * reach, k, _amount(region), va="center", fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.45 * reach)
    _plain(ax, "involved, % of the region's lung", "Involvement")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _amount(region: dict[str, Any]) -> str:
    share, ml = region["percent_of_lung"]["involved"], region["millilitres"]
    if share is None:
        return "no lung found"
    return f"{share:.1f} %" + (f" ({ml['involved']:,.0f} ml)" if ml else "")


def draw_zones(figure: FigureBase, case: Case) -> None:
    """The six zones as they lie in the pictures, each with its share and grade.

    The patient's right is at the left.
    """
    score, ax = case.summary["score"], figure.subplots()
    for x, side in enumerate(SIDES):
        for y, third in enumerate(THIRDS):
            zone = score["zones"][f"{side}_{third}"]
            color = GRADE_COLORS[zone["grade"]] if zone else "white"
            box = Rectangle(
                (x + 0.02, y + 0.03), 0.96, 0.94, facecolor=color, edgecolor="#c5ced6", linewidth=0.8
            )
            ax.add_patch(box)
            dark = "white" if zone and zone["grade"] == 4 else INK
            ax.text(
                x + 0.5,
                y + 0.62,
                str(zone["grade"]) if zone else "-",
                ha="center",
                va="center",
                fontsize=13,
                color=dark,
            )
            words = f"{zone['percent']:.1f} %" if zone else "no lung"
            ax.text(x + 0.5, y + 0.24, words, ha="center", va="center", fontsize=7.5, color=dark)
    ax.set_xticks([0.5, 1.5], ["right", "left"])
    ax.set_yticks([0.5, 1.5, 2.5], THIRDS)
    ax.set(xlim=(0, 2), ylim=(0, 3))
    _plain(ax, "", f"Severity score {score['total']} of {score['of']}")
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def draw_profile(figure: FigureBase, case: Case) -> None:
    """Area of lung and of each lesion class along z, the head up.

    In volumes with the limits of the thirds.
    """
    profile, ax = case.summary["profile"], figure.subplots()
    position, total = np.array(profile["position"]), np.zeros(len(profile["lung"]))
    lung = np.array(profile["lung"])
    steps = np.diff(position)
    edges = np.r_[position[0] - steps[0] / 2, position[1:] - steps / 2, position[-1] + steps[-1] / 2]
    ax.stairs(lung, edges, orientation="horizontal", fill=True, color="#e4e9ed")
    ax.stairs(lung, edges, orientation="horizontal", color=FAINT, linewidth=0.6)
    for c in LESIONS:
        area = np.array(profile[CLASSES[c].short])
        ax.stairs(
            total + area, edges, baseline=total, orientation="horizontal", fill=True, color=CLASSES[c].color
        )
        total = total + area
    for limit in (profile["third_limits"] or [])[1:3]:
        ax.axhline(limit, color=INK, linewidth=0.6, linestyle=":")
    unit = {"cm2": "cm²", "pixels": "pixels"}[profile["area_unit"]]
    ax.set(ylim=(edges[0], edges[-1]), xlim=(0, None))
    ax.locator_params(axis="x", nbins=4)
    _plain(ax, f"area, {unit}", "Along the body" if profile["position_unit"] == "mm" else "By slice")
    ax.set_ylabel(
        "mm above the lowest slice" if profile["position_unit"] == "mm" else "slice", fontsize=8, color=INK
    )


def _plain(ax: Axes, xlabel: str, title: str) -> None:
    ax.set_xlabel(xlabel, fontsize=8, color=INK)
    ax.set_title(title, fontsize=9.5, color=INK, loc="left", fontweight="bold")
    ax.tick_params(labelsize=8, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)


DRAW = {"montage": draw_montage, "bars": draw_bars, "zones": draw_zones, "profile": draw_profile}
