"""Images per second, next to torchdistill's loop and a plain Dataset and DataLoader, of the same training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from bench import studies
from bench.timing import Point, ratio, spread
from bench.training import TURNS, Ours
from classroom.core.augment import Augment
from classroom.core.batches import SplitData

STUDY = studies.CLASSIFICATION
METHODS = {"fitnet": "FitNet", "kd_off-v1": "KD, two students of a frozen teacher"}


def measure() -> Point:
    point = Point("Throughput")
    rows = []
    for scale, turns in TURNS.items():
        for method, title in METHODS.items():
            ours = Ours(STUDY, scale, method, turns)
            per_image = PerImage(ours.split, ours.augment)
            others = {
                "torchdistill": torchdistill_steps(ours, method, per_image),
                "DataLoader, 0 workers": plain_steps(ours, per_image, 0),
                "DataLoader, 2 workers": plain_steps(ours, per_image, 2),
            }
            taken = ours.in_turns(others)
            name = f"{title}, {scale} networks at {studies.SIDES[STUDY]}²"
            point.at_least(f"images/s ÷ torchdistill's, {name}", ratio(taken["torchdistill"], taken["ours"]), 1.3)
            for other in list(others)[1:]:
                point.note(f"images/s ÷ {other}, {name}", ratio(taken[other], taken["ours"]))
            rows += [[name, who, studies.BATCH / spread(seconds).median] for who, seconds in taken.items()]
    point.tables.append((("training", "loop", "images/s"), rows))
    return point


class PerImage(Dataset):
    """Images one by one, with the same augmentation."""

    def __init__(self, split: SplitData, augment: Augment) -> None:
        self.split = split
        self.transform = v2.Compose([v2.ToImage(), augment.transform, v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        image = np.array(self.split.images[position])
        return self.transform(image).as_subclass(torch.Tensor), int(self.split.targets[position])


def plain_steps(ours: Ours, images: PerImage, workers: int) -> Callable[[], None]:
    """Our method, its losses and Adam as one would first write the loop."""
    method = ours.another().to(memory_format=torch.contiguous_format).train()
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=ours.settings.learning_rate)
    batches = _for_ever(
        DataLoader(images, studies.BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    )

    def step() -> None:
        pictures, targets = next(batches)
        terms = method.losses(pictures, targets)
        loss = sum(term.weight * term.value for term in terms)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def torchdistill_steps(ours: Ours, method: str, images: PerImage) -> Callable[[], None]:
    """Its DistillationBox, driven as its own example scripts do."""
    import torchdistill.core.interfaces  # noqa: F401 - registers what the box asks for by name
    from torchdistill.core.distillation import DistillationBox

    logging.getLogger("torchdistill").setLevel(logging.WARNING)
    another = ours.another().to(memory_format=torch.contiguous_format)
    networks = another.networks
    for network in networks.values():
        network.remove_hooks()
    teacher = Normalised(networks["T"])
    if method == "fitnet":
        student = Hinted(networks["S1"], another.regressor, ours.method.options.tap)
        hint = f"body.encoder.{ours.method.options.tap}"
        terms = {"task": _labels("."), "hint": _hint("regressor", hint, ours.method.weights["feature"])}
        outputs, taught = ["regressor"], [hint]
    else:
        student = Pair(networks["S1"], networks["S2"])
        weights = ours.method.weights
        terms = {name: _distilled(name, getattr(weights, name)) for name in ("S1", "S2")}
        outputs, taught = ["S1", "S2"], []
    forward = {"forward_proc": "forward_batch_only"}
    box = DistillationBox(
        teacher,
        student,
        {"train": images},
        {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": {"class_or_func": RandomSampler},
                "kwargs": {"batch_size": studies.BATCH, "num_workers": 0, "drop_last": True},
            },
            "teacher": {"requires_grad": False, **forward, "forward_hook": {"input": [], "output": taught}},
            "student": {**forward, "forward_hook": {"input": [], "output": outputs}},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
            "optimizer": {"key": "Adam", "kwargs": {"lr": ours.settings.learning_rate}},
        },
        torch.device("cpu"),
        None,
        False,
        1,
    )
    box.pre_epoch_process(epoch=0)
    batches = _for_ever(box.train_data_loader)

    def step() -> None:
        pictures, targets, others = next(batches)
        loss = box.forward_process(pictures, targets, others)
        box.post_forward_process(loss)
        loss.item()

    return step


class Normalised(nn.Module):
    """A network as torchdistill takes it: images in [0, 1] to logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.body = network.body
        self.register_buffer("mean", network.mean)
        self.register_buffer("std", network.std)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body((images - self.mean) / self.std)


class Hinted(Normalised):
    """A student whose stage also goes through a regressor."""

    def __init__(self, network: Any, regressor: nn.Module, tap: str) -> None:
        super().__init__(network)
        self.regressor = regressor
        self.body.encoder.get_submodule(tap).register_forward_hook(self._keep)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = super().forward(images)
        self.regressor(self.kept)
        return logits

    def _keep(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.kept = output


class Pair(nn.Module):
    """Two students side by side."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        self.S1, self.S2 = Normalised(first), Normalised(second)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.S1(images), self.S2(images)


def _labels(path: str) -> dict[str, Any]:
    source = {"is_from_teacher": False, "module_path": path, "io": "output"}
    return {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": {"input": source, "target": {"uses_label": True}}},
        "weight": 1.0,
    }


def _hint(student: str, teacher: str, weight: float) -> dict[str, Any]:
    source = {"is_from_teacher": False, "module_path": student, "io": "output"}
    target = {"is_from_teacher": True, "module_path": teacher, "io": "output"}
    return {
        "criterion": {"key": "MSELoss", "kwargs": {}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": {"input": source, "target": target}},
        "weight": weight,
    }


def _distilled(student: str, weights: Any) -> dict[str, Any]:
    return {
        "criterion": {
            "key": "KDLoss",
            "kwargs": {
                "student_module_path": student,
                "student_module_io": "output",
                "teacher_module_path": ".",
                "teacher_module_io": "output",
                "temperature": 2.0,
                "alpha": weights.alpha,
                "beta": weights.beta,
            },
        },
        "weight": 1.0,
    }


def _for_ever(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader
