"""A project on the smallest configuration, driven by the real Snakemake and DVC."""

from __future__ import annotations

import compileall
import contextlib
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from PIL import Image, ImageOps
from ruamel.yaml import YAML

from classroom.methods import registry
from classroom.params import BASELINES, FOLDERS, check, load
from classroom.settings.plan import write_plan
from classroom.training.equality import waits_for_teacher
from support import warm
from support.studies import ROOT, STUDY

TRAINABLE = ".classroom/cache/trained.json"
"""Remembers which networks and methods can be trained."""
LONG = 10
"""Epochs in which a training can be caught in the middle."""
VARIANTS = {"joint": ["ml-v3", "kd_ml-v3"], "offline": ["kd_off-v1"]}


class Project:
    """A working tree of Classroom and what a user would type in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        binaries = Path(sys.executable).parent
        self.environment = os.environ | {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(root / "src"),  # the tree's own code, not the installed one
            "PYTHONDONTWRITEBYTECODE": "1",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
        }  # fmt: skip

    def run(self, *command: str, expect: int = 0, timeout: float = 1600) -> str:
        """Runs `command` in the tree and returns what it printed; fails unless it exits with `expect`."""
        plugins = os.pathsep in self.environment["PYTHONPATH"]  # a Snakemake that is loaded finds no more of them
        if command[0] in warm.COMMANDS and not plugins:
            code, printed = warm.run(command, self.root, self.environment)
        else:
            done = subprocess.run(
                command, cwd=self.root, env=self.environment, text=True, timeout=timeout,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            code, printed = done.returncode, done.stdout
        assert code == expect, f"{' '.join(command)}: exit {code}\n{printed[-6000:]}"
        return printed

    def snakemake(self, *arguments: str, expect: int = 0) -> str:
        return self.run("snakemake", "--cores", "2", *arguments, expect=expect)

    def planned(self, *targets: str) -> Counter[str]:
        """Jobs by rule that Snakemake would run for `targets`, else all; runs that train together count as single."""
        printed = self.snakemake("-n", "--", *(targets or ["all"]))
        jobs = Counter({rule: count for rule, count in _jobs(printed).items() if rule not in ("all", "total")})
        for method in itertools.chain(*self.groups(printed)):
            offline = "train_offline" if waits_for_teacher(method) else "train"
            jobs["baseline" if method in BASELINES else offline] += 1
        return jobs

    def groups(self, printed: str) -> list[list[str]]:
        """The methods of each group of runs that train together, in the output of a dry run."""
        outputs = re.findall(r"^rule together_\d+:\n(?:    .*\n)*?    output: (.*)$", printed, re.MULTILINE)
        return [[out.split("/")[2] for out in of_group.split(", ")] for of_group in outputs]

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` ran."""
        return re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments))

    def status(self) -> str:
        return self.run("dvc", "status").strip()

    def copy(self, target: Path) -> Project:
        """The same tree elsewhere, with results, cache and file times."""
        shutil.copytree(self.root, target, symlinks=True)
        return Project(target)

    def clone(
        self, target: Path, *stages: str, enter: Callable[[Project], None] | None = None, remembered: bool = True
    ) -> Project:
        """A fresh clone after `dvc pull` from the remote, of everything or of what these stages need.

        `enter`: what is to be done before one can pull. `remembered`: what can be trained is known as in this tree, as
        trying it takes seconds.
        """
        self.run("git", "clone", "--quiet", str(self.root), str(target))
        clone = Project(target)
        if enter:
            enter(clone)
        clone.run("dvc", "pull", "--quiet", "--run-cache", *(("--with-deps", *stages) if stages else ()))
        if remembered:
            (target / TRAINABLE).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / TRAINABLE, target / TRAINABLE)
        return clone

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert text.count(old) == 1, f"{path}: {old!r} stands there {text.count(old)} times"
        (self.root / path).write_text(text.replace(old, new))

    def settings(self) -> dict[str, Any]:
        """Those of all files, studies and datasets below `study` and `dataset`."""
        return load(self.root / "params.yaml")

    def change(self, key: str, value: object) -> None:
        """Gives a dotted key of the settings another value."""
        settings = self.settings()
        *above, last = key.split(".")
        reduce(getitem, above, settings)[last] = value
        self.set(**settings)

    def weigh(self, variant: str, alpha: float) -> None:
        """Gives S1 of `variant` another alpha."""
        self.change(f"study.{STUDY}.weights.{variant}.S1.alpha", alpha)

    def train_long(self) -> None:
        self.edit("params.yaml", "epochs: 1", f"epochs: {LONG}")

    def set(self, **sections: object) -> None:
        """Replaces top-level sections of the settings."""
        write_settings(self.root, self.settings() | sections)

    def mirror_an_image(self) -> Path:
        """A folder with the same images but one, in the layout of the download."""
        folder = self.root.parent / "images"
        shutil.copytree(self.root / "data/raw/lgg", folder, ignore=shutil.ignore_patterns("about.json", "samples.csv"))
        image = min(folder.rglob("*_1.tif"))
        ImageOps.mirror(Image.open(image)).save(image)
        return folder

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def trainings(project: Project) -> list[psutil.Process]:
    """The `classroom train` processes that run in the project's tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(project.root) and {"train", "--seed"} <= set(process.cmdline()):
                found.append(process)
    return found


def catch(project: Project, method: str = "student") -> psutil.Process:
    """Suspends the training of this baseline, the only one in the tree, as soon as it has written a checkpoint."""
    wait_for((project.root / f"checkpoints/runs/{STUDY}/{method}/seed-0/newest.pt").exists)
    (training,) = trainings(project)
    training.suspend()
    return training


def start(project: Project, *command: str) -> subprocess.Popen:
    """Runs `command` in the tree, in a session of its own; what it prints is appended to the file `printed` there."""
    with (project.root / "printed").open("a") as printed:
        return subprocess.Popen(
            command, cwd=project.root, env=project.environment, start_new_session=True,
            stdout=printed, stderr=printed, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def write_settings(root: Path, settings: dict[str, Any]) -> None:
    """Writes settings, as `load` returns them, into the files that they belong to."""
    settings = dict(settings)
    files = {
        root / folder / f"{name}.yaml": content
        for folder, block in FOLDERS.items()
        for name, content in settings.pop(block).items()
    }
    for path, content in {root / "params.yaml": settings, **files}.items():
        text = io.StringIO()
        YAML().dump(content, text)
        if not path.exists() or path.read_text() != text.getvalue():
            path.write_text(text.getvalue())
    write_plan(check(load(root / "params.yaml")), root)


def _jobs(printed: str) -> dict[str, int]:
    return {rule: int(count) for rule, count in re.findall(r"^([a-z_]+) +(\d+)$", printed, re.MULTILINE)}


def checkout(target: Path) -> Project:
    """The repository as it stands here, uncommitted changes included, as a repository of its own."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")  # fmt: skip
    target.mkdir(parents=True, exist_ok=True)
    for name in filter(None, tracked):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "reports/", "dvc.lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    compileall.compile_dir(target / "src/classroom", quiet=2)  # once, for all copies
    project = Project(target)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    return project


