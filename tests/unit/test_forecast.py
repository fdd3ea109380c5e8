"""How many images a forecast reckons with."""

from __future__ import annotations

from pathlib import Path

import pytest

from classroom.data.fetching.sources import fetch
from classroom.data.prepare import prepare
from classroom.data.synthetic import GENERATORS
from classroom.forecast import count_images
from classroom.params import Dataset, Synthetic

SYNTHETIC = Synthetic(groups=3, images_per_group=2, size=32, seed=0)


def dataset(**settings: object) -> Dataset:
    return Dataset.model_validate({"reader": "lgg", "source": "directory", "full_size": 3929, **settings})


def test_images_are_counted_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six slices in a folder of one's own, after they are fetched, and when the folder is gone again."""
    monkeypatch.chdir(tmp_path)
    GENERATORS["lgg"](tmp_path / "mine", SYNTHETIC)
    own = dataset(directory="mine")
    assert count_images("lgg", own, "segmentation") == (6, "mine")
    fetch("lgg", own, Path("data/raw/lgg"))
    assert count_images("lgg", dataset(directory="elsewhere"), "segmentation") == (6, "data/raw/lgg")
    assert count_images("lgg", dataset(directory="elsewhere", subset=7), "segmentation")[0] == 7, "more are to be read"
    assert count_images("lgg", dataset(directory="mine", subset=4), "segmentation") == (4, "mine")


def test_only_images_that_the_task_uses_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAM10000 with masks of some images: hours and disk of a segmentation are of these, as `prepare` takes them."""
    monkeypatch.chdir(tmp_path)
    GENERATORS["ham10000"](tmp_path / "mine", Synthetic(groups=8, images_per_group=1, size=32, seed=0))
    for mask in sorted((tmp_path / "mine").rglob("*_segmentation.png"))[:5]:
        mask.unlink()
    own = dataset(reader="ham10000", directory="mine")
    fetch("ham10000", own, Path("data/raw/ham10000"))
    for of in (own, dataset(reader="ham10000", directory="elsewhere")):
        assert count_images("ham10000", of, "segmentation")[0] == 3
        assert count_images("ham10000", of, "classification")[0] == 8
    assert prepare("segmentation", 32, Path("data/raw/ham10000"), Path("prepared")) == 3


def test_before_anything_is_fetched_it_is_the_number_of_the_dataset_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = 3929, "datasets/lgg.yaml: full_size; its directory is not there: nowhere"
    assert count_images("lgg", dataset(directory="nowhere"), "segmentation") == missing
    synthetic = dataset(source="synthetic", synthetic=SYNTHETIC)
    fetch("lgg", synthetic, Path("data/raw/lgg"))
    assert count_images("lgg", dataset(directory="nowhere"), "segmentation") == missing, "the demo's were counted"
    assert "not fetched yet" in count_images("lgg", dataset(source="kaggle", kaggle=["a/b"]), "segmentation")[1]
    assert count_images("lgg", synthetic, "segmentation") == (6, "datasets/lgg.yaml: synthetic")
