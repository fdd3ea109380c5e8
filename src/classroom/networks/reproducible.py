"""The same settings give the same bits."""

from __future__ import annotations

import pyarrow as pa
import threadpoolctl
import torch


def make_deterministic(threads: int) -> None:
    """For this process: a fixed number of threads in every library, no algorithm that depends on timing."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)  # of BLAS and OpenMP, whose default is every core
    pa.set_cpu_count(threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # a few CUDA kernels have no deterministic form
    torch.backends.cudnn.benchmark = False
