"""Every command on a disk that is full after so many bytes, twice as many each time until it fits.

`python tests/support/full_disk.py MODE TREE SCRATCH COMMANDS` prints as JSON what happened. The disk of MODE `disk` is
a small one in memory, mounted where nobody else sees it, so this needs `unshare --mount`; MODE `file` limits the size
of every single file instead, which any user may. Commands run in forks of this process, as loading torch for
each takes seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = 4096
NOTES = (".classroom", "checkpoints", ".git")
"""Where anything may change when a command fails: notes, and the training's last good checkpoint."""
UNCERTAIN = ("manifest.json", "cost.md", "cost.csv", ".snakemake_timestamp")
"""Files that change with the time that something took, and Snakemake's own."""


class Disk:
    """A file system of its own for the tree, whose size is set again for every attempt."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self.root = scratch / "disk"
        self.root.mkdir()
        _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", self.root)
        shutil.copytree(tree, self.root / "tree", symlinks=True)

    def free(self, size: int | None) -> None:
        """Leaves this many bytes free; None: plenty."""
        status = os.statvfs(self.root)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        _mount("-o", f"remount,rw,size={1 << 30 if size is None else used + size}", self.root)

    def in_child(self) -> None:
        pass

    def lock(self) -> None:
        _mount("-o", "remount,ro", self.root)


class Limit:
    """No file may grow beyond a size, of which the system says `File too large` instead of `No space left`."""

    def __init__(self, tree: Path, scratch: Path) -> None:
        self.root = scratch
        shutil.copytree(tree, self.root / "tree", symlinks=True)
        self.size: int | None = None

    def free(self, size: int | None) -> None:
        self.size = size

    def in_child(self) -> None:
        if self.size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


def attempt(command: str, disk: Disk | Limit) -> tuple[int, str]:
    """Exit status (negative: the signal) and what was said, of `classroom COMMAND` in a fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(reading)
        os.close(writing)
        sys.argv = ["classroom", *command.split()]
        disk.in_child()
        code = 120
        try:
            from classroom.cli import main

            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


def sweep(command: str, disk: Disk | Limit) -> dict[str, Any]:
    """Fills the disk further and further; what was said, and whatever is not as it has to be."""
    before, said, wrong = content(), [], []
    left: list[tuple[int, dict[str, bytes]]] = []
    for size in itertools.chain([0], (PAGE << doubled for doubled in range(20))):
        disk.free(size)
        code, text = attempt(command, disk)
        disk.free(None)
        if code == 0:
            break
        said.append(text)
        wrong += [f"{size} bytes: {fault}" for fault in impolite(code, text)]
        left.append((size, content()))
    else:
        wrong.append(f"{size} bytes: it never succeeds")
    after = content()
    for size, found in left:  # what was there stays, until it is what it shall become
        names = before.keys() | found.keys()
        half = [name for name in names if found.get(name) not in (before.get(name), after.get(name))]
        wrong += [f"{size} bytes: {name} is half-written, or lost" for name in half]
    wrong += [f"in the end: {name} is lost or different" for name in before if before[name] != after.get(name)]
    return {"command": command, "failed": len(said), "fits": size, "said": sorted(set(said)), "wrong": wrong}


def impolite(code: int, text: str) -> Iterator[str]:
    """What a failed command must not do."""
    errors = [line for line in text.splitlines() if line.startswith("Error: ")]
    if code != 1:
        yield f"exit {code}: {text[-300:]}"
    elif len(errors) != 1 or "Traceback" in text:
        yield f"not one paragraph: {text[-600:]}"


def content() -> dict[str, bytes]:
    """All files but notes, and manifests, which tell the time."""
    files = {str(path): path for path in Path().rglob("*") if path.is_file() and path.parts[0] not in NOTES}
    return {name: path.read_bytes() for name, path in files.items() if path.name not in UNCERTAIN}


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def main() -> None:
    mode, tree, scratch, *commands = sys.argv[1:]
    os.environ["CLASSROOM_CHECKPOINT_MINUTES"] = "0"
    import classroom.training.run  # noqa: F401 - loaded once, for all forks

    disk = {"disk": Disk, "file": Limit}[mode](Path(tree).resolve(), Path(scratch).resolve())
    os.chdir(disk.root / "tree")
    found = [sweep(command, disk) for command in commands]
    if isinstance(disk, Disk):
        disk.lock()
        for result, command in zip(found, commands, strict=True):
            code, result["read-only"] = attempt(command, disk)
            result["wrong"] += [f"read-only: {fault}" for fault in impolite(code, result["read-only"])]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
