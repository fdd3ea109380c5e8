"""What a terminal shows while Snakemake runs."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

import snakemake_logger_plugin_classroom as plugin


class Terminal:
    """Gives the plugin the events that Snakemake sends."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dryrun: bool = False
    ) -> None:
        self.now, self.capsys = 0.0, capsys
        monkeypatch.setattr(plugin.time, "monotonic", lambda: self.now)
        settings = SimpleNamespace(dryrun=dryrun, verbose=False, stdout=False)
        self.handler = plugin.LogHandler(settings, None)  # type: ignore[arg-type]
        self.handler.setFormatter(DefaultFormatter(show_failed_logs=True))

    def shows(self, event: LogEvent | None, message: str = "", **fields: Any) -> str:
        record = logging.makeLogRecord({"msg": message, "event": event, **fields})
        self.handler.emit(record)
        return self.capsys.readouterr().err

    def starts(self, number: int, rule: str, output: str) -> str:
        return self.shows(LogEvent.JOB_INFO, jobid=number, rule_name=rule, output=[output], input=["data"] * 40)

    def ends(self, number: int) -> str:
        return self.shows(LogEvent.JOB_FINISHED, f"Finished jobid: {number}", job_id=number)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def test_a_line_for_each_job_with_the_time_left(terminal: Terminal) -> None:
    """Two trainings side by side, one after them, then two tables."""
    jobs = {"train": 3, "report": 2, "total": 5}
    assert terminal.shows(LogEvent.RUN_INFO, "Job stats: …", stats=jobs) == "5 jobs: 3 train, 2 report\n"
    assert terminal.starts(7, "train", "runs/a/seed-0") == "start  runs/a/seed-0\n"
    terminal.starts(8, "train", "runs/b/seed-0")
    terminal.now = 100
    # Two trainings and two tables of 100 s, two at a time.
    assert terminal.ends(7) == "done   runs/a/seed-0 in 2 min; 1 of 5 jobs, about 3 min left\n"
    terminal.now = 140
    terminal.ends(8)
    terminal.starts(9, "train", "runs/c/seed-0")
    terminal.now = 260
    terminal.ends(9)
    terminal.starts(10, "report", "reports/a.md")
    terminal.now = 264
    assert terminal.ends(10) == "done   reports/a.md in 4 s; 4 of 5 jobs, about 4 s left\n"
    terminal.starts(11, "report", "reports/b.md")
    assert terminal.ends(11) == "done   reports/b.md in 0 s; 5 of 5 jobs\n"


def test_no_time_is_left_by_the_durations_of_other_kinds_of_jobs(terminal: Terminal) -> None:
    shown = terminal.shows(LogEvent.RUN_INFO, stats={"fetch": 1, "together_1": 1, "together_2": 1, "evaluate": 1})
    assert shown == "4 jobs: 1 fetch, 2 together, 1 evaluate\n"
    terminal.starts(1, "fetch", "data/raw/lgg")
    terminal.now = 9
    assert terminal.ends(1) == "done   data/raw/lgg in 9 s; 1 of 4 jobs\n"
    terminal.starts(2, "together_1", "runs/a/seed-0")
    terminal.now = 3609
    # Of one training as long, and of one job as long as those before it were in the mean.
    assert terminal.ends(2) == "done   runs/a/seed-0 in 1 h 0 min; 2 of 4 jobs, about 1 h 30 min left\n"


def test_a_retried_job_counts_once(terminal: Terminal) -> None:
    terminal.shows(LogEvent.RUN_INFO, stats={"train": 1, "total": 1})
    for _attempt in range(2):
        terminal.starts(7, "train", "runs/a/seed-0")
    assert "1 of 1 jobs" in terminal.ends(7)


def test_an_error_is_shown_whole_with_its_log(terminal: Terminal, tmp_path: Any) -> None:
    log = tmp_path / "train.log"
    log.write_text("Error: loss not finite\n")
    terminal.starts(7, "train", "runs/a/seed-0")
    shown = terminal.shows(
        LogEvent.JOB_ERROR, rule_name="train", rule_msg=None, jobid=7, input=["data"], output=["runs/a/seed-0"],
        log=[str(log)], conda_env=None, shellcmd="classroom train", aux={},
    )  # fmt: skip
    for part in ("Error in rule train", "classroom train", str(log), "Error: loss not finite"):
        assert part in shown
    assert (
        terminal.shows(None, "Exiting because a job execution failed.") == "Exiting because a job execution failed.\n"
    )


def test_a_dry_run_is_as_snakemake_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(monkeypatch, capsys, dryrun=True)
    assert terminal.shows(LogEvent.RUN_INFO, "Job stats:\njob  count", stats={"train": 1}) == "Job stats:\njob  count\n"
