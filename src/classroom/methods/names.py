"""The names of all methods, known without importing any."""

from __future__ import annotations

from classroom.errors import TrainingError, suggestion
from classroom.params import BASELINES, VARIANTS

ALL = (*BASELINES, *VARIANTS)


def check(name: str) -> None:
    """Raises TrainingError, with the nearest name, unless `name` is a method that can be trained."""
    if name not in ALL:
        raise TrainingError(f"unknown method '{name}'.{suggestion(name, ALL)}")
