"""The figures of a case's report: each draws into a figure of its own or into a part of the page."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lungseg_utils.core.classes import BACKGROUND, CLASSES, LESIONS
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.parts import class_patch, seen_on, whole
from lungseg_utils.plots.slices import CASED, mark_sides, overlay, seen, show_labels
from lungseg_utils.report.case import Case
from lungseg_utils.report.severity import SIDES, THIRDS

INK, FAINT = "#22303c", "#5d6975"
PRINT = 8  # points: no print on the page is smaller
SCALE_BAR = 50  # mm
PLACES = {  # sides and thirds as people read them
    "right": N_("right lung"),
    "left": N_("left lung"),
    "upper": N_("upper third"),
    "middle": N_("middle third"),
    "lower": N_("lower third"),
}
KINDS = (N_("CT"), N_("lesions"), N_("entropy"))  # pictures of a slice
# An involved share from 0 to 1, between the limits of the grades: within a grade, too, more is darker.
INVOLVEMENT = LinearSegmentedColormap.from_list(
    "involvement", list(zip((0, 0.25, 0.5, 0.75, 1), ("#f4f6f8", "#fbd3b1", "#f3a262", "#d9601f", "#9c2f04")))
)


def draw_tile(ax: Axes, case: Case, index: int, kind: str) -> None:
    """One picture of a slice, cropped to the lungs: as it is, with the lesions, or the entropy in the lungs.

    Args:
        ax: Where to draw; without ticks and frame afterwards.
        case: Whose slice.
        index: From 0.
        kind: One of KINDS.
    """
    plan, scan = case.montage, case.scan
    hu, label = case.picture(index), case.labels[index, plan.rows, plan.columns]
    if kind == "lesions":
        show_labels(ax, hu, label)
    else:
        ax.imshow(overlay(hu, label, ()) * (0.5 if kind == "entropy" else 1))
    if kind == "entropy":
        undecided = case.entropy[index, plan.rows, plan.columns] / 255
        inside = np.ma.masked_where(label == BACKGROUND, undecided)
        ax.imshow(inside, "magma", vmin=0, vmax=1, interpolation="nearest")
    ax.set_aspect(scan.spacing[1] / scan.spacing[2] if scan.spacing else 1)
    ax.set_axis_off()


def involved_in(case: Case, index: int) -> str:
    """Which slice, and how much of its lung is involved."""
    profile, count = case.summary["profile"], len(case.labels)
    lung = profile["lung"][index]
    if not lung:
        return _("slice {number} of {count}: no lung").format(number=index + 1, count=count)
    lesion = sum(profile[CLASSES[c].short][index] for c in LESIONS)
    return _("slice {number} of {count}: {share:.0f} % involved").format(
        number=index + 1, count=count, share=100 * lesion / lung
    )


def told_of(case: Case, index: int, kind: str) -> str:
    """The alternative text of a slice's picture: what is seen."""
    number, label = index + 1, case.labels[index]
    lung = label != BACKGROUND
    if kind == "CT":
        return _("CT slice {number} of {count} in the lung window, cropped to the lungs.").format(
            number=number, count=len(case.labels)
        )
    if not lung.any():
        return _("Slice {number}: no lung was found.").format(number=number)
    if kind == "entropy":
        undecided = case.entropy[index][lung] / 255
        return _(
            "Entropy in the lungs of slice {number}: {mean:.2f} on average, above 0.5 "
            "in {share:.1f} % of the lung."
        ).format(number=number, mean=undecided.mean(), share=100 * (undecided > 0.5).mean())
    return _("Slice {number} with the lesions outlined: {seen}.").format(number=number, seen=seen(label))


