"""The settings: what params.yaml may hold, and how a command reads its share of it.

`params.yaml` is the one place for settings in force. `Params` is its complete type; `select` hands a command
only the keys that its stage declares in dvc.yaml, so that a changed key reruns exactly the stages that read it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML, YAMLError

from classroom.errors import ParamsError, suggestion

Technique = Literal["ml", "kd_off", "kd_on", "kd_ml"]
Strategy = Literal["v1", "v2", "v3"]
TECHNIQUES: tuple[str, ...] = get_args(Technique)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
VARIANTS: tuple[str, ...] = tuple(f"{t}-{s}" for t in TECHNIQUES for s in STRATEGIES)
BASELINES: tuple[str, ...] = ("teacher", "student")
"""The methods that train one network alone (Tables 2 and 13)."""

Task = Literal["segmentation"]
Scale = Literal["demo", "small", "paper"]
Fraction = Annotated[float, Field(ge=0, le=1)]

NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")


class Section(BaseModel):
    """A block of params.yaml: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Phantom(Section):
    """Synthetic LGG-like slices; see `classroom.data.phantom`."""

    patients: int = Field(ge=1, description="how many synthetic patients")
    slices: int = Field(ge=1, description="slices per patient")
    size: int = Field(ge=32, description="height and width of a slice, pixels")
    seed: int = Field(ge=0, description="seed of everything that is drawn")


class Dataset(Section):
    """Where a dataset comes from and in which layout it lies."""

    reader: Literal["lgg"] = Field(description="the layout of the folder: a module of classroom.data.readers")
    source: Literal["phantom", "directory", "kaggle"] = Field(description="which of the three below is used")
    directory: str = Field(description="source directory: the folder in the layout of the original download")
    kaggle: str = Field(description="source kaggle: owner/name of the dataset on Kaggle")
    phantom: Phantom = Field(description="source phantom: the synthetic stand-in")


class Split(Section):
    """Training, validation and test (75:10:15 in the paper)."""

    percent: tuple[int, int, int] = Field(description="training, validation, test; sums to 100")
    by: Literal["image", "group"] = Field(description="what never crosses splits: an image, or a whole patient")
    seed: int = Field(ge=0, description="seed of the shuffle")

    @field_validator("percent")
    @classmethod
    def _sums_to_100(cls, percent: tuple[int, int, int]) -> tuple[int, int, int]:
        if sum(percent) != 100 or min(percent) < 1:
            raise ValueError(f"three whole percentages of at least 1 that sum to 100, not {list(percent)}")
        return percent


class Network(Section):
    """A network: an encoder by name, and where its weights come from."""

    encoder: str = Field(description="any encoder of segmentation-models-pytorch; `tu-NAME` for any of timm")
    encoder_options: dict[str, Any] = Field(description="passed on to timm (`tu-` encoders), e.g. thinner channels")
    decoder_channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=5, max_length=5, description="widths of the U-Net's five decoder blocks"
    )
    weights: str = Field(description="`hub` (ImageNet), `random`, or the path of a .safetensors file")


class Study(Section):
    """One dataset, one task and one teacher/student pair: one table of twelve variants."""

    dataset: str
    task: Task
    image_size: int = Field(ge=32, multiple_of=32, description="height and width the networks see, pixels")
    split: Split
    teacher: Network
    student: Network

    @model_validator(mode="after")
    def _features_can_be_compared(self) -> Study:
        if self.teacher.decoder_channels[0] != self.student.decoder_channels[0]:
            raise ValueError(
                "teacher and student share the first decoder block's feature map, so decoder_channels must start "
                f"alike: {self.teacher.decoder_channels[0]} and {self.student.decoder_channels[0]}"
            )
        return self


class StudentWeights(Section):
    """One student's L = alpha·task + beta·(from the teacher) + gamma·(from the peer)."""

    alpha: Fraction = 0.0
    beta: Fraction = 0.0
    gamma: Fraction = 0.0


