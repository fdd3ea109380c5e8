"""The test images of a picture: their positions in the arrays, and which are hard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from classroom.core.metrics import pixel_counts
from classroom.errors import DataError


def rows_and_groups(prepared: Path, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each id its row in the arrays of `prepared` and its group (patient, lesion).

    Raises DataError if one is not there.
    """
    index = pd.read_parquet(prepared / "index.parquet")
    place = {name: row for row, name in enumerate(index.id)}
    if missing := [name for name in ids if name not in place]:
        raise DataError(f"{prepared}: lacks '{missing[0]}', which was tested. Train this study again.")
    rows = np.array([place[name] for name in ids])
    return rows, index.group.to_numpy()[rows]


def image_iou(mask: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """IoU of every image (…, H, W) by itself; 0 where both masks are empty."""
    of = pixel_counts(mask, ground_truth)
    return of["tp"] / np.maximum(of["tp"] + of["fp"] + of["fn"], 1)


def worst_of_each_group(ious: np.ndarray, eligible: np.ndarray, groups: np.ndarray) -> list[int]:
    """Positions of the eligible images with the lowest IoU of their group, the first of equals, from worst to best."""
    return _one_of_each_group(ious, eligible, groups, lambda count: 0)


def median_of_each_group(ious: np.ndarray, eligible: np.ndarray, groups: np.ndarray) -> list[int]:
    """Positions of the eligible images with the median IoU of their group (the lower of two), from worst to best."""
    return _one_of_each_group(ious, eligible, groups, lambda count: (count - 1) // 2)


def _one_of_each_group(
    ious: np.ndarray, eligible: np.ndarray, groups: np.ndarray, rank: Callable[[int], int]
) -> list[int]:
    of_group: dict[str, list[int]] = {}
    for position in np.argsort(ious, kind="stable"):
        if eligible[position]:
            of_group.setdefault(groups[position], []).append(int(position))
    chosen = [positions[rank(len(positions))] for positions in of_group.values()]
    return sorted(chosen, key=lambda position: (ious[position], position))
