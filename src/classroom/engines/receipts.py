"""Receipts: every job says what it was made from and what it made.

A receipt lets `reconcile` accept a finished job into dvc.lock however it was started, and is the provenance
of its numbers. It names no machine.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classroom.engines import plan, records
from classroom.engines.locks import one_process
from classroom.engines.times import none_from_the_future
from classroom.errors import ClassroomError, suggestion
from classroom.files import content_hash, remove_leftovers, write_json
from classroom.params import select

LIBRARIES = ("snakemake", "dvc", "timm", "segmentation-models-pytorch", "pandas", "pyarrow")


class Job:
    """A job under way: what it stands on was noted when it began, so that later edits do not count as its own."""

    def __init__(self, stage: plan.Stage | None, command: str, raw: dict[str, Any]) -> None:
        self.stage = stage
        self.command = command
        self.raw = raw
        self.facts: Mapping[str, Any] = {}
        self.params = {key: select(raw, key, Any) for key in stage.params} if stage else raw
        self.dependencies = hashes(stage.dependencies) if stage else {}
        self.started = time.monotonic()

    @property
    def identity(self) -> str:
        """Digest of all that decides the result: command, settings, and the content of every dependency."""
        standing = [self.command, self.params, self.dependencies]
        return hashlib.sha256(json.dumps(standing, sort_keys=True, default=str).encode()).hexdigest()

    def close(self) -> None:
        """Writes the receipt; a command that is no stage's leaves none."""
        if self.stage is None:
            return
        outputs = [out for out in self.stage.outputs if Path(out) != self.stage.receipt]
        write_json(
            self.stage.receipt,
            {
                "stage": self.stage.name,
                "identity": self.identity,
                "command": self.command,
                "params": self.params,
                "dependencies": self.dependencies,
                "outputs": hashes(outputs),
                "code_version": code_version(),
                "seconds": round(time.monotonic() - self.started, 1),
                "python": platform.python_version(),
                "libraries": {name: version(name) for name in LIBRARIES},
                **self.facts,
            },
        )


@contextmanager
def job(command: str, raw: dict[str, Any], only_planned: bool = True) -> Iterator[Job]:
    """Notes what `command` stands on, and writes its receipt if it succeeds.

    Waits for another process that does the same; if that one leaves what this one would make, the program ends here,
    well. Raises ClassroomError if something that it needs is missing or not as its maker left it, and, with
    `only_planned`, for a command that is no stage's.
    """
    stages = plan.load() if Path("dvc.yaml").exists() else {}
    stage = next((stage for stage in stages.values() if stage.command == command), None)
    if stages and stage is None and only_planned:
        alike = [known.command for known in stages.values() if known.command.split()[1] == command.split()[1]]
        raise ClassroomError(f"`{command}` is not a job that the settings ask for.{suggestion(command, alike)}")
    if stage is None:
        yield Job(None, command, raw)
        return
    _check_present(stage, stages)
    with one_process(stage.name, command, _say) as waited:
        if waited and matches(stage, raw):
            _say("it is done")
            raise SystemExit(0)
        for out in stage.outputs:
            remove_leftovers(Path(out))
        files = [Path(path) for path in plan.files_of(stage, plan.outputs_below(stages))]
        none_from_the_future(files)
        under_way = Job(stage, command, raw)
        records.check_as_made(stages.values(), under_way.dependencies)
        yield under_way
        under_way.close()
        none_from_the_future(files)  # if the clock was set back meanwhile


def _check_present(stage: plan.Stage, stages: dict[str, plan.Stage]) -> None:
    for path in stage.dependencies:
        if not Path(path).exists():
            makers = [s.command for s in stages.values() if any(f"{out}/".startswith(f"{path}/") for out in s.outputs)]
            hint = f"Run `{makers[0]}` first." if makers else "Is this the project's root?"
            raise ClassroomError(f"{path}: no such file or folder; `{stage.command}` needs it. {hint}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def matches(stage: plan.Stage, raw: dict[str, Any], hash_of: Any = content_hash) -> bool:
    """Whether the stage's receipt says that its outputs, as they lie here, were made from today's inputs."""
    try:
        receipt = json.loads(stage.receipt.read_text())
        outputs = [out for out in stage.outputs if Path(out) != stage.receipt]
        return (
            receipt["command"] == stage.command
            and receipt["params"] == json.loads(json.dumps({key: select(raw, key, Any) for key in stage.params}))
            and receipt["dependencies"] == {path: hash_of(Path(path)) for path in sorted(stage.dependencies)}
            and receipt["outputs"] == {path: hash_of(Path(path)) for path in sorted(outputs)}
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError, ClassroomError):
        return False


def hashes(paths: Any) -> dict[str, str]:
    return {path: content_hash(Path(path)) for path in sorted(paths)}


def code_version() -> str:
    """The git commit, with `-dirty` for uncommitted changes; the package's version outside a repository.

    Asked without git's own lock, which a job killed in that moment would leave behind.
    """
    try:
        commit = _git("describe", "--always", "--abbrev=12")
        return commit + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return version("classroom")


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
