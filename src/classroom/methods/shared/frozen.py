"""Layers that do not learn, within a network that does."""

from __future__ import annotations

from torch import nn


class Frozen(nn.Sequential):
    """Layers without gradients that keep their batch statistics when the network around them trains."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode."""
        super().train(False)
        return self
