"""Taps: where features are taken from a network, by names that all encoders share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from classroom.errors import ParamsError, suggestion

STRIDES = {"stem": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
"""Stages of an encoder by stride (image size ÷ map size), each after its last activation."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Tap(NamedTuple):
    """A place in a network whose output other networks are compared with."""

    module: nn.Module
    pick: Callable[[Any], torch.Tensor]
    """Extracts the feature map (B, C, H, W) from the module's output."""


def find(body: nn.Module, name: str) -> Tap:
    """The tap called `name`: a stage of the encoder (`layer2`) or the path of any module (`decoder.blocks.0`).

    Raises ParamsError for a tap that does not exist; the message lists those that do.
    """
    stages = stages_of(body.get_submodule("encoder")) if hasattr(body, "encoder") else {}
    if hasattr(body, "last"):  # of a classifier: the input of Conv6 or of the pooling
        stages["layer4"] = Tap(body.get_submodule("last"), _whole)
    if name in stages:
        return stages[name]
    try:
        return Tap(body.get_submodule(name), _whole)
    except AttributeError:
        paths = [path for path, _ in body.named_modules() if path.count(".") <= 2 and path]
        blocks = [path for path in paths if path.startswith("decoder.blocks.") and path.count(".") == 2]
        near = suggestion(name, [*stages, *paths])
        raise ParamsError(
            f"tap '{name}' does not exist in this network.{near if 'Did' in near else ''} "
            f"Taps: {', '.join([*stages, *blocks])}, or the path of any module."
        ) from None


def stages_of(encoder: nn.Module) -> dict[str, Tap]:
    """The stages of `STRIDES` that the encoder has."""
    if (infos := getattr(encoder, "feature_info", None)) is not None:  # timm: modules by stride
        modules = {info["reduction"]: info["module"] for info in infos}
        return {
            name: Tap(encoder.get_submodule(modules[stride]), _whole)
            for name, stride in STRIDES.items()
            if stride in modules
        }
    # An encoder of segmentation-models-pytorch returns the image and then one map per stage.
    return {name: Tap(encoder, _stage(number)) for number, name in enumerate(STRIDES, start=1)}


def blocks_of(body: nn.Module) -> list[str]:
    """The paths of the blocks in the order of `named_modules`: residual, depthwise-separable, of the decoder.

    A block is an innermost member of a container with two or more convolutions. Only members count, so that
    squeeze-and-excitation, two convolutions inside a block, is not taken for a block of its own.
    """
    modules = dict(body.named_modules())
    members = [
        path
        for path, module in modules.items()
        if path
        and isinstance(modules[path.rpartition(".")[0]], CONTAINERS)
        and sum(isinstance(inner, nn.Conv2d) for inner in module.modules()) > 1
    ]
    return [path for path in members if not any(other.startswith(f"{path}.") for other in members)]


def _whole(output: torch.Tensor) -> torch.Tensor:
    return output


def _stage(number: int) -> Callable[[Any], torch.Tensor]:
    return lambda output: output[number]
