"""What a kill leaves half-written of DVC's files: DVC writes them in place, and then cannot read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from classroom.engines.dvc_lock import LOCK, understood
from classroom.engines.plan import HIDDEN
from classroom.files import write_text

KEPT = HIDDEN / "dvc.lock"
"""dvc.lock as it was when DVC last understood it."""

RWLOCK = Path(".dvc/tmp/rwlock")
"""DVC's list of which process reads and writes what."""


def mend(say: Callable[[str], None]) -> None:
    """Puts right what is half-written. For the one engine at work in the tree."""
    _mend_lock(say)
    _mend_rwlock(say)


def keep() -> None:
    """Remembers dvc.lock as one that DVC understands."""
    if LOCK.exists() and not _is_kept():
        write_text(KEPT, LOCK.read_text())


def _mend_lock(say: Callable[[str], None]) -> None:
    """What is missing in the copy is recorded again from receipts, or found again in DVC's cache."""
    if not LOCK.exists() or _is_kept() or _is_whole(LOCK.read_text()):
        return
    damaged = HIDDEN / "dvc.lock.damaged"
    HIDDEN.mkdir(exist_ok=True)
    LOCK.replace(damaged)
    if KEPT.exists():
        write_text(LOCK, KEPT.read_text())
    origin = "the last good one is back" if KEPT.exists() else "it is written anew, from receipts and the cache"
    say(f"dvc.lock was half-written or damaged: {origin}. The damaged one is {damaged}.")


def _is_kept() -> bool:
    return KEPT.exists() and KEPT.read_bytes() == LOCK.read_bytes()


def _is_whole(text: str) -> bool:
    """Whether DVC understands a dvc.lock; a merge conflict is for the user to solve, and passes."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if re.search(r"^(<<<<<<<|>>>>>>>) ", text, re.MULTILINE):
        return True
    try:
        COMPILED_LOCKFILE_SCHEMA(understood(text))
    except (ValueError, Invalid):
        return False
    return text.endswith("\n")


def _mend_rwlock(say: Callable[[str], None]) -> None:
    """Entries of processes that are gone would hold DVC up if their numbers now belong to others."""
    from dvc.lock import make_lock

    if not RWLOCK.exists():
        return
    with make_lock(str(RWLOCK.with_suffix(".lock")), wait=True):
        try:
            content = json.loads(RWLOCK.read_text())
            write = {path: by for path, by in content.get("write", {}).items() if _is_alive(by)}
            read = {path: [one for one in by if _is_alive(one)] for path, by in content.get("read", {}).items()}
            mended = {"write": write, "read": {path: by for path, by in read.items() if by}}
        except (ValueError, TypeError, KeyError, AttributeError):
            say(f"{RWLOCK} was half-written: removed.")
            RWLOCK.unlink()
            return
        if mended != content:
            write_text(RWLOCK, json.dumps(mended))


def _is_alive(entry: dict[str, Any]) -> bool:
    """Whether the process that made an entry is DVC, at work. A Snakemake's is not: whoever mends is the one engine."""
    try:
        return any(Path(part).name == "dvc" for part in psutil.Process(entry["pid"]).cmdline())
    except psutil.Error:
        return False
