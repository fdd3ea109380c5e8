"""Base of the published methods of Table 10: a frozen teacher, one student, distances between them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.losses import prediction_loss, task_loss
from classroom.core.method import Method, Term
from classroom.core.networks.build import Network, Output
from classroom.errors import TrainingError
from classroom.method_settings import ClassificationSettings, MethodSettings
from classroom.params import PredictionLoss, TaskLoss

LAST_MAP = "layer4"
"""The tap of a classifier's last map, before pooling."""
CONVENTION_B = 1.0
"""Weight of the prediction loss that convention B adds to a method of classification."""


class Comparison(Method):
    """A student S1 that learns from its task and from the study's trained teacher T.

    A subclass declares its paper, equation and taps, builds its extra modules in `build_extras`, and returns its
    unweighted terms from `distances`. The weights have the same names as the terms.
    """

    paper: ClassVar[str]
    equation: ClassVar[str]
    uses_labels: ClassVar[bool] = True
    options: MethodSettings
    """Each subclass declares its own type."""

    frozen = ("T",)
    teacher_exit_layer: str | None = None
    """The last tap of the teacher that the method needs; its forward pass ends there. None: it needs the logits."""

    def __init__(
        self,
        networks: dict[str, Network],
        options: MethodSettings,
        weights: dict[str, float],
        task: TaskLoss,
        image_size: int,
        batch_size: int,
    ) -> None:
        """`options` and `weights`: the method's, of the study's settings; `image_size`: of the batches, in pixels.

        Raises TrainingError for taps whose sizes cannot be matched or a batch that is too small.
        """
        super().__init__(networks)
        self.options, self.weights, self.task_settings = options, weights, task
        self.batch_size = batch_size
        if batch_size < options.min_batch:
            name = type(self).__module__.rpartition(".")[2]
            raise TrainingError(
                f"{name}: compares the images of a batch; training.batch_size must be {options.min_batch} or more, "
                f"not {batch_size}."
            )
        self.student_shapes = networks["S1"].shapes(image_size)
        self.teacher_shapes = networks["T"].shapes(image_size)
        for tap in self.taps(options):
            self._check_tap(tap)
        self.settings = {
            "weights": dict(weights),
            "options": options.model_dump(mode="json"),
            "losses": {"task": task.model_dump(mode="json")},
        }
        self.build_extras(image_size)

    @staticmethod
    def taps(options: Any) -> Sequence[str]:
        """The taps of teacher and student."""
        if hasattr(options, "taps"):
            return options.taps
        return (options.tap,) if hasattr(options, "tap") else (LAST_MAP,)

    def build_extras(self, image_size: int) -> None:
        """Registers the extra modules that are trained with the student."""

    @abstractmethod
    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The unweighted terms of the method by name.

        Parameters
        ----------
        student, teacher
            float32 outputs; the teacher's is detached
        targets : (B, 1, H, W) of {0, 1}, or classes (B,)
        """

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        teacher = self._teach(images)
        student = _as_float32(self.networks["S1"](images))
        with torch.autocast(images.device.type, enabled=False):  # Gram matrices and fourth powers overflow in bfloat16
            terms = []
            if self.uses_labels:
                terms.append(Term("S1", "task", 1.0, task_loss(student.logits, targets, self.task_settings)))
            if isinstance(self.options, ClassificationSettings) and self.options.convention == "B":
                value = softened_divergence(student.logits, teacher.logits, self.options.temperature)
                terms.append(Term("S1", "prediction", CONVENTION_B, value))
            distances = self.distances(student, teacher, targets)
        return terms + [Term("S1", name, self.weights[name], value) for name, value in distances.items()]

    @torch.no_grad()
    def _teach(self, images: torch.Tensor) -> Output:
        """The teacher's output, without logits and shared map if its forward pass ends early."""
        if self.teacher_exit_layer is None:
            return _as_float32(self.networks["T"](images))
        features = self.networks["T"].features_until(self.teacher_exit_layer, images)
        features = {name: feature.float() for name, feature in features.items()}
        return Output(None, features, None)  # type: ignore[arg-type] # such a method uses features only

    def _check_tap(self, tap: str) -> None:
        for role, shapes in (("student", self.student_shapes), ("teacher", self.teacher_shapes)):
            if not shapes[tap][0]:
                raise TrainingError(f"tap '{tap}': the {role}'s encoder has no such stage. Choose another tap.")
        check_sizes(self.student_shapes[tap][1:], self.teacher_shapes[tap][1:])

    def channels(self, tap: str) -> tuple[int, int]:
        """The channels of student and teacher at a tap."""
        return self.student_shapes[tap][0], self.teacher_shapes[tap][0]


def softened_divergence(logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(teacher ‖ student), mean over the batch or, for segmentation, over all pixels.

    Parameters
    ----------
    logits : (B, 1, H, W), or (B, classes)
        the student's
    target : as `logits`
        the teacher's
    temperature
        T

    References
    ----------
    Hinton et al., 2015, arXiv 1503.02531
    """
    settings = PredictionLoss(
        temperature=temperature, direction="target||student", multiply_by_squared_temperature=True
    )
    return prediction_loss(logits, target, settings)


def two_channels(logits: torch.Tensor) -> torch.Tensor:
    """One logit z per pixel (B, 1, H, W) as two, [−z/2, z/2]: their softmax is [1 − σ(z), σ(z)].

    Raises TrainingError for more than one channel.
    """
    if logits.shape[1] != 1:
        raise TrainingError(f"expected one logit per pixel, not {logits.shape[1]} channels.")
    return torch.cat([-logits / 2, logits / 2], dim=1)


def attention(feature: torch.Tensor, power: float) -> torch.Tensor:
    """The attention map of a feature map (B, C, H, W): mean_c |f|^power as a unit vector per sample (B, H·W)."""
    return F.normalize(feature.abs().pow(power).mean(dim=1).flatten(1), dim=1)


def same_size(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pools the larger map to the size of the smaller one.

    Raises TrainingError if one is higher and the other wider.
    """
    student_size, teacher_size = _size(student), _size(teacher)
    check_sizes(student_size, teacher_size)
    if student_size > teacher_size:
        return F.adaptive_avg_pool2d(student, teacher_size), teacher
    if student_size < teacher_size:
        return student, F.adaptive_avg_pool2d(teacher, student_size)
    return student, teacher


def _size(feature: torch.Tensor) -> tuple[int, int]:
    _, _, height, width = feature.shape
    return height, width


def check_sizes(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    """Raises TrainingError if neither map can be pooled to the other."""
    if (student[0] - teacher[0]) * (student[1] - teacher[1]) < 0:
        raise TrainingError(
            f"feature maps of {student[0]}×{student[1]} and {teacher[0]}×{teacher[1]} cannot be matched by pooling. "
            "Choose another tap."
        )


def block(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU.

    Parameters
    ----------
    inputs, outputs
        channels
    kernel
        odd size of the convolution, which keeps the size of the map
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _as_float32(output: Output) -> Output:
    features = {name: feature.float() for name, feature in output.features.items()}
    return Output(output.logits.float(), features, output.shared.float())
