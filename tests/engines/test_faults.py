"""What a user meets on full and broken disks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, STUDY

from engines.conftest import Project

pytestmark = pytest.mark.engines


# Disks ----------------------------------------------------------------------------------------------------------

COMMANDS = (
    "fetch lgg", f"prepare {STUDY}", f"split {STUDY}", f"train {STUDY} student --seed 0", f"evaluate {STUDY} ml-v3",
    f"table {STUDY} variants", f"cka {STUDY} ml-v3 --seed 0", f"curves {STUDY}", "cost",
)  # fmt: skip
PRIVATE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]


def can_mount() -> bool:
    try:
        probe = [*PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_spoils_nothing_and_once_freed_the_command_succeeds(finished_once: Project, tmp_path: Path) -> None:
    """Every command, on a disk with ever more room until it fits: one paragraph, and everything as it was.

    Where no small disk can be mounted, which takes root or user namespaces, the size of files is limited instead.
    """
    mode = "disk" if can_mount() else "file"
    script = [sys.executable, str(ROOT / "tests/full_disk.py"), mode, str(finished_once.root), str(tmp_path)]
    command = [*(PRIVATE if mode == "disk" else []), *script, *COMMANDS]
    done = subprocess.run(command, env=finished_once.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for result in json.loads(done.stdout):
        assert result["wrong"] == [], result["command"]
        assert result["failed"] >= 1, f"{result['command']} wrote nothing"
        said = {"disk": "No space left on device|disk is full", "file": "File too large"}[mode]
        assert any(re.search(said, text) for text in result["said"]), result
        if mode == "disk":
            assert "Read-only file system" in result["read-only"]


def as_a_user_without_rights(*command: str) -> list[str]:
    """Root may write anywhere; without its capabilities it may not."""
    return ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command] if os.geteuid() == 0 else [*command]


def test_a_read_only_cache_is_named(finished: Project) -> None:
    """Nothing is lost: the finished jobs are recorded when the cache can be written again."""
    finished.weigh("ml-v3", 0.3)
    cache = finished.root / ".dvc/cache/files/md5"
    folders = [cache, *cache.iterdir()]
    for folder in folders:
        folder.chmod(0o555)
    target = f"results/variants/{STUDY}/ml-v3.json"
    printed = finished.run(*as_a_user_without_rights("snakemake", "--cores", "2", target))
    for folder in folders:
        folder.chmod(0o755)
    assert "Warning: the results are not recorded in dvc.lock yet (DVC cannot bring dvc.lock up to date: " in printed
    assert "Permission denied" in printed
    assert "recorded in dvc.lock: 2 finished jobs" in finished.run("classroom", "reconcile")
