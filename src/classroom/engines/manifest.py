"""Run manifests: what each job was made from, and what it made.

With its manifest `reconcile` can commit a finished job to dvc.lock however it was started; and the manifest is the
provenance of the job's numbers. It names no machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from classroom.engines import graph, lockfile, locks
from classroom.engines.graph import Stage
from classroom.engines.locks import one_process
from classroom.errors import ClassroomError, suggestion
from classroom.files import clamp_future_mtimes, content_hash, files_in, remove, remove_leftovers, touch, write_json
from classroom.git import code_version
from classroom.params import dotted, leaves, load, select
from classroom.state import Hashes

log = logging.getLogger(__name__)

LIBRARIES = ("snakemake", "dvc", "timm", "segmentation-models-pytorch", "pandas", "pyarrow")

FEW = 10
"""Files in a folder, up to which a manifest names each of them."""

Record = Mapping[str, Any]
"""A job's `command`, its `params`, and the MD5s of its `dependencies` and `outputs` by path; manifests have more."""


class Job:
    """A running job. Its inputs were hashed when it began, so later edits do not count as its own."""

    def __init__(
        self,
        stage: Stage | None,
        command: str,
        raw: dict[str, Any],
        dependencies: dict[str, str],
        inputs: Sequence[Path] = (),
    ) -> None:
        self.stage = stage
        self.command = command
        self.raw = raw
        self.facts: Mapping[str, Any] = {}
        self.params = {key: select(raw, key, Any) for key in stage.params} if stage else raw
        self.dependencies = dependencies
        self.inputs = inputs
        self.above = psutil.Process().parents() if locks.UNDER_DVC else []
        self.started = time.monotonic()

    @property
    def identity(self) -> str:
        """Digest of everything that decides the result: command, settings, and the content of each dependency."""
        decisive = [self.command, self.params, self.dependencies]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()

    def finish(self) -> bool:
        """Writes the manifest: what the job was made from, and what it made.

        Returns False if another DVC may delete the outputs: the one that started the job was killed, and nobody has
        recorded them. Raises ClassroomError if it cannot be written, or DVC would record the job falsely.
        """
        if self.stage is None:
            return True
        write_json(
            self.stage.manifest,
            {
                "stage": self.stage.name,
                "identity": self.identity,
                "command": self.command,
                "params": self.params,
                "dependencies": self.dependencies,
                "outputs": _hashes(_described_outputs(self.stage)),
                "code_version": code_version(),
                "seconds": round(time.monotonic() - self.started, 1),
                "python": platform.python_version(),
                "libraries": {name: version(name) for name in LIBRARIES},
                **self.facts,
            },
        )
        clamp_future_mtimes(self.inputs)  # if the clock was set back meanwhile
        if not locks.UNDER_DVC:
            return True
        if not any(map(locks.is_dvc, self.above)):
            return _record_in_place_of_dvc(self.stage)
        if not matches(self.stage, load(Path("params.yaml")), Hashes()):
            raise ClassroomError(
                f"settings or files that `{self.command}` depends on have changed while it ran, and DVC would record "
                "its result as made from the new ones. Run `dvc repro` again; or undo the change and run `classroom "
                "reconcile`, which records the result."
            )
        return True


def _record_in_place_of_dvc(stage: Stage) -> bool:
    """Records a job that has just ended, as another DVC would delete its outputs; whether it could."""
    from classroom.engines import store

    try:
        recorded = bool(store.commit([stage]))
    except ClassroomError:  # such a DVC has just deleted them, and waits to do the job again
        return False
    if recorded:
        log.info("the DVC that started this job was killed: its result is recorded")
    return recorded


@contextmanager
def job(command: str, raw: dict[str, Any], only_planned: bool = True) -> Iterator[Job]:
    """Runs the body as the job `command`: verifies its inputs first, and writes its manifest if it succeeds.

    Waits while another process runs the same job; if that one leaves the outputs that this one would make, the program
    ends here with exit status 0.

    Parameters
    ----------
    command
        A stage's command, such as `classroom split lgg-resnet18`.
    raw
        All settings, as `classroom.params.load` returns them.
    only_planned
        Whether a command that no stage has is an error. If not, it runs without any of this.

    Raises
    ------
    ClassroomError
        If an input is missing or not as its job left it, or the command is not a stage's.
    """
    with begun(command, raw, only_planned) as running:
        if running is None:
            raise SystemExit(0)
        yield running
        running.finish()


