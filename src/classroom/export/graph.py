"""Writes trained networks as one ONNX graph, from uint8 images to probabilities."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from classroom.core.networks.build import Network
from classroom.errors import ExportError
from classroom.export.model import INPUT, OUTPUT

OPSET = 20
"""Of ONNX operators; needs onnxruntime 1.17."""


class Exported(nn.Module):
    """One network, or an ensemble: the elementwise maximum of the probabilities (Secs. 3.2, 3.3)."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, size, size) of the foreground, or (B, classes), of images (B, size, size, 3) uint8."""
        scaled = images.permute(0, 3, 1, 2).float() / 255
        largest = functools.reduce(torch.maximum, (network(scaled).probabilities for network in self.networks))
        return largest.squeeze(1) if largest.ndim == 4 else largest

    @property
    def parameter_count(self) -> int:
        return sum(network.parameter_count for network in self.networks)

    def macs(self, image_size: int) -> int:
        """Multiply-accumulate operations of convolutions and linear layers for one image."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self(_images(1, image_size))
        return counter.get_total_flops() // 2  # it counts multiplications and additions


def write(module: Exported, image_size: int, facts: Mapping[str, Any], path: Path) -> None:
    """Writes an ONNX file for any batch size.

    The exporter's notes of source files and lines are removed: they contain paths of this machine.

    Parameters
    ----------
    module
        the networks
    image_size
        pixels along a side
    facts
        metadata
    path
        the file

    Raises
    ------
    ExportError
        The exporter cannot translate the network.
    """
    try:
        with _quietly():
            program = torch.onnx.export(
                module,
                (_images(2, image_size),),
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        model = program.model_proto
    except Exception as error:  # the exporter's errors have no common base
        encoders = ", ".join(network.facts["encoder"] for network in module.networks)
        raise ExportError(
            f"encoder {encoders}: torch cannot translate the network to ONNX ({_first_line(error)}). Use another "
            "encoder, or run the network in PyTorch."
        ) from None
    _strip(model)
    onnx.helper.set_model_props(model, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _images(count: int, size: int) -> torch.Tensor:
    return torch.zeros(count, size, size, 3, dtype=torch.uint8)


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hides the exporter's own warnings; problems are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
