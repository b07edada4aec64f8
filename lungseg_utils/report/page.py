"""The report of a case: report.json, and one page as report.html and report.png."""

import base64
import io
import json
import shutil
import textwrap
from contextlib import suppress
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lungseg_utils.core.classes import CLASSES, LESIONS, LUNG_WINDOW
from lungseg_utils.core.files import InputError, atomic_write, replace_folder, resolve_path
from lungseg_utils.report.case import Case
from lungseg_utils.report.figures import DRAW, FAINT, INK, regions_of
from lungseg_utils.scans.io import write_masks
from lungseg_utils.scans.scan import Scan

A4 = (8.27, 11.69)  # inches
ALARM = "#a3260b"
TITLE = "Lung involvement in chest CT"
REPORT_BYTES = 16 * 2**20  # for the reports, which are some megabytes
THUMBNAIL = "thumbnail.jpg"
CASE_FILES = {
    *("report.json", "report.html", "report.png", THUMBNAIL),
    *("mask.nii.gz", "mask.dcm", "mask.npy", "mask.png"),
}


def check_case_folder(folder: str | Path) -> Path:
    """The absolute path; InputError unless it is new, empty or holds an earlier case and nothing else."""
    folder = resolve_path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the results; choose another name.")
    inside = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(inside - CASE_FILES) or sorted(inside if inside and not _is_case(folder) else ())
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


def _is_case(folder: Path) -> bool:
    try:
        return "case" in json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


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
    with atomic_write(folder / "report.json") as handle:
        json.dump(case.summary, handle, indent=2, allow_nan=False)
    with atomic_write(folder / "report.html") as handle:
        handle.write(report_html(case))
    with atomic_write(folder / "report.png", "wb") as handle:
        report_page(case).savefig(handle, format="png", dpi=150)


def figures(case: Case) -> dict[str, Figure]:
    """The figures of the page by name: montage, bars, and for volumes zones.

    Profile for more than one slice.
    """
    sizes = {"bars": (5.2, 2.7), "zones": (2.6, 2.7), "profile": (3.0, 2.7)}
    sizes["montage"] = 10.5, case.montage.height(10.5)
    drawn = {}
    for name in _panels(case.summary):
        drawn[name] = Figure(figsize=sizes[name], layout="constrained")
        DRAW[name](drawn[name], case)
    return drawn


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
        return [("-", "numbers withheld" if summary["withheld"] else "no lung found")]
    numbers = [(f"{share['involved']:.1f} %", "of the lungs involved")]
    numbers += [(f"{share[CLASSES[c].short]:.1f} %", CLASSES[c].name) for c in LESIONS]
    if score:
        numbers.append((f"{score['total']} of {score['of']}", "severity score"))
    if ml:
        numbers += [(f"{ml['involved']:,.0f} ml", "involved"), (f"{ml['lung']:,.0f} ml", "lung in the scan")]
    return numbers


def scan_line(summary: dict[str, Any]) -> str:
    """The scan in one line: what the file says of it, without anything of the patient."""
    scan = summary["scan"]
    plural = "s" if scan["slices"] > 1 else ""
    count = f"{scan['slices']} slice{plural} of {scan['rows']} x {scan['columns']} pixels"
    spacing = scan["spacing_mm"]
    size = f"pixels {spacing[1]:.2f} x {spacing[2]:.2f} mm" if spacing else "size of a pixel not known"
    apart = f", {spacing[0]:.2f} mm apart" if spacing and scan["volume"] else ""
    units = "Hounsfield units" if scan["hounsfield_units"] else "estimated Hounsfield units"
    return f"{count}{apart}; {size}; {units}"


def model_line(card: dict[str, Any]) -> str:
    """The model in one line; what its config.json does not say is left out."""

    def known(*names: str) -> bool:
        return all(card.get(name) is not None for name in names)

    named = known("architecture", "encoder")
    parts = [f"{card['architecture']}, {card['encoder']}" if named else "network not named"]
    parts += [f"slices at {card['image_size']} pixels"] if known("image_size") else []
    parts += [f"trained on {card['train_slices']} slices"] if known("train_slices") else []
    if known("val_miou", "val_lesion_dice"):
        parts.append(
            f"on its validation slices mIoU {card['val_miou']:.2f}, lesion Dice {card['val_lesion_dice']:.2f}"
        )
    return "; ".join(parts) + (f"; weights {card['weights']}" if known("weights") else "")


