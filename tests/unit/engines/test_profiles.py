"""Where jobs run: every profile keeps what both engines rely on, and a cluster gets what it needs to know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from classroom.slurm import jobs_of
from support.studies import ROOT

PROFILES = {path.parent.name: path for path in (ROOT / "profiles").glob("*/config.yaml")}
RULES = dict(
    part
    for path in (ROOT / "workflow/rules").glob("*.smk")
    for part in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
)
"""The text of every rule, by name."""
TRAININGS = {name for name, text in RULES.items() if "classroom train " in text}
SNAKEFILE = (ROOT / "Snakefile").read_text()
LOCAL = set(re.findall(r"^    (\w+),$", SNAKEFILE.split("localrules:\n")[1].split("\n\n")[0], re.MULTILINE))


def settings(profile: str) -> dict[str, Any]:
    return YAML(typ="safe").load(PROFILES[profile].read_text())


def relied_on() -> dict[str, Any]:
    return {key: value for key, value in settings("default").items() if key != "retries"}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_what_the_engines_rely_on(profile: str) -> None:
    """One that is named by hand replaces the default one altogether."""
    assert relied_on().items() <= settings(profile).items()
    assert settings(profile)["retries"] >= 1


def test_the_documents_say_what_a_profile_of_one_s_own_must_have() -> None:
    text = (ROOT / "docs/getting-started/clusters.md").read_text()
    block = text.split("<!-- settings:begin -->")[1].split("<!-- settings:end -->")[0]
    assert YAML(typ="safe").load(block.strip().removeprefix("```yaml").removesuffix("```")) == relied_on()


def test_every_training_asks_for_a_gpu_and_the_slurm_profile_for_its_time_and_memory() -> None:
    assert len(TRAININGS) == 7
    for name, text in RULES.items():
        assert ("gpu=1" in text) == (name in TRAININGS), name
        assert "retries:" not in text, f"{name}: retries of a rule are applied again inside its SLURM job"
    slurm = settings("slurm")
    assert slurm["set-resources"].keys() == TRAININGS
    for resources in (slurm["default-resources"], *slurm["set-resources"].values()):
        assert {"runtime", "mem_mb"} <= resources.keys()
    assert all("slurm_partition" in resources for resources in slurm["set-resources"].values())


def test_what_takes_time_is_submitted_and_nothing_else() -> None:
    """A new rule has to be put on one side or the other."""
    assert RULES.keys() - LOCAL == TRAININGS | {"prepare", "cka", "export", "measure"}
    assert LOCAL - RULES.keys() == {"all", "tune"}


def test_the_jobs_of_a_dead_snakemake_are_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By folder and comment; the same user may have another clone and jobs of other kinds."""
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    queue = f"""\
7 rule_train_wildcards_lgg-resnet18_ml-v3_0 {folder}
8 (null) {folder}
9 rule_prepare_wildcards_lgg-resnet18 {tmp_path / "another"}
11 group_x {tmp_path / "link"}
12 rule_cka {folder}/below
"""
    (tmp_path / "queue").write_text(queue)
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\ncat "{tmp_path}/queue"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert jobs_of(folder) == ["7", "11"]
    assert "--me" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("squeue", ["#!/bin/sh\necho no controller >&2; exit 1\n", None])
def test_a_silent_slurm_hinders_nobody(squeue: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if squeue:
        (tmp_path / "squeue").write_text(squeue)
        (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if squeue else str(tmp_path))
    assert jobs_of(tmp_path) == []
