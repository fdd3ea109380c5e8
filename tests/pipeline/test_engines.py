"""What holds between Snakemake and DVC, whatever a user does. The real engines, counted jobs."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from support.jobs import AFTER_TRAININGS, COMPARED, DEPLOYED, ONE_VARIANT, TABLES, TRAININGS, rules
from support.project import Project, checkout, start, trainings, wait_for
from support.studies import STUDY

pytestmark = pytest.mark.engines

# The same graph ------------------------------------------------------------------------------------------------


def jobs_of_snakemake(project: Project) -> dict[tuple[str, ...], tuple[str, set[str]]]:
    """Command and inputs of every job, by its sorted outputs, from what a forced dry run prints."""
    printed = project.snakemake("-n", "-p", "--forceall", "all")
    jobs = {}
    for block in re.split(r"\n(?=(?:local)?rule )", printed):
        found = {key: value for key, value in re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE)}
        command = re.search(r"^Shell command: (?:export PATH=.*; )?(classroom .*) 2> \S+$", block, re.MULTILINE)
        if command:
            outputs = tuple(sorted(found["output"].split(", ")))
            jobs[outputs] = (command.group(1), set(found["input"].split(", ")))
    return jobs


def jobs_of_dvc(project: Project) -> dict[tuple[str, ...], tuple[str, set[str]]]:
    printed = project.run(
        "python", "-c",
        "import json; from dataclasses import asdict; from classroom.engines import plan;"
        "print(json.dumps([asdict(stage) for stage in plan.load().values()]))",
    )  # fmt: skip
    stages = json.loads(printed)
    outputs = [out for stage in stages for out in stage["outputs"]]
    jobs = {}
    for stage in stages:
        inputs = set()
        for dependency in stage["dependencies"]:
            inputs |= {out for out in outputs if out.startswith(f"{dependency}/")} or {dependency}
        jobs[tuple(sorted(stage["outputs"]))] = (stage["command"], inputs)
    return jobs


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_rules_and_stages_are_the_same_jobs(scale: str, tmp_path: Path) -> None:
    """T1: same outputs, inputs and commands, job by job; none is left over on either side."""
    project = checkout(tmp_path)
    project.run("classroom", "scale", scale)
    rules, stages = jobs_of_snakemake(project), jobs_of_dvc(project)
    assert rules.keys() == stages.keys()
    for outputs in rules:
        assert rules[outputs] == stages[outputs], outputs
    trainings = [command for command, _ in rules.values() if command.startswith("classroom train")]
    assert len(trainings) == {"demo": 6 * 14 + 4 + 14 + 2 * 3, "paper": (6 * 14 + 14) * 3}[scale]


# Nothing done twice ---------------------------------------------------------------------------------------------


def test_what_snakemake_ran_is_done_for_dvc(finished: Project) -> None:
    """T2: results of a Snakemake run are recorded; neither engine has anything left to do."""
    assert finished.status() == "Data and pipelines are up to date."
    assert finished.repro() == []
    assert finished.planned() == Counter()


def test_a_fresh_clone_after_pull_has_nothing_to_do(finished_once: Project, tmp_path: Path) -> None:
    """T3: whatever times git and DVC give the files."""
    clone = finished_once.clone(tmp_path / "clone")
    shuffle = random.Random(0)
    for attempt in range(3):
        assert clone.planned() == Counter(), f"attempt {attempt}"
        assert clone.status() == "Data and pipelines are up to date."
        shutil.rmtree(clone.root / ".snakemake", ignore_errors=True)
        for path in clone.root.rglob("*"):
            if path.is_file() and not {".git", ".dvc", ".classroom"} & set(path.relative_to(clone.root).parts):
                moment = time.time() - shuffle.uniform(0, 10**7)
                os.utime(path, (moment, moment))
    assert clone.repro() == []


def test_an_edit_before_the_first_run_of_a_clone_is_seen(clone: Project) -> None:
    """T4: Snakemake has no memory there at all; exactly the edited variant is due, and then made."""
    clone.weigh("kd_ml-v3", 0.3)
    assert clone.planned() == ONE_VARIANT
    printed = clone.snakemake("all")
    assert printed.count("best epochs") == 1
    assert clone.planned() == Counter()
    assert clone.repro() == []


CHANGES = {
    "weight": (lambda p: p.weigh("kd_ml-v3", 0.3), ONE_VARIANT),
    "one seed more": (
        lambda p: p.set(seeds=[0, 1]), TRAININGS + AFTER_TRAININGS - DEPLOYED - Counter(samples=1),
    ),
    "epochs": (lambda p: p.edit("params.yaml", "epochs: 1", "epochs: 2"), TRAININGS + AFTER_TRAININGS),
    "one image": (
        lambda p: p.change("dataset.lgg", {"reader": "lgg", "source": "directory", "full_size": 3929,
                                           "directory": str(p.mirror_an_image())}),
        Counter(fetch=1, prepare=1, split=1) + TRAININGS + AFTER_TRAININGS,
    ),
    "loss": (
        lambda p: p.edit("src/classroom/distill/losses.py", "return 1 - 2 * overlap", "return 1 - 2.0 * overlap"),
        TRAININGS + AFTER_TRAININGS,
    ),
    "touched code": (lambda p: [os.utime(path) for path in (p.root / "src").rglob("*.py")], Counter()),
    "scale's name": (
        lambda p: p.set(scale="small"),
        TABLES + Counter(architecture_table=1, cost_table=1, samples=1, curves=1, picture=1, cka_figure=1)
        + Counter(cka_table=1, deploy_table=1, site=1),
    ),
    "comment in exchange": (
        lambda p: p.edit("src/classroom/distill/exchange.py", "  # V3 turns", "  # So V3 turns"),
        Counter(
            train=2, train_offline=1, grid=1, evaluate=3, cost_table=1, exchange_tables=1, samples=1, choose=1,
            compare=1, comparison_table=1, picture=1, cka=3, cka_figure=1, cka_table=1, curves=1, site=1,
            export=2, measure=1, deploy_table=1,
        )
        + COMPARED,
    ),
    "heading": (
        lambda p: p.edit("src/classroom/reporting/heading.py", "from a local folder", "of a folder"),
        COMPARED + DEPLOYED + Counter(baselines_table=1, comparison_table=1, cka_figure=1, cka_table=1, site=1)
        + Counter(samples=1, picture=1, curves=1),
    ),
    "a method's weight": (
        lambda p: p.set(method_weights={STUDY: {"emkd": {"prediction": 0.2, "importance": 0.9, "affinity": 0.9}}}),
        Counter(method=1, compare=1, comparison_table=1, cost_table=1, site=1),
    ),
    "a method's code": (
        lambda p: p.edit("src/classroom/methods/emkd.py", "METHOD = E", "METHOD =  E"),
        Counter(method=1, compare=1, comparison_table=1, cost_table=1, site=1),
    ),
    "message": (lambda p: p.edit("src/classroom/errors.py", "The one exception", "One exception"), Counter()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "name"),
    [("finished_once", name) for name in CHANGES] + [("cloned_once", name) for name in [*CHANGES][:6]],
)
def test_a_change_reruns_exactly_what_it_touches(
    request: pytest.FixtureRequest, tree: str, name: str, tmp_path: Path
) -> None:
    """T5, T9: in the tree that made the results and in a fresh clone, in which Snakemake has no memory at all.

    `dvc status` names the first stages of every chain, Snakemake all of them.
    """
    change, due = CHANGES[name]
    project = request.getfixturevalue(tree).copy(tmp_path / "project")
    change(project)
    assert project.planned() == due
    changed = json.loads(project.run("dvc", "status", "--json"))
    first = rules(changed)
    assert first <= due
    assert bool(first) == bool(due)


def test_a_fetched_image_that_was_spoilt_is_put_back(finished: Project) -> None:
    """T9: with a file time of long ago, as `cp -p` or an archive would leave it. What fetching brought is a result."""
    image, other = sorted((finished.root / "data/raw/lgg").rglob("*_1.tif"))[:2]
    before = image.read_bytes()
    image.unlink()
    shutil.copyfile(other, image)
    os.utime(image, (10**9, 10**9))
    assert finished.planned() == Counter()
    assert image.read_bytes() == before


def test_what_dvc_ran_is_done_for_snakemake(finished: Project) -> None:
    """T6, T7: and going back to a setting restores its results instead of training again."""
    before = (finished.root / "reports/table4.csv").read_bytes()
    finished.weigh("kd_ml-v3", 0.3)
    ran = finished.repro()
    assert rules(ran) == ONE_VARIANT
    assert finished.planned() == Counter()
    assert (finished.root / "reports/table4.csv").read_bytes() != before
    finished.weigh("kd_ml-v3", 0.1)
    assert finished.repro() == []
    assert finished.planned() == Counter()
    assert (finished.root / "reports/table4.csv").read_bytes() == before


def test_switching_branches_or_weights_has_nothing_to_do(finished: Project) -> None:
    """T7, T8: there and back with `git switch`, with or without `dvc checkout`, or by editing the setting."""
    finished.run("git", "switch", "--quiet", "--create", "other")
    finished.weigh("ml-v3", 0.3)
    finished.snakemake("all")
    finished.commit("other weight")
    table = {"other": (finished.root / "reports/table4.csv").read_bytes()}
    for branch in ("main", "other"):
        finished.run("git", "switch", "--quiet", branch)
        finished.run("dvc", "checkout", "--quiet")
        assert finished.planned() == Counter(), branch
    finished.run("git", "switch", "--quiet", "main")
    table["main"] = (finished.root / "reports/table4.csv").read_bytes()
    assert finished.planned() == Counter(), "without dvc checkout"
    for alpha, branch in ((0.3, "other"), (0.2, "main")):
        finished.weigh("ml-v3", alpha)
        printed = finished.snakemake("-n", "all")
        assert f"restored from DVC's cache: train@{STUDY}-ml-v3-0" in printed
        assert finished.planned() == Counter(), branch
        assert (finished.root / "reports/table4.csv").read_bytes() == table[branch]
    assert finished.status() == "Data and pipelines are up to date."


def test_switching_scale_back_and_forth_trains_once(finished: Project) -> None:
    """Other images, so everything from fetching on is made again, once; then both scales' results come back."""
    values = {"demo": "scale: demo\ntraining: {epochs: 1}\ndataset: {lgg: {phantom: {seed: 0}}}\n"}
    values["small"] = values["demo"].replace("demo", "small").replace(": 1}", ": 2}").replace(": 0}", ": 1}")
    for scale, text in values.items():
        (finished.root / "scales" / f"{scale}.yaml").write_text(text)
    target = f"results/baselines/table2/{STUDY}/student.json"
    result = {}
    finished.run("classroom", "scale", "small")
    due = Counter(fetch=1, prepare=1, split=1, baseline=1, evaluate_baseline=1)
    assert finished.planned(target) == due
    finished.snakemake(target)
    result["small"] = (finished.root / target).read_bytes()
    for scale in ("demo", "small", "demo"):
        finished.run("classroom", "scale", scale)
        assert finished.planned(target) == Counter(), scale
        result.setdefault(scale, (finished.root / target).read_bytes())
        assert (finished.root / target).read_bytes() == result[scale]
    assert finished.planned() == Counter()
    assert result["small"] != result["demo"]


