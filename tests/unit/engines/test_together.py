"""Runs that one command trains are, to both engines, runs that were trained one by one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from classroom.engines import graph
from classroom.engines.freshness import Verdict
from classroom.state import Hashes
from classroom.training.run import FILES
from support.finished import classroom, copy
from support.studies import STUDY

NAMES = ["teacher", "student", "ml-v3", "kd_ml-v3"]
MEASURED = {"seconds", "seconds_per_epoch", "peak_memory_mb"}


def run_of(root: Path, method: str) -> tuple[dict[str, bytes], dict[str, Any], list[str]]:
    """The files, the manifest without what was measured, and the methods that trained together."""
    folder = root / "runs" / STUDY / method / "seed-0"
    manifest = json.loads((folder / "manifest.json").read_text())
    together = manifest.pop("together", [])
    return (
        {name: (folder / name).read_bytes() for name in FILES},
        {key: value for key, value in manifest.items() if key not in MEASURED},
        together,
    )


def test_a_group_leaves_the_files_bits_and_manifests_of_single_trainings(
    recorded_project: Path, tmp_path: Path
) -> None:
    root = copy(recorded_project, tmp_path / "project")
    done = classroom(f"classroom train {STUDY} {' '.join(NAMES)} --seed 0", root)
    assert done.code == 0, done.error
    for name in NAMES:
        assert run_of(root, name) == (*run_of(recorded_project, name)[:2], NAMES)
    assert not list((root / "checkpoints").rglob("*.pt"))
    with contextlib.chdir(root):
        assert classroom("classroom reconcile").code == 0
        stages = graph.load()
        runs = {name for name, stage in stages.items() if stage.outputs[:1] and stage.outputs[0].startswith("runs/")}
        assert len(runs) > len(NAMES)
        assert runs.isdisjoint(Verdict(Hashes()).changed(stages))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ml-v3 student ml-v3", "ml-v3: named more than once"),
        ("teacher kd_off-v1 student emkd", "kd_off-v1, emkd: need the finished teacher"),
        ("ml-v3 kd_ml-v3 --point 0.2,0.3,0.5", "--point 0.2,0.3,0.5: applies to one method"),
    ],
)
def test_methods_that_cannot_train_in_one_process_are_refused(
    arguments: str, message: str, finished_project: Path
) -> None:
    done = classroom(f"classroom train {STUDY} {arguments} --seed 0", finished_project)
    assert done.code == 1
    assert message in " ".join(done.error.split())
