"""SemCKD, cross-layer distillation with semantic calibration: every student layer learns from all teacher layers, with
attention weights for each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.networks.build import Output
from classroom.method_settings import SemCKDClassification
from classroom.methods.shared.comparison import Comparison, block, same_size


class SemanticCalibration(Comparison):
    """The batch size is the input width of the attention, hence part of the architecture."""

    paper = "Chen et al., AAAI 2021, arXiv 2012.03236"
    equation = "1/(B·L) Σ_b Σ_i Σ_j α_bij mean (R_ij(f_S^i)_b − f_T^j_b)²"
    options: SemCKDClassification

    def build_extras(self, image_size: int) -> None:
        taps, ratio = self.options.taps, self.options.mid_ratio
        self.queries = nn.ModuleList(_embedding(self.batch_size) for _ in taps)
        self.keys = nn.ModuleList(_embedding(self.batch_size) for _ in taps)
        self.regressors = nn.ModuleList(
            nn.ModuleList(_regressor(self.student_shapes[i][0], self.teacher_shapes[j][0], ratio) for j in taps)
            for i in taps
        )

    def attention(self, student: Output, teacher: Output) -> torch.Tensor:
        """α (B, student layers, teacher layers); sums to 1 over the teacher layers."""
        taps = self.options.taps
        queries = [embed(_similarity(student.features[tap])) for embed, tap in zip(self.queries, taps, strict=True)]
        keys = [embed(_similarity(teacher.features[tap])) for embed, tap in zip(self.keys, taps, strict=True)]
        query, key = (F.normalize(torch.stack(vectors, dim=1), dim=2) for vectors in (queries, keys))
        return torch.softmax(query @ key.transpose(1, 2) / self.options.sharpness, dim=2)

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        alpha = self.attention(student, teacher)
        taps = self.options.taps
        total = alpha.new_zeros(())
        for i, student_tap in enumerate(taps):
            for j, teacher_tap in enumerate(taps):
                own, other = same_size(student.features[student_tap], teacher.features[teacher_tap])
                regressor = self.regressors.get_submodule(f"{i}.{j}")
                difference = (regressor(own) - other).square().mean(dim=(1, 2, 3))
                total = total + (alpha[:, i, j] * difference).mean()
        return {"feature": total / len(taps)}


def _similarity(feature: torch.Tensor) -> torch.Tensor:
    """(B, B): row b holds the similarities of image b to all images."""
    flat = feature.flatten(1)
    return flat @ flat.T


def _embedding(batch: int) -> nn.Sequential:
    narrow = batch // 4
    return nn.Sequential(nn.Linear(batch, 2 * narrow), nn.ReLU(inplace=True), nn.Linear(2 * narrow, narrow))


def _regressor(student: int, teacher: int, ratio: float) -> nn.Sequential:
    width = max(1, round(ratio * teacher))
    return nn.Sequential(block(student, width), block(width, width, kernel=3), nn.Conv2d(width, teacher, 1, bias=False))


METHOD = SemanticCalibration
