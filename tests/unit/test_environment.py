"""The same results and messages under other locales, masks of permissions and signals, and without a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import finished

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""A locale whose encoding has neither ± nor α, wherever the tests run."""


def run(command: str, root: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    code = "from classroom.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *command.split()[1:]], cwd=root, env=os.environ | environment, capture_output=True
    )


def test_a_locale_without_utf_8_changes_neither_files_nor_output(recorded_project: Path, tmp_path: Path) -> None:
    """On clusters LANG=en_US is often ISO-8859-1, in which a table's ± or – cannot be written or printed."""
    root = finished.copy(recorded_project, tmp_path / "project")
    table = root / "reports/table4.md"
    before = table.read_bytes()
    table.unlink()
    done = run("classroom report table4", root, **ASCII)
    assert done.returncode == 0, done.stderr
    assert table.read_bytes() == before
    printed = run("classroom explain table4", root, **ASCII)
    assert printed.stdout.decode() == finished.classroom("classroom explain table4", root).out
    assert "−" in printed.stdout.decode()
