"""Measures the memory of a model in a new process: `python -m classroom.export.memory`."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import numpy as np
import psutil

from classroom.export.model import Model

RUNS = 3


def growth(path: Path) -> int:
    """The largest growth in bytes of this process while it loads the model and runs it on one image and one thread."""
    before = psutil.Process().memory_info().rss
    model = Model(path, threads=1)
    size = model.about["image_size"]
    image = np.zeros((1, size, size, 3), np.uint8)
    for _ in range(RUNS):
        model.probabilities(image)
    return peak() - before


def peak() -> int:
    """The peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` includes the parent process
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(growth(Path(sys.argv[1])))
