"""Synthetic dermatoscopic images of skin lesions of seven classes, each with its mask.

A class has typical colours, border, size and structures with a wide spread: dark, uneven nevi and harmless-looking
melanomas occur. Hairs, uneven light and several views of one lesion add difficulty, as in HAM10000.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from classroom.data.synthetic.smooth import smooth
from classroom.params import Synthetic

SHARES = {"nv": 0.669, "mel": 0.111, "bkl": 0.110, "bcc": 0.051, "akiec": 0.033, "vasc": 0.014, "df": 0.012}
"""Share of each class in HAM10000."""
FIRST = {"nv": 36, "mel": 6, "bkl": 6, "bcc": 3, "akiec": 3, "vasc": 3, "df": 3}
"""Counts in the first 60 lesions: as SHARES, but at least three of each class, one for every split."""


def write(folder: Path, settings: Synthetic) -> None:
    """Writes 1 to `images_per_group` images of each of `groups` lesions, in the layout of the HAM10000 download."""
    images, masks = folder / "HAM10000_images_part_1", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    with (folder / "HAM10000_metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["lesion_id", "image_id", "dx", "dx_type"])
        for number, label in zip(range(settings.groups), _classes(), strict=False):
            # One random stream per lesion: adding lesions does not change the others.
            random = np.random.default_rng([settings.seed, number])
            lesion = _Lesion(_look(label, random), settings.size, random)
            for view in range(random.integers(1, settings.images_per_group + 1)):
                name = f"SYNTHETIC_{number:05d}_{view + 1:02d}"
                image, mask = lesion.view(random)
                Image.fromarray(image).save(images / f"{name}.jpg", quality=95, subsampling=0)
                Image.fromarray(mask).save(masks / f"{name}_segmentation.png")
                table.writerow([f"SYNTHETIC_{number:05d}", name, label, "synthetic"])


def _classes() -> Iterator[str]:
    """The class of lesion 0, 1, 2, …: always the one furthest below its share, without randomness."""
    given = dict.fromkeys(SHARES, 0)
    shares = {label: count / 60 for label, count in FIRST.items()}
    while True:
        total = sum(given.values()) + 1
        if total > 60:
            shares = SHARES
        label = max(shares, key=lambda label: shares[label] * total - given[label])
        given[label] += 1
        yield label


@dataclass(frozen=True)
class Look:
    """The average appearance of a class."""

    colour: tuple[float, float, float]
    """Red, green and blue of the lesion relative to the skin."""
    size: float
    """Radius as a share of half the image's side."""
    border: float
    """Unevenness of the outline."""
    edge: float
    """Width of the border relative to the radius."""
    patchy: float
    """Variation of the colour inside the lesion."""
    structure: str
    """Structure inside: network, streaks, dots, flecks, spots, lacunae or rim."""


LOOKS = {
    "akiec": Look((0.93, 0.70, 0.68), 0.50, 0.20, 0.30, 0.20, "flecks"),
    "bcc": Look((0.95, 0.78, 0.78), 0.44, 0.16, 0.22, 0.16, "spots"),
    "bkl": Look((0.76, 0.66, 0.58), 0.52, 0.15, 0.08, 0.24, "dots"),
    "df": Look((0.86, 0.72, 0.66), 0.34, 0.09, 0.26, 0.12, "rim"),
    "mel": Look((0.52, 0.46, 0.47), 0.56, 0.26, 0.12, 0.42, "streaks"),
    "nv": Look((0.66, 0.55, 0.49), 0.42, 0.10, 0.16, 0.18, "network"),
    "vasc": Look((0.74, 0.38, 0.45), 0.36, 0.12, 0.08, 0.20, "lacunae"),
}


def _look(label: str, random: np.random.Generator) -> Look:
    """A lesion's appearance: that of its class, mixed with some of another class."""
    own, other = LOOKS[label], LOOKS[str(random.choice(list(LOOKS)))]
    foreign = random.beta(1, 5)

    def between(a: float, b: float) -> float:
        return (1 - foreign) * a + foreign * b

    red, green, blue = (between(a, b) for a, b in zip(own.colour, other.colour, strict=True))
    return Look(
        colour=(red, green, blue),
        size=between(own.size, other.size),
        border=between(own.border, other.border),
        edge=between(own.edge, other.edge),
        patchy=between(own.patchy, other.patchy),
        structure=other.structure if random.random() < 0.1 else own.structure,
    )


