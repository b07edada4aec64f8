"""Lays the site's pages out for mkdocs in build/site, in English and in Spanish.

`make site` runs it. Pages stay where they are in the repository and are written for GitHub; here notebooks
become Markdown with the outputs that they were committed with, and links lead to pages of the site where
there is one, to the repository elsewhere. A page without a Spanish edition stands in English and says so.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from translated import CHECKOUT, FIRST, english, spanish

HERE = Path(__file__).resolve().parent
OUT = CHECKOUT / "build" / "site"
PAGES = (
    "README.md",
    "notebooks/*.ipynb",
    "docs/*.md",
    "data/README.md",
    "lungseg_utils/weights/README.md",
    "benchmarks/*.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)
IN_ENGLISH = "\n!!! note\n    Esta página está todavía en inglés.\n"
FENCE = re.compile(r"^( *```.*?^ *```) *$", re.MULTILINE | re.DOTALL)  # split: every second part is code
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
OTHER_EDITION = re.compile(r"\[(?:En español|In English)\]\([^)]*\)")  # the site has a switch
FORMULA = re.compile(r"(?<![\\$`])\$([^$\n`]+)\$")
TIGHT_LIST = re.compile(r"^(?![-*] |\d+\. |[ \t#|>])(.+)\n(?=(?:[-*]|\d+\.) )", re.MULTILINE)


def main() -> None:
    """Stage every page in both languages, the API's pages, pictures and the style sheet."""
    shutil.rmtree(OUT, ignore_errors=True)
    for page in (path for pattern in PAGES for path in sorted(CHECKOUT.glob(pattern))):
        stage(page, page, "en")
        translated = spanish(page)
        stage(translated if translated.exists() else page, page, "es")
    for room, text in api_pages():
        for language in ("en", "es"):
            write(OUT / language / "api" / f"{room}.md", text)
    shutil.copy(HERE / "style.css", OUT)


def staged_at(page: Path) -> Path:
    """A page's place in the folder of a language."""
    return page.relative_to(CHECKOUT).with_suffix(".md" if page.suffix == ".ipynb" else page.suffix)


def stage(source: Path, page: Path, language: str) -> None:
    """Write one page as mkdocs wants it.

    Args:
        source: The file that is read: the page, or its Spanish edition.
        page: The English page, whose place it takes.
        language: "en" or "es".
    """
    target = OUT / language / staged_at(page)
    if source.suffix == ".ipynb":
        text, pictures = markdown_of(source)
        for name, content in pictures.items():
            write(target.parent / name, content)
    else:
        text = source.read_text(encoding="utf-8")
    parts = FENCE.split(text)
    parts[::2] = [prose(part, source, page, language) for part in parts[::2]]
    text = FIRST.sub("", "".join(parts))
    if language == "es" and source == page:
        text = re.sub(r"^# .*\n", lambda title: title[0] + IN_ENGLISH, text, count=1, flags=re.MULTILINE)
    write(target, text)


def markdown_of(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by the names that it gives them."""
    exporter = MarkdownExporter(
        template_name="notebook",
        extra_template_basedirs=[str(HERE)],
        preprocessors=[CoalesceStreamsPreprocessor],
    )
    nb = nbformat.read(notebook, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":  # MathML, which browsers show without a script
            cell.source = FORMULA.sub(lambda found: convert(found[1]), cell.source)
    files = f"{notebook.stem}_files"
    text, resources = exporter.from_notebook_node(nb, {"output_files_dir": files, "unique_key": "figure"})
    return text, {name.replace("\\", "/"): content for name, content in resources["outputs"].items()}


def prose(text: str, source: Path, page: Path, language: str) -> str:
    """What lies between code blocks, from GitHub's Markdown to that of mkdocs."""
    text = text.replace("<details>", "<details markdown>")
    text = OTHER_EDITION.sub("", text)
    text = TIGHT_LIST.sub(r"\1\n\n", text)
    return LINK.sub(lambda found: f"]({address(found[1], source, page, language)}{found[2] or ''})", text)


def address(link: str, source: Path, page: Path, language: str) -> str:
    """Where a relative link leads on the site: to a page, a picture (which is copied), or the repository."""
    target = (source.parent / link).resolve()
    if source.suffix == ".ipynb" and link.startswith(f"{source.stem}_files/"):
        return link
    if not target.exists():
        sys.exit(f"{source.relative_to(CHECKOUT)} links to {link}, which does not exist.")
    place = english(target).relative_to(CHECKOUT)
    if any(place.match(pattern) and len(place.parts) == pattern.count("/") + 1 for pattern in PAGES):
        place = staged_at(CHECKOUT / place)
    elif target.suffix in (".png", ".jpg", ".svg"):
        copied = OUT / language / place
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, copied)
    else:
        return f"{repository()}/{'tree' if target.is_dir() else 'blob'}/main/{place.as_posix()}"
    up = "../" * (len(staged_at(page).parts) - 1)
    return up + place.as_posix()


def repository() -> str:
    """The repository's address, as mkdocs.yml says it."""
    [found] = re.findall(
        r"^repo_url: (\S+)", (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found


def api_pages() -> list[tuple[str, str]]:
    """A page for each room: its modules, which mkdocstrings documents from their docstrings."""
    package = CHECKOUT / "lungseg_utils"
    rooms = sorted(path for path in package.iterdir() if (path / "__init__.py").exists())
    pages = []
    for room in (*rooms, *sorted(package.glob("[a-z]*.py"))):
        modules = sorted(room.glob("[a-z]*.py")) if room.is_dir() else [room]
        names = [".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in modules]
        pages.append((room.stem, "\n\n".join([f"# {room.stem}", *(f"::: {name}" for name in names)]) + "\n"))
    return pages


def write(path: Path, content: str | bytes) -> None:
    """Write a file in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


if __name__ == "__main__":
    main()
