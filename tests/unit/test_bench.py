"""The benchmark still runs: its ratios are right, and it drives the training loop as it is today."""

from __future__ import annotations

import importlib
from dataclasses import asdict

import pytest

from bench import run, studies, timing, training
from bench.step import Bare


def test_a_ratio_is_the_median_of_the_turns_own() -> None:
    """A minute in which the machine is slow slows both sides: the ratio of the medians, 2.5 / 2, would be another."""
    assert timing.ratio([1, 4, 2.5], [2, 4, 2]) == timing.Spread(median=1.0, low=0.75, high=1.125)
    assert str(timing.spread([3.0])) == "3 (3–3)"


def test_actions_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(timing, "clock", lambda: float(next(ticks)))
    called: list[str] = []
    seconds = timing.alternate({name: lambda name=name: called.append(name) for name in "ab"}, turns=3)
    assert called == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}, "the first turn warms up"


def test_a_limit_that_is_missed_is_said() -> None:
    point = timing.Point("Steps")
    point.at_most("a step", timing.Spread(1.06, 1.0, 1.1), 1.05)
    point.at_least("images", 1.31, 1.3)
    assert [finding[2:] for finding in point.findings] == [("≤ 1.05", False), ("≥ 1.3", True)]
    section = run._section(asdict(point) | {"on": "2 cores", "seconds": 3})
    assert "**missed**" in section


def test_every_point_can_be_measured() -> None:
    assert all(callable(importlib.import_module(f"bench.{name}").measure) for name in run.POINTS)


@pytest.mark.parametrize("study", studies.SIDES)
def test_a_step_is_taken_apart_beside_the_bare_one(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real `fit`: every part is timed, and together they are the step."""
    monkeypatch.setitem(studies.SIDES, study, 32)
    monkeypatch.setattr(studies, "BATCH", 2)
    monkeypatch.setattr(training, "WARM_UP", 1)
    ours = training.Ours(study, "demo", "kd_ml-v3", turns=1)
    taken = ours.in_turns({"bare": Bare(ours).step})
    assert len(taken["ours"]) == len(taken["bare"]) == 1
    parts = [sum(part) for part in zip(*ours.parts.values(), strict=True)]
    assert parts == pytest.approx(taken["ours"])
    assert all(seconds > 0 for part in ours.parts.values() for seconds in part)
    assert ours.checkpoint_seconds > 0
