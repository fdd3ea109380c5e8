"""Every report on one page that works without this repository: reports/index.html."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup, escape

from classroom.artifacts import Cost
from classroom.errors import DataError
from classroom.files import write_text
from classroom.reporting.common import paper
from classroom.reporting.common.pages import read_page
from classroom.reporting.common.provenance import costs_of_runs

SECTIONS = {
    "Twelve variants": ("variants", "medical", "resplit"),
    "Networks trained alone": ("baselines",),
    "Published methods": ("comparison",),
    "Fidelity": ("fidelity", "agreement"),
    "Test images": ("pictures", "samples"),
    "Similarity of layers": ("cka_figure", "cka_table"),
    "Searches of loss weights": ("grid_search", "method_search"),
    "Training and deployment": ("curves", "cost", "deploy"),
    "Method and networks": ("exchange", "architecture"),
}
"""By section, the kinds of reports in it."""
HEADLINE = (
    "study", "metric", "KD + ML V3, ensemble", "student alone", "difference", "95 % interval", "KD + ML V3 is",
)  # fmt: skip
"""The columns of `Page.headline`."""
ROW_COLUMNS = ("technique", "strategy", "network", "study", "table", "method")
"""Columns that say what a row is: its rows can be chosen by them, and those that lead stay in sight."""
STRATEGY = re.compile(r"(V\d) ")
"""The prefix of a strategy's columns."""
NUMBER = re.compile(r"[<≥≤]?([+−-]?\d+(?:\.\d+)?(?:e[+−-]?\d+)?)(?: %)?")
LONG = 6
"""Rows from which on a table can be filtered."""
NOTHING_ELSE = {"title": "", "above": (), "below": (), "grouped": False}


def site(pages: Path, runs: Mapping[str, Cost], captions: Path, scale: str, seeds: Sequence[int], target: Path) -> int:
    """Writes `target` from every page in the folder `pages`; returns how many there are.

    `runs`: as `provenance.read_runs` returns them. `captions`: the folder of those that Snakemake's own report shows
    too. Raises DataError if there is no page, or one is damaged or names runs that are not known or have been trained
    again.
    """
    read = sorted((_known_page(path) for path in pages.glob("*.json")), key=_order)
    if not read:
        raise DataError(f"{pages}: no report has been made yet. Make one, for instance with `classroom report table1`.")
    known = _Known(runs)
    shown = [_page(page, known, captions, {"scale": scale, "seeds": seeds}) for page in read]
    headlines = [page["headline"] for page in read if page["headline"]]
    html = _render(
        sections={title: [page for page in shown if page["kind"] in kinds] for title, kinds in SECTIONS.items()},
        overview=_part({"header": HEADLINE, "rows": headlines} | NOTHING_ELSE, known) if headlines else None,
        disclaimers=list(dict.fromkeys(page["disclaimer"] for page in read if page["headline"] and page["disclaimer"])),
        shows_paper=any(part["shows_paper"] for page in shown for part in page["parts"]),
        scale=scale, seeds=seeds, count=len(read), provenance=known.data,
    )  # fmt: skip
    write_text(target, html)
    return len(read)


def _known_page(path: Path) -> dict[str, Any]:
    """A page of a known kind, by which its caption is found."""
    page = read_page(path)
    if page["kind"] not in (kind for of in SECTIONS.values() for kind in of):
        raise DataError(f"{path}: kind: {page['kind']!r} is not a kind of report. Make that report again.")
    return page


def inline(text: str) -> Markup:
    """The little Markdown that reports use – bold, code, new lines – as HTML; anything else is text."""
    html = str(escape(text))
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html)
    html = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html)
    return Markup(html.replace("&lt;br&gt;", "<br>"))


def number_in(text: str) -> float | None:
    """The sort key of a text that starts with a number: `<0.01` by 0.01, `−3.1 to 2` by −3.1."""
    found = NUMBER.match(_bare(text))
    return float(found[1].replace("−", "-")) if found else None


