"""Selects the device of a training; on a host with several GPUs, one that no other training has locked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from classroom.errors import TrainingError

LOCKS = Path("/tmp/classroom-gpus")
"""One file per GPU, shared by all pipelines and users of a host. The system releases the lock of a killed process."""

_held: dict[str, FileLock] = {}


def choose_device(name: str) -> torch.device:
    """`auto` is the first accelerator, else the CPU. Raises TrainingError for a device that does not exist."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"device '{name}' cannot be used ({str(error).splitlines()[0]}). Use 'auto' or 'cpu'."
        ) from None
    return device


def free_memory(device: torch.device) -> int:
    """Free bytes of a GPU's own memory; 0 for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def claim_device(name: str, log: Callable[[str], None]) -> torch.device:
    """As `choose_device`, but `auto` is the first CUDA GPU that no other training on this host has locked.

    Holds the lock until the process ends, and waits while all GPUs are locked. A device given by name is not locked:
    several trainings may share it.
    """
    gpus = _visible_gpus() if name == "auto" else []
    if not gpus:
        return choose_device(name)
    index = _claim_one_of(gpus, log)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _claim_one_of(gpus: list[str], log: Callable[[str], None]) -> int:
    """The position of the first of `gpus` that this process has locked or can lock."""
    for index, gpu in enumerate(gpus):
        if gpu in _held:
            return index
    try:
        _make_lock_folder()
        logged = False
        while True:
            for index, gpu in enumerate(gpus):
                lock = FileLock(LOCKS / f"{gpu}.lock", mode=0o666)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                _held[gpu] = lock
                return index
            if not logged:
                log(
                    f"all {len(gpus)} GPUs are in use by other trainings; waiting for one. (--device cuda shares "
                    "one; --resources gpu=N lets Snakemake start no more than N trainings.)"
                )
                logged = True
            time.sleep(1)
    except OSError as error:
        log(f"{LOCKS}: cannot be locked ({error.strerror}), so the first GPU is used, even if it is busy")
        return 0


def _visible_gpus() -> list[str]:
    """The UUIDs of the GPUs that this process sees; their numbers depend on CUDA_VISIBLE_DEVICES."""
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _make_lock_folder() -> None:
    if not LOCKS.exists():
        LOCKS.mkdir(exist_ok=True)
        LOCKS.chmod(0o777)  # for the locks of other users
