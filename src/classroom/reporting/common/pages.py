"""Every report as JSON too, for `classroom report index`, pictures included."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from classroom.artifacts import Cost
from classroom.files import read_json, written_whole
from classroom.reporting.common.tables import Cell, Part, csv, latex, markdown


class Drawing(NamedTuple):
    """A picture and its alternative text."""

    png: bytes
    alt: str


class Page(NamedTuple):
    """A report before it is rendered as Markdown, LaTeX, JSON or HTML."""

    kind: str
    """One of `reporting.registry.KINDS`, by which `reporting.site` sorts."""
    title: str
    disclaimer: str = ""
    facts: Sequence[str] = ()
    parts: Sequence[Part] = ()
    drawing: Drawing | None = None
    study: str = ""
    """If it shows one study only."""
    headline: Sequence[str | Cell] = ()
    """Of a table of variants, its row at the top of the site: see `reporting.site.HEADLINE`."""
    runs: Mapping[str, Cost] = {}
    """By folder, the costs of a search's runs (`evaluation.costs`); those of other runs are in results/costs."""

    @property
    def content(self) -> tuple[str, str, Sequence[str], Sequence[Part]]:
        """The arguments of `markdown` and `latex`."""
        return self.title, self.disclaimer, self.facts, self.parts


def write_table(target: Path, page: Page, table: pd.DataFrame, **more: str) -> None:
    """Writes `target`.md, .csv and .tex, the page as data, and `more` by suffix."""
    files = {".md": markdown(*page.content), ".csv": csv(table), ".tex": latex(*page.content)}
    write(target, files | {f".{suffix}": text for suffix, text in more.items()}, page)


def write_picture(target: Path, page: Page, **more: str) -> None:
    """Writes `target`.png, the page as data, and `more` by suffix."""
    write(target, {".png": page.drawing.png} | {f".{suffix}": text for suffix, text in more.items()}, page)


def write(target: Path, contents: Mapping[str, str | bytes], page: Page) -> None:
    """Writes `contents`, by suffix, next to `target`, and the page as pages/NAME.json: all files or none."""
    files = {target.with_suffix(suffix): content for suffix, content in contents.items()}
    files[target.parent / "pages" / f"{target.stem}.json"] = _data(target.stem, page)
    with written_whole(*files) as temporary:
        for path, content in zip(temporary, files.values(), strict=True):
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def read_page(path: Path) -> dict[str, Any]:
    """A report's page as `write` leaves it. Raises DataError if it is missing or damaged."""
    return read_json(path, Page._fields, "Make that report again.")


def _data(name: str, page: Page) -> str:
    data = {"name": name, **page._asdict(), "parts": [part._asdict() for part in page.parts]}
    if page.drawing:
        data["drawing"] = {"png": base64.b64encode(page.drawing.png).decode(), "alt": page.drawing.alt}
    return json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null."""
    if isinstance(value, Cell):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
