"""Ctrl-C, once and twice."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from classroom.log import write_line

ENDING = "Still stopping, so that no file is left half-written. `kill -9` loses the work in progress."


@contextmanager
def orderly_interrupts(advice: str) -> Iterator[None]:
    """Lets the first Ctrl-C write a line that ends with `advice` and end the process, and others write a line only.

    Python raises an exception at every Ctrl-C, so that a second one interrupts the clean-up after the first one and
    prints a traceback. A handler that someone else has set, and ignored signals, stay.
    """
    before = signal.getsignal(signal.SIGINT)
    interrupted = False

    def end(number: int, frame: object) -> None:
        nonlocal interrupted
        write_line(ENDING if interrupted else f"Interrupted. {advice}")
        if not interrupted:
            interrupted = True
            raise SystemExit(128 + number)

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        if before is signal.default_int_handler and not interrupted:
            signal.signal(signal.SIGINT, before)
