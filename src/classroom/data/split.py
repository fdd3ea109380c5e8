"""Splits a dataset: 75:10:15, seeded, stratified, by image as in the paper or by group (patient, lesion)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from classroom.artifacts import SPLIT_NAMES
from classroom.errors import DataError, listed
from classroom.files import written_whole
from classroom.params import Split


def assign(index: pd.DataFrame, split: Split) -> pd.Series:
    """Assigns every row of `index` (columns id, group, label) to a split.

    Each unit (an image, or a group) is assigned at random. Then units are moved so that

    - each split differs from its percentage of the images by less than the largest unit; by image, it is the
      percentage rounded up or down;
    - each label is in training, and in all three splits if it is frequent, which means at least one image for each
      of the equal parts that the percentages imply (20 for 75:10:15);
    - as few rare labels as possible are missing from validation and test, and each label's shares are close to the
      percentages.

    Raises DataError if there are fewer groups or images than equal parts, or if no assignment meets the first two
    conditions. The same seed gives the same split; another version of SciPy may give another.
    """
    parts = 100 // math.gcd(*split.percent)
    _check(index, split, parts)
    unit_of = pd.factorize(index.group, sort=True)[0] if split.by == "group" else np.arange(len(index))
    label_of, labels = pd.factorize(index.label, sort=True)
    counts = np.zeros((unit_of.max() + 1, len(labels)), dtype=int)
    np.add.at(counts, (unit_of, label_of), 1)

    random = np.random.default_rng(split.seed)
    drawn = random.choice(len(SPLIT_NAMES), size=len(counts), p=np.array(split.percent) / 100)
    # Units with the same counts and the same draw are interchangeable: 220,000 images of two labels make six kinds.
    kinds, kind_of, units = np.unique(np.column_stack([counts, drawn]), axis=0, return_inverse=True, return_counts=True)
    moved = _move(kinds[:, :-1], kinds[:, -1], units, np.array(split.percent), parts)
    by_kind = np.lexsort((random.random(len(counts)), kind_of))
    split_of = np.empty(len(counts), dtype=int)
    split_of[by_kind] = np.repeat(np.tile(np.arange(len(SPLIT_NAMES)), len(kinds)), moved.ravel())
    assigned = pd.Series(np.array(SPLIT_NAMES)[split_of[unit_of]], index=index.index, name="split")
    for label, count in index.label.value_counts().items():
        for name in SPLIT_NAMES if count >= parts else ("train",):
            if not (index.label[assigned == name] == label).any():
                raise DataError(
                    f"split by {split.by}: no image of '{label}' was assigned to '{name}', as there are too few. Use "
                    "more data"
                    + (f", other percentages, or {BY_IMAGE}." if split.by == "group" else " or other percentages.")
                )
    return assigned


BY_IMAGE = "split by image (`by: image` below `split` in the study's file)"
"""The advice to split by image, which `classroom new-study` follows by an option."""


def _move(counts: np.ndarray, drawn: np.ndarray, units: np.ndarray, percent: np.ndarray, parts: int) -> np.ndarray:
    """The number of units of each kind for each split, by integer programming.

    Parameters
    ----------
    counts : (kinds, labels) images of each label in one unit
    drawn : (kinds,) the split that the units were assigned to at random
    units : (kinds,) number of units
    percent : (splits,)
    parts : a label with at least this many images must be in every split

    Returns
    -------
    (kinds, splits)
    """
    (kinds, labels), splits = counts.shape, len(percent)
    size, images = counts.sum(axis=1), units @ counts
    wanted = np.append(images, images.sum())[:, None] * percent  # in hundredths of an image; the last row: of any label
    low, high = wanted // 100, -(-wanted // 100)
    # Always feasible: line up all units, cut at the percentages, and move each cut to the nearer end of its unit.
    slack = size.max() - 1
    pairs = labels * splits
    zero, one, infinite = np.zeros(pairs), np.ones(pairs), np.full(pairs, np.inf)

    # Variables: units by kind and split; by label and split: 1 if missing, images too few, images too many.
    each_split, each_pair = sparse.eye_array(splits), sparse.eye_array(pairs)
    rows = [
        [sparse.kron(sparse.eye_array(kinds), np.ones((1, splits))), None, None, None],  # units by kind
        [sparse.kron(size[None], each_split), None, None, None],  # images by split
        [sparse.kron(counts.T > 0, each_split), each_pair, None, None],  # units with the label, by label and split
        [sparse.kron(counts.T, each_split), None, each_pair, -each_pair],  # images by label and split
    ]
    constraints = LinearConstraint(
        sparse.block_array(rows),
        np.concatenate([units, low[-1] - slack, one, low[:-1].ravel()]),
        np.concatenate([units, high[-1] + slack, infinite, high[:-1].ravel()]),
    )
    at_most = np.concatenate([np.repeat(units, splits), one, infinite, infinite])
    is_units = np.arange(len(at_most)) < kinds * splits

    # A label missing where it is required costs more than all optional ones, and missing from training costs most.
    must = np.column_stack([np.full(labels, True), images >= parts, images >= parts])
    missing = np.where(must, pairs, 1) * [2, 1, 1]
    missing = np.concatenate([np.zeros(kinds * splits), missing.ravel(), zero, zero])
    # A wrong image count must cost more than moving an image; otherwise the shares would stay as drawn.
    moved = size[:, None] * (drawn[:, None] != np.arange(splits))
    moved = np.concatenate([moved.ravel(), zero, 3 * one, 3 * one])
    # Only the first is solved exactly: proving that no fewer moves suffice can take hours and changes little.
    for cost, gap in ((missing, 0), (moved, 0.3)):
        options = {"mip_rel_gap": gap}
        solved = milp(cost, integrality=is_units, bounds=Bounds(0, at_most), constraints=constraints, options=options)
        at_most = np.where(missing > 0, solved.x.round(), at_most)
    return solved.x[is_units].round().astype(int).reshape(kinds, splits)


def write(prepared: Path, split: Split, target: Path) -> dict[str, int]:
    """Splits a prepared dataset.

    Parameters
    ----------
    prepared
        folder of the prepared dataset
    split
        the study's settings
    target
        the Parquet file to write: id, group, label, split, and the settings as metadata

    Returns
    -------
    Images per split.

    Raises
    ------
    DataError
        The index cannot be read, or the dataset cannot be split as `assign` requires.
    """
    path = prepared / "index.parquet"
    try:
        index = pd.read_parquet(path)[["id", "group", "label"] + ["split"] * (split.by == "given")]
    except KeyError:
        raise DataError(
            f"{path}: lacks the splits of its images, which `split: {{by: given}}` needs. Expected a dataset whose "
            "table has the column split; otherwise set by to group or image."
        ) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}). Run `classroom prepare` for this study again.") from None
    if split.by == "given":
        check_given(index)
    else:
        index["split"] = assign(index, split)
    table = index[["id", "group", "label", "split"]].copy()
    table.attrs["split"] = split.model_dump(mode="json")  # stored as metadata of the file
    with written_whole(target) as (temporary,):
        table.to_parquet(temporary, index=False)
    return {name: int((index.split == name).sum()) for name in SPLIT_NAMES}


def check_given(index: pd.DataFrame) -> None:
    """Raises DataError if a label has no training image."""
    if lacking := sorted(set(index.label) - set(index.label[index.split == "train"])):
        raise DataError(
            f"split: no training image of {listed(lacking)}. Set split to train for some of them in the table."
        )


def _check(index: pd.DataFrame, split: Split, parts: int) -> None:
    percent = ":".join(map(str, split.percent))
    groups = index.group.nunique()
    if split.by == "group" and groups < parts:
        raise DataError(
            f"split {percent} by group: only {groups} groups (patients, slides, lesions), at least {parts} are needed: "
            f"{listed(sorted(index.group.unique()))}. "
            f"Use more data{_rounder(groups)}, or {BY_IMAGE}."
        )
    if (commonest := index.label.value_counts().max()) < parts:
        raise DataError(
            f"split {percent}: only {commonest} images of the most frequent label; at least {parts} are needed to "
            f"stratify. Use more data{_rounder(commonest)}."
        )


def _rounder(units: int) -> str:
    """Percentages that so many groups or images can be split by, as an advice."""
    for percent in (70, 10, 20), (60, 20, 20), (50, 25, 25):
        if (parts := 100 // math.gcd(*percent)) <= units:
            return f", or percentages of fewer parts: [{', '.join(map(str, percent))}] needs {parts}"
    return ""
