"""FitNet: the student's hint layer, projected to the teacher's width, imitates the teacher's."""

from __future__ import annotations

import torch
from torch import nn

from classroom.core.losses import feature_loss
from classroom.core.method import Term
from classroom.core.networks.build import Output
from classroom.errors import TrainingError
from classroom.method_settings import FitNetClassification, FitNetSegmentation
from classroom.methods.shared.comparison import Comparison, same_size, softened_divergence


class FitNet(Comparison):
    """Classification: convolution, batch normalisation and ReLU (RepDistiller). Segmentation: a 1×1 convolution and a
    prediction loss (CIRKD)."""

    paper = "Romero et al., ICLR 2015, arXiv 1412.6550"
    equation = "mean (r(f_S) − f_T)²"
    options: FitNetClassification | FitNetSegmentation

    def build_extras(self, image_size: int) -> None:
        tap = self.options.tap
        self.two_stage = isinstance(self.options, FitNetClassification) and self.options.two_stage
        self.hint_only = self.two_stage
        if "prediction" in self.weights:
            self.regressor: nn.Module = nn.Conv2d(*self.channels(tap), 1, bias=False)
        else:
            self.regressor = _regressor(self.student_shapes[tap], self.teacher_shapes[tap])
            if isinstance(self.options, FitNetClassification) and self.options.convention == "A":
                self.teacher_exit_layer = tap

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        if self.two_stage and epochs < 2:
            raise TrainingError("fitnet: two_stage needs training.epochs of 2 or more: one for the hint, one after it.")
        self.hint_only = epoch < self.first_stage(epochs)

    def first_stage(self, epochs: int) -> int:
        return epochs // 2 if self.two_stage else 0

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        tap = self.options.tap
        own, other = same_size(self.regressor(student.features[tap]), teacher.features[tap])
        values = {"feature": feature_loss(own, other)}
        if "prediction" in self.weights:
            values["prediction"] = softened_divergence(student.logits, teacher.logits, self.options.temperature)
        return values

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        terms = super().losses(images, targets)
        if not self.two_stage:
            return terms
        return [term for term in terms if (term.name == "feature") == self.hint_only]


def _regressor(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """Projects the student's map to the teacher's size and width (RepDistiller's ConvReg)."""
    (inputs, height, width), (outputs, *target) = student, teacher
    convolution: nn.Module
    if [height, width] == [2 * side for side in target]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif [2 * height, 2 * width] == target:
        convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif height >= target[0] and width >= target[1]:
        convolution = nn.Conv2d(inputs, outputs, (1 + height - target[0], 1 + width - target[1]))
    else:
        raise TrainingError(
            f"fitnet: the student's map of {height}×{width} cannot be mapped to the teacher's {target[0]}×{target[1]}"
            ". Choose another tap."
        )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


METHOD = FitNet
