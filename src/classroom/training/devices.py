"""Where a training runs: on a host with several GPUs, on one that no other training holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from classroom.errors import TrainingError

LOCKS = Path("/tmp/classroom-gpus")
"""A file per GPU, the same for all pipelines and users of a host. A killed process frees its lock by dying."""

_held: dict[str, FileLock] = {}


def choose_device(name: str) -> torch.device:
    """`auto` is the first accelerator, else the CPU. Raises TrainingError for one that is not there."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # it can be written and read
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"device '{name}' cannot be used ({str(error).splitlines()[0]}). Use 'auto' or 'cpu'."
        ) from None
    return device


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU's own memory that are free; 0 where there is no such memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def claim_device(name: str, log: Callable[[str], None]) -> torch.device:
    """As `choose_device`, but of CUDA's GPUs `auto` is the first that no other training on this host has claimed.

    It is this process's own until the process ends. While others have all of them, waits. A device that is given by
    name is not claimed: several trainings may share it.
    """
    gpus = _visible_gpus() if name == "auto" else []
    if not gpus:
        return choose_device(name)
    index = _claim_one_of(gpus, log)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _claim_one_of(gpus: list[str], log: Callable[[str], None]) -> int:
    """The position of the first of `gpus` that is, or could be, locked by this process."""
    for index, gpu in enumerate(gpus):
        if gpu in _held:
            return index
    try:
        _make_lock_folder()
        told = False
        while True:
            for index, gpu in enumerate(gpus):
                lock = FileLock(LOCKS / f"{gpu}.lock", mode=0o666)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                _held[gpu] = lock
                return index
            if not told:
                log(
                    f"every GPU here ({len(gpus)}) is held by another training; waiting for one. (--device cuda shares "
                    "one; --resources gpu=N lets Snakemake start no more than N trainings.)"
                )
                told = True
            time.sleep(1)
    except OSError as error:
        log(f"{LOCKS}: cannot be locked ({error.strerror}), so the first GPU is taken, whoever else is on it")
        return 0


def _visible_gpus() -> list[str]:
    """What the driver calls the GPUs that this process sees, whatever their numbers here."""
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _make_lock_folder() -> None:
    if not LOCKS.exists():
        LOCKS.mkdir(exist_ok=True)
        LOCKS.chmod(0o777)  # other users' trainings lock here too