def test_a_seed_that_leaves_and_returns_is_not_trained_again(finished: Project) -> None:
    """Results beyond today's settings step aside, so that a clone agrees, and come back with the setting."""
    finished.set(seeds=[0, 1])
    finished.snakemake("all")
    finished.set(seeds=[0])
    assert finished.planned() == Counter()
    finished.commit("one seed again")
    finished.run("dvc", "push", "--quiet")
    clone = finished.clone(finished.root.parent / "clone")
    assert clone.planned() == Counter()
    finished.set(seeds=[0, 1])
    assert finished.planned() == Counter()


# What people look at -------------------------------------------------------------------------------------------


def test_the_report_is_one_page_with_tables_figures_and_labels(finished: Project) -> None:
    """`snakemake --report`: sorted by dataset, technique, strategy and architecture, captions filled in."""
    finished.snakemake("--report", "reports/report.html", "all")
    page = (finished.root / "reports/report.html").read_text()
    for shown in ("Tables", "Figures", "Diagnostics", "resnet18 to resnet18", "kd_ml"):
        assert shown in page, shown
    tables = ("table4.csv", "table10.csv", "cost.csv", "deploy.csv")
    for name in (*tables, "figure6.png", "figure9.png", f"curves-{STUDY}.png"):
        assert name in page, name
    assert f"Twelve variants on study {STUDY}" in page
    assert "{{" not in re.findall(r"Twelve variants[^<]*", page)[0]


