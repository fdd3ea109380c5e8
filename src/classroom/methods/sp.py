"""SP, similarity-preserving distillation: similarities between images of a batch match the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroom.methods.shared.published import Classification, Tap
from classroom.methods.shared.tensors import mean_square, unit

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class SP(Classification):
    label = "SP"
    paper = "Tung & Mori, ICCV 2019"
    formula = "‖G_T − G_S‖² / B², G = F Fᵀ with rows of length 1"
    weights = {"similarity": 3000.0}
    min_batch = 2  # it compares the images of a batch

    tap: Tap = "layer4"

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = (_similarity(of.features[self.tap]) for of in (student, teacher))
        return {"similarity": mean_square(own, other)}


def _similarity(feature: Tensor) -> Tensor:
    """(B, B), each row of length 1."""
    flat = feature.flatten(1)
    return unit(flat @ flat.T)


METHOD = {"classification": SP}
