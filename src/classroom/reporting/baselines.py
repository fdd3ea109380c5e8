"""Tables 2 and 13: teachers and students trained alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from classroom import places
from classroom.artifacts import NetworkFacts, Result
from classroom.core.metrics import LABELS, METRICS
from classroom.params import BASELINES, Params, select
from classroom.reporting.common import heading, paper
from classroom.reporting.common.pages import Page, write_table
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_results
from classroom.reporting.common.tables import Cell, Part, mean_cell, mean_sd, shown_metrics, with_paper
from classroom.reporting.registry import Item, Report


def baselines_table(name: str, scale: str, seeds: Sequence[int], results: list[Result], target: Path) -> None:
    """Writes `target`.md, .csv and .tex: a row per network, columns for each dataset and task.

    A network that two studies share has one row; two that share a name but differ (in Conv6, in their data) get a row
    each. Raises DataError for results of other seeds or training settings than each other.
    """
    check_alike(results, seeds, same_data=False)
    printed = paper.baselines(name)
    records: list[dict[str, Any]] = []
    rows: list[_Row] = []
    by_size = sorted(results, key=lambda result: -_network(result)[1]["parameters"])
    order = {network: rank for rank, network in enumerate(dict.fromkeys(_name(result) for result in by_size))}
    merged = _merged(results)
    for result, studies in sorted(merged, key=lambda pair: order[_name(pair[0])]):
        role, facts = _network(result)
        place = (result["data"]["dataset"], result["data"]["task"])
        row = next((row for row in rows if row.name == _name(result) and place not in row.cells), None)
        if row is None:
            rows.append(row := _Row(_name(result)))
        row.here.append(f"{', '.join(studies)}: {heading.describe(facts)}")
        row.cells[place] = {}
        for metric in METRICS[place[1]]:
            mean, sd = mean_sd([result["seeds"][str(seed)]["test"][role][metric] for seed in seeds])
            of_paper = printed[(printed.dataset == place[0]) & (printed.task == place[1]) & (printed.name == row.name)]
            theirs = of_paper["mean"][of_paper.metric == metric]
            cell = {"mean": mean, "sd": sd}
            if len(printed):
                cell |= {"paper": float(theirs.iloc[0]) if len(theirs) else float("nan")}
                cell |= {"difference": mean - cell["paper"]}
            ours = mean_cell(mean, sd, source(result, role, metric))
            known = "paper" in cell
            row.cells[place][metric] = with_paper(ours, cell["paper"], cell["difference"]) if known else ours
            described = {"dataset": place[0], "task": place[1], "network": row.name, "study": " ".join(studies)}
            records.append(described | {"synthetic": result["data"]["synthetic"], "metric": metric, **cell})

    shown = _columns(results, printed)
    grid = [
        [row.name, "<br>".join(row.here), *(row.cells.get(place, {}).get(metric, "–") for place, metric in shown)]
        for row in rows
    ]
    header = ["network", "here", *(f"{dataset} {LABELS[metric]}" for (dataset, _), metric in shown)]
    facts = [
        *heading.lines(scale, seeds, results),
        "- each cell: the metric in percent, mean ± sample standard deviation over seeds"
        + ("; below it the paper's mean and ours minus the paper's." if len(printed) else "."),
    ]
    title = f"{paper.title(name)}: teachers and students trained alone"
    if not len(printed):
        title += " (not in the paper)"
    table = pd.DataFrame(records)
    table.insert(0, "scale", scale)
    disclaimer = heading.disclaimer(scale, [result["data"] for result in results], len(printed) > 0)
    write_table(target, Page("baselines", title, disclaimer, facts, [Part(header, grid)]), table)


@dataclass
class _Row:
    """One network of the paper's name: what it is here, and its cells by dataset and task, then metric."""

    name: str
    here: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], dict[str, Cell]] = field(default_factory=dict)


def _network(result: Result) -> tuple[str, NetworkFacts]:
    """The only network of a baseline: its role and its facts."""
    ((role, facts),) = result["networks"].items()
    return role, facts


def _name(result: Result) -> str:
    return paper.network_name(_network(result)[1]["encoder"])


def _merged(results: list[Result]) -> list[tuple[Result, list[str]]]:
    """Each network once, with the studies that share it: the same data, class balancing and settings."""
    found: dict[str, tuple[Result, list[str]]] = {}
    for result in results:
        facts = [*_network(result), result["data"], result["settings"]["balance"]]
        found.setdefault(json.dumps(facts, sort_keys=True), (result, []))[1].append(result["study"])
    return list(found.values())


def _columns(results: list[Result], printed: pd.DataFrame) -> list[tuple[tuple[str, str], str]]:
    """(dataset, task) and metric of every column: the paper's in its order, then what only we have."""
    paper_columns = [((row.dataset, row.task), row.metric) for row in printed.itertuples()]
    ours = [
        ((result["data"]["dataset"], result["data"]["task"]), metric)
        for result in results
        for metric in shown_metrics(result["data"], printed.iloc[:0])
        if (result["data"]["dataset"], result["data"]["task"]) not in {place for place, _ in paper_columns}
    ]
    return list(dict.fromkeys([*paper_columns, *ours]))


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    folders = sorted(path for path in Path("results/baselines", name).iterdir() if path.is_dir())
    results = read_results([folder / f"{role}.json" for folder in folders for role in BASELINES])
    scale, seeds = select(settings, "scale", str), select(settings, "seeds", list[int])
    baselines_table(name, scale, seeds, results, Path("reports", f"{name}.md"))


def inputs(params: Params, item: Item) -> list[str]:
    studies = [name for name, study in params.study.items() if study.reports.baselines == item["name"]]
    return [path for study in studies for path in places.baseline_results_of(params, study)]


REPORT = Report(
    names=lambda params: {
        study.reports.baselines: {"name": study.reports.baselines} for study in params.study.values()
    },
    inputs=inputs,
    make=make,
    category="Tables",
    shows="networks alone",
)