def test_dvc_plots_the_same_curves_as_the_picture(finished: Project) -> None:
    shown = json.loads(finished.run("dvc", "plots", "show", "--json"))
    (plots,) = [of for name, of in shown["data"].items() if f"curves-{STUDY}" in name]
    points = plots[0]["content"]["data"]["values"]
    drawn = list(csv.DictReader((finished.root / f"reports/curves-{STUDY}.csv").open()))
    assert {(p["variant"], p["epoch"], p["ensemble"]) for p in points} == {
        (row["variant"], row["epoch"], row["ensemble"]) for row in drawn
    }


# Failures and kills ---------------------------------------------------------------------------------------------


def test_a_failed_training_never_hides_behind_an_old_result(finished: Project) -> None:
    """T10: Snakemake alone would build the table from the variant's old results (its issue 1978)."""
    old = (finished.root / "reports/table4.md").read_bytes()
    obstacle = finished.root / "checkpoints/runs" / STUDY / "kd_ml-v3"
    obstacle.mkdir(parents=True, exist_ok=True)
    (obstacle / "seed-0").write_text("a file where the checkpoint's folder should be")
    finished.weigh("kd_ml-v3", 0.3)
    finished.weigh("ml-v3", 0.3)
    printed = finished.snakemake("all", expect=1)
    assert "seed-0: cannot be written" in printed
    assert (finished.root / "reports/table4.md").read_bytes() == old
    due = {"reports/table4.md": Counter(train=1, evaluate=1, variants_table=1), "all": ONE_VARIANT}
    for target, jobs in due.items():
        assert finished.planned(target) == jobs, "the sibling that finished is recorded, the failed one is due"
    (obstacle / "seed-0").unlink()
    finished.snakemake("all")
    assert finished.status() == "Data and pipelines are up to date."
    assert (finished.root / "reports/table4.md").read_bytes() != old


