"""The discriminator of structured knowledge distillation: is a logit map the teacher's or the student's?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from classroom.errors import TrainingError

MIN_SIZE = 64
WIDTHS = (64, 128, 256, 512)
ATTENTION_AFTER = (2, 3)


class Discriminator(nn.Module):
    """Batch normalisation; four 4×4 convolutions of stride 2 with spectral normalisation and LeakyReLU 0.1, the last
    two followed by self-attention; a 4×4 convolution to one map.

    References
    ----------
    Liu et al., CVPR 2019; Zhang et al., 2018
    """

    def __init__(self, channels: int, image_size: int) -> None:
        """Raises TrainingError for maps that are too small for five convolutions."""
        super().__init__()
        if image_size < MIN_SIZE:
            raise TrainingError(
                f"the discriminator needs maps of {MIN_SIZE}×{MIN_SIZE} pixels or more, not {image_size}×"
                f"{image_size}. Raise the study's image_size, or set the method's adversarial to false."
            )
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for number, width in enumerate(WIDTHS):
            layers += [spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
            if number in ATTENTION_AFTER:
                layers.append(SelfAttention(width))
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Scores (B, 1, h, w) of logit maps (B, channels, H, W); high for the teacher's."""
        return self.layers(maps)


class SelfAttention(nn.Module):
    """Self-attention over positions (Zhang et al., 2018), initialised to the identity."""

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
