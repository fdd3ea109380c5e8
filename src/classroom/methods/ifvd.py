"""IFVD, intra-class feature variation distillation: the variation of pixels around the mean of their class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroom.methods.adversarial.method import Adversarial
from classroom.methods.shared.published import SHARED_BLOCK, Tap
from classroom.methods.shared.tensors import cosine, lost_foreground, mean_square, resized, same_size

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class IFVD(Adversarial):
    label = "IFVD"
    paper = "Wang et al., ECCV 2020"
    formula = "mean (V_S − V_T)², V(p) = cos (f(p), mean of f over p's class) + KL per pixel − mean D(z_S)"
    weights = {"prediction": 1.0, "variation": 20.0, "adversarial": 0.001}

    tap: Tap = SHARED_BLOCK

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(student.features[self.tap], teacher.features[self.tap])
        mask = resized(targets, own.shape[2:])
        return {
            "prediction": self.prediction(student, teacher),
            "variation": mean_square(_variation(own, mask), _variation(other, mask)),
            **self.adversarial_term(model, student, teacher),
        }

    def notes(self, model: Comparison, targets: Tensor) -> list[str]:
        return lost_foreground(targets, model.teacher_shapes[self.tap][1:])


def _variation(feature: Tensor, mask: Tensor) -> Tensor:
    """(B, H, W): the cosine of every pixel's feature with the mean of its class in its image."""
    import torch

    mean = torch.zeros_like(feature)
    for region in (mask, 1 - mask):
        prototype = (feature * region).sum(dim=(2, 3), keepdim=True) / (region.sum(dim=(2, 3), keepdim=True) + 1e-6)
        mean = mean + prototype * region
    return cosine(feature, mean)


METHOD = {"segmentation": IFVD}
