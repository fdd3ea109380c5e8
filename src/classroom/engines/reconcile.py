"""Making Snakemake and DVC agree on what is fresh.

`dvc.lock` is the one record. First *record*: jobs that finished under Snakemake, or by hand, and whose
receipts fit today's settings and files, are committed to it. Then *restore*: what is stale but was made before,
from the same settings and files, comes back from DVC's cache. Then *tell*: file times are set so that
Snakemake, which knows nothing but times, reaches DVC's verdict.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from classroom.engines import ledger, locks, plan
from classroom.engines.mend import keep, mend
from classroom.engines.plan import HIDDEN, Stage, downstream, files_of, in_order, makers, outputs_below
from classroom.engines.receipts import matches
from classroom.engines.times import none_from_the_future, set_time, time_of
from classroom.files import content_hash, write_json
from classroom.params import load

STALE = 10**9
"""The file time, in nanoseconds since the epoch, that makes Snakemake remake an output: one second."""

ORPHANS = HIDDEN / "orphans"

NESTED = "CLASSROOM_RECONCILING"
"""Set in the environment of the Snakemake that `reconcile` itself starts."""

Say = Callable[[str], None]


def reconcile(say: Say = lambda text: None) -> set[str]:
    """Records, restores and tells, in the project's root; returns the names of the stages that are stale or missing.

    For the one engine at work in the tree. Raises ClassroomError if DVC cannot judge the project or is at work in it,
    or a file cannot be written.
    """
    mend(say)
    stages = plan.load()
    park(stages, say)
    changed = ledger.changed()
    if recorded := record([stages[name] for name in changed if name in stages], say):
        say(f"recorded in dvc.lock: {len(recorded)} finished jobs")
        changed = ledger.changed()
    stale = downstream(stages, changed)
    due = [stage.name for stage in in_order(stages) if stage.name in stale - locks.jobs_at_work().keys()]
    if due and (restored := ledger.restore(due, makers(stages), say)):
        say(f"restored from DVC's cache: {_some(restored)}")
        stale = downstream(stages, ledger.changed())
    keep()
    tell(stages, stale)
    vouch(stages, stale, say)
    return stale


def record(changed: Sequence[Stage], say: Say) -> list[str]:
    """Commits those of the `changed` stages whose receipt fits what lies here today; returns their names."""
    if not changed:
        return []
    raw = load(Path("params.yaml"))
    remembered = Hashes(HIDDEN / "hashes.json", say)
    names = [
        stage.name
        for stage in changed
        if all(Path(out).exists() for out in stage.outputs) and matches(stage, raw, remembered)
    ]
    remembered.save()
    if names:
        ledger.commit(names)
    return names


def tell(stages: dict[str, Stage], stale: set[str]) -> None:
    """Gives stale outputs a time older than anything, and lifts fresh ones to their newest dependency's."""
    below = outputs_below(stages)
    paths = {path for stage in stages.values() for path in (*stage.outputs, *files_of(stage, below))}
    none_from_the_future(map(Path, paths))
    times = {path: time_of(Path(path)) for path in paths if Path(path).exists()}
    for stage in in_order(stages):
        newest = max((times[path] for path in files_of(stage, below) if path in times), default=STALE)
        for out in times.keys() & set(stage.outputs):
            if stage.name in stale and times[out] > STALE:
                times[out] = STALE
            elif stage.name not in stale and times[out] < newest:
                times[out] = newest
            else:
                continue
            set_time(Path(out), times[out])


def vouch(stages: dict[str, Stage], stale: set[str], say: Say) -> None:
    """Takes Snakemake's mark "incomplete" off outputs that are fresh.

    A job that ended after Snakemake was killed, or in that moment, is complete, but Snakemake would delete its
    outputs and run it again.
    """
    marks = Path(".snakemake/incomplete")
    if not marks.is_dir() or not any(marks.iterdir()):
        return
    fresh = [out for stage in stages.values() if stage.name not in stale for out in stage.outputs]
    housekeeping(say, "--cleanup-metadata", *fresh)


def housekeeping(say: Say, *arguments: str) -> None:
    """Has Snakemake put its own notes in order, which is never worth failing for: what remains is a warning."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    # It reads the Snakefile too, which must not come back here.
    done = subprocess.run(command, env=os.environ | {NESTED: "1"}, capture_output=True, text=True, check=False)
    # No harm: some outputs bear no mark; a killed Snakemake's lock is there, which the next start removes.
    if done.returncode and not any(text in done.stderr for text in ("metadata was not present", "cannot be locked")):
        reason = " ".join(done.stderr.split())[-600:]
        say(f"Warning: `snakemake {arguments[0]}` failed, so finished jobs may run again: {reason}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def park(stages: dict[str, Stage], say: Say) -> None:
    """Moves results of no current stage (a seed or variant that left params.yaml) aside, and back when it returns.

    Some stages depend on a whole folder of runs. What lies there beyond today's runs would make DVC see a
    change that a fresh clone does not have.
    """
    made = {out for stage in stages.values() for out in stage.outputs}
    for stage in stages.values():
        for out in stage.outputs:
            parked = ORPHANS / out
            if parked.exists() and not Path(out).exists():
                Path(out).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(parked, out)
                say(f"{out} belongs to the settings again: moved back")
    for folder in sorted({dep for stage in stages.values() for dep in stage.dependencies} - made):
        for path in sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else []:
            if path.is_file() and path.as_posix() not in made and not path.name.startswith("."):
                (ORPHANS / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, ORPHANS / path)
                say(f"{path} belongs to no current setting: kept in {ORPHANS / path}")


class Hashes:
    """`content_hash` with a memory: a file whose size, time and inode are as remembered is not read again."""

    def __init__(self, path: Path, say: Say = lambda text: None) -> None:
        self.path = path
        self.known: dict[str, tuple[list[int], str]] = {}
        try:
            content = json.loads(path.read_text())
            self.known = {name: (list(stamp), str(checksum)) for name, (stamp, checksum) in content.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError):
            say(f"{path} is damaged: every result is read again")

    def __call__(self, path: Path) -> str:
        if path.is_dir():
            return content_hash(path)
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        if str(path) not in self.known or self.known[str(path)][0] != stamp:
            self.known[str(path)] = (stamp, content_hash(path))
        return self.known[str(path)][1]

    def save(self) -> None:
        write_json(self.path, self.known)
