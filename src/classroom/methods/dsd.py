"""DSD, double similarity distillation, as re-implemented in CIRKD; the authors published no code."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from classroom.methods.shared.published import Positive, Published, Taps
from classroom.methods.shared.tensors import interpolated, mean_square, two_channels, unit

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class DSD(Published):
    """Attention maps are resized to the largest one before they are compared, since a U-Net's maps differ in size."""

    label = "DSD"
    paper = "Feng et al., IEEE TIP 2021, arXiv 2107.08591"
    formula = "2/(L(L−1)) Σ_{m<n} mean (R_S − R_T)², R_mn = n(A_n − A_m) + mean (G_S − G_T)², G = P Pᵀ of categories"
    weights = {"pixel": 1000.0, "category": 10.0}

    temperature: Positive = Field(4.0, description="Temperature of the distributions over positions.")
    taps: Annotated[Taps, Field(min_length=2)] = tuple(f"decoder.blocks.{block}" for block in range(3))
    category_size: int = Field(32, ge=1, description="Size to which logit maps are pooled before they are compared.")

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        size = max((teacher.features[tap].shape[2:] for tap in self.taps), key=lambda shape: shape.numel())
        own, other = ([_attention(of.features[tap], size) for tap in self.taps] for of in (student, teacher))
        pairs = list(itertools.combinations(range(len(self.taps)), 2))
        pixel = (mean_square(unit(own[n] - own[m]), unit(other[n] - other[m])) for m, n in pairs)
        return {
            "pixel": sum(pixel, start=student.logits.new_zeros(())) / len(pairs),
            "category": mean_square(self._categories(student), self._categories(teacher)),
        }

    def _categories(self, output: Output) -> Tensor:
        """(B, 2, 2): similarities between the categories' distributions over positions."""
        import torch.nn.functional as F

        maps = F.adaptive_avg_pool2d(two_channels(output.logits), self.category_size)
        positions = (maps.flatten(2) / self.temperature).softmax(dim=2)
        return positions @ positions.transpose(1, 2)


def _attention(feature: Tensor, size: Sequence[int]) -> Tensor:
    """mean_c f² at `size`, as a unit vector per sample."""
    return unit(interpolated(feature.square().mean(dim=1, keepdim=True), size).flatten(1))


METHOD = {"segmentation": DSD}
