"""The settings of the published methods of Table 10, with their reference defaults.

The paper prints none of them. The defaults are those of public reference code, the authors' or CIRKD's, on one scale:
a prediction loss is a mean over the batch or the pixels, times T². Which code, and what differs, is in docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from classroom.section import Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Taps = Annotated[tuple[str, ...], Field(min_length=1)]

STAGES = ("layer1", "layer2", "layer3", "layer4")
SHARED_BLOCK = "decoder.blocks.0"
"""What the paper's own methods share in segmentation: the U-Net's first decoder block."""


class MethodSettings(Section):
    """The options of a method."""

    min_batch: ClassVar[int] = 1
    """The smallest batch that the method works with."""


class ClassificationSettings(MethodSettings):
    """The options of every classification method."""

    convention: Literal["A", "B"] = Field(
        "A", description="A: the task's loss and the method's own; B: also a prediction loss of weight 1"
    )
    temperature: Positive = Field(4.0, description="of convention B's prediction loss")


class SegmentationSettings(MethodSettings):
    """The options of every segmentation method."""

    temperature: Positive = Field(1.0, description="of its prediction loss")


class FitNetClassification(ClassificationSettings):
    tap: str = Field("layer2", description="the hint")
    two_stage: bool = Field(
        False, description="the hint alone in the first half of the epochs, everything else in the second, as in 2015"
    )


class ATClassification(ClassificationSettings):
    taps: Taps = STAGES
    power: Positive = Field(2.0, description="of the activations")


class SPClassification(ClassificationSettings):
    min_batch = 2  # it compares the images of a batch

    tap: str = "layer4"


class VIDClassification(ClassificationSettings):
    taps: Taps = STAGES
    initial_variance: Positive = 5.0
    least_variance: Positive = 1e-5

    @model_validator(mode="after")
    def _starts_above_least_variance(self) -> VIDClassification:
        if self.initial_variance <= self.least_variance:
            raise ValueError(
                f"initial_variance must be above least_variance, not {self.initial_variance:g} and "
                f"{self.least_variance:g}"
            )
        return self


class SimKDClassification(MethodSettings):
    reduction: Literal[2, 4, 8] = Field(2, description="the projector's bottleneck is so many times narrower")

    @field_validator("reduction", mode="before")
    @classmethod
    def _whole(cls, reduction: Any) -> Any:
        if isinstance(reduction, float):  # a Literal takes 2.0 for 2, even if strict
            raise ValueError(f"should be 2, 4 or 8, not {reduction}")
        return reduction


class SRRLClassification(ClassificationSettings):
    pass


class SemCKDClassification(ClassificationSettings):
    min_batch = 8  # the width of its attention's input; a quarter of it is the output's

    convention: Literal["A", "B"] = "B"
    taps: Taps = STAGES
    mid_ratio: Positive = Field(
        0.25, description="width inside a regressor ÷ the teacher's; 2 as published, 854 M parameters with a ResNet50"
    )
    sharpness: Positive = Field(1.0, description="divides the similarity of query and key")


class Adversary(Section):
    """The discriminator between the student's and the teacher's logit maps."""

    form: Literal["wgan-gp", "hinge"] = "wgan-gp"
    gradient_penalty: Weight = 10.0
    weight: Positive = Field(default=0.1, description="of its own loss")
    learning_rate: Positive = Field(default=4e-4, description="of its Adam, betas 0.9 and 0.99")


class FitNetSegmentation(SegmentationSettings):
    tap: str = SHARED_BLOCK


class ATSegmentation(SegmentationSettings):
    taps: Taps = (SHARED_BLOCK,)
    power: Positive = Field(2.0, description="of the activations")


class SKDSegmentation(SegmentationSettings):
    tap: str = SHARED_BLOCK
    pool: int = Field(2, ge=1, description="kernel of the pooling before pixels are compared in pairs")
    adversarial: bool = True
    adversary: Adversary = Adversary()


class IFVDSegmentation(SegmentationSettings):
    tap: str = SHARED_BLOCK
    adversarial: bool = True
    adversary: Adversary = Adversary()


class CWDSegmentation(MethodSettings):
    temperature: Positive = Field(4.0, description="of the distributions over positions")
    tap: str = SHARED_BLOCK


class DSDSegmentation(MethodSettings):
    temperature: Positive = Field(4.0, description="of the distributions over positions")
    taps: Annotated[tuple[str, ...], Field(min_length=2)] = tuple(f"decoder.blocks.{block}" for block in range(3))
    category_size: int = Field(32, ge=1, description="logit maps are pooled to this size before they are compared")


class EMKDSegmentation(SegmentationSettings):
    temperature: Positive = Field(4.0, description="of its prediction loss")
    low: str = Field("stem", description="the tap of low-level features")
    high: str = Field("layer2", description="the tap of high-level features")
    power: Positive = Field(4.0, description="of the activations")


class MethodWeights(Section):
    """The weight of every loss term of a method, by the term's name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Weight]

    tuned: bool = Field(False, description="chosen on validation, by `tune`")

    @property
    def terms(self) -> dict[str, float]:
        return dict(self.model_extra or {})


