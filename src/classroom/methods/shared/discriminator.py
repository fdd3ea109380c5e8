"""The discriminator of structured knowledge distillation: does a pair of logit maps come from the teacher?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from classroom.errors import TrainingError

LEAST_SIZE = 64
WIDTHS = (64, 128, 256, 512)
ATTENTION_AFTER = (2, 3)


class Discriminator(nn.Module):
    """Batch normalisation; four 4×4 convolutions of stride 2 under spectral normalisation with LeakyReLU 0.1, the third
    and fourth followed by self-attention; a 4×4 convolution to one map (Liu et al., CVPR 2019; Zhang et al., 2018)."""

    def __init__(self, channels: int, image_size: int) -> None:
        """Raises TrainingError for maps that are too small for five convolutions."""
        super().__init__()
        if image_size < LEAST_SIZE:
            raise TrainingError(
                f"the discriminator needs maps of {LEAST_SIZE}×{LEAST_SIZE} pixels or more, not {image_size}×"
                f"{image_size}. Raise study.*.image_size, or set methods.segmentation.*.adversarial to false."
            )
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for number, width in enumerate(WIDTHS):
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
            if number in ATTENTION_AFTER:
                layers.append(SelfAttention(width))
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Of logit maps (B, channels, H, W) how much each looks like the teacher's, per place: (B, 1, h, w)."""
        return self.layers(maps)


class SelfAttention(nn.Module):
    """Every position gathers from all others; begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=2)
        return maps + self.gamma * (value @ attention.transpose(1, 2)).view_as(maps)
