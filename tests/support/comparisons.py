"""The published methods of Table 10 on thin networks, and what their networks could hand out."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classroom import params
from classroom.core.networks.build import Output
from classroom.methods import registry
from classroom.methods.shared.comparison import Comparison
from classroom.training.make import make
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink

CLASSES = 7
BATCH = 8
SEED = 3
STUDY_OF = {"segmentation": STUDY, "classification": CLASSES_STUDY}
PAIRS = [(task, name) for task in ("classification", "segmentation") for name in registry.published(task)]
WITH_ADVERSARY = ("skd", "ifvd")
STAGES = ("layer1", "layer2", "layer3", "layer4")
BLOCK = "decoder.blocks.0"
MASK_SIDE = 64
SIDES = {
    "classification": {"layer1": 8, "layer2": 6, "layer3": 4, "layer4": 3},
    "segmentation": {"stem": 16, "layer2": 8, BLOCK: 4, "decoder.blocks.1": 8, "decoder.blocks.2": 16},
}
"""Of fabricated features, by tap. Sides that no other tap has catch a mix-up."""

COMMITTED = params.load(ROOT / "params.yaml")


def _settings() -> dict[str, Any]:
    raw = shrink(COMMITTED)
    raw["training"]["batch_size"] = BATCH
    for task, study in STUDY_OF.items():
        raw["study"][study]["methods"] = {
            name: {"options": kind().model_dump(mode="json"), "weights": dict(kind.weights)}
            for name, kind in registry.published(task).items()
        }
    return raw


SETTINGS = _settings()
"""Thin networks, and every method as its reference has it whatever the settings say."""
WIDER_TEACHER = copy.deepcopy(SETTINGS)
WIDER_TEACHER["study"][STUDY]["teacher"]["encoder_options"] = {"channels": [4, 8, 8, 8]}

each = pytest.mark.parametrize(("task", "name"), PAIRS, ids=[f"{task}-{name}" for task, name in PAIRS])


def made(task: str, name: str, raw: dict[str, Any] = SETTINGS, image_size: int = 64, **options: Any) -> Comparison:
    """The method in train mode with a random teacher; `options` are its settings in place of the reference's."""
    raw = copy.deepcopy(raw)
    arguments = {key: options.pop(key) for key in ("seed", "point") if key in options}
    raw["study"][STUDY_OF[task]]["methods"][name]["options"] |= options
    arguments = {"seed": SEED, "teacher_weights": None} | arguments
    return make(name, STUDY_OF[task], raw, **arguments, task=task, classes=CLASSES, image_size=image_size).train()


@functools.cache
def shared(task: str, name: str, **options: Any) -> Comparison:
    """The same, built once, for tests that leave it as it is; without a discriminator unless it is asked for."""
    if name in WITH_ADVERSARY:
        options.setdefault("adversarial", False)
    return made(task, name, **options)


def random_values(*shape: int, seed: int = 0) -> torch.Tensor:
    """From a generator whose stream is frozen for good."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def output(task: str, method: Comparison, network: str, seed: int = 0, batch: int = BATCH, scale: float = 1) -> Output:
    """What the network could hand out: random logits, non-negative features as after a ReLU."""
    shapes = method.student_shapes if network == "S1" else method.teacher_shapes
    channels = {tap: shape[0] for tap, shape in shapes.items() if tap != "conv6"}
    if network == "S1" and method.options.label == "SimKD":  # behind its projector
        channels["layer4"] = method.teacher_shapes["layer4"][0]
    features = {
        tap: scale * random_values(batch, width, SIDES[task][tap], SIDES[task][tap], seed=seed + 10 * place).abs()
        for place, (tap, width) in enumerate(channels.items())
    }
    logits = (batch, 1, MASK_SIDE, MASK_SIDE) if task == "segmentation" else (batch, CLASSES)
    return Output(2 * scale * random_values(*logits, seed=seed + 5), features, next(iter(features.values())))


def outputs(task: str, method: Comparison, seed: int = 0, **more: Any) -> tuple[Output, Output]:
    """The student's and the teacher's."""
    return output(task, method, "S1", seed, **more), output(task, method, "T", seed + 50, **more)


def with_feature(feature: torch.Tensor, *taps: str, logits: torch.Tensor | None = None) -> Output:
    """One feature map at several taps."""
    logits = torch.zeros(len(feature), 1, 2, 2) if logits is None else logits
    return Output(logits, dict.fromkeys(taps, feature), feature)


def masks(batch: int = BATCH, side: int = MASK_SIDE) -> torch.Tensor:
    """Rectangles: of various sizes, in the first image none, in the second everywhere."""
    found = torch.zeros(batch, 1, side, side)
    for b in range(2, batch):
        found[b, :, side // 8 * (b % 3) : side // 2 + side // 8 * (b % 3), : side // 4 * (1 + b % 3)] = 1
    found[1:2] = 1
    return found


def batch_of(task: str, seed: int = 0, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.random.RandomState(seed).rand(BATCH, 3, size, size)).float()
    return images, masks(side=size) if task == "segmentation" else torch.arange(BATCH) % CLASSES


def distances(method: Comparison, student: Output, teacher: Output, mask: torch.Tensor | None = None) -> dict[str, Any]:
    """Unweighted, by term; the targets are `masks` unless others are given."""
    with torch.no_grad():
        found = method.distances(student, teacher, masks(len(student.logits)) if mask is None else mask)
    return {name: value.item() for name, value in found.items()}


def enliven(method: nn.Module) -> None:
    """A residual network begins with its blocks switched off (timm), so that most of it would get no gradient."""
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.4)
                module.bias.uniform_(0.0, 0.6)


@contextlib.contextmanager
def answering(method: Comparison, student: Output, teacher: Output) -> Iterator[None]:
    """Both networks say this, whatever they are shown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method.networks["S1"], "forward", lambda images: student)
        patch.setattr(method.networks["T"], "forward", lambda images: teacher)
        patch.setattr(method.networks["T"], "features_until", lambda tap, images: teacher.features)
        yield


@contextlib.contextmanager
def without_learning(method: Comparison) -> Iterator[None]:
    """What brings the student's maps to the teacher's hands them on as they are."""
    parts = [(method, name) for name in ("regressor", "connector", "adapter") if hasattr(method, name)]
    rows = [*getattr(method, "regressors", []), getattr(method, "means", [])]
    parts += [(row, str(place)) for row in rows for place in range(len(row))]
    before = [getattr(module, name) for module, name in parts]
    for module, name in parts:
        setattr(module, name, nn.Identity())
    yield
    for (module, name), part in zip(parts, before, strict=True):
        setattr(module, name, part)
