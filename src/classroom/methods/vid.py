"""VID, variational information distillation: the student's features predict the teacher's with a learnt variance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from classroom.methods.shared.published import STAGES, Classification, Positive, Taps
from classroom.methods.shared.tensors import same_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class VID(Classification):
    """The loss is a negative log-likelihood, which becomes negative as the variances shrink."""

    label = "VID"
    paper = "Ahn et al., CVPR 2019"
    formula = "Σ_l mean ½ ((μ(f_S) − f_T)² / v_c + log v_c)"
    weights = {"information": 1.0}

    taps: Taps = STAGES
    initial_variance: Positive = Field(5.0, description="Variance of every channel at the start.")
    least_variance: Positive = Field(1e-5, description="Lower bound of the variances.")

    @model_validator(mode="after")
    def _starts_above_least_variance(self) -> VID:
        if self.initial_variance <= self.least_variance:
            raise ValueError(
                f"initial_variance must be above least_variance, not {self.initial_variance:g} and "
                f"{self.least_variance:g}"
            )
        return self

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        """For each tap the mean μ, per pixel, and the variance v, per channel, before softplus."""
        import torch
        from torch import nn

        # The inverse of softplus, log(exp(rest) − 1), without overflow.
        rest = self.initial_variance - self.least_variance
        start = rest + math.log(-math.expm1(-rest))
        # Lists: the dots in the names of taps would nest modules.
        channels = [model.channels(tap) for tap in self.taps]
        return {
            "means": nn.ModuleList(_mean(student, teacher) for student, teacher in channels),
            "raw_variances": nn.ParameterList(torch.full((1, teacher, 1, 1), start) for _, teacher in channels),
        }

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        information = student.logits.new_zeros(())
        for mean, variance, tap in zip(model.means, self.variances(model), self.taps, strict=True):
            own, other = same_size(student.features[tap], teacher.features[tap])
            information = information + 0.5 * ((mean(own) - other).square() / variance + variance.log()).mean()
        return {"information": information}

    def variances(self, model: Comparison) -> list[Tensor]:
        """v (1, C, 1, 1) of every tap."""
        import torch.nn.functional as F

        return [F.softplus(raw) + self.least_variance for raw in model.raw_variances]


def _mean(student: int, teacher: int) -> nn.Sequential:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(student, teacher, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher, teacher, 1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(teacher, teacher, 1, bias=False),
    )


METHOD = {"classification": VID}
