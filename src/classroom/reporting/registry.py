"""The reports. Each kind is one module of this package, with the name of its rule and its DVC stage.

A module's `REPORT` declares the names of its reports, their inputs, the settings that they are made from, their files,
and the function that draws them; its caption is workflow/report/KIND.rst. The rules, workflow/plan.yaml and
`classroom report` follow from it, and dvc.yaml is tested against it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from classroom.errors import ClassroomError, ParamsError, reading, suggestion
from classroom.params import Params, Variants, check, load, select

if TYPE_CHECKING:
    from classroom.reporting.common.pages import Page

KINDS = (
    "variants", "medical", "fidelity", "architecture", "baselines", "comparison", "resplit", "exchange", "cost",
    "deploy", "grid_search", "method_search", "cka_table", "cka_figure", "curves", "agreement", "samples", "pictures",
)  # fmt: skip
"""In the order of lists. Without the site, which shows all of them."""

TABLE = (".md", ".csv", ".tex")

T = TypeVar("T")
Item = Mapping[str, str]
"""What dvc.yaml needs to know of a report in addition to its name, such as its `study`."""


@dataclass(frozen=True)
class Request:
    """One report to make."""

    name: str
    item: Item
    settings: Mapping[str, Any]
    """All of them (`classroom.params.load`)."""
    declared: Sequence[str]
    """Keys of those that its kind may read."""

    def setting(self, key: str, kind: type[T]) -> T:
        """The setting at one of the declared keys."""
        if key not in self.declared:
            raise LookupError(f"{self.name}: its REPORT does not declare the setting '{key}'")
        return select(self.settings, key.format_map({**self.item, "name": self.name}), kind)

    @property
    def study(self) -> str:
        return self.item["study"]

    @property
    def scale(self) -> str:
        return self.setting("scale", str)

    @property
    def seeds(self) -> list[int]:
        return self.setting("seeds", list[int])

    @property
    def variants(self) -> list[str]:
        """Those that are trained."""
        of = self.setting("variants", Variants)
        return [*of.joint, *of.offline]


@dataclass(frozen=True)
class Report:
    """One kind of report."""

    names: Callable[[Params], dict[str, dict[str, str]]]
    """The reports that the settings ask for: by name, the item of each."""
    inputs: Callable[[Params, Item], list[str]]
    """The input files of a report, without source code."""
    settings: tuple[str, ...]
    """Dotted keys of the settings that `draw` reads, with `{name}` and the keys of the item in braces."""
    draw: Callable[[Request], Page]
    category: str
    """Its category in Snakemake's own report."""
    shows: str
    """Its content, in a few words."""
    asked_by: tuple[str, ...] = ()
    """Dotted keys of the settings that decide whether there is such a report, and its name; none: there always is."""
    suffixes: tuple[str, ...] = TABLE
    """Of its files reports/NAME…, the one that a reader opens first; every report also has reports/pages/NAME.json."""

    def outputs(self, name: str) -> list[str]:
        return [*(f"reports/{name}{suffix}" for suffix in self.suffixes), f"reports/pages/{name}.json"]


def report(kind: str) -> Report:
    """The kind of report that the module `kind` makes."""
    return importlib.import_module(f"classroom.reporting.{kind}").REPORT


def make(kind: str, name: str, item: Item, settings: Mapping[str, Any]) -> None:
    """Writes the files of a report; `settings`: as `classroom.params.load` returns them."""
    from classroom.reporting.common.pages import write

    of_kind = report(kind)
    page = of_kind.draw(Request(name, item, settings, of_kind.settings))
    write(kind, page, Path("reports", f"{name}.md"), of_kind.suffixes)


def asked_for(params: Params) -> dict[str, dict[str, dict[str, str]]]:
    """By kind and name, all reports that the settings ask for. Raises ParamsError if two have one name."""
    reports = {kind: report(kind).names(params) for kind in KINDS}
    kinds: dict[str, str] = {"index": "the site"}
    for kind, names in reports.items():
        for name in names:
            if kinds.setdefault(name, kind) != kind:
                raise ParamsError(f"two reports are called '{name}': {kinds[name]} and {kind}. Rename one in studies/.")
    return reports


def planned(plan: Path = Path("workflow/plan.yaml")) -> dict[str, tuple[str, Item]]:
    """The kind and the item of every report in the plan, by name. Raises ClassroomError if there is no plan."""
    with reading(plan, "Run `classroom check`, which writes it.", yaml.YAMLError, kind=ClassroomError):
        reports = yaml.load(plan.read_text(encoding="utf-8"), yaml.CSafeLoader)["plan"]["reports"]
        return {report: (kind, item) for kind, of in reports.items() for report, item in of.items()}


def find(name: str) -> tuple[str, Item]:
    """The kind and the item of the report called `name`. Raises ClassroomError for an unknown one."""
    known = planned()
    if (name := Path(name).stem) not in known:
        raise unknown(name, known)
    return known[name]


def unknown(name: str, known: Iterable[str]) -> ClassroomError:
    """The error for a report that is not made: of a study that is not active, or misspelt."""
    if study := inactive_study(name):
        return ClassroomError(f"'{name}' is a report of {study}, which is not active. {_use(study)}")
    return ClassroomError(f"unknown report '{name}'.{suggestion(name, known)}")


def check_targets(targets: Iterable[str]) -> None:
    """Raises ClassroomError if files to be made are of studies that are not active."""
    raw = load()
    others = raw["study"].keys() - set(raw["studies"])
    for target in targets:
        path = PurePosixPath(target)
        study = next((part for part in path.parts if part in others), "")
        if not study and path.parts[:1] == ("reports",) and path.suffix:
            study = inactive_study(path.stem)
        if study:
            raise ClassroomError(f"{target}: belongs to {study}, which is not active. {_use(study)}")


def inactive_study(report: str) -> str:
    """The inactive study whose file asks for a report that no active study asks for; else ''."""
    raw = load()
    for study in (*raw["studies"], *raw["study"]):
        try:
            if any(report in names for names in asked_for(check(raw | {"studies": [study]})).values()):
                return "" if study in raw["studies"] else study
        except ParamsError:
            continue  # a file that is not in use may be broken
    return ""


def _use(study: str) -> str:
    return f"Add it: `classroom use {' '.join([*load()['studies'], study])}`."


def of_studies(params: Params, name: Callable[[str], str | None]) -> dict[str, dict[str, str]]:
    """One report for each active study, named `name(study)`; none if that is None or empty."""
    return {called: {"study": study} for study in params.study if (called := name(study))}
