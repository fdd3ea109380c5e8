"""The cost of training: time, memory and disk space, by table and technique."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from classroom import places
from classroom.artifacts import TableCosts
from classroom.errors import DataError
from classroom.methods import registry
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.common.pages import Page
from classroom.reporting.common.paper import title
from classroom.reporting.common.provenance import Source, read_costs
from classroom.reporting.common.tables import TECHNIQUE_LABELS, Cell, Part, labelled, number
from classroom.reporting.registry import Report

LABELS = {"baselines": "alone", **TECHNIQUE_LABELS, "published": "published methods", "all": "all"}
KEYS = ["table", "study", "technique"]
ALL = {"table": "all", "study": "", "technique": "all"}
COLUMNS = {
    "hours": ("hours", "sum", "hours", ".2f"),
    "core_hours": ("core_hours", "sum", "core hours", ".2f"),
    "gpu_hours": ("gpu_hours", "sum", "GPU hours", ".2f"),
    "median_minutes": ("minutes", "median", "minutes per run (median)", ".2f"),
    "max_minutes": ("minutes", "max", "minutes per run (max)", ".2f"),
    "max_memory_gb": ("memory_gb", "max", "memory, GB (max)", ".2f"),
    "max_gpu_memory_gb": ("gpu_memory_gb", "max", "GPU memory, GB (max)", ".2f"),
    "disk_gb": ("disk_gb", "sum", "disk, GB", ".3f"),
}
"""By column of the .csv: the value of a run, how runs are aggregated, the printed heading and format."""


def cost_table(scale: str, costs: Sequence[TableCosts]) -> Page:
    """A row per table and technique, and their totals.

    `costs`: as `provenance.read_costs` returns them; those without a `table` are left out. Raises DataError if there
    are none.
    """
    runs = pd.DataFrame(
        [
            {
                "table": one["table"],
                "study": one["study"],
                "technique": _kind(one["method"]),
                "run": run["run"],
                "hours": run["seconds"] / 3600,
                "minutes": run["seconds"] / 60,
                "core_hours": run["seconds"] * run["threads"] / 3600,
                "gpu_hours": run["seconds"] / 3600 if run["device"] != "cpu" else 0.0,
                "memory_gb": run["peak_memory_mb"]["process"] / 1024,
                "gpu_memory_gb": run["peak_memory_mb"].get("device", float("nan")) / 1024,
                "disk_gb": run["bytes"] / 2**30,
            }
            for one in costs
            if "table" in one
            for run in one["seeds"].values()
        ]
    )
    if runs.empty:
        raise DataError("results/costs: no run has been evaluated yet. Train and evaluate one, then run this again.")
    groups = pd.concat([runs, runs.assign(**ALL)]).groupby(KEYS)
    summed = {column: (of, how) for column, (of, how, _, _) in COLUMNS.items()}
    table = groups.agg(runs=("run", "size"), **summed).loc[sorted(groups.groups, key=_place)].reset_index()

    gpu = bool(runs.gpu_hours.sum())
    shown = [column for column in COLUMNS if gpu or "gpu" not in column]
    rows = []
    for row in table.to_dict("records"):
        of = groups.get_group(tuple(row[key] for key in KEYS))
        minutes = Source("time of the job", dict(zip(of.run, of.minutes, strict=True)), unit="min")
        labels = [title(row["table"]), row["study"], LABELS[row["technique"]]]
        numbers = [number(row[column], COLUMNS[column][3]) for column in shown]
        if row["table"] == "all":
            rows.append([f"**{text}**" if text else "" for text in (*labels, str(row["runs"]), *numbers)])
        else:
            rows.append([*labels, Cell(str(row["runs"]), row["runs"], sources=(minutes,)), *numbers])
    below = [
        "Hours are summed over jobs, so jobs that ran in parallel took less wall-clock time. Core hours are hours "
        "times the threads of a run. Disk is the total size of the runs' folders.",
    ]
    part = Part([*KEYS, "runs", *(COLUMNS[column][2] for column in shown)], rows, below=below)
    table = labelled(table, scale=scale)
    return Page("Cost of training", "", [f"- scale: {scale}"], [part], table=table)


def _kind(method: str) -> str:
    if method in EXCHANGE:
        return EXCHANGE[method].technique
    return "published" if registry.is_published(method) else "baselines"


def _place(keys: tuple[str, str, str]) -> tuple[bool, float, str, str, int]:
    """The paper's tables by number, then all others, then the total."""
    table, study, technique = keys
    digits = table.removeprefix("table")
    number = float(digits) if digits.isdigit() else float("inf")
    return table == ALL["table"], number, table, study, list(LABELS).index(technique)


REPORT = Report(
    names=lambda params: {"cost": {}},
    inputs=lambda params, item: places.all_costs(params),
    settings=("scale",),
    draw=lambda request: cost_table(request.scale, read_costs()),
    category="Diagnostics",
    shows="time, memory, disk",
    suffixes=(".md", ".csv"),
)
