"""CWD, channel-wise distillation: every channel's map as a distribution over positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.networks.build import Output
from classroom.method_settings import CWDSegmentation
from classroom.methods.shared.comparison import Comparison, block, same_size, two_channels


class ChannelWise(Comparison):
    """On logits and features as in CIRKD, without prediction loss and discriminator; the authors use logits only."""

    paper = "Shu et al., ICCV 2021, arXiv 2011.13256"
    equation = "T²/(B·C) Σ_b Σ_c KL (φ(f_T) ‖ φ(f_S)), φ a softmax over positions at temperature T"
    options: CWDSegmentation

    def build_extras(self, image_size: int) -> None:
        student, teacher = self.channels(self.options.tap)
        self.adapter = nn.Identity() if student == teacher else block(student, teacher)

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features[self.options.tap], teacher.features[self.options.tap])
        return {
            "logits": self._divergence(two_channels(student.logits), two_channels(teacher.logits)),
            "feature": self._divergence(self.adapter(own), other),
        }

    def _divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        temperature = self.options.temperature
        log_q, log_p = (F.log_softmax(maps.flatten(2) / temperature, dim=2) for maps in (student, teacher))
        return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2).mean()


METHOD = ChannelWise
