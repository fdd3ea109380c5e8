"""Trains one of the published methods of Table 10: a frozen teacher, one student, distances between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from classroom.core.losses import task_loss
from classroom.core.method import Method, Term
from classroom.core.networks.build import Network, Output
from classroom.errors import TrainingError
from classroom.methods.shared.published import Classification, Published, in_words
from classroom.methods.shared.tensors import check_sizes, softened_divergence
from classroom.params import TaskLoss

CONVENTION_B = 1.0
"""Weight of the prediction loss that convention B adds to a method of classification."""


class Comparison(Method):
    """A student S1 that learns from its task and, by a published method, from the study's trained teacher T.

    It holds the networks and the method's extra modules; `options` is the method, with its settings.
    """

    frozen = ("T",)

    if TYPE_CHECKING:  # the extra modules

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        networks: dict[str, Network],
        options: Published,
        weights: dict[str, float],
        task: TaskLoss,
        image_size: int,
        batch_size: int,
    ) -> None:
        """Adds the method's extra modules to the networks.

        Parameters
        ----------
        networks
            S1 and T
        options
            the method, with its settings
        weights
            of its terms, by name
        task
            settings of the task loss
        image_size
            in pixels
        batch_size
            in images

        Raises
        ------
        TrainingError
            The sizes at a tap cannot be matched, or the batch is too small.
        """
        super().__init__(networks)
        self.options, self.weights, self.task_settings = options, weights, task
        self.image_size, self.batch_size = image_size, batch_size
        if batch_size < options.min_batch:
            name = type(options).__module__.rpartition(".")[2]
            raise TrainingError(
                f"{name}: compares the images of a batch; training.batch_size must be {options.min_batch} or more, "
                f"not {batch_size}."
            )
        self.student_shapes = networks["S1"].shapes(image_size)
        self.teacher_shapes = networks["T"].shapes(image_size)
        for tap in options.tapped():
            self._check_tap(tap)
        settings = options.model_dump(mode="json")
        self.settings = {
            "weights": dict(weights),
            "options": settings,
            "losses": {"task": task.model_dump(mode="json")},
            "published": {
                "label": options.label,
                "paper": options.paper,
                "differences": options.differences(weights),
                "shown": [f"{key} {in_words(settings[key])}" for key in options.shown],
            },
        }
        self.teacher_exit_layer = options.teacher_exit_layer()
        self._terms: Sequence[str] | None = None
        student = set(self.networks["S1"].parameters())
        for name, module in options.extras(self).items():
            self.add_module(name, module)
        added = set(self.networks["S1"].parameters()) - student
        self._added = sum(parameter.numel() for parameter in added if parameter.requires_grad)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Chooses the terms of this epoch."""
        self._terms = self.options.terms_of(epoch, epochs)

    def first_stage(self, epochs: int) -> int:
        """Of `epochs`, how many at the start are without the task's term."""
        terms = (self.options.terms_of(epoch, epochs) for epoch in range(epochs))
        return next((epoch for epoch, names in enumerate(terms) if names is None or "task" in names), epochs)

    def after_step(self) -> None:
        """Trains modules with an optimiser of their own, such as a discriminator."""
        self.options.after_step(self)

    def notes(self, targets: torch.Tensor) -> list[str]:
        """The method's limitations on these training targets."""
        return self.options.notes(self, targets)

    @property
    def extra_parameters(self) -> int:
        """Those that a method adds to the student itself count, too."""
        return super().extra_parameters + self._added

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        """The student's terms in this epoch: of its task, of convention B, of the method."""
        teacher = self._teach(images)
        student = _as_float32(self.networks["S1"](images))
        with torch.autocast(
            "cpu" if images.is_meta else images.device.type, enabled=False
        ):  # Gram matrices and fourth powers overflow in bfloat16
            terms = []
            if self.options.uses_labels:
                terms.append(Term("S1", "task", 1.0, task_loss(student.logits, targets, self.task_settings)))
            if isinstance(self.options, Classification) and self.options.convention == "B":
                value = softened_divergence(student.logits, teacher.logits, self.options.temperature)
                terms.append(Term("S1", "prediction", CONVENTION_B, value))
            distances = self.distances(student, teacher, targets)
            self._check_terms(distances)
        terms += [Term("S1", name, self.weights[name], value) for name, value in distances.items()]
        return [term for term in terms if self._terms is None or term.name in self._terms]

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The method's unweighted terms by name: `Published.losses`.

        Parameters
        ----------
        student, teacher
            outputs for one batch, in float32
        targets : (B, 1, H, W), or (B,)
            masks or classes
        """
        return self.options.losses(self, student, teacher, targets)

    def _check_terms(self, distances: dict[str, torch.Tensor]) -> None:
        """Raises TrainingError if a method's file returns other terms than it has weights for, or no scalars.

        An option of a term's name that is `false` turns the term off.
        """
        wrong = []
        if set(distances) != {name for name in self.weights if getattr(self.options, name, True)}:
            wrong.append(
                f"returns the terms {', '.join(distances) or 'none'}, and weights names "
                f"{', '.join(self.weights) or 'none'}: use the same names in both"
            )
        wrong += [
            f"returns the term {name} with shape {tuple(value.shape)}, not a scalar: return its mean or sum"
            for name, value in distances.items()
            if value.numel() != 1
        ]
        if wrong:
            raise TrainingError(
                f"{type(self.options).__name__}.losses in {_file(self.options)} {'; and '.join(wrong)}."
            )

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


def _file(options: Published) -> str:
    return f"src/{type(options).__module__.replace('.', '/')}.py"


def _as_float32(output: Output) -> Output:
    features = {name: feature.float() for name, feature in output.features.items()}
    return Output(output.logits.float(), features, output.shared.float())
