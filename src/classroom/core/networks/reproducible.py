"""The same settings give the same bits."""

from __future__ import annotations

import torch


def make_deterministic(threads: int) -> None:
    """For this process: a fixed number of threads, no algorithm that depends on timing."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # a few CUDA kernels have no deterministic form
    torch.backends.cudnn.benchmark = False
