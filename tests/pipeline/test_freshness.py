"""Nothing is done twice, and nothing stale passes for fresh, whatever a user does between two starts."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from support.jobs import AFTER_TRAININGS, COMPARED, DEPLOYED, ONE_VARIANT, ONE_WEIGHT, TABLES, TRAININGS, rules
from support.project import LONG, Project
from support.studies import STUDY

REPORTS = ("variants", "baselines", "fidelity", "architecture")
TABLE, STAGE = "reports/table4.md", "variants@table4"


def test_what_was_made_is_done_for_both_engines(finished: Project) -> None:
    """T2: every kind of job is recorded as it ended; neither engine has anything left to do."""
    assert finished.status() == "Data and pipelines are up to date."
    assert finished.repro() == []
    assert finished.planned() == Counter()
    assert "Nothing to be done" in finished.snakemake("-n")  # `all` is no stage, so its time is not DVC's


def test_a_fresh_clone_after_pull_has_nothing_to_do(finished_once: Project, tmp_path: Path) -> None:
    """T3: whatever times git and DVC give the files."""
    clone = finished_once.clone(tmp_path / "clone", remembered=False)
    shuffle = random.Random(0)
    for attempt in range(2):
        assert clone.planned() == Counter(), f"attempt {attempt}"
        assert clone.status() == "Data and pipelines are up to date."
        shutil.rmtree(clone.root / ".snakemake", ignore_errors=True)
        for path in clone.root.rglob("*"):
            if path.is_file() and not {".git", ".dvc", ".classroom"} & set(path.relative_to(clone.root).parts):
                moment = time.time() - shuffle.uniform(0, 10**7)
                os.utime(path, (moment, moment))
    assert clone.repro() == []


CHANGES = {
    "weight": (lambda p: p.weigh("kd_ml-v3", 0.3), ONE_VARIANT),
    "one seed more": (
        lambda p: p.set(seeds=[0, 1]), TRAININGS + AFTER_TRAININGS - DEPLOYED,
    ),
    "epochs": (Project.train_long, TRAININGS + AFTER_TRAININGS),
    "one image": (
        lambda p: p.change("dataset.lgg", {"reader": "lgg", "source": "directory", "full_size": 3929,
                                           "directory": str(p.mirror_an_image())}),
        Counter(fetch=1, prepare=1, split=1, architecture=1) + TRAININGS + AFTER_TRAININGS,
    ),
    "loss": (
        lambda p: p.edit("src/classroom/core/losses.py", "return 1 - 2 * overlap", "return 1 - 2.0 * overlap"),
        TRAININGS + AFTER_TRAININGS + Counter(architecture=1, exchange=2),  # of core all is made
    ),
    "touched code": (lambda p: [os.utime(path) for path in (p.root / "src").rglob("*.py")], Counter()),
    "scale's name": (
        lambda p: p.set(scale="small"),
        TABLES + Counter(architecture=1, cost=1, samples=1, curves=1, agreement=1, pictures=1, cka_figure=1)
        + Counter(cka_table=1, deploy=1, site=1),
    ),
    "comment in exchange": (
        lambda p: p.edit("src/classroom/methods/learning_styles/exchange.py", "twelve variants", "12 variants"),
        Counter(
            train=2, train_offline=1, grid=1, evaluate=3, cost=1, exchange=2, samples=1, grid_search=1,
            evaluate_methods=1, comparison=1, pictures=1, cka=3, cka_figure=1, cka_table=1, curves=1, agreement=1,
            site=1,
            export=2, measure=1, deploy=1,
        )
        + COMPARED,
    ),
    "heading": (
        lambda p: p.edit("src/classroom/reporting/common/heading.py", "from a local folder", "of a folder"),
        TABLES + DEPLOYED + Counter(architecture=1, exchange=2, cost=1, cka_figure=1, cka_table=1, site=1)
        + Counter(samples=1, pictures=1, curves=1, agreement=1),
    ),
    "a method's weight": (
        lambda p: p.change(f"study.{STUDY}.methods.emkd.weights.prediction", 0.2),
        Counter(method=1, evaluate_methods=1, comparison=1, cost=1, site=1),
    ),
    "a method's code": (
        lambda p: p.edit("src/classroom/methods/emkd.py", "METHOD = {", "METHOD =  {"),
        Counter(method=1, evaluate_methods=1, comparison=1, cost=1, site=1),
    ),
    "the adversary": (  # of SKD, whose weights are searched
        lambda p: p.edit("src/classroom/methods/adversarial/adversary.py", "SKD and IFVD", "IFVD and SKD"),
        Counter(tune_method=1, method_search=1, site=1),
    ),
    "message": (lambda p: p.edit("src/classroom/errors.py", "The one exception", "One exception"), Counter()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "names"), [("finished_once", [*CHANGES]), ("cloned_once", ["weight", "one image", "loss"])]
)
def test_a_change_reruns_exactly_what_it_touches(
    tree: str, names: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """T5, T9: in the tree that made the results and in a fresh clone, in which Snakemake has no memory at all.

    `dvc status` names the first stages of every chain, Snakemake all of them.
    """
    project = request.getfixturevalue(tree).copy(tmp_path / "project")
    wrong = {}
    for name in names:
        change, due = CHANGES[name]
        change(project)
        planned = project.planned()
        first = rules(json.loads(project.run("dvc", "status", "--json")))
        if planned != due or not first <= due or bool(first) != bool(due):
            wrong[name] = {"planned": planned, "due": due, "dvc status": first}
        project.run("git", "checkout", "--quiet", ".")
    assert not wrong


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
    assert rules(finished.repro(STAGE)) == ONE_WEIGHT
    assert finished.planned(TABLE) == Counter()
    assert finished.planned() == ONE_VARIANT - ONE_WEIGHT
    assert (finished.root / "reports/table4.csv").read_bytes() != before
    finished.weigh("kd_ml-v3", 0.1)
    assert finished.repro() == []
    assert finished.planned() == Counter()
    assert (finished.root / "reports/table4.csv").read_bytes() == before


def test_switching_branches_or_weights_has_nothing_to_do(finished: Project) -> None:
    """T7, T8: there and back with `git switch`, with or without `dvc checkout`, or by editing the setting."""
    finished.run("git", "switch", "--quiet", "--create", "other")
    finished.weigh("ml-v3", 0.3)
    finished.snakemake(TABLE)
    finished.commit("other weight")
    table = {"other": (finished.root / "reports/table4.csv").read_bytes()}
    for branch in ("main", "other"):
        finished.run("git", "switch", "--quiet", branch)
        finished.run("dvc", "checkout", "--quiet")
        assert finished.planned(TABLE) == Counter(), branch
    finished.run("git", "switch", "--quiet", "main")
    table["main"] = (finished.root / "reports/table4.csv").read_bytes()
    assert finished.planned(TABLE) == Counter(), "without dvc checkout"
    for alpha, branch in ((0.3, "other"), (0.2, "main")):
        finished.weigh("ml-v3", alpha)
        printed = finished.snakemake("-n", TABLE)
        assert f"restored from DVC's cache: train@{STUDY}-ml-v3-0" in printed
        assert finished.planned(TABLE) == Counter(), branch
        assert (finished.root / "reports/table4.csv").read_bytes() == table[branch]
    assert finished.status() == "Data and pipelines are up to date."


def test_switching_scale_back_and_forth_trains_once(finished: Project) -> None:
    """Other images, so everything from fetching on is made again, once; then both scales' results come back."""
    values = {"demo": "scale: demo\ntraining: {epochs: 1}\ndatasets: {lgg: {synthetic: {seed: 0}}}\n"}
    values["small"] = values["demo"].replace("demo", "small").replace(": 1}", f": {LONG}}}").replace(": 0}", ": 1}")
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
    assert result["small"] != result["demo"]


