"""Table 10: published methods, our variant and the student alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd

from classroom import places
from classroom.artifacts import ComparedResult, ComparedResults, Cost, PublishedFacts, Result
from classroom.core.metrics import LABELS, METRICS
from classroom.evaluation import significance
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import Params
from classroom.reporting.common import heading, paper
from classroom.reporting.common.differences import columns, compared, tested
from classroom.reporting.common.pages import Page, results_page
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_comparison
from classroom.reporting.common.tables import (
    Cell,
    Part,
    labelled,
    measured,
    number,
    percent_cell,
    shown_metrics,
    variant_label,
)
from classroom.reporting.registry import Item, Report, Request

NEGLIGIBLE = 1e-3
"""A term below this fraction of the whole loss is reported as negligible."""
OF_ITS_FILE = "defaults of its file"
"""The settings of a method that the paper does not compare: only its own file says where they are from."""


def comparison_table(name: str, scale: str, seeds: Sequence[int], studies: Sequence[ComparedResults]) -> Page:
    """For each study a row for each method, then tests of their differences from the student alone.

    `studies`: each as `reporting.results.read_comparison` returns it. Raises DataError for results of other
    seeds, data or training than each other.
    """
    printed = paper.networks_and_methods(name)
    parts, records, first_of_each, shown = [], [], [], []
    for of_study in studies:
        everything = [*of_study["beside"], *of_study["published"]]
        check_alike(everything, seeds)
        first_of_each.append(of_study["beside"][0])
        rows = _rows(of_study, seeds, printed)
        metrics = _metrics(of_study, printed)
        shown += metrics
        parts.append(_part(rows, of_study, metrics))
        differences = _differences(of_study, seeds)
        title = f"each method and the student alone ({everything[0]['study']})"
        parts.append(tested(differences, title, seeds, everything))
        records += [
            row.facts | record | _against_student(row, metric, differences, everything)
            for row in rows
            for metric, record in row.records.items()
        ]
    facts = [
        "- each published method trains one student with the study's trained, frozen teacher; our method trains two "
        "students, which have a row each, as has their ensemble",
        "- each cell: the metric in percent on the test split, mean ± sample standard deviation over seeds"
        + ("; below it the paper's mean and ours minus the paper's" if len(printed) else "")
        + ". The best of each column in bold.",
        *heading.pooling(shown),
        _settings_fact([result for of_study in studies for result in of_study["published"]]),
        "- parameters in millions: at inference, those of the row's network; extra in training, all others that are "
        "trained (modules, a discriminator; for ours the other student and the teacher, unless it is frozen). s/epoch: "
        "seconds of training and validation per epoch, median over seeds; jobs may have shared the machine, and runs "
        "that trained together share their time",
    ]
    return results_page(
        name, "published methods next to ours", scale, seeds, first_of_each, printed, facts, parts=parts,
        table=labelled(pd.DataFrame(records), scale=scale),
    )  # fmt: skip


class _Row(NamedTuple):
    label: str
    result: ComparedResult
    facts: dict[str, Any]
    records: dict[str, dict[str, Any]]
    """By metric."""


def _rows(of_study: ComparedResults, seeds: Sequence[int], printed: pd.DataFrame) -> list[_Row]:
    """The student alone, the published methods, our students and our ensemble."""
    student, ours = of_study["beside"]
    label, weights = variant_label(ours["method"]), "weights as in the table of variants"
    found = [
        (student, "S1", "student alone", "task loss only"),
        *((of, "S1", _facts(of)["label"], _settings_label(of)) for of in of_study["published"]),
        *((ours, network, f"ours, {label}, {network}", weights) for network in ("S1", "S2", "ensemble")),
    ]
    rows = []
    for result, network, text, settings in found:
        facts = {
            "study": result["study"],
            "method": result["method"],
            "network": network,
            "settings": settings,
            "training_parameters": _extra_parameters(result, network),
            "inference_parameters": _inference_parameters(result, network),
            "seconds_per_epoch": _seconds(result["costs"]),
            "synthetic": result["data"]["synthetic"],
        }
        theirs = _of_paper(result, network, printed) if len(printed) else None
        records = {record["metric"]: record for record in measured(result, network, seeds, paper=theirs)}
        rows.append(_Row(text, result, facts, records))
    return rows


def _of_paper(result: ComparedResult, network: str, printed: pd.DataFrame) -> dict[str, float]:
    """The paper's means by metric: its row for us is the ensemble; its student alone is in Table 2."""
    name, data = result["method"], result["data"]
    if name == "student":
        name = paper.network_name(result["networks"]["S1"]["encoder"])
        printed = paper.networks_and_methods("table2")
    elif name in EXCHANGE and network != "ensemble":
        return {}
    return paper.means(printed, data["dataset"], data["task"], name)


def _metrics(of_study: ComparedResults, printed: pd.DataFrame) -> list[str]:
    data = of_study["beside"][0]["data"]
    return shown_metrics(data, printed[(printed.dataset == data["dataset"]) & (printed.task == data["task"])])


