"""Checks the built site: every link leads to a page and an anchor that exist, and nothing is loaded from the web.

The generator checks the links of pages, but neither its navigation nor what its theme loads.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""By element, the attribute whose address a browser loads without being asked."""


class Page(HTMLParser):
    """The addresses and anchors of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.add(given[LOADED[tag]])


def faults(site: Path) -> list[str]:
    """What is wrong with the site in this folder, a line each; what recurs, with the first page and their number."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found: dict[str, list[str]] = {}
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses are from the server's root
            continue
        name = str(path.relative_to(site))
        for address in sorted(page.links | page.loads):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    found.setdefault(f"{address} is loaded from the web", []).append(name)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                missing = target.relative_to(site) if target.is_relative_to(site) else target
                found.setdefault(f"{missing} is linked to, and does not exist", []).append(name)
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.setdefault(f"{target.relative_to(site)} has no anchor #{parts.fragment}", []).append(name)
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"(?:url\(|@import\s*)[\"']?(https?:[^\"')]+)", path.read_text(encoding="utf-8")):
            found.setdefault(f"{address} is loaded from the web", []).append(str(path.relative_to(site)))
    return [f"{what} ({names[0]}; {len(names)} in all)" for what, names in found.items()]


if __name__ == "__main__":
    sys.exit("\n".join(faults(Path(sys.argv[1]))) or None)
