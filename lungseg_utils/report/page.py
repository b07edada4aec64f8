"""The report of a case: report.json, and one page as report.html and report.png."""

import io
import json
import shutil
import textwrap
from contextlib import suppress
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lungseg_utils.core.classes import CLASSES, CONSOLIDATION, GROUND_GLASS, LESIONS, LUNG_WINDOW
from lungseg_utils.core.files import InputError, atomic_write, replace_folder, resolve_path
from lungseg_utils.core.image import data_address
from lungseg_utils.core.language import language_now
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.core.language import translate_many as ngettext
from lungseg_utils.plots.parts import alt_text, describe, seen_on, whole
from lungseg_utils.report.case import Case
from lungseg_utils.report.figures import (
    DRAW,
    FAINT,
    INK,
    KINDS,
    PLACES,
    PRINT,
    SCALE_BAR,
    draw_profile,
    draw_tile,
    involved_in,
    regions_of,
    told_of,
    told_of_profile,
    zone_color,
    zone_words,
)
from lungseg_utils.report.severity import SIDES, THIRDS
from lungseg_utils.scans.archives import REPORT, is_case
from lungseg_utils.scans.io import write_masks
from lungseg_utils.scans.scan import Scan

A4 = (8.27, 11.69)  # inches
TILE = 2.6  # inches: the width of a picture in the HTML
ALARM = "#a3260b"
TITLE = N_("Lung involvement in chest CT")
REPORT_BYTES = 16 * 2**20  # for the reports, which are some megabytes
THUMBNAIL = "thumbnail.jpg"
CASE_FILES = {
    *(REPORT, "report.html", "report.png", THUMBNAIL),
    *("mask.nii.gz", "mask.dcm", "mask.npy", "mask.png"),
}
LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # of file managers that looked at a folder


def check_case_folder(folder: str | Path) -> Path:
    """The absolute path; InputError unless it is new, empty or holds an earlier case and nothing else."""
    folder = resolve_path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the results; choose another name.")
    inside = {path.name for path in folder.iterdir()} - LITTER if folder.exists() else set()
    others = sorted(inside - CASE_FILES) or sorted(inside if inside and not is_case(folder) else ())
    if others:
        raise InputError(
            f"{folder} holds {others[0]}; expected nothing but an earlier case; choose another folder."
        )
    return folder


def check_room(folder: str | Path, scan: Scan) -> Path:
    """`check_case_folder`, and whether masks and reports of scan fit in there.

    Asked before the minutes of a prediction.
    """
    folder = check_case_folder(folder)
    need = REPORT_BYTES + scan.hu.size * (1 if scan.kind in ("array", "picture") else 3 / 8)
    with suppress(_Enough), replace_folder(folder) as new:
        free = shutil.disk_usage(new).free
        raise _Enough
    if free < need:
        found = f"{folder} has {free / 2**20:,.0f} MiB of room"
        raise InputError(
            f"{found}; expected {need / 2**20:,.0f} MiB for masks and reports; choose another folder."
        )
    return folder


class _Enough(Exception):
    """Ends a trial of `replace_folder`, which then leaves everything as it was."""


def save_case(
    case: Case, folder: str | Path, keep_identity: bool = False, thumbnail: bytes | None = None
) -> Path:
    """Write the masks in the scan's own grid, report.json, report.html and report.png.

    Args:
        case: From `predict_case`.
        folder: An earlier case there is replaced.
        keep_identity: See `scans.write_masks`; the reports never carry any.
        thumbnail: A JPEG, written beside them; for the page of many cases.

    Raises:
        InputError: If `folder` holds something else or cannot be written; it stays as it was.
    """
    try:
        folder = check_case_folder(folder)
        with replace_folder(folder) as new:
            write_masks(case.scan, case.labels, new, keep_identity)
            write_report(case, new)
            if thumbnail:
                (new / THUMBNAIL).write_bytes(thumbnail)
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror or type(error).__name__})"
        raise InputError(f"{found}; expected a folder with room and rights; choose another.") from error
    return folder


def write_report(case: Case, folder: Path) -> None:
    """Write report.json, report.html and report.png into `folder`."""
    with atomic_write(folder / REPORT) as handle:
        json.dump(case.summary, handle, indent=2, allow_nan=False)
    with atomic_write(folder / "report.html") as handle:
        handle.write(report_html(case))
    with atomic_write(folder / "report.png", "wb") as handle:
        page = report_page(case)
        page.savefig(handle, format="png", dpi=150, metadata={"Description": alt_text(page)})


