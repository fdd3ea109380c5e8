"""Random SIGKILLs over a real run: `python tests/chaos.py --kills 100 --scale demo`.

Starts Snakemake, or `dvc repro` with `--stage variants@table4`, and kills it, one of its jobs, or everything at once,
at seeded random moments and in the middle of writes; starts it again as a user would, with the same command, until it
is through; then compares every file with those of an undisturbed run, and counts the jobs that were done more than
once. A run that is through before it was killed often enough is followed by another.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from classroom.params import load
from support.project import Project, checkout, only, write_settings
from support.studies import STUDY, shrink

KINDS = ("engine", "job", "everything")
"""What is killed, in turn: the engine alone, so that its jobs go on without it; one job; every process of the tree."""

WRITES = {
    "checkpoint": "checkpoints/*/*/*/*/newest.pt.*.tmp",
    "run's files": "runs/*/*/*/.*.tmp",
    "images": "data/*/.*.tmp",
    "arrays": "data/*/*/.*.tmp",
    "results": "results/**/.*.tmp",
    "report": "reports/.*.tmp",
    "manifest": ".classroom/manifests/.*.tmp",
    "dvc.lock": ".dvc.lock.*.tmp",
}
"""What lies in the tree while something is being written."""

EARLY = (0.5, 8)
"""Seconds after a start."""

COMPARED = ("data", "runs", "results", "reports")
MANIFEST = ("stage", "command", "params", "outputs")
"""What a manifest says that does not depend on the moment or the machine."""

FINISHED = re.compile(r"^(\S+?)(?::| \(\.csv| seed \d+: test) ", re.MULTILINE)


@dataclass
class Report:
    """What was done to a run, or to several, and what became of it."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind and moment."""
    runs: int = 0
    starts: int = 0
    seconds: float = 0.0
    twice: dict[str, int] = field(default_factory=dict)
    """Jobs that were finished more than once, by what they make."""
    different: list[str] = field(default_factory=list)
    """Files that are not as the undisturbed run left them."""
    compared: int = 0
    """Files that were looked at for that."""
    left_over: list[str] = field(default_factory=list)
    to_do: int = 0

    def __str__(self) -> str:
        kinds = {kind: sum(n for (k, _), n in self.kills.items() if k == kind) for kind in KINDS}
        lines = [
            f"{self.runs} runs, {self.kills.total()} kills in {self.seconds:.0f} s, {self.starts} starts: "
            + ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        ]
        moments = Counter({moment: 0 for _, moment in self.kills})
        for (_, moment), count in self.kills.items():
            moments[moment] += count
        lines += [f"  {count:4d} × {moment}" for moment, count in moments.most_common()]
        lines += [f"done {count} times: {job}" for job, count in self.twice.items()] or ["nothing was done twice"]
        lines += [f"different: {path}" for path in self.different]
        lines += [f"{self.compared - len(self.different)} of {self.compared} files as in the undisturbed run"]
        lines += [f"left over: {path}" for path in self.left_over]
        lines += [f"{self.to_do} jobs that Snakemake would still do"]
        return "\n".join(lines)


