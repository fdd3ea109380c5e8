"""IFVD, intra-class feature variation distillation: the variation of pixels around the mean of their class."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.core.networks.build import Output
from classroom.method_settings import IFVDSegmentation
from classroom.methods.shared.adversary import AdversarialComparison
from classroom.methods.shared.comparison import same_size, softened_divergence
from classroom.methods.shared.masks import lost_lesions, resized


class IntraClassVariation(AdversarialComparison):
    paper = "Wang et al., ECCV 2020"
    equation = "mean (V_S − V_T)², V(p) = cos (f(p), mean of f over p's class) + KL per pixel − mean D(z_S)"
    options: IFVDSegmentation

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features[self.options.tap], teacher.features[self.options.tap])
        mask = resized(targets, own.shape[2:])
        return {
            "prediction": softened_divergence(student.logits, teacher.logits, self.options.temperature),
            "variation": F.mse_loss(_variation(own, mask), _variation(other, mask)),
            **self.adversarial(student, teacher),
        }

    def notes(self, targets: torch.Tensor) -> list[str]:
        return lost_lesions(targets, self.teacher_shapes[self.options.tap][1:])


def _variation(feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, H, W): the cosine of every pixel's feature with the mean of its class in its image."""
    mean = torch.zeros_like(feature)
    for region in (mask, 1 - mask):
        prototype = (feature * region).sum(dim=(2, 3), keepdim=True) / (region.sum(dim=(2, 3), keepdim=True) + 1e-6)
        mean = mean + prototype * region
    return F.cosine_similarity(feature, mean, dim=1)


METHOD = IntraClassVariation