def test_a_training_killed_once_is_retried_from_its_checkpoint(finished: Project) -> None:
    finished.edit("params.yaml", "epochs: 1", "epochs: 80")
    running = start(finished, "snakemake", "--cores", "1", f"runs/{STUDY}/student/seed-0/metrics.json")
    checkpoint = finished.root / "checkpoints/runs" / STUDY / "student" / "seed-0" / "newest.pt"
    wait_for(checkpoint.exists)
    for training in trainings(finished):
        training.kill()
    assert running.wait(timeout=120) == 0
    assert "resumed from" in (finished.root / f"logs/train/{STUDY}/student/seed-0.log").read_text()
    assert not checkpoint.exists()


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_a_killed_engine_loses_nothing_finished(engine: str, pristine: Project, tmp_path: Path) -> None:
    """T11: after kill -9 of everything, a second start does what is missing, and both engines agree."""
    project = pristine.copy(tmp_path / "project")
    table, stage = "reports/table4.md", f"variants_table@{STUDY}"
    command = ("snakemake", "--cores", "2", table) if engine == "snakemake" else ("dvc", "repro", stage)
    running = start(project, *command)
    teacher = project.root / f"runs/{STUDY}/teacher/seed-0/receipt.json"
    wait_for(teacher.exists)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    log = project.root / f"logs/train/{STUDY}/teacher/seed-0.log"
    trained = log.stat().st_mtime_ns if log.exists() else 0
    project.run(*command)
    assert project.repro(stage) == []
    assert project.planned(table) == Counter()
    if engine == "snakemake":  # DVC deletes what it has not recorded before it runs a stage
        assert log.stat().st_mtime_ns == trained, "the finished teacher was trained again"


