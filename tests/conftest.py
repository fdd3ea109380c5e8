"""Shared by all tests: the repository's root, its settings, and tiny studies of both tasks to train on."""

from __future__ import annotations

import copy
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: threads of several small trainings fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from classroom import params
from classroom.params import Dataset, Split, select

ROOT = Path(__file__).parents[1]
REAL_IMAGES = ROOT.parent / "shared" / "data"
"""Small subsets of the original downloads, beside the repository where there are any; a clone on its own has none."""

STUDY = "lgg-resnet18"
"""Segmentation."""
CLASSES_STUDY = "ham10000-classification"
"""Classification, of seven classes of which some are rare."""

THIN = {
    "encoder": "tu-resnet18",
    "encoder_options": {"channels": [4, 4, 8, 8]},
    "decoder_channels": [8, 4, 4, 4, 4],
    "weights": "random",
}
THIN_CLASSIFIER = {"encoder": "resnet18", "encoder_options": {"channels": [4, 4, 8, 8]}, "weights": "random"}
THIN_TEACHER = {  # wider than its students, so that only Conv6 makes its features comparable
    "encoder": "resnet18",
    "encoder_options": {"channels": [4, 4, 8, 12]},
    "conv6_channels": 8,
    "weights": "random",
}
NETWORKS = {
    "segmentation": {"teacher": THIN, "student": THIN},
    "classification": {"teacher": THIN_TEACHER, "student": THIN_CLASSIFIER},
}
PHANTOMS = {"histopathologic": (22, 3), "lgg": (22, 3), "ham10000": (60, 2)}
"""Of every dataset so many groups, with so many images each, that all classes and splits have some."""


@pytest.fixture(autouse=True)
def ordinary_floats() -> Iterator[None]:
    """A training makes the smallest floats zero in its process; here the next test runs in it too."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@functools.cache
def _committed() -> dict[str, Any]:
    return params.load(ROOT / "params.yaml")


@pytest.fixture
def raw() -> dict[str, Any]:
    """The committed settings, free to change."""
    return copy.deepcopy(_committed())


def shrink(raw: dict[str, Any]) -> dict[str, Any]:
    """The same settings with the smallest phantoms and networks that still go every way: seconds, not minutes."""
    raw = copy.deepcopy(raw)
    for name, (groups, images) in PHANTOMS.items():
        raw["dataset"][name]["phantom"] = {"groups": groups, "images_per_group": images, "size": 32, "seed": 0}
    for study in raw["study"].values():
        study["image_size"] = 32
        for role, network in NETWORKS[study["task"]].items():
            study[role] = copy.deepcopy(network)
    raw["training"] |= {"epochs": 2, "batch_size": 8}
    return raw


@pytest.fixture
def tiny(raw: dict[str, Any]) -> dict[str, Any]:
    return shrink(raw)


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `splits.parquet` of a tiny segmentation of phantoms; read only."""
    return _made(STUDY, tmp_path_factory.mktemp("tiny-study"))


@pytest.fixture(scope="session")
def tiny_classes_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw`, `prepared` and `splits.parquet` of a tiny classification of phantoms; read only."""
    return _made(CLASSES_STUDY, tmp_path_factory.mktemp("tiny-classes-study"))


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small project in which everything has been made; read only."""
    import finished

    return finished.make(tmp_path_factory)


def _made(name: str, folder: Path) -> Path:
    from classroom.data import prepare, sources, split

    raw = shrink(_committed())
    study = raw["study"][name]
    dataset = select(raw, f"dataset.{study['dataset']}", Dataset)
    sources.fetch(study["dataset"], dataset, folder / "raw")
    prepare.prepare(study["task"], study["image_size"], folder / "raw", folder / "prepared")
    split.write(folder / "prepared", select(raw, f"study.{name}.split", Split), folder / "splits.parquet")
    return folder
