"""What the two engines cost: plans, no-op runs, the overhead of a job, and how that grows with the number of runs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import studies
from bench.project import Project
from bench.timing import Point, spread

TOYS = (50, 100, 200, 400)
JOB = "exchange@table1"
FINISH = """
import shutil
from pathlib import Path
from classroom.engines import graph, store
stages = graph.load()
for folder in (".classroom/manifests", "data/raw", "data/prepared", "data/splits", "runs", "results"):
    shutil.rmtree(folder, ignore_errors=True)  # of the demo
for stage in stages.values():
    for out in map(Path, stage.outputs):
        for file in [out] if out.suffix else [out / f"file-{number}" for number in range(5)]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(stage.name + file.name)
for path in {path for stage in stages.values() for path in stage.dependencies}:
    if not Path(path).exists():  # one file of a folder
        Path(path).write_text(path)
store.commit(stages.values())
"""
"""Every output is there, a file of a few bytes or a folder of five, and is recorded as fresh."""


TRAININGS = "from classroom.engines import graph; print(sum(stage.is_training for stage in graph.load().values()))"


def measure() -> Point:
    point = Point("Engines")
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        _per_job(point, project)
        project.run("classroom", "scale", "paper")
        project.run("classroom", "check")  # asks timm about every network, and remembers: once, so not counted
        trainings = project.run("python", "-c", TRAININGS).strip()
        scale = f"scale paper, {trainings} trainings"
        seconds = [project.seconds("snakemake", "-n", "--quiet=rules") for _ in range(2)]
        point.at_most(f"`snakemake -n` of everything at {scale}, a fresh clone", spread(seconds), 6, " s")
        _finish(project)
        seconds = [project.seconds("snakemake", "-n", "--quiet=rules") for _ in range(2)]
        point.at_most(f"`snakemake -n` at {scale}, all done", spread(seconds), 6, " s")
        seconds = [project.seconds("classroom", "reconcile") for _ in range(3)]
        point.at_most(f"`classroom reconcile` at {scale}, all done", spread(seconds), 1, " s")
        for what, command, limit in (
            (f"no-op `dvc status` at {scale}", ("status",), 7),
            (f"no-op `dvc repro` at {scale}", ("repro",), 10),
            (f"`dvc repro` of a job of no length at {scale}", ("repro", "--force", "--single-item", JOB), 7),
        ):
            project.run("dvc", *command)  # the job's outputs are made up until now
            point.at_most(what, spread([project.seconds("dvc", *command) for _ in range(2)]), limit, " s")
    rows = []
    for runs in TOYS:
        with tempfile.TemporaryDirectory() as folder:
            project = finished(Path(folder), runs)
            commands = (("snakemake", "-n", "--quiet=rules"), ("dvc", "status"), ("dvc", "repro"))
            rows.append([runs, *(project.seconds(*command) for command in commands)])
    point.at_most(f"no-op `dvc status`, {TOYS[-1]} toy runs", rows[-1][2], 10, " s")
    point.at_most(f"no-op `dvc repro`, {TOYS[-1]} toy runs", rows[-1][3], 10, " s")
    for column, command in ((1, "snakemake -n"), (2, "dvc status"), (3, "dvc repro")):
        early = (rows[-2][column] - rows[0][column]) / (TOYS[-2] - TOYS[0])
        late = (rows[-1][column] - rows[-2][column]) / (TOYS[-1] - TOYS[-2])
        point.at_most(f"`{command}`: seconds per further run, {TOYS[-2]} to {TOYS[-1]} ÷ before", late / early, 1.5)
    _plot(rows)
    point.notes.append("![seconds by number of runs](engines.svg)")
    point.tables.append((("runs, all fresh", "snakemake -n, s", "dvc status, s", "dvc repro, s"), rows))
    return point


def _plot(rows: Sequence[Sequence[float]]) -> None:
    """Into bench/engines.svg, which results.md shows."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    runs, *taken = zip(*rows, strict=True)
    for name, seconds, marker in zip(("snakemake -n", "dvc status", "dvc repro"), taken, "os^", strict=True):
        axes.plot(runs, seconds, marker=marker, label=name)
    axes.set(xlabel="runs, all fresh", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(studies.ROOT / "bench" / "engines.svg", metadata={"Date": None})
    plt.close(figure)


REPORTS = ("variants", "baselines", "fidelity", "architecture")
"""Of the study: those that every study has."""


def finished(root: Path, runs: int) -> Project:
    """A project of that many trainings, whose every output is there (a file of a few bytes) and recorded as fresh."""
    project = Project(root)
    study = studies.SEGMENTATION
    variants = ["ml-v1", "ml-v2", "ml-v3"]
    project.run("classroom", "use", study)
    params = project.read("params.yaml")
    project.set(
        "params.yaml",
        seeds=list(range(runs // (len(variants) + 2))),  # + 2: teacher and student
        variants={"joint": variants, "offline": []},
        grid=params["grid"] | {"studies": []},
        tune=params["tune"] | _of_both({"studies": [], "methods": []}),
    )
    reports = project.read(f"studies/{study}.yaml")["reports"]
    project.set(f"studies/{study}.yaml", reports={kind: reports[kind] for kind in REPORTS})
    _finish(project)
    return project


def _finish(project: Project) -> None:
    project.run("classroom", "check")  # it writes the plan, from which the jobs follow
    project.run("python", "-c", FINISH)
    project.run("classroom", "reconcile")


def _of_both(settings: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    return {task: dict(settings) for task in ("classification", "segmentation")}


def _per_job(point: Point, project: Project) -> None:
    """Snakemake's time for jobs beyond its planning and what the same commands take one after the other."""
    targets = ["reports/table1.md", "data/splits/lgg-resnet18.parquet", "data/splits/lgg-mobilenet.parquet"]
    targets += ["data/splits/ham10000-classification.parquet", "data/splits/ham10000-segmentation.parquet"]
    project.run("snakemake", "--cores", "1", "--quiet=all", "--", *targets)
    studies_split = [Path(target).stem for target in targets[1:]]
    commands = [("classroom", "report", "table1"), *(("classroom", "split", study) for study in studies_split)]
    forced = ("snakemake", "--cores", "1", "--quiet=all", "--force", "--", *targets)
    overheads = []
    for _ in range(3):
        planning = project.seconds("snakemake", "-n", "--quiet=all", "--force", "--", *targets)
        alone = sum(project.seconds(*command) for command in commands)
        overheads.append((project.seconds(*forced) - planning - alone) / len(commands))
    point.at_most("a job's overhead under Snakemake", spread(overheads), 0.5, " s")
