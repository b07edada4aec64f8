"""The site: its navigation names what exists, its check finds what is wrong, Spanish pages keep up.

It is built by `make site` alone, whose tools the tests do without.
"""

import importlib.util
import re
import shutil

import pytest
import yaml

from lungseg_utils.core.files import CHECKOUT


def load(name):
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def navigation():
    """Every page that mkdocs.yml names, in order."""
    text = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    return re.findall(r"[\w/]+\.md", yaml.safe_dump(nav, width=1000))


def test_the_navigation_names_every_page_once():
    notebooks = {f"notebooks/{path.stem}.md" for path in (CHECKOUT / "notebooks").glob("*.ipynb")}
    pages = [*CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("benchmarks/*.md")]
    rooms = {
        f"api/{path.stem}.md"
        for path in (CHECKOUT / "lungseg_utils").iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and not path.stem.startswith("_"))
    }
    cards = {"data/README.md", "lungseg_utils/weights/README.md"}
    others = cards | {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    pages = {path.relative_to(CHECKOUT).as_posix() for path in pages}
    assert sorted(navigation()) == sorted(notebooks | pages | rooms | others)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="other/#here">x</a><img src="a.png" alt="words">', None),
        ('<a href="/lungseg/other/">x</a><a href="https://example.org/">x</a>', None),
        ('<a href="other/#there">x</a>', "leads nowhere, other/#there"),
        ('<a href="gone/">x</a>', "leads nowhere, gone/"),
        ('<img src="b.png" alt="words">', "leads nowhere, b.png"),
        ('<img src="a.png">', "a picture without words"),
        ('<img src="a.png" alt=" ">', "a picture without words"),
    ],
)
def test_the_check_finds_dead_links_and_silent_pictures(tmp_path, body, problem):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h1 id="here">x</h1>')
    (tmp_path / "a.png").touch()
    (tmp_path / "index.html").write_text(body)
    found, elsewhere = load("check").problems(tmp_path, "/lungseg/")
    assert [problem in sentence for sentence in found] == ([True] if problem else [])
    assert elsewhere <= {"https://example.org/"}


translated = load("translated")


@pytest.mark.parametrize("page", translated.translated(), ids=lambda page: page.name)
def test_a_spanish_page_is_of_the_english_text_of_today(page):
    command = f"python docs/site/translated.py {page.relative_to(CHECKOUT).as_posix()}"
    assert not translated.is_stale(page), f"look at what changed in the English page; then: {command}"


def test_an_edition_and_its_page_find_each_other():
    for name in ("README.md", "CHANGELOG.md", "docs/teaching.md", "notebooks/01_eda.ipynb"):
        edition = translated.spanish(CHECKOUT / name)
        assert translated.english(edition) == CHECKOUT / name != edition
    assert translated.spanish(CHECKOUT / "README.md").exists()
    assert not translated.spanish(CHECKOUT / "CHANGELOG.md").exists()


def shape(path):
    """What an edition in another language must have alike: headings, code without comments, table rows."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+(?= )", prose, re.MULTILINE)
    code = [re.sub(r" *# .*", "", block) for block in blocks]
    return headings, code, [row.count("|") for row in re.findall(r"^\|.*", prose, re.MULTILINE)]


@pytest.mark.parametrize("page", translated.translated(), ids=lambda page: page.name)
def test_a_spanish_page_has_the_shape_of_the_english_one(page):
    assert shape(page) == shape(translated.english(page))


def test_a_changed_english_page_is_noticed_until_it_was_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(translated, "CHECKOUT", tmp_path)
    page = tmp_path / "docs" / "es" / "teaching.md"
    page.parent.mkdir(parents=True)
    shutil.copy(CHECKOUT / "docs" / "teaching.md", tmp_path / "docs")
    page.write_text("# Para quien enseña\n", encoding="utf-8")
    assert translated.is_stale(page)
    translated.looked_at(page)
    assert not translated.is_stale(page)
    with (tmp_path / "docs" / "teaching.md").open("a") as english:
        english.write("One more sentence.\n")
    assert translated.is_stale(page)
    translated.looked_at(page)
    text = page.read_text(encoding="utf-8")
    assert (
        not translated.is_stale(page) and text.count("<!--") == 1 and text.endswith("# Para quien enseña\n")
    )
