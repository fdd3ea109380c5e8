"""EMKD, efficient medical image segmentation by knowledge distillation: predictions, importance maps, regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from classroom.core.networks.build import Output
from classroom.method_settings import EMKDSegmentation
from classroom.methods.shared.comparison import Comparison, attention, softened_divergence
from classroom.methods.shared.masks import lost_lesions, resized


class EfficientMedical(Comparison):
    paper = "Qin et al., IEEE TMI 2021, arXiv 2108.09987"
    equation = "KL per pixel + Σ_p (I_S − I_T)², I = mean_c f⁴ of length 1 + (c_S − c_T)², c = cos of region means"
    options: EMKDSegmentation

    @staticmethod
    def taps(options: Any) -> Sequence[str]:
        return (options.low, options.high)

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        importance, affinity = student.logits.new_zeros(()), student.logits.new_zeros(())
        for tap in self.taps(self.options):
            own, other = student.features[tap], teacher.features[tap]
            if own.shape[2:] != other.shape[2:]:
                own = F.interpolate(own, size=other.shape[2:], mode="bilinear")
            power = self.options.power
            importance = importance + (attention(own, power) - attention(other, power)).square().sum(dim=1).mean()
            affinity = affinity + _affinity_distance(own, other, resized(targets, other.shape[2:]))
        return {
            "prediction": softened_divergence(student.logits, teacher.logits, self.options.temperature),
            "importance": importance,
            "affinity": affinity,
        }

    def notes(self, targets: torch.Tensor) -> list[str]:
        return lost_lesions(targets, self.teacher_shapes[self.options.high][1:])


def _affinity_distance(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the contrasts, over images with both regions; 0 if there is none.

    The authors divide by the number of images in the batch.
    """
    both = mask.flatten(1).any(dim=1) & (1 - mask).flatten(1).any(dim=1)
    if not both.any():
        return student.sum() * 0
    return F.mse_loss(_contrast(student[both], mask[both]), _contrast(teacher[both], mask[both]))


def _contrast(feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,): the cosine between the mean features of lesion and background."""
    lesion, background = ((feature * region).sum(dim=(2, 3)) / region.sum(dim=(2, 3)) for region in (mask, 1 - mask))
    return F.cosine_similarity(lesion, background, dim=1)


METHOD = EfficientMedical