@contextmanager
def begun(command: str, raw: dict[str, Any], only_planned: bool = True) -> Iterator[Job | None]:
    """As `job`, for a body that calls `finish` itself; None if another process has just finished the job.

    Parameters
    ----------
    command, raw, only_planned
        as in `job`
    """
    stages = graph.load() if Path("dvc.yaml").exists() else graph.Graph()
    stage = next((stage for stage in stages.values() if stage.command == command), None)
    if stages and stage is None and only_planned:
        alike = [known.command for known in stages.values() if known.command.split()[1] == command.split()[1]]
        raise ClassroomError(f"`{command}` is not a job that the settings ask for.{suggestion(command, alike)}")
    if stage is None:
        yield Job(None, command, raw, {})
        return
    with one_process(stage.name, command) as waited:
        if waited and matches(stage, raw):
            log.info("the other process has finished this job: nothing to run")
            remove_checkpoints(stage)
            yield None
            return
        for out in stage.outputs:
            remove_leftovers(Path(out))
        inputs = [Path(path) for path in stages.inputs_of(stage)]
        clamp_future_mtimes(inputs)
        yield Job(stage, command, raw, verify_inputs(stage, stages), inputs)


def remove_checkpoints(stage: Stage) -> None:
    """Removes what a training that is done would resume from."""
    for out in stage.outputs:
        remove(Path("checkpoints", out))


def verify_inputs(stage: Stage, stages: graph.Graph) -> dict[str, str]:
    """Checks that all of a stage's dependencies exist and are as their jobs left them; returns their MD5s by path.

    Outputs without a record are for the command itself to check. What is damaged gets a new mtime, so that DVC, which
    trusts times and sizes, sees the damage too. Raises ClassroomError for a missing or damaged file or folder.
    """
    made = dict.fromkeys(out for path in stage.dependencies for out in stages.outputs_at(path))
    for path in (*stage.dependencies, *made):
        if not Path(path).exists():
            by = stages.outputs_at(path)
            hint = f"Run `{stages.producer[by[0]].command}` first." if by else "Is this the project's root?"
            raise ClassroomError(f"{path}: no such file or folder; `{stage.command}` needs it. {hint}")
    hashes = Hashes()
    digests = _hashes(stage.dependencies, hashes.read)
    for out in made:
        producer = stages.producer[out]
        if damaged := _damaged(producer, out, digests.get(out) or hashes.read(Path(out))):
            touch(Path(out))
            raise ClassroomError(
                f"{', '.join(damaged)}: damaged, edited or replaced since `{producer.command}` made it. Run that "
                f"command again, or restore it from DVC's cache: `dvc checkout {out}`."
            )
        if found := contradictions(producer, _entry(producer), hashes):
            raise ClassroomError(
                f"{out}: dvc.lock and the manifest in it contradict each other ({described(found)}). Run `classroom "
                "reconcile`, which removes the entry from dvc.lock, and start again: the run is made again."
            )
    recorded = record(_entry(stage) or {"cmd": ""})["dependencies"]
    for path in stage.dependencies if locks.UNDER_DVC else ():
        if digests[path] != recorded.get(path) and not stages.outputs_at(path):
            touch(Path(path))  # what DVC remembers of it may be of a file of the same size and mtime
    hashes.save()
    for file in hashes.unseen:
        log.info("%s: has changed while its size and mtime have not; used as it is now", file)
    return digests


def matches(stage: Stage, raw: dict[str, Any], hash_of: Callable[[Path], str] = content_hash) -> bool:
    """Whether the stage's manifest says that its outputs, as they are now, were made from today's inputs.

    Parameters
    ----------
    stage, raw
        A stage, and all settings as `classroom.params.load` returns them.
    hash_of
        Computes the MD5 of a file or folder; `Hashes` remembers it.
    """
    if not stage.outputs:
        return True  # the stage `plan`: whoever asks has checked it
    try:
        return (made := read(stage)) is not None and not changes(stage, made, raw, hash_of)
    except OSError:  # a file has just gone
        return False


def changes(
    stage: Stage, made: Record, raw: dict[str, Any], hash_of: Callable[[Path], str]
) -> dict[str, tuple[Any, Any]]:
    """What is not as in a record of the stage: by setting, file or `command` the recorded and the current value.

    None stands for what does not exist. Arguments are as in `matches`.
    """
    was = {"command": made["command"], **leaves(made["params"]), **made["dependencies"], **made["outputs"]}
    now = {"command": stage.command}
    for key in stage.params:
        with suppress(ClassroomError):
            now |= leaves({key: json.loads(json.dumps(select(raw, key, Any), default=str))})
    for out in stage.outputs:  # dvc.lock has the hash of a folder, a manifest those of few files in it
        by_file = any(path.startswith(f"{out}/") for path in made["outputs"])
        now |= _hashes(_files_of(stage, out) if by_file else filter(os.path.exists, [out]), hash_of)
    now |= _hashes(filter(os.path.exists, stage.dependencies), hash_of)
    return {key: (was.get(key), now.get(key)) for key in was | now if was.get(key, ...) != now.get(key, ...)}


