"""What the pages say exists: links, commands, options, parameters, names, files; the rooms are as drawn."""

import ast
import importlib
import re
from dataclasses import fields
from functools import cache

import nbformat
import pytest

from lungseg_utils.cli import main
from lungseg_utils.core.files import CHECKOUT
from lungseg_utils.series.parameters import declared_parameters
from lungseg_utils.series.run import all_notebooks
from lungseg_utils.training import TrainingConfig

PAGES = [
    *CHECKOUT.glob("*.md"),
    *CHECKOUT.glob("docs/*.md"),
    *CHECKOUT.glob("docs/es/*.md"),
    *CHECKOUT.glob("benchmarks/*.md"),
    *CHECKOUT.glob(".github/*.md"),
    CHECKOUT / "data" / "README.md",
    CHECKOUT / "lungseg_utils" / "weights" / "README.md",
]
NOTEBOOKS = all_notebooks()
ROOMS = {path.stem for path in (CHECKOUT / "lungseg_utils").iterdir() if path.suffix in ("", ".py")}


@cache
def text_of(path):
    """The page, or a notebook's markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.fixture(params=PAGES + NOTEBOOKS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def page(request):
    return request.param


def code_of(path):
    """The lines of its code blocks, and each code span."""
    block = r"^```\w*\n(.*?)^```"
    text = text_of(path)
    lines = [
        line for found in re.findall(block, text, re.MULTILINE | re.DOTALL) for line in found.splitlines()
    ]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL))


def commands_in(path):
    """(name, rest of the line) of each call of `lungseg` or `python -m lungseg_utils`, up to its comment."""
    for line in code_of(path):
        call = re.search(r"(?:^|[/ ])lungseg(?:_utils)? +([a-z][\w-]*)(?= |$)([^#]*)", line)
        if call and not line.startswith(("pip ", "conda ", "from ", "import ")):
            yield call.groups()


def anchors(path):
    """The headings as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short():
    assert len(text_of(CHECKOUT / "README.md").splitlines()) <= 150


def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)]+)\)", text_of(page)):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_no_blank_line_splits_a_table(page):
    for block in re.findall(r"(?:^\|.*(?:\n|\Z))+", text_of(page), re.MULTILINE):
        assert re.match(r"\|.*\n\|[-:| ]+\|", block), block


def options_of(command):
    return {"--help", *(option for parameter in command.params for option in parameter.opts)}


def test_commands_and_options_exist(page):
    for name, rest in commands_in(page):
        assert name in main.commands, f"lungseg {name}"
        used = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest))
        assert used <= options_of(main.commands[name]), f"lungseg {name}{rest}"


def test_options_named_alone_exist(page):
    """Those in a table's row that begins with a command are its own; others are some command's."""
    some = {"--version"}.union(*map(options_of, main.commands.values()))
    for line in text_of(page).splitlines():
        row = re.match(r"\| `lungseg ([a-z]+)", line)
        known = options_of(main.commands[row[1]]) | {"-p"} if row else some  # -p NAME alone means a parameter
        if page.parent.name != "benchmarks" or row:  # benchmarks have options of their own
            assert set(re.findall(r"`(--?[a-z][\w-]*)", line)) <= known, line


def test_parameters_exist(page):
    declared = {name for path in NOTEBOOKS for name in declared_parameters(path)}
    calls = [code for code in code_of(page) if re.match(r"-p |.*(lungseg|papermill) ", code)]
    for name in re.findall(r"(?<!\S)-p ([a-z_]+)\b", "\n".join(calls)):
        assert name in declared, name
    settings = {field.name for field in fields(TrainingConfig)}
    for command, rest in commands_in(page):
        if command == "train":
            assert set(re.findall(r"-p ([a-z_]+)\b", rest)) <= settings, rest


def resolve(dotted):
    """What a dotted name stands for: the longest module that imports, then its attributes."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        owner, _, name = dotted.rpartition(".")
        return getattr(resolve(owner), name)


def test_names_import(page):
    text = text_of(page)
    if page.name == "CHANGELOG.md":  # the first column has the old names
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    for dotted in re.findall(r"(?<![\w/])lungseg_utils(?:\.\w+)+(?!\w*[/\w])", text):
        resolve(dotted)
    for line in re.findall(r"^from lungseg_utils.*$", text, re.MULTILINE):
        [node] = ast.parse(line).body
        for alias in node.names:
            resolve(f"{node.module}.{alias.name}")


def test_files_and_make_targets_exist(page):
    rules = re.findall(r"^([\w ]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    targets = " ".join(rules).split()
    own = r"(?:benchmarks|docs|lungseg_utils|notebooks|tests)/[\w/]+\.(?:py|md|ipynb|yaml|csv|jpg)"
    for code in code_of(page):
        for name in re.findall(rf"(?<![\w/]){own}\b", code):
            assert (CHECKOUT / name).exists(), name
        if make := re.match(r"make ([a-z]+)", code):
            assert make[1] in targets, code


def test_every_command_is_in_the_readme():
    for name, command in main.commands.items():
        assert command.hidden or f"| `lungseg {name}" in text_of(CHECKOUT / "README.md"), name


def test_the_rooms_are_drawn_as_they_are():
    """Each arrow between rooms is drawn in docs/architecture.md, or follows from arrows that are."""
    drawn = re.findall(r"^ +(\w+) --> (\w+)$", text_of(CHECKOUT / "docs" / "architecture.md"), re.MULTILINE)
    assert {room for arrow in drawn for room in arrow} == ROOMS - {
        "__init__",
        "__main__",
        "__pycache__",
        "locale",
        "weights",
    }

    def below(room):
        return {room}.union(*(below(lower) for upper, lower in drawn if upper == room))

    for path in (CHECKOUT / "lungseg_utils").rglob("*.py"):
        room = path.relative_to(CHECKOUT / "lungseg_utils").parts[0].removesuffix(".py")
        used = set(re.findall(r"^\s*(?:from|import) lungseg_utils\.(\w+)", path.read_text(), re.MULTILINE))
        if room not in ("__init__", "__main__"):
            assert used <= below(room), f"{path.name} imports {used - below(room)}: draw the arrow"
