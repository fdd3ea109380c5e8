"""Similarity (CKA) of the last stages of teacher and students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classroom import places
from classroom.params import select
from classroom.reporting.cka import cka_table, read_similarities
from classroom.reporting.registry import Item, Report, of_studies


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    tables = read_similarities(settings, item["study"])
    cka_table(name, select(settings, "scale", str), tables, Path("reports", f"{name}.md"))


REPORT = Report(
    names=lambda params: of_studies(
        params, lambda study: f"cka-{study}" if params.study[study].reports.cka is not None else None
    ),
    inputs=lambda params, item: places.similarities_of(params, item["study"]),
    make=make,
    category="Diagnostics",
    shows="similarity of last stages",
    endings=(".md", ".csv"),
)
