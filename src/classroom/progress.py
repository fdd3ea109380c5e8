"""Progress of a long job: a bar on a terminal, lines in a log, and for `classroom status` a file of each training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol, TypedDict, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

from classroom.files import write_json
from classroom.log import doing, write_line

T = TypeVar("T")

log = write_line


class Bar(RichBar):
    """A bar that, where it is disabled, lets `classroom.log.heartbeat` say how far it is."""

    def start(self) -> None:
        self.until_stopped = ExitStack()
        self.until_stopped.enter_context(doing(self._how_far))
        super().start()

    def stop(self) -> None:
        super().stop()
        self.until_stopped.close()

    def _how_far(self) -> str:
        if not self.disable:
            return ""
        return ", ".join(f"{task.description}: {task.completed:.0f} of {task.total or 0:.0f}" for task in self.tasks)


def progress_bar(*columns: ProgressColumn) -> Bar:
    """A bar on standard error with title, these `columns` and the time left; disabled if that is no terminal.

    Lines that are logged meanwhile appear above the bar.
    """
    console = Console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    return Bar(title, BarColumn(), *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def track(items: Sequence[T], title: str) -> Iterator[T]:
    """The `items`, one after the other; a bar or the log shows how many of them are done."""
    with progress_bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(title, total=len(items))
        for item in items:
            yield item
            bar.advance(task)


def duration(seconds: float) -> str:
    """`8 s`, `12 min`, `3 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


CHECKPOINTS = Path("checkpoints")
"""What unfinished trainings resume from, a folder each."""
STATE = "progress.json"
"""In such a folder: how far the training is."""
RECORDED_EVERY = 5.0
"""Seconds."""


class State(TypedDict):
    """How far a training is."""

    epoch: int
    """Finished epochs."""
    epochs: int
    step: int
    """Finished steps of the next one."""
    steps: int
    """Of every epoch."""
    loss: float
    """The mean of this epoch's steps, weighted, of all networks together."""
    validation: dict[str, float]
    """After the last finished epoch: IoU or accuracy by trained network."""
    seconds_per_epoch: float | None
    written: float
    """Seconds since 1970."""


def record(folder: Path, state: State) -> None:
    """Writes the state of the training with this folder of checkpoints; a full disk is left to the checkpoints."""
    with suppress(OSError):
        write_json(folder / STATE, state)


class Step(Protocol):
    """How far a training is."""

    epoch: int
    step: int
    weighted: dict[str, float]
    """By term the sum of the weighted losses of this epoch's steps."""


class Show:
    """Shows a training, whose progress it is called with after every step."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.logged_at = time.monotonic()
        self.bar = progress_bar(MofNCompleteColumn(), TextColumn("loss {task.fields[loss]}"))
        self.task = self.bar.add_task(title, loss="–", total=None)

    def __enter__(self) -> Show:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, progress: Step, steps: int, epochs: int) -> None:
        loss = sum(progress.weighted.values()) / progress.step
        done = progress.epoch * steps + progress.step
        self.bar.update(self.task, total=epochs * steps, completed=done, loss=f"{loss:.4f}")
        if self.bar.disable and progress.step == steps:
            seconds = time.monotonic() - self.logged_at
            self.logged_at = time.monotonic()
            self.log(f"epoch {progress.epoch + 1}/{epochs}: loss {loss:.4f}, {seconds:.1f} s{_terms(progress)}")

    def log(self, message: str) -> None:
        log(f"{self.title}: {message}")


def _terms(progress: Step) -> str:
    """The weighted terms, which show whether their weights suit each other."""
    if len(progress.weighted) < 2:
        return ""
    return "; " + ", ".join(f"{key} {value / progress.step:.3g}" for key, value in progress.weighted.items())