def _panels(summary: dict[str, Any]) -> list[str]:
    there = {
        "montage": True,
        "bars": True,
        "zones": summary["score"],
        "profile": len(summary["profile"]["lung"]) > 1,
    }
    return [name for name, wanted in there.items() if wanted]


def key_numbers(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(value, what it is) of what a reader looks for first; also what the command prints."""
    share, ml, score = summary["all"]["percent_of_lung"], summary["all"]["millilitres"], summary["score"]
    if share["involved"] is None:
        return [("-", _("numbers withheld") if summary["withheld"] else _("no lung found"))]
    numbers = [(f"{share['involved']:.1f} %", _("of the lungs involved"))]
    numbers += [(f"{share[CLASSES[c].short]:.1f} %", CLASSES[c].name) for c in LESIONS]
    if score:
        numbers.append((_("{total} of {of}").format(**score), _("severity score")))
    if ml:
        numbers += [
            (f"{whole(ml['involved'])} ml", _("involved")),
            (f"{whole(ml['lung'])} ml", _("lung in the scan")),
        ]
    return numbers


def scan_line(summary: dict[str, Any]) -> str:
    """The scan in one line: what the file says of it, without anything of the patient."""
    scan = summary["scan"]
    count = ngettext(
        "{slices} slice of {rows} x {columns} pixels",
        "{slices} slices of {rows} x {columns} pixels",
        scan["slices"],
    ).format(**scan)
    spacing = scan["spacing_mm"]
    size = (
        _("pixels {height:.2f} x {width:.2f} mm").format(height=spacing[1], width=spacing[2])
        if spacing
        else _("size of a pixel not known")
    )
    apart = _(", {step:.2f} mm apart").format(step=spacing[0]) if spacing and scan["volume"] else ""
    units = _("Hounsfield units") if scan["hounsfield_units"] else _("estimated Hounsfield units")
    return f"{count}{apart}; {size}; {units}"


def model_line(card: dict[str, Any]) -> str:
    """The model in one line; what its config.json does not say is left out."""

    def known(*names: str) -> bool:
        return all(card.get(name) is not None for name in names)

    named = known("architecture", "encoder")
    parts = [f"{card['architecture']}, {card['encoder']}" if named else _("network not named")]
    if known("image_size"):
        parts.append(_("slices at {image_size} pixels").format(**card))
    if known("train_slices"):
        parts.append(_("trained on {train_slices} slices").format(**card))
    if known("val_miou", "val_lesion_dice"):
        said = _("on its validation slices mIoU {val_miou:.2f}, lesion Dice {val_lesion_dice:.2f}")
        parts.append(said.format(**card))
    if known("weights"):
        parts.append(_("weights {weights}").format(**card))
    return "; ".join(parts)


def _model_said(summary: dict[str, Any]) -> str:
    said = _("Model: {model}. {software}.")
    return said.format(model=model_line(summary["model"]), software=summary["software"])


def _explained(summary: dict[str, Any]) -> str:
    """How to read the page: window, numbering, score, entropy."""
    low, high = LUNG_WINDOW
    parts = [_("Lung window {low} to {high} HU; R is the patient's right;").format(low=low, high=high)]
    parts += [
        _("slices are counted from the feet.")
        if summary["scan"]["kind"] in ("nifti", "dicom")
        else _("slices are counted as in the file.")
    ]
    if summary["score"]:
        said = _(
            "Severity score {method}; grades 0 to 4: 0 %, below 25, below 50, below 75 % involved, more."
        )
        parts.append(said.format(**summary["score"]))
    parts.append(
        _(
            "Entropy: 0 the network is certain of one class, 1 it is undecided among all four; it can be "
            "certain and wrong."
        )
    )
    return " ".join(parts)


def report_page(case: Case) -> Figure:
    """The whole page as one figure, A4 upright."""
    summary, panels = case.summary, _panels(case.summary)[1:]
    page = Figure(figsize=A4, layout="constrained", facecolor="white")
    bullet: dict[str, Any] = {"initial_indent": "\u2022 ", "subsequent_indent": "   "}
    notes = [line for text in case.warnings for line in textwrap.wrap(text, 130, **bullet)]
    small = [
        line for text in (_explained(summary), _model_said(summary)) for line in textwrap.wrap(text, 130)
    ]
    heights = (
        1.35,
        case.montage.height(A4[0]),
        3.3 if "zones" in panels else 2.6,
        0.16 * (len(notes or "-") + len(small)) + 1.05,
    )
    page.set_size_inches(
        A4[0], max(A4[1], sum(heights))
    )  # many doubts make a longer page rather than a smaller print
    if (spare := A4[1] - sum(heights)) > 0:
        heights = (*heights[:3], heights[3] + spare)
    parts: Any = page.subfigures(4, 1, height_ratios=heights)
    head, montage, charts, foot = parts
    head.text(0.02, 0.84, _(TITLE), fontsize=17, fontweight="bold", color=INK, va="center")
    named = f"{summary['case']}   {date.today().isoformat()}"
    head.text(0.98, 0.84, named, fontsize=9, color=FAINT, ha="right", va="center")
    head.text(0.02, 0.63, scan_line(summary), fontsize=8.5, color=FAINT, va="center")
    for k, (value, words) in enumerate(key_numbers(summary)):
        head.text(0.02 + 0.163 * k, 0.33, value, fontsize=15, fontweight="bold", color=INK, va="center")
        head.text(0.02 + 0.163 * k, 0.10, words, fontsize=PRINT, color=FAINT, va="center")
    DRAW["montage"](montage, case)
    widths = {"bars": 5.0, "zones": 2.5, "profile": 2.9}
    row = charts.subfigures(1, len(panels), width_ratios=[widths[name] for name in panels], squeeze=False)[0]
    for figure, name in zip(row, panels):
        DRAW[name](figure, case)
    lines = [(_("Doubts and notes"), "bold", 8.5), *((text, "normal", 8) for text in notes or [_("None.")])]
    lines += [("", "normal", 5), *((text, "small", PRINT) for text in small)]
    y, inch = 0.97, 1 / heights[3]
    for text, weight, size in lines:
        style = (
            {"fontweight": "normal", "color": FAINT}
            if weight == "small"
            else {"fontweight": weight, "color": INK}
        )
        foot.text(0.02, y, text, fontsize=size, va="top", **style)
        y -= 1.45 * size / 72 * inch
    statement = "\n".join(textwrap.wrap(summary["statement"], 100))
    foot.text(0.5, 0.03, statement, fontsize=9, fontweight="bold", color=ALARM, ha="center", va="bottom")
    return describe(page, told_of_page(case))


def told_of_page(case: Case) -> str:
    """The page's alternative text: its headline and what it shows."""
    numbers = "; ".join(f"{words} {value}" for value, words in key_numbers(case.summary))
    slices = "; ".join(involved_in(case, i) for i in case.montage.chosen)
    name = case.summary["case"]
    return _("Report of {name}, one page. {numbers}. Pictures of the most affected slices: {slices}.").format(
        name=name, numbers=numbers, slices=slices
    )


def report_html(case: Case) -> str:
    """The page as HTML that needs nothing else: pictures inside, no script, every text escaped.

    Words and numbers are text, so that a phone shows them in its own size and a screen reader reads them.
    """
    summary = case.summary
    cards = "".join(
        f"<div><b>{escape(v)}</b><span>{escape(words)}</span></div>" for v, words in key_numbers(summary)
    )
    doubts = "".join(f"<li>{escape(text)}</li>" for text in case.warnings) or f"<li>{_('None.')}</li>"
    return PAGE.format(
        title=escape(_(TITLE)),
        case=escape(summary["case"]),
        date=date.today().isoformat(),
        scan=escape(scan_line(summary)),
        cards=cards,
        slices="".join(_slice(case, index) for index in case.montage.chosen),
        count=len(case.montage.chosen),
        legend=_legend(),
        zones=_zones(summary) if summary["score"] else "",
        profile=_profile(case) if "profile" in _panels(summary) else "",
        table=_table(summary),
        doubts=doubts,
        explained=escape(_explained(summary)),
        model=escape(_model_said(summary)),
        language=language_now(),
        most_affected=_("The most affected slices"),
        doubts_title=_("Doubts and notes"),
        statement=escape(summary["statement"]),
    )


def _slice(case: Case, index: int) -> str:
    """A slice's three pictures with their marks; words and scale bar are text over them."""
    plan, spacing, pictures = case.montage, case.scan.spacing, []
    bar = ""
    if spacing:
        share = 100 * SCALE_BAR / spacing[2] / (plan.columns.stop - plan.columns.start)
        bar = f'<i class="bar" style="width:{share:.1f}%">{SCALE_BAR / 10:.0f} cm</i>'
    for kind in KINDS:
        figure = Figure(figsize=(TILE, TILE / plan.shape), frameon=False)
        figure.set_layout_engine("none")
        draw_tile(figure.add_axes((0, 0, 1, 1)), case, index, kind)
        picture = f'<img alt="{escape(told_of(case, index, kind))}" src="{_embedded(figure)}">'
        marks = f'<i class="r">R</i><i class="l">L</i>{bar}'
        pictures.append(f"<figure>{picture}{marks}<figcaption>{_(kind)}</figcaption></figure>")
    return f"<section><h3>{escape(involved_in(case, index))}</h3>{''.join(pictures)}</section>"


def _embedded(figure: Figure) -> str:
    """The figure as a data: address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=170, pil_kwargs={"quality": 85})
    return data_address(buffer.getvalue())


def _legend() -> str:
    """Names of the lesions' colours, and of entropy's."""
    lesions = "".join(
        f'<span><i class="{CLASSES[c].short}"></i>{escape(CLASSES[c].name)}</span>' for c in LESIONS
    )
    return f'{lesions}<span><i class="entropy"></i>{_("entropy, from 0 to 1")}</span>'


def _profile(case: Case) -> str:
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    draw_profile(figure, case, 12)
    return f'<img class="profile" alt="{escape(told_of_profile(case))}" src="{_embedded(figure)}">'


def _zones(summary: dict[str, Any]) -> str:
    """The six zones as they lie in the pictures, coloured by their involved share."""
    score, rows = summary["score"], []
    for third in reversed(THIRDS):
        cells = []
        for side in SIDES:
            zone = score["zones"][f"{side}_{third}"]
            color = zone_color(zone)
            grade, words = zone_words(zone)
            style = f"background:{color};color:{seen_on(color)}"
            cells.append(f'<td style="{style}"><b>{escape(grade)}</b><br>{escape(words)}</td>')
        rows.append(f'<tr><th scope="row">{_(PLACES[third])}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{_(PLACES[side])}</th>' for side in SIDES)
    caption = _("Severity score {total} of {of}; the darker, the more of a zone is involved").format(**score)
    return f'<table class="zones"><caption>{caption}</caption><tr><td></td>{head}</tr>{"".join(rows)}</table>'


def _table(summary: dict[str, Any]) -> str:
    """Rows by region, columns by class.

    Per cent of the region's lung and, where they are known, millilitres; below a region's name, its bar.
    """
    names = {"involved": _("involved"), **{CLASSES[c].short: CLASSES[c].name for c in LESIONS}}
    regions = regions_of(summary)
    ml = summary["all"]["millilitres"] is not None
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names.values())
    head += f'<th scope="col">{_("lung")}</th>' if ml else ""
    longest = max([5.0, *(region["percent_of_lung"]["involved"] or 0 for region in regions.values())])
    rows = []
    for title, region in regions.items():
        cells = []
        for name in names:
            share = region["percent_of_lung"][name]
            amount = f" <i>{whole(region['millilitres'][name])} ml</i>" if ml and share is not None else ""
            cells.append(f"<td>{'-' if share is None else f'{share:.1f} %'}{amount}</td>")
        if ml:
            cells.append(f"<td>{whole(region['millilitres']['lung'])} ml</td>")
        bars = "".join(
            f'<i class="{CLASSES[c].short}" style="width:{_part(region, c, longest):.1f}%"></i>'
            for c in LESIONS
        )
        bar = f'<span class="stack" aria-hidden="true">{bars}</span>'
        rows.append(f'<tr><th scope="row">{escape(title)}{bar}</th>{"".join(cells)}</tr>')
    caption = _("Involvement, % of the region's lung; a full bar is {longest:.1f} %").format(longest=longest)
    return f"<table><caption>{caption}</caption><tr><td></td>{head}</tr>{''.join(rows)}</table>"


def _part(region: dict[str, Any], c: int, longest: float) -> float:
    """A class's part of the longest bar, per cent."""
    return 100 * (region["percent_of_lung"][CLASSES[c].short] or 0) / longest


PAGE = (
    """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{case}: {title}</title>
<style>
@page {{ size: A4; margin: 9mm; }}
body {{ font: 14px/1.4 "Helvetica Neue", Arial, sans-serif; color: #22303c; background: white; }}
body {{ max-width: 900px; margin: 18px auto; padding: 0 14px; }}
header {{ display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; }}
header {{ border-bottom: 2px solid #22303c; gap: 0 12px; }}
h1 {{ font-size: 22px; margin: 0 0 4px; }}
h2 {{ font-size: 16px; margin: 14px 0 2px; }}
h3 {{ font-size: 13px; font-weight: normal; margin: 0 0 2px; grid-column: 1 / -1; }}
p, ul {{ margin: 3px 0; }}
ul {{ padding-left: 18px; }}
.faint {{ color: #5d6975; }}
.cards {{ display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0; }}
.cards div {{ flex: 1; background: #f2f5f7; border-radius: 6px; padding: 6px 10px; white-space: nowrap; }}
.cards b {{ display: block; font-size: 18px; }}
.cards span {{ color: #5d6975; font-size: 12px; }}
.slices {{ display: grid; grid-template-columns: repeat({count}, 1fr); gap: 4px; }}
.slices section {{ display: grid; gap: 2px; align-content: start; }}
figure {{ margin: 0; position: relative; }}
figure img {{ width: 100%; display: block; }}
figcaption {{ font-size: 12px; }}
figure i {{ position: absolute; color: white; font: bold 13px Arial, sans-serif; }}
figure i {{ text-shadow: 0 0 3px black, 0 0 3px black; }}
.r {{ left: 4px; top: 3px; }} .l {{ right: 4px; top: 3px; }}
figure .bar {{ right: 4%; bottom: 26px; border-bottom: 3px solid white; }}
figure .bar {{ text-align: center; white-space: nowrap; font-size: 12px; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; margin: 6px 0; }}
.legend i {{ display: inline-block; width: 26px; height: 12px; margin-right: 5px; }}
.legend i {{ border: 1px solid #22303c; }}
.legend .entropy {{ width: 60px; }}
.ground_glass {{ background: GROUND_GLASS; }}
.consolidation {{ background: repeating-linear-gradient(135deg, CONSOLIDATION 0 4px, #ffffff 4px 5px); }}
.entropy {{ background: linear-gradient(to right, MAGMA); }}
.charts {{ display: flex; flex-wrap: wrap; justify-content: space-around; gap: 12px; margin: 14px 0; }}
.profile {{ width: 420px; max-width: 100%; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; margin: 10px 0 4px; font-size: 13px; }}
caption {{ text-align: left; font-weight: bold; padding-bottom: 3px; }}
td, th {{ border-bottom: 1px solid #dde3e8; padding: 3px 6px; text-align: right; }}
td, th {{ font-variant-numeric: tabular-nums; }}
th[scope=row] {{ text-align: left; font-weight: normal; }}
td i {{ color: #5d6975; font-style: normal; display: inline-block; min-width: 56px; }}
.stack {{ display: flex; height: 7px; min-width: 84px; }}
.zones {{ width: 380px; max-width: 100%; align-self: start; border-collapse: separate; border-spacing: 3px; }}
.zones td, .zones th {{ text-align: center; padding: 9px 6px; border: 0; }}
.statement {{ border: 2px solid #a3260b; color: #a3260b; border-radius: 6px; font-weight: bold; }}
.statement {{ padding: 6px 10px; margin-top: 8px; }}
@media (max-width: 600px) {{
  .slices {{ grid-template-columns: 1fr; gap: 12px; }}
  .slices section {{ grid-template-columns: 1fr 1fr; }}
  .slices h3 {{ order: -2; }} figure:nth-of-type(2) {{ order: -1; grid-column: 1 / -1; }}
  .cards div {{ flex: 1 1 40%; white-space: normal; }}
  td, th {{ padding: 3px; font-size: 12px; }} }}
@media print {{
  body {{ max-width: none; margin: 0; padding: 0; font-size: 8pt; }}
  body {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  table, figcaption, .legend, .cards span, h3 {{ font-size: 8pt; }} td, th {{ padding: 1px 6px; }}
  .cards b {{ font-size: 15px; }} .profile {{ width: 300px; }} .zones td, .zones th {{ padding: 3px; }}
  section, table, .charts {{ break-inside: avoid; }} .charts {{ margin: 4px 0; }} }}
</style>
</head>
<body>
<header><h1>{title}</h1><span class="faint">{case} &nbsp; {date}</span></header>
<p class="faint">{scan}</p>
<div class="cards">{cards}</div>
<h2>{most_affected}</h2>
<div class="slices">{slices}</div>
<div class="legend">{legend}</div>
<div class="wide">{table}</div>
<div class="charts">{zones}{profile}</div>
<h2>{doubts_title}</h2>
<ul>{doubts}</ul>
<p class="faint">{explained}</p>
<p class="faint">{model}</p>
<p class="statement">{statement}</p>
</body>
</html>
""".replace("GROUND_GLASS", CLASSES[GROUND_GLASS].color)
    .replace("CONSOLIDATION", CLASSES[CONSOLIDATION].color)
    .replace("MAGMA", ", ".join(to_hex(color) for color in colormaps["magma"](np.linspace(0, 1, 5))))
)