def add_comparison(settings: dict[str, Any], study: str, method: str, tuned: str) -> None:
    """A published method next to ours, and a search of another one's weights."""
    of_study = settings["study"][study]
    task = of_study["task"]
    settings["comparison"] |= {task: [method]}
    settings["tune"] |= {"factors": [0.1], task: {"studies": [study], "methods": [tuned]}}
    of_study["reports"]["comparison"] = "table10"
    of_study["methods"] = {
        name: {"options": kind().model_dump(mode="json"), "weights": dict(kind.weights)}
        for name, kind in registry.published(task).items()
        if name in (method, tuned)
    }
    if tuned == "skd":
        of_study["methods"]["skd"]["options"]["adversarial"] = False  # the discriminator needs larger images


EXTRA_REPORTS = ("comparison", "cka", "samples", "pictures", "deploy")


def only(settings: dict[str, Any], *studies: str) -> dict[str, Any]:
    """These settings with a few studies and variants, one epoch each, no search, no reports but the usual ones."""
    settings["studies"] = list(studies)
    settings["variants"] = VARIANTS
    for study in settings["study"].values():
        study["reports"] = {kind: name for kind, name in study["reports"].items() if kind not in EXTRA_REPORTS}
    settings["grid"]["studies"] = []
    for task in ("classification", "segmentation"):
        settings["comparison"][task] = []
        settings["tune"][task] = {"studies": [], "methods": []}
    settings["training"]["epochs"] = 1
    return settings


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Project:
    """A project that the first test process to need it makes, in the empty folder it is given, for all of them."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            made.touch()
    return Project(folder / "project")


def publish(project: Project) -> None:
    """Records and commits the results, and pushes them to a DVC remote next to the project."""
    project.run("classroom", "reconcile")
    project.run("dvc", "remote", "add", "--quiet", "--default", "store", str(project.root.parent / "store"))
    project.commit("results")
    project.run("dvc", "push", "--quiet", "--run-cache")
