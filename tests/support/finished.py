"""A small project in which everything has been made, by the real commands in this process; and how to run one."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from classroom import cli
from classroom.engines import plan
from classroom.engines.reconcile import in_order
from support.project import checkout, compare, only
from support.studies import STUDY, shrink


class Done(NamedTuple):
    """What a command left behind for whoever typed it."""

    code: int
    out: str
    error: str


def make(factory: pytest.TempPathFactory) -> Path:
    """The project's root, made once for all processes that run tests. Not to be changed: copy it."""
    shared = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    root = shared / "finished-project"
    with FileLock(shared / "finished-project.lock"):
        if not (root / "reports").exists():
            _make(root)
    return root


def _make(root: Path) -> None:
    project = checkout(root)
    yaml = YAML()
    params = only(shrink(yaml.load((root / "params.yaml").read_text())), STUDY)
    compare(params, STUDY, "emkd", "at")
    params["seeds"] = [0, 1]
    with (root / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    project.commit("tiny")
    run_all(root)


def run_all(root: Path) -> None:
    """Runs the command of every stage of the tree in this process: a fifth of the time that Snakemake's jobs take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        stages = in_order(plan.load())
    for stage in stages:
        done = classroom(stage.command, root)
        assert done.code == 0, f"{stage.command}: {done.error}"


def copy(root: Path, target: Path) -> Path:
    """A copy free to damage."""
    return shutil.copytree(root, target, symlinks=True)


def classroom(command: str, root: Path | None = None) -> Done:
    """Runs `classroom …` in `root` as the installed script does, but without starting Python and torch anew.

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
