"""A training step as `classroom train` takes it, against the bare forward, backward and Adam of the same networks."""

from __future__ import annotations

import statistics

import torch

from bench import studies
from bench.timing import Point, clock, ratio
from bench.training import PARTS, TURNS, WARM_UP, Ours

METHOD = "kd_ml-v3"
STEPS_OF_AN_EPOCH = 3929 * 75 // 100 // studies.BATCH
"""Of LGG as the paper has it: how many steps share a checkpoint."""


def measure() -> Point:
    point = Point("Training step")
    rows = []
    for scale, turns in TURNS.items():
        for study in (studies.SEGMENTATION, studies.CLASSIFICATION):
            name = f"{scale} networks, {studies.task(study)} at {studies.SIDES[study]}²"
            ours = Ours(study, scale, METHOD, turns)
            bare = Bare(ours)
            taken = ours.in_turns({"bare": bare.step})
            saving = ours.checkpoint_seconds / STEPS_OF_AN_EPOCH
            whole = ratio([seconds + saving for seconds in taken["ours"]], taken["bare"])
            point.at_most(f"KD + ML V3 ÷ bare step, {name}", whole, 1.05)
            median = statistics.median(taken["bare"])
            for part in PARTS:
                mine = statistics.median(ours.parts[part])
                beneath = statistics.median(bare.parts[part][WARM_UP:]) if part in bare.parts else 0.0
                rows.append([name, part, 1000 * mine, 1000 * beneath, 100 * (mine - beneath) / median])
            rows.append([name, "checkpoint, its share", 1000 * saving, 0.0, 100 * saving / median])
    point.tables.append((("networks", "part", "ms", "bare, ms", "more, % of a bare step"), rows))
    return point


class Bare:
    """The same networks without taps, losses and images of their own."""

    def __init__(self, ours: Ours) -> None:
        networks = ours.another().train().networks
        for network in networks.values():
            network.remove_hooks()
        self.bodies = [network.body for network in networks.values()]
        self.optimiser = torch.optim.Adam(networks.parameters(), lr=ours.settings.learning_rate, fused=True)
        self.images = ours.resident_batch()
        self.parts: dict[str, list[float]] = {"networks and losses": [], "backward": [], "Adam": []}

    def step(self) -> None:
        times = [clock()]
        loss = sum(body(self.images).mean() for body in self.bodies)
        times.append(clock())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        times.append(clock())
        self.optimiser.step()
        times.append(clock())
        for part, start, end in zip(self.parts.values(), times[:-1], times[1:], strict=True):
            part.append(end - start)
