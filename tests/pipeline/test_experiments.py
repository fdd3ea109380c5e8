"""DVC's experiments next to Snakemake: each runs what it changes, none is lost, and any can be taken over."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import time
from collections import Counter

import psutil

from support.jobs import ONE_VARIANT, ONE_WEIGHT, rules
from support.project import Project, wait_for
from support.studies import STUDY

TABLE, STAGE = "reports/table4.md", "variants@table4"
FILE = f"studies/{STUDY}.yaml"
SHOWN = "weights.kd_ml-v3.S1.alpha"
WEIGHT = f"{FILE}:{SHOWN}"


def shown(project: Project) -> dict[str, dict[str, str]]:
    """`dvc exp show` by the experiments' names."""
    printed = project.run(
        "dvc", "exp", "show", "--csv", "--only-changed", "--drop", "(data|runs|results|reports|src|workflow)/.*"
    )
    table = list(csv.DictReader(io.StringIO(printed)))
    assert len(table[0]) <= 8, f"too many columns to read: {list(table[0])}"
    return {row["Experiment"] or row["rev"]: row for row in table}


def ran(printed: str) -> Counter[str]:
    return rules(re.findall(r"Running stage '([a-z_]+)", printed))


def test_experiments_run_what_they_change(finished: Project) -> None:
    """T13: in a folder of their own with --temp, or here; `dvc gc` then takes nothing that is needed."""
    before = {path: (finished.root / path).read_bytes() for path in (FILE, "dvc.lock", "reports/table4.csv")}
    aside = ("dvc", "exp", "run", "--temp", "--name", "aside", "-S", f"{WEIGHT}=0.3", STAGE)
    assert ran(finished.run(*aside)) == ONE_WEIGHT
    assert {path: (finished.root / path).read_bytes() for path in before} == before
    assert finished.planned() == Counter()
    row = shown(finished)["aside"]
    assert row[SHOWN] == "0.3"
    assert float(row["iou.kd_ml-v3"]) >= 0

    finished.run("dvc", "exp", "apply", "aside")
    assert finished.planned(TABLE) == Counter(), "an applied experiment is fresh for Snakemake"
    finished.run("git", "checkout", "--quiet", ".")
    assert finished.planned() == Counter()

    assert ran(finished.run("dvc", "exp", "run", "-S", f"{WEIGHT}=0.4", STAGE)) == ONE_WEIGHT
    assert finished.planned(TABLE) == Counter()

    # What the last commit, the experiment aside and the workspace stand on is kept.
    obsolete = finished.root / ".classroom/obsolete/runs/kept"
    obsolete.parent.mkdir(parents=True)
    obsolete.write_text("of a seed that left")
    finished.run("dvc", "gc", "--all-branches", "--all-experiments", "--force")
    assert finished.planned(TABLE) == Counter()
    finished.run("git", "checkout", "--quiet", ".")
    finished.run("dvc", "exp", "apply", "aside")
    assert finished.planned(TABLE) == Counter()
    finished.run("git", "checkout", "--quiet", ".")
    finished.run("dvc", "checkout", "--quiet")
    assert finished.planned() == Counter()
    assert {path: (finished.root / path).read_bytes() for path in before} == before

    # Kept for the workspace alone, the others cannot come back: they are made again, not mistaken.
    finished.run("dvc", "gc", "--workspace", "--force")
    assert finished.status() == "Data and pipelines are up to date."
    assert finished.planned() == Counter()
    finished.weigh("kd_ml-v3", 0.4)
    assert finished.planned() == ONE_VARIANT
    assert obsolete.exists()


