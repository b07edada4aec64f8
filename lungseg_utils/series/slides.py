"""Slides of the notebooks, one page each, by nbconvert and reveal.js."""

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lungseg_utils.core.files import atomic_write, standing_path
from lungseg_utils.core.language import ENGLISH
from lungseg_utils.series.classroom import Question, find_edition
from lungseg_utils.series.parameters import NOTEBOOKS

REVEAL = "reveal"  # beside the slides: reveal.js and require.js, for rooms without the internet
LEFT_OUT = {"setup", "parameters", "solution"}  # tags
FIGURE = "image/png"


def write_slides(out: str | Path, language: str = ENGLISH, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write slides of each notebook as it is committed, outputs and all.

    Args:
        out: The folder of the slides. If it holds reveal/ with require.js and reveal.js' dist/, they run
            without the internet.
        language: "en", or a folder of that name among the notebooks.
        notebooks: The series' folder.

    Returns:
        The pages, in the notebooks' order.
    """
    from nbconvert import SlidesExporter

    out = standing_path(out)
    local: dict[str, Any] = {}
    if (out / REVEAL / "dist").is_dir():
        local = {"reveal_url_prefix": REVEAL, "require_js_url": f"{REVEAL}/require.js"}
    plain: dict[str, Any] = dict(exclude_input_prompt=True, exclude_output_prompt=True)
    exporter = SlidesExporter(reveal_scroll=True, reveal_number="c/t", **plain, **local)
    pages = []
    for path in find_edition(language, notebooks):
        notebook = with_slides(nbformat.read(path, as_version=4))
        page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        pages.append(out / f"{path.stem}.slides.html")
        with atomic_write(pages[-1]) as handle:
            handle.write(page)
    return pages


def with_slides(notebook: NotebookNode) -> NotebookNode:
    """Say in each cell where a slide begins: at a heading; below it at a figure and at an exercise."""
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        kind = "-"
        if LEFT_OUT & {*cell.metadata.get("tags", ())} or cell.source.startswith("# Imports"):
            kind = "skip"
        elif cell.cell_type == "markdown" and cell.source.startswith("#"):
            kind = "slide"
        elif _shows_figure(cell) or (after and Question.of(after)):
            kind = "subslide"
        cell.metadata["slideshow"] = {"slide_type": kind}
    return notebook


def _shows_figure(cell: NotebookNode) -> bool:
    """Whether a picture stands among the outputs of a cell."""
    return any(FIGURE in output.get("data", {}) for output in cell.get("outputs", ()))
