"""Measures how long a training step takes on this machine, on random images."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from classroom.core.augment import Augment
from classroom.core.networks.reproducible import make_deterministic
from classroom.devices import choose_device
from classroom.params import Augmentation, Training, select
from classroom.training.loop import make_optimiser, train_step
from classroom.training.make import make

STEPS = 3
SLOW = 2.0
"""Seconds of a step, compared with which warming up a CPU is nothing. At scale paper, four would take minutes."""


@dataclass(frozen=True)
class Speed:
    """Of one method: seconds per batch, and bytes of a run's weights."""

    training_step: float
    prediction: float
    weight_bytes: int


def measure(method_name: str, study: str, raw: dict[str, Any], classes: int, device: str) -> Speed:
    """The median time of a few training steps and predictions, after one to warm up.

    The networks always have random weights: that takes the same time and downloads nothing.

    Parameters
    ----------
    method_name, study
        name the method
    raw
        params.yaml as read
    classes
        number of classes; ignored for segmentation
    device
        as in `devices.choose_device`

    Raises
    ------
    ClassroomError
        Whatever building the networks raises.
    """
    raw = copy.deepcopy(raw)
    task, size = raw["study"][study]["task"], raw["study"][study]["image_size"]
    for role in ("teacher", "student"):
        raw["study"][study][role]["weights"] = "random"
    settings = select(raw, "training", Training)
    make_deterministic(settings.threads)
    where = choose_device(device)
    method = make(method_name, study, raw, 0, None, task, classes, size).to(where)
    if settings.compile:
        method.compile_networks()
    augment = Augment(select(raw, "augmentation", Augmentation))
    optimiser = make_optimiser(method, settings)
    images = torch.rand(settings.batch_size, 3, size, size, device=where)
    if task == "segmentation":
        targets = (torch.rand(settings.batch_size, 1, size, size, device=where) > 0.9).float()
    else:
        targets = torch.randint(classes, (settings.batch_size,), device=where)

    def step() -> None:
        train_step(method, optimiser, settings, *augment(images, targets, seed=0))

    method.train()
    method.begin_epoch(0, settings.epochs)
    step_seconds = _seconds(step, where)
    method.eval()
    prediction_seconds = _seconds(lambda: method.predict(images), where)
    states = [value for name in method.trained for value in method.state_of(name).values()]
    return Speed(step_seconds, prediction_seconds, sum(value.numel() * value.element_size() for value in states))


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    """The median of STEPS after one to warm up; of the first alone where it is slow and there is no GPU to warm up."""
    taken: list[float] = []
    while len(taken) <= STEPS:
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
        if device.type == "cpu" and taken[0] > SLOW:
            return taken[0]
    return statistics.median(taken[1:])
