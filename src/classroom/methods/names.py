"""The names of all methods, known without importing any."""

from __future__ import annotations

from pathlib import Path

from classroom.errors import TrainingError, suggestion
from classroom.method_settings import COMPARISON_METHODS, METHODS
from classroom.params import BASELINES, VARIANTS

ALL = (*BASELINES, *VARIANTS, *COMPARISON_METHODS)


def check(name: str, task: str | None = None) -> None:
    """Raises TrainingError, with the nearest name, unless `name` is a method that can be trained (for `task`)."""
    if name not in ALL:
        raise TrainingError(f"unknown method '{name}'.{suggestion(name, ALL)}")
    if task and name in COMPARISON_METHODS and name not in METHODS[task]:
        raise TrainingError(f"'{name}' is no method of {task}; there are {', '.join(METHODS[task])}.")


def is_published(name: str) -> bool:
    """Whether this is one of Table 10's methods from the literature."""
    return name in COMPARISON_METHODS


def run_folder(study: str, method: str, seed: int | str) -> Path:
    """Where a run of no search lies: `runs/STUDY/METHOD/seed-N`, of published methods below `compared/`."""
    return Path("compared" if is_published(method) else "runs", study, method, f"seed-{seed}")