def _explained(summary: dict[str, Any]) -> str:
    """How to read the page: window, numbering, score, entropy."""
    low, high = LUNG_WINDOW
    counted = "from the feet" if summary["scan"]["kind"] in ("nifti", "dicom") else "as in the file"
    grades = "grades 0 to 4: 0 %, below 25, below 50, below 75 % involved, more"
    score = f" Severity score {summary['score']['method']}; {grades}." if summary["score"] else ""
    return (
        f"Lung window {low} to {high} HU; R is the patient's right; slices are counted {counted}.{score} "
        "Entropy: 0 the network is certain of one class, 1 it is undecided among all four; it can be certain "
        "and wrong."
    )


def report_page(case: Case) -> Figure:
    """The whole page as one figure, A4 upright."""
    summary, panels = case.summary, _panels(case.summary)[1:]
    page = Figure(figsize=A4, layout="constrained", facecolor="white")
    bullet: dict[str, Any] = {"initial_indent": "\u2022 ", "subsequent_indent": "   "}
    notes = [line for text in case.warnings for line in textwrap.wrap(text, 132, **bullet)]
    model = f"Model: {model_line(case.card)}. {summary['software']}."
    small = [line for text in (_explained(summary), model) for line in textwrap.wrap(text, 160)]
    heights = (
        1.35,
        case.montage.height(A4[0]),
        2.5,
        0.16 * len(notes or "-") + 0.14 * len(small) + 1.05,
    )
    page.set_size_inches(
        A4[0], max(A4[1], sum(heights))
    )  # many doubts make a longer page rather than a smaller print
    if (spare := A4[1] - sum(heights)) > 0:
        heights = (*heights[:3], heights[3] + spare)
    parts: Any = page.subfigures(4, 1, height_ratios=heights)
    head, montage, charts, foot = parts
    head.text(0.02, 0.84, TITLE, fontsize=17, fontweight="bold", color=INK, va="center")
    named = f"{summary['case']}   {date.today().isoformat()}"
    head.text(0.98, 0.84, named, fontsize=9, color=FAINT, ha="right", va="center")
    head.text(0.02, 0.63, scan_line(summary), fontsize=8.5, color=FAINT, va="center")
    for k, (value, words) in enumerate(key_numbers(summary)):
        head.text(0.02 + 0.163 * k, 0.33, value, fontsize=15, fontweight="bold", color=INK, va="center")
        head.text(0.02 + 0.163 * k, 0.10, words, fontsize=7.5, color=FAINT, va="center")
    DRAW["montage"](montage, case)
    widths = {"bars": 5.0, "zones": 2.5, "profile": 2.9}
    row = charts.subfigures(1, len(panels), width_ratios=[widths[name] for name in panels], squeeze=False)[0]
    for figure, name in zip(row, panels):
        DRAW[name](figure, case)
    lines = [("Doubts and notes", "bold", 8.5), *((text, "normal", 8) for text in notes or ["None."])]
    lines += [("", "normal", 5), *((text, "normal", 7) for text in small)]
    y, inch = 0.97, 1 / heights[3]
    for text, weight, size in lines:
        foot.text(0.02, y, text, fontsize=size, fontweight=weight, color=INK if size > 7 else FAINT, va="top")
        y -= 1.45 * size / 72 * inch
    statement = "\n".join(textwrap.wrap(summary["statement"], 100))
    foot.text(0.5, 0.03, statement, fontsize=9, fontweight="bold", color=ALARM, ha="center", va="bottom")
    return page


def report_html(case: Case) -> str:
    """The page as HTML that needs nothing else: figures inside, no script, every text escaped."""
    summary = case.summary
    images = {name: _embedded(figure) for name, figure in figures(case).items()}
    cards = "".join(
        f"<div><b>{escape(v)}</b><span>{escape(words)}</span></div>" for v, words in key_numbers(summary)
    )
    montage = images.pop("montage")
    charts = "".join(f'<img class="{name}" alt="{name}" src="{data}">' for name, data in images.items())
    doubts = "".join(f"<li>{escape(text)}</li>" for text in case.warnings) or "<li>None.</li>"
    return PAGE.format(
        title=escape(TITLE),
        case=escape(summary["case"]),
        date=date.today().isoformat(),
        scan=escape(scan_line(summary)),
        cards=cards,
        montage=montage,
        charts=charts,
        table=_table(summary),
        doubts=doubts,
        explained=escape(_explained(summary)),
        model=escape(model_line(case.card)),
        software=escape(summary["software"]),
        statement=escape(summary["statement"]),
    )


