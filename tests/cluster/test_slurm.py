"""Table 4 through a real Slurm, and everything that a cluster does to jobs while it is made.

The story runs once, as it takes minutes; each test looks at one thing that must hold afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import slurm
from support.project import Project, start, trainings, wait_for
from support.studies import STUDY

TARGET = "reports/table4.md"
PROFILE = (
    "--workflow-profile", "profiles/slurm",
    # What a real cluster is spared, a test can afford: asking Slurm every few seconds.
    "--slurm-init-seconds-before-status-checks", "2", "--slurm-keep-successful-logs",
)  # fmt: skip


SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Training:
    """A training that runs on a node of the cluster."""

    method: str
    process: psutil.Process
    job: str
    node: str
    gpu: str


@dataclass
class Story:
    """What happened, for the tests to look at."""

    project: Project
    refusal: str = ""
    """What Snakemake said when it was started while jobs of a killed one were still in the queue."""
    left_behind: list[str] = field(default_factory=list)
    """Ids of those jobs."""
    teacher_s_manifest: bytes = b""
    """As the teacher left it, whose Snakemake had been killed."""
    frozen: list[Training] = field(default_factory=list)
    """The trainings that then met their fates, in the middle of which they were caught, and who met which."""
    timed_out: str = ""
    cancelled: str = ""
    lost_with_their_node: list[str] = field(default_factory=list)
    printed: str = ""
    """By the Snakemake that saw all this."""


@pytest.fixture(scope="module", autouse=True)
def slurm_can_start() -> None:
    """Where it cannot, the tests are skipped, unless CLASSROOM_REQUIRE_SLURM is set."""
    if message := slurm.hindrance():
        pytest.fail(message) if os.environ.get("CLASSROOM_REQUIRE_SLURM") else pytest.skip(message)


@pytest.fixture(scope="module")
def reference(three_variants: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same table made here without Slurm, while the cluster's jobs wait for their time limit."""
    return longer(three_variants.copy(tmp_path_factory.mktemp("reference") / "project"))


@pytest.fixture(scope="module")
def story(reference: Project, tmp_path_factory: pytest.TempPathFactory) -> Story:
    project = reference.copy(tmp_path_factory.mktemp("slurm") / "project")  # the same commit, which manifests name
    project.environment["PYTHONPATH"] += f":{slurm.PLUGIN}"
    story = Story(project)
    with slurm.running(tmp_path_factory.mktemp("cluster")) as cluster:
        try:
            snakemake_is_killed(story)
            jobs_meet_their_fates(story, cluster, reference)
        finally:
            kill_what_runs_in(project)
    return story


def longer(project: Project) -> Project:
    """With enough epochs for a training to be caught in the middle."""
    project.train_long()
    project.commit("longer")
    return project


def snakemake_is_killed(story: Story) -> None:
    """Its jobs stay in Slurm: after a start that is refused, one finishes without it, the other is cancelled."""
    project = story.project
    alone = [f"runs/{STUDY}/{method}/seed-0" for method in ("teacher", "student")]
    snakemake = start(project, "snakemake", *PROFILE, *alone)
    frozen = freeze(project, {"teacher", "student"})
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.wait()
    story.left_behind = [training.job for training in frozen.values()]
    story.refusal = project.run("snakemake", *PROFILE, TARGET, expect=1)
    frozen["teacher"].process.resume()
    ask("scancel", frozen["student"].job)
    wait_for(lambda: not ask("squeue", "--noheader"))
    story.teacher_s_manifest = (run_of(project, "teacher") / "manifest.json").read_bytes()


def jobs_meet_their_fates(story: Story, cluster: slurm.Cluster, reference: Project) -> None:
    """One training hits its time limit, one is cancelled, a node dies with its two; then the controller restarts."""
    project = story.project
    with (project.root / "snakemake.out").open("w") as out:
        snakemake = subprocess.Popen(
            ["snakemake", *PROFILE, TARGET], cwd=project.root, env=project.environment, stdout=out, stderr=out
        )
    frozen = list(freeze(project, {"student", "ml-v3", "kd_ml-v3", "kd_off-v1"}).values())
    dying = frozen[0].node
    timed_out, cancelled = (training for training in frozen if training.node != dying)
    ask("scontrol", "update", f"JobId={timed_out.job}", "TimeLimit=1")
    ask("scancel", cancelled.job)
    cluster.kill_node(dying)
    ask("scontrol", "update", f"NodeName={dying}", "State=DOWN", "Reason=power")
    cluster.stop_controller()
    cluster.start_controller()
    cluster.start_node(dying)
    reference.snakemake(TARGET)
    assert snakemake.wait(timeout=400) == 0, (project.root / "snakemake.out").read_text()[-6000:]
    story.frozen = frozen
    story.timed_out, story.cancelled = timed_out.method, cancelled.method
    story.lost_with_their_node = [training.method for training in frozen if training.node == dying]
    story.printed = (project.root / "snakemake.out").read_text()


