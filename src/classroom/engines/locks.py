"""Who is at work: one engine in a tree, and of every job one process.

Locks are the operating system's (flock): whoever is killed lets go of them, so none is ever stale. Beside each lies a
note that says who holds it, for messages alone. Between machines they hold where the file system passes them on: NFS
does, Lustre does when mounted with `flock`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from classroom.engines.plan import HIDDEN
from classroom.files import write_json

ENGINE = HIDDEN / "engine.lock"
JOBS = HIDDEN / "jobs"

QUEUED = "SLURM_JOB_ID" in os.environ
"""Whether this process runs in a SLURM job, which is that queue's to tell of."""

POLL = 0.2
"""Seconds between two looks at a lock that is held."""


@dataclass(frozen=True)
class Holder:
    """A process at work."""

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
    """The lock at `path`, held until it is released or this process ends; None if another process holds it.

    Raises ClassroomError if nothing can be written there.
    """
    lock = _try(path)
    if lock is not None:
        now = datetime.now().isoformat(" ", "seconds")
        write_json(_note(path), asdict(Holder(command, os.getpid(), socket.gethostname(), now, QUEUED)))
    return lock


def release(lock: FileLock) -> None:
    _note(Path(lock.lock_file)).unlink(missing_ok=True)
    lock.release()


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`, or held it when killed; None if nobody says so."""
    try:
        return Holder(**json.loads(_note(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def one_process(job: str, command: str, say: Callable[[str], None]) -> Iterator[bool]:
    """Waits until no other process does the `job`; yields whether one did.

    Of two in SLURM's queue the second does not wait: SLURM starts it when it believes the first one's node dead, whose
    lock the file system may keep.
    """
    path = JOBS / f"{job}.lock"
    waited = False
    while (lock := take(path, command)) is None:
        by = holder(path)
        if by and by.queued and QUEUED:
            say(f"SLURM has started this beside {by}")
            break
        if not waited:
            away = f". Should that machine be dead: rm '{path}'" if by and not by.is_here else ""
            say(f"waiting for {by or 'another process'}, which does the same job{away}")
        waited = True
        time.sleep(POLL)
    try:
        yield waited
    finally:
        if lock is not None:
            release(lock)


def jobs_at_work() -> dict[str, Holder]:
    """The jobs that processes are doing in this tree now, by stage."""
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


def wait_for_jobs(say: Callable[[str], None]) -> None:
    """Waits for the jobs at work, left by an engine that was killed or started by hand; not for those of SLURM."""
    told: set[Holder] = set()
    while at_work := {job for job in jobs_at_work().values() if not job.queued}:
        for job in at_work - told:
            say(
                f"Waiting for {job}, which is still at work in this tree, so that it is not done twice. "
                f"`kill {job.pid}` ends it; a training then goes on from its checkpoint."
            )
        told |= at_work
        time.sleep(POLL)


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _try(path: Path) -> FileLock | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock
