"""The reports. Each kind is one module of this package, with the name of its rule and its DVC stage.

A module's `REPORT` has the names of its reports, their inputs, their files, and the function that makes them; the
rules, workflow/plan.yaml and `classroom report` follow from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from classroom.errors import ClassroomError, ParamsError, suggestion
from classroom.params import Params

KINDS = (
    "variants", "fidelity", "architecture", "baselines", "comparison", "resplit", "exchange", "cost", "deploy",
    "grid_search", "method_search", "cka_table", "cka_figure", "curves", "agreement", "samples", "pictures",
)  # fmt: skip
"""In the order of lists. Without the site, which shows all of them."""

TABLE = (".md", ".csv", ".tex")

Item = Mapping[str, str]
"""What dvc.yaml needs to know of a report in addition to its name, such as its `study`."""


@dataclass(frozen=True)
class Report:
    """One kind of report."""

    names: Callable[[Params], dict[str, dict[str, str]]]
    """The reports that the settings ask for: by name, the item of each."""
    inputs: Callable[[Params, Item], list[str]]
    """The input files of a report, without source code."""
    make: Callable[[str, Item, dict[str, Any]], None]
    """Writes the report of this name and item, from the settings (`classroom.params.load`)."""
    category: str
    """Its category in Snakemake's own report."""
    shows: str
    """Its content, in a few words."""
    endings: tuple[str, ...] = TABLE
    """The suffixes of its files reports/NAME…; every report also has reports/pages/NAME.json."""

    def outputs(self, name: str) -> list[str]:
        return [*(f"reports/{name}{ending}" for ending in self.endings), f"reports/pages/{name}.json"]

    @property
    def main(self) -> str:
        """The suffix of the file that a reader opens."""
        return self.endings[0]


def report(kind: str) -> Report:
    """The kind of report that the module `kind` makes."""
    return importlib.import_module(f"classroom.reporting.{kind}").REPORT


def asked_for(params: Params) -> dict[str, dict[str, dict[str, str]]]:
    """By kind and name, all reports that the settings ask for. Raises ParamsError if two have one name."""
    reports = {kind: report(kind).names(params) for kind in KINDS}
    kinds: dict[str, str] = {"index": "the site"}
    for kind, names in reports.items():
        for name in names:
            if kinds.setdefault(name, kind) != kind:
                raise ParamsError(f"two reports are called '{name}': {kinds[name]} and {kind}. Rename one in studies/.")
    return reports


def find(name: str, plan: Path = Path("workflow/plan.yaml")) -> tuple[str, Item]:
    """The kind and the item of the report called `name`. Raises ClassroomError for an unknown one."""
    try:
        reports = yaml.load(plan.read_text(encoding="utf-8"), yaml.CSafeLoader)["plan"]["reports"]
        known = {report: (kind, item) for kind, of in reports.items() for report, item in of.items()}
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise ClassroomError(f"{plan}: cannot be read ({error}). Run `classroom check`, which writes it.") from None
    if (name := Path(name).stem) not in known:
        raise ClassroomError(f"unknown report '{name}'.{suggestion(name, known)}")
    return known[name]


def of_studies(params: Params, name: Callable[[str], str | None]) -> dict[str, dict[str, str]]:
    """One report for each study in force, named `name(study)`; none if that is None or empty."""
    return {called: {"study": study} for study in params.study if (called := name(study))}
