"""Checks the built site: no dead link or anchor within it, no picture without words; `make site` runs it.

Links that lead elsewhere are not fetched; build/external_links.txt lists them.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHECKOUT = Path(__file__).resolve().parents[2]
ELSEWHERE = CHECKOUT / "build" / "external_links.txt"


class Page(HTMLParser):
    """What a page links to, what can be linked to on it, its pictures without words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.silent: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.links |= {values[name] for name in ("href", "src") if name in values}
        if tag == "img" and not values.get("alt", "").strip():
            self.silent.append(values.get("src", "?"))


def problems(site: Path, root: str = "/") -> tuple[list[str], set[str]]:
    """Read every page of a built site.

    Args:
        site: Its folder.
        root: The path at which it will be served, such as /lungseg/.

    Returns:
        A sentence for each problem, and the links that lead elsewhere.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found, elsewhere = [], set()
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        found += [f"{name}: a picture without words, {source[:80]}" for source in page.silent]
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                elsewhere |= {link} if parts.scheme in ("http", "https") else set()
                continue
            if parts.path.startswith("/"):
                target = site / unquote(parts.path).removeprefix(root).lstrip("/")
            else:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                found.append(f"{name}: leads nowhere, {link}")
    return found, elsewhere


def main() -> None:
    """Check site/; the exit status is 1 if something is wrong."""
    site = CHECKOUT / "site"
    found, elsewhere = problems(site, "/lungseg/")
    ELSEWHERE.write_text("".join(f"{link}\n" for link in sorted(elsewhere)), encoding="utf-8")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    pages = len(list(site.rglob("*.html")))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"site/: {size / 1e6:.1f} MB, {pages} pages, {len(found)} problems")
    print(f"{len(elsewhere)} links lead elsewhere: {ELSEWHERE.relative_to(CHECKOUT)}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
