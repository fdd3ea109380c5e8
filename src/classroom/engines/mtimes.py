"""File times, by which alone Snakemake decides what to run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from classroom.files import files_in


def mtime_of(path: Path) -> int:
    """In nanoseconds since the epoch. Snakemake keeps a folder's time in a file inside it."""
    stamp = path / ".snakemake_timestamp"
    return (stamp if stamp.exists() else path).stat().st_mtime_ns


def set_mtime(path: Path, moment: int) -> None:
    for target in (path / ".snakemake_timestamp", path):
        if target.exists():
            os.utime(target, ns=(moment, moment))


def clamp_future_mtimes(paths: Iterable[Path]) -> None:
    """Sets files that are newer than now, as after a clock was set back, to the current time.

    Snakemake would fail every job that reads them, after it has finished, and delete its outputs.
    """
    now = time.time_ns()
    for path in paths:
        if path.exists() and mtime_of(path) > now:
            set_mtime(path, now)


def touch(path: Path) -> None:
    """Sets a file, or all files in a folder, to the current time, so that every cache of hashes reads them again."""
    for file in files_in(path):
        os.utime(file)
