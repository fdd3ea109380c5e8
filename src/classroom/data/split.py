"""Splitting: 75:10:15, seeded, stratified, by image as in the paper or by group (patient, lesion) without leaks."""

from __future__ import annotations

import math
import warnings
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
    folds are dealt out. Raises DataError if there are fewer groups or images than folds, or if a split lacks a label
    that is frequent enough to be in all; a rarer one may be missing from validation or test, never from training.
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # `_deal` looks after those
        for fold, (_, rows) in enumerate(splitter.split(index, index.label, groups)):
            fold_of[rows] = fold
    split_of_fold = np.repeat(NAMES, [percent // unit for percent in split.percent])
    counts = pd.crosstab(fold_of, index.label).reindex(range(folds), fill_value=0).to_numpy()
    assigned = pd.Series(_deal(counts, split_of_fold, split)[fold_of], index=index.index, name="split")
    for label, count in index.label.value_counts().items():
        for name in NAMES if count >= folds else ("train",):
            if not (index.label[assigned == name] == label).any():
                raise DataError(
                    f"split by {split.by}: no image '{label}' fell into '{name}'. There are too few; "
                    "use more data, another split.seed, or split by image."
                )
    return assigned


def _deal(counts: np.ndarray, split_of_fold: np.ndarray, split: Split) -> np.ndarray:
    """Which fold goes to which split; `counts` of images by fold and label.

    Folds are alike but for rare labels: of many deals, the first that keeps every label's shares nearest to the wanted
    ones.
    """
    wanted = np.array(split.percent) / 100
    shuffle = np.random.default_rng(split.seed)
    best, best_error = split_of_fold, np.inf
    for attempt in range(200):
        dealt = split_of_fold if attempt == 0 else shuffle.permutation(split_of_fold)
        shares = np.stack([counts[dealt == name].sum(axis=0) for name in NAMES]) / counts.sum(axis=0)
        error = np.abs(shares - wanted[:, None]).sum() + 10 * (shares[0] == 0).sum() + (shares[1:] == 0).sum()
        if error < best_error - 1e-9:
            best, best_error = dealt, error
    return best


def write(prepared: Path, split: Split, target: Path) -> dict[str, int]:
    """Splits the prepared dataset and writes `target` (id, group, label, split); returns images per split."""
    path = prepared / "index.parquet"
    try:
        index = pd.read_parquet(path, columns=["id", "group", "label"])
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
    if (commonest := index.label.value_counts().max()) < folds:
        raise DataError(
            f"split {percent}: only {commonest} images of the most frequent label; at least {folds} are needed to "
            "stratify. Use more data or rounder percentages (70:10:20 needs 10)."
        )
    groups = index.group.nunique()
    if split.by == "group" and groups < folds:
        raise DataError(
            f"split {percent} by group: only {groups} groups (patients, slides, lesions); at least {folds} are needed. "
            "Use more data, rounder percentages (70:10:20 needs 10), or split by image."
        )
