"""What Snakemake left in SLURM's queue."""

from __future__ import annotations

import subprocess
from pathlib import Path


def jobs_of(folder: Path) -> list[str]:
    """Ids of this user's queued and running jobs that Snakemake submitted from `folder`; none if SLURM is silent."""
    command = ["squeue", "--me", "--noheader", "--sort=i", "--format=%i %k %Z"]  # id, comment, working directory
    try:
        answer = subprocess.run(
            command, capture_output=True, timeout=60, check=True, encoding="utf-8", errors="replace"
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    entries = (line.split(maxsplit=2) for line in answer.splitlines())
    return [
        entry[0]
        for entry in entries
        if len(entry) == 3 and entry[1].startswith(("rule_", "group_")) and Path(entry[2]).resolve() == folder.resolve()
    ]
