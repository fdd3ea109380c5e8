"""Augmentation of whole batches, on the device that trains."""

from __future__ import annotations

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomHorizontalFlip,
    RandomRotation90,
    RandomVerticalFlip,
)

from classroom.params import Augmentation


class Augment:
    """Flips, transposes, rotation, shift and scale (Sec. 4.2), drawn per sample; masks follow, classes stay."""

    def __init__(self, settings: Augmentation) -> None:
        # A quarter turn after the two flips yields every transpose.
        self.transform = AugmentationSequential(
            RandomHorizontalFlip(p=settings.flip),
            RandomVerticalFlip(p=settings.flip),
            RandomRotation90(times=(1, 1), p=settings.transpose),
            RandomAffine(
                degrees=settings.rotation_degrees,
                translate=(settings.shift, settings.shift),
                scale=tuple(settings.scale),
                p=settings.affine,
            ),
            data_keys=["input", "mask"],
        )

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, targets: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images (B, 3, H, W) and their masks (B, 1, H, W) or classes (B,).

        The same `seed` draws the same geometry.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if targets.ndim == 4:
                images, targets = self.transform(images, targets)
            else:
                images = self.transform(images, data_keys=["input"])
        return images.contiguous(memory_format=torch.channels_last), targets