class _Lesion:
    """What the images of one lesion share: the skin around it, its outline, colours and structure.

    It is drawn once, on a canvas larger than the image; the views look at it from different distances and angles.
    """

    def __init__(self, look: Look, size: int, random: np.random.Generator) -> None:
        self.size = size
        canvas = round(size * 1.5)
        y, x = np.mgrid[-1.5 : 1.5 : canvas * 1j, -1.5 : 1.5 : canvas * 1j]
        angle = np.arctan2(y, x)

        radius = look.size * np.exp(random.normal(0, 0.28))
        border = look.border * np.exp(random.normal(0, 0.4))
        outline = 1 + border * (0.9 * smooth(random, canvas, 6) + 0.5 * smooth(random, canvas, 14))
        for waves in range(2, 6):
            outline += border / waves * random.normal() * np.cos(waves * angle + random.uniform(0, 2 * np.pi))
        stretch = random.uniform(0.75, 1.3)
        distance = np.hypot(y * stretch, x / stretch) / (radius * np.maximum(outline, 0.3))
        self.mask = distance < 1

        skin = np.array([0.88, 0.69, 0.60]) * random.uniform(0.78, 1.06) * random.normal(1, 0.035, 3)
        skin = skin * (1 + 0.05 * smooth(random, canvas, 4) + 0.03 * smooth(random, canvas, 24))[..., None]
        skin = skin * (1 + random.normal(0, 0.02, (canvas, canvas)))[..., None]

        paler = random.normal(0, 0.06)
        colour = np.clip(np.array(look.colour) + paler + random.normal(0, 0.035, 3), 0.2, 1.02)
        patches = look.patchy * np.exp(random.normal(0, 0.3)) * (smooth(random, canvas, 7) + random.normal(0, 0.4) * x)
        inside = colour * (1 + patches[..., None] * np.array([0.5, 0.55, 0.45]))
        inside = _structure(look.structure, inside, distance, random)
        edge = max(0.04, look.edge * np.exp(random.normal(0, 0.35)))
        shown = 1 / (1 + np.exp((distance - 1) * 3.5 / edge))
        self.picture = skin * (1 - shown[..., None] + shown[..., None] * inside)

    def view(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One image (size, size, 3) uint8 and its mask (size, size) uint8 of {0, 255}."""
        size, canvas = self.size, len(self.mask)
        turn, closer = random.uniform(0, 2 * np.pi), random.uniform(0.9, 1.2)
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j] / closer
        shift = random.uniform(-0.14, 0.14, 2)
        rows = (y * np.cos(turn) - x * np.sin(turn) + shift[0] + 1.5) / 3 * (canvas - 1)
        columns = (y * np.sin(turn) + x * np.cos(turn) + shift[1] + 1.5) / 3 * (canvas - 1)
        picture = np.stack(
            [
                map_coordinates(self.picture[..., channel], (rows, columns), order=1, mode="nearest")
                for channel in range(3)
            ],
            axis=-1,
        )
        mask = map_coordinates(self.mask.astype(np.uint8), (rows, columns), order=0, mode="nearest")

        picture = picture * random.uniform(0.9, 1.08) * random.normal(1, 0.02, 3)
        if random.random() < 0.45:
            picture = picture * (1 - _hairs(size, random) * random.uniform(0.5, 0.8))[..., None]
        if random.random() < 0.4:  # the tube of the dermatoscope darkens the corners
            picture = picture * np.clip(1.9 - 0.9 * np.hypot(y, x) * closer, 0.25, 1)[..., None]
        picture = gaussian_filter(picture, (0.35, 0.35, 0)) + random.normal(0, 0.012, picture.shape)
        return np.clip(picture * 255, 0, 255).astype(np.uint8), mask * np.uint8(255)


def _structure(kind: str, inside: np.ndarray, distance: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """`inside` (canvas, canvas, 3) with the structures of a class, sometimes weak."""
    canvas = len(distance)
    strength = random.uniform(0.3, 1)
    fine, coarse = smooth(random, canvas, 26), smooth(random, canvas, 10)
    if kind == "network":  # a fine brown mesh
        change = -0.22 * (np.abs(fine) < 0.16)[..., None] * np.array([0.8, 1, 1])
    elif kind == "streaks":  # nearly black parts, and blue-grey veils
        change = -0.35 * (coarse > 0.25)[..., None] + (coarse < -0.3)[..., None] * np.array([-0.12, -0.02, 0.1])
    elif kind == "dots":  # pale cysts, dark openings
        change = (0.28 * (fine > 0.5) - 0.26 * (fine < -0.55))[..., None] * np.array([1, 1, 0.9])
    elif kind == "flecks":  # white scales on red
        change = 0.22 * (fine > 0.35)[..., None] * np.array([0.5, 1, 1])
    elif kind == "spots":  # few blue-grey nests, and small red vessels
        change = (coarse > 0.5)[..., None] * np.array([-0.38, -0.26, -0.14])
        change = change + (np.abs(fine) < 0.06)[..., None] * np.array([0.0, -0.16, -0.14])
    elif kind == "lacunae":  # round red-purple lakes
        change = (coarse > 0.1)[..., None] * np.array([-0.12, -0.14, -0.06])
    else:  # a pale scar within a brown rim
        change = (np.clip(0.7 - distance, 0, 1) * 0.5)[..., None] - 0.2 * (np.abs(distance - 0.85) < 0.18)[..., None]
    return np.clip(inside + strength * change, 0.08, 1.15)


def _hairs(size: int, random: np.random.Generator) -> np.ndarray:
    """Coverage of each pixel by hairs, (size, size) in [0, 1]."""
    finer = 3
    sheet = Image.new("L", (size * finer, size * finer))
    draw = ImageDraw.Draw(sheet)
    step = np.linspace(0, 1, 16)[:, None]
    for _ in range(random.integers(2, 9)):
        start, bend, end = random.uniform(-0.1, 1.1, (3, 2)) * size * finer
        bend = (start + end) / 2 + 0.25 * (bend - (start + end) / 2)
        curve = (1 - step) ** 2 * start + 2 * step * (1 - step) * bend + step**2 * end
        draw.line([tuple(point) for point in curve], fill=255, width=max(1, round(finer * size / 90)))
    return np.asarray(sheet.resize((size, size), Image.Resampling.BOX)) / 255
