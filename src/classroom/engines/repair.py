"""Repairs of what a kill leaves half-written of DVC's files, which DVC writes in place and then cannot read."""

from __future__ import annotations

import json
import logging
from typing import Any

import psutil

from classroom.engines import lockfile, locks, store
from classroom.engines.lockfile import LOCK
from classroom.files import write_text
from classroom.state import BACKUP

log = logging.getLogger(__name__)

GOOD_LOCK = BACKUP / "dvc.lock"


def fix() -> None:
    """Fixes DVC's half-written files. For the process that holds the workflow lock."""
    _fix_lock_file()
    _fix_rwlock()
    _fail_killed_experiments()


def back_up_lock_file() -> None:
    """Copies dvc.lock, which was just read without errors."""
    if LOCK.exists() and not _is_backed_up():
        write_text(GOOD_LOCK, LOCK.read_text(encoding="utf-8"))


def _fix_lock_file() -> None:
    """What the backup lacks is committed again from manifests, or found again in DVC's cache."""
    if not LOCK.exists() or _is_backed_up() or _is_whole(LOCK.read_bytes()):
        return
    damaged = BACKUP / "dvc.lock.damaged"
    BACKUP.mkdir(parents=True, exist_ok=True)
    LOCK.replace(damaged)
    if GOOD_LOCK.exists():
        write_text(LOCK, GOOD_LOCK.read_text(encoding="utf-8"))
    origin = "the last good copy is restored" if GOOD_LOCK.exists() else "a new one is made from manifests and cache"
    log.info("dvc.lock was half-written or damaged: %s. The damaged file is %s.", origin, damaged)


def _is_backed_up() -> bool:
    return GOOD_LOCK.exists() and GOOD_LOCK.read_bytes() == LOCK.read_bytes()


def _is_whole(content: bytes) -> bool:
    """Whether DVC would accept a dvc.lock; a merge conflict is for the user to solve, and passes."""
    if lockfile.CONFLICT.search(content):
        return True
    return content.endswith(b"\n") and lockfile.understood(content) is not None


def _fix_rwlock() -> None:
    """Removes entries of processes that are gone, which would block DVC if their PIDs now belong to others."""
    text = store.RWLOCK.read_text(encoding="utf-8") if store.RWLOCK.exists() else "{}"
    if '"pid"' not in text and text.endswith("}"):
        return
    from dvc.lock import make_lock

    with make_lock(str(store.RWLOCK.with_suffix(".lock")), wait=True):
        try:
            content = json.loads(store.RWLOCK.read_text(encoding="utf-8"))
            write = {path: by for path, by in content.get("write", {}).items() if _is_alive(by)}
            read = {path: list(filter(_is_alive, by)) for path, by in content.get("read", {}).items()}
            write_text(store.RWLOCK, json.dumps({"write": write, "read": {p: by for p, by in read.items() if by}}))
        except (ValueError, TypeError, KeyError, AttributeError):
            log.info("%s was half-written: removed.", store.RWLOCK)
            store.RWLOCK.unlink()


def _fail_killed_experiments() -> None:
    """Queued experiments whose worker was killed, which DVC would list as running for ever."""
    killed = []
    for path in store.EXPERIMENTS.glob("*/*.json"):
        try:
            process = json.loads(path.read_text(encoding="utf-8"))
            if process["returncode"] is None and not _is_alive(process):
                killed.append(path.stem)
        except (OSError, ValueError, TypeError, KeyError):
            continue
    if killed and (names := store.fail_experiments(killed)):
        named = ", ".join(names)
        log.info("experiments that were killed, and are listed as failed now: %s. Queue them again to continue.", named)


def _is_alive(entry: dict[str, Any]) -> bool:
    """Whether the process that made an entry is a running DVC. A Snakemake's is not: the caller holds its lock."""
    try:
        return locks.is_dvc(psutil.Process(entry["pid"]))
    except psutil.Error:
        return False
