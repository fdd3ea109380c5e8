"""Trainings in this process, as `classroom train` runs them, on a tiny study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from classroom.training import run
from support.studies import CLASSES_STUDY, STUDY


class Silent:
    """Stands in for the progress bar, and remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.facts: dict[str, Any] = {}

    def __call__(self, *arguments: Any) -> None:
        pass

    def log(self, line: str) -> None:
        self.lines.append(line)


def task_of(data: Path) -> str:
    return json.loads((data / "prepared/dataset.json").read_text())["task"]


def study_of(data: Path) -> str:
    return {"segmentation": STUDY, "classification": CLASSES_STUDY}[task_of(data)]


def train(raw: dict[str, Any], data: Path, folder: Path, method: str = "kd_ml-v3", **changes: Any) -> Silent:
    """Trains one run into `folder`, or several, separated by spaces, into a folder of each in it."""
    show = changes.pop("show", Silent())
    names, identities = method.split(), changes.get("identities", {})
    places = [folder / name for name in names] if len(names) > 1 else [folder]
    requests = [
        run.Request(name, at / "run", at / "checkpoints", identities.get(name, "the same"), changes.get("point"))
        for name, at in zip(names, places, strict=True)
    ]
    run.train(
        study_of(data), requests, raw=raw, show=show, seed=changes.get("seed", 0), prepared=data / "prepared",
        splits=data / "splits.parquet", teacher_weights=changes.get("teacher_weights", folder / "teacher.safetensors"),
        device=changes.get("device", "cpu"), checkpoint_minutes=changes.get("checkpoint_minutes", 10),
        finish=lambda request, facts: show.facts.update({request.method: facts}),
    )  # fmt: skip
    return show


def bits(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in run.FILES}
