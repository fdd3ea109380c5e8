"""Synthetic patches of stained tissue with or without tumour in the centre.

Every synthetic slide has its own stain; its patches show nuclei as dark ellipses on pink textured stroma. In the centre
of a positive patch nuclei are on average more crowded, larger, darker and more uneven than in a negative one. The
classes overlap, and the surroundings of either may look like the other, so no network can separate them perfectly.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from classroom.data.synthetic.smooth import smooth
from classroom.params import Synthetic

MALIGNANCY = 1.0, 0.5
"""Abnormality of a positive patch's centre: mean and standard deviation; the mean of a negative one is the opposite."""

HAEMATOXYLIN = np.array([0.62, 0.70, 0.33])
EOSIN = np.array([0.12, 0.86, 0.42])
"""Optical density of the two stains (blue-purple nuclei, pink tissue) in red, green and blue."""


def write(folder: Path, settings: Synthetic) -> None:
    """Writes `images_per_group` patches of each of `groups` slides, in the layout of the Kaggle competition.

    source_index.csv names the slide of every patch, as in PCam; the competition has no such file.
    """
    train = folder / "train"
    train.mkdir(parents=True)
    rows = []
    for slide in range(settings.groups):
        # One random stream per slide: adding slides does not change the others.
        random = np.random.default_rng([settings.seed, slide])
        stain = _Stain(random)
        for number in range(settings.images_per_group):
            positive = bool(random.random() < 0.5) if number else slide % 2 == 1  # both classes, even with few patches
            image = _patch(positive, settings.size, stain, random)
            name = hashlib.sha1(image.tobytes(), usedforsecurity=False).hexdigest()
            tifffile.imwrite(train / f"{name}.tif", image, photometric="rgb", compression="zlib")
            rows.append((name, int(positive), f"SYNTHETIC_{slide:04d}"))
    _table(folder / "train_labels.csv", ["id", "label"], [(name, label) for name, label, _ in rows])
    _table(folder / "source_index.csv", ["id", "wsi"], [(name, slide) for name, _, slide in rows])


class _Stain:
    """The common properties of a slide's patches: hues and strengths of its stains."""

    def __init__(self, random: np.random.Generator) -> None:
        self.nuclei = HAEMATOXYLIN * random.normal(1, 0.08, 3) * random.uniform(0.8, 1.25)
        self.stroma = EOSIN * random.normal(1, 0.08, 3) * random.uniform(0.7, 1.2)
        self.blur = random.uniform(0.4, 0.9)


def _patch(positive: bool, size: int, stain: _Stain, random: np.random.Generator) -> np.ndarray:
    """One patch (size, size, 3) uint8."""
    mean, spread = MALIGNANCY
    centre = random.normal(mean if positive else -mean, spread)
    around = random.normal(0, 1)
    unit = size / 64  # the lengths below are for a patch of 64 pixels

    # Fibres: a field stretched along one direction.
    y, x = np.mgrid[:size, :size] / size
    angle = random.uniform(0, np.pi)
    phase = 2 * np.pi * (6 * (x * np.cos(angle) + y * np.sin(angle)) + 1.2 * smooth(random, size, 3))
    eosin = 0.36 + 0.07 * np.sin(phase) + 0.1 * smooth(random, size, 5) + 0.05 * smooth(random, size, 16)
    eosin = np.where(smooth(random, size, 4) > 0.72, 0.08, eosin)  # gaps in the tissue, almost white

    haematoxylin = np.zeros((size, size))
    for row, column in _places(centre, around, size, random):
        inside = _central(row, column, size)
        abnormal = centre if inside else around
        radius = unit * (2.9 + 0.45 * abnormal) * np.exp(random.normal(0, 0.13 + 0.05 * max(0.0, abnormal)))
        darkness = (0.95 + 0.16 * abnormal) * np.exp(random.normal(0, 0.16))
        longer = 1 + abs(random.normal(0, 0.3))
        _nucleus(haematoxylin, row, column, radius * np.sqrt(longer), radius / np.sqrt(longer), darkness, random)
    eosin = eosin * (1 - 0.6 * np.clip(haematoxylin, 0, 1))

    density = eosin[..., None] * stain.stroma + haematoxylin[..., None] * stain.nuclei
    density = gaussian_filter(density, (stain.blur * unit, stain.blur * unit, 0))
    light = 0.96 * np.exp(-1.15 * density) + random.normal(0, 0.018, (size, size, 3))
    return np.clip(light * 255, 0, 255).astype(np.uint8)


def _places(centre: float, around: float, size: int, random: np.random.Generator) -> list[tuple[float, float]]:
    """Rows and columns of the nuclei; `centre` and `around` set their density inside and outside the centre."""
    unit = size / 64
    inside = round(max(2, random.normal(12 + 4.0 * centre, 2.5)))
    outside = round(max(4, random.normal(36 + 10.0 * around, 7)))
    places: list[tuple[float, float]] = []
    for count, central in ((inside, True), (outside, False)):
        gap = unit * (3.2 if (centre if central else around) > 0 else 4.0)  # crowded nuclei touch
        candidates = random.uniform(0.2, 0.8, (12 * count, 2)) if central else random.uniform(0, 1, (12 * count, 2))
        wanted = len(places) + count
        for row, column in candidates * size:
            if _central(row, column, size) != central:
                continue
            if all((row - y) ** 2 + (column - x) ** 2 > gap**2 for y, x in places):
                places.append((row, column))
            if len(places) == wanted:
                break
    return places


def _central(row: float, column: float, size: int) -> bool:
    return (row - size / 2) ** 2 + (column - size / 2) ** 2 < (0.28 * size) ** 2


def _nucleus(
    field: np.ndarray,
    row: float,
    column: float,
    long: float,
    short: float,
    darkness: float,
    random: np.random.Generator,
) -> None:
    """Adds one ellipse with a darker rim and clumped inside to `field`, in place."""
    size = len(field)
    reach = int(np.ceil(long * 1.6)) + 1
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    bottom, right = min(size, int(row) + reach + 1), min(size, int(column) + reach + 1)
    y, x = np.mgrid[top:bottom, left:right].astype(float)
    y, x, angle = y - row, x - column, random.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(along / long, across / short)
    shape = 1 / (1 + np.exp(9 * (distance - 1)))
    rim = 0.25 * np.exp(-(((distance - 0.85) / 0.2) ** 2))
    clumps = random.normal(0, 0.12, shape.shape)
    window = field[top:bottom, left:right]
    np.maximum(window, shape * darkness * (0.85 + rim + clumps), out=window)


def _table(path: Path, columns: list[str], rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
