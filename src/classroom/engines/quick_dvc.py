"""DVC without what it does over again for every stage, which with 400 runs is most of its time.

The same answers, out of the same code: `dvc` in the project's environment is `main`, `python -m dvc` is DVC untouched.
"""

from __future__ import annotations

import copy
import os
import pickle
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from classroom.engines import dvc_lock


def main() -> int:
    """The command `dvc`: its arguments, its exit status."""
    with quick():
        from dvc.cli import main as dvc

        return dvc()


@contextmanager
def quick() -> Iterator[None]:
    """Meanwhile DVC does once what it does for every stage otherwise, and leaves alone what stays in dvc.lock."""
    with ExitStack() as replaced:
        for name, better in (
            ("dvc.utils.serialize._yaml.parse_yaml", _remembering),
            ("dvc.utils.strictyaml.parse_yaml", _remembering),
            ("dvc.dependency.param.read_param_file", _looking_up),
            ("dvc.dependency._get", _copying),
            ("dvc.dvcfile.modify_yaml", _by_stages),
            ("dvc.output.get_cloud_fs", _knowing_here),
            ("dvc.output.Output.get_hash", _knowing_files),
            ("dvc.repo.stage.StageLoad.load_all", _sharing),
            ("dvc.repo.status._joint_status", _locking_together),
            ("dvc.rwlock.rwlock", _reentrant),
        ):
            with suppress(ImportError, AttributeError):  # another version of DVC, which is as slow as it is
                replaced.enter_context(patch(name, better(resolve_name(name))))
        yield


def _remembering(parse: Callable[..., Any]) -> Callable[..., Any]:
    """The parser, but a file whose text is what it was is not parsed again: DVC does so for every stage."""
    last: dict[str, tuple[str, bytes]] = {}

    def parse_yaml(text: str, path: str, typ: str = "safe") -> Any:
        if typ != "safe":  # round trip, before DVC writes
            return parse(text, path, typ)
        known = last.get(path)
        if known is None or known[0] != text:
            content = dvc_lock.parse(text, path, parse) if Path(path).name == dvc_lock.LOCK.name else parse(text, path)
            known = last[path] = text, pickle.dumps(content)
        return pickle.loads(known[1])  # a copy for each caller, as before

    return parse_yaml


def _looking_up(read: Callable[..., Any]) -> Callable[..., Any]:
    """The reader of settings, but a key is looked up: DVC compares it with every path that there is, as a pattern."""

    def read_param_file(
        fs: Any, path: str, key_paths: list[str] | None = None, flatten: bool = False, **options: Any
    ) -> Any:
        if not (flatten and key_paths):
            return read(fs, path, key_paths, flatten, **options)
        settings, values = read(fs, path, **options), {}
        for key in key_paths:
            with suppress(KeyError, TypeError):
                if set("*?[").isdisjoint(key):
                    values[key] = reduce(getitem, key.split("."), settings)
        if others := [key for key in key_paths if key not in values]:  # patterns, items of lists, missing: DVC knows
            values |= read(fs, path, others, flatten, **options)
        return {key: values[key] for key in key_paths if key in values}

    return read_param_file


def _copying(make: Callable[..., Any]) -> Callable[..., Any]:
    """The maker of a stage's dependency, but a path that another stage depends on is not taken apart again."""
    known: dict[tuple[object, ...], tuple[Any, Any]] = {}

    def dependency(stage: Any, path: str, info: dict[str, Any], **options: Any) -> Any:
        from dvc.dependency import Dependency

        if info or any(options.values()):
            return make(stage, path, info, **options)
        signs = (id(stage.repo), id(stage.repo.fs), stage.wdir, path)
        if signs not in known:
            first = make(stage, path, info, **options)
            if type(first) is not Dependency:  # of a database, of another project
                return first
            known[signs] = first, (stage.repo, stage.repo.fs)  # kept beside, so that nothing else gets their numbers
        alike = known[signs][0]
        made = object.__new__(Dependency)
        vars(made).update(vars(alike), stage=stage, meta=type(alike.meta)(), annot=type(alike.annot)())
        return made

    return dependency


