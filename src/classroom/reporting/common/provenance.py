"""The source of a number of a report: the value of each run behind it, and those runs' costs and inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from classroom.artifacts import Cost, Result, Searched, TableCosts
from classroom.core.metrics import LABELS
from classroom.errors import DataError, reading
from classroom.methods.registry import run_folder

Kind = Literal["test", "fidelity"]
ON = {
    "test": "on the test split",
    "fidelity": "on the test split, with the teacher's predictions as the ground truth",
}


@dataclass(frozen=True)
class Source:
    """The source of a cell: a value for each run; the cell shows their mean."""

    what: str
    """Such as `IoU of S2 on the test split`."""
    values: Mapping[str, float]
    """By the run's folder, in the unit of the cell."""
    network: str = ""
    unit: str = "%"
    predictions: Mapping[str, str] = field(default_factory=dict)
    """By the run's folder the MD5 of the predictions that the value was computed from, if any."""
    metric: str = ""
    """Its key in what `classroom evaluate` writes, where the value is in it."""
    kind: Kind = "test"


def source(result: Result, network: str, metric: str, kind: Kind = "test") -> Source:
    """The source of the mean of a `metric` (percent) in a result of `classroom evaluate`."""
    runs = {run_folder(result["study"], result["method"], seed).as_posix(): of for seed, of in result["seeds"].items()}
    return Source(
        f"{LABELS[metric]} of {network} {ON[kind]}",
        {run: 100 * of[kind][network][metric] for run, of in runs.items()},
        network,
        predictions={run: of["predictions"] for run, of in runs.items()},
        metric=metric,
        kind=kind,
    )


def searched(point: Searched, network: str, metric: str) -> Source:
    """The source of a cell of a search; `point`: as `evaluation.grid` reads it."""
    values = {point["costs"][seed]["run"]: 100 * of[network] for seed, of in point["seeds"].items()}
    return Source(f"{metric} of {network} on validation", values, network)


def runs_of(points: Iterable[Searched]) -> dict[str, Cost]:
    """The costs of a search's runs, by folder."""
    return {cost["run"]: cost for point in points for cost in point["costs"].values()}


def costs_of_runs(source: Mapping[str, Any], runs: Mapping[str, Cost], page: str) -> dict[str, Cost]:
    """By folder, the costs in `runs` of the runs behind a source of a page.

    Raises DataError if a run is missing, or is not the one that the page was made from.
    """
    for run in source["values"]:
        known, made_from = runs.get(run), source["predictions"].get(run)
        if known is None or made_from not in (None, known["predictions"]):
            what = "a run that is not evaluated" if known is None else "a run that has been trained again"
            raise DataError(
                f"reports/pages/{page}.json: depends on {what}, {run}. Evaluate it and make this report again, or "
                "let `snakemake --cores all reports/index.html` do both."
            )
    return {run: runs[run] for run in source["values"]}


def read_costs(folder: Path = Path("results/costs")) -> list[TableCosts]:
    """The costs of every evaluated method, with the `table` that shows it.

    What a comparison sets next to its published methods is counted with its own study, and has no `table` here. Raises
    DataError for a damaged file.
    """
    costs: list[TableCosts] = []
    for path in sorted(folder.rglob("*.json")):
        remedy = "Run `classroom evaluate` for it again; of published methods, `classroom evaluate STUDY published`."
        with reading(path, remedy, what="as costs of runs"):
            content = json.loads(path.read_text(encoding="utf-8"))
            methods = content["published"] + content["beside"] if "published" in content else [content]
            _ = [(one["study"], one["method"], run["run"]) for one in methods for run in one["seeds"].values()]
            costs += methods
    return costs


def read_runs(folder: Path = Path("results/costs")) -> dict[str, Cost]:
    """By folder, the costs of every evaluated run. Raises DataError as `read_costs`."""
    return {run["run"]: run for one in read_costs(folder) for run in one["seeds"].values()}
