"""The paper's U-Nets on a GPU: `make gpu-check` writes bench/gpu.md. Without one: `python -m bench.gpu cpu 32 demo 2`.

The arguments are the device, the images' side, the scale of the networks, and the steps that are timed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from bench import studies
from classroom.core.augment import Augment
from classroom.core.batches import SplitData, cache_on_device
from classroom.core.method import Method
from classroom.core.networks.build import Network
from classroom.core.networks.reproducible import make_deterministic
from classroom.params import BASELINES, VARIANTS, Augmentation, Training, select
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.equality import waits_for_teacher
from classroom.training.loop import Run, make_optimiser, step_together
from classroom.training.make import make

METHOD = "kd_ml-v3"
STUDY = studies.SEGMENTATION
WARM_UP = 3
STEPS_OF_LGG = 50 * (3929 * 75 // 100 // studies.BATCH)
"""The training steps of a run of Table 4: fifty epochs."""
WAYS: dict[str, dict[str, Any]] = {"fp32": {}, "bf16": {"precision": "bf16"}, "compile": {"compile": True}}


class Trained:
    """Methods that train together on a device, ready to take steps."""

    def __init__(self, methods: Sequence[str], device: torch.device, side: int, scale: str, **training: Any) -> None:
        self.device = device
        raw = studies.settings(scale, epochs=1, **training)
        self.settings = select(raw, "training", Training)
        self.augment = Augment(select(raw, "augmentation", Augmentation))
        known: dict[str, Network] | None = {} if len(methods) > 1 else None
        self.runs = []
        for name in methods:
            method = make(name, STUDY, raw, 0, None, "segmentation", studies.CLASSES, side, known=known)
            method.to(device).train()
            optimiser = make_optimiser(method, self.settings)
            if self.settings.compile:
                method.compile_networks()
            checkpoints = Checkpoints(Path(), "", 10, method, optimiser)
            self.runs.append(Run(name, method, optimiser, checkpoints, Progress(), Path(), {}))

    def step(self, images: SplitData, number: int) -> None:
        """As `fit` takes it, data and augmentation included."""
        positions = np.arange(number * studies.BATCH, (number + 1) * studies.BATCH) % len(images)
        batch = self.augment(*images.batch(positions, self.device), seed=number)
        if step_together(self.runs, self.settings, *batch) != self.runs:
            raise RuntimeError("a run has diverged")


def main(device_name: str = "cuda", side: str = "256", scale: str = "paper", steps: str = "100") -> None:
    """Measures, and writes bench/gpu.md; of a CPU it only prints."""
    device, count = torch.device(device_name), int(steps)
    make_deterministic(1)
    studies.SIDES[STUDY] = int(side)
    with tempfile.TemporaryDirectory() as folder:
        split = studies.images(STUDY, 8 * studies.BATCH, Path(folder))
        images = cache_on_device(device, {"train": split}, 2**40)["train"]
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        # A CPU gains nothing by compiling, and takes minutes for it.
        names = [name for name in WAYS if device.type != "cpu" or name != "compile"]
        ways = [_way(name, images, device, int(side), scale, count) for name in names]
        groups = _together(images, device, int(side), scale, count)
    page = "\n\n".join(
        [
            "# On a GPU",
            f"Written by `make gpu-check` on {where}, torch {torch.__version__}: {scale} networks' U-Nets at {side}², "
            f"batch {studies.BATCH}, medians of {count} steps.",
            tabulate(ways, ["KD + ML V3", "s a step", "÷ bare step", "images/s", "peak MB"], "github", floatfmt=".4g"),
            tabulate(groups, ["fp32", "s a step of all, together", "separate", "together ÷ separate",
                              "hours of Table 4, together", "separate", "largest difference of a weight"],
                     "github", floatfmt=".4g"),
            f"Hours: {STEPS_OF_LGG} steps, which are fifty epochs of LGG in full, without validation.",
        ]
    )  # fmt: skip
    print(page)
    if device.type == "cuda":
        Path(__file__).with_name("gpu.md").write_text(page + "\n", encoding="utf-8")


def _way(name: str, images: SplitData, device: torch.device, side: int, scale: str, count: int) -> list[Any]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trained = Trained([METHOD], device, side, scale, **WAYS[name])
    ours = _median(lambda number: trained.step(images, number), count, device)
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else float("nan")
    bare = Trained([METHOD], device, side, scale, **WAYS[name] | {"compile": False})
    batch = images.batch(np.arange(studies.BATCH), device)[0]
    step = _bare(bare.runs[0].method, batch, trained.settings)
    beneath = _median(lambda number: step(), count, device)
    return [name, ours, ours / beneath, studies.BATCH / ours, peak]


def _bare(method: Method, images: torch.Tensor, settings: Training) -> Callable[[], None]:
    """Forward, backward and Adam of the same networks on one batch, without taps and losses."""
    for network in method.networks.values():
        network.remove_hooks()
    bodies = [network.body for network in method.networks.values()]
    if settings.compile:
        for body in bodies:
            body.compile()
    optimiser = torch.optim.Adam(method.networks.parameters(), lr=settings.learning_rate, fused=True)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss = sum(body(images).float().mean() for body in bodies)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def _together(images: SplitData, device: torch.device, side: int, scale: str, count: int) -> list[list[Any]]:
    """A row for the runs that wait for nobody, for those that wait for the teacher, and for all of a table."""
    rows, total = [], [0.0, 0.0]
    for label, waits in (("baselines, ML, KD (on), KD + ML", False), ("KD (off)", True)):
        names = [name for name in (*BASELINES, *VARIANTS) if waits_for_teacher(name) == waits]
        group = Trained(names, device, side, scale)
        together = _median(lambda number, group=group: group.step(images, number), count, device)
        separate, apart = 0.0, 0.0
        for run in group.runs:
            alone = Trained([run.name], device, side, scale)
            separate += _median(lambda number, alone=alone: alone.step(images, number), count, device)
            pairs = zip(run.method.parameters(), alone.runs[0].method.parameters(), strict=True)
            apart = max(apart, *((own - other).abs().max().item() for own, other in pairs))
        total = [total[0] + together, total[1] + separate]
        rows.append([label, *_row(together, separate), apart])
    return [*rows, ["all of Table 4", *_row(*total), max(row[-1] for row in rows)]]


def _row(together: float, separate: float) -> list[float]:
    hours = [seconds * STEPS_OF_LGG / 3600 for seconds in (together, separate)]
    return [together, separate, together / separate, *hours]


def _median(step: Callable[[int], object], count: int, device: torch.device) -> float:
    """Seconds of a step, after some to warm up."""
    taken = []
    for number in range(WARM_UP + count):
        started = perf_counter()
        step(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(perf_counter() - started)
    return statistics.median(taken[WARM_UP:])


if __name__ == "__main__":
    main(*sys.argv[1:])
