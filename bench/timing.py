"""Times that can be compared: taken in turns within one run, reported as medians and quartiles."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

clock: Callable[[], float] = time.process_time if "BENCH_CPU_TIME" in os.environ else time.perf_counter
"""Seconds on the wall; of the process's own work where the machine is shared with other work (`BENCH_CPU_TIME=1`)."""


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


@dataclass
class Point:
    """What one question of the benchmark found out."""

    title: str
    findings: list[tuple[str, str, str, bool | None]] = field(default_factory=list)
    """What was measured, its value, its limit, and whether it holds; None where no limit is set."""
    tables: list[tuple[Sequence[str], Sequence[Sequence[object]]]] = field(default_factory=list)
    """Column names and rows."""
    notes: list[str] = field(default_factory=list)

    def at_most(self, what: str, value: Spread | float, limit: float, unit: str = "") -> None:
        found = value.median if isinstance(value, Spread) else value
        self.findings.append((what, _formatted(value, unit), f"≤ {limit:g}{unit}", found <= limit))

    def at_least(self, what: str, value: Spread | float, limit: float, unit: str = "") -> None:
        found = value.median if isinstance(value, Spread) else value
        self.findings.append((what, _formatted(value, unit), f"≥ {limit:g}{unit}", found >= limit))

    def note(self, what: str, value: Spread | float, unit: str = "") -> None:
        self.findings.append((what, _formatted(value, unit), "", None))


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of times that were taken in turns: the ratio of each turn, so that a slow minute counts on both sides."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def alternate(actions: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every action in every turn; the order turns round each time, so that none profits from its place."""
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + turns):
        for name in names if turn % 2 else reversed(names):
            started = clock()
            actions[name]()
            if turn >= warm_up:
                seconds[name].append(clock() - started)
    return seconds


def _formatted(value: Spread | float, unit: str) -> str:
    return (str(value) if isinstance(value, Spread) else f"{value:.3g}") + unit
