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
    """Flips, transposes, rotation, shift and scale (Sec. 4.2), drawn per sample; masks follow their images."""

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
    def __call__(self, images: torch.Tensor, masks: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images (B, 3, H, W) and masks (B, 1, H, W); the same `seed` draws the same geometry."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            images, masks = self.transform(images, masks)
        return images.contiguous(memory_format=torch.channels_last), masks
