"""Figures 6, 10 and 11: similarity (CKA) of the layers of teacher and students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classroom import places
from classroom.params import select
from classroom.reporting.cka import cka_figure, read_similarities
from classroom.reporting.registry import Item, Report


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    tables = read_similarities(settings, item["study"])
    cka_figure(name, select(settings, "scale", str), tables, Path("reports", f"{name}.png"))


REPORT = Report(
    names=lambda params: {
        figure: {"study": name} for name, study in params.study.items() for figure in study.reports.cka or ()
    },
    inputs=lambda params, item: places.similarities_of(params, item["study"]),
    make=make,
    category="Figures",
    shows="similarity of layers",
    endings=(".png", ".svg"),
)
