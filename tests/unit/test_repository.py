"""The repository as others get it: its bytes in every clone, and what Snakemake's linter finds in the workflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from classroom.engines.reconcile import NESTED
from support.studies import ROOT


def run(*command: str, folder: Path, stdin: str | None = None) -> str:
    return subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, check=True).stdout


def test_a_clone_has_the_committed_bytes_under_autocrlf(tmp_path: Path) -> None:
    """Git for Windows converts line endings by default; dvc.lock's hashes then call every dependency modified."""
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", "-c", "core.autocrlf=true", str(ROOT), str(clone), folder=tmp_path)
    staged = [line.split("\t") for line in run("git", "ls-files", "-z", "--stage", folder=clone).split("\0") if line]
    committed = {path: entry.split()[1] for entry, path in staged}
    hashed = run("git", "hash-object", "--no-filters", "--stdin-paths", folder=clone, stdin="\n".join(committed))
    assert dict(zip(committed, hashed.split(), strict=True)) == committed


def test_snakemake_s_linter_finds_nothing_but_the_missing_conda_environments() -> None:
    """All rules run in the one environment that requirements.lock pins; there is no conda file or container."""
    snakemake = Path(sys.executable).with_name("snakemake")
    done = subprocess.run(
        [snakemake, "--lint"], cwd=ROOT, env=os.environ | {NESTED: "1"}, capture_output=True, text=True
    )
    findings = set(re.findall(r"^    \* (.+):$", done.stderr, re.MULTILINE))
    assert findings == {"Specify a conda environment or container for each rule."}, done.stderr
