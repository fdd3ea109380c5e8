"""What DVC holds: `dvc.lock`, the one record of what is fresh, and the cache of everything that was made before."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from classroom.engines import dvc_lock
from classroom.engines.plan import HIDDEN
from classroom.engines.quick_dvc import quick
from classroom.errors import ClassroomError
from classroom.files import content_hash, files_in, remove

REPLACED = HIDDEN / "replaced"
"""Where contents that nothing else holds go, before a saved result takes their place."""

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage


def changed() -> list[str]:
    """The stages that `dvc status` names: not those downstream of them. Raises ClassroomError if DVC cannot tell."""
    with _project("cannot judge what is fresh") as repo:
        return list(repo.status())


def commit(names: Sequence[str]) -> None:
    """`dvc commit --force` of these stages, with dvc.lock written once: the command writes it anew for every stage.

    Raises ClassroomError if dvc.lock or the cache cannot be written.
    """
    with _project("cannot bring dvc.lock up to date") as repo:
        stages = _stages(repo)
        for name in names:
            stages[name].save()
            stages[name].commit()
        _write([stages[name] for name in names])


def restore(due: Iterable[str], made_by: Mapping[str, Iterable[str]], say: Callable[[str], None]) -> list[str]:
    """Checks out the outputs of those stages that the cache holds for today's inputs; returns the stages' names.

    `due` are stale stages, each after those it depends on, which `made_by` names. As under `dvc repro`, a stage is
    looked up by its command, its settings and the contents of its dependencies, hence only when these are fresh; and
    what lies at its outputs is replaced. Unlike DVC, which asks or refuses, keeps what neither dvc.lock nor the cache
    knows in `REPLACED`; and unlike DVC, which believes its cache, does not hand out a damaged copy, but says so and
    removes it. Raises ClassroomError if files cannot be written.
    """
    restored, missing = [], set()
    with _project("cannot restore results from its cache") as repo:
        if not Path(repo.stage_cache.cache_dir).exists():  # nothing was ever made: spares reading all stages again
            return []
        stages = _stages(repo)
        for name in due:
            if not missing.isdisjoint(made_by[name]):
                missing.add(name)
            elif stages[name].changed():
                if _check_out(stages[name], say):
                    restored.append(name)
                else:
                    missing.add(name)
        _write([stages[name] for name in restored])
    return restored


def recorded() -> dict[str, str]:
    """By output, its checksum in dvc.lock, as `content_hash` gives it; empty if dvc.lock cannot be read."""
    try:
        stages = dvc_lock.read()["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def renew_copies(outputs: Iterable[str], damaged: Sequence[str]) -> list[str]:
    """Reads the copies of these outputs in DVC's cache; returns those whose copy was damaged and is no more.

    An output that is not itself among the `damaged` gives a new one.
    """
    known, renewed = recorded(), []
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


@contextmanager
def claimed(command: str) -> Iterator[None]:
    """Meanwhile the whole tree stands in DVC's list of what is being written, by `command`: DVC changes nothing in it.

    Raises ClassroomError if DVC is at work in the tree.
    """
    from dvc.rwlock import rwlock

    with ExitStack() as held:
        with _project("cannot be kept off") as repo:
            hardlink = repo.config["core"].get("hardlink_lock", False)
            held.enter_context(rwlock(repo.tmp_dir, repo.fs, command, [], [repo.root_dir], hardlink))
        yield


def _stages(repo: Repo) -> dict[str, Stage]:
    return {stage.addressing: stage for stage in repo.index.stages}


def _check_out(stage: Stage, say: Callable[[str], None]) -> bool:
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
        _set_aside(stage.repo, Path(out.def_path), checksum, say)
    stage.remove_outs()  # else DVC asks before it replaces a file that it does not know
    saved.restore(stage)
    stage.save(run_cache=False)  # which believes that what came is what was asked for
    spoilt = [out for out in stage.outs if content_hash(Path(out.fs_path)) != out.hash_info.value]
    for out in spoilt:
        say(f"{out.def_path}: its copy in DVC's cache is damaged, and is removed")
        for copy_of in _damaged_copies(stage.repo, out.hash_info.value):
            copy_of.unlink()
        out.remove()
    return not spoilt


def _set_aside(repo: Repo, path: Path, recorded: str | None, say: Callable[[str], None]) -> None:
    """Moves an output whose contents neither dvc.lock records nor the cache holds: an edit, or not recorded yet."""
    if not path.exists() or all(_copy(repo, content_hash(file)).exists() for file in files_in(path)):
        return
    if content_hash(path) == recorded:
        return
    kept = REPLACED / path
    remove(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, kept)
    say(f"{path}: neither recorded nor in DVC's cache; before the saved result replaces it, it is moved to {kept}")


def _copy(repo: Repo, checksum: str) -> Path:
    return Path(repo.cache.local.oid_to_path(checksum))


def _damaged_copies(repo: Repo, checksum: str) -> list[Path]:
    """Files in the cache, of those that make up an output, whose content is not what their name says."""
    whole = _copy(repo, checksum)
    if not whole.exists():
        return []
    if content_hash(whole) != checksum.removesuffix(".dir"):
        return [whole]
    parts = [file["md5"] for file in json.loads(whole.read_text())] if checksum.endswith(".dir") else []
    copies = {_copy(repo, part): part for part in parts}
    return [path for path, part in copies.items() if path.exists() and content_hash(path) != part]


def _write(stages: list[Stage]) -> None:
    """Into dvc.lock, whole or not at all; DVC's own function would write in place."""
    from dvc.stage.serialize import to_lockfile

    if stages:
        with dvc_lock.edited(dvc_lock.LOCK) as content:
            content.setdefault("schema", "2.0")
            entries = content.setdefault("stages", {})
            for stage in stages:
                entries.update(to_lockfile(stage))


@contextmanager
def _project(fault: str) -> Iterator[Repo]:
    """The project as DVC sees it, no other DVC command at work; its errors become ours, after "DVC `fault`"."""
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo, lock_repo
    from scmrepo.exceptions import SCMError

    try:
        with quick(), set_loggers_level(logging.WARNING), Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except (DvcException, SCMError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        hint = ""
        if "dvc.lock" in reason:
            hint = " Mend dvc.lock, or remove it: finished jobs are recorded in a new one from their receipts."
        raise ClassroomError(_at_work(str(error)) or f"DVC {fault}: {reason}.{hint}") from None


def _at_work(said: str) -> str:
    """What to tell a user of DVC's complaint that other processes read or write what it needs; else nothing."""
    by = dict.fromkeys(f"`{command}` (PID {pid})" for pid, command in re.findall(r"\(PID (\d+)\): (.+)", said))
    if not by:
        return ""
    return (
        f"{', '.join(by)} is at work in this tree. Two at once would do the same jobs twice: wait for it to end, or "
        "stop it; nothing that it finished is lost."
    )
