"""SKD, structured knowledge distillation: pixel-wise, pair-wise and adversarial (holistic) terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.core.networks.build import Output
from classroom.method_settings import SKDSegmentation
from classroom.methods.shared.adversary import AdversarialComparison
from classroom.methods.shared.comparison import same_size, softened_divergence


class StructuredDistillation(AdversarialComparison):
    """The pixel-wise term is a KL divergence; the authors use the cross-entropy, which has the same gradient.

    In the pair-wise term the authors detach the norm of each pixel; here its gradient is kept.
    """

    paper = "Liu et al., CVPR 2019, arXiv 1903.04197"
    equation = "KL per pixel + mean (a_S − a_T)², a_ij = ⟨u_i, u_j⟩ of pooled pixels of length 1 − mean D(z_S)"
    options: SKDSegmentation

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features[self.options.tap], teacher.features[self.options.tap])
        return {
            "prediction": softened_divergence(student.logits, teacher.logits, self.options.temperature),
            "pair": F.mse_loss(_affinity(own, self.options.pool), _affinity(other, self.options.pool)),
            **self.adversarial(student, teacher),
        }


def _affinity(feature: torch.Tensor, pool: int) -> torch.Tensor:
    """(B, nodes, nodes): cosines between the pooled pixels of each image."""
    nodes = F.normalize(F.max_pool2d(feature, pool, ceil_mode=True).flatten(2), dim=1)
    return nodes.transpose(1, 2) @ nodes


METHOD = StructuredDistillation
