"""A small project in which everything has been made, by the real commands in this process; and how to run one."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

from classroom import cli
from classroom.engines import graph
from classroom.export import measure
from support.project import LONG, Project, add_comparison, checkout, only
from support.studies import STUDY, shrink


class Done(NamedTuple):
    """What a command left behind for the user."""

    code: int
    out: str
    error: str


def make(factory: pytest.TempPathFactory) -> Path:
    """The project's root, made once for all processes that run tests. Not to be changed: copy it."""
    return _once(factory, "finished-project", _make)


def make_recorded(factory: pytest.TempPathFactory) -> Path:
    """The root of the same project with everything recorded in dvc.lock; made once, and not to be changed either."""

    def record(root: Path) -> None:
        done = classroom("classroom reconcile", copy(make(factory), root))
        assert done.code == 0, done.error

    return _once(factory, "recorded-project", record)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    root = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (root / "reports").exists():
            make(root)
    return root


def _make(root: Path) -> None:
    project = checkout(root)
    settings = only(shrink(project.settings()), STUDY)
    add_comparison(settings, STUDY, "emkd", "at")
    project.set(**settings | {"seeds": [0, 1]})
    project.commit("tiny")
    run_all(root)


def run_all(root: Path) -> None:
    """Runs the command of every stage of the tree in this process: a fifth of the time that Snakemake's jobs take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(measure, "SECONDS", 0.0)  # as often as it must: how fast the models are is of no interest
        for stage in graph.load().in_order:
            done = classroom(stage.command, root)
            assert done.code == 0, f"{stage.command}: {done.error}"


def commit_tiny(project: Project, settings: dict[str, Any]) -> None:
    """Commits a tree with these settings in which, for 1 and LONG epochs, it is known that all methods can be trained.

    Trying that takes seconds: here once, for all copies.
    """
    for epochs in (LONG, 1):
        settings["training"]["epochs"] = epochs
        project.set(**settings)
        done = classroom("classroom check", project.root)
        assert done.code == 0, done.error
    project.commit("tiny")


def copy(root: Path, target: Path) -> Path:
    """A copy free to damage."""
    return shutil.copytree(root, target, symlinks=True)


def files(root: Path, without: Container[str] = ()) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file and link in `root` by its path there, except in `without`."""
    waiting = [""]
    while waiting:
        with os.scandir(root / (folder := waiting.pop())) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}".lstrip("/")
                if path not in without:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    else:
                        yield path, entry


def restore(root: Path, target: Path) -> None:
    """Makes `target`, a `copy` of `root` that was changed, its copy once more."""
    whole, now = ({path: _stamp(entry) for path, entry in files(tree)} for tree in (root, target))
    for path in now.keys() - whole.keys():
        (target / path).unlink()
    for path in (path for path, stamp in whole.items() if now.get(path) != stamp):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if (target / path).is_dir():
            shutil.rmtree(target / path)
        shutil.copy2(root / path, target / path, follow_symlinks=False)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int]:
    status = entry.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns


def classroom(command: str, root: Path | None = None) -> Done:
    """Runs `classroom …` in `root` as the installed script does, but without starting Python and torch again.

    An exception that the script would show as a traceback is raised.
    """
    out, error = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        patch.chdir(root or Path.cwd())
        patch.setattr(sys, "argv", shlex.split(command))
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return Done(code, out.getvalue(), error.getvalue())
