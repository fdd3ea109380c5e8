"""One engine at a time in a tree: Snakemake from its start to its end, or a command that reconciles.

Snakemake's own lock does not know of DVC, stays behind when Snakemake is killed, and lets two runs with other targets
pass. So the tree has a lock that ends with its holder, and DVC is told by DVC's own means.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from classroom.engines import ledger, locks
from classroom.engines.mend import mend
from classroom.engines.reconcile import Say, housekeeping, reconcile
from classroom.errors import ClassroomError

SNAKEMAKE_LOCKS = Path(".snakemake/locks")


class Busy(ClassroomError):
    """Another engine is at work in the tree."""


class Engine:
    """This process as the one engine at work in the tree, from the moment it enters.

    Raises Busy if another one is, and ClassroomError if nothing can be written in the tree.
    """

    def __init__(self, command: str, say: Say) -> None:
        self.command = command
        self.say = say
        self.claim = ExitStack()

    def __enter__(self) -> Engine:
        self.before = locks.holder(locks.ENGINE)
        self.lock = locks.take(locks.ENGINE, self.command)
        if self.lock is None:
            raise Busy(
                f"{self.before or 'Another engine'} is at work in this tree. Two at once would do the same jobs twice: "
                "wait for it to end, or stop it with Ctrl-C or `kill`; nothing that it finished is lost."
            )
        return self

    def __exit__(self, *error: object) -> None:
        self.claim.close()
        locks.release(self.lock)

    def reconcile(self) -> set[str]:
        """`reconcile`, with what it says. Raises ClassroomError if DVC cannot judge the project or is at work in it."""
        return reconcile(self.say)

    def start(self) -> None:
        """What comes before jobs: waits for those that a killed engine left running, reconciles, keeps DVC off.

        Raises ClassroomError if DVC is at work in the tree.
        """
        self._unlock()
        mend(self.say)
        with ledger.claimed(self.command):  # a job of a DVC that is at work is not waited for: DVC is named instead
            locks.wait_for_jobs(self.say)
        self.reconcile()
        self.claim.enter_context(ledger.claimed(self.command))

    def stop(self) -> None:
        """What comes after jobs: records those that finished."""
        self.claim.close()
        self.reconcile()

    def _unlock(self) -> None:
        """Removes the lock of a Snakemake that was killed; of another machine's only its user knows."""
        if self.before is None or not SNAKEMAKE_LOCKS.is_dir() or not any(SNAKEMAKE_LOCKS.iterdir()):
            return
        if not self.before.is_here:
            self.say(
                f"Warning: {self.before} did not end by itself and left Snakemake's lock. If it is not running any "
                "more, `snakemake --unlock` removes that."
            )
            return
        self.say(f"{self.before} was killed: going on where it was.")
        housekeeping(self.say, "--unlock")


def look(command: str, say: Say) -> None:
    """What comes before a dry run: reconciles, unless another engine is at work."""
    try:
        with Engine(command, say) as engine:
            engine.reconcile()
    except Busy as busy:
        say(f"Note: {busy} Jobs that it has finished may still be listed here.")
