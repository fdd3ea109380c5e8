"""Which runs Snakemake trains in one process: those of one study and seed, where that is done sooner.

DVC sees single runs either way, as each run's files, bits and manifest are those of a training of its own.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classroom.engines.graph import Graph, Stage
from classroom.files import write_json
from classroom.params import BASELINES, VARIANTS, Together
from classroom.state import STATE_DIR
from classroom.training.equality import keys, lessons, waits_for_teacher

GROUPS = STATE_DIR / "together.json"
"""The groups of the Snakemake that runs, for its jobs on other nodes."""

COSTS = {"teacher": 3.0, "student": 1.0}
"""How long a network's steps take, in steps of a student, where nothing was measured."""

FORWARD = 1 / 3
"""The part of a step that a frozen network takes."""

ORDER = (
    "teacher",
    *(f"{technique}-{strategy}" for technique in ("kd_on", "kd_ml", "ml", "kd_off") for strategy in ("v1", "v3", "v2")),
    "student",
)
"""Neighbours have networks in common: V3 has one student of V1 and one of V2."""

NEAR = 1.1
"""Of plans that take at most so many times as long as the fastest, the one with the least work is chosen."""


class Run(NamedTuple):
    """One training."""

    study: str
    seed: int
    method: str


class Group(NamedTuple):
    """Runs that train in one process."""

    study: str
    seed: int
    methods: list[str]


class Plan(NamedTuple):
    """Groups, some of a single run, and what they take in the unit of the costs."""

    groups: list[Group]
    duration: float
    work: float


def runs_in(stages: Iterable[Stage]) -> list[Run]:
    """The trainings of baselines and variants among the stages. Those of a search have settings of their own, and the
    networks of published methods learn nothing alike."""
    found = []
    for stage in stages:
        words = stage.command.split()
        if stage.is_training and "--point" not in words and words[3] in {*BASELINES, *VARIANTS}:
            found.append(Run(words[2], int(words[5]), words[3]))
    return found


def needed_for(targets: Sequence[str], stages: Graph) -> list[Stage]:
    """The stages that Snakemake's targets need: files, or its rule `all`. Other rules count for nothing."""
    outputs = {out for target in targets for out in stages.below.get(os.path.normpath(target), ())}
    if not targets or {"all", "reports/all"} & {*targets}:
        outputs |= {*stages.below.get("reports", ())}
    return stages.upstream(stages.producer[out].name for out in outputs)


def choose(
    runs: Sequence[Run], raw: Mapping[str, Any], slots: int, costs: Mapping[str, Mapping[str, float]] | None = None
) -> Plan:
    """The plan that is done first, and of those that are about as fast the one with the least work.

    Parameters
    ----------
    runs
        to train; what they wait for and is not among them is finished
    raw
        all settings, as `classroom.params.load` returns them
    slots
        trainings that can run at a time
    costs
        by study those of a step of `teacher` and `student`; `COSTS` where there are none
    """
    planner = _Planner(raw, slots, costs or {})
    plans = [planner.plan([Group(run.study, run.seed, [run.method]) for run in runs])]
    if Together.of(raw).enabled:
        most = min(slots, max((len(of) for of in _by_study_and_seed(runs).values()), default=0))
        plans += [planner.in_parts(runs, *parts) for parts in itertools.product(range(1, most + 1), repeat=2)]
    fastest = min(plan.duration for plan in plans)
    return min((plan for plan in plans if plan.duration <= NEAR * fastest), key=lambda plan: plan.work)


def record(groups: Sequence[Group]) -> None:
    """Writes the groups for the jobs that Snakemake starts on other nodes."""
    write_json(GROUPS, [group._asdict() for group in groups])


def recorded() -> list[Group]:
    """The groups of the Snakemake that started this job."""
    return [Group(**of) for of in json.loads(GROUPS.read_text(encoding="utf-8"))] if GROUPS.exists() else []


