"""SP, similarity-preserving distillation: similarities between images of a batch match the teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.core.networks.build import Output
from classroom.method_settings import SPClassification
from classroom.methods.shared.comparison import Comparison


class SimilarityPreserving(Comparison):
    paper = "Tung & Mori, ICCV 2019"
    equation = "‖G_T − G_S‖² / B², G = F Fᵀ with rows of length 1"
    options: SPClassification

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        tap = self.options.tap
        return {"similarity": F.mse_loss(_similarity(student.features[tap]), _similarity(teacher.features[tap]))}


def _similarity(feature: torch.Tensor) -> torch.Tensor:
    """(B, B), each row of length 1."""
    flat = feature.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


METHOD = SimilarityPreserving
