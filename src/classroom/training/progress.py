"""What a person sees of a training: a bar alone on a terminal, log lines in a pipeline."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from classroom.training.checkpoint import Progress as TrainingProgress


class Show:
    """Called after every step with the training's progress."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.console = Console(stderr=True)
        self.epochs_logged = 0
        self.logged_at = time.monotonic()
        self.bar = (
            Progress(
                TextColumn(title),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            if self.console.is_terminal
            else None
        )
        if self.bar:
            self.task = self.bar.add_task(title, loss="–", total=None)

    def __enter__(self) -> Show:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, progress: TrainingProgress, steps: int, epochs: int) -> None:
        loss = sum(progress.weighted.values()) / progress.step
        if self.bar:
            done = progress.epoch * steps + progress.step
            self.bar.update(self.task, total=epochs * steps, completed=done, loss=f"{loss:.4f}")
        elif progress.step == steps:
            seconds = time.monotonic() - self.logged_at
            self.logged_at = time.monotonic()
            self.log(f"epoch {progress.epoch + 1}/{epochs}: loss {loss:.4f}, {seconds:.1f} s{_scales(progress)}")

    def log(self, message: str) -> None:
        if self.bar:
            self.console.print(f"{self.title}: {message}", highlight=False)
        else:
            print(f"{self.title}: {message}", file=sys.stderr, flush=True)


def _scales(progress: TrainingProgress) -> str:
    """Every term as it is minimised: whether their weights suit each other is to be seen."""
    if len(progress.weighted) < 2:
        return ""
    return "; " + ", ".join(f"{key} {value / progress.step:.3g}" for key, value in progress.weighted.items())
