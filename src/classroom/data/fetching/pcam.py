"""Converts PCam (PatchCamelyon) to the layout of the Kaggle competition that was made from it.

PCam is freely available at https://zenodo.org/records/2546921 as HDF5 files; the competition needs an account, has one
TIFF file per patch and omits duplicates of PCam. So does this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import tifffile

from classroom.data.fetching.subset import draw
from classroom.data.readers import read_rows
from classroom.errors import DataError, reading

PATCH = 96, 96, 3


@dataclass(frozen=True)
class _Part:
    """One of PCam's splits: train, valid or test."""

    name: str
    images: Path
    labels: np.ndarray
    slides: pd.Series | None


def convert(
    files: Sequence[Path], classes: Sequence[str], subset: int | None, seed: int, name: str, target: Path
) -> None:
    """Writes train/<id>.tif, train_labels.csv and, if PCam's _meta.csv is among `files`, source_index.csv.

    Patches with the same pixels count once; an id is the SHA-1 of the pixels, as on Kaggle.

    Parameters
    ----------
    files
        PCam's .h5 and _meta.csv files of one or more splits
    classes
        of labels 0 and 1
    subset
        number of patches, balanced over the classes; only these are read. None takes all.
    seed
        of the subset
    name
        of the dataset, for messages
    target
        folder to write to

    Raises
    ------
    DataError
        Names the file that is missing, damaged or inconsistent.
    """
    parts = _parts(files)
    labels = np.concatenate([part.labels for part in parts])
    part_of = np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts])
    row_of = np.concatenate([np.arange(len(part.labels)) for part in parts])
    (target / "train").mkdir(parents=True)
    kept: dict[str, tuple[int, str]] = {}
    opened = [_open(part.images, "x") for part in parts]
    try:

        def keep(number: int) -> bool:
            """Writes one patch, unless it is a duplicate."""
            part, row = part_of[number], row_of[number]
            pixels = _read(parts[part].images, opened[part]["x"], row)
            patch = hashlib.sha1(pixels.tobytes(), usedforsecurity=False).hexdigest()
            if patch in kept:
                return False
            slide = "" if parts[part].slides is None else parts[part].slides.iloc[row]
            kept[patch] = int(labels[number]), slide
            tifffile.imwrite(target / "train" / f"{patch}.tif", pixels, photometric="rgb", compression="zlib")
            return True

        if subset is None:
            for number in range(len(labels)):
                keep(number)
        else:
            draw([classes[label] for label in labels], classes, subset, seed, name, accept=keep)
    finally:
        for file in opened:
            file.close()
    table = pd.DataFrame([(patch, *values) for patch, values in sorted(kept.items())], columns=["id", "label", "wsi"])
    table[["id", "label"]].to_csv(target / "train_labels.csv", index=False, lineterminator="\n")
    if parts[0].slides is not None:
        table[["id", "wsi"]].to_csv(target / "source_index.csv", index=False, lineterminator="\n")


def _parts(files: Sequence[Path]) -> list[_Part]:
    """The splits among `files`, each with its images, labels and, for all or none, slides."""
    by_name = {path.name: path for path in files}
    stems = sorted(name.removesuffix("_x.h5") for name in by_name if name.endswith("_x.h5"))
    if not stems:
        raise DataError(f"{files[0]}: expected the files of PCam, such as camelyonpatch_level_2_split_train_x.h5.")
    parts = []
    for stem in stems:
        images = by_name[f"{stem}_x.h5"]
        labels, meta = (by_name.get(f"{stem}{ending}") for ending in ("_y.h5", "_meta.csv"))
        if labels is None:
            raise DataError(f"{images}: the file with its labels, {stem}_y.h5, is missing. Download it too.")
        slides = None
        with _open(images, "x") as x, _open(labels, "y") as y:
            if x["x"].ndim != 4 or x["x"].shape[1:] != PATCH or x["x"].dtype != np.uint8:
                raise DataError(
                    f"{images}: expected x of 8-bit patches (N, 96, 96, 3), found {x['x'].dtype} {x['x'].shape}."
                )
            count = len(x["x"])
            if y["y"].size != count:
                raise DataError(f"{labels}: has {y['y'].size} labels for {count} patches. Download both again.")
            values = np.asarray(y["y"]).reshape(-1)
            if not np.isin(values, (0, 1)).all():
                raise DataError(f"{labels}: expected labels 0 and 1 only, found {np.unique(values)[:5].tolist()}.")
        if meta is not None:
            rows = read_rows(meta)
            if "wsi" not in rows:
                raise DataError(f"{meta}: lacks the column wsi. Expected the slide of every patch.")
            slides = rows.wsi
            if len(slides) != count:
                raise DataError(f"{meta}: has {len(slides)} rows for {count} patches. Download both again.")
        parts.append(_Part(stem, images, values.astype(int), slides))
    lacking = [part.name for part in parts if part.slides is None]
    if lacking and len(lacking) < len(parts):
        raise DataError(
            f"{parts[0].images.parent}: no {lacking[0]}_meta.csv. Download it too, or remove the meta files of all "
            "splits."
        )
    return parts


def _open(path: Path, key: str) -> h5py.File:
    with reading(path, "Download it again.", what="as HDF5"):
        file = h5py.File(path, "r", rdcc_nbytes=64 << 20)
    if not isinstance(file.get(key), h5py.Dataset):
        found = ", ".join(file)
        file.close()
        raise DataError(f"{path}: expected the dataset '{key}' in it, found {found or 'nothing'}.")
    return file


def _read(path: Path, images: h5py.Dataset, row: int) -> np.ndarray:
    with reading(f"{path}: patch {row}", "Download it again."):
        return images[row]
