"""A training that fails or is killed costs its own work at most, and never hides behind an old result."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from support.jobs import ONE_WEIGHT
from support.project import LONG, Project, catch, start, trainings, wait_for
from support.studies import STUDY

TABLE, STAGE = "reports/table4.md", "variants@table4"


def test_a_failed_training_never_hides_behind_an_old_result(finished: Project) -> None:
    """T10: Snakemake alone would build the table from the variant's old results (its issue 1978)."""
    old = (finished.root / "reports/table4.md").read_bytes()
    obstacle = finished.root / "checkpoints/runs" / STUDY / "kd_ml-v3"
    obstacle.mkdir(parents=True, exist_ok=True)
    (obstacle / "seed-0").write_text("a file where the checkpoint's folder should be")
    finished.weigh("kd_ml-v3", 0.3)
    finished.weigh("ml-v3", 0.3)
    printed = finished.snakemake(TABLE, expect=1)
    assert "seed-0: cannot be written" in printed
    assert (finished.root / "reports/table4.md").read_bytes() == old
    assert finished.planned(TABLE) == ONE_WEIGHT, "the sibling that finished is recorded, the failed one is due"
    (obstacle / "seed-0").unlink()
    finished.snakemake(TABLE)
    assert finished.repro(STAGE) == []
    assert (finished.root / "reports/table4.md").read_bytes() != old


def test_a_folder_that_cannot_be_written_is_said_before_any_job_starts(pristine: Project, tmp_path: Path) -> None:
    """Snakemake says so at the first training, after the images were fetched and prepared. A file stands for a folder
    without permission, which would not stop the superuser."""
    project = pristine.copy(tmp_path / "project")
    (project.root / "runs").write_text("in the way")
    printed = project.snakemake(TABLE, expect=1)
    assert "\nruns: not a writable folder, but results go there. Nothing was started. Give " in printed
    assert not (project.root / "data/raw").exists()


def test_a_target_of_a_study_that_is_not_active_says_how_to_add_it(pristine: Project, tmp_path: Path) -> None:
    """Of a report, Snakemake has no rule; of a run, it was a traceback: KeyError."""
    project = pristine.copy(tmp_path / "project")
    for target in ("reports/table9.md", "runs/lgg-mobilenet/ml-v1/seed-0"):
        printed = project.snakemake("-n", target, expect=1)
        assert printed.endswith(
            f"Error: {target}: belongs to lgg-mobilenet, which is not active. Add it: `classroom use {STUDY} "
            "lgg-mobilenet`.\n"
        )


def test_a_training_killed_once_is_retried_from_its_checkpoint(finished: Project) -> None:
    finished.train_long()
    running = start(finished, "snakemake", "--cores", "1", f"runs/{STUDY}/student/seed-0")
    checkpoint = finished.root / "checkpoints/runs" / STUDY / "student" / "seed-0" / "newest.pt"
    training = catch(finished)
    shown = finished.run("classroom", "status")
    assert re.search(rf"^runs/{STUDY}/student/seed-0 +running +\d+/{LONG} +\d\.", shown, re.MULTILINE)
    training.kill()
    assert running.wait(timeout=120) == 0
    assert "resumed from" in (finished.root / f"logs/train/{STUDY}/student/seed-0.log").read_text()
    assert not checkpoint.exists()


def test_a_run_that_diverges_in_a_group_leaves_the_others_finished_and_recorded(
    pristine: Project, tmp_path: Path
) -> None:
    project = pristine.copy(tmp_path / "project")
    method, sound = "src/classroom/methods/learning_styles/method.py", "return terms"
    spoilt = "return [t._replace(value=t.value * float('nan' if self.variant.name == 'ml-v3' else 1)) for t in terms]"
    project.edit(method, sound, spoilt)
    names = ["teacher", "kd_ml-v3", "ml-v3", "student"]
    targets = [f"runs/{STUDY}/{name}/seed-0" for name in names]
    printed = project.run("snakemake", "--cores", "1", *targets, expect=1)
    assert "ml-v3/seed-0: the loss S1/task" in printed
    assert project.groups(project.snakemake("-n", *targets)) == [], "one is left"
    assert project.planned(*targets) == Counter(train=1)
    assert not list((project.root / "checkpoints/runs" / STUDY / "kd_ml-v3").rglob("*.pt"))


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_a_killed_engine_loses_nothing_finished(engine: str, pristine: Project, tmp_path: Path) -> None:
    """T11: after kill -9 of everything, a second start does what is missing, and both engines agree."""
    project = pristine.copy(tmp_path / "project")
    result, stage = f"results/variants/{STUDY}/kd_off-v1.json", f"evaluate_offline@{STUDY}-kd_off-v1"
    command = ("snakemake", "--cores", "2", result) if engine == "snakemake" else ("dvc", "repro", stage)
    running = start(project, *command)
    teacher = project.root / f"runs/{STUDY}/teacher/seed-0/manifest.json"
    wait_for(teacher.exists)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    log = project.root / f"logs/train/{STUDY}/teacher/seed-0.log"
    trained = log.stat().st_mtime_ns if log.exists() else 0
    project.run(*command)
    assert project.repro(stage) == []
    assert project.planned(result) == Counter()
    if engine == "snakemake":  # DVC deletes what it has not recorded before it runs a stage
        assert log.stat().st_mtime_ns == trained, "the finished teacher was trained again"


@pytest.mark.parametrize("ends", ["before the next start", "while the next one waits", "while DVC is busy"])
def test_a_training_that_outlives_its_dvc_is_not_done_twice(ends: str, finished: Project) -> None:
    """DVC deletes what it has not recorded, so the training records itself; while another DVC runs, too."""
    stage, of = f"baseline@{STUDY}-student-0", f"{STUDY}/student/seed-0"
    checkpoint = finished.root / f"checkpoints/runs/{of}/newest.pt"
    finished.train_long()
    killed = start(finished, "dvc", "repro", stage)
    training = catch(finished)
    killed.kill()
    killed.wait()
    if ends == "before the next start":
        training.resume()
        psutil.wait_procs([training])
        assert "the DVC that started this job was killed: its result is recorded" in printed(finished)
        assert finished.repro(stage) == []
    elif ends == "while the next one waits":
        running = start(finished, "dvc", "repro", stage)
        waiting = f"waiting for `classroom train {STUDY} student --seed 0` (PID {training.pid} on "
        wait_for(lambda: waiting in printed(finished))
        training.resume()
        assert running.wait(timeout=120) == 0
        assert printed(finished).count(f"{of}: best epochs") == 1
    else:
        busy = start(finished, "dvc", "repro", f"train@{STUDY}-ml-v3-0")
        wait_for(lambda: len(trainings(finished)) == 2)
        (other,) = set(trainings(finished)) - {training}
        other.suspend()
        training.resume()
        psutil.wait_procs([training])
        other.resume()
        assert busy.wait(timeout=120) == 0
        assert finished.repro(stage) == []
    assert not checkpoint.exists()
    assert finished.repro(stage) == []


def printed(project: Project) -> str:
    """What commands that were started have printed."""
    return (project.root / "printed").read_text()


def test_a_table_is_not_rendered_from_results_of_another_run(finished: Project) -> None:
    """T12: by hand, too. The results remember which predictions they were made from."""
    run = finished.root / f"runs/{STUDY}"
    shutil.copyfile(run / "kd_off-v1/seed-0/predictions.parquet", run / "ml-v3/seed-0/predictions.parquet")
    printed = finished.run("classroom", "report", "table4", expect=1)
    assert printed.startswith("Error: ")
    assert f"Run `classroom evaluate {STUDY} ml-v3` again" in printed