class VariantWeights(Section):
    """The weights of both students in one variant (printed in brackets in the paper's tables)."""

    S1: StudentWeights
    S2: StudentWeights


class TaskLoss(Section):
    """Segmentation: focal + Dice, Eq. 8."""

    focal_gamma: float = Field(ge=0, allow_inf_nan=False, description="the focusing parameter, τ in Eq. 8")
    focal_form: Literal["binary", "printed"] = Field(
        description="`binary`: all pixels, mean; `printed`: foreground pixels only, as Eq. 8 is printed"
    )


class PredictionLoss(Section):
    """KL divergence of temperature-softened predictions, Eqs. 1, 3, 5."""

    temperature: float = Field(gt=0, allow_inf_nan=False)
    direction: Literal["student||target", "target||student"]
    multiply_by_squared_temperature: bool = Field(description="Hinton's T² factor; the paper writes none")


class Losses(Section):
    task: TaskLoss
    prediction: PredictionLoss


class Augmentation(Section):
    """Random geometry of training images; masks follow with nearest-neighbour sampling."""

    flip: Fraction = Field(description="probability of a horizontal flip, and of a vertical one")
    transpose: Fraction = Field(description="probability of a quarter turn (with the flips: every transpose)")
    affine: Fraction = Field(description="probability of rotation, shift and scale together")
    rotation_degrees: float = Field(ge=0, le=180)
    shift: Fraction = Field(description="largest shift as a fraction of the image's side")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(description="least, most")

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"the smallest and the largest scale, in this order, not {list(scale)}")
        return scale


class Training(Section):
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0, allow_inf_nan=False, description="of Adam")
    precision: Literal["fp32", "bf16"]
    threads: int = Field(ge=1, description="CPU threads per training; they change rounding, so they are a setting")


class Variants(Section):
    """Which of the twelve variants are trained."""

    joint: tuple[str, ...] = Field(description="every network learns together")
    offline: tuple[str, ...] = Field(description="they wait for the study's teacher baseline: kd_off")

    @field_validator("joint", "offline")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in VARIANTS:
                raise ValueError(f"unknown variant '{name}'.{suggestion(name, VARIANTS)}")
        if len(set(names)) != len(names):
            raise ValueError(f"a variant is listed twice in {list(names)}")
        return names

    @model_validator(mode="after")
    def _in_the_right_list(self) -> Variants:
        for name in self.joint:
            if name.startswith("kd_off-"):
                raise ValueError(f"'{name}' needs the pre-trained teacher: move it from joint to offline")
        for name in self.offline:
            if not name.startswith("kd_off-"):
                raise ValueError(f"'{name}' needs no pre-trained teacher: move it from offline to joint")
        return self