REFERENCE_WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "classification": {
        "fitnet": {"feature": 100.0},
        "srrl": {"feature": 1.0, "regression": 1.0},
        "at": {"attention": 1000.0},
        "sp": {"similarity": 3000.0},
        "vid": {"information": 1.0},
        "simkd": {"feature": 1.0},
        "semckd": {"feature": 400.0},
    },
    "segmentation": {
        "fitnet": {"feature": 10.0, "prediction": 1.0},
        "at": {"attention": 10_000.0, "prediction": 1.0},
        "skd": {"prediction": 1.0, "pair": 10.0, "adversarial": 0.001},
        "ifvd": {"prediction": 1.0, "variation": 20.0, "adversarial": 0.001},
        "cwd": {"logits": 3.0, "feature": 50.0},
        "dsd": {"pixel": 1000.0, "category": 10.0},
        "emkd": {"prediction": 0.1, "importance": 0.9, "affinity": 0.9},
    },
}


SETTINGS: dict[str, dict[str, type[MethodSettings]]] = {
    "classification": {
        "fitnet": FitNetClassification,
        "srrl": SRRLClassification,
        "at": ATClassification,
        "sp": SPClassification,
        "vid": VIDClassification,
        "simkd": SimKDClassification,
        "semckd": SemCKDClassification,
    },
    "segmentation": {
        "fitnet": FitNetSegmentation,
        "at": ATSegmentation,
        "skd": SKDSegmentation,
        "ifvd": IFVDSegmentation,
        "cwd": CWDSegmentation,
        "dsd": DSDSegmentation,
        "emkd": EMKDSegmentation,
    },
}
"""The settings of every method by task, in the order of Table 10."""
METHODS: dict[str, tuple[str, ...]] = {task: tuple(of) for task, of in SETTINGS.items()}
COMPARISON_METHODS = tuple(dict.fromkeys(name for names in METHODS.values() for name in names))


def settings_type(task: str, method: str) -> type[MethodSettings]:
    """The type of a method's options."""
    return SETTINGS[task][method]


def reference(task: str, method: str) -> MethodSettings:
    """The method's settings as its reference code has them."""
    return settings_type(task, method)()


def wrong_terms(task: str, method: str, weights: Iterable[str]) -> str:
    """The mistake in the names of a method's weights; empty if there is none."""
    expected, given = REFERENCE_WEIGHTS[task][method], list(weights)
    if set(given) == set(expected):
        return ""
    return f"expected weights of {', '.join(expected)}, not of {', '.join(given) or 'none'}"


def non_default_options(task: str, method: str, settings: dict[str, Any], weights: dict[str, float]) -> list[str]:
    """What differs from the reference, such as `tap layer3`, `adversary form hinge` or `weight feature 30`."""
    usual = _flat(reference(task, method).model_dump(mode="json"))
    changed = [f"{key} {in_words(value)}" for key, value in _flat(settings).items() if value != usual[key]]
    expected = REFERENCE_WEIGHTS[task][method]
    return changed + [f"weight {term} {value:g}" for term, value in weights.items() if value != expected[term]]


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
