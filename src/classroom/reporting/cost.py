"""What the trainings took: time, memory and disk, by table and technique."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from classroom import places
from classroom.artifacts import TableCosts
from classroom.errors import DataError
from classroom.method_settings import COMPARISON_METHODS
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import TECHNIQUES, select
from classroom.reporting.common.pages import Page, write
from classroom.reporting.common.paper import title
from classroom.reporting.common.provenance import Source
from classroom.reporting.common.tables import TECHNIQUE_LABELS, Cell, Part, csv, markdown, number
from classroom.reporting.registry import Item, Report

BASELINES, PUBLISHED = "baselines", "published"


def read_costs(folder: Path) -> list[TableCosts]:
    """The costs of every method in `folder`, with the `table` that shows it.

    Of a comparison only the published methods: the others are counted with their own study. Raises DataError if a file
    is damaged.
    """
    costs: list[TableCosts] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            of_file = json.loads(path.read_text(encoding="utf-8"))
            of_file = of_file.get("published", [of_file])
            costs += [
                {"study": one["study"], "table": one["table"], "method": one["method"], "seeds": one["seeds"]}
                for one in of_file
            ]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{path}: cannot be read ({reason}). Evaluate its method again, or remove it.") from None
    return costs


def cost_table(scale: str, costs: Sequence[TableCosts], target: Path) -> None:
    """Writes `target`.md and .csv: a row per table and technique, and their totals.

    `costs`: per study and method its `table` and, by seed, seconds, peak_memory_mb, device, threads and bytes. Raises
    DataError if there are none.
    """
    if not costs:
        raise DataError("results/costs: no run has been evaluated yet. Train and evaluate one, then run this again.")
    runs = pd.DataFrame(
        [
            {
                "table": one["table"],
                "run": run["run"],
                "study": one["study"],
                "technique": _kind(one["method"]),
                "hours": run["seconds"] / 3600,
                "core_hours": run["seconds"] * run["threads"] / 3600,
                "gpu_hours": run["seconds"] / 3600 if run["device"] != "cpu" else 0.0,
                "memory_gb": run["peak_memory_mb"]["process"] / 1024,
                "gpu_memory_gb": run["peak_memory_mb"].get("device", float("nan")) / 1024,
                "disk_gb": run["bytes"] / 2**30,
            }
            for one in costs
            for run in one["seeds"].values()
        ]
    )
    order = [BASELINES, *TECHNIQUES, PUBLISHED]
    grouped = runs.groupby(["table", "study", "technique"], sort=False)
    table = pd.DataFrame([{**dict(zip(grouped.keys, key, strict=True)), **_summed(of)} for key, of in grouped])
    table["place"] = table.technique.map(order.index)
    table["number"] = table.table.map(_number)
    table = table.sort_values(["number", "table", "study", "place"], ignore_index=True)
    table = table.drop(columns=["place", "number"])
    total = {"table": "all", "study": "", "technique": "all", **_summed(runs)}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)

    gpu = bool(runs.gpu_hours.sum())
    header = ["table", "study", "technique", "runs", "hours", "core hours", *(["GPU hours"] if gpu else []),
              "minutes a run (median)", "minutes a run (max)", "memory, GB (max)",
              *(["GPU memory, GB (max)"] if gpu else []), "disk, GB"]  # fmt: skip
    rows = []
    for row in table.itertuples():
        label = {**TECHNIQUE_LABELS, BASELINES: "alone", PUBLISHED: "published methods", "all": "all"}[row.technique]
        cells = [
            title(row.table), row.study, label, _count(row, runs), number(row.hours, ".2f"),
            number(row.core_hours, ".2f"), *([number(row.gpu_hours, ".2f")] if gpu else []),
            number(row.median_minutes, ".2f"), number(row.max_minutes, ".2f"), number(row.max_memory_gb, ".2f"),
            *([number(row.max_gpu_memory_gb, ".2f")] if gpu else []), number(row.disk_gb, ".3f"),
        ]  # fmt: skip
        rows.append([f"**{cell}**" if row.table == "all" and cell else cell for cell in cells])
    below = [
        "Hours are the sum over jobs; jobs that ran in parallel took less wall time. Core hours are hours "
        "times the threads that a run was given. A run that was resumed from its checkpoint counts "
        "its last session only, so interrupted runs took more than this. Disk is the size of a run's folder.",
    ]
    table.insert(0, "scale", scale)
    page = Page("cost", "What the trainings took", "", [f"- scale: {scale}"], [Part(header, rows, below=below)])
    write(target, {".md": markdown(*page.content), ".csv": csv(table)}, page)


def _count(row: Any, runs: pd.DataFrame) -> str | Cell:
    """The number of a row's runs, and which; of the total only their number."""
    if row.table == "all":
        return str(row.runs)
    of = runs[(runs.table == row.table) & (runs.study == row.study) & (runs.technique == row.technique)]
    minutes = Source("time of the job", dict(zip(of.run, 60 * of.hours, strict=True)), unit="min")
    return Cell(str(row.runs), row.runs, sources=(minutes,))


def _kind(method: str) -> str:
    if method in EXCHANGE:
        return EXCHANGE[method].technique
    return PUBLISHED if method in COMPARISON_METHODS else BASELINES


def _summed(runs: pd.DataFrame) -> dict[str, Any]:
    return {
        "runs": len(runs),
        "hours": runs.hours.sum(),
        "core_hours": runs.core_hours.sum(),
        "gpu_hours": runs.gpu_hours.sum(),
        "median_minutes": 60 * runs.hours.median(),
        "max_minutes": 60 * runs.hours.max(),
        "max_memory_gb": runs.memory_gb.max(),
        "max_gpu_memory_gb": runs.gpu_memory_gb.max(),
        "disk_gb": runs.disk_gb.sum(),
    }


def _number(name: str) -> float:
    """The paper's tables by number, before all others."""
    digits = name.removeprefix("table")
    return float(digits) if digits.isdigit() else float("inf")


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    cost_table(select(settings, "scale", str), read_costs(Path("results/costs")), Path("reports", f"{name}.md"))


REPORT = Report(
    names=lambda params: {"cost": {}},
    inputs=lambda params, item: places.all_costs(params),
    make=make,
    category="Diagnostics",
    shows="time, memory, disk",
    endings=(".md", ".csv"),
)
