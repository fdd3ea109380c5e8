"""Batches as slices of the memory-mapped arrays."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from classroom.artifacts import SPLIT_NAMES, Data, Dataset, Splits
from classroom.errors import DataError
from classroom.files import read_json

COPIED_IMAGES = 256
"""At a time, from the disk to a device that caches them."""


@dataclass(frozen=True)
class SplitData:
    """One split of a study: rows of the memory-mapped arrays; reads nothing by itself."""

    images: np.ndarray
    targets: np.ndarray
    """Masks (all, H, W) uint8 of {0, 1}, or class indices (all,) uint8; all: of every split."""
    rows: np.ndarray
    ids: list[str]
    groups: list[str]
    cached: tuple[torch.Tensor, torch.Tensor] | None = None
    """Copies of both arrays on the device that trains."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ground_truth(self) -> np.ndarray:
        """Masks (N, H, W) bool, or class indices (N,)."""
        own = _read(self.targets, self.rows)
        return own > 0 if own.ndim == 3 else own.astype(np.int64)

    def batch(self, positions: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 3, H, W) float in [0, 1], in channels-last memory format, and targets.

        Targets are masks (B, 1, H, W) float of {0, 1}, or class indices (B,) int64.
        """
        rows = self.rows[positions]
        if self.cached:
            chosen = torch.from_numpy(rows).to(device, non_blocking=True)
            images, targets = (part[chosen] for part in self.cached)
        else:
            images, targets = (
                torch.from_numpy(_read(array, rows)).to(device, non_blocking=True)
                for array in (self.images, self.targets)
            )
        targets = targets.unsqueeze(1).float() if targets.ndim == 3 else targets.long()
        return images.permute(0, 3, 1, 2).float().div_(255), targets

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every sample once, in the split's order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.batch(np.arange(start, min(start + batch_size, len(self))), device)


def cache_on_device(device: torch.device, data: dict[str, SplitData], free: int) -> dict[str, SplitData]:
    """The same splits with their arrays copied to `device`, if these take at most a quarter of its memory.

    Batches stay the same, but need no transfer to the device.

    Parameters
    ----------
    device
        that trains
    data
        all splits of a study
    free
        bytes of the device's memory that are free
    """
    arrays = (data["train"].images, data["train"].targets)  # of all splits
    if sum(array.nbytes for array in arrays) > free // 4:
        return data
    copies = [torch.empty(array.shape, dtype=torch.uint8, device=device) for array in arrays]
    for array, copy in zip(arrays, copies, strict=True):
        for start in range(0, len(array), COPIED_IMAGES):
            part = slice(start, start + COPIED_IMAGES)
            copy[part] = torch.from_numpy(_read(array, part))
    return {name: replace(part, cached=(copies[0], copies[1])) for name, part in data.items()}


def _read(array: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """A copy of some rows. Releases the mapped pages, which would count as memory of this process."""
    read = array[rows].copy() if isinstance(rows, slice) else array[rows]
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
    return read


def open_splits(prepared: Path, splits: Path) -> dict[str, SplitData]:
    """Opens the three splits over the arrays in `prepared`.

    Raises DataError if a file is missing or damaged, or if arrays, index and splits do not match.
    """
    try:
        images = np.load(prepared / "images.npy", mmap_mode="r", allow_pickle=False)
        targets = np.load(prepared / "targets.npy", mmap_mode="r", allow_pickle=False)
        index = pd.read_parquet(prepared / "index.parquet", columns=["id"])
        table = pd.read_parquet(splits, columns=["id", "group", "split"])
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{prepared}, {splits}: cannot be read ({' '.join(str(error).split())}). "
            "Run `classroom prepare` and `classroom split` for this study again."
        ) from None
    if not (len(images) == len(targets) == len(index) == len(table)) or not (index.id == table.id).all():
        raise DataError(
            f"{splits}: was made from other images than {prepared}. Run `classroom split` of this study again."
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(
            f"{prepared / 'images.npy'}: expected bytes of shape (images, height, width, 3), found {images.dtype} of "
            f"shape {images.shape}. Run `classroom prepare` for this study again."
        )
    if targets.dtype != np.uint8 or targets.shape not in (images.shape[:3], images.shape[:1]):
        raise DataError(
            f"{prepared / 'targets.npy'}: expected bytes, a mask or a class for each of the images of shape "
            f"{images.shape}, found {targets.dtype} of shape {targets.shape}. Run `classroom prepare` for this study "
            "again."
        )
    rows_of = {name: np.flatnonzero(table.split == name) for name in SPLIT_NAMES}
    if empty := [name for name in SPLIT_NAMES if not len(rows_of[name])]:
        raise DataError(f"{splits}: has no images for {', '.join(empty)}. Run `classroom split` for this study again.")
    return {
        name: SplitData(images, targets, rows, table.id.iloc[rows].tolist(), table.group.iloc[rows].tolist())
        for name, rows in rows_of.items()
    }


def read_dataset(prepared: Path, splits: Path, data: dict[str, SplitData]) -> Data:
    """The facts about a study's data: dataset.json, and how it was split.

    Parameters
    ----------
    prepared
        folder of the prepared data
    splits
        splits.parquet
    data
        of `open_splits`

    Raises
    ------
    DataError
        A file is damaged, or dataset.json does not describe the arrays of `data`.
    """
    path, train = prepared / "dataset.json", data["train"]
    facts = cast(Dataset, read_json(path, Dataset.__required_keys__, "Run `classroom prepare` for this study again."))
    task = "segmentation" if train.targets.ndim == 3 else "classification"
    if (facts["task"], facts["image_size"]) != (task, train.images.shape[1]):
        raise DataError(
            f"{path}: does not describe the arrays next to it. Run `classroom prepare` for this study again."
        )
    return {**facts, **read_splits(splits)}


def read_splits(splits: Path) -> Splits:
    """The settings of a split, its numbers of images, and the labels missing from a split.

    Raises DataError if the file does not hold them.
    """
    table = pd.read_parquet(splits)
    if "split" not in table.attrs or not {"label", "split"} <= set(table):
        raise DataError(f"{splits}: lacks the settings of the split. Run `classroom split` for this study again.")
    labels = sorted(table.label.unique().tolist())
    found = {name: set(table.label[table.split == name]) for name in SPLIT_NAMES}
    lacking = {name: [label for label in labels if label not in found[name]] for name in SPLIT_NAMES}
    train, val, test = (int((table.split == name).sum()) for name in SPLIT_NAMES)
    return {
        "split": table.attrs["split"],
        "train": train,
        "val": val,
        "test": test,
        "lacking": {name: missing for name, missing in lacking.items() if missing},
    }


def order(split: SplitData, balance: str, seed: int, epoch: int) -> np.ndarray:
    """The shuffled positions of one epoch's samples, a function of seed and epoch: checkpoints need not store it.

    Parameters
    ----------
    split
        training samples
    balance
        `none`: every sample once. `mean`: as many samples of each class as the average class has, resampled in every
        epoch; all samples of a small class occur equally often, plus or minus one.
    seed, epoch
        decide the order

    Returns
    -------
    positions : (N,) int
    """
    random = np.random.default_rng([seed, epoch, zlib.crc32(b"order")])
    if balance == "none":
        return random.permutation(len(split))
    classes = split.ground_truth
    present = np.unique(classes)
    size = round(len(split) / len(present))
    drawn = []
    for label in present:
        members = np.flatnonzero(classes == label)
        whole, rest = divmod(size, len(members))
        drawn += [np.tile(members, whole), random.choice(members, rest, replace=False)]
    return random.permutation(np.concatenate(drawn))
