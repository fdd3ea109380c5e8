"""`classroom verify`: are the results, and DVC's copies of them, still what dvc.lock says? For failing disks.

DVC and Snakemake trust times and sizes, which a flipped bit leaves as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from classroom.engines import graph, lockfile, manifest, store
from classroom.engines.freshness import Verdict
from classroom.engines.graph import Stage
from classroom.engines.reconcile import reconcile
from classroom.files import content_hash, files_in, touch
from classroom.progress import track
from classroom.state import Hashes

log = logging.getLogger(__name__)


def verify() -> list[str]:
    """Reads everything that is fresh; returns what is not as recorded: restored from DVC's cache, or stale now.

    For the process that holds the workflow lock. Raises ClassroomError if the project cannot be reconciled.
    """
    stale = reconcile()
    fresh = [one for one in graph.load().values() if one.name not in stale]
    undone = _changed_unseen(fresh) + _falsely_recorded(fresh)
    known = lockfile.outputs()
    outputs = [out for one in fresh for out in one.outputs if out in known]
    damaged = [out for out in track(outputs, "results") if content_hash(Path(out)) != known[out]]
    for out in damaged:
        touch(Path(out))
        log.info("%s: damaged, or edited by hand: its checksum is not the one in dvc.lock", out)
    damaged_copies = store.renew_copies(outputs, damaged)
    for out in damaged_copies:
        log.info("%s: its copy in DVC's cache was damaged, and is %s", out, "removed" if out in damaged else "renewed")
    again = reconcile() if undone or damaged or damaged_copies else stale
    size = sum(file.stat().st_size for out in outputs for file in files_in(Path(out)))
    found = f"{len(damaged)} damaged, {len(damaged_copies)} copies damaged"
    log.info("%d results read, %.0f MB: %s", len(outputs), size / 1e6, found)
    if again != stale:
        log.info("%d jobs to run: Snakemake or `dvc repro` makes what could not be restored", len(again))
    return undone + damaged + damaged_copies


def _changed_unseen(fresh: Sequence[Stage]) -> list[str]:
    """Files that fresh stages need and no stage makes, which changed while size and mtime stayed: seen from now on."""
    hashes, outputs_at = Hashes(), graph.load().outputs_at
    for path in sorted({path for one in fresh for path in one.dependencies if not outputs_at(path)}):
        hashes.read(Path(path))
    hashes.save()
    for file in hashes.unseen:
        log.info("%s: has changed while its size and mtime have not: what depends on it is stale", file)
    return [file.as_posix() for file in hashes.unseen]


def _falsely_recorded(fresh: Sequence[Stage]) -> list[str]:
    """Outputs made from another stage's output than dvc.lock says, by a manifest of exactly these; no longer recorded.

    Manifests in runs, which cannot be of other outputs, are compared whenever the project is reconciled.
    """
    verdict, outputs_at = Verdict(Hashes()), graph.load().outputs_at
    found: list[str] = []
    for stage in fresh:
        if (made := manifest.read(stage)) is None:
            continue
        differing = manifest.differences(manifest.record(verdict.recorded[stage.name]), made)
        inputs = {path: pair for path, pair in differing.items() if outputs_at(path)}
        made_here = all(Path(out).exists() and content_hash(Path(out)) == md5 for out, md5 in made["outputs"].items())
        if inputs and made_here:
            named = ", ".join(stage.outputs)
            log.info("%s: its manifest names other inputs than dvc.lock (%s)", named, manifest.described(inputs))
            verdict.forget(stage.name)
            found += stage.outputs
    return found