@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_no_type_of_dvcs_cache_makes_anything_stale(kind: str, finished: Project) -> None:
    """Links share their time with the cache and so with other trees; this one is left alone.

    All other tests run with DVC's default: reflinks, or copies where there are none.
    """
    finished.run("dvc", "config", "cache.type", kind)
    finished.run("dvc", "checkout", "--quiet", "--relink")
    cache = {path: path.stat().st_mtime_ns for path in (finished.root / ".dvc/cache/files").rglob("*/*/*")}
    link = finished.root / f"data/splits/{STUDY}.parquet"
    assert (link.is_symlink(), link.stat().st_nlink > 1) == (kind == "symlink", kind == "hardlink")
    assert finished.planned() == Counter()
    finished.weigh("ml-v3", 0.3)
    target = f"results/variants/{STUDY}/ml-v3.json"
    finished.snakemake(target)
    assert finished.planned(target) == Counter()
    finished.weigh("ml-v3", 0.2)
    assert finished.planned() == Counter(), "restored"
    assert finished.status() == "Data and pipelines are up to date."
    assert {path: path.stat().st_mtime_ns for path in cache} == cache


def test_studies_edited_by_hand_reach_dvc_too(finished: Project) -> None:
    """DVC takes its jobs from the plan: it says once that this was out of date, and then runs the right ones."""
    settings = finished.settings()
    copy = settings["study"][STUDY] | {"reports": {kind: f"my-{kind}" for kind in REPORTS}}
    with (finished.root / "studies/mine.yaml").open("w") as file:
        YAML().dump(copy, file)
    finished.edit("params.yaml", f"studies:\n- {STUDY}\n", "studies:\n- mine\n")
    assert "plan" in finished.status()
    assert "workflow/plan.yaml was out of date and has been rewritten" in finished.run("dvc", "repro", expect=255)
    assert "prepare@mine" in finished.status()
    assert f"prepare@{STUDY}" not in finished.status()
    finished.edit("studies/mine.yaml", "my-variants", "our-variants")
    assert "plan" in finished.status()
    assert "workflow/plan.yaml was out of date and has been rewritten" in finished.run("dvc", "repro", expect=255)
    assert "variants@our-variants" in finished.status()


