"""Progress of a long job: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar on standard error with title, these `columns` and the time left; disabled if that is no terminal.

    Lines that are logged meanwhile appear above the bar.
    """
    console = Console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    return Progress(
        title, BarColumn(), *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )


def log(line: str) -> None:
    """Writes a line to standard error."""
    print(line, file=sys.stderr, flush=True)
