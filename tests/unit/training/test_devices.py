"""Trainings on one host share out its GPUs among themselves; simulated, as few machines that run tests have any."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from classroom import devices
from classroom.errors import TrainingError

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["classroom.training.run"])  # as in test_training.py: one server serves both


def training(number: int, gpus: list[str], locks: Path, said: Any) -> None:
    """A process that sees these GPUs, claims one as a training does, and holds it until it is killed."""
    devices.LOCKS = locks
    devices._visible_gpus = lambda: gpus
    torch.cuda.set_device = lambda index: None
    device = devices.claim_device("auto", lambda line: said.put((number, "log", line)))
    said.put((number, "device", gpus[device.index]))
    processes.Event().wait()


class Host:
    """Starts trainings and hears what they say."""

    def __init__(self, locks: Path) -> None:
        self.locks = locks
        self.said = processes.Queue()
        self.started: list[BaseProcess] = []

    def start(self, *gpus: str) -> BaseProcess:
        arguments = (len(self.started), list(gpus), self.locks, self.said)
        self.started.append(processes.Process(target=training, args=arguments, daemon=True))
        self.started[-1].start()
        return self.started[-1]

    def hear(self) -> tuple[int, str, str]:
        return self.said.get(timeout=60)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "locks")
    yield host
    for process in host.started:
        process.kill()
        process.join()


def test_trainings_that_start_at_once_get_a_gpu_each(host: Host) -> None:
    gpus = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    for _ in gpus:
        host.start(*gpus)
    heard = [host.hear() for _ in gpus]
    assert {what for _, what, _ in heard} == {"device"}, "nobody had to wait"
    assert sorted(gpu for _, _, gpu in heard) == gpus


def test_one_training_too_many_waits_until_another_is_killed(host: Host) -> None:
    """`kill -9` included: the operating system frees the lock, no file has to be cleaned up by anybody."""
    host.start("GPU-a", "GPU-b")
    assert host.hear() == (0, "device", "GPU-a")
    second = host.start("GPU-a", "GPU-b")
    assert host.hear() == (1, "device", "GPU-b")
    host.start("GPU-a", "GPU-b")
    number, what, line = host.hear()
    assert (number, what) == (2, "log")
    assert "all 2 GPUs are in use by other trainings; waiting for one" in line
    with pytest.raises(queue.Empty):
        host.said.get(timeout=1.5)
    second.kill()
    assert host.hear() == (2, "device", "GPU-b")


def test_a_gpu_is_the_same_whatever_its_number_is_here(host: Host) -> None:
    """Pipelines that see the host's GPUs in another order, or only some of them, as CUDA_VISIBLE_DEVICES makes them."""
    host.start("GPU-a", "GPU-b")
    assert host.hear() == (0, "device", "GPU-a")
    host.start("GPU-b", "GPU-a")
    assert host.hear() == (1, "device", "GPU-b")
    host.start("GPU-a")
    assert host.hear()[:2] == (2, "log")
    host.start("GPU-a", "GPU-b", "GPU-c")
    assert host.hear() == (3, "device", "GPU-c")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(devices, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(devices, "_held", {})
    monkeypatch.setattr(devices, "_visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    return tmp_path / "locks"


def test_a_process_keeps_the_gpu_it_has(two_gpus: Path) -> None:
    assert devices.claim_device("auto", pytest.fail) == torch.device("cuda", 0)
    assert devices.claim_device("auto", pytest.fail) == torch.device("cuda", 0)


def test_a_device_given_by_name_is_not_claimed(two_gpus: Path) -> None:
    assert devices.claim_device("cpu", pytest.fail) == torch.device("cpu")
    assert not two_gpus.exists()


def test_without_locks_the_first_gpu_is_taken_and_said_to_be_shared(two_gpus: Path) -> None:
    two_gpus.write_text("a file where the folder should be")
    said: list[str] = []
    assert devices.claim_device("auto", said.append) == torch.device("cuda", 0)
    assert len(said) == 1
    assert "even if it is busy" in said[0]


def test_without_gpus_training_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.claim_device("auto", pytest.fail) == torch.device("cpu")


def test_an_absent_device_is_named() -> None:
    with pytest.raises(TrainingError, match="device 'cuda:7' cannot be used"):
        devices.choose_device("cuda:7")
