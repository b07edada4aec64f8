"""Which Spanish pages were made from an older English text.

    python docs/site/translated.py                      those that are to be looked at again
    python docs/site/translated.py docs/es/teaching.md  it was: note the English text of today in it

A Spanish page says in its first line which English text it was made from, by the start of its SHA-256.
"""

import hashlib
import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST = re.compile(r"<!-- Traducción de (\S+), texto (\w+) -->\n")


def translated() -> list[Path]:
    """Every Spanish page."""
    return [CHECKOUT / "README.es.md", *sorted(CHECKOUT.glob("docs/es/*.md"))]


def spanish(page: Path) -> Path:
    """Where the Spanish edition of a page is, if there is one."""
    if page.parent == CHECKOUT:
        return page.with_suffix(f".es{page.suffix}")
    return page.parent / "es" / page.name


def english(page: Path) -> Path:
    """The page that another is the Spanish edition of, or itself."""
    if page.name.endswith(".es.md"):
        return page.with_name(page.name.replace(".es.", "."))
    return page.parent.parent / page.name if page.parent.name == "es" else page


def first_line(page: Path) -> str:
    """What the first line of a Spanish page says if it was made from the English text of today."""
    text = english(page).read_text(encoding="utf-8")  # line ends are \n here, whatever git made of them
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"<!-- Traducción de {english(page).relative_to(CHECKOUT).as_posix()}, texto {mark} -->\n"


def is_stale(page: Path) -> bool:
    """Whether the English text has changed since."""
    return not page.read_text(encoding="utf-8").startswith(first_line(page))


def looked_at(page: Path) -> None:
    """Note the English text of today in a page's first line."""
    text = FIRST.sub("", page.read_text(encoding="utf-8"), count=1)
    page.write_text(first_line(page) + text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        looked_at(Path(name).resolve())
    stale = [page.relative_to(CHECKOUT).as_posix() for page in translated() if is_stale(page)]
    print(*(f"{name} is of an older English text" for name in stale), sep="\n", end="\n" if stale else "")
    sys.exit(bool(stale))
