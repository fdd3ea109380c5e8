"""How messages of the standard `logging` module reach a terminal."""

from __future__ import annotations

import io
import logging
import sys


class _Plain(logging.Formatter):
    """A sentence as it is; a warning and what is worse say so first."""

    def format(self, record: logging.LogRecord) -> str:
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
