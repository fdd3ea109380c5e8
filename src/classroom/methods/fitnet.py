"""FitNet: the student's hint layer, projected to the teacher's width, imitates the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from classroom.errors import TrainingError
from classroom.methods.shared.published import SHARED_BLOCK, Classification, Published, Segmentation, Tap
from classroom.methods.shared.tensors import mean_square, same_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class FitNet(Published):
    label = "FitNet"
    paper = "Romero et al., ICLR 2015, arXiv 1412.6550"
    formula = "mean (r(f_S) − f_T)²"

    tap: Tap

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(model.regressor(student.features[self.tap]), teacher.features[self.tap])
        return {"feature": mean_square(own, other)}


class FitNetClassification(FitNet, Classification):
    """Its regressor is convolution, batch normalisation and ReLU, as in RepDistiller."""

    weights = {"feature": 100.0}

    tap: Tap = "layer2"
    two_stage: bool = Field(
        False,
        description="Learn the hint alone in the first half of the epochs and the rest in the second, as in the paper.",
    )

    def teacher_exit_layer(self) -> str | None:
        return self.tap if self.convention == "A" else None

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        return {"regressor": _regressor(model.student_shapes[self.tap], model.teacher_shapes[self.tap])}

    def terms_of(self, epoch: int, epochs: int) -> Sequence[str] | None:
        if not self.two_stage:
            return None
        if epochs < 2:
            raise TrainingError("fitnet: two_stage needs training.epochs of 2 or more: one for the hint, one after it.")
        return ("feature",) if epoch < epochs // 2 else ("task", "prediction")


class FitNetSegmentation(FitNet, Segmentation):
    """Its regressor is a 1×1 convolution, and there is a prediction loss, as in CIRKD."""

    weights = {"feature": 10.0, "prediction": 1.0}

    tap: Tap = SHARED_BLOCK

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from torch import nn

        return {"regressor": nn.Conv2d(*model.channels(self.tap), 1, bias=False)}

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        feature_term = super().losses(model, student, teacher, targets)
        return {**feature_term, "prediction": self.prediction(student, teacher)}


def _regressor(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """Projects the student's map to the teacher's size and width (RepDistiller's ConvReg)."""
    from torch import nn

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


METHOD = {"classification": FitNetClassification, "segmentation": FitNetSegmentation}