class Chaos:
    """Disturbs `snakemake TARGET`, or `dvc repro STAGE`, in a project's tree."""

    def __init__(self, project: Project, target: str, seed: int, pause: tuple[float, float], stage: str = "") -> None:
        self.project = project
        self.target, self.stage = target, stage
        self.command = ("dvc", "repro", stage) if stage else ("snakemake", "--cores", "2", target)
        self.random = random.Random(seed)
        self.pause = pause
        self.output = project.root.parent / f"{project.root.name}.output"
        self.manifests: dict[str, set[str]] = {}

    def run(
        self, kills: int, reference: Path, report: Report, say: Callable[[str], None] = print, seconds: float = 3600
    ) -> Report:
        """Kills until the report counts so many, or the run is through, and lets it end. Fails if it does not."""
        began, starts, records_itself = time.monotonic(), 0, True
        self.output.unlink(missing_ok=True)
        while True:
            starts += 1
            if self.stage and not records_itself:  # as docs/explanation/engines.md says
                self.project.run("classroom", "reconcile")
            records_itself = False
            with self._started() as running:
                while report.kills.total() < kills and self._wait(running):
                    kind = KINDS[report.kills.total() % len(KINDS)]
                    records_itself = kind == "engine" and any(not self._is_done(job) for job in self._jobs())
                    if (moment := self._kill(kind, running)) is not None:
                        report.kills[kind, moment] += 1
                        say(f"{time.monotonic() - began:6.0f} s  {report.kills.total():3d}  {kind}: {moment}")
                    if kind != "job":
                        running.wait()
                        break
                while running.poll() is None:
                    self._note_manifests()
                    time.sleep(0.05)
                    assert time.monotonic() - began < seconds, self.output.read_text()[-4000:]
            if running.returncode == 0:
                break
            assert starts <= 2 * kills + 5, "it never ends:\n" + self.output.read_text()[-4000:]
        self._note_manifests()
        report.runs += 1
        report.starts += starts
        report.seconds += time.monotonic() - began
        report.twice |= self._done_twice()
        report.different += different(self.project.root, reference)
        report.compared += len(compared(self.project.root))
        report.left_over += self._left_over()
        report.to_do += sum(self.project.planned(self.target).values())
        return report

    @contextlib.contextmanager
    def _started(self) -> Iterator[subprocess.Popen]:
        with self.output.open("a") as output:
            running = subprocess.Popen(
                self.command, cwd=self.project.root, start_new_session=True, stdin=subprocess.DEVNULL,
                env=self.project.environment | {"CLASSROOM_CHECKPOINT_MINUTES": "0.01"},
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            yield running

    def _wait(self, running: subprocess.Popen) -> bool:
        """Waits for a moment to kill; whether the run still goes on.

        One kill in three comes early: Snakemake starts, reconciles, is between jobs. The others come a while after a
        job has begun, some of them after a few more jobs have ended, some in the middle of a certain kind of write, if
        that comes to pass meanwhile.
        """
        early = self.random.random() < 1 / 3
        write = None if early else self.random.choice([None] * len(WRITES) + [*WRITES.values()])
        pause = self.random.uniform(*(EARLY if early else self.pause))
        jobs = len(self.manifests) + self.random.choice((0, 0, 1, 2))
        while not early and running.poll() is None and not (len(self.manifests) >= jobs and self._jobs()):
            self._note_manifests()
            time.sleep(0.05)
        until = time.monotonic() + pause
        while time.monotonic() < until and running.poll() is None:
            if write and any(self.project.root.glob(write)):
                break
            self._note_manifests()
            time.sleep(0.002 if write else 0.05)
        return running.poll() is None

    def _jobs(self) -> list[psutil.Process]:
        return [process for process, command in self._processes() if "/classroom " in command]

    def _kill(self, kind: str, running: subprocess.Popen) -> str | None:
        """Kills and says what was under way; None if there was no such process."""
        everyone = list(self._processes())
        jobs = self._jobs()
        moment = self._moment([command for _, command in everyone])
        victims = {
            "engine": [psutil.Process(running.pid)] if running.poll() is None else [],
            "job": [self.random.choice(jobs)] if (jobs := [job for job in jobs if not self._is_done(job)]) else [],
            "everything": [process for process, _ in everyone],
        }[kind]
        for process in victims:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return moment if victims else None

    def _is_done(self, job: psutil.Process) -> bool:
        """Whether it has left its manifest and is only about to exit. Killed then, it is done again, by right:

        Snakemake deletes what a job made that did not end well.
        """
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            command, began = " ".join(job.cmdline()), job.create_time()
            left = [path.read_text() for path in self._manifests() if path.stat().st_mtime >= began]
            return any(command.endswith(json.loads(manifest)["command"]) for manifest in left)
        return False

    def _manifests(self) -> list[Path]:
        patterns = ("runs/*/*/*/manifest.json", ".classroom/manifests/*.json")
        return [path for pattern in patterns for path in self.project.root.glob(pattern)]

    def _processes(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(self.project.root):
                    yield process, " ".join(process.cmdline())

    def _moment(self, commands: list[str]) -> str:
        """What the tree's processes are at."""
        writing = [name for name, pattern in WRITES.items() if any(self.project.root.glob(pattern))]
        jobs = {match[1] for line in commands if (match := re.search(r"/classroom (\S+)", line))}
        at = [f"writing {name}" for name in writing]
        at += [name for name in ("dvc", "--unlock", "--cleanup-metadata") if f" {name} " in " ".join(commands)]
        at += sorted(jobs)
        return ", ".join(at) or "starting, or between jobs"

    def _note_manifests(self) -> None:
        """A job leaves a manifest; one of other content means that it was done again."""
        for manifest in self._manifests():
            with contextlib.suppress(FileNotFoundError):
                content = hashlib.md5(manifest.read_bytes()).hexdigest()
                self.manifests.setdefault(str(manifest.relative_to(self.project.root)), set()).add(content)

    def _done_twice(self) -> dict[str, int]:
        """By manifest, or by what the job said when it was done, whichever was seen more than once."""
        said = Counter(FINISHED.findall(self.output.read_text(errors="replace")))
        said = {job: count for job, count in said.items() if job.startswith((*COMPARED, STUDY))}
        seen = {manifest: len(contents) for manifest, contents in self.manifests.items()} | said
        return {job: count for job, count in seen.items() if count > 1}

    def _left_over(self) -> list[str]:
        root = self.project.root
        found = [path for folder in COMPARED for path in (root / folder).rglob(".*.tmp")]
        found += [path for path in (root / "checkpoints").rglob("*") if path.is_file()]
        found += [path for path in (root / ".git/index.lock", *root.glob(".*.tmp")) if path.exists()]
        return [str(path.relative_to(root)) for path in found]


def compared(root: Path) -> list[Path]:
    """The files that do not tell how long something took, relative to the root."""
    paths = [path for folder in COMPARED for path in sorted((root / folder).rglob("*")) if path.is_file()]
    names = [path.relative_to(root) for path in paths if not path.name.startswith((".snakemake", "cost."))]
    return [name for name in names if not name.is_relative_to("results/costs")]


def different(root: Path, reference: Path) -> list[str]:
    """Files of a tree that are not byte for byte those of another; of manifests what does not depend on time."""
    return [
        str(name)
        for name in compared(root)
        if not (reference / name).exists() or _content(root / name) != _content(reference / name)
    ]


def _content(path: Path) -> bytes | dict:
    if path.name == "manifest.json":
        manifest = json.loads(path.read_text())
        return {key: manifest[key] for key in MANIFEST}
    return path.read_bytes()


def _project(scale: str, root: Path) -> Project:
    """A fresh tree at this scale; `tiny` is the tests' own, with all twelve variants and time to be killed in."""
    project = checkout(root)
    if scale == "tiny":
        committed = load(root / "params.yaml")
        settings = only(shrink(committed), STUDY) | {"variants": committed["variants"]}
        settings["training"]["epochs"] = 4
        write_settings(root, settings)
    else:
        project.run("classroom", "scale", scale)
    project.commit(scale)
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--scale", default="demo", help="demo, small, or tiny as in the tests")
    parser.add_argument("--target", default="reports/table4.md")
    parser.add_argument("--stage", default="", help="of the target, for `dvc repro`; else Snakemake is started")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, nargs=2, default=(1, 9), metavar=("FROM", "TO"), help="seconds")
    parser.add_argument("--reference", type=Path, help="a tree that an undisturbed run left; made if there is none")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder, and kept, if none is named")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    print(f"working in {folder}", flush=True)
    reference = arguments.reference
    if reference is None:
        undisturbed = _project(arguments.scale, folder / "undisturbed")
        undisturbed.run("snakemake", "--cores", "2", arguments.target, timeout=6 * 3600)
        reference = undisturbed.root
    report = Report()
    while report.kills.total() < arguments.kills:
        project = _project(arguments.scale, folder / f"disturbed-{report.runs}")
        chaos = Chaos(project, arguments.target, arguments.seed + report.runs, tuple(arguments.pause), arguments.stage)
        chaos.run(arguments.kills, reference, report, lambda line: print(line, flush=True), seconds=6 * 3600)
    print(report)
    sys.exit(bool(report.different or report.twice or report.left_over or report.to_do))


if __name__ == "__main__":
    main()
