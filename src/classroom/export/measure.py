"""Measures exported models on this machine's CPU: latency, throughput and memory."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classroom.errors import ExportError
from classroom.export.model import Model
from classroom.files import content_hash

THREADS = 1
BATCH = 8
ROUNDS = 30
SECONDS = 5.0
"""At least ROUNDS rounds, and more until SECONDS have passed: timings of fast models are noisy."""
SHARED = ("study", "seed", "data")
"""Facts that models must share to be compared."""


def measure(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Measures a study's exported models in turn, so that every round runs each of them once.

    `paths`: by network. Returns by network: parameters, macs and bytes of the file; seconds for one image, in every
    round; images per second in batches, the median; memory, the growth of a new process in bytes; the metrics of its
    run; and the hash of the file. Raises ExportError if a model is missing or damaged, or if the models are of
    different data.
    """
    models = {name: Model(path, THREADS) for name, path in paths.items()}
    first, *others = models.values()
    for model in others:
        if any(model.about[key] != first.about[key] for key in SHARED):
            raise ExportError(
                f"{model.path}: differs from {first.path} in {' or '.join(SHARED)}, so they cannot be compared. Train "
                "and export both again."
            )
    single, batches = _seconds(models, 1, ROUNDS), _seconds(models, BATCH, ROUNDS // BATCH)
    return {
        **{key: first.about[key] for key in SHARED},
        "cpu": cpu(),
        "onnxruntime": version("onnxruntime"),
        "threads": THREADS,
        "batch": BATCH,
        "networks": {
            name: {
                **{key: model.about[key] for key in ("method", "networks", "metrics", "parameters", "macs")},
                "bytes": model.path.stat().st_size,
                "seconds": single[name],
                "images_per_second": BATCH / float(np.median(batches[name])),
                "memory": _memory(model.path),
                "path": model.path.as_posix(),
                "content": content_hash(model.path),
            }
            for name, model in models.items()
        },
    }


def cpu() -> str:
    """The name of the processor."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _seconds(models: Mapping[str, Model], batch: int, rounds: int) -> dict[str, list[float]]:
    """The seconds of every round by model, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    random = np.random.default_rng(0)
    images = {}
    for name, model in models.items():
        size = model.about["image_size"]
        images[name] = random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        model.probabilities(images[name])
    began = time.perf_counter()
    while len(next(iter(seconds.values()))) < rounds or time.perf_counter() - began < SECONDS:
        for name, model in models.items():
            started = time.perf_counter()
            model.probabilities(images[name])
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _memory(path: Path) -> int:
    command = [sys.executable, "-m", "classroom.export.memory", str(path)]
    try:
        return int(subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise ExportError(
            f"{path}: its memory cannot be measured in a process of its own ({' '.join(reason.split())[-300:]})."
        ) from None
