"""The promises of the pipeline in two minutes, part of `make test`: one graph, nothing done twice, nothing lost.

Every other test of this folder takes one of these promises further.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from support.jobs import ONE_WEIGHT, jobs_of_dvc, jobs_of_snakemake
from support.project import Project, catch, checkout, start
from support.studies import STUDY

TABLE, STAGE = "reports/table4.md", "variants@table4"


def test_rules_and_stages_are_the_same_jobs(tmp_path: Path) -> None:
    """With the committed settings: the same outputs, inputs and commands, job by job; none is left over."""
    project = checkout(tmp_path)
    assert jobs_of_snakemake(project) == jobs_of_dvc(project)


def test_a_table_is_made_and_neither_engine_does_it_again(table: Project) -> None:
    """Its numbers are those of the training, in percent."""
    cells = pd.read_csv(table.root / "reports/table4.csv").set_index(["technique", "strategy", "network", "metric"])
    for technique, strategy in (("ml", "v3"), ("kd_off", "v1"), ("kd_ml", "v3")):
        run = table.root / f"runs/{STUDY}/{technique}-{strategy}/seed-0/metrics.json"
        for network, metrics in json.loads(run.read_text())["best"]["test"].items():
            shown = cells["mean"][technique, strategy, network, "iou"]
            assert shown == pytest.approx(100 * metrics["iou"], abs=1e-5)
    assert table.planned(TABLE) == Counter()
    assert table.repro(STAGE) == []
    manifest = json.loads((table.root / f"runs/{STUDY}/kd_ml-v3/seed-0/manifest.json").read_text())
    assert "teacher" in manifest["together"], "on two cores they train in one process"


def test_a_clone_pulls_and_reruns_exactly_what_one_weight_changes(table: Project, tmp_path: Path) -> None:
    """In a clone Snakemake has no memory at all, and git and DVC give files whatever times they like."""
    clone = table.clone(tmp_path / "clone", STAGE)
    assert clone.planned(TABLE) == Counter()
    assert clone.repro(STAGE) == []
    clone.weigh("kd_ml-v3", 0.3)
    assert clone.planned(TABLE) == ONE_WEIGHT
    clone.snakemake(TABLE)
    assert clone.planned(TABLE) == Counter()
    assert clone.repro(STAGE) == []
    assert (clone.root / TABLE).read_text() != (table.root / TABLE).read_text()


def test_a_killed_training_resumes_from_its_checkpoint(table: Project, tmp_path: Path) -> None:
    """kill -9 of everything; the second start goes on where the first was, without --unlock, also after a look."""
    project = table.copy(tmp_path / "project")
    project.train_long()
    run = f"runs/{STUDY}/student/seed-0"
    running = start(project, "snakemake", "--cores", "1", run)
    training = catch(project)
    os.killpg(running.pid, signal.SIGKILL)
    training.kill()
    running.wait()
    checkpoint = project.root / "checkpoints" / run / "newest.pt"
    assert checkpoint.exists(), "killed too late to tell"
    assert project.planned(run) == Counter(baseline=1)
    project.snakemake(run)
    assert "resumed from" in (project.root / f"logs/train/{STUDY}/student/seed-0.log").read_text()
    assert not checkpoint.exists()
    assert project.planned(run) == Counter()
