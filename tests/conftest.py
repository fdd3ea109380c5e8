"""Shared by all tests: the repository's root, its settings, and a tiny study to train on."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: threads of several small trainings fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from classroom import params
from classroom.data import prepare, sources, split
from classroom.params import Dataset, Split, select

ROOT = Path(__file__).parents[1]
REAL_LGG = ROOT.parent / "shared" / "data" / "lgg"
"""Real LGG slices, where the machine has them; a clone on its own does not."""

STUDY = "lgg-resnet18"

THIN = {
    "encoder": "tu-resnet18",
    "encoder_options": {"channels": [4, 4, 8, 8]},
    "decoder_channels": [8, 4, 4, 4, 4],
    "weights": "random",
}


@pytest.fixture
def raw() -> dict[str, Any]:
    """The committed settings, free to change."""
    return params.load(ROOT / "params.yaml")


def shrink(raw: dict[str, Any]) -> dict[str, Any]:
    """The same settings with the smallest phantoms and networks that still go every way: seconds, not minutes."""
    raw = copy.deepcopy(raw)
    raw["dataset"]["lgg"]["phantom"] = {"patients": 22, "slices": 3, "size": 32, "seed": 0}
    for study in raw["study"].values():
        study["image_size"] = 32
        study["teacher"] = copy.deepcopy(THIN)
        study["student"] = copy.deepcopy(THIN)
    raw["training"] |= {"epochs": 2, "batch_size": 8}
    return raw


@pytest.fixture
def tiny(raw: dict[str, Any]) -> dict[str, Any]:
    return shrink(raw)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `splits.parquet` of a tiny phantom study; read only."""
    raw = shrink(params.load(ROOT / "params.yaml"))
    folder = tmp_path_factory.mktemp("tiny-study")
    sources.fetch("lgg", select(raw, "dataset.lgg", Dataset), folder / "raw")
    prepare.prepare("lgg", "lgg", "phantom", 32, folder / "raw", folder / "prepared")
    split.write(folder / "prepared", select(raw, f"study.{STUDY}.split", Split), folder / "splits.parquet")
    return folder
