"""The teacher's guide: its minutes are enough for what a lesson reads, runs and solves."""

import re

import nbformat
import pytest

from lungseg_utils.core.files import CHECKOUT

# a slow reader's, as the guide says; a minute, or minutes each
WORDS, LINES, FIGURE, EXERCISE = 130, 12, 0.5, 3
GUIDE = (CHECKOUT / "docs" / "teaching.md").read_text(encoding="utf-8")
LESSONS = [part for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE) if part.startswith("Lesson")]


def cells_of(number):
    [path] = (CHECKOUT / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4).cells


def minutes_of(number, exercises="123"):
    """Minutes of each section of a notebook, by its heading's first word; "head" comes before the first."""
    section, minutes = "head", {}
    for cell in cells_of(number):
        if cell.cell_type == "markdown":
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if found := re.match(r"## (\S+)", part):
                    section = found[1]
                words = len(re.findall(r"[\w'.]+", re.sub(r"\]\([^)]*\)", " ", part)))
                solved = sum(f"**Exercise {k}." in part for k in exercises)
                spent = words / WORDS + EXERCISE * solved
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


@pytest.mark.parametrize("number", ["00", "01", "02", "03", "04", "05", "10", "20"])
def test_the_way_through_a_notebook_in_15_minutes_takes_no_longer(number):
    words, all_of_it = re.search(
        r"· in 15 minutes: (.*?);.* all of it (\d+)", cells_of(number)[0].source
    ).groups()
    alone = {"without the exercises": "", "with exercise 1": "1"}
    minutes = minutes_of(number, next((alone[end] for end in alone if words.endswith(end)), "123"))
    sections = ["head", *re.findall(r"\d+\.\d+", words), "Recap"]
    assert sum(minutes[section] for section in sections) <= 15.5, minutes
    assert abs(sum(minutes_of(number).values()) - int(all_of_it)) < 5
