"""SKD, structured knowledge distillation: pixel-wise, pair-wise and adversarial (holistic) terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from classroom.methods.adversarial.method import Adversarial
from classroom.methods.shared.published import SHARED_BLOCK, Tap
from classroom.methods.shared.tensors import mean_square, same_size, unit

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class SKD(Adversarial):
    """The pixel-wise term is a KL divergence; the authors use the cross-entropy, which has the same gradient.

    In the pair-wise term the authors detach the norm of each pixel; here its gradient is kept.
    """

    label = "SKD"
    paper = "Liu et al., CVPR 2019, arXiv 1903.04197"
    formula = "KL per pixel + mean (a_S − a_T)², a_ij = ⟨u_i, u_j⟩ of pooled pixels of length 1 − mean D(z_S)"
    weights = {"prediction": 1.0, "pair": 10.0, "adversarial": 0.001}

    tap: Tap = SHARED_BLOCK
    pool: int = Field(2, ge=1, description="Kernel of the pooling before pixels are compared in pairs.")

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(student.features[self.tap], teacher.features[self.tap])
        return {
            "prediction": self.prediction(student, teacher),
            "pair": mean_square(_affinity(own, self.pool), _affinity(other, self.pool)),
            **self.adversarial_term(model, student, teacher),
        }


def _affinity(feature: Tensor, pool: int) -> Tensor:
    """(B, nodes, nodes): cosines between the pooled pixels of each image."""
    import torch.nn.functional as F

    nodes = unit(F.max_pool2d(feature, pool, ceil_mode=True).flatten(2))
    return nodes.transpose(1, 2) @ nodes


METHOD = {"segmentation": SKD}
