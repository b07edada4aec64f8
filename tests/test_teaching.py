"""The teacher's guide: its minutes are enough for what a lesson reads, runs and solves."""

import re

import nbformat
import pytest

from lungseg_utils.core.files import CHECKOUT

WORDS, LINES, FIGURE, EXERCISE = (
    130,
    12,
    0.5,
    3,
)  # a slow reader's, as the guide says; a minute, or minutes each
GUIDE = (CHECKOUT / "docs" / "teaching.md").read_text(encoding="utf-8")
LESSONS = [part for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE) if part.startswith("Lesson")]


def minutes_of(number):
    """Minutes of each section of a notebook, by its heading's first word; "head" comes before the first."""
    [path] = (CHECKOUT / "notebooks").glob(f"{number}_*.ipynb")
    section, minutes = "head", {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if found := re.match(r"## (\S+)", part):
                    section = found[1]
                words = len(re.findall(r"[\w'.]+", re.sub(r"\]\([^)]*\)", " ", part)))
                spent = words / WORDS + EXERCISE * part.count("**Exercise ")
                minutes[section] = minutes.get(section, 0) + spent
        else:
            tags = cell.metadata.get("tags", [])
            folded = "source_hidden" in cell.metadata.get("jupyter", {}) or "solution" in tags
            lines = 0 if folded else len(re.findall(r"^.*\S", cell.source, re.MULTILINE))
            figures = sum("image/jpeg" in output.get("data", {}) for output in cell.outputs)
            minutes[section] = minutes.get(section, 0) + lines / LINES + figures * FIGURE
    return minutes


def rows_of(lesson):
    """(minutes, notebook or None, its sections) of each row of a lesson's table."""
    for minutes, what in re.findall(r"^\| (\d+) \| (.*?) ?\|", lesson, re.MULTILINE):
        number, _, sections = what.partition(": ")
        yield int(minutes), number, sections.split(", ") if sections else []


def test_there_are_four_lessons_of_45_minutes():
    assert [sum(minutes for minutes, *_ in rows_of(lesson)) for lesson in LESSONS] == [45] * 4


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson[:8])
def test_no_row_is_too_short_for_its_sections(lesson):
    for minutes, number, sections in rows_of(lesson):
        needed = sum(minutes_of(number)[section] for section in sections)
        assert needed <= minutes + 0.5, (number, sections)
