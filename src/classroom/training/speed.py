"""How long a training step takes on this machine, measured on random images."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from classroom.data.augment import Augment
from classroom.methods.base import total
from classroom.methods.make import make
from classroom.networks.reproducible import make_deterministic
from classroom.params import Augmentation, Training, select
from classroom.training.devices import choose_device

STEPS = 3


@dataclass(frozen=True)
class Speed:
    """Of one method: seconds per batch, and bytes of the weights that a run leaves."""

    training_step: float
    prediction: float
    weight_bytes: int


def measure(method_name: str, study: str, raw: dict[str, Any], classes: int, device: str) -> Speed:
    """Median of a few real steps (augmentation, losses, backward, Adam) and predictions, after one to warm up.

    The networks have random weights whatever the settings say, which takes the same time and asks no hub.
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
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], fused=True)
    images = torch.rand(settings.batch_size, 3, size, size, device=where)
    if task == "segmentation":
        targets = (torch.rand(settings.batch_size, 1, size, size, device=where) > 0.9).float()
    else:
        targets = torch.randint(classes, (settings.batch_size,), device=where)

    def step() -> None:
        method.train()
        method.begin_epoch(0, settings.epochs)
        augmented, moved = augment(images, targets, seed=0)
        with torch.autocast(where.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            terms = method.losses(augmented, moved)
        optimiser.zero_grad(set_to_none=True)
        total(term.weight * term.value for term in terms).backward()
        optimiser.step()
        method.after_step()

    def predict() -> None:
        method.eval()
        with torch.no_grad():
            method.predict(images)

    states = [value for name in method.trained for value in method.state_of(name).values()]
    return Speed(_seconds(step, where), _seconds(predict, where), sum(v.numel() * v.element_size() for v in states))


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    taken = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
