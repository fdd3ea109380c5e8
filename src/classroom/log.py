"""How messages of the standard `logging` module reach a terminal, and a sign of life from commands that take long."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

QUIET = 25.0
"""Seconds without a line after which a command says that it is still running."""

_written_at = 0.0
_doing: list[Callable[[], str]] = []


class _Plain(logging.Formatter):
    """A sentence as it is; a warning and what is worse say so first."""

    def format(self, record: logging.LogRecord) -> str:
        _note_line()
        prefix = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


def configure() -> None:
    """Sends this package's messages to stderr, once per message however often this is called.

    Output is UTF-8 in files and pipes, as our files are; a terminal that is not shows `?` for what it lacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    logger, handler = logging.getLogger("classroom"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def write_line(line: str) -> None:
    """Writes a line to standard error, if it can: a closed terminal or a full disk must not end a training."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    _note_line()


@contextmanager
def heartbeat(command: str) -> Iterator[None]:
    """Writes a line whenever `QUIET` seconds have passed without one: that `command` is running, and how far it is."""
    began, ended = time.monotonic(), threading.Event()

    def beat() -> None:
        while not ended.wait(max(_written_at - time.monotonic() + QUIET, QUIET / 10)):
            said = [of() for of in _doing]
            if time.monotonic() - _written_at >= QUIET and all(said):
                minutes, seconds = divmod(round(time.monotonic() - began), 60)
                write_line("; ".join([f"{command}: running for {minutes} min {seconds} s", *said]))

    _note_line()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def doing(how_far: Callable[[], str]) -> Iterator[None]:
    """Lets `heartbeat` say `how_far` this block is; an empty text keeps it silent, as a bar on a terminal says so."""
    _doing.append(how_far)
    try:
        yield
    finally:
        _doing.remove(how_far)


def _note_line() -> None:
    global _written_at
    _written_at = time.monotonic()
