"""The DVC store: dvc.lock as DVC writes it, and the cache of everything that was made before.

Everything here imports DVC, which takes a second; nothing else in this package does but to resolve dvc.yaml.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom.engines import graph, lockfile, manifest
from classroom.engines.locks import ALONE, LockedError
from classroom.errors import ClassroomError
from classroom.files import content_hash, files_in, make_room, touch
from classroom.state import REPLACED

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage
    from dvc_data.hashfile.db import HashFileDB

log = logging.getLogger(__name__)

RWLOCK = Path(".dvc/tmp/rwlock")
"""DVC's list of which process reads and writes what."""
EXPERIMENTS = Path(".dvc/tmp/exps/run")
"""DVC's notes of the processes that run queued experiments."""


def commit(done: Iterable[graph.Stage]) -> list[str]:
    """Commits stages as `dvc commit --force` does, but writes dvc.lock once instead of once per stage; returns which.

    DVC, which remembers hashes by size and mtime, has to read again what a stage's manifest has other hashes of. What
    still contradicts its manifest reaches neither dvc.lock nor the cache, which others may share. Raises ClassroomError
    if dvc.lock or the cache cannot be written.
    """
    committed = []
    with _project("cannot commit finished jobs") as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        for job in done:
            stage, made = stages[job.name], manifest.read(job)
            if found := _save(stage, made):
                for path in found:
                    touch(Path(path))
                if found := _save(stage, made):
                    said = manifest.described(found)
                    log.warning("%s: not recorded, as DVC contradicts its manifest: %s", job.name, said)
                    continue
            repo.stage_cache.save(stage)
            stage.commit()
            committed.append(stage)
        _record(committed)
    return [stage.addressing for stage in committed]


@contextmanager
def restoring() -> Iterator[Callable[[str], bool]]:
    """Yields a function that checks out a stage's outputs from the cache, as made from today's inputs, if it can.

    As under `dvc repro`, a stage is looked up by its command, its settings and the contents of its dependencies, and
    its current outputs are replaced. Unlike DVC, which asks or refuses, this moves what neither dvc.lock nor the
    cache knows to `REPLACED`; and unlike DVC, which trusts its cache, it removes a damaged copy instead of restoring
    it. DVC is opened when the function is first called; dvc.lock is written at the end. Raises ClassroomError if files
    cannot be written.
    """
    with ExitStack() as opened:
        stages: dict[str, Stage] = {}
        restored = []

        def restore(name: str) -> bool:
            if not stages:
                repo = opened.enter_context(_project("cannot restore results from its cache"))
                stages.update({stage.addressing: stage for stage in repo.index.stages})
                graph.check_inside(out.def_path for stage in stages.values() for out in stage.outs)
            if done := _check_out(stages[name]):
                restored.append(stages[name])
            return done

        yield restore
        _record(restored)


def renew_copies(outputs: Iterable[str], damaged: Sequence[str]) -> list[str]:
    """Reads the copies of these outputs in DVC's cache and removes damaged ones; returns the outputs that had one.

    An output that is not itself among the `damaged` is copied there again.
    """
    known, renewed = lockfile.outputs(), []
    with _project("cannot read its cache") as repo:
        of = {out.def_path: out for stage in repo.index.stages for out in stage.outs}
        for path in outputs:
            if copies := _damaged_copies(repo, known[path]):
                for copy_of in copies:
                    copy_of.unlink()
                renewed.append(path)
                if path not in damaged:
                    of[path].commit()
    return renewed


def complete_remote() -> list[str]:
    """Sends DVC's remote the files that it lacks of folders whose list it has; returns these outputs.

    A killed `dvc push` may leave it so; the next one takes the list for a sign that the files are there, and `dvc pull`
    fails. Raises ClassroomError if the remote cannot be read or written.
    """
    from dvc_data.hashfile.hash_info import HashInfo

    incomplete = []
    with _project("cannot check its remote") as repo:
        local, remote = repo.cache.local, repo.cloud.get_remote_odb(command="verify --remote")
        outs = [out for stage in repo.index.stages for out in stage.outs if out.use_cache and out.hash_info]
        known = {out.def_path: out.hash_info.value for out in outs}
        there = set(remote.oids_exist(list(known.values())))
        files = {out: _listed(local if local.exists(of) else remote, of) for out, of in known.items() if of in there}
        there.update(remote.oids_exist(list({file for of in files.values() for file in of})))
        for out, of in files.items():
            if lacking := set(of) - there:
                sent = {file for file in lacking if local.exists(file)}
                repo.cloud.transfer(local, remote, {HashInfo("md5", file) for file in sent})
                hint = "" if sent == lacking else "; the others are not in DVC's cache: run this where they were made"
                log.info("%s: the remote lacked %d of %d files, %d sent%s", out, len(lacking), len(of), len(sent), hint)
                incomplete.append(out)
        absent = sum(of not in there for of in known.values())
    hint = f", {absent} not there: `dvc push --run-cache` sends them" if absent else ""
    log.info("%d results checked in the remote: %d incomplete%s", len(known), len(incomplete), hint)
    return incomplete


@contextmanager
def claimed(command: str) -> Iterator[None]:
    """Registers the whole tree in DVC's list as being written by `command`, so that DVC changes nothing in it.

    Raises LockedError if DVC is running in the tree.
    """
    from dvc.rwlock import rwlock

    with ExitStack() as held:
        with _project("cannot be locked out") as repo:
            hardlink = repo.config["core"].get("hardlink_lock", False)
            held.enter_context(rwlock(repo.tmp_dir, repo.fs, command, [], [repo.root_dir], hardlink))
        yield