def draw_montage(figure: FigureBase, case: Case) -> None:
    """The most affected slices, three pictures of each.

    As it is, with the lesions, and the entropy in the lungs.
    """
    plan, spacing = case.montage, case.scan.spacing
    axes = figure.subplots(*plan.grid, squeeze=False, gridspec_kw={"wspace": 0.01, "hspace": 0.01})
    for k, (i, three) in enumerate(zip(plan.chosen, axes if plan.flat else axes.T)):
        for ax, kind in zip(three, KINDS):
            draw_tile(ax, case, i, kind)
            mark_sides(ax, PRINT)
            if k == 0 and not plan.flat:
                beside = {"rotation": 90, "va": "center", "ha": "right", "transform": ax.transAxes}
                ax.text(-0.03, 0.5, _(kind), fontsize=PRINT, color=INK, **beside)
            elif plan.flat and kind != "CT":
                ax.set_title(_(kind), fontsize=PRINT, color=INK)
        three[0].set_title(involved_in(case, i), fontsize=PRINT, color=INK)
    if spacing:
        _scale_bar(axes[0, 0 if plan.flat else -1], SCALE_BAR / spacing[2], f"{SCALE_BAR / 10:.0f} cm")
    last = list(axes[:, 2] if plan.flat else axes[2])
    scale = ScalarMappable(Normalize(0, 1), "magma")
    bar = figure.colorbar(scale, ax=last, shrink=0.8, aspect=14, pad=0.01, ticks=(0, 0.5, 1))
    bar.ax.tick_params(labelsize=PRINT, colors=INK)
    handles = [class_patch(c) for c in LESIONS]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=PRINT)


def _scale_bar(ax: Axes, length: float, text: str) -> None:
    """A white bar of `length` columns in the lower right corner."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = right - 0.04 * (right - left) - length, bottom + 0.05 * (top - bottom)
    outline = [withStroke(linewidth=3.5, foreground="black")]
    ax.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt", path_effects=outline)
    ax.text(
        x + length / 2, y, text, color="white", fontsize=PRINT, ha="center", va="bottom", path_effects=CASED
    )
    ax.set(xlim=(left, right), ylim=(bottom, top))


def regions_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The measured regions by their names, in the order of bars and table."""
    regions = {_("both lungs"): summary["all"]}
    regions |= {_(PLACES[name]): summary["sides"][name] for name in SIDES}
    if summary["thirds"]:
        regions |= {_(PLACES[name]): summary["thirds"][name] for name in reversed(THIRDS)}
    return regions


def draw_bars(figure: FigureBase, case: Case) -> None:
    """Share of the lung that each lesion class takes, stacked, for the whole, each side and each third."""
    regions, ax = regions_of(case.summary), figure.subplots()
    left = np.zeros(len(regions))
    for c in LESIONS:
        width = np.array([region["percent_of_lung"][CLASSES[c].short] or 0 for region in regions.values()])
        patch = class_patch(c)
        look: dict[str, Any] = {
            "facecolor": patch.get_facecolor(),
            "edgecolor": patch.get_edgecolor(),
            "hatch": patch.get_hatch(),
        }
        ax.barh(list(regions), width, left=left, height=0.66, label=CLASSES[c].name, linewidth=0.5, **look)
        left += width
    reach = max(left.max(), 5.0)
    for k, region in enumerate(regions.values()):
        ax.text(left[k] + 0.015 * reach, k, _amount(region), va="center", fontsize=PRINT, color=INK)
    figure.legend(loc="outside lower center", fontsize=PRINT, frameon=False, ncols=2)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.45 * reach)
    _plain(ax, _("involved, % of the region's lung"), _("Involvement"))
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _amount(region: dict[str, Any]) -> str:
    share, ml = region["percent_of_lung"]["involved"], region["millilitres"]
    if share is None:
        return _("no lung found")
    return f"{share:.1f} %" + (f" ({whole(ml['involved'])} ml)" if ml else "")


def draw_zones(figure: FigureBase, case: Case) -> None:
    """The six zones as they lie in the pictures, each with its share and grade.

    The patient's right is at the left.
    """
    score, ax = case.summary["score"], figure.subplots()
    for x, side in enumerate(SIDES):
        for y, third in enumerate(THIRDS):
            zone = score["zones"][f"{side}_{third}"]
            color = zone_color(zone)
            box = Rectangle(
                (x + 0.02, y + 0.03), 0.96, 0.94, facecolor=color, edgecolor="#8b97a2", linewidth=0.8
            )
            ax.add_patch(box)
            grade, words = zone_words(zone)
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": seen_on(color)}
            ax.text(x + 0.5, y + 0.64, grade, fontsize=PRINT + 2, **style)
            ax.text(x + 0.5, y + 0.26, words, fontsize=PRINT, **style)
    ax.set_xticks([0.5, 1.5], [_("right"), _("left")])
    ax.set_yticks([0.5, 1.5, 2.5], [_("lower"), _("middle"), _("upper")])
    ax.set(xlim=(0, 2), ylim=(0, 3))
    _plain(ax, "", _("Severity score {total} of {of}").format(total=score["total"], of=score["of"]))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    scale = ScalarMappable(Normalize(0, 100), INVOLVEMENT)
    bar = figure.colorbar(scale, ax=ax, orientation="horizontal", ticks=(0, 25, 50, 75, 100), aspect=18)
    bar.ax.tick_params(labelsize=PRINT, colors=INK)
    bar.set_label(_("% of the zone involved"), fontsize=PRINT, color=INK)


