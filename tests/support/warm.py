"""Runs the installed commands in forks of a process that has loaded their libraries, which takes half of their time.

As a script it is that process, one for each process that runs tests. No code of `classroom` is in it: each fork loads
that of the tree it works in.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMANDS = ("classroom", "snakemake")
"""Not `dvc`, whose jobs look for a process of that name."""
LIBRARIES = ("dvc.repo.reproduce", "dvc.stage.cache", "pandas", "pydantic", "snakemake.cli", "typer")


def run(command: Sequence[str], root: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of a command in `root`, and all that it printed."""
    server = _server()
    with tempfile.NamedTemporaryFile("r") as printed:
        task = {"command": command, "root": str(root), "environment": {**environment}, "printed": printed.name}
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), printed.read()


@functools.cache
def _server() -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "DVC_NO_ANALYTICS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(server.communicate)  # the end of its input is its end
    return server


def _serve() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        task = json.loads(line)
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        else:
            _work(**task)


def _work(command: list[str], root: str, environment: dict[str, str], printed: str) -> None:
    file = os.open(printed, os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.chdir(root)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=command[0])
    sys.exit(script.load()())


if __name__ == "__main__":
    _serve()
