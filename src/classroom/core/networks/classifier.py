"""A classifier whose last feature map can be shared (Table 6)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from classroom.params import Network as NetworkSettings


class Classifier(nn.Module):
    """Encoder, optionally the paper's Conv6, global average pooling, linear layer.

    Teacher and students compare the output of `conv6`: an extra 1×1 block (convolution, batch normalisation, ReLU) that
    gives the teacher its students' width, or the encoder's last map.
    """

    def __init__(self, settings: NetworkSettings, classes: int) -> None:
        super().__init__()
        self.encoder = timm_encoder(settings, pretrained=False)
        channels = self.encoder.num_features
        self.last: nn.Module = nn.Identity()  # a tap after the last stage, for all encoders
        self.conv6: nn.Module = nn.Identity()
        if settings.conv6_channels:
            self.conv6 = nn.Sequential(
                nn.Conv2d(channels, settings.conv6_channels, kernel_size=1, bias=False),
                nn.BatchNorm2d(settings.conv6_channels),
                nn.ReLU(inplace=True),
            )
            channels = settings.conv6_channels
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W)."""
        return self.head(self.last(self.encoder.forward_features(images)))

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of the encoder's last map: Conv6 where there is one, pooling, the linear layer."""
        return self.classifier(self.conv6(features).mean(dim=(2, 3)))


def timm_encoder(settings: NetworkSettings, pretrained: bool) -> Any:  # nn.Module does not declare what is used of it
    """The timm model without its classifier; `pretrained` downloads its ImageNet weights."""
    name = settings.encoder.removeprefix("tu-")
    return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **settings.encoder_options)
