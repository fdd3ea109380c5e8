"""Making Snakemake and DVC agree on what is fresh.

dvc.lock is the single source of truth. `reconcile` (1) *commits* jobs that finished under Snakemake, or by hand, and
whose manifests match today's settings and files; (2) *restores* from DVC's cache what is stale but was made before from
the same inputs; (3) *syncs mtimes*, so that Snakemake, which looks at nothing else, reaches `dvc status`' verdict.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from classroom.engines import graph, lockfile, locks, repair, store
from classroom.engines.freshness import Verdict
from classroom.engines.graph import Graph, Stage
from classroom.engines.manifest import matches, remove_checkpoints
from classroom.errors import counted, listed
from classroom.files import clamp_future_mtimes, files_in, make_room, mtime_as_input, mtime_of
from classroom.params import FOLDERS, load
from classroom.state import OBSOLETE, Hashes

log = logging.getLogger(__name__)

STALE = 10**9
"""The mtime, in nanoseconds since the epoch, that makes Snakemake run an output's job again: one second."""

FEW = 3
"""Names that a line has."""

ALL = Path("reports/all")
"""The output of Snakemake's rule `all`, which is no stage."""

NESTED = "CLASSROOM_RECONCILING"
"""Set in the environment of the Snakemake that `reconcile` itself starts."""


class Session:
    """This process as the only workflow in the tree: Snakemake from its start to its end, or a command that reconciles.

    Snakemake's own lock ignores DVC, survives a kill of Snakemake, and allows two runs with different targets. Entering
    raises LockedError if another workflow is running.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.claim = ExitStack()

    def __enter__(self) -> Session:
        self.previous = locks.holder(locks.WORKFLOW)
        self.lock = locks.take(locks.WORKFLOW, self.command)
        if self.lock is None:
            raise locks.LockedError(f"{self.previous or 'Another workflow'} is running in this tree. {locks.ALONE}")
        self._unlock()  # also before a dry run: the note of who was killed is gone after it
        return self

    def __exit__(self, *error: object) -> None:
        self.claim.close()
        locks.release(self.lock)

    def start(self) -> set[str]:
        """Waits for jobs of a killed workflow, reconciles, locks DVC out; returns the names of the stale stages.

        Raises LockedError if DVC is running.
        """
        repair.fix()
        store.refuse_running_dvc()  # whose jobs would otherwise be waited for
        locks.wait_for_jobs()
        stale = reconcile()
        self.claim.enter_context(store.claimed(self.command))
        return stale

    def stop(self) -> None:
        """Commits the jobs that finished."""
        self.claim.close()
        reconcile()

    def _unlock(self) -> None:
        """Removes the lock of a Snakemake that was killed; on another machine only its user knows whether it was."""
        before = self.previous
        if before is None or not any(Path(".snakemake/locks").glob("*")):
            return
        if not before.is_here:
            log.warning(
                "%s left Snakemake's lock behind. If it is no longer running, run `snakemake --unlock`.", before
            )
        else:
            log.info("%s was killed: resuming its work.", before)
            _snakemake("--unlock")


def dry_run(command: str) -> set[str]:
    """Reconciles before a dry run and returns the names of the stale stages: none if another workflow is running."""
    try:
        with Session(command):
            return reconcile()
    except locks.LockedError as error:
        log.info("Note: %s Jobs that it has finished may still be listed here.", error)
        return set()


def reconcile() -> set[str]:
    """Commits, restores and syncs mtimes, in the project's root; returns the names of the stale stages.

    For the process that holds the workflow lock. Raises ClassroomError if dvc.yaml, dvc.lock or settings cannot be
    read, DVC is running in the tree, or a file cannot be written.
    """
    repair.fix()
    store.refuse_running_dvc()
    stages, hashes = graph.load(), Hashes()
    settings = (entry.get("params", {}).get("params.yaml", {}) for entry in lockfile.stages().values())
    if any(key.split(".")[0] in FOLDERS.values() for keys in settings for key in keys):
        log.warning("dvc.lock has an older layout, so everything is made again. Remove it with `git rm dvc.lock`.")
    _stash_obsolete_outputs(stages)
    verdict = Verdict(hashes)
    changed = verdict.changed(stages)
    _remove_entries(verdict.contradicted)
    if committed := _commit([stages[name] for name in changed], hashes):
        log.info("committed to dvc.lock: %s", counted(len(committed), "finished job"))
        for name in set(committed) - locks.running_jobs().keys():
            remove_checkpoints(stages[name])
        changed = Verdict(hashes).changed(stages)
    stale, verdict = stages.downstream(changed), Verdict(hashes)
    restored = _restore(stages, stale - locks.running_jobs().keys(), verdict)
    _remove_entries(verdict.contradicted)
    if restored:
        log.info("restored from DVC's cache: %s", listed(restored, FEW))
        stale = stages.downstream(Verdict(hashes).changed(stages))
    repair.back_up_lock_file()
    _sync_mtimes(stages, stale, hashes)
    if not stale and ALL.parent.is_dir():
        ALL.touch()  # else older than reports whose times were just set
    _clear_incomplete_markers(stages, stale)
    hashes.save()
    return stale


def _remove_entries(contradicted: Mapping[str, str]) -> None:
    """Removes entries of dvc.lock that are not how their outputs were made, so that DVC sees it too."""
    if contradicted:
        named = listed([f"{name} ({found})" for name, found in contradicted.items()], FEW)
        log.info(
            "removed from dvc.lock, as the outputs were made differently; to be made again: %s",
            named,
        )
        lockfile.remove(contradicted)


def _commit(changed: list[Stage], hashes: Hashes) -> list[str]:
    """Commits those of the `changed` stages whose manifest matches what is here; returns their names."""
    if not any(stage.manifest.exists() or not stage.outputs for stage in changed):
        return []
    raw = load(Path("params.yaml"))
    done = [stage for stage in changed if matches(stage, raw, hashes)]
    return store.commit(done) if done else []


def _restore(stages: Graph, due: set[str], verdict: Verdict) -> list[str]:
    """Restores those of the stages `due` whose outputs DVC's cache holds for today's inputs; returns their names.

    Upstream stages come first, as a stage's inputs are known only when these are fresh.
    """
    restored, missing = [], set()
    with store.restoring() as check_out:
        for stage in stages.in_order:
            if stage.name not in due:
                continue
            if not missing.isdisjoint(stages.depends_on[stage.name]):
                missing.add(stage.name)
            elif verdict.is_changed(stage):
                if verdict.is_saved(stage) and check_out(stage.name):
                    restored.append(stage.name)
                    verdict.known.clear()
                else:
                    missing.add(stage.name)
    return restored


def _sync_mtimes(stages: Graph, stale: set[str], hashes: Hashes) -> None:
    """Makes stale outputs older than everything, and fresh ones as new as their newest input."""
    paths = {path for stage in stages.values() for path in (*stage.outputs, *stages.inputs_of(stage))}
    clamp_future_mtimes(map(Path, paths))
    times = {path: mtime_of(Path(path)) for path in paths if Path(path).exists()}
    targets = {path: mtime_as_input(Path(path)) for path in times if Path(path).is_symlink()}
    for stage in stages.in_order:
        inputs = times.keys() & set(stages.inputs_of(stage))
        newest = max((max(times[path], targets.get(path, 0)) for path in inputs), default=STALE)
        for out in times.keys() & set(stage.outputs):
            if stage.name in stale and times[out] > STALE:
                times[out] = STALE
            elif stage.name not in stale and times[out] < newest:
                times[out] = newest
            else:
                continue
            hashes.set_mtime(Path(out), times[out])


def _clear_incomplete_markers(stages: Graph, stale: set[str]) -> None:
    """Removes Snakemake's mark "incomplete" from fresh outputs: of jobs that ended after Snakemake was killed."""
    if any(Path(".snakemake/incomplete").glob("*")):
        fresh = [out for stage in stages.values() if stage.name not in stale for out in stage.outputs]
        _snakemake("--cleanup-metadata", *fresh)


