"""Augmentation of batches, on the device that trains."""

from __future__ import annotations

import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Mask

from classroom.params import Augmentation


class Augment:
    """Flips, transposes, rotation, shift and scale (Sec. 4.2), drawn per sample; masks are transformed alike."""

    def __init__(self, settings: Augmentation) -> None:
        # A quarter turn after the two flips yields every transpose.
        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(settings.flip),
                v2.RandomVerticalFlip(settings.flip),
                v2.RandomApply([v2.RandomRotation((90, 90))], settings.transpose),
                v2.RandomApply(
                    [
                        v2.RandomAffine(
                            degrees=settings.rotation_degrees,
                            translate=(settings.shift, settings.shift),
                            scale=settings.scale,
                            interpolation=v2.InterpolationMode.BILINEAR,
                        )
                    ],
                    settings.affine,
                ),
            ]
        )

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, targets: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments a batch.

        Parameters
        ----------
        images : (B, 3, H, H) float
            square
        targets : (B, 1, H, H) masks, or (B,) classes
            Classes stay as they are.
        seed
            The same seed draws the same transforms.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            if targets.ndim == 4:
                moved = [self.transform(image, Mask(mask)) for image, mask in zip(images, targets, strict=True)]
                images, targets = (torch.stack(part) for part in zip(*moved, strict=True))
            else:
                images = torch.stack([self.transform(image) for image in images])
        return images.contiguous(memory_format=torch.channels_last), targets
