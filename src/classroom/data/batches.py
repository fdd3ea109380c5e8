"""Batches as slices of the memory-mapped arrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from classroom.errors import DataError

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class SplitData:
    """One split of a study: rows of the arrays, nothing read yet."""

    images: np.ndarray
    masks: np.ndarray
    rows: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, positions: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W) float in [0, 1], channels last in memory, and masks (B, 1, H, W) float of {0, 1}."""
        rows = self.rows[positions]
        images = torch.from_numpy(self.images[rows]).to(device, non_blocking=True)
        masks = torch.from_numpy(self.masks[rows]).to(device, non_blocking=True)
        return images.permute(0, 3, 1, 2).float().div_(255), masks.unsqueeze(1).float()

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every sample once, in the split's order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.batch(np.arange(start, min(start + batch_size, len(self))), device)


def open_splits(prepared: Path, splits: Path) -> dict[str, SplitData]:
    """The three splits over the arrays in `prepared`.

    Raises DataError if a file is missing or damaged, or if arrays, index and splits do not belong together.
    """
    try:
        images = np.load(prepared / "images.npy", mmap_mode="r")
        masks = np.load(prepared / "masks.npy", mmap_mode="r")
        index = pd.read_parquet(prepared / "index.parquet", columns=["id"])
        table = pd.read_parquet(splits, columns=["id", "split"])
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{prepared}, {splits}: cannot be read ({' '.join(str(error).split())}). "
            "Run `classroom prepare` and `classroom split` for this study again."
        ) from None
    if not (len(images) == len(masks) == len(index) == len(table)) or not (index.id == table.id).all():
        raise DataError(
            f"{splits}: does not belong to {prepared}: other images. Run `classroom split` for this study again."
        )
    return {
        name: SplitData(images, masks, rows := np.flatnonzero(table.split == name), table.id.iloc[rows].tolist())
        for name in NAMES
    }


def described(splits: Path) -> dict[str, Any]:
    """How the data were split, and the number of images in each split."""
    table = pd.read_parquet(splits)
    return {"split": table.attrs["split"], **{name: int((table.split == name).sum()) for name in NAMES}}


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the samples in one epoch: a function of seed and epoch, so that it needs no saved state."""
    return np.random.default_rng([seed, epoch, zlib.crc32(b"order")]).permutation(count)
