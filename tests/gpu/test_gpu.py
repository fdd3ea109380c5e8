"""What only a GPU can show of a training: `make gpu-check`. With CLASSROOM_DEVICE=cpu the same on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from classroom import params
from classroom.core.batches import cache_on_device, open_splits
from classroom.params import Training, select
from classroom.training.checkpoint import Progress
from classroom.training.loop import make_optimiser, train_step
from classroom.training.make import make
from support.studies import ROOT, STUDY, shrink
from support.trained import Silent, bits, train

DEVICE = os.environ.get("CLASSROOM_DEVICE", "cuda")
GPUS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.startswith("cuda") and not GPUS, reason="no GPU here; CLASSROOM_DEVICE=cpu does without"),
]


@pytest.fixture
def raw() -> dict[str, Any]:
    settings = shrink(params.load(ROOT / "params.yaml"))
    settings["training"] |= {"epochs": 2}
    return settings


def first_losses(raw: dict[str, Any], **training: Any) -> dict[str, torch.Tensor]:
    """The loss terms of KD + ML V3's first step on the device, by name."""
    raw["training"] |= training
    settings, device = select(raw, "training", Training), torch.device(DEVICE)
    method = make("kd_ml-v3", STUDY, raw, 0, None, "segmentation", 2, 32).to(device).train()
    if settings.compile:
        method.compile_networks()
    random = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 32, 32, generator=random).to(device, memory_format=torch.channels_last)
    targets = (torch.rand(8, 1, 32, 32, generator=random) > 0.5).float().to(device)
    terms = train_step(method, make_optimiser(method, settings), settings, images, targets)
    return {f"{term.network}/{term.name}": term.value.detach() for term in terms}


def test_data_that_the_device_holds_gives_the_same_batches(tiny_study: Path) -> None:
    data, device = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet"), torch.device(DEVICE)
    kept = cache_on_device(device, data, free=2**40)
    for name, split in data.items():
        positions = np.arange(len(split))[::-1].copy()
        for batch, again in zip(split.batch(positions, device), kept[name].batch(positions, device), strict=True):
            assert torch.equal(batch, again)
            assert batch.device == again.device
            assert batch.stride() == again.stride()


def test_bf16_has_losses_in_fp32_close_to_those_of_fp32(raw: dict[str, Any]) -> None:
    exact, rounded = first_losses(raw), first_losses(raw, precision="bf16")
    assert {value.dtype for value in rounded.values()} == {torch.float32}
    for name, value in exact.items():
        torch.testing.assert_close(rounded[name], value, rtol=0.05, atol=0.01)


@pytest.mark.skipif(DEVICE == "cpu", reason="minutes of a compiler, which gains nothing on a CPU")
def test_compiled_networks_have_the_losses_of_others(raw: dict[str, Any]) -> None:
    exact, compiled = first_losses(raw), first_losses(raw, compile=True)
    for name, value in exact.items():
        torch.testing.assert_close(compiled[name], value, rtol=0.01, atol=0.001)


def test_networks_and_batches_are_channels_last(raw: dict[str, Any], tiny_study: Path) -> None:
    method = make("student", STUDY, raw, 0, None, "segmentation", 2, 32).to(DEVICE)
    for name, weight in method.named_parameters():
        if weight.ndim == 4:
            assert weight.is_contiguous(memory_format=torch.channels_last), name
    train_split = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["train"]
    images, _ = train_split.batch(np.arange(8), torch.device(DEVICE))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_training_killed_on_the_device_ends_in_the_same_bits(
    raw: dict[str, Any], tiny_study: Path, tmp_path: Path
) -> None:
    class StopAt(Silent):
        def __call__(self, progress: Progress, *more: Any) -> None:
            if (progress.epoch, progress.step) == (1, 1):
                raise KeyboardInterrupt

    train(raw, tiny_study, tmp_path / "undisturbed", device=DEVICE)
    with pytest.raises(KeyboardInterrupt):
        train(raw, tiny_study, tmp_path, device=DEVICE, show=StopAt(), checkpoint_minutes=0)
    assert any("resumed from" in line for line in train(raw, tiny_study, tmp_path, device=DEVICE).lines)
    assert bits(tmp_path / "run") == bits(tmp_path / "undisturbed/run")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_runs_that_train_together_have_the_bits_of_each_alone(
    precision: str, raw: dict[str, Any], tiny_study: Path, tmp_path: Path
) -> None:
    raw["training"]["precision"] = precision
    names = ["teacher", "kd_on-v1", "kd_on-v3", "kd_ml-v3"]
    train(raw, tiny_study, tmp_path, " ".join(names), device=DEVICE)
    for name in names:
        train(raw, tiny_study, tmp_path / "alone" / name, name, device=DEVICE)
        assert bits(tmp_path / name / "run") == bits(tmp_path / "alone" / name / "run")


@pytest.mark.skipif(GPUS < 2, reason="fewer than two GPUs")
def test_two_gpus_of_a_kind_train_the_same(raw: dict[str, Any], tiny_study: Path, tmp_path: Path) -> None:
    for index in range(2):
        train(raw, tiny_study, tmp_path / str(index), device=f"cuda:{index}")
    first, second = (pd.read_csv(tmp_path / str(index) / "run/history.csv") for index in range(2))
    losses = [name for name in first if name.startswith("loss/")]
    np.testing.assert_allclose(first[losses], second[losses], rtol=1e-3)
