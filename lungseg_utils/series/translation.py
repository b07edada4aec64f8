"""Other languages: what a reader reads, drawn out of package and notebooks into catalogues and put back.

English is the source. A text's key in a catalogue is the English text itself: a paragraph of a notebook's
prose, a comment or a string of its code, or what the package marks with `_`, `N_` or `ngettext`.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from lungseg_utils.core.files import CHECKOUT, atomic_write
from lungseg_utils.core.language import ENGLISH, LANGUAGES, LOCALE, load_catalogue
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import all_notebooks
from lungseg_utils.series.solutions import EXERCISES, solution_texts

Edit = tuple[int, int, str]  # of a source: where the English text begins and ends, and the text
MARKS = ("_", "N_", "ngettext")  # functions that the package marks its texts with
DIRECTIVES = ("#%", "# fmt", "# noqa", "# type")  # comments for programs
# Strings of code cells that look like text, but which the code needs as they are: queries, names of columns
# and of a table's rows, places in a file.
NEEDED = {
    *("split == 'train'", "split == 'validation'", "Labels every", "## Data", "all that the profile takes"),
    *("mean lesion Dice", "ground glass Dice", "consolidation Dice"),
    *("mean lesion Dice, difference", "mean lesion Dice, low", "mean lesion Dice, high"),
}
# By cell, single words that are shown; all others are names.
SHOWN: dict[str, set[str]] = {
    "00-031": {"network", "logits"},
    "00-038": {"truth"},
    "02-012": {"clipped"},
    "03-037": {"learned", "validation"},
    "03-044": {"learned", "validation"},
    "04-046": {"truth", "package"},
    "20-009": {"kind", "modality"},
    "20-046": {"you", "network", "truth"},
}


def package_texts() -> dict[str, tuple[str | None, set[str]]]:
    """What the package says, by its English text: its plural or None, and the modules that say it."""
    found: dict[str, tuple[str | None, set[str]]] = {}
    for path in sorted((CHECKOUT / "lungseg_utils").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MARKS:
                said = [each.value for each in node.args if isinstance(each, ast.Constant)]
                one, many, *_ = (*(text for text in said if isinstance(text, str)), None, None)
                if one is not None:
                    found.setdefault(one, (many, set()))[1].add(path.relative_to(CHECKOUT).as_posix())
    for number, exercise in EXERCISES.items():
        sentences = [sentence for _, sentence in exercise.mistakes]
        for text in (*exercise.hints, exercise.explained, *sentences, *solution_texts(exercise.solve)):
            found.setdefault(text, (None, set()))[1].add(f"exercise {number}")
    return found


def pieces(markdown: str) -> Iterator[str]:
    """Paragraphs and what lies between, in turn; together they are the markdown. A fence is one paragraph."""
    part, fence, before = "", False, False
    for line in markdown.splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            fence = not fence
        blank = not line.strip() and not fence
        if part and blank != before:
            yield part
            part = ""
        part, before = part + line, blank
    if part:
        yield part


def is_prose(paragraph: str) -> bool:
    """Whether there are words in it: not in a fence, nor only badges or tags."""
    words = re.sub(r"<[^>]*>|!?\[!\[.*", "", paragraph)
    return not paragraph.startswith("```") and bool(re.search(r"[A-Za-z]{2}", words))


def comments(code: str) -> Iterator[Edit]:
    """The comments of a cell, without their hash."""
    starts = _line_starts(code)
    for token in tokenize.generate_tokens(io.StringIO(_without_magics(code)).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(DIRECTIVES):
            text = token.string.lstrip("# ")
            end = starts[token.end[0] - 1] + token.end[1]
            yield end - len(text), end, text


def strings(code: str, cell: str = "") -> Iterator[Edit]:
    """The strings of a cell that are shown: what is between the quotes, with the expressions of f-strings."""
    source, starts = _without_magics(code), _line_starts(code)
    tree = ast.parse(source)
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.JoinedStr)
        for node in ast.walk(outer)
        if node is not outer
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in inside:
            continue
        raw = ast.get_source_segment(source, node) or ""
        found = re.fullmatch(r'[fr]?"([^"]*)"', raw)
        if found and _is_shown(found[1], cell):
            begin = starts[node.lineno - 1] + _column(source, node) + found.start(1)
            yield begin, begin + len(found[1]), found[1]


def _is_shown(text: str, cell: str) -> bool:
    if " " not in text:
        return text in SHOWN.get(cell, ())
    return bool(re.search("[A-Za-z]{2}", text)) and text not in NEEDED


def _column(source: str, node: ast.Constant | ast.JoinedStr) -> int:
    """Characters before a node in its line; ast counts bytes."""
    line = source.splitlines()[node.lineno - 1].encode()
    return len(line[: node.col_offset].decode())


def _without_magics(code: str) -> str:
    """The same lines as Python; an IPython magic becomes a comment."""
    return "\n".join(re.sub(r"^(\s*)[%!]", r"\1pass  #%", line) for line in code.split("\n"))


def _line_starts(code: str) -> list[int]:
    starts = [0]
    for line in code.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def cell_texts(cell: Mapping[str, Any]) -> Iterator[str]:
    """What a reader reads in a cell."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield from (piece.removesuffix("\n") for piece in pieces(source) if is_prose(piece))
    else:
        yield from (text for *_, text in (*comments(source), *strings(source, cell.get("id", ""))))


