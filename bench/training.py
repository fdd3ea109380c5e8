"""A training as `classroom train` runs it, halted after every step so that others take theirs."""

from __future__ import annotations

import copy
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import studies
from bench.timing import clock
from classroom.core.augment import Augment
from classroom.core.method import Method
from classroom.core.networks.reproducible import make_deterministic
from classroom.params import Augmentation, Training, select
from classroom.progress import Show
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.loop import Run, fit
from classroom.training.make import make
from classroom.training.run import Clock

CPU = torch.device("cpu")
WARM_UP = 2
TURNS = {"paper": 10, "demo": 60}
"""By the scale of the networks: the demo's take tenths of a second, where 5 % must be distinguishable from 6 %."""
PARTS = ("data", "augmentation", "networks and losses", "backward", "Adam", "logging")
"""Of a step of ours; what is left over of it is the backward pass, with the loop's own lines."""


class Ours:
    """Settings, networks and images of one method, ready to train."""

    def __init__(self, study: str, scale: str, method: str, turns: int, threads: int = 1) -> None:
        self.study, self.turns = study, turns
        self.raw = studies.settings(scale, epochs=1, threads=threads)
        self.settings = select(self.raw, "training", Training)
        make_deterministic(self.settings.threads)
        self.name = method
        self.method = self.another()
        self.augment = Augment(select(self.raw, "augmentation", Augmentation))
        self.folder = tempfile.TemporaryDirectory()
        self.split = studies.images(study, (turns + WARM_UP) * studies.BATCH, Path(self.folder.name))
        self.optimiser = torch.optim.Adam(
            [p for p in self.method.parameters() if p.requires_grad], lr=self.settings.learning_rate, fused=True
        )
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}
        self.checkpoint_seconds = 0.0

    def another(self) -> Method:
        """The same method once more, with the same weights."""
        task, side = studies.task(self.study), studies.SIDES[self.study]
        return make(self.name, self.study, self.raw, 0, None, task, studies.CLASSES, side)

    def resident_batch(self) -> torch.Tensor:
        """Images (B, 3, H, W) as the networks are given them."""
        images, _ = self.split.batch(np.arange(studies.BATCH), CPU)
        return images.contiguous(memory_format=torch.channels_last)

    def in_turns(self, others: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Seconds of every step of `fit`, under "ours", and of the others' steps after each."""
        taken: dict[str, list[float]] = {"ours": [], **{name: [] for name in others}}
        probe = _Probe(self)
        with Show("bench") as show:
            show.log = lambda message: None
            reporter = Clock(show, self.settings.epochs)

            def report(runs: Sequence[Run], steps: int) -> None:
                started = clock()
                reporter(runs, steps)
                taken["ours"].append(probe.end_step(clock() - started))
                for name, step in others.items():
                    started = clock()
                    step()
                    taken[name].append(clock() - started)
                probe.begin_step()

            checkpoints = Checkpoints(Path(self.folder.name, "checkpoints"), "", 10, self.method, self.optimiser)
            probe.begin_step()
            data = {"train": probe.split, "val": self.split}
            run = Run(self.name, self.method, self.optimiser, checkpoints, Progress(), Path(), {})
            fit([run], data, probe.augment, self.settings, "none", 0, CPU, report)
            started = clock()
            checkpoints.save(Progress())
            self.checkpoint_seconds = clock() - started
        for seconds in (*taken.values(), *self.parts.values()):
            del seconds[:WARM_UP]
        return taken


class _Probe:
    """Takes the time of what `fit` calls."""

    def __init__(self, ours: Ours) -> None:
        self.parts = ours.parts
        self.taken: dict[str, float] = {}
        self.split = copy.copy(ours.split)
        object.__setattr__(self.split, "batch", self._timed("data", ours.split.batch))
        self.augment = self._timed("augmentation", ours.augment)
        ours.method.losses = self._timed("networks and losses", ours.method.losses)
        step = self._timed("Adam", type(ours.optimiser).step)
        ours.optimiser.step = types.MethodType(step, ours.optimiser)  # torch's schedules ask for a method

    def begin_step(self) -> None:
        self.taken = {}
        self.began = clock()

    def end_step(self, showing: float) -> float:
        whole = clock() - self.began
        self.taken["logging"] = showing
        self.taken["backward"] = whole - sum(self.taken.values())
        for part in PARTS:
            self.parts[part].append(self.taken[part])
        return whole

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = clock()
            try:
                return function(*arguments, **named)
            finally:
                self.taken[part] = clock() - started

        return timed
