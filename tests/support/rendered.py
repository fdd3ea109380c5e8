"""Reading what the reports wrote: Markdown, CSV, LaTeX, and the page as data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from classroom.reporting.common.pages import Page, write
from classroom.reporting.registry import report


def one(table: pd.DataFrame, **keys: Any) -> pd.Series:
    """The only row with these values."""
    for key, value in keys.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def markdown_tables(path: Path) -> list[list[list[str]]]:
    """Of every Markdown table the cells, its header first, without the line below it."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in path.read_text().splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")])
        before = line
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    return [[table[0], *table[2:]] for table in tables]


def markdown_rows(path: Path) -> list[list[str]]:
    return markdown_tables(path)[0]


def save(kind: str, page: Page, target: Path) -> Path:
    """Writes a report as `classroom report` does."""
    write(kind, page, target, report(kind).suffixes)
    return target


def page_of(path: Path) -> dict[str, Any]:
    """The report as data, which the site shows."""
    return json.loads((path.parent / "pages" / f"{path.stem}.json").read_text())


def check_sources(path: Path) -> list[dict[str, Any]]:
    """That every number with its runs is their mean, a difference that of two; returns those cells."""
    cells = [
        cell for part in page_of(path)["parts"] for row in part["rows"] for cell in row if not isinstance(cell, str)
    ]
    assert cells
    for cell in cells:
        means = [sum(source["values"].values()) / len(source["values"]) for source in cell["sources"]]
        shown = means[0] if len(means) == 1 else means[0] - means[1]
        assert cell["value"] == pytest.approx(shown)
        assert re.match(rf"\**[+−]?({abs(shown):.2f}|{abs(shown):.3f})( |<|\*|$)", cell["text"]), cell
    return cells


def check_tex(path: Path) -> str:
    """As far as LaTeX's own complaints can be foreseen without it; returns what is not a comment."""
    body = [line for line in path.read_text().splitlines() if not line.startswith("%")]
    text = "\n".join(body)
    columns = 0
    for line in body:
        if begin := re.fullmatch(r"\\begin\{tabular\}\{(l+)\}", line):
            assert not columns, "a tabular within another"
            columns = len(begin.group(1))
        elif line == r"\end{tabular}":
            columns = 0
        elif line != r"\hline":
            assert columns, f"outside of a tabular: {line}"
            assert line.rstrip().endswith(r"\\"), line
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
            assert not line.lstrip().startswith("["), "would be read as an option of the row before it"
    assert columns == 0
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") > 0
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert not re.search(r"(?<!\\)[_#%^~]", text)
    assert text.isascii(), re.findall(r"[^\x00-\x7f]", text)
    assert "**" not in text
    assert "<br>" not in text
    return text
