"""The same results and messages under other locales, masks of permissions and signals, and without a terminal."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from classroom import log, progress
from classroom.files import folder_written_whole
from classroom.interrupts import ENDING, orderly_interrupts
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


# --- progress without a terminal ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands say within a hundredth of a second, not within half a minute, that they are running."""
    monkeypatch.setattr(log, "QUIET", 0.01)


def test_a_command_that_says_nothing_writes_that_it_is_running(
    impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a log nobody can tell a long job from a hanging one."""
    with log.heartbeat("classroom split lgg"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"classroom split lgg: running for 0 min 0 s"}
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_what_writes_lines_of_its_own_gets_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    with log.heartbeat("classroom train"):
        for _ in range(3):
            progress.log("epoch")
            time.sleep(0.02)
    assert capsys.readouterr().err == "epoch\n" * 3


@pytest.mark.parametrize("command", [
    "fetch lgg", "prepare lgg-resnet18", "train lgg-resnet18 ml-v3 --seed 0", "evaluate lgg-resnet18 ml-v3",
    "cka lgg-resnet18 ml-v3 --seed 0", "verify",
])  # fmt: skip
def test_long_commands_say_how_far_they_are(
    command: str, impatient: None, long_commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 images take minutes: `images: 3000 of 20000`. Here each item takes a moment longer."""

    def slowly(original: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments, **more: (time.sleep(0.02), original(*arguments, **more))[1]

    monkeypatch.setattr(progress.Bar, "advance", slowly(progress.Bar.advance))
    monkeypatch.setattr(progress.Bar, "update", slowly(progress.Bar.update))
    done = finished.classroom(f"classroom {command}", long_commands)
    assert done.code == 0, done.error
    named = re.escape(f"classroom {' '.join(command.split()[:3])}")
    assert re.search(rf"^{named}: running for 0 min \d+ s; [^;]+: \d+ of [1-9]\d*$", done.error, re.MULTILINE)


@pytest.fixture(scope="module")
def long_commands(recorded_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy(recorded_project, tmp_path_factory.mktemp("long") / "project")


# --- Ctrl-C ---


def test_ctrl_c_twice_still_cleans_up_and_prints_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People press it again when nothing seems to happen, which would interrupt the clean-up."""

    def press_twice() -> None:
        monkeypatch.setattr(shutil, "rmtree", interrupted(shutil.rmtree))
        with orderly_interrupts("Run the same command again."), folder_written_whole(tmp_path / "images") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            press_twice()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.splitlines() == ["Interrupted. Run the same command again.", ENDING]


def interrupted(function: Callable[..., None]) -> Callable[..., None]:
    """The same function, with Ctrl-C before it."""
    return lambda *arguments, **more: (os.kill(os.getpid(), signal.SIGINT), function(*arguments, **more))[1]
