"""Masks at the size of a feature map, for losses over regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resized(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks (B, 1, H, W) at another size, by nearest neighbour."""
    return F.interpolate(masks.float(), size=tuple(size), mode="nearest")


def lost_lesions(masks: torch.Tensor, size: Sequence[int]) -> list[str]:
    """A sentence on how many masks lose their whole lesion when resized to `size`; empty if none does."""
    with_lesion = masks[(masks > 0).flatten(1).any(dim=1)]
    if not len(with_lesion):
        return []
    lost = int((~resized(with_lesion, size).flatten(1).any(dim=1)).sum())
    if not lost:
        return []
    return [
        f"at {size[0]}×{size[1]}, the size of the features that are compared, {lost} of {len(with_lesion)} training "
        "masks lose their whole lesion"
    ]
