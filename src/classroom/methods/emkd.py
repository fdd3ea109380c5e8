"""EMKD, efficient medical image segmentation by knowledge distillation: predictions, importance maps, regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from classroom.methods.shared.published import Positive, Segmentation
from classroom.methods.shared.tensors import attention, cosine, interpolated, lost_foreground, resized

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class EMKD(Segmentation):
    label = "EMKD"
    paper = "Qin et al., IEEE TMI 2021, arXiv 2108.09987"
    formula = "KL per pixel + Σ_p (I_S − I_T)², I = mean_c f⁴ of length 1 + (c_S − c_T)², c = cos of region means"
    weights = {"prediction": 0.1, "importance": 0.9, "affinity": 0.9}

    temperature: Positive = Field(4.0, description="Temperature of the prediction loss.")
    low: str = Field("stem", description="Layer of low-level features.")
    high: str = Field("layer2", description="Layer of high-level features.")
    power: Positive = Field(4.0, description="Power of the activations.")

    def tapped(self) -> Sequence[str]:
        return (self.low, self.high)

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        importance, affinity = student.logits.new_zeros(()), student.logits.new_zeros(())
        for tap in self.tapped():
            own, other = student.features[tap], teacher.features[tap]
            if own.shape[2:] != other.shape[2:]:
                own = interpolated(own, other.shape[2:])
            difference = attention(own, self.power) - attention(other, self.power)
            importance = importance + difference.square().sum(dim=1).mean()
            affinity = affinity + _affinity_distance(own, other, resized(targets, other.shape[2:]))
        return {"prediction": self.prediction(student, teacher), "importance": importance, "affinity": affinity}

    def notes(self, model: Comparison, targets: Tensor) -> list[str]:
        return lost_foreground(targets, model.teacher_shapes[self.high][1:])


def _affinity_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of the contrasts, over images with both regions; 0 if there is none.

    The authors divide by the number of images in the batch.
    """
    both = mask.flatten(1).any(dim=1) & (1 - mask).flatten(1).any(dim=1)
    squared = (_contrast(student, mask) - _contrast(teacher, mask)).square()
    return (squared * both).sum() / both.sum().clamp(min=1)


def _contrast(feature: Tensor, mask: Tensor) -> Tensor:
    """(B,): the cosine between the mean features of foreground and background; 0 if there is no such region."""
    foreground, background = (
        (feature * region).sum(dim=(2, 3)) / region.sum(dim=(2, 3)).clamp(min=1) for region in (mask, 1 - mask)
    )
    return cosine(foreground, background)


METHOD = {"segmentation": EMKD}
