"""No language drifts: every text is translated, and a language's notebooks are what is made of them now."""

import ast
import json
import re

import nbformat
import polib
import pytest

from lungseg_utils import core
from lungseg_utils.core.language import LANGUAGES, LOCALE, load_catalogue, translate
from lungseg_utils.series import translation
from lungseg_utils.series.parameters import NOTEBOOKS, check_values
from lungseg_utils.series.run import all_notebooks

OTHERS = [language for language in LANGUAGES if language != "en"]
EDITIONS = [(language, path) for language in OTHERS for path in all_notebooks()]
MARKUP = (
    r"\{[^{}]*\}",  # placeholders and expressions
    r"\]\(([^)]*)\)",  # where links lead
    r"(?<!`)`[^`]+`(?!`)",
    r"</?\w[^>]*>",
    r"(?<!\$)\$[^$ ][^$]*\$",
    r"^ *(?:[-*]|\d+\.|\||#+) ",  # items, rows of a table, headings
)


@pytest.fixture(params=OTHERS)
def catalogue(request):
    return polib.pofile(str(LOCALE / f"{request.param}.po"))


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tree(source):
    return ast.dump(ast.parse(translation._without_magics(source)))


def test_every_text_is_in_the_catalogue_and_nothing_else(catalogue):
    wanted = {(entry.msgid, entry.msgid_plural) for entry in translation.template()}
    assert {(entry.msgid, entry.msgid_plural) for entry in catalogue} == wanted, "run `make translations`"


def test_every_text_is_translated(catalogue):
    assert not [entry.msgid for entry in catalogue.untranslated_entries() + catalogue.fuzzy_entries()]
    assert not catalogue.obsolete_entries(), "run `make translations` once more"


def test_translations_keep_placeholders_links_code_and_marks(catalogue):
    for entry in catalogue:  # 1,000 is 1000 elsewhere: the comma may go
        pairs = [(entry.msgid, entry.msgstr)] if entry.msgstr else []
        if entry.msgid_plural:
            pairs = [(entry.msgid_plural, text) for text in entry.msgstr_plural.values() if text]
        for english, other in pairs:
            english, other = (text.replace(":,}", "}").replace(":,.", ":.") for text in (english, other))
            for pattern in MARKUP:
                found = [sorted(re.findall(pattern, text, re.MULTILINE)) for text in (english, other)]
                assert found[0] == found[1], other


@pytest.mark.parametrize(("language", "path"), EDITIONS, ids=lambda value: getattr(value, "stem", value))
def test_a_language_s_notebook_is_what_is_made_of_the_english_one_now(language, path):
    wanted = translation.translated_notebook(path, language)
    committed = nbformat.read(NOTEBOOKS / language / path.name, as_version=4)
    assert committed.metadata == wanted.metadata
    for ours, theirs in zip(committed.cells, wanted.cells, strict=True):
        assert (ours.id, ours.cell_type, ours.metadata) == (theirs.id, theirs.cell_type, theirs.metadata)
        assert ours.source == theirs.source, f"{ours.id}: run `make translations`"


@pytest.mark.parametrize(("language", "path"), EDITIONS, ids=lambda value: getattr(value, "stem", value))
def test_the_code_is_the_same_cell_for_cell(language, path):
    """Put back into English, with comments gone: the very same program."""
    english, other = (
        nbformat.read(place, as_version=4) for place in (path, NOTEBOOKS / language / path.name)
    )
    look_up = load_catalogue(language).gettext
    for ours, theirs in zip(code_of(english), code_of(other), strict=True):
        shown = [text for *_, text in translation.strings(ours.source, ours.id)]
        back = theirs.source.replace(f'language: str = "{language}"', 'language: str = "en"')
        back = back.replace(f'language="{language}"', 'language="en"')
        for text in sorted(shown, key=lambda text: len(look_up(text)), reverse=True):
            escaped = look_up(text).replace('"', r"\"")
            back = back.replace(f'"{escaped}"', f'"{text}"')
        assert tree(back) == tree(ours.source), ours.id


@pytest.mark.parametrize(("language", "path"), EDITIONS, ids=lambda value: getattr(value, "stem", value))
def test_links_of_a_language_s_notebook_lead_somewhere(language, path):
    notebook = NOTEBOOKS / language / path.name
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert links and not [link for link in links if not (notebook.parent / link).exists()]
    assert set(re.findall(r"/main/notebooks/([\w/]+\.ipynb)", text)) == {f"{language}/{path.name}"}


def test_pieces_are_the_whole_markdown_and_a_fence_is_one():
    text = "# A title\nand a line\n\n\n```python\na = 1\n\nb = 2\n```\n\n- last"
    assert "".join(translation.pieces(text)) == text
    assert "```python\na = 1\n\nb = 2\n```\n" in list(translation.pieces(text))


def test_what_a_reader_reads_in_a_cell():
    lines = [
        'x = f"{a:.2f} of é"  # why',
        "%pip install y",
        'z = table["a name"].query("split == \'train\'")',
    ]
    code = "\n".join([*lines, 'w = "one"'])
    cell = {"cell_type": "code", "id": "x", "source": code}
    assert list(translation.cell_texts(cell)) == ["why", "{a:.2f} of é", "a name"]
    said = {"why": "por qué", "{a:.2f} of é": '{a:.2f} "de" é', "a name": "un nombre"}
    changed = translation.translated_cell(cell, lambda text: said[text], "es")
    assert changed.splitlines() == [
        'x = f"{a:.2f} \\"de\\" é"  # por qué',
        "%pip install y",
        'z = table["un nombre"].query("split == \'train\'")',
        'w = "one"',
    ]


def test_a_changed_sentence_is_seen(monkeypatch, tmp_path):
    """The old text stays for the translator while the new one is missing, and goes when it is there."""
    path = tmp_path / "xx.po"
    path.write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n')
    says = polib.POFile()
    monkeypatch.setattr(translation, "template", lambda: says)
    says.append(polib.POEntry(msgid="old"))
    assert translation.merge_catalogue(path) == 1
    path.write_text(path.read_text().replace('msgid "old"\nmsgstr ""', 'msgid "old"\nmsgstr "viejo"'))
    says[0].msgid = "new"
    assert translation.merge_catalogue(path) == 1 and '#~ msgstr "viejo"' in path.read_text()
    path.write_text(path.read_text().replace('msgid "new"\nmsgstr ""', 'msgid "new"\nmsgstr "nuevo"'))
    assert translation.merge_catalogue(path) == 0 and "viejo" not in path.read_text()


def test_a_notebook_speaks_its_language_and_refuses_others():
    check_values({"__annotations__": {"language": str}, "language": "es"})
    assert translate("consolidation") == core.CLASSES[core.CONSOLIDATION].name == "consolidación"
    with pytest.raises(core.InputError, match="language is 'xx'; expected one of en, "):
        check_values({"__annotations__": {"language": str}, "language": "xx"})
    check_values({"__annotations__": {"language": str}, "language": "en"})
    assert translate("consolidation") == "consolidation"


def test_all_notebooks_have_the_parameter_and_show_their_picture_in_it():
    for path in all_notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells)
        assert 'language: str = "en"' in source and ', language="en")' in source, path.stem
