"""Prepares a raw dataset once: memory-mapped arrays at the study's image size, and an index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from classroom.artifacts import Dataset
from classroom.data.pixels import Converted, digest, read_image, read_mask
from classroom.errors import DataError
from classroom.files import written_whole
from classroom.progress import track

FILES = ("images.npy", "targets.npy", "index.parquet", "dataset.json")

FOREGROUND = ("with foreground", "without foreground")
"""The labels by which splits of segmentation datasets are stratified."""


def prepare(task: str, image_size: int, raw: Path, target: Path) -> int:
    """Writes the four FILES.

    images.npy: (N, size, size, 3) uint8. targets.npy: (N, size, size) uint8 of {0, 1} for segmentation, (N,) uint8
    indices into the labels of dataset.json for classification. index.parquet: id, group, label (name), SHA-256 of the
    original pixels and, if the dataset gives it, split per image. Images that are not square are resized to a
    square, as in the paper.

    Parameters
    ----------
    task
        segmentation or classification
    image_size
        pixels along a side
    raw
        folder of the fetched dataset
    target
        folder to write to

    Returns
    -------
    The number of images.

    Raises
    ------
    DataError
        The dataset has no targets for the task, its masks mark nothing or everything, or a file of it is missing or
        damaged.
    """
    table, about = _opened(raw)
    table = _usable(task, table, about, raw)
    count, inside = len(table), 0
    rows = []
    converted: dict[str, Converted] = {"images": Counter(), "masks": Counter()}
    with written_whole(*(target / name for name in FILES)) as (images_file, targets_file, index_file, about_file):
        square = (image_size, image_size)
        shape = (count, *square)
        masks = task == "segmentation"
        with (
            _array(images_file, (*shape, 3)) as images,
            _array(targets_file, shape if masks else (count,)) as targets,
        ):
            for sample in track(list(table.itertuples()), "images"):
                image = read_image(raw / sample.image, converted["images"])
                images.write(resized(image, square, Image.Resampling.BILINEAR).tobytes())
                label = sample.label
                if masks:
                    mask = np.zeros(image.shape[:2], np.uint8)  # of an image that is background everywhere
                    if sample.mask:
                        mask = read_mask(raw / sample.mask, image.shape[:2], about["foreground"], converted["masks"])
                    small = resized(mask, square, Image.Resampling.NEAREST)
                    inside += int(small.sum())
                    targets.write(small.tobytes())
                    label = FOREGROUND[not mask.any()]
                else:
                    targets.write(bytes([about["labels"].index(label)]))
                rows.append((sample.id, sample.group, label, digest(image)))
        if masks and inside in (0, count * image_size**2):
            raise DataError(
                f"{raw}: {'every' if inside else 'no'} pixel of the masks is foreground at {image_size}×{image_size} "
                "pixels, so there is nothing to learn. Correct the masks, foreground in the dataset's file, or "
                "image_size."
            )
        index = pd.DataFrame(rows, columns=["id", "group", "label", "sha256"])
        if "split" in table:
            index["split"] = table["split"].to_numpy()
        index.to_parquet(index_file, index=False)
        counts = index.label.value_counts()
        labels = [label for label in FOREGROUND if label in counts] if masks else about["labels"]
        description: Dataset = {
            "dataset": about["dataset"],
            "source": about["source"],
            "synthetic": about["synthetic"],
            "task": task,
            "group": about["group"],
            "grouping": about.get("grouping", ""),
            "images": count,
            "groups": int(index.group.nunique()),
            "labels": {label: int(counts.get(label, 0)) for label in labels},
            "image_size": image_size,
        }
        if any(converted.values()):
            description["converted"] = {what: dict(sorted(n.items())) for what, n in converted.items() if n}
        about_file.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return count


def resized(pixels: np.ndarray, shape: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """Resizes an image or mask; returns it unchanged if it has the shape already.

    Parameters
    ----------
    pixels : (H, W, …) uint8
    shape
        height and width
    resampling
        Pillow's filter
    """
    if pixels.shape[:2] == shape:
        return pixels
    height, width = shape
    return np.asarray(Image.fromarray(pixels).resize((width, height), resampling))


@contextmanager
def _array(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A .npy file of uint8 in this shape, to be written in order.

    Not a memory map: writing to one on a full disk kills the process without a message.
    """
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def _opened(raw: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """samples.csv and about.json in `raw`."""
    try:
        about = json.loads((raw / "about.json").read_text(encoding="utf-8"))
        if missing := {"dataset", "source", "synthetic", "group", "labels", "foreground"} - about.keys():
            raise ValueError(f"about.json lacks {', '.join(sorted(missing))}")
        table = pd.read_csv(raw / "samples.csv", dtype=str, keep_default_na=False)
        table = table[["id", "group", "label", "image", "mask", *(["split"] if "split" in table else [])]]
        for place in (PurePosixPath(place) for place in (*table.image, *table["mask"])):
            if place.is_absolute() or ".." in place.parts:
                raise ValueError(f"samples.csv names '{place}', which is outside this folder")
        return table, about
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file. Run `classroom fetch {raw.name}` first.") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{raw}: cannot be read ({reason}). Run `classroom fetch {raw.name}` again.") from None


def _usable(task: str, table: pd.DataFrame, about: dict[str, Any], raw: Path) -> pd.DataFrame:
    """The samples with a mask for segmentation, with a label for classification."""
    needed, study = ("mask", "segmentation") if task == "segmentation" else ("label", "classification")
    usable = table[table[needed] != ""]
    if task == "segmentation" and about.get("missing_masks") == "empty" and len(usable):
        return table
    if usable.empty:
        raise DataError(
            f"{raw}: dataset '{about['dataset']}' has no {needed}s; a {study} study needs {needed}s. Use another "
            "dataset, or fetch one that has them."
        )
    return usable
