"""Tables 2 and 13: teachers and students trained alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from classroom import places
from classroom.artifacts import NetworkFacts, Result
from classroom.core.metrics import LABELS
from classroom.params import BASELINES, Params
from classroom.reporting.common import heading, paper
from classroom.reporting.common.pages import Page, results_page
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_results
from classroom.reporting.common.tables import Cell, Part, labelled, measured, percent_cell, shown_metrics
from classroom.reporting.registry import Item, Report, Request

Column = tuple[str, str, str]
"""Dataset, task and metric."""


def baselines_table(name: str, scale: str, seeds: Sequence[int], results: list[Result]) -> Page:
    """A row per network, columns for each dataset and task.

    A network that two studies share has one row; two that share a name but differ (in Conv6, in their data) get a row
    each. Raises DataError for results of other seeds or training settings than each other.
    """
    check_alike(results, seeds, same_data=False)
    printed = paper.networks_and_methods(name)
    by_size = sorted(results, key=lambda result: -_network(result)[1]["parameters"])
    order = {network: rank for rank, network in enumerate(dict.fromkeys(_name(result) for result in by_size))}
    records, occurrences = [], Counter()
    here: dict[tuple[str, int], list[str]] = {}
    cells: dict[tuple[str, int], dict[Column, Cell]] = {}
    for result, studies in sorted(_merged(results), key=lambda pair: order[_name(pair[0])]):
        role, facts = _network(result)
        network, dataset, task = _name(result), result["data"]["dataset"], result["data"]["task"]
        row = network, occurrences[network, dataset, task]  # networks that differ but share a name get a row each
        occurrences[network, dataset, task] += 1
        here.setdefault(row, []).append(f"{', '.join(studies)}: {heading.describe(facts)}")
        theirs = paper.means(printed, dataset, task, network) if len(printed) else None
        for record in measured(result, role, seeds, paper=theirs):
            metric = record["metric"]
            cell = percent_cell(record, source(result, role, metric))
            cells.setdefault(row, {})[dataset, task, metric] = cell
            described = {"dataset": dataset, "task": task, "network": network, "study": " ".join(studies)}
            records.append(described | {"synthetic": result["data"]["synthetic"]} | record)

    shown = _columns(results, printed)
    grid = [
        [row[0], "<br>".join(texts), *(cells[row].get(column, "–") for column in shown)] for row, texts in here.items()
    ]
    header = ["network", "as trained here", *(f"{dataset} {LABELS[metric]}" for dataset, _, metric in shown)]
    facts = [
        "- each cell: the metric in percent, mean ± sample standard deviation over seeds"
        + ("; below it the paper's mean and ours minus the paper's." if len(printed) else "."),
        *heading.pooling(metric for _, _, metric in shown),
    ]
    absent = any("–" in row for row in grid)
    below = ["–: no active study trains this network on this dataset for this task."] if absent else []
    return results_page(
        name, "teachers and students trained alone", scale, seeds, results, printed, facts,
        parts=[Part(header, grid, below=below)], table=labelled(pd.DataFrame(records), scale=scale),
    )  # fmt: skip


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


def _columns(results: list[Result], printed: pd.DataFrame) -> list[Column]:
    """The paper's columns in its order, then those of datasets and tasks that only we have."""
    columns = list(printed[["dataset", "task", "metric"]].itertuples(index=False, name=None))
    of_paper = {column[:2] for column in columns}
    for data in (result["data"] for result in results):
        if (place := (data["dataset"], data["task"])) not in of_paper:
            columns += [(*place, metric) for metric in shown_metrics(data, printed.iloc[:0])]
    return list(dict.fromkeys(columns))


def draw(request: Request) -> Page:
    folders = sorted(path for path in Path("results/baselines", request.name).iterdir() if path.is_dir())
    results = read_results([folder / f"{role}.json" for folder in folders for role in BASELINES])
    return baselines_table(request.name, request.scale, request.seeds, results)


def inputs(params: Params, item: Item) -> list[str]:
    studies = [name for name, study in params.study.items() if study.reports.baselines == item["name"]]
    return [path for study in studies for path in places.baseline_results_of(params, study)]


REPORT = Report(
    names=lambda params: {
        study.reports.baselines: {"name": study.reports.baselines} for study in params.study.values()
    },
    inputs=inputs,
    settings=("scale", "seeds"),
    draw=draw,
    category="Tables",
    shows="networks alone",
    asked_by=("study.{study}.reports.baselines",),
)