def fail_experiments(killed: Sequence[str]) -> list[str]:
    """Has DVC count queued experiments, by revision, as failed whose processes are gone; returns their names."""
    from dvc.repo.experiments.queue.exceptions import CannotKillTasksError

    with _project("cannot update its queue of experiments") as repo:
        logging.getLogger("kombu").setLevel(logging.ERROR)
        queue = repo.experiments.celery_queue
        active = {entry.stash_rev: entry.name or entry.stash_rev for entry in queue.iter_active()}
        for revision in killed:
            process = queue.proc[revision]
            process.returncode = -1  # else it is sent a signal, though its number may belong to another one by now
            queue.proc[revision] = process
        gone = [revision for revision in killed if revision in active]
        try:
            queue.kill(gone)
        except CannotKillTasksError:  # their worker is alive, and was just about to note their end
            return []
        return [active[revision] for revision in gone]


def refuse_running_dvc() -> None:
    """Raises LockedError if DVC is writing in the tree; `repair.fix` has removed entries of killed processes."""
    try:
        writers = json.loads(RWLOCK.read_text(encoding="utf-8")).get("write", {}).values()
    except (OSError, ValueError):
        return
    if by := dict.fromkeys(f"`{entry['cmd']}` (PID {entry['pid']})" for entry in writers):
        raise LockedError(_running(by))


def _save(stage: Stage, made: manifest.Record | None) -> dict[str, tuple[Any, Any]]:
    """Has DVC hash a stage's files; returns what it would say that it was made from, where the manifest differs."""
    from dvc.stage.serialize import to_single_stage_lockfile

    stage.save(run_cache=False)
    return manifest.differences(manifest.record(to_single_stage_lockfile(stage)), made) if made else {}


def _check_out(stage: Stage) -> bool:
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    saved = stage.repo.stage_cache
    known = {out: out.hash_info.value for out in stage.outs}
    try:
        if stage.changed_stage() or not stage.deps_cached():
            stage.save_deps()
            for out in stage.outs:  # those in dvc.lock were made from something else
                out.hash_info = HashInfo()
        saved.restore(stage, dry=True)
    except DvcException:
        return False
    for out, checksum in known.items():
        _set_aside(stage.repo, Path(out.def_path), checksum)
    stage.remove_outs()  # else DVC asks before it replaces a file that it does not know
    saved.restore(stage)
    stage.save(run_cache=False)  # it does not look whether the contents are what their names say
    damaged = [out for out in stage.outs if content_hash(Path(out.fs_path)) != out.hash_info.value]
    for out in damaged:
        log.info("%s: its copy in DVC's cache is damaged, and is removed", out.def_path)
        for copy_of in _damaged_copies(stage.repo, out.hash_info.value):
            copy_of.unlink()
        out.remove()
    return not damaged


def _set_aside(repo: Repo, path: Path, recorded: str | None) -> None:
    """Moves an output whose contents neither dvc.lock records nor the cache holds: edited, or not committed yet."""
    if not path.exists() or all(_copy(repo, content_hash(file)).exists() for file in files_in(path)):
        return
    if content_hash(path) == recorded:
        return
    kept = REPLACED / path
    make_room(kept)
    shutil.move(path, kept)
    log.info("%s: neither in dvc.lock nor in DVC's cache; moved to %s before the saved result replaces it", path, kept)


def _copy(repo: Repo, checksum: str) -> Path:
    return Path(repo.cache.local.oid_to_path(checksum))


def _damaged_copies(repo: Repo, checksum: str) -> list[Path]:
    """Files in the cache, of those that make up an output, whose content is not what their name says."""
    whole = _copy(repo, checksum)
    if not whole.exists():
        return []
    if content_hash(whole) != checksum.removesuffix(".dir"):
        return [whole]
    copies = {_copy(repo, part): part for part in _listed(repo.cache.local, checksum)}
    return [path for path, part in copies.items() if path.exists() and content_hash(path) != part]


def _listed(store: HashFileDB, checksum: str) -> list[str]:
    """The checksums of the files in a folder, by DVC's list of them; none if it is a file."""
    if not checksum.endswith(".dir"):
        return []
    with store.fs.open(store.oid_to_path(checksum), encoding="utf-8") as file:
        return [entry["md5"] for entry in json.load(file)]


def _record(stages: Sequence[Stage]) -> None:
    """Writes the stages into dvc.lock; DVC's own function would write it in place, once per stage."""
    from dvc.stage.serialize import to_lockfile

    if stages:
        lockfile.update({name: entry for stage in stages for name, entry in to_lockfile(stage).items()})


@contextmanager
def _project(fault: str) -> Iterator[Repo]:
    """Opens the project with DVC, locked against other DVC commands; its errors become ours: "DVC `fault`: …"."""
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo, lock_repo
    from scmrepo.exceptions import SCMError

    try:
        with set_loggers_level(logging.WARNING), Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except (DvcException, SCMError, OSError) as error:
        blockers = re.findall(r"\(PID (\d+)\): (.+)", str(error))
        if by := dict.fromkeys(f"`{command}` (PID {pid})" for pid, command in blockers):
            raise LockedError(_running(by)) from None
        graph.check_repository()
        reason = " ".join(str(error).split()).rstrip(".")
        raise ClassroomError(f"DVC {fault}: {reason}.{f' {lockfile.REMEDY}' if 'dvc.lock' in reason else ''}") from None


def _running(by: Iterable[str]) -> str:
    return f"{', '.join(by)} is running in this tree. {ALONE}"
