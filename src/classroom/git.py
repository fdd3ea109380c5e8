"""What git knows about the project."""

from __future__ import annotations

import subprocess
from importlib.metadata import version


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
    """The commit, with `-dirty` for uncommitted changes; the package's version outside a repository."""
    commit = git("describe", "--always", "--abbrev=12")
    changes = git("status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return version("classroom")
    return commit.decode().strip() + ("-dirty" if changes.strip() else "")
