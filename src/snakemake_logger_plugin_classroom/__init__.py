"""Snakemake's messages, shorter: a line per job that starts or ends, with the overall progress and the time left.

Snakemake finds a logger plugin by the name of its package, so this one is outside `classroom`.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter, defaultdict
from logging import LogRecord
from typing import Any, NamedTuple

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from classroom.progress import duration

OMITTED_EVENTS = {LogEvent.JOB_STARTED, LogEvent.PROGRESS, LogEvent.RESOURCES_INFO, LogEvent.WORKFLOW_STARTED}
OMITTED_MESSAGES = ("Select jobs to execute", "Using shell", "Assuming unrestricted shared filesystem")


class Job(NamedTuple):
    """A job that runs."""

    rule: str
    name: str
    start: float


class LogHandler(LogHandlerBase):
    """Everything but the jobs' own lines is as Snakemake formats it: errors with their logs, dry runs, `--quiet`."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.left: Counter[str] = Counter()
        """Jobs that have not ended, by rule."""
        self.total = 0
        self.running: dict[int, Job] = {}
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        """The durations of ended jobs, by rule."""

    def emit(self, record: LogRecord) -> None:
        try:
            if text := self._text(record):
                print(text, file=sys.stdout if self.common_settings.stdout else sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def _text(self, record: LogRecord) -> str:
        event, fields = getattr(record, "event", None), record.__dict__
        if self.common_settings.dryrun or self.common_settings.verbose:
            return self.format(record)
        if event in OMITTED_EVENTS or str(record.msg).startswith(OMITTED_MESSAGES):
            return ""
        if event is LogEvent.RUN_INFO:
            return self._plan(fields["stats"])
        if event is LogEvent.JOB_INFO:
            return self._start(fields)
        if event is LogEvent.JOB_FINISHED:
            return self._end(fields["job_id"])
        return self.format(record)

    def _plan(self, stats: dict[str, int]) -> str:
        self.left = Counter()
        for rule, count in stats.items():
            if rule != "total":
                self.left[_kind(rule)] += count
        self.total = self.left.total()
        return f"{self.total} jobs: " + ", ".join(f"{count} {rule}" for rule, count in self.left.items())

    def _start(self, job: dict[str, Any]) -> str:
        name = job["output"][0] if job["output"] else job["rule_name"]
        self.running[job["jobid"]] = Job(_kind(job["rule_name"]), name, time.monotonic())
        return f"start  {name}"

    def _end(self, number: int) -> str:
        if not (job := self.running.pop(number, None)):
            return ""
        seconds = time.monotonic() - job.start
        self.seconds[job.rule].append(seconds)
        self.left[job.rule] -= 1
        ended = f"{self.total - self.left.total()} of {self.total} jobs"
        return f"done   {job.name} in {duration(seconds)}; {ended}{self._eta()}"

    def _eta(self) -> str:
        """The time left, by the mean duration of each rule (of all jobs for a new one) and the jobs side by side.

        Nothing before a job of what runs now, and of something that is left, has ended: fetching tells nothing of
        training.
        """
        left = +self.left
        if not self.seconds.keys() & left or any(job.rule not in self.seconds for job in self.running.values()):
            return ""
        mean = _mean([seconds for of_rule in self.seconds.values() for seconds in of_rule])
        total = sum(count * (_mean(self.seconds[rule]) if self.seconds[rule] else mean) for rule, count in left.items())
        return f", about {duration(total / (len(self.running) + 1))} left"


def _kind(rule: str) -> str:
    """Runs that are trained together have a rule per group: together_1, together_2, …"""
    return re.sub(r"^together_\d+$", "together", rule)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
