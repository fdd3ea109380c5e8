"""Agreement of a study's students with their own teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from classroom import places
from classroom.params import select
from classroom.reporting.common.pages import write_picture
from classroom.reporting.common.results import read_variants
from classroom.reporting.curves import agreement
from classroom.reporting.registry import Item, Report, of_studies


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    results = read_variants(settings, item["study"])
    page = agreement(item["study"], results, select(settings, "scale", str))
    write_picture(Path("reports", f"{name}.png"), page)


REPORT = Report(
    names=lambda params: of_studies(params, lambda study: f"agreement-{study}"),
    inputs=lambda params, item: places.results_of(params, item["study"]),
    make=make,
    category="Figures",
    shows="agreement with the teacher",
    endings=(".png",),
)
