"""A tree of its own, with the code of this tree, in which commands run as a user would type them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.studies import ROOT
from bench.timing import clock


class Project:
    def __init__(self, root: Path) -> None:
        """Copies what git tracks here to the empty folder `root`, results aside, and makes it a repository."""
        self.root = root
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{root / 'src'}:{os.environ.get('PYTHONPATH', '')}",
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@example.org",
            "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@example.org",
        }  # fmt: skip
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8",
        ).stdout.splitlines()  # fmt: skip
        for name in listed:
            if (ROOT / name).is_file() and not name.startswith(("reports/", "dvc.lock")):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, root / name)
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "bench")

    def run(self, *command: str) -> str:
        """What the command printed. Raises RuntimeError, with the end of it, if it fails."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, encoding="utf-8",
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def seconds(self, *command: str) -> float:
        """How long the command takes, with its own processes."""
        before, started = _children(), clock()
        self.run(*command)
        return _children() - before if "BENCH_CPU_TIME" in os.environ else clock() - started

    def read(self, path: str) -> dict[str, Any]:
        return YAML().load((self.root / path).read_text(encoding="utf-8"))

    def set(self, path: str, **sections: Any) -> None:
        """Replaces top-level sections of a file of settings."""
        settings = self.read(path)
        settings.update(sections)
        with (self.root / path).open("w", encoding="utf-8") as file:
            YAML().dump(settings, file)


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