def test_what_is_stashed_replaces_nothing(finished: Project) -> None:
    """A note of the user's among the runs is moved, as DVC would see a change, and never lost."""
    note = finished.root / f"runs/{STUDY}/note.txt"
    for text in ("first", "second"):
        note.write_text(text)
        printed = finished.run("classroom", "reconcile")
        assert f"moved to .classroom/obsolete, as no current setting asks for them: runs/{STUDY}/note.txt" in printed
    stashed = finished.root / f".classroom/obsolete/runs/{STUDY}"
    assert {path.read_text() for path in stashed.glob("note.txt*")} == {"first", "second"}


def test_a_seed_that_leaves_and_returns_is_not_trained_again(finished: Project) -> None:
    """Results beyond today's settings step aside, so that a clone agrees, and come back with the setting.

    Even what was never recorded, as its engine was killed before: what is stashed is then the only copy.
    """
    run, lock = f"runs/{STUDY}/student/seed-1", (finished.root / "dvc.lock").read_text()
    finished.set(seeds=[0, 1])
    finished.snakemake(run)
    (finished.root / "dvc.lock").write_text(lock)
    shutil.rmtree(finished.root / ".dvc/cache/runs")
    finished.set(seeds=[0])
    assert finished.planned() == Counter()
    finished.set(seeds=[0, 1])
    assert finished.planned(run) == Counter(), "and is recorded now"
    finished.set(seeds=[0])
    assert finished.planned() == Counter()
    finished.commit("one seed again")
    finished.run("dvc", "push", "--quiet")
    clone = finished.clone(finished.root.parent / "clone")
    assert clone.planned() == Counter()
    finished.set(seeds=[0, 1])
    assert finished.planned(run) == Counter()
