"""Slides: where they begin, and that they can do without the internet."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lungseg_utils.series.slides import with_slides, write_slides

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def notebook():
    figure = new_output("display_data", {"image/png": PIXEL})
    return new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("%pip install", metadata={"tags": ["setup"]}),
            new_code_cell("# Imports\nimport numpy"),
            new_markdown_cell("## 1.1 A section"),
            new_code_cell("show()", outputs=[figure]),
            new_markdown_cell("**Exercise 1.** How many?"),
            new_code_cell('answer_1 = ...\ncheck("1.1", answer_1)'),
            new_code_cell('solution("1.1")', metadata={"tags": ["solution"]}),
        ]
    )


def test_slides_begin_at_headings_figures_and_exercises():
    kinds = [cell.metadata.slideshow.slide_type for cell in with_slides(notebook()).cells]
    assert kinds == ["slide", "skip", "skip", "slide", "subslide", "subslide", "-", "skip"]


def test_slides_take_what_lies_beside_them(tmp_path):
    nbformat.write(notebook(), tmp_path / "00_tiny.ipynb")
    [page] = write_slides(tmp_path / "slides", notebooks=tmp_path)
    assert page.name == "00_tiny.slides.html" and "https://unpkg.com/reveal.js" in page.read_text()
    (page.parent / "reveal" / "dist").mkdir(parents=True)
    [page] = write_slides(tmp_path / "slides", notebooks=tmp_path)
    assert "unpkg.com" not in page.read_text() and 'src="reveal/require.js"' in page.read_text()
