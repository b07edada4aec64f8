"""What a batch is before it runs, in a table, and what it came to, in words and on a page: batch.html."""

import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path

from lungseg_utils.core.files import InputError, atomic_write
from lungseg_utils.core.image import data_address
from lungseg_utils.evaluation.compare import as_text, load_runs
from lungseg_utils.plots.comparison import save_comparison
from lungseg_utils.series.batch import Place, RunOutcome, free_space
from lungseg_utils.series.estimate import AROUND, estimate, preparation_size
from lungseg_utils.series.job import run_seconds
from lungseg_utils.series.live import in_minutes

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd }
th { white-space: pre-line } td { white-space: pre-line }
pre { background: #f6f6f4; padding: .8rem; overflow-x: auto; white-space: pre-wrap }
img { max-width: 100% } .failed { color: #a3260b } a { color: #14568c } small { color: #666 }
"""


def dry_run_table(places: Sequence[Place], out: Path, jobs: int = 1) -> str:
    """The table of a batch's runs: what is done, and what the rest takes by `estimate`.

    Args:
        places: From `place_runs`.
        out: The batch's folder.
        jobs: At once.

    Returns:
        Lines for a terminal.
    """
    estimates = estimate(places, jobs)
    rows = [["run", "state", "time", "disk"]]
    for place, one in zip(places, estimates):
        words = [in_minutes(one.seconds), f"{one.size / 1e6:.0f} MB"] if place.missing else ["", ""]
        rows.append([place.folder.name, place.state, *words])
    todo = [(place, one) for place, one in zip(places, estimates) if place.missing]
    text = as_text({f"{len(places)} runs in {out}": rows}, width=90)
    if not todo:
        return f"{text}\nAll are finished."
    begun = {place.preparation for place in places if place.folder.exists() or place.preparation.exists()}
    new = {place.preparation: place.run for place, _ in todo if place.preparation not in begun}
    seconds = (sum(one.seconds for _, one in todo) + AROUND * len(new)) / jobs
    size = sum(one.size for _, one in todo) + sum(preparation_size(run.parameters) for run in new.values())
    measured = all(one.measured for _, one in todo)
    basis = "as the finished ones took" if measured else "by one step of such a network on this machine"
    return (
        f"{text}\nTo do: {len(todo)} runs, {len(new)} preparations; about {in_minutes(seconds)}, {jobs} at a "
        f"time, {basis}; {size / 1e6:,.0f} MB of {free_space(out) / 1e6:,.0f} MB that are free."
    )


def summarise(plan: str, out: Path, outcomes: Sequence[RunOutcome]) -> str:
    """Compare the finished runs and write batch.html.

    Args:
        plan: The plan's text.
        out: The batch's folder.
        outcomes: From `run_batch`.

    Returns:
        All of it for a terminal.
    """
    lines = []
    for outcome in outcomes:
        if outcome.status == "failed":
            lines += [f"{outcome.place.folder.name} failed", textwrap.indent(outcome.error, "  "), ""]
    finished = [outcome.place.folder for outcome in outcomes if outcome.status == "finished"]
    parts: dict[str, list[list[str]]] = {}
    sentences: list[str] = []
    figures: list[Path] = []
    if finished:
        left_out: list[str] = []
        try:
            runs = load_runs(finished, left_out)
            parts, sentences, figures = save_comparison(out / "compare", runs, left_out)
        except InputError as error:
            sentences = [f"No comparison: {error}"]
    page = write_page(out, plan, outcomes, parts, sentences, figures)
    lines += [as_text(parts, width=40)] if parts else []
    lines += [textwrap.fill(sentence, 110, subsequent_indent="  ") for sentence in sentences]
    found = [outcome.status for outcome in outcomes]
    counts = {status: found.count(status) for status in ("finished", "stopped", "failed")}
    said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    return "\n".join([*lines, f"{said}: {page}"])


def write_page(
    out: Path,
    plan: str,
    outcomes: Sequence[RunOutcome],
    parts: dict[str, list[list[str]]],
    sentences: Sequence[str],
    figures: Sequence[Path],
) -> Path:
    """Write batch.html.

    Args:
        out: The batch's folder; links are relative to it.
        plan: The plan's text.
        outcomes: One a run.
        parts: Tables: title -> rows of cells, the heading first.
        sentences: How to read them.
        figures: PNG files, put into the page.

    Returns:
        The page's path.
    """
    done = sum(outcome.status == "finished" for outcome in outcomes)
    body = [
        f"<h1>{escape(out.name)}: {done} of {len(outcomes)} runs finished</h1>",
        "<table><tr><th>run</th><th>status</th><th>time</th><th>notebooks</th></tr>",
        *(_row(out, outcome) for outcome in outcomes),
        "</table>",
        *(_table(title, rows) for title, rows in parts.items()),
        *(f'<p><img alt="{escape(path.stem)}" src="{_inline(path)}"></p>' for path in figures),
        *(f"<p><small>{escape(sentence)}</small></p>" for sentence in sentences),
        "<h2>Plan</h2>",
        f"<pre>{escape(plan)}</pre>",
    ]
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(out.name)}</title><style>{STYLE}</style></head><body>{chr(10).join(body)}</body></html>\n"
    )
    with atomic_write(out / "batch.html") as handle:
        handle.write(page)
    return out / "batch.html"


def _table(title: str, rows: list[list[str]]) -> str:
    heading, *others = rows
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in heading)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in others]
    return f"<h2>{escape(title)}</h2><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _row(out: Path, outcome: RunOutcome) -> str:
    folder = outcome.place.folder
    pages = sorted((folder / "notebooks").glob("*.html"))
    links = " ".join(
        f'<a href="{escape(page.relative_to(out).as_posix())}">{escape(page.stem)}</a>' for page in pages
    )
    seconds = run_seconds(folder)
    took = in_minutes(seconds) if seconds else ""
    error = f"<pre>{escape(outcome.error)}</pre>" if outcome.error else ""
    return (
        f'<tr><td>{escape(folder.name)}</td><td class="{outcome.status}">{outcome.status}{error}</td>'
        f"<td>{took}</td><td>{links}</td></tr>"
    )


def _inline(path: Path) -> str:
    return data_address(path.read_bytes(), "png")
