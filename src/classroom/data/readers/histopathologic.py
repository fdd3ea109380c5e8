"""Histopathologic Cancer Detection in the Kaggle competition's layout: train_labels.csv (id, label), train/<id>.tif.

The competition does not name the slides, so each patch is a group. PCam, its origin, does; a dataset of this layout may
name them in source_index.csv next to train_labels.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from classroom.data.readers import (
    UNKNOWN,
    File,
    Found,
    Problems,
    Sample,
    by_name,
    check_all_used,
    check_complete,
    list_files,
    one_of,
    read_table,
)
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("negative", "positive")
MASKS = False
EXPECTED = (
    "train_labels.csv (id, label) next to train/<id>.tif, as in the Kaggle competition "
    "'histopathologic-cancer-detection'"
)
TILE = 500
"""Side of a group in pixels, if neither patients nor slides are enough: 10×10 patches of 50 pixels."""
PATIENTS = 20
"""Patients that a split of 75:10:15 needs: one for each of its equal parts."""

OTHERS = r"sample_submission\.csv"


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every patch with its label, sorted by id.

    A group is what source_index.csv names: a patient, if there are at least PATIENTS; a slide (column wsi); or a tile
    of neighbouring patches of a patient (columns x and y). Without that table it is an image. Raises DataError naming
    rows without a file, files without a row, and labels other than 0 and 1. The competition's unlabelled images in
    test/ are left out.
    """
    problems = Problems()
    listing = list_files(folders, settings.ignore, problems)
    tables = [path for path in listing.files if path.name == "train_labels.csv"]
    table = one_of(tables, "train_labels.csv", folders, EXPECTED)
    files = [path for path in listing.images() if path.parent.name == "train"]
    if not files:
        raise DataError(f"{table.parent / 'train'}: no images here. Expected {EXPECTED}.")
    images = by_name(files, listing, problems, "image")
    rows = check_complete(read_table(table, ("id", "label"), key="id"), images, listing, problems)
    names = dict(zip("01", CLASSES, strict=True))
    problems.add(
        "Rows whose label is neither 0 nor 1",
        *(f"'{name}' ({label})" for name, label in rows.label[~rows.label.isin(names)].items()),
    )
    index = table.with_name("source_index.csv")
    tests = [path for path in listing.files if path.parent.name == "test"]
    check_all_used(listing, {*files, *tables, *tests, index}, problems, "train/<id>.tif", OTHERS)
    problems.raise_any(", ".join(map(str, folders)))
    group, grouping, groups, sources = _groups(index, rows.index)
    samples = [
        Sample(
            id=name,
            group=groups[name],
            label=names[label],
            image=File(images[name][0], f"train/{images[name][0].name}"),
            mask=None,
        )
        for name, label in rows.label.items()
    ]
    return Found(samples, group, (File(table, table.name), *sources), grouping)


def _groups(table: Path, ids: pd.Index) -> tuple[str, str, dict[str, str], tuple[File, ...]]:
    """The kind of group, how it is told, the group of every id, and the table with the groups, if there is one."""
    if not table.exists():
        return "image", UNKNOWN, {name: name for name in ids}, ()
    index, problems = read_table(table, ("id",), key="id"), Problems()
    problems.add(
        "Images without a row (expected a row for each image; or remove this table)", *ids.difference(index.index)
    )
    for column in {"patient", "wsi"} & set(index):
        problems.add(f"Rows without {column}", *index.index[index[column] == ""])
    problems.raise_any(table)
    own = (File(table, table.name),)
    if "patient" in index and index.patient.nunique() >= PATIENTS:
        return "patient", f"patient in {table.name}", index.patient.to_dict(), own
    if "wsi" in index:
        told = f"slides, wsi in {table.name}; several slides of one patient may be in two splits"
        return "slide", told, index.wsi.to_dict(), own
    if {"patient", "x", "y"} <= set(index):
        places = index[["x", "y"]].apply(pd.to_numeric, errors="coerce")
        problems.add("Rows whose x and y are not numbers (pixels)", *places.index[places.isna().any(axis=1)])
        problems.raise_any(table)
        tiles = (places // TILE).astype(int)
        told = (
            f"tiles of {TILE}×{TILE} pixels of one patient, by {table.name}; they are too few patients to split by "
            "patient, so tiles of one patient may be in two splits"
        )
        return "tile", told, (index.patient + "-" + tiles.x.astype(str) + "-" + tiles.y.astype(str)).to_dict(), own
    raise DataError(f"{table}: expected the column wsi, or patient, x and y; found {', '.join(index)}.")
