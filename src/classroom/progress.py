"""What a person sees of a long job: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error with these `columns` besides title and time; `disable` is set where that is no terminal.

    What is logged while it is shown appears above it.
    """
    console = Console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    return Progress(
        title, BarColumn(), *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def log(line: str) -> None:
    """Writes a line to standard error."""
    print(line, file=sys.stderr, flush=True)
