"""DSD, double similarity distillation, as re-implemented in CIRKD; the authors published no code."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F

from classroom.core.method import total
from classroom.core.networks.build import Output
from classroom.method_settings import DSDSegmentation
from classroom.methods.shared.comparison import Comparison, two_channels


class DoubleSimilarity(Comparison):
    """Attention maps are resized to the largest one before they are compared, since a U-Net's maps differ in size."""

    paper = "Feng et al., IEEE TIP 2021, arXiv 2107.08591"
    equation = "2/(L(L−1)) Σ_{m<n} mean (R_S − R_T)², R_mn = n(A_n − A_m) + mean (G_S − G_T)², G = P Pᵀ of categories"
    options: DSDSegmentation

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        taps = self.options.taps
        size = max((teacher.features[tap].shape[2:] for tap in taps), key=lambda shape: shape.numel())
        own, other = ([_attention(output.features[tap], size) for tap in taps] for output in (student, teacher))
        pairs = list(itertools.combinations(range(len(taps)), 2))
        pixel = total(F.mse_loss(_residual(own[m], own[n]), _residual(other[m], other[n])) for m, n in pairs)
        return {
            "pixel": pixel / len(pairs),
            "category": F.mse_loss(self._categories(student), self._categories(teacher)),
        }

    def _categories(self, output: Output) -> torch.Tensor:
        """(B, 2, 2): similarities between the categories' distributions over positions."""
        maps = F.adaptive_avg_pool2d(two_channels(output.logits), self.options.category_size)
        positions = torch.softmax(maps.flatten(2) / self.options.temperature, dim=2)
        return positions @ positions.transpose(1, 2)


def _attention(feature: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """mean_c f² at `size`, as a unit vector per sample."""
    activity = feature.square().mean(dim=1, keepdim=True)
    return F.normalize(F.interpolate(activity, size=size, mode="bilinear").flatten(1), dim=1)


def _residual(shallow: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
    return F.normalize(deep - shallow, dim=1)


METHOD = DoubleSimilarity
