"""What git knows about the project."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path


def git(*arguments: str) -> bytes | None:
    """What `git` prints; None where it fails.

    Does not take git's own lock, which a killed process would leave, nor run the monitor that a repository may name.
    """
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def code_version() -> str:
    """The commit, with `-dirty` for uncommitted changes of the code; the package's version outside a repository.

    Settings do not count: each job's are in its manifest.
    """
    return _commit(Path()) or version("classroom")


def commit_of(file: Path) -> str:
    """The commit of the checkout that a file belongs to, as in `code_version`; empty if git does not track the file.

    An environment is often inside of another repository, whose commit would say nothing of an installed package.
    """
    tracked = git("-C", str(file.parent), "ls-files", "--error-unmatch", file.name)
    return _commit(file.parent) if tracked else ""


def _commit(folder: Path) -> str:
    commit = git("-C", str(folder), "describe", "--always", "--abbrev=12")
    changes = git("-C", str(folder), "status", "--porcelain", "--untracked-files=no", "--", ":/src")
    if commit is None or changes is None:
        return ""
    return commit.decode().strip() + ("-dirty" if changes.strip() else "")
