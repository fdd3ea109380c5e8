"""The layers of a built network (Tables 6, 7), read from its modules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from classroom.core.networks.build import Network
from classroom.core.networks.taps import blocks_of


class Layer(NamedTuple):
    """One row of Table 6 or 7."""

    stage: str
    """Conv1, Conv2.x … Conv5.x, Conv6; DeConv 1 … DeConv 5."""
    shape: tuple[int, ...]
    """Height, width and channels of its output."""
    blocks: str
    """Its convolutions in order, as the paper prints them: `[1×1, 64; 3×3, 64; 1×1, 256] × 3`."""


class _Call(NamedTuple):
    """One call of a convolution or pooling."""

    path: str
    module: nn.Conv2d | nn.MaxPool2d
    input: torch.Tensor
    shape: tuple[int, ...]


def layers(network: Network, image_size: int) -> list[Layer]:
    """The stages of `network` for square images, from what its modules do in one forward pass.

    A stage of the encoder is everything of one resolution: Conv1 at half the image's, Conv2.x at a quarter, and so
    on. Works on any device, `meta` included, where nothing is computed but shapes.
    """
    steps = [step for step in _steps(network.body, image_size) if step.stage]
    described = []
    for _, found in itertools.groupby(steps, key=lambda step: step.stage):
        members = list(found)
        runs = [(text, len(list(same))) for text, same in itertools.groupby(step.blocks for step in members)]
        blocks = " → ".join(f"{text} × {count}" if text.startswith("[") else text for text, count in runs)
        described.append(members[-1]._replace(blocks=blocks))
    return described


def _steps(body: nn.Module, image_size: int) -> Iterator[Layer]:
    """Every block, convolution outside of blocks and pooling, in the order in which they run."""
    calls, shape_of = _observe(body, image_size)
    blocks = blocks_of(body)
    for block, group in itertools.groupby(calls, key=lambda call: _block_of(call.path, blocks)):
        first, *others = group
        if block is None:
            for call in (first, *others):
                yield Layer(_stage(call.path, call.shape, image_size), call.shape, _text(call.module, alone=True))
        else:
            # Other layers on the block's input are its shortcut, which the paper's tables leave out.
            main = [first, *(call for call in others if call.input is not first.input)]
            text = "[" + "; ".join(_text(call.module) for call in main) + "]"
            yield Layer(_stage(first.path, shape_of[block], image_size), shape_of[block], text)


def _observe(body: nn.Module, image_size: int) -> tuple[list[_Call], dict[str, tuple[int, ...]]]:
    """The calls of one forward pass, and by path every module's output: height, width and channels."""
    calls: list[_Call] = []
    shape_of: dict[str, tuple[int, ...]] = {}
    path_of = {module: path for path, module in body.named_modules()}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if module in path_of and isinstance(output, torch.Tensor):
            path = path_of[module]
            shape_of[path] = (*output.shape[2:], *output.shape[1:2])
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                calls.append(_Call(path, module, inputs[0], shape_of[path]))

    hook = nn.modules.module.register_module_forward_hook(note)
    training = body.training
    body.eval()
    try:
        with torch.no_grad():
            body(torch.zeros(1, 3, image_size, image_size, device=next(body.parameters()).device))
    finally:
        body.train(training)
        hook.remove()
    return calls, shape_of


def _block_of(path: str, blocks: list[str]) -> str | None:
    return next((block for block in blocks if path.startswith(f"{block}.")), None)


def _stage(path: str, shape: tuple[int, ...], image_size: int) -> str:
    """The stage of a module; empty for heads, which the paper's tables leave out."""
    part, *rest = path.split(".")
    if part == "decoder":
        return f"DeConv {int(rest[1]) + 1}" if rest[0] == "blocks" else ""
    if part == "conv6":
        return "Conv6"
    if part != "encoder":
        return ""
    halvings = round(math.log2(image_size / shape[1]))
    return "Conv1" if halvings == 1 else f"Conv{halvings}.x"


def _text(module: nn.Conv2d | nn.MaxPool2d, alone: bool = False) -> str:
    """`3×3, 64`; with a depthwise convolution, and a stride outside of a block, named."""
    height, width = module.kernel_size if isinstance(module.kernel_size, tuple) else (module.kernel_size,) * 2
    kernel = f"{height}×{width}"
    stride = module.stride if isinstance(module.stride, int) else module.stride[0]
    strided = f", stride {stride}" if alone and stride > 1 else ""
    if isinstance(module, nn.MaxPool2d):
        return f"{kernel} max pool{strided}"
    if module.groups == 1:
        kind = ""
    else:
        kind = " depthwise" if module.groups == module.in_channels else f" in {module.groups} groups"
    return f"{kernel}{kind}, {module.out_channels}{strided}"
