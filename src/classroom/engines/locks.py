"""Who is running: one workflow per tree, and one process per job.

Locks are the operating system's (flock): a killed process loses them, so none is ever stale. Next to each is a note
that names its holder. Between machines they hold on NFS, and on Lustre that is mounted with `flock`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from classroom.errors import ClassroomError
from classroom.files import write_json, writing
from classroom.state import LOCKS

log = logging.getLogger(__name__)

WORKFLOW = LOCKS / "workflow.lock"
JOBS = LOCKS / "jobs"

QUEUED = "SLURM_JOB_ID" in os.environ
"""Whether this process runs in a SLURM job, which that queue reports."""

POLL = 0.2
"""Seconds between two attempts to take a lock."""

ALONE = "Two at a time would run the same jobs twice: wait for it to end, or stop it; finished jobs are kept."

UNDER_DVC = "DVC_STAGE" in os.environ
"""Whether DVC has started this process."""


class LockedError(ClassroomError):
    """Another workflow is running in the tree."""


@dataclass(frozen=True)
class Holder:
    """A running process."""

    command: str
    pid: int
    host: str
    since: str
    queued: bool

    def __str__(self) -> str:
        return f"`{self.command}` (PID {self.pid} on {self.host}, since {self.since})"

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()


def take(path: Path, command: str) -> FileLock | None:
    """Takes the lock at `path` until `release` or the process ends; None if it is held. Raises ClassroomError."""
    lock = _try(path)
    if lock is not None:
        now = datetime.now().isoformat(" ", "seconds")
        write_json(_note(path), asdict(Holder(command, os.getpid(), socket.gethostname(), now, QUEUED)))
    return lock


def release(lock: FileLock) -> None:
    _note(Path(lock.lock_file)).unlink(missing_ok=True)
    lock.release()


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`, or held it when killed; None if no note says so."""
    try:
        return Holder(**json.loads(_note(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def one_process(job: str, command: str) -> Iterator[bool]:
    """Waits until no other process runs the `job`; yields whether one did.

    Of two in SLURM's queue the second does not wait: the first one's node may be dead, and its lock kept.
    """
    path = JOBS / f"{job}.lock"
    waited = False
    while (lock := take(path, command)) is None:
        by = holder(path)
        if by and by.queued and QUEUED:
            log.info("SLURM has started this job while %s may still run it", by)
            break
        if not waited:
            away = f". If that machine is dead: rm '{path}'" if by and not by.is_here else ""
            log.info("waiting for %s, which runs the same job%s", by or "another process", away)
        waited = True
        time.sleep(POLL)
    try:
        yield waited
    finally:
        if lock is not None:
            release(lock)


def running_jobs() -> dict[str, Holder]:
    """The jobs that processes are running in this tree now, by stage."""
    found = {}
    for note in sorted(JOBS.glob("*.json")):
        path = note.with_suffix(".lock")
        named = holder(path)
        lock = _try(path)
        if lock is not None:
            release(lock)  # with the note of a process that was killed
        elif named:
            found[note.stem] = named
    return found


def is_dvc(process: psutil.Process) -> bool:
    """Whether the process is a DVC that is running."""
    try:
        return process.is_running() and any(Path(part).name == "dvc" for part in process.cmdline())
    except psutil.Error:
        return False


def wait_for_jobs() -> None:
    """Waits for running jobs that a killed workflow left or someone started by hand; not for those of SLURM."""
    reported: set[Holder] = set()
    while running := {job for job in running_jobs().values() if not job.queued}:
        for job in running - reported:
            log.info(
                "Waiting for %s, which is still running in this tree, so that its job does not run twice. "
                "`kill %d` stops it; a training then resumes from its checkpoint.",
                job,
                job.pid,
            )
        reported |= running
        time.sleep(POLL)


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _try(path: Path) -> FileLock | None:
    lock = FileLock(path)
    with writing(path.parent), suppress(Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        return lock
    return None