def zone_color(zone: dict[str, Any] | None) -> str:
    """The colour of a zone by its involved share; white without lung."""
    return to_hex(INVOLVEMENT(zone["percent"] / 100)) if zone else "#ffffff"


def zone_words(zone: dict[str, Any] | None) -> tuple[str, str]:
    """A zone's grade and its share."""
    return (
        (_("grade {grade}").format(grade=zone["grade"]), f"{zone['percent']:.1f} %")
        if zone
        else ("-", _("no lung"))
    )


def draw_profile(figure: FigureBase, case: Case, points: float = PRINT) -> None:
    """Area of lung and of each lesion class along z, the head up.

    In volumes with the limits of the thirds. points: Size of the print.
    """
    profile, ax = case.summary["profile"], figure.subplots()
    position, total = np.array(profile["position"]), np.zeros(len(profile["lung"]))
    lung = np.array(profile["lung"])
    steps = np.diff(position)
    edges = np.r_[position[0] - steps[0] / 2, position[1:] - steps / 2, position[-1] + steps[-1] / 2]
    side: dict[str, Any] = {"orientation": "horizontal", "fill": True}
    ax.stairs(lung, edges, facecolor="#e4e9ed", edgecolor=FAINT, linewidth=0.8, label=_("lung"), **side)
    for c in LESIONS:
        area, patch = np.array(profile[CLASSES[c].short]), class_patch(c)
        look: dict[str, Any] = {
            "facecolor": patch.get_facecolor(),
            "edgecolor": patch.get_edgecolor(),
            "hatch": patch.get_hatch(),
        }
        ax.stairs(total + area, edges, baseline=total, label=CLASSES[c].name, linewidth=0.3, **look, **side)
        total = total + area
    for k, limit in enumerate((profile["third_limits"] or [])[1:3]):
        ax.axhline(
            limit, color=INK, linewidth=1, linestyle=":", label=_("limits of the thirds") if k == 0 else None
        )
    unit = {"cm2": "cm²", "pixels": _("pixels")}[profile["area_unit"]]
    ax.set(ylim=(edges[0], edges[-1]), xlim=(0, None))
    ax.locator_params(axis="x", nbins=4)
    in_mm = profile["position_unit"] == "mm"
    _plain(ax, _("area, {unit}").format(unit=unit), _("Along the body") if in_mm else _("By slice"), points)
    ax.set_ylabel(_("mm above the lowest slice") if in_mm else _("slice"), fontsize=points, color=INK)
    figure.legend(loc="outside lower center", fontsize=points, frameon=False)


def told_of_profile(case: Case) -> str:
    """The alternative text of the profile."""
    profile = case.summary["profile"]
    lesion = np.sum([profile[CLASSES[c].short] for c in LESIONS], axis=0)
    most = int(lesion.argmax())
    if not lesion[most]:
        return _("Area of the lungs along the body; no lesion was found.")
    unit = {"cm2": "cm²", "pixels": _("pixels")}[profile["area_unit"]]
    return _(
        "Area of lung and lesions along the body. Lesions are largest in slice {number}: "
        "{lesion:.0f} {unit} of {lung:.0f} {unit} lung."
    ).format(number=most + 1, lesion=lesion[most], unit=unit, lung=profile["lung"][most])


def _plain(ax: Axes, xlabel: str, title: str, points: float = PRINT) -> None:
    ax.set_xlabel(xlabel, fontsize=points, color=INK)
    ax.set_title(title, fontsize=points + 1.5, color=INK, loc="left", fontweight="bold")
    ax.tick_params(labelsize=points, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)


DRAW = {"montage": draw_montage, "bars": draw_bars, "zones": draw_zones, "profile": draw_profile}
