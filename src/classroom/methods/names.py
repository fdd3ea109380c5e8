"""The names of all methods; importing it imports no method."""

from __future__ import annotations

from pathlib import Path

from classroom.errors import TrainingError, suggestion
from classroom.method_settings import COMPARISON_METHODS, METHODS
from classroom.params import BASELINES, VARIANTS

ALL = (*BASELINES, *VARIANTS, *COMPARISON_METHODS)


def check(name: str, task: str | None = None) -> None:
    """Raises TrainingError, with the nearest name, for an unknown method or one of another task."""
    if name not in ALL:
        raise TrainingError(f"unknown method '{name}'.{suggestion(name, ALL)}")
    if task and name in COMPARISON_METHODS and name not in METHODS[task]:
        raise TrainingError(f"'{name}' is no method of {task}; there are {', '.join(METHODS[task])}.")


def is_published(name: str) -> bool:
    """Whether this is one of the published methods of Table 10."""
    return name in COMPARISON_METHODS


def run_folder(study: str, method: str, seed: int | str) -> Path:
    """The folder of a run that is not part of a search: `runs/STUDY/METHOD/seed-N`, or `compared/…` if published.

    Parameters
    ----------
    study, method, seed
        name the run
    """
    return Path("compared" if is_published(method) else "runs", study, method, f"seed-{seed}")
