"""CWD, channel-wise distillation: every channel's map as a distribution over positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from classroom.methods.shared.published import SHARED_BLOCK, Positive, Published, Tap
from classroom.methods.shared.tensors import block, same_size, two_channels

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class CWD(Published):
    """On logits and features as in CIRKD, without prediction loss and discriminator; the authors use logits only."""

    label = "CWD"
    paper = "Shu et al., ICCV 2021, arXiv 2011.13256"
    formula = "T²/(B·C) Σ_b Σ_c KL (φ(f_T) ‖ φ(f_S)), φ a softmax over positions at temperature T"
    weights = {"logits": 3.0, "feature": 50.0}

    temperature: Positive = Field(4.0, description="Temperature of the distributions over positions.")
    tap: Tap = SHARED_BLOCK

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from torch import nn

        student, teacher = model.channels(self.tap)
        return {"adapter": nn.Identity() if student == teacher else block(student, teacher)}

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(student.features[self.tap], teacher.features[self.tap])
        return {
            "logits": self._divergence(two_channels(student.logits), two_channels(teacher.logits)),
            "feature": self._divergence(model.adapter(own), other),
        }

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_q, log_p = ((maps.flatten(2) / self.temperature).log_softmax(dim=2) for maps in (student, teacher))
        return self.temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2).mean()


METHOD = {"segmentation": CWD}
