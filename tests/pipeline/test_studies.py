"""The same engines on every study, a classification one that is resplit, with a grid search."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from support.project import Project
from support.studies import CLASSES_STUDY


def test_every_report_is_made_and_both_engines_are_done(finished_studies: Project) -> None:
    """`snakemake reports/all` leaves nothing out, and nothing to do for either engine."""
    reports = {path.name for path in (finished_studies.root / "reports").iterdir()}
    for name in ("table1", "table5", "table13", "table14", "table14-splits", "table10", "cost", f"grid-{CLASSES_STUDY}",
                 f"tune-{CLASSES_STUDY}"):  # fmt: skip
        assert f"{name}.md" in reports
    settings = finished_studies.settings()
    for study in settings["studies"]:
        names = settings["study"][study]["reports"]
        assert {f"{names[kind]}.md" for kind in ("variants", "baselines", "fidelity", "architecture")} <= reports
    assert "index.html" in reports
    assert finished_studies.status() == "Data and pipelines are up to date."
    assert finished_studies.planned("reports/all") == Counter()


def test_a_fresh_clone_after_pull_has_nothing_to_do(finished_studies: Project, tmp_path: Path) -> None:
    clone = finished_studies.clone(tmp_path / "clone")
    assert clone.planned("all") == Counter()
    assert clone.status() == "Data and pipelines are up to date."
    assert clone.repro() == []


def test_a_weight_of_one_study_touches_no_other(finished_studies: Project, tmp_path: Path) -> None:
    project = finished_studies.copy(tmp_path / "project")
    project.change("study.histopathologic-mobilenet.weights.ml-v3.S1.alpha", 0.3)
    due = Counter(train=1, evaluate=1, variants=1, medical=1, fidelity=1, curves=1, agreement=1, cost=1, site=1)
    assert project.planned("all") == due


def test_the_chosen_weights_go_into_the_settings_with_one_command(finished_studies: Project, tmp_path: Path) -> None:
    """The grid's winner is the point with the best validation accuracy, and `classroom overlay` takes it over."""
    project = finished_studies.copy(tmp_path / "project")
    accuracy = {}
    for alpha in (0.2, 0.4):
        run = project.root / f"grid/{CLASSES_STUDY}/kd_off-v1/{alpha}-0.3-0.5/seed-0/metrics.json"
        accuracy[alpha] = json.loads(run.read_text())["best"]["val"]["ensemble"]["accuracy"]
    best = max(accuracy, key=accuracy.get)
    project.run("classroom", "overlay", f"reports/grid-{CLASSES_STUDY}.yaml")
    weights = project.settings()["study"][CLASSES_STUDY]["weights"]
    assert weights["kd_off-v1"]["S1"] == pytest.approx({"alpha": best, "beta": 1 - best})
    assert weights["kd_off-v1"]["S2"] == pytest.approx({"alpha": 0.3, "beta": 0.7})


def test_a_resplit_study_differs_in_nothing_but_the_split(finished_studies: Project) -> None:
    """By group, no lesion is in two splits; by image, some are: that is what it is there to show."""
    crossing = {}
    for study in (CLASSES_STUDY, f"{CLASSES_STUDY}-resplit"):
        table = pd.read_parquet(finished_studies.root / f"data/splits/{study}.parquet")
        crossing[study] = int((table.groupby("group").split.nunique() > 1).sum())
    assert crossing[CLASSES_STUDY] == 0
    assert crossing[f"{CLASSES_STUDY}-resplit"] > 0
    studies = finished_studies.settings()["study"]
    first, second = studies[CLASSES_STUDY], studies[f"{CLASSES_STUDY}-resplit"]
    differing = {key for key in first | second if first.get(key) != second.get(key)}
    assert differing == {"split", "reports", "resplit"}


def test_a_forecast_counts_what_is_left(finished_studies: Project, tmp_path: Path) -> None:
    project = finished_studies.copy(tmp_path / "project")
    printed = project.run("classroom", "forecast", "table14")
    assert "4 of 4 trainings are done already" in printed
    assert "jobs: none; " in printed, "jobs that are done are listed as to be done"
    assert "of trainings in total" not in printed
    project.set(seeds=[0, 1])
    printed = project.run("classroom", "forecast", "table14")
    assert "4 of 8 trainings are done already" in printed
    assert " of trainings in total" in printed
    assert "disk:" in printed
    unknown = project.run("classroom", "forecast", "table41", expect=1)
    assert unknown.startswith("Error: unknown report 'table41'. Did you mean 'table")