def notebook_texts() -> dict[str, list[tuple[str, str]]]:
    """What the English notebooks say, by text: the notebooks and cells that say it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in all_notebooks():
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for text in cell_texts(cell):
                place = (f"{NOTEBOOKS.name}/{path.name}", cell["id"])
                if place not in found.setdefault(text, []):
                    found[text].append(place)
    return found


def template() -> Any:
    """All English texts with the places where they stand, as a polib.POFile without translations."""
    import polib

    texts = polib.POFile(wrapwidth=110)
    entries: dict[str, Any] = {}
    for text, (plural, modules) in package_texts().items():
        entry = polib.POEntry(msgid=text, occurrences=[(place, "") for place in sorted(modules)])
        if plural:
            entry.msgid_plural, entry.msgstr_plural = plural, {0: "", 1: ""}
        entries[text] = entry
    for text, places in notebook_texts().items():
        entries.setdefault(text, polib.POEntry(msgid=text)).occurrences += places
    texts.extend(entries.values())
    return texts


def merge_catalogue(path: Path) -> int:
    """Bring a catalogue up to date: new texts come in empty, and what nothing says any more goes.

    While texts are missing, those that went stay at the file's end as comments: a changed sentence can be
    made from its old translation.

    Args:
        path: The .po file.

    Returns:
        How many texts it lacks.
    """
    import polib

    english, catalogue = template(), polib.pofile(str(path), wrapwidth=110)
    catalogue.merge(english)
    order = {entry.msgid: place for place, entry in enumerate(english)}
    catalogue.sort(key=lambda entry: order.get(entry.msgid, len(order)))
    if not catalogue.untranslated_entries():
        for entry in catalogue.obsolete_entries():
            catalogue.remove(entry)
    with atomic_write(path) as handle:
        handle.write(f"{catalogue}".rstrip("\n") + "\n")
    return len(catalogue.untranslated_entries())


def translated_cell(cell: Mapping[str, Any], translate: Callable[[str], str], language: str) -> str:
    """A cell's source in another language.

    Args:
        cell: Of an English notebook.
        translate: From an English text to the other language's.
        language: Its code, as in "es".

    Returns:
        The source; its code is the same but for comments, shown strings and the language's name.
    """
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        prose = (
            translate(piece.removesuffix("\n")) + "\n" * piece.endswith("\n") if is_prose(piece) else piece
            for piece in pieces(source)
        )
        return _relinked("".join(prose), language)
    edits = [(begin, end, translate(text)) for begin, end, text in comments(source)]
    edits += [
        (begin, end, translate(text).replace('"', r"\""))
        for begin, end, text in strings(source, cell.get("id", ""))
    ]
    for begin, end, text in sorted(edits, reverse=True):
        source = source[:begin] + text + source[end:]
    return re.sub(rf'\b(language(?:: str = |=))"{ENGLISH}"', rf'\1"{language}"', source)


def _relinked(markdown: str, language: str) -> str:
    """Links from a folder below: to notebooks as they are, to pages further up, or their translation."""
    markdown = markdown.replace("](../", "](../../")
    for page in sorted((CHECKOUT / "docs" / language).glob("*.md")):
        markdown = markdown.replace(f"](../../docs/{page.name}", f"](../../docs/{language}/{page.name}")
    return re.sub(r"(/notebooks/)(\d\d_\w+\.ipynb)", rf"\1{language}/\2", markdown)


def translated_notebook(path: Path, language: str) -> Any:
    """An English notebook in another language: the same cells, without outputs.

    Args:
        path: The English one.
        language: As in "es".

    Returns:
        A notebook of nbformat.
    """
    import nbformat

    translate = load_catalogue(language).gettext
    notebook = deepcopy(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        cell.source = translated_cell(cell, translate, language)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def write_translations(languages: tuple[str, ...] = LANGUAGES) -> dict[Path, int]:
    """Merge the English texts into the catalogues, and write the notebooks of each language.

    A cell that is as it was keeps its outputs.

    Returns:
        The catalogues, and how many texts each lacks.
    """
    import nbformat

    missing = {}
    for language in languages:
        if language == ENGLISH:
            continue
        catalogue = LOCALE / f"{language}.po"
        missing[catalogue] = merge_catalogue(catalogue)
        folder = NOTEBOOKS / language
        folder.mkdir(exist_ok=True)
        for path in all_notebooks():
            notebook, target = translated_notebook(path, language), folder / path.name
            before = nbformat.read(target, as_version=4).cells if target.exists() else []
            known = {cell.id: cell for cell in before if cell.cell_type == "code"}
            for cell in notebook.cells:
                if cell.id in known and known[cell.id].source == cell.source:
                    cell.outputs = known[cell.id].outputs
                    cell.execution_count = known[cell.id].execution_count
            with atomic_write(target) as handle:
                handle.write(nbformat.writes(notebook).rstrip("\n") + "\n")
        for path in folder.glob("*.ipynb"):  # of a notebook that English no longer has
            if not (NOTEBOOKS / path.name).exists():
                path.unlink()
    return missing
