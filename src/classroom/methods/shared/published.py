"""The base of the published methods: what is known of a method, its settings, its losses.

Every command reads the methods' files to validate settings, and few need torch, which takes a second to load. So these
files import torch for type checkers only; what they call from `tensors` loads it, and so do their own functions where
they need more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from classroom.methods.shared.tensors import softened_divergence
from classroom.section import Section

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Tap = Annotated[str, Field(description="Layer whose feature map is compared: `stem`, `layer1`, …, or a module's path.")]
Taps = Annotated[
    tuple[str, ...],
    Field(min_length=1, description="Layers whose feature maps are compared: `stem`, `layer1`, …, or modules' paths."),
]
Convention = Annotated[
    Literal["A", "B"],
    Field(description="`A`: the task loss and the method's own. `B`: also a prediction loss of weight 1."),
]

STAGES = ("layer1", "layer2", "layer3", "layer4")
LAST_MAP = "layer4"
"""The tap of a classifier's last map, before pooling."""
SHARED_BLOCK = "decoder.blocks.0"
"""What the paper's own methods share in segmentation: the U-Net's first decoder block."""


class Published(Section):
    """A published method of one task: a student S1 learns from its task and from the study's trained teacher T, frozen.

    The loss is `task + Σ weight · term`. A subclass states what it is, has a field for each setting with the reference
    code's value as its default, and returns its terms from `losses`. `METHOD` at the end of its file says for which
    task it is.
    """

    label: ClassVar[str]
    """Its name in tables."""
    paper: ClassVar[str]
    formula: ClassVar[str]
    """Of its terms, in one line."""
    weights: ClassVar[dict[str, float]]
    """The weight of every term that `losses` returns, as in the reference code."""
    shown: ClassVar[tuple[str, ...]] = ()
    """Settings that Table 10 shows even at their default, as another value would make another method."""
    min_batch: ClassVar[int] = 1
    """The smallest batch that it works with."""
    uses_labels: ClassVar[bool] = True
    """Whether the task's loss is part of the loss."""

    def tapped(self) -> Sequence[str]:
        """The taps whose feature maps `losses` needs of both networks: those of the settings `taps` or `tap`."""
        return getattr(self, "taps", None) or ((self.tap,) if hasattr(self, "tap") else ())

    def teacher_exit_layer(self) -> str | None:
        """The last tap of the teacher that it needs; its forward pass ends there. None: it needs the logits."""
        return None

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        """Modules that are trained in addition to the student; `losses` finds them as attributes of `model`.

        Parameters
        ----------
        model
            has `networks`, `channels(tap)`, `student_shapes[tap]`, `teacher_shapes[tap]`, `image_size`, `batch_size`
        """
        return {}

    @abstractmethod
    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        """The unweighted terms by name.

        Parameters
        ----------
        model
            holds the networks and the extra modules
        student, teacher
            `logits`, and `features` by tap, in float32; the teacher's are detached
        targets : (B, 1, H, W) of {0, 1}, or classes (B,)
        """

    def terms_of(self, epoch: int, epochs: int) -> Sequence[str] | None:
        """The terms that are learnt in an epoch (from 0); None for all."""
        return None

    def after_step(self, model: Comparison) -> None:
        """Called after the optimiser's step, for modules with their own optimiser."""

    def notes(self, model: Comparison, targets: Tensor) -> list[str]:
        """Sentences for log, tables and cards, such as limitations on these training targets (a sample)."""
        return []

    @classmethod
    def wrong_terms(cls, weights: Iterable[str]) -> str:
        """The mistake in the names of the weights; empty if there is none."""
        given = list(weights)
        if set(given) == set(cls.weights):
            return ""
        return f"expected weights of {', '.join(cls.weights)}, not of {', '.join(given) or 'none'}"

    def differences(self, weights: Mapping[str, float]) -> list[str]:
        """What differs from the reference, such as `tap layer3`, `adversary form hinge` or `weight feature 30`."""
        usual, settings = (_flat(one.model_dump(mode="json")) for one in (type(self)(), self))
        changed = [f"{key} {in_words(value)}" for key, value in settings.items() if value != usual[key]]
        return changed + [f"weight {term} {value:g}" for term, value in weights.items() if value != self.weights[term]]


class Classification(Published):
    """A method of classification, in one of the two conventions that are in use."""

    shown: ClassVar[tuple[str, ...]] = ("convention",)

    convention: Convention = "A"
    temperature: Positive = Field(4.0, description="Temperature of convention B's prediction loss.")


class Segmentation(Published):
    """A method of segmentation with a prediction loss among its terms."""

    temperature: Positive = Field(1.0, description="Temperature of the prediction loss.")

    def prediction(self, student: Output, teacher: Output) -> Tensor:
        """KL divergence per pixel at the method's temperature."""
        return softened_divergence(student.logits, teacher.logits, self.temperature)


def in_words(value: Any) -> str:
    """A setting's value as text."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {in_words(part)}" for key, part in value.items()) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """`{a: {b: 1}}` as `{"a b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key} {part}": v for part, v in _flat(value).items()} if isinstance(value, dict) else {key: value}
    return flat