def test_an_experiment_aside_runs_exactly_what_a_change_touches(finished: Project) -> None:
    """In a folder of its own, for the results of the student alone; what else it needs comes from the cache."""
    after = Counter(baseline=1, evaluate_baseline=1)
    images = Counter(fetch=1, prepare=1, split=1)
    of_lgg = "datasets/lgg.yaml:"
    directory = ("-S", f"{of_lgg}source=directory", "-S", f"{of_lgg}directory={finished.mirror_an_image()}")
    for arguments, due in {("-S", "seeds=[0,1]"): after, directory: images + after}.items():
        printed = finished.run("dvc", "exp", "run", "--temp", *arguments, f"evaluate_student@{STUDY}")
        assert ran(printed) == due, arguments
    finished.edit("src/classroom/core/losses.py", "return 1 - 2 * overlap", "return 1 - 2.0 * overlap")
    printed = finished.run("dvc", "exp", "run", "--temp", f"evaluate_student@{STUDY}")
    assert ran(printed) == after
    finished.run("git", "checkout", "--quiet", ".")
    assert finished.planned() == Counter()


def workers(project: Project) -> list[psutil.Process]:
    """What `dvc queue start` leaves running in the background."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(project.root)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def start_queue(project: Project) -> None:
    start = ["dvc", "queue", "start", "--jobs", "1"]
    subprocess.run(  # its worker holds on to what it is given to print to
        start, cwd=project.root, env=project.environment, check=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_an_experiment_whose_worker_was_killed_is_not_running(finished: Project) -> None:
    """For DVC it would be for ever."""
    finished.change("training.epochs", 500)
    finished.run("dvc", "exp", "run", "--queue", "--name", "tried", "-S", f"{WEIGHT}=0.2", f"train@{STUDY}-kd_ml-v3-0")
    start_queue(finished)
    checkpoint = f"tmp*/checkpoints/runs/{STUDY}/kd_ml-v3/seed-0/newest.pt"
    wait_for(lambda: any((finished.root / ".dvc/tmp/exps").glob(checkpoint)))
    for process in workers(finished):
        process.kill()
    psutil.wait_procs(workers(finished), timeout=30)
    assert "Running" in finished.run("dvc", "queue", "status")
    printed = finished.run("classroom", "reconcile")
    assert "experiments that were killed, and are listed as failed now: tried. Queue them again to continue." in printed
    assert re.search(r"tried +\S+ \S+ +Failed", finished.run("dvc", "queue", "status"))
    assert "killed" not in finished.run("classroom", "reconcile")


def test_a_queue_of_two_weights(finished: Project) -> None:
    """Queued, run in the background, shown side by side, one taken over, and what it changed in numbers."""
    finished.run("dvc", "exp", "run", "--queue", "-S", f"{WEIGHT}=0.2,0.3", STAGE)
    start_queue(finished)
    try:
        deadline = time.monotonic() + 600
        while (printed := finished.run("dvc", "queue", "status")).count("Success") < 2:
            assert "Failed" not in printed, finished.run("dvc", "queue", "logs")
            assert time.monotonic() < deadline, printed
            time.sleep(4)  # asking takes DVC a second of the CPU
        finished.run("dvc", "queue", "stop", "--kill")
    finally:
        _, alive = psutil.wait_procs(workers(finished), timeout=30)
        for process in alive:
            process.kill()
    assert finished.planned() == Counter(), "the tree itself was left alone"

    tried = {row[SHOWN]: name for name, row in shown(finished).items() if name not in ("workspace", "main", "")}
    assert tried.keys() == {"0.2", "0.3"}
    finished.run("dvc", "exp", "apply", tried["0.3"])
    assert finished.planned() == ONE_VARIANT - ONE_WEIGHT
    file = "reports/table4.json"
    before = json.loads(finished.run("git", "show", f"HEAD:{file}"))["iou"]
    now = json.loads((finished.root / file).read_text())["iou"]
    moved = {f"iou.{name}" for name in now if now[name] != before[name]}
    assert moved <= {"iou.kd_ml-v3"}
    assert json.loads(finished.run("dvc", "metrics", "diff", "--json")).get(file, {}).keys() == moved
