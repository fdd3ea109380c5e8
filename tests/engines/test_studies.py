"""The same engines on a classification study, its twin and a grid search."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from conftest import CLASSES_STUDY
from ruamel.yaml import YAML

from engines.conftest import Project

pytestmark = pytest.mark.engines


def test_every_report_is_made_and_both_engines_are_done(finished_classes: Project) -> None:
    """`snakemake reports/all` leaves nothing out, and nothing to do for either engine."""
    reports = {path.name for path in (finished_classes.root / "reports").iterdir()}
    for name in ("table1", "table5", "table13", "table14", "table14-splits", "table10", "cost", f"grid-{CLASSES_STUDY}",
                 f"tune-{CLASSES_STUDY}"):  # fmt: skip
        assert f"{name}.md" in reports
    assert "index.html" in reports
    assert finished_classes.status() == "Data and pipelines are up to date."
    assert finished_classes.planned("reports/all") == Counter()


def test_a_fresh_clone_after_pull_has_nothing_to_do(finished_classes: Project, tmp_path: Path) -> None:
    clone = finished_classes.clone(tmp_path / "clone")
    assert clone.planned("all") == Counter()
    assert clone.repro() == []


def test_the_chosen_weights_go_into_the_settings_with_one_command(finished_classes: Project, tmp_path: Path) -> None:
    """The grid's winner is the point with the best validation accuracy, and `classroom overlay` takes it over."""
    project = finished_classes.copy(tmp_path / "project")
    accuracy = {}
    for alpha in (0.2, 0.4):
        run = project.root / f"grid/{CLASSES_STUDY}/kd_off-v1/{alpha}-0.3-0.5/seed-0/metrics.json"
        accuracy[alpha] = json.loads(run.read_text())["best"]["val"]["ensemble"]["accuracy"]
    best = max(accuracy, key=accuracy.get)
    project.run("classroom", "overlay", f"reports/grid-{CLASSES_STUDY}.yaml")
    weights = YAML(typ="safe").load((project.root / "params.yaml").read_text())["weights"]
    assert weights[CLASSES_STUDY]["kd_off-v1"]["S1"] == pytest.approx({"alpha": best, "beta": 1 - best})
    assert weights[CLASSES_STUDY]["kd_off-v1"]["S2"] == pytest.approx({"alpha": 0.3, "beta": 0.7})


def test_the_twin_differs_in_nothing_but_the_split(finished_classes: Project) -> None:
    """By group, no lesion is in two splits; by image, some are: that is what the twin is there to show."""
    crossing = {}
    for study in (CLASSES_STUDY, f"{CLASSES_STUDY}-twin"):
        table = pd.read_parquet(finished_classes.root / f"data/splits/{study}.parquet")
        crossing[study] = int((table.groupby("group").split.nunique() > 1).sum())
    assert crossing[CLASSES_STUDY] == 0
    assert crossing[f"{CLASSES_STUDY}-twin"] > 0
    params = YAML(typ="safe").load((finished_classes.root / "params.yaml").read_text())
    first, second = params["study"][CLASSES_STUDY], params["study"][f"{CLASSES_STUDY}-twin"]
    differing = {key for key in first if first[key] != second[key]}
    assert differing == {"split", "tables"}


def test_a_forecast_counts_what_is_left(finished_classes: Project, tmp_path: Path) -> None:
    project = finished_classes.copy(tmp_path / "project")
    printed = project.run("classroom", "forecast", "table14")
    assert "5 of 5 trainings are done already" in printed
    project.set(seeds=[0, 1])
    printed = project.run("classroom", "forecast", "table14")
    assert "5 of 10 trainings are done already" in printed
    assert "hours of trainings" in printed
    assert "disk:" in printed
    unknown = project.run("classroom", "forecast", "table41", expect=1)
    assert unknown.startswith("Error: unknown report 'table41'. Did you mean 'table")
