"""What DVC holds: `dvc.lock`, the one record of what is fresh, and the cache of everything that was made before."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom.errors import ClassroomError
from classroom.files import write_text

LOCK = Path("dvc.lock")

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


def restore(due: Iterable[str], made_by: Mapping[str, Iterable[str]]) -> list[str]:
    """Checks out the outputs of those stages that the cache holds for today's inputs; returns the stages' names.

    `due` are stale stages, each after those it depends on, which `made_by` names. As under `dvc repro`, a stage is
    looked up by its command, its settings and the contents of its dependencies, hence only when these are fresh; and
    what lies at its outputs is replaced. Raises ClassroomError if files cannot be written.
    """
    restored, missing = [], set()
    with _project("cannot restore results from its cache") as repo:
        stages = _stages(repo)
        for name in due:
            if not missing.isdisjoint(made_by[name]):
                missing.add(name)
            elif stages[name].changed():
                if _check_out(stages[name]):
                    restored.append(name)
                else:
                    missing.add(name)
        _write([stages[name] for name in restored])
    return restored


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


def _check_out(stage: Stage) -> bool:
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    saved = stage.repo.stage_cache
    try:
        if stage.changed_stage() or not stage.deps_cached():
            stage.save_deps()
            for out in stage.outs:  # those in dvc.lock were made from something else
                out.hash_info = HashInfo()
        saved.restore(stage, dry=True)
    except DvcException:
        return False
    stage.remove_outs()  # else DVC asks before it replaces a file that it does not know
    saved.restore(stage)
    stage.save(run_cache=False)
    return True


def _write(stages: list[Stage]) -> None:
    """Into dvc.lock, whole or not at all; DVC's own function would write in place."""
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    if stages:
        content = parse_yaml_for_update(LOCK.read_text() if LOCK.exists() else "", LOCK) or {"schema": "2.0"}
        entries = content.setdefault("stages", {})
        for stage in stages:
            entries.update(to_lockfile(stage))
        write_text(LOCK, dumps_yaml(content))


@contextmanager
def _project(fault: str) -> Iterator[Repo]:
    """The project as DVC sees it, no other DVC command at work; its errors become ours, after "DVC `fault`"."""
    from dvc.dependency import param
    from dvc.exceptions import DvcException
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo, lock_repo
    from scmrepo.exceptions import SCMError

    read = param.read_param_file
    param.read_param_file = _once(read)
    try:
        with set_loggers_level(logging.WARNING), Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except (DvcException, SCMError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        hint = ""
        if "dvc.lock" in reason:
            hint = " Mend dvc.lock, or remove it: finished jobs are recorded in a new one from their receipts."
        raise ClassroomError(_at_work(str(error)) or f"DVC {fault}: {reason}.{hint}") from None
    finally:
        param.read_param_file = read


def _at_work(said: str) -> str:
    """What to tell a user of DVC's complaint that other processes read or write what it needs; else nothing."""
    by = dict.fromkeys(f"`{command}` (PID {pid})" for pid, command in re.findall(r"\(PID (\d+)\): (.+)", said))
    if not by:
        return ""
    return (
        f"{', '.join(by)} is at work in this tree. Two at once would do the same jobs twice: wait for it to end, or "
        "stop it; nothing that it finished is lost."
    )


def _once(read: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """DVC parses params.yaml anew for every stage, several times: half a minute with the demo's 260 stages."""
    settings: dict[str, Any] = {}

    def read_param_file(fs: Any, path: str, key_paths: list[str] | None, flatten: bool) -> dict[str, Any]:
        if not (flatten and key_paths):
            return read(fs, path, key_paths, flatten)
        if path not in settings:
            settings[path] = read(fs, path)
        values = {}
        for key in key_paths:
            with suppress(KeyError, TypeError):  # then DVC says that it is missing
                values[key] = copy.deepcopy(reduce(getitem, key.split("."), settings[path]))
        return values

    return read_param_file