class _Planner:
    def __init__(self, raw: Mapping[str, Any], slots: int, costs: Mapping[str, Mapping[str, float]]) -> None:
        self.raw, self.slots, self.costs = raw, slots, costs
        self.limit = Together.of(raw).max_networks or math.inf
        self.networks = functools.cache(self._networks)
        self.cost = functools.cache(self._cost)
        self.partition = functools.cache(self._partition)

    def in_parts(self, runs: Sequence[Run], joint: int, waiting: int) -> Plan:
        """Of every study and seed so many groups, and so many of the runs that wait for its teacher."""
        groups = []
        for (study, seed), methods in _by_study_and_seed(runs).items():
            ordered = sorted(methods, key=ORDER.index)
            for parts, waits in ((joint, False), (waiting, True)):
                of_kind = tuple(method for method in ordered if waits_for_teacher(method) == waits)
                groups += [Group(study, seed, list(part)) for part in self.partition(study, of_kind, parts)[1]]
        return self.plan(groups)

    def _networks(self, study: str, method: str) -> dict[str, float]:
        """By key, what a step of each network takes."""
        costs, of = self.costs.get(study, COSTS), lessons(method, study, self.raw)
        return {
            key: costs[of[name].role] * (1 if of[name].terms else FORWARD)
            for name, key in keys(method, study, self.raw).items()
        }

    def _cost(self, study: str, methods: tuple[str, ...]) -> float:
        """What a step of these methods takes in one process; infinite for too many networks."""
        together = {key: cost for method in methods for key, cost in self.networks(study, method).items()}
        return sum(together.values()) if len(methods) < 2 or len(together) <= self.limit else math.inf

    def _partition(self, study: str, methods: tuple[str, ...], parts: int) -> tuple[tuple[float, float], list[Any]]:
        """At most so many groups of methods that follow each other: those whose longest is shortest, with the least
        work. More groups where `max_networks` asks for it."""
        if not methods:
            return (0.0, 0.0), []
        whole = self.cost(study, methods)
        best = ((whole, whole), [methods])
        for end in range(1, len(methods)) if parts > 1 else ():
            last = self.cost(study, methods[end:])
            (longest, work), before = self.partition(study, methods[:end], parts - 1)
            best = min(best, ((max(longest, last), work + last), [*before, methods[end:]]), key=lambda one: one[0])
        return best if best[0][0] < math.inf else self.partition(study, methods, parts + 1)

    def plan(self, groups: list[Group]) -> Plan:
        """How long the groups take, each starting when a slot is free and the teacher that it waits for is finished."""
        free, taught, durations = [0.0] * self.slots, dict[tuple[str, int], float](), []
        order = sorted(groups, key=lambda group: (waits_for_teacher(group.methods[0]), "teacher" not in group.methods))
        for group in order:
            cost, begin = self.cost(group.study, tuple(group.methods)), heapq.heappop(free)
            if waits_for_teacher(group.methods[0]):
                begin = max(begin, taught.get((group.study, group.seed), 0.0))
            heapq.heappush(free, begin + cost)
            durations.append(begin + cost)
            if "teacher" in group.methods:
                taught[group.study, group.seed] = begin + cost
        work = sum(self.cost(group.study, tuple(group.methods)) for group in groups)
        return Plan(groups, max(durations, default=0.0), work)


def _by_study_and_seed(runs: Iterable[Run]) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for run in runs:
        found.setdefault((run.study, run.seed), []).append(run.method)
    return found


def slots(cores: int | None, threads: int, gpu: int | None, jobs: int | None) -> int:
    """How many trainings run at a time.

    Parameters
    ----------
    cores
        of this machine that Snakemake may use
    threads
        of a training
    gpu
        the resource that every training takes one of; None: as many as this machine has, which trainings share out
        among themselves
    jobs
        of a cluster, at a time; None: jobs run on this machine
    """
    limits = [gpu] if gpu else []
    if jobs is not None:
        limits.append(jobs)
    else:
        limits.append(max(1, (cores or 1) // threads))
        if here := _gpus():
            limits.append(here)
    return max(1, min(limits))


def _gpus() -> int:
    """The NVIDIA GPUs that trainings on this machine divide among them; 0 where there are none, or they share one."""
    if "CLASSROOM_DEVICE" in os.environ:
        return 0
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
