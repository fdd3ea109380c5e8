"""The cost of deployment: teacher, one student and the ensemble of both, as exported and measured on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from classroom.core.metrics import LABELS, METRICS
from classroom.errors import DataError, reading
from classroom.files import content_hash
from classroom.methods.registry import run_folder
from classroom.params import Params
from classroom.reporting.common import heading
from classroom.reporting.common.pages import Page
from classroom.reporting.common.tables import Part, labelled, number
from classroom.reporting.registry import Item, Report

MODEL_LABELS = {"T": "teacher alone", "S1": "one student", "ensemble": "ensemble of two students"}
SAVED = {"parameters": "parameters", "macs": "MACs", "bytes": "file", "latency_ms": "latency", "memory": "memory"}
"""By column of the data, the label of what the ensemble saves."""


COLUMNS: dict[str, Callable[[Any], str]] = {
    "study": lambda row: row.study,
    "model": lambda row: MODEL_LABELS[row.network],
    "encoder": lambda row: row.encoder,
    "parameters, M": lambda row: number(row.parameters / 1e6, ".2f"),
    "MACs, G": lambda row: number(row.macs / 1e9, ".3f"),
    "file, MB": lambda row: number(row.bytes / 1e6, ".2f"),
    "latency, ms": lambda row: f"{row.latency_ms:.2f} [{row.latency_min_ms:.2f}–{row.latency_max_ms:.2f}]",
    "images/s": lambda row: number(row.images_per_second, ".1f"),
    "memory, MB": lambda row: number(row.memory / 1e6, ".1f"),
    "test, %": lambda row: f"{LABELS[row.metric]} {number(row.test, '.2f')}",
}


def read_measured(folder: Path) -> list[dict[str, Any]]:
    """The files of `classroom measure` in `folder`, one per study.

    Raises DataError if there is nothing, if a file is damaged, or if it was measured on other models than the current
    ones; a model that is missing (results pulled alone) is not checked.
    """
    measured = []
    for path in sorted(folder.glob("*.json")):
        with reading(path, "Run `classroom measure` for it again."):
            one = json.loads(path.read_text(encoding="utf-8"))
            models = [(Path(of["path"]), of["content"]) for of in one["networks"].values()]
        for model, content in models:
            if model.exists() and content_hash(model) != content:
                raise DataError(
                    f"{path}: was measured with another version of {model}. Run `classroom measure` for it again."
                )
        measured.append(one)
    if not measured:
        raise DataError(f"{folder}: nothing was measured yet. Run `classroom measure` for a study first.")
    return measured


def deploy_table(scale: str, measured: Sequence[dict[str, Any]]) -> Page:
    """A row per study and model, then what each ensemble saves."""
    table = pd.DataFrame([_record(study, network) for study in measured for network in MODEL_LABELS])
    batch = measured[0]["batch"]
    rounds = min(len(study["networks"]["T"]["seconds"]) for study in measured)
    below = [
        f"Latency: time for one image, median [minimum–maximum] of {rounds} rounds or more. Images/s: throughput in "
        f"batches of {batch}. Memory: growth of a new process that loads the model and runs it on one image. MACs: "
        "multiply-accumulate operations in convolutions and linear layers for one image. Test: metric of this run on "
        "the test split.",
    ]
    rows = [[cell(row) for cell in COLUMNS.values()] for row in table.itertuples()]
    return Page(
        "Cost of deployment",
        heading.disclaimer(scale, [study["data"] for study in measured], shows_paper=False),
        _facts(scale, measured),
        [Part(list(COLUMNS), rows, below=below, grouped=True), _saved(table)],
        table=labelled(table, scale=scale),
        made_from=list(
            dict.fromkeys(
                run_folder(one["study"], of["method"], one["seed"]).as_posix()
                for one in measured
                for of in one["networks"].values()
            )
        ),
    )


def _facts(scale: str, measured: Sequence[dict[str, Any]]) -> list[str]:
    cpus = dict.fromkeys(
        f"{one['cpu']}, {one['threads']} thread{'s' if one['threads'] != 1 else ''}" for one in measured
    )
    versions = dict.fromkeys(one["onnxruntime"] for one in measured)
    methods = dict.fromkeys(one["networks"]["ensemble"]["method"] for one in measured)
    seeds = dict.fromkeys(str(one["seed"]) for one in measured)
    return [
        f"- scale: {scale}",
        f"- students of {', '.join(methods)}, seed {', '.join(seeds)}; the ensemble is both of them in one graph",
        f"- measured on: {'; '.join(cpus)}, onnxruntime {', '.join(versions)}; the three models of a study take turns "
        "in one process. Times depend on the machine: compare them within a study only",
    ]


def _record(study: dict[str, Any], network: str) -> dict[str, Any]:
    of = study["networks"][network]
    metric = METRICS[study["data"]["task"]][0]
    milliseconds = 1000 * pd.Series(of["seconds"])
    return {
        "study": study["study"],
        "synthetic": study["data"]["synthetic"],
        "network": network,
        "method": of["method"],
        "encoder": of["networks"][0]["encoder"],
        "image_size": study["data"]["image_size"],
        **{key: of[key] for key in ("parameters", "macs", "bytes")},
        "latency_ms": milliseconds.median(),
        "latency_min_ms": milliseconds.min(),
        "latency_max_ms": milliseconds.max(),
        **{key: of[key] for key in ("images_per_second", "memory")},
        "metric": metric,
        "test": 100 * of["metrics"]["test"][metric],
        **{key: study[key] for key in ("cpu", "threads")},
    }


def _saved(table: pd.DataFrame) -> Part:
    """For parameters the paper's compression, 1 − 2·student/teacher (Sec. 4.2); likewise for the other columns."""
    rows = []
    for study, of in table.groupby("study", sort=False):
        teacher, ensemble = (of[of.network == network].iloc[0] for network in ("T", "ensemble"))
        rows.append([study, *(number(100 * (1 - ensemble[key] / teacher[key]), ".1f") for key in SAVED)])
    return Part(
        ["study", *(f"{label}, %" for label in SAVED.values())],
        rows,
        "Savings of the two students compared with the teacher",
        below=["1 − ensemble/teacher, which for parameters is the paper's 1 − 2·student/teacher; negative: they cost "
               "more."],
    )  # fmt: skip


def inputs(params: Params, item: Item) -> list[str]:
    return [f"results/deploy/{name}.json" for name, study in params.study.items() if study.reports.deploy]


REPORT = Report(
    names=lambda params: {"deploy": {}} if any(study.reports.deploy for study in params.study.values()) else {},
    inputs=inputs,
    settings=("scale",),
    draw=lambda request: deploy_table(request.scale, read_measured(Path("results/deploy"))),
    category="Tables",
    shows="cost of deployment",
    asked_by=("study.{study}.reports.deploy",),
)
