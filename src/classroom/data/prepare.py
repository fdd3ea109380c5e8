"""Preparing a raw dataset once: memory-mapped arrays and an index, at the study's image size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from classroom.data.readers import read_all, reader
from classroom.files import written_whole

FILES = ("images.npy", "masks.npy", "index.parquet", "dataset.json")


def prepare(dataset: str, reader_name: str, source: str, image_size: int, raw: Path, target: Path) -> int:
    """Writes `target`/images.npy, masks.npy, index.parquet and dataset.json; returns the number of images.

    images.npy is (N, size, size, 3) uint8 and masks.npy (N, size, size) uint8 of {0, 1}, both meant to be
    memory-mapped; index.parquet has a row per image: id, group (patient), label (1 if the
    original mask is not empty) and the SHA-256 of the original pixels. Raises DataError like `read_all`.
    """
    count = len(reader(reader_name).find(raw))
    rows = []
    with written_whole(*(target / name for name in FILES)) as (
        images_file,
        masks_file,
        index_file,
        about_file,
    ):
        shape = (count, image_size, image_size)
        images = np.lib.format.open_memmap(images_file, "w+", np.uint8, (*shape, 3))
        masks = np.lib.format.open_memmap(masks_file, "w+", np.uint8, shape)
        for row, (sample, image, mask, digest) in enumerate(read_all(reader_name, raw)):
            images[row] = _resized(image, image_size, Image.Resampling.BILINEAR)
            masks[row] = _resized(mask, image_size, Image.Resampling.NEAREST)
            rows.append((sample.id, sample.group, int(mask.any()), digest))
        images.flush()
        masks.flush()
        index = pd.DataFrame(rows, columns=["id", "group", "label", "sha256"])
        index.to_parquet(index_file, index=False)
        about = {
            "dataset": dataset,
            "source": source,
            "synthetic": source == "phantom",
            "images": count,
            "groups": int(index.group.nunique()),
            "with_lesion": int(index.label.sum()),
            "image_size": image_size,
        }
        about_file.write_text(json.dumps(about, indent=1) + "\n")
    return count


def _resized(pixels: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), resampling))
