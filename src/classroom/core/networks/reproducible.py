"""Makes trainings bit-identical for the same settings."""

from __future__ import annotations

import torch


def make_deterministic(threads: int) -> None:
    """Sets a fixed number of threads and deterministic algorithms for this process."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # a few CUDA kernels have no deterministic form
    torch.backends.cudnn.benchmark = False
