"""The search of the best factor of published methods' reference weights, and the result as an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from classroom import places
from classroom.artifacts import FactorPoint
from classroom.core.metrics import LABELS, METRICS
from classroom.evaluation.grid import read_factors
from classroom.method_settings import METHODS
from classroom.params import Tune, select
from classroom.reporting.common.pages import Page, write
from classroom.reporting.common.provenance import runs_of, searched
from classroom.reporting.common.tables import Part, csv, markdown, mean_cell, mean_sd
from classroom.reporting.registry import Item, Report


def tune_report(study: str, points: Sequence[FactorPoint], scale: str, seeds: Sequence[int], target: Path) -> None:
    """Writes `target`.md, .csv and .yaml (the best weights, for `classroom overlay`).

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
            row.method, f"{row.factor:g}", _weights(point["weights"]),
            mean_cell(row.mean, row.sd, searched(point, "S1", metric), best=row.best),
        ]
        for row, point in zip(table.itertuples(), points, strict=True)
    ]  # fmt: skip
    facts = [
        f"- scale: {scale}",
        f"- seeds: {', '.join(map(str, seeds))}",
        f"- each cell: the student's {metric} in percent **on validation**, mean ± sample standard deviation over "
        "seeds; the best of each method in bold. The test split was not used.",
        "- factor: of the weights of the method's reference code",
        f"- the best weights are in {target.with_suffix('.yaml').name}: "
        f"`classroom overlay {target.with_suffix('.yaml')}` writes them into studies/{study}.yaml",
    ]
    synthetic = any(point["data"]["synthetic"] for point in points)
    disclaimer = "**Synthetic images, not patients: these weights mean nothing elsewhere.**" if synthetic else ""
    part = Part(["method", "factor", "weights", f"validation {metric}"], rows)
    page = Page(
        "method_search",
        f"Weights of published methods on {study}",
        disclaimer,
        facts,
        [part],
        study=study,
        runs=runs_of(points),
    )
    table.insert(0, "study", study)
    table.insert(1, "scale", scale)
    lines = [
        f"# chosen by `classroom report tune-{study}`: the best student on validation, scale {scale}, mean over seeds "
        f"{', '.join(map(str, seeds))}",
        "studies:",
        f"  {study}:",
        "    methods:",
        *(
            f"      {method}: {{weights: {{{_weights(points[at]['weights'])}, tuned: true}}}}"
            for method, at in best.items()
        ),
    ]
    contents = {".md": markdown(*page.content), ".csv": csv(table), ".yaml": "\n".join(lines) + "\n"}
    write(target, contents, page)


def _weights(weights: dict[str, float]) -> str:
    return ", ".join(f"{term}: {value:.10g}" for term, value in weights.items())


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study, seeds, tune = item["study"], select(settings, "seeds", list[int]), select(settings, "tune", Tune)
    methods = getattr(tune, select(settings, f"study.{study}.task", str)).methods
    points = read_factors(Path("tune", study), methods, tune.factors, seeds)
    tune_report(study, points, select(settings, "scale", str), seeds, Path("reports", f"{name}.md"))


REPORT = Report(
    names=lambda params: {
        f"tune-{study}": {"study": study} for task in METHODS for study in params.tuned_studies(task)
    },
    inputs=lambda params, item: places.tuned_runs_of(params, item["study"]),
    make=make,
    category="Diagnostics",
    shows="search of published methods' weights",
    endings=(".md", ".csv", ".yaml"),
)
