"""`classroom verify`: are the results, and DVC's copies of them, still what dvc.lock says? After a disk has failed.

DVC and Snakemake go by times and sizes, which a flipped bit leaves as they were.
"""

from __future__ import annotations

from pathlib import Path

from classroom.engines import ledger, plan
from classroom.engines.engine import Engine
from classroom.engines.reconcile import Say
from classroom.engines.times import touch
from classroom.files import content_hash, files_in


def verify(engine: Engine, say: Say) -> list[str]:
    """Reads everything that is fresh and returns what was damaged, which comes back from DVC's cache or turns stale.

    Raises ClassroomError if DVC cannot judge the project.
    """
    stale, stages, known = engine.reconcile(), plan.load(), ledger.recorded()
    maker = {out: name for name, stage in stages.items() for out in stage.outputs if name not in stale and out in known}
    damaged = [out for out in maker if content_hash(Path(out)) != known[out]]
    for out in damaged:
        touch(Path(out))
        say(f"{out}: damaged, or changed by hand: its checksum is not the one in dvc.lock")
    spoilt = ledger.renew_copies(maker, damaged)
    for out in spoilt:
        then = "removed" if out in damaged else "renewed"
        say(f"{out}: its copy in DVC's cache was damaged, and is {then}")
    again = engine.reconcile() if damaged or spoilt else stale
    size = sum(file.stat().st_size for out in maker for file in files_in(Path(out)))
    say(f"{len(maker)} results read, {size / 1e6:.0f} MB: {len(damaged)} damaged, {len(spoilt)} copies damaged")
    if again != stale:
        say(f"{len(again)} jobs to do: Snakemake or `dvc repro` makes again what could not be brought back")
    return damaged + spoilt
