"""SemCKD, cross-layer distillation with semantic calibration: every student layer learns from all teacher layers, with
attention weights for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from classroom.methods.shared.published import STAGES, Classification, Convention, Positive, Taps
from classroom.methods.shared.tensors import block, same_size, unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class SemCKD(Classification):
    """The batch size is the input width of the attention, hence part of the architecture."""

    label = "SemCKD"
    paper = "Chen et al., AAAI 2021, arXiv 2012.03236"
    formula = "1/(B·L) Σ_b Σ_i Σ_j α_bij mean (R_ij(f_S^i)_b − f_T^j_b)²"
    weights = {"feature": 400.0}
    shown = ("convention", "mid_ratio")
    min_batch = 8  # the width of its attention's input; a quarter of it is the output's

    convention: Convention = "B"
    taps: Taps = STAGES
    mid_ratio: Positive = Field(
        0.25,
        description="Width inside a regressor, divided by the teacher's; 2 as published, which is 854 M parameters "
        "with a ResNet50.",
    )
    sharpness: Positive = Field(1.0, description="Divides the similarity of query and key.")

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from torch import nn

        queries, keys = (nn.ModuleList(_embedding(model.batch_size) for _ in self.taps) for _ in range(2))
        regressors = nn.ModuleList(
            nn.ModuleList(
                _regressor(model.student_shapes[i][0], model.teacher_shapes[j][0], self.mid_ratio) for j in self.taps
            )
            for i in self.taps
        )
        return {"queries": queries, "keys": keys, "regressors": regressors}

    def attention(self, model: Comparison, student: Output, teacher: Output) -> Tensor:
        """α (B, student layers, teacher layers); sums to 1 over the teacher layers."""
        import torch

        sides = ((model.queries, student), (model.keys, teacher))
        query, key = (
            torch.stack(
                [embed(_similarity(of.features[tap])) for embed, tap in zip(embeddings, self.taps, strict=True)], dim=1
            )
            for embeddings, of in sides
        )
        return (unit(query, 2) @ unit(key, 2).transpose(1, 2) / self.sharpness).softmax(dim=2)

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        alpha = self.attention(model, student, teacher)
        total = alpha.new_zeros(())
        for i, student_tap in enumerate(self.taps):
            for j, teacher_tap in enumerate(self.taps):
                own, other = same_size(student.features[student_tap], teacher.features[teacher_tap])
                difference = (model.regressors[i][j](own) - other).square().mean(dim=(1, 2, 3))
                total = total + (alpha[:, i, j] * difference).mean()
        return {"feature": total / len(self.taps)}

    def notes(self, model: Comparison, targets: Tensor) -> list[str]:
        return [f"mid_ratio is {self.mid_ratio:g}; as published it is 2"] if self.mid_ratio != 2 else []


def _similarity(feature: Tensor) -> Tensor:
    """(B, B): row b holds the similarities of image b to all images."""
    flat = feature.flatten(1)
    return flat @ flat.T


def _embedding(batch: int) -> nn.Sequential:
    from torch import nn

    narrow = batch // 4
    return nn.Sequential(nn.Linear(batch, 2 * narrow), nn.ReLU(inplace=True), nn.Linear(2 * narrow, narrow))


def _regressor(student: int, teacher: int, ratio: float) -> nn.Sequential:
    from torch import nn

    width = max(1, round(ratio * teacher))
    return nn.Sequential(block(student, width), block(width, width, kernel=3), nn.Conv2d(width, teacher, 1, bias=False))


METHOD = {"classification": SemCKD}
