"""Synthetic LGG slices.

Every synthetic patient has a brain outline, tissue texture, a smooth bias field and noise; some slices have one or two
hyperintense lesions of varied size and contrast, the others none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from classroom.data.synthetic.smooth import smooth
from classroom.params import Synthetic

LESION_FREE = 0.45
"""Share of slices without a lesion; 0.65 in LGG, fewer here because the dataset is small."""


def write(folder: Path, settings: Synthetic) -> None:
    """Writes `images_per_group` slices of each of `groups` patients in `folder`, in the layout of the LGG download."""
    for patient in range(settings.groups):
        # One random stream per patient: adding patients does not change the others.
        random = np.random.default_rng([settings.seed, patient])
        case = f"SYNTHETIC_{patient:04d}"
        directory = folder / "kaggle_3m" / case
        directory.mkdir(parents=True)
        head = _Head(settings.size, random)
        for number in range(1, settings.images_per_group + 1):
            image, mask = head.slice(number / (settings.images_per_group + 1), random)
            tifffile.imwrite(directory / f"{case}_{number}.tif", image, photometric="rgb", compression="zlib")
            tifffile.imwrite(directory / f"{case}_{number}_mask.tif", mask, compression="zlib")


class _Head:
    """The common properties of a patient's slices: outline, texture, bias field and lesion appearance."""

    def __init__(self, size: int, random: np.random.Generator) -> None:
        self.size = size
        self.y, self.x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        self.radii = random.uniform(0.66, 0.86, size=2)
        self.centre = random.uniform(-0.06, 0.06, size=2)
        self.wobble = random.normal(0, 0.02, size=4)
        self.bias = smooth(random, size, 2) * 0.16
        self.lesion_contrast = random.uniform(0.1, 0.34)
        self.lesion_place = random.uniform(0, 2 * np.pi)

    def slice(self, height: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One slice at `height` in (0, 1): image (size, size, 3) uint8 and mask (size, size) uint8 of {0, 255}."""
        shrink = 1 - 0.5 * (2 * height - 1) ** 2  # the brain is smaller towards both ends
        radius = self._radius(shrink)
        brain = radius < 1
        skull = (radius >= 1) & (radius < 1.12)
        tissue = 0.38 + 0.1 * smooth(random, self.size, 6) + 0.05 * smooth(random, self.size, 14)
        ventricles = np.exp(-(((self.x - self.centre[1]) / 0.16) ** 2) - ((self.y - self.centre[0]) / 0.3) ** 2)
        tissue = tissue - 0.22 * shrink * (ventricles > 0.6)

        lesion = np.zeros_like(tissue)
        if random.random() > LESION_FREE:
            for _ in range(random.integers(1, 3)):
                lesion = np.maximum(lesion, self._lesion(shrink, random))
        mask = (lesion > 0.5) & brain

        # FLAIR (channel 1) shows the lesion best. Vessels are as bright as a lesion after contrast (channel 2) but
        # dark before, so that no single channel identifies a lesion.
        vessels = (smooth(random, self.size, 12) > 0.62) * random.uniform(0.15, 0.35)
        glow = self.lesion_contrast * gaussian_filter(mask.astype(float), 0.8)
        channels = []
        for lesion_shows, vessel_shows in ((0.35, -0.3), (1.0, 0.35), (0.6, 1.0)):
            channel = tissue + lesion_shows * glow + vessel_shows * vessels
            channel = np.where(brain, channel * (1 + self.bias), 0.0) + skull * 0.5
            channel = gaussian_filter(channel, 0.5) + random.normal(0, 0.03, channel.shape) * (radius < 1.12)
            channels.append(channel)
        image = np.clip(np.stack(channels, axis=-1) * 255, 0, 255).astype(np.uint8)
        return image, mask.astype(np.uint8) * 255

    def _radius(self, shrink: float) -> np.ndarray:
        """Distance from the centre as a fraction of the brain's outline in that direction."""
        y, x = self.y - self.centre[0], self.x - self.centre[1]
        angle = np.arctan2(y, x)
        outline = 1 + sum(w * np.cos((k + 2) * angle) for k, w in enumerate(self.wobble))
        return np.hypot(y / self.radii[0], x / self.radii[1]) / (outline * np.sqrt(shrink))

    def _lesion(self, shrink: float, random: np.random.Generator) -> np.ndarray:
        """A blob with an uneven border, near the position of the patient's other lesions."""
        angle = self.lesion_place + random.normal(0, 0.35)
        distance = random.uniform(0.25, 0.55) * shrink
        y = self.y - self.centre[0] - distance * self.radii[0] * np.sin(angle)
        x = self.x - self.centre[1] - distance * self.radii[1] * np.cos(angle)
        radii = random.uniform(0.1, 0.27) * random.uniform(0.75, 1.3, size=2)
        border = 1 + 0.22 * smooth(random, self.size, 7)
        return (np.hypot(y / radii[0], x / radii[1]) < border).astype(float)
