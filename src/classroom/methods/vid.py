"""VID, variational information distillation: the student's features predict the teacher's with a learnt variance."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.method import total
from classroom.core.networks.build import Output
from classroom.method_settings import VIDClassification
from classroom.methods.shared.comparison import Comparison, same_size


class VariationalInformation(Comparison):
    """The loss is a negative log-likelihood, which becomes negative as the variances shrink."""

    paper = "Ahn et al., CVPR 2019"
    equation = "Σ_l mean ½ ((μ(f_S) − f_T)² / v_c + log v_c)"
    options: VIDClassification

    def build_extras(self, image_size: int) -> None:
        # A list: the dots in the names of taps would nest modules.
        self.predictors = nn.ModuleList(_Gaussian(*self.channels(tap), self.options) for tap in self.options.taps)

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        pairs = zip(self.predictors, self.options.taps, strict=True)
        return {"information": total(of(*same_size(student.features[tap], teacher.features[tap])) for of, tap in pairs)}


class _Gaussian(nn.Module):
    """A mean per pixel from the student's map and a variance per channel of the teacher's."""

    def __init__(self, student: int, teacher: int, options: VIDClassification) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student, teacher, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher, teacher, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher, teacher, 1, bias=False),
        )
        self.min_variance = options.least_variance
        # The inverse of softplus, log(exp(rest) − 1), without overflow.
        rest = options.initial_variance - self.min_variance
        start = rest + math.log(-math.expm1(-rest))
        self.raw_variance = nn.Parameter(torch.full((1, teacher, 1, 1), start))

    @property
    def variance(self) -> torch.Tensor:
        return F.softplus(self.raw_variance) + self.min_variance

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        variance = self.variance
        return 0.5 * ((self.mean(student) - teacher).square() / variance + variance.log()).mean()


METHOD = VariationalInformation
