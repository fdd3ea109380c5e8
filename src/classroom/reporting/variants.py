"""Tables 3, 4, 8, 9, 14, 15: the twelve variants of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.evaluation import significance
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.common import heading, paper
from classroom.reporting.common.cells import KEYS, by_place, cells, layout, loss_weights
from classroom.reporting.common.differences import columns, compared, tested
from classroom.reporting.common.pages import Page, results_page
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_results, read_variants
from classroom.reporting.common.tables import (
    BASELINE_LABELS,
    ENSEMBLES,
    Cell,
    Part,
    labelled,
    measured,
    percent_cell,
    shown_metrics,
)  # fmt: skip
from classroom.reporting.registry import TABLE, Report, Request

SUBJECT = (*significance.SUBJECT.split("-"), "ensemble")
"""Technique, strategy and network that the others are compared with."""


def variants_table(name: str, scale: str, seeds: Sequence[int], results: list[Result], student: Result) -> Page:
    """One row per technique and network, for each strategy the metrics in percent, then tests of significance.

    A cell is mean ± sample standard deviation over seeds, the best strategy of each row in bold; below it the paper's
    value if it has a table of that name. The tests are of KD + ML V3's differences. `student` is the result of the
    study's student alone. The .json has the ensembles' first metric, for `dvc exp show`. Raises DataError for results
    of other seeds, data or training settings than each other.
    """
    everything = [*results, student]
    check_alike(everything, seeds)
    data, study = results[0]["data"], results[0]["study"]
    primary = METRICS[data["task"]][0]
    printed = paper.variants(name)
    metrics = shown_metrics(data, printed)
    ours, alone = (compared(everything, seeds, pairs) for pairs in (significance.OURS, significance.ALONE))
    table = cells(results, seeds, "test", printed)
    stops = "early_stopping" in results[0]["settings"]["training"]
    early = ", unless early stopping ended one of them sooner" if stops else ""
    facts = [
        heading.networks(results),
        ENSEMBLES,
        f"- each cell: {_names(metrics)} in percent, mean ± sample standard deviation over seeds, the best strategy "
        "of each row in bold" + ("; below it the paper's mean and ours minus the paper's." if len(printed) else "."),
        *heading.pooling(metrics),
        "- the teacher T learns from its task loss only and starts from the same seed, so its results are identical in "
        f"every technique where arithmetic is deterministic{early}; KD (off) uses the baseline teacher.",
    ]
    parts = [layout(results, "test", table, metrics)]
    headline: list[str | Cell] = []
    if ours:
        parts.append(tested(ours, "KD + ML V3 and the others", seeds, everything))
        cell = by_place(results, "test", table)[*SUBJECT, primary]
        headline = [study, LABELS[primary], cell, *_against_student(student, seeds, parts[-1])]
    if alone:
        parts.append(tested(alone, "each variant and the student alone", seeds, everything))
    table = _with_comparisons(table, ours, alone, primary, everything)
    parts.append(loss_weights(results))
    ensembles = table[(table.network == "ensemble") & (table.metric == primary)]
    summary = {primary: {f"{c.technique}-{c.strategy}": round(c.mean, 4) for c in ensembles.itertuples()}}
    return results_page(
        name, f"{_counted(len(results))} on {study}", scale, seeds, results, printed, facts, parts=parts,
        study=study, headline=headline, table=labelled(table, study=study, scale=scale, synthetic=data["synthetic"]),
        files={".json": json.dumps(summary, indent=1) + "\n"},
    )  # fmt: skip


def _counted(variants: int) -> str:
    return "the twelve variants" if variants == len(EXCHANGE) else f"{variants} of the twelve variants"


def _names(metrics: Sequence[str]) -> str:
    names = [LABELS[metric] for metric in metrics]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _against_student(student: Result, seeds: Sequence[int], part: Part) -> list[str | Cell]:
    """The student alone, and how KD + ML V3 differs from it: difference, interval, verdict."""
    first = measured(student, "S1", seeds)[0]
    (row,) = (row for row in part.rows if row[1] == BASELINE_LABELS["student"])
    return [percent_cell(first, source(student, "S1", first["metric"])), row[2], row[3], row[-1]]


def _with_comparisons(
    table: pd.DataFrame,
    ours: list[significance.PairedDifference],
    alone: list[significance.PairedDifference],
    metric: str,
    results: Sequence[Result],
) -> pd.DataFrame:
    """Adds to each ensemble's row KD + ML V3 minus it, and it minus the student alone, in percentage points."""
    for column, family in (
        ("vs_kd_ml_v3", {one.versus: one for one in ours if one.versus in EXCHANGE}),
        ("vs_student", {one.method: one for one in alone}),
    ):
        records = []
        for name, one in family.items():
            variant = EXCHANGE[name]
            record = dict(zip(KEYS, (variant.technique, variant.strategy, "ensemble", metric), strict=True))
            records.append(record | columns(one, column, results))
        if records:
            table = table.merge(pd.DataFrame(records), how="left", on=KEYS)
    return table


def draw(request: Request) -> Page:
    results = read_variants(request.study, request.variants)
    (student,) = read_results([Path("results/baselines", request.item["baselines"], request.study, "student.json")])
    return variants_table(request.name, request.scale, request.seeds, results, student)


REPORT = Report(
    names=lambda params: {
        study.reports.variants: {"study": name, "baselines": study.reports.baselines}
        for name, study in params.study.items()
    },
    inputs=lambda params, item: [
        *places.results_of(params, item["study"]),
        f"results/baselines/{item['baselines']}/{item['study']}/student.json",
    ],
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Tables",
    shows="twelve variants",
    asked_by=("study.{study}.reports.variants",),
    suffixes=(*TABLE, ".json"),
)
