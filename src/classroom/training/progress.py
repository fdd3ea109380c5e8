"""Shows a training: a bar on a terminal, a line per epoch in a log."""

from __future__ import annotations

import time

from rich.progress import MofNCompleteColumn, TextColumn

from classroom.progress import log, progress_bar
from classroom.training.checkpoint import Progress


class Show:
    """Called after every step with the training's progress."""

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

    def __call__(self, progress: Progress, steps: int, epochs: int) -> None:
        loss = sum(progress.weighted.values()) / progress.step
        done = progress.epoch * steps + progress.step
        self.bar.update(self.task, total=epochs * steps, completed=done, loss=f"{loss:.4f}")
        if self.bar.disable and progress.step == steps:
            seconds = time.monotonic() - self.logged_at
            self.logged_at = time.monotonic()
            self.log(f"epoch {progress.epoch + 1}/{epochs}: loss {loss:.4f}, {seconds:.1f} s{_terms(progress)}")

    def log(self, message: str) -> None:
        log(f"{self.title}: {message}")


def _terms(progress: Progress) -> str:
    """The weighted terms, which show whether their weights suit each other."""
    if len(progress.weighted) < 2:
        return ""
    return "; " + ", ".join(f"{key} {value / progress.step:.3g}" for key, value in progress.weighted.items())