def records(stage: Stage) -> Iterator[Record]:
    """The stage's manifest and what dvc.lock says, where there are any.

    Manifests that are not outputs stay behind when DVC restores another version: then dvc.lock is right.
    """
    entry = _entry(stage)
    locked = record(entry) if entry and not contradictions(stage, entry) else None
    return filter(None, (read(stage), locked))


def contradictions(
    stage: Stage, entry: Mapping[str, Any] | None, hash_of: Callable[[Path], str] = content_hash
) -> dict[str, tuple[Any, Any]]:
    """What a training's `entry` in dvc.lock says of the run that is here, and what the manifest in the run says.

    By setting, file or `command`. They agree in whatever DVC or `reconcile` has recorded, but not after a merge of
    branches that combined the lines of two entries, or after an edit of dvc.lock. Empty if the run is not the entry's.
    """
    made = read(stage) if stage.is_training and entry else None
    if made is None or entry is None:
        return {}
    said, run = record(entry), stage.outputs[0]
    found = differences(said, made)
    for path, digest in made["outputs"].items():
        here = hash_of(Path(path)) if Path(path).is_file() else None
        if path != run and here != digest:
            found[path] = (here, digest)
    return found if found and hash_of(Path(run)) == said["outputs"].get(run) else {}


def described(found: Mapping[str, tuple[Any, Any]]) -> str:
    """The first of the `differences`, and how many more there are."""
    key, (said, made) = next(iter(found.items()))
    return f"{key}: {said}, made with {made}" + (f"; {len(found) - 1} more" if len(found) > 1 else "")


def differences(said: Record, made: Record) -> dict[str, tuple[Any, Any]]:
    """By setting, file or `command`, what two records of the same outputs say that these were made from."""
    one, other = (
        {"command": record["command"], **leaves(record["params"]), **record["dependencies"]} for record in (said, made)
    )
    return {key: (one.get(key), other.get(key)) for key in one | other if one.get(key) != other.get(key)}


def record(entry: Mapping[str, Any]) -> Record:
    """An entry of dvc.lock as a record."""
    settings = entry.get("params", {}).items()
    return {
        "command": entry["cmd"],
        "params": {dotted(file, key): value for file, values in settings for key, value in values.items()},
        "dependencies": {each["path"]: each["md5"] for each in entry.get("deps", ())},
        "outputs": {each["path"]: each["md5"] for each in entry.get("outs", ())},
    }


def read(stage: Stage) -> Record | None:
    """The stage's manifest; None if there is none that can be read."""
    try:
        made = json.loads(stage.manifest.read_text(encoding="utf-8"))
        whole = all(isinstance(made[name], dict) for name in ("params", "dependencies", "outputs"))
        return made if whole and "command" in made else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _described_outputs(stage: Stage) -> list[str]:
    """All outputs but the manifest; of a folder with few files these, so that a damaged one can be named."""
    described = []
    for out in stage.outputs:
        files = _files_of(stage, out) if Path(out).is_dir() else []
        described += files if 0 < len(files) <= FEW else [out]
    return described


def _files_of(stage: Stage, out: str) -> list[str]:
    """The files in an output, without the manifest."""
    return [file.as_posix() for file in files_in(Path(out)) if file != stage.manifest]


def _hashes(paths: Iterable[str], hash_of: Callable[[Path], str] = content_hash) -> dict[str, str]:
    return {path: hash_of(Path(path)) for path in sorted(paths)}


def _damaged(producer: Stage, out: str, digest: str) -> list[str]:
    """What is not as a job left its output: the output or files in it; nothing if a record says so, or none does."""
    damaged: list[str] = []
    for record in records(producer):
        recorded = record["outputs"]
        files = {path: md5 for path, md5 in recorded.items() if path.startswith(f"{out}/")}
        changed = [p for p, md5 in files.items() if not Path(p).is_file() or content_hash(Path(p)) != md5]
        if recorded.get(out) == digest or (files and not changed):
            return []
        if files or out in recorded:
            damaged = damaged or changed or [out]
    return damaged


def _entry(stage: Stage) -> Mapping[str, Any] | None:
    """The stage's entry in dvc.lock, as far as that can be read."""
    try:
        return lockfile.stages().get(stage.name)
    except ClassroomError:
        return None