class Params(Section):
    """The whole of params.yaml."""

    scale: Scale = Field(description="the overlay these values came from; stated in every table")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    studies: tuple[str, ...] = Field(description="their variants are trained")
    baseline_studies: tuple[str, ...] = Field(description="their teacher and student are trained alone (Table 2)")
    variants: Variants
    tables: dict[str, str] = Field(description="a report and the study that it shows")
    samples: dict[str, str] = Field(description="pictures of predictions: a study and the variant that is shown")
    dataset: dict[str, Dataset]
    study: dict[str, Study]
    weights: dict[str, dict[str, VariantWeights]]
    losses: Losses
    augmentation: Augmentation
    training: Training

    @model_validator(mode="after")
    def _names_refer(self) -> Params:
        for kind, names in (("dataset", self.dataset), ("study", self.study)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind}.{name}: a name is lower-case letters, digits, '-' and '_'")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: each seed once, not {list(self.seeds)}")
        for key, names in (("studies", self.studies), ("baseline_studies", self.baseline_studies)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: each study once, not {list(names)}")
            for name in names:
                if name not in self.study:
                    raise ValueError(f"{key}: unknown study '{name}'.{suggestion(name, self.study)}")
        for name, study in self.study.items():
            if study.dataset not in self.dataset:
                raise ValueError(
                    f"study.{name}.dataset: unknown dataset '{study.dataset}'.{suggestion(study.dataset, self.dataset)}"
                )
        for table, study in self.tables.items():
            if not re.fullmatch(r"table\d+", table) or table == "table2":
                raise ValueError(f"tables.{table}: expected the name of one of the paper's tables of variants: table4")
            if study not in self.studies:
                raise ValueError(f"tables.{table}: '{study}' is not in studies.{suggestion(study, self.studies)}")
        trained = (*self.variants.joint, *self.variants.offline)
        for study, variant in self.samples.items():
            if study not in self.studies:
                raise ValueError(f"samples: '{study}' is not in studies.{suggestion(study, self.studies)}")
            if variant not in trained:
                raise ValueError(f"samples.{study}: '{variant}' is not in variants.{suggestion(variant, trained)}")
        for name in self.studies:
            if self.variants.offline and name not in self.baseline_studies:
                raise ValueError(
                    f"studies: kd_off of '{name}' needs its teacher, so list '{name}' in baseline_studies too"
                )
            for variant in trained:
                if variant not in self.weights.get(name, {}):
                    raise ValueError(f"weights.{name} lacks '{variant}', which variants lists")
        for name, variants in self.weights.items():
            if name not in self.study:
                raise ValueError(f"weights: unknown study '{name}'.{suggestion(name, self.study)}")
            for variant in variants:
                if variant not in VARIANTS:
                    raise ValueError(f"weights.{name}: unknown variant '{variant}'.{suggestion(variant, VARIANTS)}")
        return self


def load(path: Path) -> dict[str, Any]:
    """The raw mapping in the YAML file at `path`.

    Raises ParamsError if there is no such file or it is not a YAML mapping.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file. Commands run in the project's root, where params.yaml lies."
        ) from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: expected a mapping of settings, found {type(raw).__name__}.")
    return raw


def check(raw: Mapping[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Validates the whole file; warns of students' weights that do not sum to 1.

    Raises ParamsError naming the key, what was expected and, for a misspelt key, the likely one.
    """
    params: Params = _validated(Params, dict(raw), "", path)
    for study in params.studies:
        for variant in (*params.variants.joint, *params.variants.offline):
            warn_of_sum(params.weights[study][variant], f"weights.{study}.{variant}", path)
    return params


def warn_of_sum(weights: VariantWeights, where: str, path: Path = Path("params.yaml")) -> None:
    """Warns of a student whose alpha, beta and gamma do not sum to 1 (the paper's do, but for Table 9 ML V3)."""
    for student in ("S1", "S2"):
        w: StudentWeights = getattr(weights, student)
        total = w.alpha + w.beta + w.gamma
        if not math.isclose(total, 1, abs_tol=1e-6):
            warnings.warn(
                f"{path}: {where}.{student}: alpha + beta + gamma = {total:g}, not 1; kept as it stands",
                stacklevel=2,
            )


def select(raw: Mapping[str, Any], key: str, kind: Any, path: Path = Path("params.yaml")) -> Any:
    """The value at dotted `key`, validated as `kind` (a Section or any type pydantic knows).

    Raises ParamsError if the key is absent (with a suggestion) or its value does not fit.
    """
    value: Any = raw
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            above = ".".join(parts[:depth]) or "the top level"
            raise ParamsError(f"{path}: key '{key}' is missing at {above}.{suggestion(part, map(str, known))}")
        value = value[part]
    return _validated(kind, value, key, path)


def _validated(kind: Any, value: Any, prefix: str, path: Path) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParamsError(f"{path}: " + "; ".join(_sentence(e, kind, prefix) for e in error.errors())) from None


def _sentence(error: Any, kind: Any, prefix: str) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join([prefix, *location] if prefix else location)
    if error["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{suggestion(location[-1], _fields_at(kind, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    expected = error["msg"].removeprefix("Input ")
    return f"{key}: {expected}, not {error['input']!r}"


def _fields_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    for part in location:
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = kind.model_fields[part].annotation
        else:  # dict[str, X]
            kind = get_args(kind)[-1]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Section) else []
