"""SKD, structured knowledge distillation: pixels, pairs of pixels, and whole maps that pass for the teacher's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from classroom.methods.adversary import Adversary
from classroom.methods.comparison import Comparison, same_size, softened_divergence
from classroom.networks.build import Output


class StructuredDistillation(Comparison):
    """The pixel term is a divergence where the authors take the cross-entropy, which has the same gradient."""

    paper = "Liu et al., CVPR 2019, arXiv 1903.04197"
    equation = "KL per pixel + mean (a_S − a_T)², a_ij = ⟨u_i, u_j⟩ of pooled pixels of length 1 − mean D(z_S)"

    def build_extras(self, image_size: int) -> None:
        self.adversary = Adversary(self.options.adversary, image_size) if self.options.adversarial else None

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features[self.options.tap], teacher.features[self.options.tap])
        values = {
            "prediction": softened_divergence(student.logits, teacher.logits, self.options.temperature),
            "pair": F.mse_loss(_affinity(own, self.options.pool), _affinity(other, self.options.pool)),
        }
        if self.adversary:
            values["adversarial"] = self.adversary.distance(student, teacher)
        return values

    def after_step(self) -> None:
        if self.adversary:
            self.adversary.step()


def _affinity(feature: Any, pool: int) -> torch.Tensor:
    """(B, nodes, nodes): cosines between the pooled pixels of each image."""
    nodes = F.normalize(F.max_pool2d(feature, pool, ceil_mode=True).flatten(2), dim=1)
    return nodes.transpose(1, 2) @ nodes


METHOD = StructuredDistillation
