"""What the published methods of Table 10 share: a frozen teacher, one student, distances between the two."""

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
"""What a classifier pools."""
CONVENTION_B = 1.0
"""Weight of the prediction loss that convention B adds to a method of classification."""


class Comparison(Method):
    """A student S1 that learns from its task and from the study's trained teacher T.

    A subclass names its paper, its formula and its taps, builds its extra modules in `build_extras`, and returns its
    distances, unweighted and by name, from `distances`. Weights have the same names.
    """

    paper: ClassVar[str]
    equation: ClassVar[str]
    uses_labels: ClassVar[bool] = True
    options: MethodSettings
    """Each subclass names its own."""

    frozen = ("T",)
    taught_until: str | None = None
    """A tap after which the method asks nothing of the teacher, neither features nor logits: its pass ends there."""

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
        if batch_size < options.least_batch:
            name = type(self).__module__.rpartition(".")[2]
            raise TrainingError(
                f"{name}: looks at the images of a batch together; training.batch_size must be {options.least_batch} "
                f"or more, not {batch_size}."
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
        """The taps of teacher and student alike."""
        if hasattr(options, "taps"):
            return options.taps
        return (options.tap,) if hasattr(options, "tap") else (LAST_MAP,)

    def build_extras(self, image_size: int) -> None:
        """Registers the modules that the method trains besides the student."""

    @abstractmethod
    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every term of the method, unweighted. All that comes in is float32; the teacher's is detached."""

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        teacher = self._taught(images)
        student = _exact(self.networks["S1"](images))
        with torch.autocast(images.device.type, enabled=False):  # Gram matrices and fourth powers overflow in halves
            terms = []
            if self.uses_labels:
                terms.append(Term("S1", "task", 1.0, task_loss(student.logits, targets, self.task_settings)))
            if isinstance(self.options, ClassificationSettings) and self.options.convention == "B":
                value = softened_divergence(student.logits, teacher.logits, self.options.temperature)
                terms.append(Term("S1", "prediction", CONVENTION_B, value))
            distances = self.distances(student, teacher, targets)
        return terms + [Term("S1", name, self.weights[name], value) for name, value in distances.items()]

    @torch.no_grad()
    def _taught(self, images: torch.Tensor) -> Output:
        """What the teacher says; without logits and shared map where its pass ends before them."""
        if self.taught_until is None:
            return _exact(self.networks["T"](images))
        features = self.networks["T"].features_until(self.taught_until, images)
        exact = {name: feature.float() for name, feature in features.items()}
        return Output(None, exact, None)  # type: ignore[arg-type] # such a method asks for features alone

    def _check_tap(self, tap: str) -> None:
        for role, shapes in (("student", self.student_shapes), ("teacher", self.teacher_shapes)):
            if not shapes[tap][0]:
                raise TrainingError(f"tap '{tap}': the {role}'s encoder has no such stage. Choose another tap.")
        check_sizes(self.student_shapes[tap][1:], self.teacher_shapes[tap][1:])

    def channels(self, tap: str) -> tuple[int, int]:
        """The student's and the teacher's width at a tap."""
        return self.student_shapes[tap][0], self.teacher_shapes[tap][0]


def softened_divergence(logits: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(teacher ‖ student), mean over the batch or, of masks, over the pixels (Hinton et al., 2015)."""
    settings = PredictionLoss(
        temperature=temperature, direction="target||student", multiply_by_squared_temperature=True
    )
    return prediction_loss(logits, target, settings)


def two_channels(logits: torch.Tensor) -> torch.Tensor:
    """The one logit z of a pixel (B, 1, H, W) as two, [−z/2, z/2], of which a softmax gives [1 − σ(z), σ(z)].

    Raises TrainingError for more than one channel, which are two already.
    """
    if logits.shape[1] != 1:
        raise TrainingError(f"expected one logit a pixel, not {logits.shape[1]} channels.")
    return torch.cat([-logits / 2, logits / 2], dim=1)


def attention(feature: torch.Tensor, power: float) -> torch.Tensor:
    """Where a map (B, C, H, W) is active: mean_c |f|^power, a vector of length 1 per sample (B, H·W)."""
    return F.normalize(feature.abs().pow(power).mean(dim=1).flatten(1), dim=1)


def same_size(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps at the size of the smaller one, by average pooling.

    Raises TrainingError if one is higher and the other wider.
    """
    ours, theirs = _size(student), _size(teacher)
    check_sizes(ours, theirs)
    if ours > theirs:
        return F.adaptive_avg_pool2d(student, theirs), teacher
    if ours < theirs:
        return student, F.adaptive_avg_pool2d(teacher, ours)
    return student, teacher


def _size(feature: torch.Tensor) -> tuple[int, int]:
    _, _, height, width = feature.shape
    return height, width


def check_sizes(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    """Raises TrainingError if neither map can be pooled to the other."""
    if (student[0] - teacher[0]) * (student[1] - teacher[1]) < 0:
        raise TrainingError(
            f"feature maps of {student[0]}×{student[1]} and {teacher[0]}×{teacher[1]} cannot be matched: pooling makes "
            "them only smaller. Choose another tap."
        )


def block(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _exact(output: Output) -> Output:
    features = {name: feature.float() for name, feature in output.features.items()}
    return Output(output.logits.float(), features, output.shared.float())
