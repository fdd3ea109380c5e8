"""A report before it is rendered, and its files: Markdown, CSV, LaTeX, PNG, and JSON for the site."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from classroom.artifacts import Cost, Result
from classroom.files import read_json, written_whole
from classroom.reporting.common import heading, paper
from classroom.reporting.common.tables import Cell, Part, csv, latex, markdown

ONLY_FILES = ("table", "files")
"""What the site does not show."""


class Drawing(NamedTuple):
    """A picture and its alternative text."""

    png: bytes
    alt: str


class Page(NamedTuple):
    """A report before it is rendered as Markdown, LaTeX, JSON or HTML."""

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
    made_from: Sequence[str] = ()
    """Of a picture, or of numbers without a source each, the folders of the runs behind it."""
    table: pd.DataFrame | None = None
    """The numbers of its .csv."""
    files: Mapping[str, str | bytes] = {}
    """By suffix, the content of files that are of this kind of report alone."""

    def rendered(self, suffix: str) -> str | bytes:
        """The content of its file with this suffix."""
        text = self.title, self.disclaimer, self.facts, self.parts
        known = {
            ".md": lambda: markdown(*text),
            ".tex": lambda: latex(*text),
            ".csv": lambda: csv(self.table),
            ".png": lambda: self.drawing.png,
        }
        return self.files[suffix] if suffix in self.files else known[suffix]()


def results_page(
    name: str, about: str, scale: str, seeds: Sequence[int], results: Sequence[Result], printed: pd.DataFrame,
    facts: Sequence[str], **more: Any,
) -> Page:  # fmt: skip
    """A table of `results` with the heading that they share; `printed`: the paper's rows, if it has that table."""
    title = f"{paper.title(name)}: {about}" + ("" if len(printed) else " (not in the paper)")
    disclaimer = heading.disclaimer(scale, [result["data"] for result in results], len(printed) > 0)
    return Page(title, disclaimer, [*heading.lines(scale, seeds, results), *facts], **more)


def write(kind: str, page: Page, target: Path, suffixes: Sequence[str]) -> None:
    """Writes the files of a report next to `target`, and the page as pages/NAME.json: all or none.

    `kind`: one of `reporting.registry.KINDS`, by which `reporting.site` sorts.
    """
    files = {target.with_suffix(suffix): page.rendered(suffix) for suffix in suffixes}
    data = {"name": target.stem, "kind": kind} | {
        key: of for key, of in page._asdict().items() if key not in ONLY_FILES
    }
    files[target.parent / "pages" / f"{target.stem}.json"] = (
        json.dumps(_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )
    with written_whole(*files) as temporary:
        for path, content in zip(temporary, files.values(), strict=True):
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def read_page(path: Path, remedy: str = "Make that report again.") -> dict[str, Any]:
    """A report's page as `write` leaves it. Raises DataError, ending with the `remedy`, if it is missing or damaged."""
    return read_json(path, {"name", "kind", *Page._fields} - {*ONLY_FILES}, remedy)


def _plain(value: Any) -> Any:
    """As JSON has it: NaN is null, a picture in base64."""
    if is_dataclass(value):
        value = asdict(value)
    elif isinstance(value, Part | Drawing):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(of) for of in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value
