"""Fixtures of all tests: the committed settings, and tiny studies of both tasks to train on."""

from __future__ import annotations

import copy
import functools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

# Before torch is imported: threads of several small trainings fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from classroom import log, params
from classroom.params import Dataset, Split, select
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink

if TYPE_CHECKING:
    from support.project import Project

# The same examples in every run, so that unchanged code never fails by chance; `make fuzz` tries fresh ones.
hypothesis.settings.register_profile("same", max_examples=25, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile(
    "fuzz", max_examples=int(os.environ.get("EXAMPLES", "1000")), deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("same")


@pytest.fixture(autouse=True)
def ordinary_floats() -> Iterator[None]:
    """A training makes the smallest floats zero in its process; here the next test runs in it too."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(autouse=True)
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a command takes long enough for a line that says so, which no test expects to read."""
    monkeypatch.setattr(log, "QUIET", 3600)


@pytest.fixture(autouse=True, scope="session")
def signals_arrive() -> None:
    """In the background of a shell Ctrl-C is ignored, under nohup the end of a session."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@functools.cache
def _committed() -> dict[str, Any]:
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def raw() -> dict[str, Any]:
    """The committed settings, free to change."""
    return copy.deepcopy(_committed())


@pytest.fixture
def tiny(raw: dict[str, Any]) -> dict[str, Any]:
    return shrink(raw)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `splits.parquet` of a tiny synthetic segmentation; read only."""
    return _made(STUDY, tmp_path_factory.mktemp("tiny-study"))


@pytest.fixture(scope="session")
def tiny_classes_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `splits.parquet` of a tiny synthetic classification; read only."""
    return _made(CLASSES_STUDY, tmp_path_factory.mktemp("tiny-classes-study"))


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small project in which everything has been made; read only."""
    from support import finished

    return finished.make(tmp_path_factory)


@pytest.fixture(scope="session")
def recorded_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the same project with everything recorded in dvc.lock; read only."""
    from support import finished

    return finished.make_recorded(tmp_path_factory)


@pytest.fixture(scope="session")
def three_variants(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One study with three variants, one epoch each, committed, nothing run yet. Not to be changed: copy it."""
    from support import finished
    from support.project import checkout, once, only

    def make(folder: Path) -> None:
        project = checkout(folder / "project")
        finished.commit_tiny(project, only(shrink(project.settings()), STUDY))

    return once(tmp_path_factory, "three-variants", make)


def _made(name: str, folder: Path) -> Path:
    from classroom.data import prepare, split
    from classroom.data.fetching import sources

    raw = shrink(_committed())
    study = raw["study"][name]
    dataset = select(raw, f"dataset.{study['dataset']}", Dataset)
    sources.fetch(study["dataset"], dataset, folder / "raw")
    prepare.prepare(study["task"], study["image_size"], folder / "raw", folder / "prepared")
    split.write(folder / "prepared", select(raw, f"study.{name}.split", Split), folder / "splits.parquet")
    return folder
