"""Splitting: 75:10:15, seeded, stratified, by image as in the paper or by patient without leaks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from classroom.errors import DataError
from classroom.files import written_whole
from classroom.params import Split

NAMES = ("train", "val", "test")


def assign(index: pd.DataFrame, split: Split) -> pd.Series:
    """The split's name for every row of `index` (columns id, group, label).

    The data are cut into equal stratified folds, as many as the percentages need (20 for 75:10:15), and the
    folds are dealt out. Raises DataError if there are fewer groups, or images of a label, than folds.
    """
    unit = math.gcd(*split.percent)
    folds = 100 // unit
    _check(index, split, folds)
    if split.by == "group":
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=split.seed)
    else:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=split.seed)
    fold_of = np.empty(len(index), dtype=int)
    groups = index.group if split.by == "group" else None
    for fold, (_, rows) in enumerate(splitter.split(index, index.label, groups)):
        fold_of[rows] = fold
    last_train = split.percent[0] // unit
    last_val = last_train + split.percent[1] // unit
    names = np.where(fold_of < last_train, "train", np.where(fold_of < last_val, "val", "test"))
    assigned = pd.Series(names, index=index.index, name="split")
    for name in NAMES:
        labels = index.label[assigned == name]
        for label in sorted(index.label.unique()):
            if not (labels == label).any():
                raise DataError(
                    f"split by {split.by}: no image {_described(label)} fell into '{name}'. There are too few; "
                    "use more data, another split.seed, or split by image."
                )
    return assigned


def write(prepared: Path, split: Split, target: Path) -> dict[str, int]:
    """Splits the prepared dataset and writes `target` (id, group, label, split); returns images per split."""
    path = prepared / "index.parquet"
    try:
        index = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}). Run `classroom prepare` for this study again.") from None
    index["split"] = assign(index, split)
    table = index[["id", "group", "label", "split"]].copy()
    table.attrs["split"] = split.model_dump(mode="json")  # travels in the file's metadata
    with written_whole(target) as (temporary,):
        table.to_parquet(temporary, index=False)
    return {name: int((index.split == name).sum()) for name in NAMES}


def _check(index: pd.DataFrame, split: Split, folds: int) -> None:
    percent = ":".join(map(str, split.percent))
    for label, count in index.label.value_counts().items():
        if count < folds:
            raise DataError(
                f"split {percent}: only {count} images {_described(label)}; at least {folds} are needed to "
                "stratify. Use more data or rounder percentages (70:10:20 needs 10)."
            )
    groups = index.group.nunique()
    if split.by == "group" and groups < folds:
        raise DataError(
            f"split {percent} by group: only {groups} patients; at least {folds} are needed. Use more data, "
            "rounder percentages (70:10:20 needs 10), or split by image."
        )


def _described(label: int) -> str:
    return "with a lesion" if label else "without a lesion"
