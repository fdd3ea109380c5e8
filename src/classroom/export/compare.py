"""Verifies an exported model on test images: against PyTorch, and against the predictions that the run saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from classroom.core import predictions
from classroom.core.batches import SplitData
from classroom.core.ensemble import with_ensemble
from classroom.errors import ExportError
from classroom.export.graph import Exported
from classroom.export.model import Model
from classroom.files import read_json
from classroom.progress import track

TOLERANCE = 1e-4
"""Accepted difference of a probability between ONNX and PyTorch, and from a run's predictions on a CPU."""
OTHER_DEVICE = 0.05
"""Accepted difference from the predictions of a run on an accelerator, which may round to ten bits (TF32)."""
BATCHES = (1, 3, 8)
"""Images at a time, in turn."""
MAX_IMAGES = 100


class Difference(NamedTuple):
    """The largest differences of a probability."""

    torch: float
    saved: float
    """From the run's saved predictions; for masks, beyond the rounding to bytes."""
    images: int
    """Number of compared test images: all, or `MAX_IMAGES` evenly spaced ones."""


def verify_export(path: Path, module: Exported, network: str, run: Path, test: SplitData) -> Difference:
    """Compares an exported model with PyTorch and with the saved predictions of its run.

    Parameters
    ----------
    path
        the ONNX file
    module
        the same networks in PyTorch
    network
        T, S1, S2 or ensemble
    run
        folder of the run
    test
        the test split

    Raises
    ------
    ExportError
        A difference exceeds its tolerance, or a probability is not finite.
    DataError
        The saved predictions are missing or damaged.
    """
    model = Model(path, threads=torch.get_num_threads())
    positions = np.unique(np.linspace(0, len(test) - 1, MAX_IMAGES).astype(int))
    ids, stacks = predictions.read(run / "predictions.parquet")
    if ids != test.ids:
        raise ExportError(f"{run}: predictions.parquet and metrics.json are not of the same run. Train it again.")
    saved = with_ensemble(stacks)[network]
    from_torch = from_saved = 0.0
    for batch in track(list(_batches(positions)), "batches compared"):
        images = test.images[test.rows[batch]]
        found = model.probabilities(images)
        with torch.no_grad():
            expected = module(torch.from_numpy(images)).numpy()
        if not np.isfinite(expected).all():
            raise ExportError(
                f"{run}: {network} diverged: it gives NaN or infinite probabilities for a test image, so nothing is "
                "written. Lower training.learning_rate and train this run again."
            )
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise ExportError(f"{run}: ONNX gives no probabilities for {len(batch)} images at a time. Use PyTorch.")
        from_torch = max(from_torch, float(np.abs(found - expected).max()))
        from_saved = max(from_saved, float(_beyond(found, saved[batch]).max()))
    if from_torch > TOLERANCE:
        raise ExportError(
            f"{run}: the ONNX model of {network} differs from PyTorch by up to {from_torch:.1g} in a probability; "
            f"at most {TOLERANCE:g} is accepted, so nothing was written. Use PyTorch."
        )
    allowed = _allowed(run)
    if from_saved > allowed:
        raise ExportError(
            f"{run}: the weights of {network} do not give the predictions that the run saved: {from_saved:.1g} apart, "
            f"at most {allowed:g} is accepted. Files of several runs are mixed, or the images were prepared again from "
            "others. Train this run again."
        )
    return Difference(from_torch, from_saved, len(positions))


def _batches(positions: np.ndarray) -> Iterator[np.ndarray]:
    sizes = itertools.cycle(BATCHES)
    start = 0
    while start < len(positions):
        size = next(sizes)
        yield positions[start : start + size]
        start += size


def _beyond(found: np.ndarray, saved: np.ndarray) -> np.ndarray:
    """Distances from saved probabilities; a byte ⌊256·p⌋ covers the interval up to the next."""
    if saved.dtype != np.uint8:
        return np.abs(found - saved)
    steps = found * np.float32(256)
    return np.maximum(np.maximum(saved - steps, steps - (saved + np.float32(1))), 0) / 256


def _allowed(run: Path) -> float:
    manifest = read_json(run / "manifest.json", ["device"], "Train this run again.")
    return TOLERANCE if manifest["device"] == "cpu" else OTHER_DEVICE