def _part(rows: Sequence[_Row], of_study: ComparedResults, metrics: Sequence[str]) -> Part:
    result = of_study["beside"][0]
    data = result["data"]
    best = {metric: max(row.records[metric]["mean"] for row in rows) for metric in metrics}
    grid: list[list[str | Cell]] = []
    for row in rows:
        cells = []
        for metric in metrics:
            record, origin = row.records[metric], source(row.result, row.facts["network"], metric)
            cells.append(percent_cell(record, origin, best=record["mean"] == best[metric]))
        sizes = [_millions(row.facts["training_parameters"]), number(row.facts["seconds_per_epoch"], ".1f"),
                 _millions(row.facts["inference_parameters"])]  # fmt: skip
        grid.append([row.label, row.facts["settings"], *cells, *sizes])
    header = ["method", "settings", *(LABELS[metric] for metric in metrics), "extra in training, M", "s/epoch",
              "inference, M"]  # fmt: skip
    networks = heading.networks(of_study["beside"])
    return Part(header, grid, f"{data['dataset']}, {data['task']} ({result['study']})", [networks], _notes(of_study))


def _differences(of_study: ComparedResults, seeds: Sequence[int]) -> list[significance.PairedDifference]:
    """Each published method and ours, minus the student alone."""
    student, ours = of_study["beside"]
    pairs = [(result["method"], student["method"]) for result in [*of_study["published"], ours]]
    return compared([student, *of_study["published"], ours], seeds, pairs)


def _against_student(
    row: _Row, metric: str, differences: Sequence[significance.PairedDifference], results: Sequence[Result]
) -> dict[str, Any]:
    """The columns of the row's difference, if this network and metric are compared."""
    method = row.result["method"]
    if (row.facts["network"], metric) != (significance.network_of(method), METRICS[row.result["data"]["task"]][0]):
        return {}
    return next((columns(one, "vs_student", results) for one in differences if one.method == method), {})


def _settings_label(result: ComparedResult) -> str:
    """Where a method's settings are from, what differs from the defaults, and the options that are always shown."""
    facts = _facts(result)
    defaults = "reference defaults" if paper.compares(result["method"]) else OF_ITS_FILE
    origin = "tuned" if result["tuned"] else "own settings" if facts["differences"] else defaults
    return "; ".join(dict.fromkeys([origin, *facts["differences"], *facts["shown"]]))


def _settings_fact(published: Sequence[ComparedResult]) -> str:
    """What the labels of settings mean, for the methods that are there."""
    methods = dict.fromkeys(result["method"] for result in published)
    own = [f"src/classroom/methods/{name}.py" for name in methods if not paper.compares(name)]
    meanings = []
    if len(own) < len(methods):
        meanings.append(
            "the paper gives none for these methods; `reference defaults` are those of public code, the authors' or "
            "CIRKD's, with hook points (taps) that suit these networks: docs/explanation/methods.md"
        )
    if own:
        meanings.append(f"`{OF_ITS_FILE}` are those of {', '.join(own)}")
    return "- settings: " + "; ".join(
        [*meanings, "`tuned` weights were chosen on validation; any other deviation is named"]
    )


def _facts(result: ComparedResult) -> PublishedFacts:
    """What its file said of a published method when it was trained: a file that changes trains again."""
    return result["settings"]["published"]


def _extra_parameters(result: ComparedResult, network: str) -> int:
    """Parameters that are trained in addition to the row's: for ours, those of the peer and an on-line teacher."""
    if result["method"] not in EXCHANGE:
        return result["extra_parameters"]
    frozen = ("T",) if EXCHANGE[result["method"]].teacher == "frozen" else ()
    learning = sum(facts["parameters"] for name, facts in result["networks"].items() if name not in frozen)
    return learning - _inference_parameters(result, network)


def _inference_parameters(result: ComparedResult, network: str) -> int:
    networks = result["networks"]
    students = ("S1", "S2") if network == "ensemble" else (network,)
    return sum(networks[name]["parameters"] for name in students)


def _seconds(costs: dict[str, Cost]) -> float:
    seconds = [cost["seconds_per_epoch"] for cost in costs.values() if cost["seconds_per_epoch"] is not None]
    return float(pd.Series(seconds, dtype=float).median())


def _millions(count: int) -> str:
    if not count:
        return "0"
    return f"{count / 1e6:.2f}" if count >= 10_000 else "<0.01"


def _notes(of_study: ComparedResults) -> list[str]:
    """Notes on single methods: foreground lost in small feature maps, negligible terms."""
    lines = []
    for result in of_study["published"]:
        runs = list(result["seeds"].values())
        terms = {key: mean(abs(run["last_epoch_terms"][key]) for run in runs) for key in runs[0]["last_epoch_terms"]}
        total = sum(terms.values())
        lines_of = list(result["notes"])
        lines_of += [
            f"the term {key.split('/')[1]} stayed negligible in the last epoch ({value:.1e} of a total loss of "
            f"{total:.2g})"
            for key, value in terms.items()
            if value < NEGLIGIBLE * total
        ]
        lines += [f"- {_facts(result)['label']}: {text}" for text in lines_of]
    return ["\n".join(lines)] if lines else []


def draw(request: Request) -> Page:
    studies = [read_comparison(path) for path in sorted(Path("results/comparison", request.name).glob("*.json"))]
    return comparison_table(request.name, request.scale, request.seeds, studies)


def inputs(params: Params, item: Item) -> list[str]:
    studies = [name for name in params.compared_studies() if params.study[name].reports.comparison == item["name"]]
    results = [places.comparison_of(params, study) for study in studies]
    return [*results, *map(places.costs_of, results)]


REPORT = Report(
    names=lambda params: {
        name: {"name": name} for study in params.study.values() if (name := study.reports.comparison)
    },
    inputs=inputs,
    settings=("scale", "seeds"),
    draw=draw,
    category="Tables",
    shows="published methods next to ours",
    asked_by=("study.{study}.reports.comparison",),
)
