"""What DVC holds: `dvc.lock`, the one record of what is fresh, and the cache of everything that was made before."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

from classroom.errors import ClassroomError

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
    if stages:
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)


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
        raise ClassroomError(f"DVC {fault}: {reason}.{hint}") from None
    finally:
        param.read_param_file = read


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
