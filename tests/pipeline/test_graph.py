"""The graph that both engines read: the same jobs; and what Snakemake says before any job starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroom.params import BASELINES
from classroom.params import VARIANTS as ALL_VARIANTS
from support.finished import classroom
from support.jobs import jobs_of_dvc, jobs_of_snakemake
from support.project import Project, checkout


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository as it is here; that its methods can be trained is known, as trying that takes many seconds.

    Tests that change it leave it as it was, or copy it.
    """
    project = checkout(tmp_path_factory.mktemp("committed") / "project")
    assert classroom("classroom check", project.root).code == 0
    return project


def at_scale(name: str, committed: Project, target: Path) -> Project:
    """A copy at this scale, but with the networks and epochs of the committed one, which have been tried."""
    project = committed.copy(target / "project")
    before = project.settings()
    project.run("classroom", "scale", name)
    studies = project.settings()["study"]
    for study, settings in before["study"].items():
        studies[study] |= {
            key: settings[key] for key in {"image_size", "teacher", "student", "methods"} & settings.keys()
        }
    project.set(study=studies, training=before["training"])
    return project


def test_rules_and_stages_are_the_same_jobs_at_paper_scale(committed: Project, tmp_path: Path) -> None:
    """T1: same outputs, inputs and commands, job by job; none is left over on either side."""
    project = at_scale("paper", committed, tmp_path)
    rules, stages = jobs_of_snakemake(project), jobs_of_dvc(project)
    assert rules.keys() == stages.keys()
    for outputs in rules:
        assert rules[outputs] == stages[outputs], outputs
    trainings = [command for command, _ in rules.values() if command.startswith("classroom train")]
    assert len(trainings) == (6 * 14 + 14) * 3


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("params.yaml", "  epochs:", "  epoch:", "unknown key 'training.epoch'. Did you mean 'epochs'?"),
        (
            "studies/lgg-resnet18.yaml",
            "encoder: tu-resnet50",
            "encoder: tu-resnet51",
            "unknown encoder 'tu-resnet51'. Did you mean 'tu-resnet",
        ),
        (
            "params.yaml",
            "scale: demo",
            "__use_yte__: true\nscale: ?__import__('os').system('touch pwned')",
            "unknown key '__use_yte__'",
        ),
    ],
)
def test_snakemake_says_bad_settings_in_one_paragraph(
    file: str, old: str, new: str, message: str, committed: Project
) -> None:
    """Before any job, without a traceback, and in the same words as `classroom check`."""
    good = (committed.root / file).read_text()
    (committed.root / file).write_text(good.replace(old, new, 1))
    said = classroom("classroom check", committed.root)
    printed = committed.snakemake("-n", expect=1)
    (committed.root / file).write_text(good)
    assert (said.code, message in said.error) == (1, True)
    assert said.error.splitlines()[-1] in printed
    assert "Traceback" not in printed
    assert not (committed.root / "pwned").exists(), "settings are data: nothing in them may run"


def test_only_the_folders_that_a_target_needs_are_asked_for(committed: Project, tmp_path: Path) -> None:
    """At scale small a user has one dataset, not all; the missing one is named before any job of a chain starts."""
    project = at_scale("small", committed, tmp_path)
    (project.root / "data/downloads/lgg").mkdir(parents=True)
    assert project.planned("reports/table4.md")["train"] == 9
    printed = project.snakemake("-n", "--", "reports/table14.md", expect=1)
    assert "datasets/ham10000.yaml: directory: no such folder: data/downloads/ham10000" in printed
    assert "Traceback" not in printed


def test_what_a_target_needs_is_trained_in_as_few_jobs_as_run_at_a_time(committed: Project) -> None:
    """In a job of a group each run once, with what a profile says of trainings; nothing that nobody asked for."""
    printed = committed.snakemake("-n", "--set-resources", "train:mem_mb=77", "--", "reports/table4.md")
    groups = committed.groups(printed)
    assert sorted(method for group in groups for method in group) == sorted([*BASELINES, *ALL_VARIANTS])
    assert any({"teacher", "kd_on-v1", "kd_on-v2", "kd_on-v3"} <= {*group} for group in groups)
    assert ["kd_off-v1", "kd_off-v3", "kd_off-v2"] in groups, "they wait for the teacher"
    assert len(groups) == 3
    assert printed.count("gpu=1, mem_mb=77,") == 3
    committed.edit("params.yaml", "  enabled: true", "  enabled: false")
    assert committed.groups(committed.snakemake("-n", "--", "reports/table4.md")) == []
    committed.edit("params.yaml", "  enabled: false", "  enabled: true")


def test_a_profile_that_lacks_what_the_engines_rely_on_is_refused(pristine: Project) -> None:
    printed = pristine.snakemake("--workflow-profile", "none", expect=1)
    assert "Snakemake runs without the settings that it needs to agree with DVC" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "override", [("--config", "seeds=[0,1]"), ("--configfile", "params.yaml")], ids=lambda of: of[0]
)
def test_settings_that_only_snakemake_would_know_are_refused(override: tuple[str, str], pristine: Project) -> None:
    """Jobs read the files of settings, so Snakemake took them and did the same as without."""
    printed = pristine.snakemake("-n", *override, "--", "all", expect=1)
    assert f"Error: {override[0]} has no effect on jobs" in printed
    assert "`classroom overlay FILE`" in printed
    assert "Traceback" not in printed