def _sharing(load: Callable[..., Any]) -> Callable[..., Any]:
    """The loader of stages, but all of a file are those that the graph is made of: `dvc repro` loads them first."""

    def load_all(stages: Any, path: str | None = None, name: str | None = None, *options: Any, **more: Any) -> Any:
        if name is None:
            with suppress(Exception):  # the loader says it
                place = stages.repo.fs.abspath(stages._get_filepath(path))
                if found := [stage for stage in stages.repo.index.stages if stage.path == place]:
                    return found
        return load(stages, path, name, *options, **more)

    return load_all


def _locking_together(status: Callable[..., Any]) -> Callable[..., Any]:
    """The look at stages, but what it reads is noted in .dvc/tmp/rwlock once, and not for every stage."""

    def joint_status(pairs: Iterable[tuple[Any, Any]], **options: Any) -> Any:
        from dvc.stage.decorators import rwlocked

        pairs = list(pairs)
        stages = [stage for stage, _ in pairs]
        if not stages:
            return status(pairs, **options)
        deps, outs = ([each for stage in stages for each in getattr(stage, name)] for name in ("deps", "outs"))
        together = SimpleNamespace(repo=stages[0].repo, deps=deps, outs=outs)
        return rwlocked(read=["deps", "outs"])(lambda _: status(pairs, **options))(together)

    return joint_status


def _by_stages(modify: Callable[..., Any]) -> Callable[..., Any]:
    """The editor of a YAML file, but of dvc.lock only stages that change are written out anew."""

    def modify_yaml(path: str, fs: Any = None) -> Any:
        return dvc_lock.edited(Path(path)) if Path(path).name == dvc_lock.LOCK.name else modify(path, fs)

    return modify_yaml


def _knowing_here(find: Callable[..., Any]) -> Callable[..., Any]:
    """The finder of a path's file system, but that of plain paths is looked for once."""
    known: dict[int, tuple[Any, Any]] = {}

    def get_cloud_fs(config: Any, **options: Any) -> tuple[Any, dict[str, Any], str]:
        if options.keys() != {"url"} or not re.fullmatch(r"[\w./@-]+", options["url"]):
            return find(config, **options)
        if id(config) not in known:
            known[id(config)] = find(config, **options), config  # kept beside, so that nothing else gets its number
        (kind, settings, _), _ = known[id(config)]
        return kind, dict(settings), options["url"]

    return get_cloud_fs


def _knowing_files(get_hash: Callable[..., Any]) -> Callable[..., Any]:
    """The hash of an output or dependency, but of a file only once, such as code that 300 trainings depend on.

    It is the file that it was by the same signs as for DVC itself: its inode, size and time.
    """
    known: dict[tuple[object, ...], Any] = {}

    def remembered(output: Any) -> Any:
        try:
            found = os.stat(output.fs_path) if output.fs.protocol == "local" else None
        except OSError:
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            return get_hash(output)
        signs = (output.fs_path, output.hash_name, found.st_ino, found.st_mtime_ns, found.st_size)
        if signs not in known:
            known[signs] = get_hash(output)
        return copy.copy(known[signs])

    return remembered


def _reentrant(lock: Callable[..., Any]) -> Callable[..., Any]:
    """The lock of files, but what this process holds already is not noted in .dvc/tmp/rwlock once more."""
    reading: set[str] = set()
    writing: set[str] = set()

    @contextmanager
    def rwlock(tmp_dir: str, fs: Any, cmd: str, read: Sequence[str], write: Sequence[str], hardlink: bool) -> Any:
        more_read, more_write = set(read) - reading - writing, set(write) - writing
        if not more_read and not more_write:
            yield
            return
        with lock(tmp_dir, fs, cmd, read, write, hardlink):
            reading.update(more_read)
            writing.update(more_write)
            try:
                yield
            finally:
                reading.difference_update(more_read)
                writing.difference_update(more_write)

    return rwlock
