"""Your own table, CSV or Parquet: a row for each image, with its label, its mask or both.

Columns: image; label or mask; and, if wanted, group and split (train, val or test). Other columns are named, not read.
Relative paths are relative to the table. Files that the table does not name do not belong to the dataset.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from classroom.artifacts import SPLIT_NAMES
from classroom.data.readers import (
    File,
    Found,
    Problems,
    Sample,
    endings,
    group_of,
    is_ignored,
    kind_of_group,
    names_without_ending,
    read_rows,
    told_by,
)
from classroom.errors import DataError, listed, reading
from classroom.params import Dataset

OPTIONS = ("table", "classes", "group", "missing_masks")


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every row's image with its label and mask, sorted by path.

    Raises DataError naming all rows that cannot be used: with a missing file or value, an image that has a row already,
    an unknown split, or a group that is in several splits.
    """
    path = next((folder / settings.table for folder in folders if (folder / settings.table).is_file()), None)
    if path is None:
        raise DataError(
            f"{', '.join(map(str, folders))}: no table {settings.table!r} here. Correct table or directory in the "
            "dataset's file."
        )
    table, unused = _read(path)
    if "group" in table and settings.group:
        raise DataError(
            f"{path}: has a column group, but the setting group, {settings.group}, is given too. Remove the setting, "
            "or rename the column."
        )
    table = table[[not is_ignored(image, settings.ignore) for image in table.image]]
    problems = Problems()
    images = _files(table.image, path, "image", problems)
    masks = {}
    if "mask" in table:
        named = table["mask"][table["mask"] != ""]
        masks = _files(named, path, "mask", problems)
        if settings.missing_masks == "refuse":
            problems.add(
                "Rows without a mask (if they are all background, set `missing_masks: empty`)",
                *(_row(row) for row in table.index[table["mask"] == ""]),
            )
    if "label" in table and ("mask" not in table or (table.label != "").any()):
        problems.add("Rows without a label", *(_row(row) for row in table.index[table.label == ""]))
    for column in {"group", "split"} & set(table):
        problems.add(f"Rows without a {column}", *(_row(row) for row in table.index[table[column] == ""]))
    if "split" in table:
        unknown = ~table.split.isin([*SPLIT_NAMES, ""])
        problems.add(
            f"Rows with an unknown split (expected {', '.join(SPLIT_NAMES)})",
            *(f"{_row(row)} '{table.split[row]}'" for row in table.index[unknown]),
        )
    places = _places([*images.values(), *masks.values()])
    inside = _places(images.values(), "")
    ids = names_without_ending(inside.values())
    samples = []
    for row, image in images.items():
        name = inside[image]
        samples.append(
            Sample(
                id=ids[name],
                group=table.group[row] if "group" in table else group_of(name, settings.group, ids[name], problems),
                label=(table.label[row] or None) if "label" in table else None,
                image=File(image, places[image]),
                mask=File(masks[row], places[masks[row]]) if row in masks else None,
                split=table.split[row] if "split" in table else "",
            )
        )
    kind = "group" if "group" in table else kind_of_group(settings.group)
    if "split" in table:
        _check_splits(samples, kind, problems)
    problems.raise_any(path)
    if not samples:
        raise DataError(f"{path}: has no rows. Expected one for each image.")
    told = "the column group of the table" if "group" in table else told_by(settings.group)
    samples.sort(key=lambda sample: sample.image.place)
    return Found(samples, kind, (File(path, f"table/{path.name}"),), told, unused)


COLUMNS = ("image", "label", "mask", "group", "split")


def _read(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """COLUMNS of the table as text, missing values as empty text, and the names of its other columns.

    The table's index numbers the lines, or rows, of the file.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        with reading(path, "Save it again, or as CSV.", what="as Parquet"):
            table = pd.read_parquet(path)
        table = table.astype(object).where(table.notna(), "").astype(str)
        table.index = pd.RangeIndex(1, len(table) + 1)
    else:
        table = read_rows(path, ",;\t")
    table.columns = [str(column).strip().lower() for column in table.columns]
    if "image" not in table or not {"label", "mask"} & set(table):
        raise DataError(
            f"{path}: expected the column image, and label or mask; found {listed(table.columns)}. Rename its columns."
        )
    unused = tuple(column or "(without a name)" for column in table if column not in COLUMNS)
    table = table[[column for column in table if column in COLUMNS]]
    if not table.columns.is_unique:
        raise DataError(f"{path}: two columns have the same name among {listed(table.columns)}. Remove one.")
    table = table.apply(lambda column: column.str.strip())
    return table[(table != "").any(axis=1)], unused  # without empty lines


def _files(named: pd.Series, table: Path, what: str, problems: Problems) -> dict[int, Path]:
    """By row, the files that a column names; those that are missing, repeated or no images become `problems`."""
    found: dict[int, Path] = {}
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, text in named.items():
        path = Path(os.path.normpath(table.parent / text))
        if not path.exists() and "\\" in text:  # written on Windows
            path = Path(os.path.normpath(table.parent / text.replace("\\", "/")))
        if not text:
            problems.add(f"Rows without an {what}", _row(row))
        elif not path.exists():
            problems.add(f"Rows whose {what} does not exist", f"{_row(row)} {text}")
        elif not path.is_file():
            problems.add(f"Rows whose {what} is not a regular file", f"{_row(row)} {text}")
        elif path.suffix.lower() not in endings():
            problems.add(f"Rows whose {what} does not end in {', '.join(endings())}", f"{_row(row)} {text}")
        else:
            rows_of[os.path.realpath(path)].append(row)
            found[row] = path
    for rows in rows_of.values():
        if len(rows) > 1:
            problems.add(f"{what.capitalize()}s in several rows", f"{named[rows[0]]} ({', '.join(map(_row, rows))})")
    return found


def _check_splits(samples: Sequence[Sample], kind: str, problems: Problems) -> None:
    """Adds groups that are in several splits, and empty splits, to `problems`."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        splits_of[sample.group].add(sample.split)
    problems.add(
        f"{kind.capitalize()}s in several splits; assign all images of each to one split",
        *(f"{group} ({', '.join(sorted(of))})" for group, of in sorted(splits_of.items()) if len(of) > 1),
    )
    there = {sample.split for sample in samples}
    problems.add("Splits without an image", *(name for name in SPLIT_NAMES if name not in there))


def _places(paths: Iterable[Path], start: str = "files/") -> dict[Path, str]:
    """The path of every file below the folder that holds all of them."""
    paths = list(paths)
    base = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return {path: f"{start}{Path(os.path.relpath(path, base)).as_posix()}" for path in paths}


def _row(number: int) -> str:
    return f"line {number}"
