"""AT, attention transfer: the student imitates the teacher's attention maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.core.method import total
from classroom.core.networks.build import Output
from classroom.method_settings import ATClassification, ATSegmentation
from classroom.methods.shared.comparison import Comparison, attention, same_size, softened_divergence


class AttentionTransfer(Comparison):
    """As in the authors' code; their Eq. 2 has the norm of the difference instead of its mean square.

    For segmentation with a prediction loss, as in CIRKD.
    """

    paper = "Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928"
    equation = "Σ_l mean (A(f_S) − A(f_T))², A = mean_c |f|^p as a vector of length 1"
    options: ATClassification | ATSegmentation

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        values = {"attention": total(self._distance(student, teacher, tap) for tap in self.options.taps)}
        if "prediction" in self.weights:
            values["prediction"] = softened_divergence(student.logits, teacher.logits, self.options.temperature)
        return values

    def _distance(self, student: Output, teacher: Output, tap: str) -> torch.Tensor:
        own, other = same_size(student.features[tap], teacher.features[tap])
        return F.mse_loss(attention(own, self.options.power), attention(other, self.options.power))


METHOD = AttentionTransfer
