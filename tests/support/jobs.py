"""The jobs of both engines, and how many of which rule a change causes in the tiny configuration."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from support.project import Project

ONE_WEIGHT = Counter(train=1, evaluate=1, variants=1)
"""Of one variant, for its table."""
# Of the variant that stands for ours in Table 10, for everything.
ONE_VARIANT = Counter(
    train=1,
    evaluate=1,
    variants=1,
    medical=1,
    fidelity=1,
    cost=1,
    evaluate_methods=1,
    comparison=1,
    curves=1,
    agreement=1,
    pictures=1,
    samples=1,
    cka=1,
    cka_figure=1,
    cka_table=1,
    export=2,
    measure=1,
    deploy=1,
    site=1,
)
TRAININGS = Counter(baseline=2, train=2, train_offline=1, grid=1, method=1, tune_method=1)
COMPARED = Counter(variants=1, medical=1, fidelity=1)
TABLES = COMPARED + Counter(baselines=1, grid_search=1, method_search=1, comparison=1)
DEPLOYED = Counter(export=3, measure=1, deploy=1)  # of the first seed
AFTER_TRAININGS = (
    Counter(evaluate_baseline=2, evaluate=3, cost=1, samples=1, evaluate_methods=1, curves=1, agreement=1, pictures=1)
    + Counter(cka=3, cka_figure=1, cka_table=1, site=1)
    + DEPLOYED
    + TABLES
)


RULE_OF = {
    "method_segmentation": "method", "tune_segmentation": "tune_method", "method_adversarial": "method",
    "tune_adversarial": "tune_method",
    "evaluate_methods_segmentation": "evaluate_methods",
    "evaluate_offline": "evaluate", "evaluate_teacher": "evaluate_baseline", "evaluate_student": "evaluate_baseline",
    "cka_offline": "cka", "export_teacher": "export",
}  # fmt: skip
"""DVC's stages whose rule has another name: some have a stage for each task, or for each network."""


def rules(stages: Iterable[str]) -> Counter[str]:
    names = (stage.split("@")[0] for stage in stages)
    return Counter(RULE_OF.get(name, name) for name in names)


def jobs_of_snakemake(project: Project) -> dict[tuple[str, ...], tuple[str, set[str]]]:
    """Command and inputs of every job, by its sorted outputs, from what a forced dry run prints."""
    printed = project.snakemake("-n", "-p", "--forceall", "all")
    jobs = {}
    for block in re.split(r"\n(?=(?:local)?rule )", printed):
        found = {key: value for key, value in re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE)}
        command = re.search(r"^Shell command: (?:export PATH=.*; )?(classroom .*) > \S+ 2>&1$", block, re.MULTILINE)
        if command:
            outputs = tuple(sorted(found["output"].split(", ")))
            jobs[outputs] = (command.group(1), set(found["input"].split(", ")))
    return jobs


def jobs_of_dvc(project: Project) -> dict[tuple[str, ...], tuple[str, set[str]]]:
    printed = project.run(
        "python", "-c",
        "import json; from dataclasses import asdict; from classroom.engines import graph;"
        "print(json.dumps([asdict(stage) for stage in graph.load().values()]))",
    )  # fmt: skip
    stages = json.loads(printed)
    outputs = [out for stage in stages for out in stage["outputs"]]
    jobs = {}
    for stage in stages:
        if not stage["outputs"]:
            continue  # the check of the plan, which Snakemake does at its start
        inputs = set()
        for dependency in stage["dependencies"]:
            within = {out for out in outputs if out.startswith(f"{dependency}/")}
            around = {out for out in outputs if dependency.startswith(f"{out}/")}
            inputs |= within or around or {dependency}
        jobs[tuple(sorted(stage["outputs"]))] = (stage["command"], inputs)
    return jobs