def freeze(project: Project, methods: set[str]) -> dict[str, Training]:
    """Stops the trainings of these methods in the middle, as soon as each has written a checkpoint."""
    before = {method: checkpoint_time(project, method) for method in methods}
    found: dict[str, psutil.Process] = {}
    frozen: dict[str, Training] = {}

    def all_frozen() -> bool:
        if found.keys() != methods:  # looking at all processes takes its time
            found.update({process.cmdline()[-3]: process for process in trainings(project)})
        for method in found.keys() - frozen.keys():
            if checkpoint_time(project, method) != before[method]:
                found[method].suspend()
                about = map(found[method].environ().get, SLURM_VARIABLES)
                frozen[method] = Training(method, found[method], *about)
        return frozen.keys() == methods

    wait_for(all_frozen, 400)
    return frozen


def kill_what_runs_in(project: Project) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(project.root):
                process.kill()


def checkpoint_time(project: Project, method: str) -> int:
    path = project.root / "checkpoints/runs" / STUDY / method / "seed-0/newest.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


def run_of(project: Project, method: str) -> Path:
    return project.root / "runs" / STUDY / method / "seed-0"


def log_of(project: Project, method: str) -> str:
    return (project.root / f"logs/train/{STUDY}/{method}/seed-0.log").read_text()


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


# Nothing lost, nothing done twice -------------------------------------------------------------------------------


def test_a_start_while_jobs_of_a_killed_snakemake_are_queued_is_refused(story: Story) -> None:
    """They would all be done twice. The message names them and both ways out."""
    ids = " ".join(sorted(story.left_behind, key=int))
    assert f"2 SLURM jobs of an earlier Snakemake are still queued or running for this folder: {ids}" in story.refusal
    assert f"`scancel {ids}`" in story.refusal
    assert "Traceback" not in story.refusal


def test_a_training_that_ends_after_snakemake_was_killed_is_kept(story: Story) -> None:
    assert (run_of(story.project, "teacher") / "manifest.json").read_bytes() == story.teacher_s_manifest
    assert "committed to dvc.lock" in story.printed


def test_a_training_that_hits_its_time_limit_goes_on_from_its_checkpoint(story: Story) -> None:
    assert "SLURM status is: 'TIMEOUT'" in story.printed
    assert "resumed from" in log_of(story.project, story.timed_out)


def test_a_cancelled_training_goes_on_from_its_checkpoint(story: Story) -> None:
    assert "SLURM status is: 'CANCELLED'" in story.printed
    assert "resumed from" in log_of(story.project, story.cancelled)


def test_the_trainings_of_a_dead_node_go_on_elsewhere(story: Story) -> None:
    assert "SLURM status is: 'NODE_FAIL'" in story.printed
    assert len(story.lost_with_their_node) == 2
    for method in story.lost_with_their_node:
        assert "resumed from" in log_of(story.project, method), method


def test_the_results_are_those_of_a_local_run_bit_for_bit(story: Story, reference: Project) -> None:
    """Whatever interrupted it. Only seconds and memory differ."""
    files = [path.relative_to(reference.root) for path in made_by(reference)]
    assert len([path for path in files if path.name == "weights.safetensors"]) == 5
    assert files == [path.relative_to(story.project.root) for path in made_by(story.project)]
    for path in files:
        here, there = ((project.root / path).read_bytes() for project in (reference, story.project))
        if path.name == "manifest.json" or "costs" in path.parts:
            assert without_measures(json.loads(here)) == without_measures(json.loads(there)), path
        else:
            assert here == there, path


def test_neither_engine_has_anything_left_to_do(story: Story) -> None:
    project = story.project
    assert project.planned(TARGET) == Counter()
    assert project.repro("variants@table4") == []
    assert not list(project.root.glob("checkpoints/**/*.pt"))


def test_nodes_never_reconcile(story: Story) -> None:
    """Every job reads the Snakefile; one that decided what is fresh would race with the others for dvc.lock.

    When the trainings began, preparing the images was finished and not recorded: they would have done so.
    """
    logs = [path.read_text() for path in (story.project.root / "logs/slurm").rglob("*.log")]
    assert len(logs) >= 8
    assert not [log for log in logs if "committed to dvc.lock" in log]


def test_only_what_takes_time_is_submitted(story: Story) -> None:
    submitted = {path.name.removeprefix("rule_") for path in (story.project.root / "logs/slurm").iterdir()}
    assert submitted == {"prepare", "baseline", "train", "train_offline"}


def test_each_training_has_a_gpu_of_its_own(story: Story) -> None:
    """Slurm shows a job only what it has been given; two to a node."""
    assert Counter(training.node for training in story.frozen) == dict.fromkeys(slurm.NODES, 2)
    assert len({(training.node, training.gpu) for training in story.frozen}) == 4


def made_by(project: Project) -> list[Path]:
    """Everything that a run leaves, in order."""
    folders = ("data", "runs", "results", "reports")
    files = (path for folder in folders for path in (project.root / folder).rglob("*"))
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def without_measures(value: Any) -> Any:
    """What a manifest or the costs say, but for seconds, memory, the runs that trained in the same process, and what
    depends on their digits."""
    if isinstance(value, list):
        return [without_measures(one) for one in value]
    if not isinstance(value, dict):
        return value
    measures = ("seconds", "seconds_per_epoch", "peak_memory_mb", "together", "bytes", "content")
    return {key: without_measures(one) for key, one in value.items() if key not in measures}
