"""`classroom verify`: are the results, and DVC's copies of them, still what dvc.lock says? For failing disks.

DVC and Snakemake trust times and sizes, which a flipped bit leaves as they were.
"""

from __future__ import annotations

import logging
from pathlib import Path

from classroom.engines import graph, lockfile, store
from classroom.engines.reconcile import reconcile
from classroom.files import content_hash, files_in, touch
from classroom.progress import track

log = logging.getLogger(__name__)


def verify() -> list[str]:
    """Reads everything that is fresh; returns what was damaged, which is restored from DVC's cache or turns stale.

    For the process that holds the workflow lock. Raises ClassroomError if the project cannot be reconciled.
    """
    stale, stages, known = reconcile(), graph.load(), lockfile.outputs()
    producer = {out: name for name, one in stages.items() for out in one.outputs if name not in stale and out in known}
    damaged = [out for out in track(list(producer), "results") if content_hash(Path(out)) != known[out]]
    for out in damaged:
        touch(Path(out))
        log.info("%s: damaged, or edited by hand: its checksum is not the one in dvc.lock", out)
    damaged_copies = store.renew_copies(producer, damaged)
    for out in damaged_copies:
        log.info("%s: its copy in DVC's cache was damaged, and is %s", out, "removed" if out in damaged else "renewed")
    again = reconcile() if damaged or damaged_copies else stale
    size = sum(file.stat().st_size for out in producer for file in files_in(Path(out)))
    found = f"{len(damaged)} damaged, {len(damaged_copies)} copies damaged"
    log.info("%d results read, %.0f MB: %s", len(producer), size / 1e6, found)
    if again != stale:
        log.info("%d jobs to run: Snakemake or `dvc repro` makes what could not be restored", len(again))
    return damaged + damaged_copies