def _embedded(figure: Figure) -> str:
    """The figure as a data: address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _table(summary: dict[str, Any]) -> str:
    """Rows by region, columns by class.

    Per cent of the region's lung and, where they are known, millilitres.
    """
    names = {"involved": "involved", **{CLASSES[c].short: CLASSES[c].name for c in LESIONS}}
    ml = summary["all"]["millilitres"] is not None
    head = "".join(f"<th>{escape(name)}</th>" for name in names.values()) + ("<th>lung</th>" if ml else "")
    rows = []
    for title, region in regions_of(summary).items():
        cells = []
        for name in names:
            share = region["percent_of_lung"][name]
            amount = f" <i>{region['millilitres'][name]:,.0f} ml</i>" if ml and share is not None else ""
            cells.append(f"<td>{'-' if share is None else f'{share:.1f} %'}{amount}</td>")
        if ml:
            cells.append(f"<td>{region['millilitres']['lung']:,.0f} ml</td>")
        rows.append(f"<tr><th>{escape(title)}</th>{''.join(cells)}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{case}: {title}</title>
<style>
@page {{ size: A4; margin: 9mm; }}
body {{ font: 12px/1.4 "Helvetica Neue", Arial, sans-serif; color: #22303c; }}
body {{ max-width: 900px; margin: 18px auto; padding: 0 14px; }}
header {{ display: flex; justify-content: space-between; align-items: baseline; }}
header {{ border-bottom: 2px solid #22303c; }}
h1 {{ font-size: 22px; margin: 0 0 4px; }}
h2 {{ font-size: 13px; margin: 8px 0 2px; }}
p, ul {{ margin: 3px 0; }}
ul {{ padding-left: 18px; }}
.faint {{ color: #66727f; }}
.cards {{ display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0; }}
.cards div {{ flex: 1; background: #f2f5f7; border-radius: 6px; padding: 6px 10px; white-space: nowrap; }}
.cards b {{ display: block; font-size: 18px; }}
.cards span {{ color: #66727f; font-size: 11px; }}
.montage {{ width: 100%; }}
.charts {{ display: flex; justify-content: center; align-items: flex-start; }}
.charts img {{ min-width: 0; }}
.bars {{ width: 48%; }} .zones {{ width: 24%; }} .profile {{ width: 27.7%; }}
table {{ border-collapse: collapse; width: 100%; margin: 4px 0; font-size: 11px; }}
td, th {{ border-bottom: 1px solid #dde3e8; padding: 2px 8px; text-align: right; }}
td, th {{ font-variant-numeric: tabular-nums; }}
tr th:first-child {{ text-align: left; font-weight: normal; }}
td i {{ color: #66727f; font-style: normal; display: inline-block; min-width: 64px; }}
.statement {{ border: 2px solid #a3260b; color: #a3260b; border-radius: 6px; font-weight: bold; }}
.statement {{ padding: 6px 10px; margin-top: 8px; }}
@media print {{
  body {{ max-width: none; margin: 0; padding: 0; font-size: 9.5px; }}
  body {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  table {{ font-size: 9px; }} td, th {{ padding: 1px 6px; }} .cards b {{ font-size: 15px; }} }}
</style>
</head>
<body>
<header><h1>{title}</h1><span class="faint">{case} &nbsp; {date}</span></header>
<p class="faint">{scan}</p>
<div class="cards">{cards}</div>
<img class="montage" alt="the most affected slices" src="{montage}">
<div class="charts">{charts}</div>
{table}
<h2>Doubts and notes</h2>
<ul>{doubts}</ul>
<p class="faint">{explained}</p>
<p class="faint">Model: {model}. {software}.</p>
<p class="statement">{statement}</p>
</body>
</html>
"""
