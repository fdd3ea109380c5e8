"""Variants that train in one process, where a network that is the same in several learns once, against each alone."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import studies
from bench.timing import Point, alternate, ratio
from bench.training import CPU
from classroom.core.augment import Augment
from classroom.core.networks.build import Network
from classroom.core.networks.reproducible import make_deterministic
from classroom.params import Augmentation, Training, select
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.loop import Run, make_optimiser, step_together
from classroom.training.make import make

GROUPS = {
    "KD (on) and KD + ML": [f"{technique}-v{n}" for technique in ("kd_on", "kd_ml") for n in (1, 2, 3)],
    "KD (off)": [f"kd_off-v{n}" for n in (1, 2, 3)],
    "ML": [f"ml-v{n}" for n in (1, 2, 3)],
}
LIMITS = {"KD (on) and KD + ML": 0.75, "KD (off)": 0.8}
"""ML has none: its networks all differ, so a group saves the reading of batches at most."""
TURNS = {"paper": 3, "demo": 20}
"""By the scale of the networks."""


def measure() -> Point:
    point = Point("Variants together")
    rows, apart = [], 0.0
    for scale, turns in TURNS.items():
        for study in (studies.SEGMENTATION, studies.CLASSIFICATION):
            name = f"{scale} networks, {studies.task(study)} at {studies.SIDES[study]}²"
            whole = {"together": 0.0, "separate": 0.0}
            for label, methods in GROUPS.items():
                both = _Both(study, scale, methods, turns + 1)
                taken = alternate({"together": both.together, "separate": both.separate}, turns)
                what, share = f"{label}, {name}: together ÷ separate", ratio(*taken.values())
                if label in LIMITS:
                    point.at_most(what, share, LIMITS[label])
                else:
                    point.note(what, share)
                medians = {way: statistics.median(seconds) for way, seconds in taken.items()}
                whole = {way: whole[way] + seconds for way, seconds in medians.items()}
                rows.append([name, label, *(1000 * seconds for seconds in medians.values())])
                apart = max(apart, both.apart())
            point.at_most(f"all twelve, {name}: together ÷ separate", whole["together"] / whole["separate"], 0.75)
    point.at_most("largest difference of any weight between the two", apart, 0.0)
    point.tables.append((("networks", "variants", "ms a step of all, together", "separate"), rows))
    return point


class _Both:
    """The same variants twice: in one group, and each by itself."""

    def __init__(self, study: str, scale: str, methods: Sequence[str], steps: int) -> None:
        self.study = study
        self.raw = studies.settings(scale, epochs=1)
        self.settings = select(self.raw, "training", Training)
        make_deterministic(self.settings.threads)
        self.augment = Augment(select(self.raw, "augmentation", Augmentation))
        with tempfile.TemporaryDirectory() as folder:
            self.images = studies.images(study, steps * studies.BATCH, Path(folder))
        self.batches = {way: itertools.count() for way in ("together", "separate")}
        self.group = self._runs(methods)
        self.alone = [self._runs([method]) for method in methods]

    def together(self) -> None:
        self._step(next(self.batches["together"]), self.group)

    def separate(self) -> None:
        batch = next(self.batches["separate"])
        for runs in self.alone:
            self._step(batch, runs)

    def apart(self) -> float:
        """The largest difference of any weight between a run of the group and the same run alone."""
        return max(
            (own - other).abs().max().item()
            for run, (alone,) in zip(self.group, self.alone, strict=True)
            for own, other in zip(run.method.parameters(), alone.method.parameters(), strict=True)
        )

    def _step(self, batch: int, runs: list[Run]) -> None:
        """As `fit` takes it, data and augmentation included."""
        images, targets = self.images.batch(np.arange(batch * studies.BATCH, (batch + 1) * studies.BATCH), CPU)
        if step_together(runs, self.settings, *self.augment(images, targets, seed=batch)) != runs:
            raise RuntimeError("a run has diverged")

    def _runs(self, methods: Sequence[str]) -> list[Run]:
        known: dict[str, Network] | None = {} if len(methods) > 1 else None
        runs = []
        for name in methods:
            method = make(
                name, self.study, self.raw, 0, None, studies.task(self.study), studies.CLASSES,
                studies.SIDES[self.study], known=known,
            ).train()  # fmt: skip
            optimiser = make_optimiser(method, self.settings)
            checkpoints = Checkpoints(Path(), "", 10, method, optimiser)
            runs.append(Run(name, method, optimiser, checkpoints, Progress(), Path(), {}))
        return runs
