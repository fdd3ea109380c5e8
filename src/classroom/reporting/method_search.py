"""The search for the best factor of published methods' reference weights, and the result as an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from classroom import places
from classroom.artifacts import FactorPoint
from classroom.core.metrics import LABELS, METRICS
from classroom.evaluation.grid import read_factors
from classroom.params import TASKS, Tune
from classroom.reporting.common.pages import Page
from classroom.reporting.common.provenance import searched
from classroom.reporting.common.search import search_page
from classroom.reporting.common.tables import Part, mean_sd, percent_cell
from classroom.reporting.registry import Report, Request


def tune_report(study: str, points: Sequence[FactorPoint], scale: str, seeds: Sequence[int]) -> Page:
    """A row for each factor of each method; its .yaml has the best weights, for `classroom overlay`.

    `points`: as `evaluation.grid.read_factors` returns them. The best factor of a method has the student's largest
    validation metric, mean over seeds; ties go to the first.
    """
    records = []
    for point in points:
        mean, sd = mean_sd([point["seeds"][str(seed)]["S1"] for seed in seeds])
        records.append({"method": point["method"], "factor": point["factor"], "mean": mean, "sd": sd})
    table = pd.DataFrame(records)
    best = {method: of["mean"].idxmax() for method, of in table.groupby("method", sort=False)}
    table["best"] = table.index.isin(best.values())

    metric = LABELS[METRICS[points[0]["data"]["task"]][0]]
    rows = [
        [
            record["method"], f"{record['factor']:g}", _weights(point["weights"]),
            percent_cell(record, searched(point, "S1", metric), best=record["best"]),
        ]
        for record, point in zip(table.to_dict("records"), points, strict=True)
    ]  # fmt: skip
    facts = [
        f"- each cell: the student's {metric} in percent **on validation**, mean ± sample standard deviation over "
        "seeds; the best of each method in bold. The test split was not used.",
        "- factor: multiplies the default weights, which are in src/classroom/methods/METHOD.py",
    ]
    chosen = [
        f"{method}: {{weights: {{{_weights(points[at]['weights'])}, tuned: true}}}}" for method, at in best.items()
    ]
    return search_page(
        f"tune-{study}", f"Weights of published methods on {study}", study, scale, seeds,
        points=points, facts=facts,
        parts=[Part(["method", "factor", "weights", f"validation {metric}"], rows)], table=table,
        winner="student", key="methods", chosen=chosen,
    )  # fmt: skip


def _weights(weights: dict[str, float]) -> str:
    return ", ".join(f"{term}: {value:.10g}" for term, value in weights.items())


def draw(request: Request) -> Page:
    tune, task = request.setting("tune", Tune), request.setting("study.{study}.task", str)
    methods = getattr(tune, task).methods
    points = read_factors(Path("tune", request.study), methods, tune.factors, request.seeds)
    return tune_report(request.study, points, request.scale, request.seeds)


REPORT = Report(
    names=lambda params: {f"tune-{study}": {"study": study} for task in TASKS for study in params.tuned_studies(task)},
    inputs=lambda params, item: places.tuned_runs_of(params, item["study"]),
    settings=("scale", "seeds", "tune", "study.{study}.task"),
    draw=draw,
    category="Diagnostics",
    shows="search of published methods' weights",
    asked_by=("tune.classification", "tune.segmentation"),
    suffixes=(".md", ".csv", ".yaml"),
)
