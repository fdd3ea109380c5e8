"""All methods by name. A published method is a file of this folder, which is imported when the method is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from classroom.errors import TrainingError, suggestion
from classroom.params import BASELINES, TASKS, VARIANTS

if TYPE_CHECKING:
    from classroom.methods.shared.published import Published

FOLDER = Path(__file__).parent
PUBLISHED = tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "registry")))
"""The published methods, of either task."""
ALL = (*BASELINES, *VARIANTS, *PUBLISHED)


def check(name: str, task: str | None = None) -> None:
    """Raises TrainingError, with the nearest name, for an unknown method or one of another task."""
    if name not in ALL:
        raise TrainingError(f"unknown method '{name}'.{suggestion(name, ALL)}")
    if task and is_published(name) and task not in load(name):
        raise TrainingError(f"'{name}' is not a method for {task}. Known: {', '.join(published(task))}.")


def is_published(name: str) -> bool:
    """Whether this is one of the published methods, which Table 10 compares with ours."""
    return name in PUBLISHED


def published(task: str) -> dict[str, type[Published]]:
    """The published methods of a task by name."""
    return {name: kinds[task] for name in PUBLISHED if task in (kinds := load(name))}


def load(name: str) -> dict[str, type[Published]]:
    """What a published method's file holds: the method by task. Raises TrainingError for a file that holds less."""
    from classroom.methods.shared.published import Published

    where = f"src/classroom/methods/{name}.py"
    kinds = getattr(importlib.import_module(f"classroom.methods.{name}"), "METHOD", None)
    if not isinstance(kinds, dict) or not kinds or not set(kinds) <= set(TASKS):
        raise TrainingError(f"{where}: expected METHOD = {{task: class}}, with {' or '.join(TASKS)} as the task.")
    for task, kind in kinds.items():
        if not isinstance(kind, type) or not issubclass(kind, Published):
            raise TrainingError(f"{where}: METHOD: expected a subclass of Published for {task}, not {kind!r}.")
        facts = [fact for fact in ("label", "paper", "formula", "weights") if not hasattr(kind, fact)]
        if missing := [*facts, *sorted(kind.__abstractmethods__)]:
            raise TrainingError(f"{where}: {kind.__name__} lacks {', '.join(missing)}.")
    return kinds


def run_folder(study: str, method: str, seed: int | str) -> Path:
    """The folder of a run that is not part of a search: `runs/STUDY/METHOD/seed-N`, or `compared/…` if published.

    Parameters
    ----------
    study, method, seed
        name the run
    """
    return Path("compared" if is_published(method) else "runs", study, method, f"seed-{seed}")
