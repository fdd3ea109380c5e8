"""From starting a command to its first useful moment, and what is imported on the way."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench import studies
from bench.project import Project
from bench.timing import Point, spread

FIRST_STEP = """
import os, sys, time
from classroom.progress import Show
from classroom.cli import main

def first_step(self, *progress):
    times = os.times()
    print(json.dumps([time.time(), times.user + times.system]), file=sys.stdout, flush=True)
    os._exit(0)

import json
Show.__call__ = first_step
sys.argv = ["classroom", "train", "{study}", "student", "--seed", "0"]
main()
"""
"""Ends where a training has taken its first step."""


def measure(turns: int = 5) -> Point:
    point = Point("Start-up")
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        help_seconds = [project.seconds("classroom", "--help") for _ in range(turns + 1)][1:]
        point.at_most("`classroom --help`", spread(help_seconds), 0.5, " s")
        for study, dataset in ((studies.SEGMENTATION, "lgg"), (studies.CLASSIFICATION, "histopathologic")):
            project.run("classroom", "fetch", dataset)
            project.run("classroom", "prepare", study)
            project.run("classroom", "split", study)
            started = [project.seconds("python", "-c", FIRST_STEP.format(study=study)) for _ in range(turns + 1)][1:]
            point.at_most(f"job start to first step, {studies.task(study)}", spread(started), 6, " s")
        rows = imports(
            project, "import classroom.training.run, classroom.training.make, timm, segmentation_models_pytorch"
        )
    point.tables.append((("imported by a training", "modules", "s"), rows[:12]))
    return point


def imports(project: Project, statement: str) -> list[list[object]]:
    """By top-level package: modules and their own seconds, slowest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        cwd=project.root, env=project.environment, capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    seconds: dict[str, float] = defaultdict(float)
    modules: dict[str, int] = defaultdict(int)
    for line in done.stderr.splitlines():
        if line.startswith("import time:") and "cumulative" not in line:
            own, _, name = line.removeprefix("import time:").split("|")
            package = name.strip().split(".")[0]
            seconds[package] += int(own) / 1e6
            modules[package] += 1
    return [[name, modules[name], taken] for name, taken in sorted(seconds.items(), key=lambda item: -item[1])]
