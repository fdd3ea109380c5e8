"""DVC without what it does over again for every stage, which with 400 runs is most of its time.

The same answers, out of the same code: `dvc` in the project's environment is `main`, `python -m dvc` is DVC untouched.
"""

from __future__ import annotations

import copy
import os
import pickle
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import reduce
from operator import getitem
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch


def main() -> int:
    """The command `dvc`: its arguments, its exit status."""
    with quick():
        from dvc.cli import main as dvc

        return dvc()


@contextmanager
def quick() -> Iterator[None]:
    """Meanwhile DVC parses a text once, asks once for the hash of a file that stays, and notes once what it locks."""
    with ExitStack() as replaced:
        for name, better in (
            ("dvc.utils.serialize._yaml.parse_yaml", _remembering),
            ("dvc.utils.strictyaml.parse_yaml", _remembering),
            ("dvc.dependency.param.read_param_file", _looking_up),
            ("dvc.output.Output.get_hash", _knowing_files),
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
            known = last[path] = text, pickle.dumps(parse(text, path, typ))
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
