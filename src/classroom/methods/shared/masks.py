"""Masks at the size of a feature map, for losses that look at regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def resized(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks (B, 1, H, W) at another size, by nearest neighbour."""
    return F.interpolate(masks.float(), size=tuple(size), mode="nearest")


def lost_lesions(masks: torch.Tensor, size: Sequence[int]) -> list[str]:
    """A sentence on how many of the masks that have a lesion have none left at `size`; nothing if all keep some."""
    with_lesion = masks[(masks > 0).flatten(1).any(dim=1)]
    if not len(with_lesion):
        return []
    lost = int((~resized(with_lesion, size).flatten(1).any(dim=1)).sum())
    if not lost:
        return []
    return [
        f"at {size[0]}×{size[1]}, the size of the features it looks at, {lost} of {len(with_lesion)} training masks "
        "with a lesion have none left"
    ]
