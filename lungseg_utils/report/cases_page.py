"""The page of many cases: one table with thumbnails, sorted by a click; it needs no other file."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.core.image import data_address
from lungseg_utils.core.language import language_now
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.core.language import translate_many as ngettext
from lungseg_utils.report.case import STATEMENT

# Columns of the page: what heads it, which column of cases.csv it shows, and how its number is written.
NUMBERS = (
    (N_("involved, %"), "both_involved_percent", ".1f"),
    (N_("ground glass opacity, %"), "both_ground_glass_percent", ".1f"),
    (N_("consolidation, %"), "both_consolidation_percent", ".1f"),
    (N_("right lung involved, %"), "right_involved_percent", ".1f"),
    (N_("left lung involved, %"), "left_involved_percent", ".1f"),
    (N_("involved, ml"), "both_involved_ml", N_(",.0f")),
    (N_("lung, ml"), "both_lung_ml", N_(",.0f")),
    (N_("severity score, of 24"), "severity_score", "d"),
    (N_("slices"), "slices", "d"),
    (N_("seconds"), "seconds", ".1f"),
)


def cases_html(rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes | None]) -> str:
    """The page, the most involved case first: pictures inside, every text escaped.

    Args:
        rows: Of cases.csv, with the warnings as a list.
        pictures: By case, a JPEG; None where there is none.

    Returns:
        HTML; each case links to the report in its folder beside the page.
    """
    ordered = sorted(rows, key=lambda row: row["both_involved_percent"] or 0, reverse=True)
    ordered.sort(key=lambda row: row["both_involved_percent"] is None)
    unread = sum(row["status"] == "failed" for row in rows)
    read = len(rows) - unread
    count = ngettext("{count} case", "{count} cases", read).format(count=read)
    if unread:
        count += _(", {count} could not be read").format(count=unread)
    heads = [_head(_("case")), *(_head(_(row[0])) for row in NUMBERS), _head(_("doubts and notes"))]
    heads[1] = heads[1].replace("<th", '<th aria-sort="descending"')
    key = '<span class="key"><i style="background: {}"></i> {}</span>'
    colours = [key.format(CLASSES[c].color, escape(CLASSES[c].name)) for c in LESIONS]
    return PAGE.format(
        count=count,
        language=language_now(),
        title=_("Lung involvement"),
        heading=_("Lung involvement in chest CT"),
        explained=_(
            "{count}. A heading sorts by its column; a case's name leads to its report. Per cent are of the "
            "lung, right and left are the patient's. Pictures: {colours}. All numbers are in cases.csv."
        ).format(count=count, colours=", ".join(colours)),
        cases=_("Cases"),
        heads="".join(heads),
        rows="\n".join(_row(row, pictures.get(row["case"])) for row in ordered),
        statement=escape(_(STATEMENT)),
    )


def _head(words: str) -> str:
    return f'<th scope="col"><button type="button">{escape(words)}</button></th>'


def _row(row: Mapping[str, Any], picture: bytes | None) -> str:
    """A case: its name with the picture, its numbers, its doubts. What sorts a cell stands in data-value."""
    name = escape(row["case"])
    notes = [escape(text) for text in row["warnings"]]
    if row["status"] == "failed":
        head = f'<span class="picture none"></span>{name} <b>{_("could not be read")}</b>'
        rest = f'<td class="notes" colspan="{len(NUMBERS) + 1}">{" ".join(notes)}</td>'
    else:
        head = f'<a href="{name}/report.html">{_image(name, row, picture)}{name}</a>'
        said = "".join(f"<li>{text}</li>" for text in notes)
        said = f"<details><summary>{len(notes)}</summary><ul>{said}</ul></details>" if notes else _("none")
        rest = "".join(_cell(row[column], form) for __, column, form in NUMBERS)
        rest += f'<td class="notes" data-value="{len(notes)}">{said}</td>'
    return f'<tr><th scope="row" data-value="{name}">{head}</th>{rest}</tr>'


def _image(name: str, row: Mapping[str, Any], picture: bytes | None) -> str:
    if picture is None:
        return '<span class="picture none"></span>'
    share = row["both_involved_percent"]
    found = (
        _("no share of the lungs is given")
        if share is None
        else _("{share:.1f} % of the lungs are involved").format(share=share)
    )
    alt = _("{name}: the slice with the most lesion, in the lung window, lesions coloured; {found}").format(
        name=name, found=found
    )
    return f'<span class="picture"><img alt="{alt}" src="{data_address(picture)}"></span>'


def _cell(value: Any, form: str) -> str:
    if value is None:
        return f'<td data-value=""><span aria-label="{_("not given")}">&ndash;</span></td>'
    return f'<td data-value="{value}">{format(value, _(form))}</td>'


PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {count}</title>
<style>
body {{ font: 14px/1.4 "Helvetica Neue", Arial, sans-serif; color: #22303c; margin: 16px; }}
h1 {{ font-size: 22px; margin: 0 0 4px; }}
p {{ margin: 4px 0 10px; max-width: 80ch; }}
.faint {{ color: #55626f; }}
.statement {{ border: 2px solid #a3260b; color: #a3260b; border-radius: 6px; font-weight: bold; }}
.statement {{ padding: 6px 10px; }}
.key {{ white-space: nowrap; }}
i {{ display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; }}
.table {{ overflow-x: auto; max-width: 100%; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid #dde3e8; padding: 4px 8px; vertical-align: middle; }}
td {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
thead th {{ vertical-align: bottom; padding: 0; min-width: 62px; }}
thead button {{ font: inherit; font-weight: bold; font-size: 12px; color: inherit; cursor: pointer; }}
thead button {{ background: none; border: 0; width: 100%; min-height: 44px; padding: 4px 8px; }}
thead button {{ text-align: right; }}
thead button::after {{ content: " \\2195"; color: #8a96a1; }}
th[aria-sort=ascending] button::after {{ content: " \\2191"; color: inherit; }}
th[aria-sort=descending] button::after {{ content: " \\2193"; color: inherit; }}
tr > th:first-child {{ position: sticky; left: 0; background: white; text-align: left; z-index: 1; }}
tr > th:first-child button {{ text-align: left; }}
tbody th {{ font-weight: normal; width: 112px; font-size: 12px; overflow-wrap: anywhere; }}
tbody th b {{ color: #a3260b; }}
.picture {{ display: flex; width: 112px; height: 92px; background: black; border-radius: 4px; }}
.picture img {{ width: 100%; height: 100%; object-fit: contain; }}
.picture.none {{ background: #eef1f4; }}
td.notes, thead th:last-child button {{ text-align: left; }}
td.notes {{ white-space: normal; text-align: left; min-width: 260px; max-width: 460px; font-size: 12px; }}
td.notes ul {{ margin: 2px 0; padding-left: 16px; }}
summary {{ cursor: pointer; padding: 8px 0; }}
@media (max-width: 600px) {{
  body {{ margin: 10px; }}
  tbody th, .picture {{ width: 88px; }} .picture {{ height: 72px; }} }}
@media print {{ .table {{ overflow: visible; }} body {{ font-size: 9px; print-color-adjust: exact; }} }}
</style>
</head>
<body>
<main>
<h1>{heading}</h1>
<p class="faint">{explained}</p>
<p class="statement">{statement}</p>
<div class="table" role="region" aria-label="{cases}" tabindex="0">
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</main>
<script>
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("thead th")];
heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {{
  const value = row => row.cells[column]?.dataset.value;
  const number = column > 0;  // numbers begin with the largest
  const down = head.ariaSort ? head.ariaSort === "ascending" : number;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].sort((a, b) => {{
    if (!value(a) || !value(b)) return !value(a) - !value(b);  // what is not given comes last
    const order = number ? value(a) - value(b) : value(a).localeCompare(value(b));
    return down ? -order : order;
  }});
  body.append(...rows);
}}));
</script>
</body>
</html>
"""