def _stash_obsolete_outputs(stages: Graph) -> None:
    """Moves outputs of no current stage (a seed or variant that left the settings) away, and back when it returns.

    Some stages depend on a whole folder of runs. Files in it beyond today's runs would make DVC see a change that a
    fresh clone does not have.
    """
    outputs = stages.producer.keys()
    if returned := [out for out in sorted(outputs) if files_in(OBSOLETE / out) and not files_in(Path(out))]:
        for out in returned:
            shutil.rmtree(out, ignore_errors=True)  # a folder whose files were moved away
            _move(OBSOLETE / out, Path(out))
        log.info("moved back, as the settings ask for them again: %s", listed(returned, FEW))
    obsolete = []
    dependencies = {dep for stage in stages.values() for dep in stage.dependencies}
    for folder in sorted((dependencies & stages.below.keys()) - outputs):
        for path in sorted(Path(folder).rglob("*")):
            produced = not outputs.isdisjoint(place.as_posix() for place in (path, *path.parents))
            if path.is_file() and not produced and not path.name.startswith("."):
                _move(path, OBSOLETE / path)
                obsolete.append(path.as_posix())
    if obsolete:
        log.info("moved to %s, as no current setting asks for them: %s", OBSOLETE, listed(obsolete, FEW))


def _move(path: Path, target: Path) -> None:
    make_room(target)
    shutil.move(path, target)


def _snakemake(*arguments: str) -> None:
    """Has Snakemake repair its own records. A failure is only worth a warning."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    # It reads the Snakefile too, which must not come back here.
    done = subprocess.run(
        command, env=os.environ | {NESTED: "1"}, capture_output=True, check=False, encoding="utf-8", errors="replace"
    )
    # Harmless: some outputs have no mark; a killed Snakemake's lock is there, which the next start removes.
    if done.returncode and not any(text in done.stderr for text in ("metadata was not present", "cannot be locked")):
        reason = " ".join(done.stderr.split())[-600:]
        log.warning("`snakemake %s` failed, so finished jobs may run again: %s", arguments[0], reason)
