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
from collections import defaultdict
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

from filelock import FileLock

from classroom.engines import ledger, plan
from classroom.engines.plan import HIDDEN, Stage
from classroom.engines.receipts import matches
from classroom.files import content_hash, write_json
from classroom.params import load

STALE = 10**9
"""The file time, in nanoseconds since the epoch, that makes Snakemake remake an output: one second."""

ORPHANS = HIDDEN / "orphans"

NESTED = "CLASSROOM_RECONCILING"
"""Set in the environment of the Snakemake that `reconcile` itself starts."""


def reconcile(say: Callable[[str], None] = lambda text: None) -> set[str]:
    """Records, restores and tells, in the project's root; returns the names of the stages that are stale or missing.

    Raises ClassroomError if DVC cannot judge the project, or a file cannot be written.
    """
    HIDDEN.mkdir(exist_ok=True)
    with FileLock(HIDDEN / "reconcile.lock"):
        stages = plan.load()
        park(stages, say)
        changed = ledger.changed()
        if recorded := record([stages[name] for name in changed if name in stages]):
            say(f"recorded in dvc.lock: {len(recorded)} finished jobs")
            changed = ledger.changed()
        stale = downstream(stages, changed)
        if stale and not _snakemake_at_work():
            due = [stage.name for stage in in_order(stages) if stage.name in stale]
            if restored := ledger.restore(due, makers(stages)):
                say(f"restored from DVC's cache: {_some(restored)}")
                stale = downstream(stages, ledger.changed())
        tell(stages, stale)
        vouch(stages, stale, say)
        return stale


def record(changed: Iterable[Stage]) -> list[str]:
    """Commits those of the `changed` stages whose receipt fits what lies here today; returns their names."""
    raw = load(Path("params.yaml"))
    remembered = Hashes(HIDDEN / "hashes.json")
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
    made = outputs_below(stages)
    for stage in in_order(stages):
        outputs = [Path(out) for out in stage.outputs if Path(out).exists()]
        if stage.name in stale:
            for out in outputs:
                if _time(out) > STALE:
                    _set_time(out, STALE)
            continue
        files = [Path(path) for dep in stage.dependencies for path in made.get(dep, [dep])]
        newest = max((_time(path) for path in files if path.exists()), default=STALE)
        for out in outputs:
            if _time(out) < newest:
                _set_time(out, newest)


def vouch(stages: dict[str, Stage], stale: set[str], say: Callable[[str], None] = lambda text: None) -> None:
    """Takes Snakemake's mark "incomplete" off outputs that are fresh.

    A job that ended after Snakemake was killed, or in that moment, is complete, but Snakemake would delete its
    outputs and run it again.
    """
    marks = Path(".snakemake/incomplete")
    if not marks.is_dir() or not any(marks.iterdir()):
        return
    fresh = [out for stage in stages.values() if stage.name not in stale for out in stage.outputs]
    command = [sys.executable, "-m", "snakemake", "--cleanup-metadata", *fresh]
    # It reads the Snakefile too, which must not come back here.
    done = subprocess.run(command, env=os.environ | {NESTED: "1"}, capture_output=True, text=True, check=False)
    # It ends with an error if some of the outputs had no mark, and is refused while another Snakemake runs: no harm.
    if done.returncode and not any(text in done.stderr for text in ("metadata was not present", "cannot be locked")):
        say(f"Warning: Snakemake may run finished jobs again: {' '.join(done.stderr.split())[-600:]}")


def _snakemake_at_work() -> bool:
    """Whether a Snakemake holds its lock here, whose running jobs must not lose their files."""
    return any(Path(".snakemake/locks").glob("*.lock"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def downstream(stages: dict[str, Stage], changed: Iterable[str]) -> set[str]:
    """`changed` and every stage that stands on one of them, directly or not (dvc status names only the first)."""
    stale = set(changed) & stages.keys()
    made_by = makers(stages)
    for stage in in_order(stages):
        if not stale.isdisjoint(made_by[stage.name]):
            stale.add(stage.name)
    return stale


def upstream(stages: dict[str, Stage], names: Iterable[str]) -> list[Stage]:
    """The stages `names` and every one that they stand on, directly or not, in an order in which they can run."""
    needed = set(names)
    made_by = makers(stages)
    order = in_order(stages)
    for stage in reversed(order):
        if stage.name in needed:
            needed |= set(made_by[stage.name])
    return [stage for stage in order if stage.name in needed]


def makers(stages: dict[str, Stage]) -> dict[str, list[str]]:
    """By stage, the stages that make what it depends on; a dependency may be a folder of several stages' outputs."""
    maker = {out: stage.name for stage in stages.values() for out in stage.outputs}
    made = outputs_below(stages)
    return {
        stage.name: list(dict.fromkeys(maker[out] for dep in stage.dependencies for out in made.get(dep, ())))
        for stage in stages.values()
    }


def outputs_below(stages: dict[str, Stage]) -> dict[str, list[str]]:
    """Every output under its own path and under those of all folders that it lies in."""
    below: dict[str, list[str]] = defaultdict(list)
    for stage in stages.values():
        for out in stage.outputs:
            for place in (out, *(parent.as_posix() for parent in PurePosixPath(out).parents)):
                below[place].append(out)
    return below


def in_order(stages: dict[str, Stage]) -> list[Stage]:
    """Every stage after those it depends on."""
    return [stages[name] for name in TopologicalSorter(makers(stages)).static_order()]


def park(stages: dict[str, Stage], say: Callable[[str], None] = lambda text: None) -> None:
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

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.known = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            self.known = {}

    def __call__(self, path: Path) -> str:
        if path.is_dir():
            return content_hash(path)
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        if self.known.get(str(path), [None])[0] != stamp:
            self.known[str(path)] = [stamp, content_hash(path)]
        return self.known[str(path)][1]

    def save(self) -> None:
        write_json(self.path, self.known)


def _time(path: Path) -> int:
    stamp = path / ".snakemake_timestamp"
    return (stamp if stamp.exists() else path).stat().st_mtime_ns


def _set_time(path: Path, time: int) -> None:
    """Snakemake keeps a folder's time in a file inside it."""
    for target in (path / ".snakemake_timestamp", path):
        if target.exists():
            os.utime(target, ns=(time, time))
