"""`classroom status`: the trainings under way, wherever they run, and what is left to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text
from tabulate import tabulate

from classroom.engines import graph, locks
from classroom.engines.manifest import matches
from classroom.params import load
from classroom.progress import CHECKPOINTS, STATE, State, duration
from classroom.state import Hashes

SILENT = 120.0
"""Seconds, and an epoch longer, without a sign after which a training does not count as running: writing its
checkpoint and validation take a while."""
AGAIN = 5.0
"""Seconds between two looks."""


class Training(NamedTuple):
    """An unfinished training."""

    run: str
    state: State

    @property
    def is_running(self) -> bool:
        return time.time() - self.state["written"] < SILENT + (self.state["seconds_per_epoch"] or 0.0)

    @property
    def seconds_left(self) -> float | None:
        """None if it is not running, or has just begun."""
        if not self.is_running or self.state["seconds_per_epoch"] is None:
            return None
        done = self.state["epoch"] + self.state["step"] / self.state["steps"]
        return (self.state["epochs"] - done) * self.state["seconds_per_epoch"]


def unfinished() -> Iterator[Training]:
    """The trainings that have begun in this tree, on whichever machine."""
    for path in sorted(CHECKPOINTS.rglob(STATE)):
        with suppress(OSError, ValueError):  # removed or replaced meanwhile
            state = cast(State, json.loads(path.read_text(encoding="utf-8")))
            yield Training(path.parent.relative_to(CHECKPOINTS).as_posix(), state)


def status() -> str:
    """A line for each unfinished training, and the number of those that are finished, running and left."""
    raw, stages = load(Path("params.yaml")), graph.load()
    remembered = Hashes()
    left = {name for name, stage in stages.items() if not matches(stage, raw, remembered)}
    trainings = {name for name, stage in stages.items() if stage.is_training}
    begun = list(unfinished())
    rows = [_row(training) for training in begun]
    header = ["", "", "epoch", "loss", "validation, %", "s/epoch", "time left"]
    running = [training for training in begun if training.is_running]
    others = sorted({job.command for name, job in locks.running_jobs().items() if name not in trainings})
    return "\n".join(
        [
            *([tabulate(rows, header, tablefmt="simple", disable_numparse=True)] if rows else []),
            *(f"running: {command}" for command in others),
            f"trainings: {len(trainings - left)} of {len(trainings)} finished, {len(running)} running",
            f"jobs for all reports in the settings: {len(stages) - len(left)} of {len(stages)} finished"
            + ("; `classroom forecast REPORT` counts those of one report" if left else "; nothing is left to do"),
        ]
    )


def watch() -> None:
    """Shows `status` again and again, until Ctrl-C."""
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(Text(status()), refresh=True)
            time.sleep(AGAIN)


def _row(training: Training) -> list[str]:
    state = training.state
    age = time.time() - state["written"]
    seconds, pace = training.seconds_left, state["seconds_per_epoch"]
    return [
        training.run,
        "running" if training.is_running else f"stopped {duration(age)} ago",
        f"{min(state['epoch'] + 1, state['epochs'])}/{state['epochs']}",
        f"{state['loss']:.4f}",
        ", ".join(f"{name} {100 * value:.1f}" for name, value in state["validation"].items()) or "–",
        "–" if pace is None else f"{pace:.1f}",
        "–" if seconds is None else duration(seconds),
    ]
