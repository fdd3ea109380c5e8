"""What `classroom status` says of trainings under way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from classroom.progress import CHECKPOINTS, STATE, State
from support.finished import classroom, copy


def state(**changes: object) -> State:
    return {
        "epoch": 3, "epochs": 12, "step": 5, "steps": 10, "loss": 0.71234, "validation": {"S1": 0.5512, "S2": 0.5},
        "seconds_per_epoch": 120.0, "written": time.time(), **changes,
    }  # fmt: skip


def put(root: Path, run: str, content: str) -> None:
    path = root / CHECKPOINTS / run / STATE
    path.parent.mkdir(parents=True)
    path.write_text(content)


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    return copy(finished_project, tmp_path / "project")


def line_of(printed: str, word: str) -> str:
    """What follows the first word of the line with `word`, with single spaces."""
    return " ".join(next(line for line in printed.splitlines() if word in line).split()[1:])


def test_trainings_are_listed_with_epoch_loss_validation_and_time_left(project: Path) -> None:
    """8.5 of 12 epochs of two minutes are left. One that has stopped, and one that has just begun, say so."""
    put(project, "runs/one/kd_ml-v3/seed-0", json.dumps(state()))
    put(project, "runs/one/student/seed-0", json.dumps(state(written=time.time() - 7200)))
    put(project, "runs/one/teacher/seed-0", json.dumps(state(epoch=0, validation={}, seconds_per_epoch=None)))
    put(project, "runs/two/teacher/seed-0", '{"epoch": 1')  # as a copy over a network may find it
    done = classroom("classroom status", project)
    assert done.code == 0, done.error
    assert line_of(done.out, "kd_ml-v3") == "running 4/12 0.7123 S1 55.1, S2 50.0 120.0 17 min"
    assert line_of(done.out, "one/student") == "stopped 2 h 0 min ago 4/12 0.7123 S1 55.1, S2 50.0 120.0 –"
    assert line_of(done.out, "one/teacher") == "running 1/12 0.7123 – – –"
    assert "two/teacher" not in done.out
    assert "2 running" in done.out


def test_what_is_finished_and_left_is_counted(project: Path) -> None:
    everything = classroom("classroom status", project).out.splitlines()
    assert everything[-1].endswith("; nothing is left to do")
    run = next((project / "runs").glob("*/kd_ml-v3/seed-0/manifest.json"))
    run.write_text(run.read_text().replace('"command"', '"another"', 1))
    trainings, jobs = classroom("classroom status", project).out.splitlines()
    total = int(trainings.split()[3])
    assert trainings == f"trainings: {total - 1} of {total} finished, 0 running"
    assert "nothing" not in jobs
    assert jobs.startswith("jobs for all reports in the settings: "), "a table alone needs far fewer"