class _Known:
    """The sources of the numbers of all pages, each source and each run once."""

    def __init__(self, runs: Mapping[str, Cost]) -> None:
        self.runs = dict(runs)
        self.data: dict[str, Any] = {"sources": [], "runs": {}}
        self.places: dict[str, int] = {}

    def place(self, source: Mapping[str, Any], page: str) -> int:
        """The position of a page's source in `data`.

        Raises DataError if its runs are not known, or not those that the page was made from.
        """
        for run, of in costs_of_runs(source, self.runs, page).items():
            self.data["runs"][run] = {key: value for key, value in of.items() if key not in ("run", "predictions")}
        shown = {key: source[key] for key in ("what", "unit", "network", "values")}
        place = self.places.setdefault(json.dumps(shown), len(self.places))
        if place == len(self.data["sources"]):
            self.data["sources"].append(shown)
        return place


def _order(page: Mapping[str, Any]) -> list[Any]:
    """The paper's tables and figures by number, others by name after them."""
    found = re.fullmatch(r"(table|figure)(\d+)", page["name"])
    return [0, int(found[2]), ""] if found else [1, 0, page["name"]]


def _page(page: dict[str, Any], known: _Known, captions: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A page as the template needs it."""
    known.runs |= page["runs"]
    parts = [_part(part, known, page["name"]) for part in page["parts"]]
    name = paper.title(page["name"])
    shown = page | {"parts": parts, "label": name, "subject": page["study"] if name != page["name"] else ""}
    if page["drawing"]:
        shown["caption"] = _caption(captions / f"{page['kind']}.rst", config, page["study"])
        # the first chunk of a PNG begins with its width and height
        shown["width"], shown["height"] = struct.unpack(">II", base64.b64decode(page["drawing"]["png"][:32])[16:24])
    return shown


def _caption(path: Path, config: Mapping[str, Any], study: str) -> str:
    """The caption in `path`, filled in. It is part of the project, not of the code, so nothing in it may run."""
    about = SimpleNamespace(config=config, params=SimpleNamespace(study=study))
    try:
        template = SandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text(encoding="utf-8"))
        return template.render(snakemake=about)
    except (OSError, ValueError, TypeError, TemplateError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be used as a caption ({reason}). Restore it: `git checkout {path}`.") from None


def _part(part: Mapping[str, Any], known: _Known, page: str = "index") -> dict[str, Any]:
    """A table as the template needs it: cells with their sort keys, and filters for rows."""
    rows = [[_cell(cell, known, page) for cell in row] for row in part["rows"]]
    header = [
        {
            "text": text,
            "group": found[1] if (found := STRATEGY.match(text)) else "",
            "number": 2 * sum(row[at]["number"] for row in rows) > len(rows),
        }
        for at, text in enumerate(part["header"])
    ]
    leading = next((at for at, column in enumerate(header) if column["text"] not in ROW_COLUMNS), len(header))
    filters = {}
    if len(rows) >= LONG:
        for at, column in enumerate(header):
            values = list(dict.fromkeys(row[at]["plain"] for row in rows if row[at]["plain"]))
            if column["text"] in ROW_COLUMNS and 1 < len(values) < len(rows):
                filters[column["text"]] = {"column": at, "values": values}
    return dict(part) | {
        "columns": header,
        "cells": rows,
        "leading": max(leading, 1),
        "filters": filters,
        "strategies": list(dict.fromkeys(column["group"] for column in header if column["group"])),
        "shows_paper": any(cell["paper"] is not None for row in rows for cell in row),
    }


def _cell(cell: str | dict[str, Any], known: _Known, page: str) -> dict[str, Any]:
    if isinstance(cell, str):
        cell = {"text": cell, "value": number_in(cell), "paper": None, "difference": None, "sources": ()}
    first, *below = cell["text"].split("<br>")
    # A number of ours has one line, and the paper's below it; text may have many lines.
    lines = {"first": first, "below": "<br>".join(below)} if cell["sources"] else {"first": cell["text"], "below": ""}
    sources = [known.place(source, page) for source in cell["sources"]]
    number = bool(sources) or NUMBER.fullmatch(_bare(cell["text"])) is not None
    return cell | lines | {"sources": sources, "plain": _bare(cell["text"]), "number": number}


def _bare(text: str) -> str:
    return text.replace("**", "").replace("<br>", " ")


def _render(**content: Any) -> str:
    """The page with inline style and script; its policy allows only these two, by their hashes."""
    web = files("classroom.reporting") / "web"
    template, style, script = (
        (web / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "page.js")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = inline
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # seeds in their order
    return environment.from_string(template).render(
        **content, style=Markup(style), script=Markup(script), style_hash=_hash(style), script_hash=_hash(script)
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
