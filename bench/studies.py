"""What is trained here: the paper's networks and the demo's, on images in place of real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from classroom.core.batches import SplitData
from classroom.params import load, read

ROOT = Path(__file__).parents[1]
SEGMENTATION = "lgg-resnet18"
CLASSIFICATION = "histopathologic-resnet18"
SIDES = {SEGMENTATION: 128, CLASSIFICATION: 96}
CLASSES = 2
BATCH = 8


def settings(scale: str, **training: Any) -> dict[str, Any]:
    """The settings with the networks of a scale, drawn at random, at the sizes that are compared."""
    raw = load(ROOT / "params.yaml")
    networks = read(ROOT / "scales" / f"{scale}.yaml")["studies"]
    for study, side in SIDES.items():
        raw["study"][study]["image_size"] = side
        for role in ("teacher", "student"):
            raw["study"][study][role] = networks[study][role] | {"weights": "random"}
    raw["training"] |= {"batch_size": BATCH, "precision": "fp32", "threads": 1} | training
    return raw


def images(study: str, count: int, folder: Path) -> SplitData:
    """`count` images with masks or classes, memory-mapped as `classroom prepare` leaves them."""
    random, side = np.random.default_rng(0), SIDES[study]
    pixels = np.lib.format.open_memmap(folder / f"{study}.npy", "w+", np.uint8, (count, side, side, 3))
    for position in range(count):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        pixels[position] = coarse.repeat(8, axis=0).repeat(8, axis=1)
    pixels.flush()
    if study == SEGMENTATION:
        y, x = np.mgrid[:side, :side]
        centres = random.integers(side // 4, 3 * side // 4, (count, 2))
        targets = np.stack([((y - a) ** 2 + (x - b) ** 2 < (side // 8) ** 2).astype(np.uint8) for a, b in centres])
    else:
        targets = random.integers(0, CLASSES, count, dtype=np.uint8)
    names = [str(position) for position in range(count)]
    return SplitData(np.load(folder / f"{study}.npy", mmap_mode="r"), targets, np.arange(count), names, names)


def task(study: str) -> str:
    return "segmentation" if study == SEGMENTATION else "classification"
