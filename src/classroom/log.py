"""How messages of the standard `logging` module reach a terminal."""

from __future__ import annotations

import logging
import sys


class _Plain(logging.Formatter):
    """A sentence as it is; a warning and what is worse say so first."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"{record.levelname.capitalize()}: " if record.levelno >= logging.WARNING else ""
        return prefix + super().format(record)


def configure() -> None:
    """Sends this package's messages to stderr, once per message however often this is called."""
    logger, handler = logging.getLogger("classroom"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
