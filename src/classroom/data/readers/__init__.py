"""One small module per layout of a downloaded dataset.

A reader has `find(folder)`, which returns the samples after a look at the names alone, and `read(sample)`,
which returns the pixels of one sample after a look at them. `read_all` is the complete validation.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from classroom.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One image of a dataset and the mask that belongs to it, not read yet."""

    id: str
    group: str
    """What must not cross splits: the patient."""
    image: Path
    mask: Path


def reader(name: str) -> ModuleType:
    """The reader module called `name` in params.yaml."""
    return importlib.import_module(f"classroom.data.readers.{name}")


def read_all(name: str, folder: Path) -> Iterator[tuple[Sample, np.ndarray, np.ndarray, str]]:
    """Reads and validates every sample below `folder`: (sample, image, mask, sha256 of the image's pixels).

    image is (height, width, 3) uint8, mask (height, width) uint8 of {0, 1}. Raises DataError naming the
    file for whatever does not fit, and for two images with the same content (a constant image, as blank
    slices at the end of a scan are, carries no content and may recur).
    """
    module = reader(name)
    seen: dict[str, Path] = {}
    for sample in module.find(folder):
        image, mask = module.read(sample)
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        if digest in seen and image.min() != image.max():
            raise DataError(
                f"{sample.image}: the same image as {seen[digest]}. Each image must occur once, or it would be "
                "trained and tested on; remove one of the two with its mask."
            )
        seen[digest] = sample.image
        yield sample, image, mask, digest