def test_a_table_is_not_rendered_from_results_of_another_run(finished: Project) -> None:
    """T12: by hand, too. The results remember which predictions they were made from."""
    run = finished.root / f"runs/{STUDY}"
    shutil.copyfile(run / "kd_off-v1/seed-0/predictions.parquet", run / "ml-v3/seed-0/predictions.parquet")
    printed = finished.run("classroom", "table", STUDY, "variants", expect=1)
    assert printed.startswith("Error: ")
    assert f"Run `classroom evaluate {STUDY} ml-v3` again" in printed


# Errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  epochs:", "  epoch:", "unknown key 'training.epoch'. Did you mean 'epochs'?"),
        ("encoder: tu-resnet50", "encoder: tu-resnet51", "unknown encoder 'tu-resnet51'. Did you mean 'tu-resnet"),
        ("joint: [ml-v1,", "joint: [ml-v4,", "unknown variant 'ml-v4'"),
        ("scale: demo", "scale: [", "not valid YAML"),
        ("scale: demo", "scale: !!python/object/apply:os.system [touch pwned]", "constructor for the tag"),
        (
            "scale: demo",
            "__use_yte__: true\nscale: ?__import__('os').system('touch pwned')",
            "unknown key '__use_yte__'",
        ),
    ],
)
def test_snakemake_says_bad_settings_in_one_paragraph(old: str, new: str, message: str, tmp_path: Path) -> None:
    """Before any job, without a traceback, and in the same words as `classroom check`."""
    project = checkout(tmp_path)
    text = (project.root / "params.yaml").read_text()
    (project.root / "params.yaml").write_text(text.replace(old, new, 1))
    said = project.run("classroom", "check", expect=1)
    assert message in said
    assert "Traceback" not in said
    printed = project.snakemake("-n", expect=1)
    assert said.strip() in printed
    assert "Traceback" not in printed
    assert not (project.root / "pwned").exists(), "settings are data: nothing in them may run"


def test_only_the_folders_that_a_target_needs_are_asked_for(pristine: Project, tmp_path: Path) -> None:
    """At scale small a user has one dataset, not all; the missing one is named before any job of a chain starts."""
    project = checkout(tmp_path)
    project.run("classroom", "scale", "small")
    (project.root / "data/downloads/lgg").mkdir(parents=True)
    assert project.planned("reports/table4.md")["train"] == 9
    printed = project.snakemake("-n", "--", "reports/table14.md", expect=1)
    assert "dataset.ham10000.directory: no such folder: data/downloads/ham10000" in printed
    assert "Traceback" not in printed


def test_a_profile_that_lacks_what_the_engines_rely_on_is_refused(pristine: Project) -> None:
    printed = pristine.snakemake("--workflow-profile", "none", expect=1)
    assert "Snakemake runs without the settings that it needs to agree with DVC" in printed
    assert "Traceback" not in printed
