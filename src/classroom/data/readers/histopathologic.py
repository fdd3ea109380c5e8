"""Histopathologic Cancer Detection in the Kaggle competition's layout: train_labels.csv (id, label), train/<id>.tif.

The competition does not name the slides, so each patch is a group. PCam, its origin, does; a dataset of this layout may
name them in source_index.csv next to train_labels.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from classroom.data.readers import File, Found, Sample, by_id, check_complete, one_of, read_table, walk
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("negative", "positive")
EXPECTED = (
    "train_labels.csv (id, label) next to train/<id>.tif, as in the Kaggle competition "
    "'histopathologic-cancer-detection'"
)
TILE = 500
"""Side of a group in pixels, if patients are known but slides are not: 10×10 patches of 50 pixels."""


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every patch with its label, sorted by id.

    A group is a slide if source_index.csv has the column wsi, a tile of neighbouring patches if it has patient, x and
    y, else an image. Raises DataError for a row without a file, a file without a row, or another label than 0 and 1.
    """
    files = walk(folders)
    tables = [path for path in files if path.name == "train_labels.csv"]
    table = one_of(tables, "train_labels.csv", folders, EXPECTED)
    train = table.parent / "train"
    if not train.is_dir():
        raise DataError(f"{train}: no such folder. Expected {EXPECTED}.")
    images = by_id((path for path in files if path.parent == train), (".tif", ".tiff"))
    labels = read_table(table, ("id", "label"), key="id").label
    names = dict(zip("01", CLASSES, strict=True))
    for name, label in labels[~labels.isin(names)].items():
        raise DataError(f"{table}: '{name}': the label is '{label}'. Expected 0 or 1.")
    check_complete(images, labels.index, table, f"{train}/")
    group, groups, sources = _groups(table.with_name("source_index.csv"), labels.index)
    samples = [
        Sample(
            id=name,
            group=groups[name],
            label=names[label],
            image=File(images[name], f"train/{images[name].name}"),
            mask=None,
        )
        for name, label in labels.items()
    ]
    return Found(samples, group, (File(table, table.name), *sources))


def _groups(table: Path, ids: pd.Index) -> tuple[str, dict[str, str], tuple[File, ...]]:
    """The kind of group, the group of every id, and the table with the groups, if there is one."""
    if not table.exists():
        return "image", {name: name for name in ids}, ()
    index = read_table(table, ("id",), key="id")
    if lacking := sorted(set(ids) - set(index.index)):
        raise DataError(
            f"{table}: has no row for '{lacking[0]}' (of {len(lacking)} images). Expected one for every image, or no "
            "such file."
        )
    own = (File(table, table.name),)
    if "wsi" in index:
        return "slide", index.wsi.to_dict(), own
    if {"patient", "x", "y"} <= set(index):
        places = index[["x", "y"]].apply(pd.to_numeric, errors="coerce")
        for name in places.index[places.isna().any(axis=1)]:
            raise DataError(f"{table}: '{name}': x and y are no numbers. Expected the patch's position in pixels.")
        tiles = (places // TILE).astype(int)
        return "tile", (index.patient + "-" + tiles.x.astype(str) + "-" + tiles.y.astype(str)).to_dict(), own
    raise DataError(f"{table}: expected the column wsi, or patient, x and y; found {', '.join(index)}.")
