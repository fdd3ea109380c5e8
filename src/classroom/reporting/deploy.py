"""What deploying costs: teacher, one student and the ensemble of both, as exported and measured on a CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from classroom.core.metrics import LABELS, METRICS
from classroom.errors import DataError
from classroom.files import content_hash
from classroom.params import Params, select
from classroom.reporting.common import heading
from classroom.reporting.common.pages import Page, write_table
from classroom.reporting.common.tables import Part, number
from classroom.reporting.registry import Item, Report

MODEL_LABELS = {"T": "teacher alone", "S1": "one student", "ensemble": "ensemble of two students"}
SAVED = {"parameters": "parameters", "macs": "MACs", "bytes": "file", "latency_ms": "latency", "memory": "memory"}
"""By column of the data, the label of what the ensemble saves."""


def read_measured(folder: Path) -> list[dict[str, Any]]:
    """The files of `classroom measure` in `folder`, one per study.

    Raises DataError if there is nothing, if a file is damaged, or if it was measured on other models than the current
    ones; a model that is missing (results pulled alone) is not checked.
    """
    measured = []
    for path in sorted(folder.glob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
            models = [(Path(of["path"]), of["content"]) for of in one["networks"].values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: cannot be read ({error}). Run `classroom measure` for it again.") from None
        for model, content in models:
            if model.exists() and content_hash(model) != content:
                raise DataError(f"{path}: was measured on another {model}. Run `classroom measure` for it again.")
        measured.append(one)
    if not measured:
        raise DataError(f"{folder}: nothing was measured yet. Run `classroom measure` for a study first.")
    return measured


def deploy_table(scale: str, measured: Sequence[dict[str, Any]], target: Path) -> None:
    """Writes `target`.md, .csv and .tex: a row per study and model, then what each ensemble saves."""
    table = pd.DataFrame([_row(study, network) for study in measured for network in MODEL_LABELS])
    batch = measured[0]["batch"]
    rounds = min(len(study["networks"]["T"]["seconds"]) for study in measured)
    header = ["study", "model", "encoder", "parameters, M", "MACs, G", "file, MB", "latency, ms", "images/s",
              "memory, MB", "test, %"]  # fmt: skip
    below = [
        f"Latency: of one image, median [fastest–slowest] of {rounds} rounds or more. "
        f"Images/s: in batches of {batch}. Memory: by how much a fresh process grows when it loads the model and runs "
        "it on one image. MACs: of one image, multiplications with addition in convolutions and linear layers. Test: "
        "of this one run.",
    ]
    parts = [Part(header, [_cells(row) for row in table.itertuples()], below=below, grouped=True), _saved(table)]
    table.insert(0, "scale", scale)
    disclaimer = heading.disclaimer(scale, [study["data"] for study in measured], shows_paper=False)
    write_table(target, Page("deploy", "What deploying costs", disclaimer, _facts(scale, measured), parts), table)


def _cells(row: Any) -> list[str]:
    low, high = number(row.latency_min_ms, ".2f"), number(row.latency_max_ms, ".2f")
    return [
        row.study,
        MODEL_LABELS[row.network],
        row.encoder,
        number(row.parameters / 1e6, ".2f"),
        number(row.macs / 1e9, ".3f"),
        number(row.bytes / 1e6, ".2f"),
        f"{number(row.latency_ms, '.2f')} [{low}–{high}]",
        number(row.images_per_second, ".1f"),
        number(row.memory / 1e6, ".1f"),
        f"{LABELS[row.metric]} {number(row.test, '.2f')}",
    ]


def _facts(scale: str, measured: Sequence[dict[str, Any]]) -> list[str]:
    cpus = dict.fromkeys(f"{one['cpu']}, {_threads(one['threads'])}" for one in measured)
    versions = dict.fromkeys(one["onnxruntime"] for one in measured)
    methods = dict.fromkeys(one["networks"]["ensemble"]["method"] for one in measured)
    seeds = dict.fromkeys(str(one["seed"]) for one in measured)
    return [
        f"- scale: {scale}",
        f"- students of {', '.join(methods)}, seed {', '.join(seeds)}; the ensemble is both of them in one graph",
        f"- measured on: {'; '.join(cpus)}, onnxruntime {', '.join(versions)}; the three models of a study in turn, in "
        "one process. Another machine has other times: compare within a study",
    ]


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _row(study: dict[str, Any], network: str) -> dict[str, Any]:
    of = study["networks"][network]
    metric = METRICS[study["data"]["task"]][0]
    milliseconds = 1000 * pd.Series(of["seconds"])
    size = study["data"]["image_size"]
    return {
        "study": study["study"],
        "synthetic": study["data"]["synthetic"],
        "network": network,
        "method": of["method"],
        "encoder": of["networks"][0]["encoder"],
        "image_size": size,
        "parameters": of["parameters"],
        "macs": of["macs"],
        "bytes": of["bytes"],
        "latency_ms": milliseconds.median(),
        "latency_min_ms": milliseconds.min(),
        "latency_max_ms": milliseconds.max(),
        "images_per_second": of["images_per_second"],
        "memory": of["memory"],
        "metric": metric,
        "test": 100 * of["metrics"]["test"][metric],
        "cpu": study["cpu"],
        "threads": study["threads"],
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
        "What two students in the teacher's place save",
        below=["1 − ensemble/teacher, which for parameters is the paper's 1 − 2·student/teacher; below zero: they cost "
               "more."],
    )  # fmt: skip


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    deploy_table(select(settings, "scale", str), read_measured(Path("results/deploy")), Path("reports", f"{name}.md"))


def inputs(params: Params, item: Item) -> list[str]:
    return [f"results/deploy/{name}.json" for name, study in params.study.items() if study.reports.deploy]


REPORT = Report(
    names=lambda params: {"deploy": {}} if any(study.reports.deploy for study in params.study.values()) else {},
    inputs=inputs,
    make=make,
    category="Tables",
    shows="what deploying costs",
)
