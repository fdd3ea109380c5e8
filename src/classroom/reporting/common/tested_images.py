"""The test images of a picture: their positions in the arrays, and which are hard."""

from __future__ import annotations

from collections.abc import Sequence
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
        raise DataError(f"{prepared}: lacks the test image '{missing[0]}'. Train this study again.")
    rows = np.array([place[name] for name in ids])
    return rows, index.group.to_numpy()[rows]


def image_iou(mask: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """IoU of every image (…, H, W) by itself; 0 where both masks are empty."""
    of = pixel_counts(mask, ground_truth)
    return of["tp"] / np.maximum(of["tp"] + of["fp"] + of["fn"], 1)


def one_of_each_group(ious: np.ndarray, eligible: np.ndarray, groups: np.ndarray, share: float) -> list[int]:
    """Positions of the eligible images, one of each group, from the lowest IoU to the highest; the first of equals.

    Parameters
    ----------
    ious, eligible, groups : (images,)
        of every image its IoU, whether it may be chosen, and its group
    share
        how far from the worst image of a group to its best: 0 is the worst, 0.5 the median (the lower of two)
    """
    of_group: dict[str, list[int]] = {}
    for position in np.argsort(ious, kind="stable"):
        if eligible[position]:
            of_group.setdefault(groups[position], []).append(int(position))
    chosen = [positions[int(share * (len(positions) - 1))] for positions in of_group.values()]
    return sorted(chosen, key=lambda position: (ious[position], position))
