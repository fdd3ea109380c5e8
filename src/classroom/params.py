"""The settings: the types of their files, and how a command reads the keys that it needs.

params.yaml holds what is common to all studies, studies/<study>.yaml one study, datasets/<dataset>.yaml one dataset.
`load` puts them together: a study's file becomes `study.<name>`, a dataset's `dataset.<name>`. `Params` is the type
of the whole; `select` hands a command only the keys that its stage declares in dvc.yaml, so that a changed key reruns
exactly the stages that read it.
"""

from __future__ import annotations

import functools
import math
import re
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from classroom.errors import ParamsError, suggestion
from classroom.section import Section

T = TypeVar("T")
Items = TypeVar("Items", bound=tuple[Any, ...])

Technique = Literal["ml", "kd_off", "kd_on", "kd_ml"]
Strategy = Literal["v1", "v2", "v3"]
TECHNIQUES: tuple[str, ...] = get_args(Technique)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
VARIANTS: tuple[str, ...] = tuple(f"{t}-{s}" for t in TECHNIQUES for s in STRATEGIES)
BASELINES: tuple[str, ...] = ("teacher", "student")
"""The methods that train one network alone (Tables 2 and 13)."""
FIXED_REPORTS: tuple[str, ...] = ("table1", "table5", "cost", "deploy", "index")
"""Reports that belong to no study."""
SHARED_REPORTS = ("baselines", "comparison")
"""Kinds of reports that several studies may share."""

Task = Literal["classification", "segmentation"]
TASKS: tuple[str, ...] = get_args(Task)
PictureKind = Literal["all_variants", "diverse", "ensembles", "kd_ml"]
"""A segmentation study's hardest test images with both students of every variant (Figure 4), both students of every
technique's V3 (5), the outlines of every technique's V3 ensemble (7), both students of KD + ML's strategies (9)."""
Scale = Literal["demo", "small", "paper"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=999_999_999)]
Factor = Annotated[
    float, Field(gt=0, allow_inf_nan=False), WrapValidator(lambda value, check: (check(value), value)[1])
]
"""Kept as written, 10 or 10.0: both engines name a folder after it."""


def _each_once(values: Items) -> Items:
    if len(set(values)) != len(values):
        raise ValueError(f"expected each value once, not {list(values)}")
    return values


def _of_kind(names: tuple[str, ...], offline: bool) -> tuple[str, ...]:
    for name in names:
        if name not in VARIANTS:
            raise ValueError(f"unknown variant '{name}'.{suggestion(name, VARIANTS)}")
        if name.startswith("kd_off-") and not offline:
            raise ValueError(f"'{name}' needs the pretrained teacher: move it from joint to offline")
        if offline and not name.startswith("kd_off-"):
            raise ValueError(f"'{name}' needs no pretrained teacher: move it from offline to joint")
    return _each_once(names)


Names = Annotated[tuple[str, ...], AfterValidator(_each_once)]
Joint = Annotated[tuple[str, ...], AfterValidator(functools.partial(_of_kind, offline=False))]
Offline = Annotated[tuple[str, ...], AfterValidator(functools.partial(_of_kind, offline=True))]
Points = Annotated[tuple[Inside, ...], Field(min_length=1), AfterValidator(_each_once)]

MAX_NAME = 100
"""Letters of a name, which becomes part of longer names of files."""
NAME_RULE = (
    f"a name has lower-case letters, digits, '-' and '_', at most {MAX_NAME} characters, and is nothing that YAML "
    "reads as a number, a date or a boolean"
)

FOLDERS = {"studies": "study", "datasets": "dataset"}
"""By folder, the block of the settings that holds its files by name."""

MAX_VALUES = 100_000
"""Values that a settings file may hold, counting what aliases repeat; ours holds 1,500."""
MAX_MISTAKES = 10
"""Mistakes that one error message names."""


def readers() -> list[str]:
    """The names of all readers: every module of classroom.data.readers is one."""
    return sorted(path.stem for path in (Path(__file__).parent / "data/readers").glob("[a-z]*.py"))


class Synthetic(Section):
    """Synthetic images in the layout of a dataset; see `classroom.data.synthetic`."""

    groups: int = Field(ge=1, description="Number of synthetic patients, slides or lesions.")
    images_per_group: int = Field(ge=1, description="Images per group; for lesions, the maximum.")
    size: int = Field(ge=32, description="Height and width of an image, in pixels.")
    seed: Seed = Field(description="Random seed of the images.")


class Download(Section):
    """One file on the web."""

    url: str = Field(description="Address of the file.")
    checksum: str = Field(
        pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$",
        description="Expected hash of the file; `classroom fetch` refuses a file with another.",
    )


MaskValue = (
    Annotated[int, Field(ge=0, le=65535)] | Annotated[str, Field(pattern=r"^(\d{1,5}-\d{1,5}|#[0-9a-fA-F]{6})$")]
)


class Dataset(Section):
    """datasets/<dataset>.yaml: where a dataset comes from, and the layout of its files."""

    reader: str = Field(description="Layout of the folder: the name of a reader.")
    source: Literal["synthetic", "directory", "kaggle", "download"] = Field(
        description="Where the images come from. The key of the same name has the details."
    )
    directory: str = Field("", description="For `source: directory`: the folder with the files.")
    kaggle: tuple[str, ...] = Field(
        (), description="For `source: kaggle`: `owner/name` of each dataset, or `competitions/name`."
    )
    download: tuple[Download, ...] = Field((), description="For `source: download`: the files on the web.")
    synthetic: Synthetic | None = Field(None, description="For `source: synthetic`: the images to generate.")
    foreground: tuple[MaskValue, ...] | None = Field(
        None,
        description="Mask values that are foreground: numbers, ranges such as '128-255', or colours such as '#ff0000'. "
        "All other values are background. Required if masks have more than two values. null: the brighter of two.",
    )
    subset: Annotated[int, Field(ge=2)] | None = Field(
        None, description="Number of images in a random subset with equally many of each class; null keeps all images."
    )
    subset_seed: Seed = Field(0, description="Seed of the random subset.")
    full_size: int = Field(
        ge=1, description="Number of images in the complete original; `classroom forecast` needs it."
    )
    ignore: tuple[str, ...] = Field(
        (),
        description="Files that do not belong to the dataset, by name or by path in its folder; `*` matches any text.",
    )
    images: str = Field(
        "", description="For `reader: folders`: the subfolder with the images; empty for the folder itself."
    )
    masks: str = Field(
        "",
        description="For `reader: folders`: the subfolder with the masks; empty if there is a folder for each class.",
    )
    table: str = Field(
        "",
        description="For `reader: table`: a CSV or Parquet file in the folder. Columns: image; label, mask or both; "
        "optionally group and split (train, val, test).",
    )
    classes: Annotated[tuple[str, ...], Field(max_length=256)] = Field(
        (), description="For the readers folders and table: the names of the classes, in order."
    )
    group: str = Field(
        "",
        description="For the readers folders and table: a regular expression that finds the patient in an image's "
        "path. If it contains a group in parentheses, that group is the patient.",
    )
    missing_masks: Literal["refuse", "empty"] = Field(
        "refuse",
        description="For the readers folders and table: `refuse` images without a mask, or treat the mask as `empty`.",
    )
    origin: str = Field("", description="Where the images come from; model cards print it.")
    licence: str = Field("", description="Licence of the images; model cards print it.")
    citation: str = Field("", description="What to cite; model cards print it.")

    @field_validator("reader")
    @classmethod
    def _is_a_module(cls, name: str) -> str:
        if name not in (known := readers()):
            raise ValueError(f"unknown reader '{name}'.{suggestion(name, known)}")
        return name

    @field_validator("group")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a valid regular expression: {error}") from None
        return pattern

    @field_validator("images", "masks", "table")
    @classmethod
    def _is_inside(cls, text: str) -> str:
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path in the dataset's folder, not '{text}'")
        return text

    @model_validator(mode="after")
    def _has_its_source(self) -> Dataset:
        if not getattr(self, self.source):
            raise ValueError(f"source is '{self.source}', so '{self.source}' must be given")
        return self

    @property
    def size(self) -> tuple[int, str]:
        """The number of images as the settings have it, without `subset`, and the key that says so."""
        if self.source == "synthetic":
            assert self.synthetic is not None  # validated above
            return self.synthetic.groups * self.synthetic.images_per_group, "synthetic"
        return self.full_size, "full_size"


class Split(Section):
    """Training, validation and test (75:10:15 in the paper)."""

    percent: tuple[int, int, int] = Field(description="Percentages of training, validation and test; they sum to 100.")
    by: Literal["image", "group", "given"] = Field(
        description="Unit that is assigned to a split: a single `image`, or a `group`, which is all images of a "
        "patient. `given` takes the splits of the dataset's table and ignores `percent` and `seed`."
    )
    seed: Seed = Field(description="Seed of the random assignment.")

    @field_validator("percent")
    @classmethod
    def _sums_to_100(cls, percent: tuple[int, int, int]) -> tuple[int, int, int]:
        if sum(percent) != 100 or min(percent) < 1:
            raise ValueError(f"expected three whole percentages of at least 1 that sum to 100, not {list(percent)}")
        return percent


LOADING = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
"""Options of timm's that load weights."""


class Network(Section):
    """A network: an encoder by name, its decoder or extra block, and where its weights come from."""

    encoder: str = Field(
        description="For classification any timm model; for segmentation any encoder of "
        "segmentation-models-pytorch, which calls timm's models `tu-NAME`."
    )
    encoder_options: dict[str, Any] = Field(
        description="Options passed to timm, such as narrower channels; {} for none."
    )
    decoder_channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=5, max_length=5)] | None = (
        Field(None, description="For segmentation: widths of the U-Net's five decoder blocks.")
    )
    conv6_channels: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="For classification: channels of an extra 1×1 convolution block after the last feature map (Conv6 "
        "in Table 6), which matches the teacher's width to its students'; null for none.",
    )
    weights: str = Field(description="Initial weights: `hub` (ImageNet), `random`, or the path of a .safetensors file.")

    @field_validator("encoder_options")
    @classmethod
    def _load_nothing(cls, options: dict[str, Any]) -> dict[str, Any]:
        """timm's checkpoints are pickles, which only timm keeps from running code."""
        if loading := LOADING & options.keys():
            raise ValueError(f"{', '.join(sorted(loading))}: not allowed here, as only the key `weights` loads weights")
        return options

    @field_validator("weights")
    @classmethod
    def _is_a_source(cls, weights: str) -> str:
        if weights not in ("hub", "random") and "/" not in weights and not weights.endswith(".safetensors"):
            raise ValueError(f"expected hub (ImageNet), random, or the path of a .safetensors file, not '{weights}'")
        return weights

    @property
    def file(self) -> Path | None:
        """The file that the weights come from, if they do."""
        return None if self.weights in ("hub", "random") else Path(self.weights).expanduser()


class StudentWeights(Section):
    """One student's L = alpha·task + beta·(from the teacher) + gamma·(from the peer)."""

    alpha: Fraction = Field(0.0, description="Weight of the task loss.")
    beta: Fraction = Field(0.0, description="Weight of distillation from the teacher.")
    gamma: Fraction = Field(0.0, description="Weight of mutual learning with the other student.")


class VariantWeights(Section):
    """The weights of both students in one variant (printed in brackets in the paper's tables)."""

    S1: StudentWeights = Field(description="Weights of student S1; the paper's sum to 1.")
    S2: StudentWeights = Field(description="Weights of student S2; the paper's sum to 1.")


class MethodWeights(Section):
    """The weight of every loss term of a method, by the term's name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]

    tuned: bool = Field(False, description="Whether a search on validation chose these weights. Its overlay sets this.")

    @property
    def terms(self) -> dict[str, float]:
        return dict(self.model_extra or {})


class PublishedMethod(Section):
    """A published method in one study."""

    options: dict[str, Any] = Field(
        description="Options that differ from the defaults; {} for none. `classroom methods` lists the keys."
    )
    weights: MethodWeights = Field(description="Weight of every loss term: L = task + Σ weight · term.")


class Resplit(Section):
    """The study that this one repeats with another split of its images, and the report that compares both."""

    of: str = Field(description="Name of the original study.")
    report: str = Field(description="Name of the report that compares both splits.")


class Reports(Section):
    """The names of a study's reports; the paper's are `tableN` and `figureN`."""

    variants: str = Field(description="Name of the table of the twelve variants.")
    baselines: str = Field(description="Name of the table of teacher and student trained alone; studies may share one.")
    fidelity: str = Field(description="Name of the table that compares students with their own teacher.")
    architecture: str = Field(description="Name of the table of layers, output shapes and parameters.")
    comparison: str | None = Field(
        None,
        description="Name of the table that compares published methods with ours (Table 10); studies may share one.",
    )
    cka: tuple[Literal["figure6", "figure10", "figure11"], ...] | None = Field(
        None,
        description="Similarity of layers (CKA) for every variant and seed: makes reports/cka-STUDY.md and the figures "
        "listed, each of which only one study may list: figure6 (KD + ML), figure10 (KD, ML), figure11 (within "
        "students). null: no CKA.",
    )
    samples: bool = Field(False, description="For segmentation: show test images with the masks of the variant `ours`.")
    pictures: dict[str, PictureKind] = Field(
        {},
        description="For segmentation: figures of the hardest test images. By name of the figure, what it shows: "
        "`all_variants`, both students of every variant (Figure 4); `diverse`, both students of every V3 variant (5); "
        "`ensembles`, outlines of the V3 ensembles (7); `kd_ml`, both students of every KD + ML variant (9).",
    )
    deploy: bool = Field(
        False, description="Export the models, measure their latency and memory, and add them to reports/deploy.md."
    )


class Study(Section):
    """studies/<study>.yaml: one dataset, one task, one pair of teacher and student, one table of twelve variants."""

    dataset: str = Field(description="Name of the dataset: a file in datasets/ without .yaml.")
    task: Task = Field(description="What the networks predict: a class or a mask.")
    image_size: int = Field(
        ge=32, multiple_of=32, description="Height and width to which images are resized, in pixels."
    )
    split: Split = Field(
        description="How images are divided into training, validation and test (75:10:15 in the paper)."
    )
    balance: Literal["none", "mean"] = Field(
        description="Class balancing in training. `mean`: in every epoch, each class has as many images as the average "
        "class. `none`: no balancing."
    )
    reports: Reports = Field(description="Names of the study's reports; the paper's are `tableN` and `figureN`.")
    teacher: Network = Field(description="The teacher's architecture and initial weights.")
    student: Network = Field(description="The architecture and initial weights of both students.")
    weights: dict[str, VariantWeights] = Field(description="Loss weights by variant; every trained variant needs them.")
    methods: dict[str, PublishedMethod] = Field({}, description="Published methods that can be trained in this study.")
    resplit: Resplit | None = Field(
        None, description="The study that this one repeats with another split; `classroom resplit` writes it."
    )

    @model_validator(mode="after")
    def _networks_fit_the_task(self) -> Study:
        for role, network in (("teacher", self.teacher), ("student", self.student)):
            if self.task == "segmentation" and (network.decoder_channels is None or network.conv6_channels):
                raise ValueError(f"a segmentation {role} needs decoder_channels (five widths), and no conv6_channels")
            if self.task == "classification" and network.decoder_channels is not None:
                raise ValueError(f"a classification {role} has no decoder: remove its decoder_channels")
        if self.task == "segmentation":
            first, second = (
                network.decoder_channels[0] for network in (self.teacher, self.student) if network.decoder_channels
            )
            if first != second:
                raise ValueError(
                    "teacher and student share the first decoder block's feature map, so decoder_channels must begin "
                    f"with the same number, not {first} and {second}"
                )
            if self.balance != "none":
                raise ValueError("balance applies to classes: set it to 'none' in a segmentation study")
        elif self.reports.samples or self.reports.pictures:
            raise ValueError("reports.samples and reports.pictures show masks, so they need a segmentation study")
        return self

    @model_validator(mode="after")
    def _weights_are_of_variants(self) -> Study:
        for variant in self.weights:
            if variant not in VARIANTS:
                raise ValueError(f"weights: unknown variant '{variant}'.{suggestion(variant, VARIANTS)}")
        return self


class TaskLoss(Section):
    """Segmentation: focal + Dice, Eq. 8. (Classification: cross-entropy, Eq. 2, which has no settings.)"""

    focal_gamma: float = Field(ge=0, allow_inf_nan=False, description="Focusing parameter, τ in Eq. 8.")
    focal_form: Literal["binary", "printed"] = Field(
        description="`binary`: mean over all pixels. `printed`: sum over the foreground pixels, as Eq. 8 is printed."
    )


class PredictionLoss(Section):
    """KL divergence of temperature-softened predictions, Eqs. 1, 3, 5."""

    temperature: float = Field(gt=0, allow_inf_nan=False, description="Divides the logits before the softmax.")
    direction: Literal["student||target", "target||student"] = Field(
        description="Order of the two distributions in the KL divergence."
    )
    multiply_by_squared_temperature: bool = Field(
        description="Multiply the loss by T², as Hinton et al. do; the paper prints no such factor."
    )


class Losses(Section):
    """Settings of the loss functions; the loss weights are in studies/."""

    task: TaskLoss = Field(description="Task loss of segmentation: focal + Dice, Eq. 8.")
    prediction: PredictionLoss = Field(description="KL divergence of softened predictions, Eqs. 1, 3, 5.")


class Augmentation(Section):
    """Random geometric augmentation of training images; masks are resampled by nearest neighbour."""

    flip: Fraction = Field(description="Probability of a horizontal flip, and of a vertical one.")
    transpose: Fraction = Field(
        description="Probability of a rotation by 90°; with the flips, this gives every transpose."
    )
    affine: Fraction = Field(description="Probability of rotation, shift and scaling together.")
    rotation_degrees: float = Field(ge=0, le=180, description="Maximum rotation in either direction, in degrees.")
    shift: Fraction = Field(description="Maximum shift, as a fraction of the image's side.")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="Minimum and maximum scaling factor."
    )

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError(f"expected the smallest and the largest scale, in this order, not {list(scale)}")
        return scale


class Training(Section):
    """How every network is trained."""

    epochs: int = Field(ge=1, description="Passes over the training images.")
    batch_size: int = Field(ge=2, description="Images per step.")
    learning_rate: float = Field(
        gt=0, allow_inf_nan=False, description="Learning rate of the optimiser; with a schedule, its maximum."
    )
    precision: Literal["fp32", "bf16"] = Field(
        description="Precision of forward passes; `bf16` is mixed precision with torch.autocast."
    )
    threads: int = Field(
        ge=1, description="CPU threads per training. Their number affects rounding, hence the results."
    )
    compile: bool = Field(description="Compile networks with torch.compile. This affects rounding, hence the results.")
    # Optional, with the paper's values: a file without them keeps its results.
    optimiser: Literal["adam", "adamw", "sgd"] = Field("adam", description="Optimiser; `sgd` has a momentum of 0.9.")
    weight_decay: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight decay of all parameters; `adam` and `sgd` add it to the gradient, `adamw` decouples it.",
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Learning rate schedule; `cosine` decays to nearly 0 at the end."
    )
    warmup_epochs: int = Field(0, ge=0, description="Epochs of linear warm-up of the learning rate; 0 for none.")
    clip_gradients: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Maximum gradient norm of each network; null for no clipping."
    )
    early_stopping: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Stop after this many epochs in which no network improved on validation; null for never.",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Training:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs should be fewer than epochs ({self.epochs}), not {self.warmup_epochs}")
        return self


class Variants(Section):
    """Which of the twelve variants are trained."""

    joint: Joint = Field(description="Variants whose networks are all trained together: any but kd_off.")
    offline: Offline = Field(
        description="Variants with a pretrained teacher: kd_off. They are trained after the study's teacher."
    )


class Grid(Section):
    """Grid search of α, β, γ on validation: each student's α, and how the rest is divided."""

    studies: Names = Field(description="Active studies in which to search; [] for no search.")
    joint: Joint = Field(description="Variants to search, as in variants.joint.")
    offline: Offline = Field(description="Variants to search, as in variants.offline.")
    alpha_1: Points = Field(description="Values of S1's alpha.")
    alpha_2: Points = Field(description="Values of S2's alpha.")
    teacher_share: Points = Field(
        description="Values of the share of 1 − alpha that goes to beta; the rest goes to gamma. Only kd_ml has both."
    )


class Comparison(Section):
    """Table 10: the published methods that are trained in studies with `reports.comparison`."""

    classification: Names = Field(description="Published methods for classification.")
    segmentation: Names = Field(description="Published methods for segmentation.")


class Tuned(Section):
    """Published methods whose weights are searched in some studies of one task."""

    studies: Names = Field(description="Active studies in which to search; [] for no search.")
    methods: Names = Field(description="Methods to search; [] for none.")


class Tune(Section):
    """Search of published methods' weights on validation: each factor multiplies the reference weights."""

    factors: Annotated[tuple[Factor, ...], Field(min_length=1), AfterValidator(_each_once)] = Field(
        description="Factors to try; each multiplies all reference weights of a method."
    )
    classification: Tuned = Field(description="Search in classification studies.")
    segmentation: Tuned = Field(description="Search in segmentation studies.")


class Together(Section):
    """Runs of one study and seed that Snakemake trains in one process: in less time, with bit-identical results. A
    change makes nothing stale."""

    enabled: bool = Field(
        default=True,
        description="Train runs of one study and seed in one process where that is faster. `false`: each run is a job "
        "of its own.",
    )
    max_networks: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Maximum number of different networks in one process; null for no limit."
    )

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Together:
        """Of all settings, as `load` returns them; the default where they have none."""
        return cls.model_validate(raw.get("together", {}))


class Common(Section):
    """params.yaml: what is common to all studies."""

    scale: Scale = Field(description="The preset that these values come from; every report states it.")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_each_once)] = Field(
        description="Random seeds; every method is trained once per seed."
    )
    studies: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_each_once)] = Field(
        description="Active studies, each with a file studies/STUDY.yaml; `classroom use` sets this list."
    )
    variants: Variants = Field(description="Which of the twelve variants are trained.")
    ours: str = Field(
        description="Variant that is compared with published methods, exported, and shown on sample images."
    )
    comparison: Comparison = Field(
        description="Published methods to train in studies with `reports.comparison` (Table 10)."
    )
    grid: Grid = Field(description="Grid search of α, β and γ on validation.")
    tune: Tune = Field(description="Search of published methods' weights on validation.")
    losses: Losses = Field(description="Settings of the loss functions; the loss weights are in studies/.")
    augmentation: Augmentation = Field(
        description="Random geometric augmentation of training images; masks are resampled by nearest neighbour."
    )
    training: Training = Field(description="How every network is trained.")
    # Optional: a file without it keeps its results.
    together: Together = Field(
        Together(),
        description="Training of several runs in one process. It changes no results, so an edit makes nothing stale.",
    )


@functools.cache
def is_name(text: object) -> bool:
    """Whether this may name a study, a dataset or a report (NAME_RULE): folders and both engines' lists do, too.

    PyYAML and ruamel.yaml, which DVC reads with, differ in what is a number: for one of them, 1e3 is 1000.
    """
    return (
        isinstance(text, str)
        and len(text) <= MAX_NAME
        and re.fullmatch(r"[a-z0-9]+(?:[-_][a-z0-9]+)*", text) is not None
        and _is_text(text)
    )


def _is_text(text: str) -> bool:
    try:
        return all(isinstance(load(text), str) for load in (yaml.safe_load, YAML(typ="safe").load))
    except ValueError:  # as a date, it has no such month
        return False


class Params(Common):
    """params.yaml, and what the files of the active studies and of their datasets say."""

    study: dict[str, Study]
    dataset: dict[str, Dataset]

    @property
    def trained_variants(self) -> tuple[str, ...]:
        return (*self.variants.joint, *self.variants.offline)

    def compared_studies(self, task: str | None = None) -> tuple[str, ...]:
        """Active studies that are compared with published methods."""
        return tuple(
            name for name, study in self.study.items() if study.reports.comparison and task in (None, study.task)
        )

    def tuned_studies(self, task: str) -> tuple[str, ...]:
        """Active studies in which weights of published methods are searched."""
        tuned: Tuned = getattr(self.tune, task)
        return tuple(name for name in tuned.studies if name in self.study and tuned.methods)

    @property
    def searched_studies(self) -> tuple[str, ...]:
        """Active studies with a grid search."""
        return tuple(name for name in self.grid.studies if name in self.study)

    @model_validator(mode="after")
    def _names_refer(self) -> Params:
        for kind, names in (("datasets", self.dataset), ("studies", self.study)):
            for name in names:
                if not is_name(name):
                    raise ValueError(f"{kind}/{name}.yaml: {NAME_RULE}")
        self._check_reports()
        self._check_weights()
        self._check_methods()
        return self

    def _check_reports(self) -> None:
        owners: dict[str, str] = dict.fromkeys(FIXED_REPORTS, "a report of its own")
        for study, of in self.study.items():
            reports = of.reports
            named = {kind: getattr(reports, kind) for kind in ("variants", "fidelity", "architecture", *SHARED_REPORTS)}
            named |= {f"pictures.{name}": name for name in reports.pictures}
            named |= {f"cka.{name}": name for name in reports.cka or ()}
            where = {f"reports.{kind}": name for kind, name in named.items() if name is not None}
            if of.resplit:
                where["resplit.report"] = of.resplit.report
            for key, name in where.items():
                if not is_name(name):
                    raise ValueError(f"studies/{study}.yaml: {key}: {NAME_RULE}, not '{name}'")
                kind = key.removeprefix("reports.")
                owner = f"{kind} reports" if kind in SHARED_REPORTS else f"studies/{study}.yaml: {key}"
                if owners.setdefault(name, owner) != owner:
                    raise ValueError(
                        f"studies/{study}.yaml: {key}: '{name}' is taken ({owners[name]}); each report has a name of "
                        "its own"
                    )

    def _check_weights(self) -> None:
        for name, study in self.study.items():
            for variant in self.trained_variants:
                if variant not in study.weights:
                    raise ValueError(f"studies/{name}.yaml: weights lacks '{variant}', which variants lists")
        if self.ours not in self.trained_variants and any(
            study.reports.comparison or study.reports.deploy or study.reports.samples for study in self.study.values()
        ):
            raise ValueError(
                f"ours: '{self.ours}' is not in variants.{suggestion(self.ours, self.trained_variants)} Reports of "
                "comparison, deploy and samples show it."
            )

    def _check_methods(self) -> None:
        for task in TASKS:
            of_task: tuple[str, ...] = getattr(self.comparison, task)
            if (compared := self.compared_studies(task)) and not of_task:
                raise ValueError(
                    f"comparison.{task}: no method is named, but studies/{compared[0]}.yaml has reports.comparison. "
                    "Name some here, or remove it there."
                )
            for name in self.tuned_studies(task):
                if self.study[name].task != task:
                    raise ValueError(f"tune.{task}.studies: '{name}' is a study of {self.study[name].task}")


def load(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """All settings: params.yaml at `path`, and the files of studies and datasets in the folders next to it.

    Returns what params.yaml says, `study` with every studies/<name>.yaml, `dataset` with every datasets/<name>.yaml.
    Raises ParamsError if there is no such file, or one is not a YAML mapping of plain values.
    """
    raw = read(path)
    refuse_older_layout(raw, path)
    for folder, block in FOLDERS.items():
        raw[block] = {file.stem: _readable(file) for file in sorted((path.parent / folder).glob("*.yaml"))}
    return raw


def refuse_older_layout(raw: Mapping[str, Any], path: Path) -> None:
    """Raises ParamsError if params.yaml holds studies or datasets, as it once did."""
    for folder, block in FOLDERS.items():
        if block in raw:
            raise ParamsError(
                f"{path}: '{block}' is of an older layout. Move each {block} into a file of its own, "
                f"{folder}/<name>.yaml; in an overlay, below '{folder}'. Both are described in "
                "docs/getting-started/new-study.md."
            )


def _readable(path: Path) -> dict[str, Any] | ParamsError:
    """The content of a file, or the error that is raised once the file is needed."""
    try:
        return read(path)
    except ParamsError as error:
        return error


def read(path: Path) -> dict[str, Any]:
    """The raw mapping in the YAML file at `path`.

    Raises ParamsError if there is no such file or it is not a YAML mapping of plain values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        try:
            raw = _parsed(text, path, YAML(typ="safe"))
        except (YAMLError, ValueError):
            raw = _parsed(text, path, YAML(typ="safe", pure=True))  # slower, with the better error message
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file. Commands run in the project's root, where params.yaml is.") from None
    except OSError as error:  # a folder, no permission
        raise ParamsError(f"{path}: cannot be read ({error.strerror}). Expected a YAML file of settings.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a number of 5000 digits; brackets in brackets
        raise ParamsError(f"{path}: not valid YAML: {_yaml_reason(error)}. Fix it there.") from None
    if not isinstance(raw, dict):
        found = "none" if raw is None else f"a {type(raw).__name__}"
        raise ParamsError(f"{path}: expected a mapping of settings, found {found}. Restore the file.")
    return raw


def _parsed(text: str, path: Path, yaml: YAML) -> Any:
    document = yaml.compose(text)
    if _more_than(MAX_VALUES, document):
        raise ParamsError(
            f"{path}: expected settings, found more than {MAX_VALUES:,} values, counting what aliases (*name) "
            "repeat. Write the values out."
        )
    return yaml.constructor.construct_document(document) if document else None


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "brackets nested too deeply"
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark, problem = error.problem_mark, " ".join(error.problem.split())
    if problem.startswith("but "):
        problem = f"{error.context} {problem}"
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}"


def _more_than(limit: int, document: Node | None) -> bool:
    """Whether there are more than `limit` values; stops there, as aliases may multiply each other."""
    waiting, count = [document], 0
    while waiting and count <= limit:
        count += 1
        node = waiting.pop()
        if isinstance(node, MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            waiting += node.value
    return count > limit


def check(raw: Mapping[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Validates all settings (`load`) of the active studies, but not those of published methods.

    `classroom.settings.checks.check` validates these, too. Raises ParamsError naming the file and key, what was
    expected and, for a misspelt key, the likely one.
    """
    whole = dict(raw)
    studies, datasets = (raw.get(block, {}) for block in FOLDERS.values())
    listed = raw.get("studies")
    active = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if missing := [name for name in active if name not in studies]:
        raise ParamsError(
            f"{path}: studies: "
            + "; ".join(f"'{name}' has no file studies/{name}.yaml.{suggestion(name, studies)}" for name in missing)
            + " The list is set by `classroom use STUDY…`."
        )
    for name in active:
        if isinstance(studies[name], ParamsError):
            raise studies[name]
    whole["study"] = {name: studies[name] for name in active}
    used = {of["dataset"]: name for name, of in whole["study"].items() if isinstance(of.get("dataset"), str)}
    for dataset, name in used.items():
        if dataset not in datasets:
            raise ParamsError(
                f"studies/{name}.yaml: dataset: '{dataset}' has no file datasets/{dataset}.yaml."
                f"{suggestion(dataset, datasets)}"
            )
        if isinstance(datasets[dataset], ParamsError):
            raise datasets[dataset]
    whole["dataset"] = {name: of for name, of in datasets.items() if name in used}
    params = _validated(Params, whole, "", path)
    for name, study in params.study.items():
        if study.resplit and (study.resplit.of == name or study.resplit.of not in studies):
            raise ParamsError(
                f"studies/{name}.yaml: resplit.of: expected another study, with a file in studies/, not "
                f"'{study.resplit.of}'.{suggestion(study.resplit.of, set(studies) - {name})}"
            )
    return params


def warn_of_sum(weights: VariantWeights, where: str, path: Path = Path("params.yaml")) -> None:
    """Warns of a student whose alpha, beta and gamma do not sum to 1 (all of the paper's do)."""
    file, key = _location(path, where.split("."))
    for student in ("S1", "S2"):
        w: StudentWeights = getattr(weights, student)
        total = w.alpha + w.beta + w.gamma
        if not math.isclose(total, 1, abs_tol=1e-6):
            warnings.warn(
                f"{file}: {key}.{student}: alpha + beta + gamma = {total:g}, not 1; used as it is",
                stacklevel=2,
            )


def dotted(file: str, key: str = "") -> str:
    """The place in the settings (`load`) of `key` in `file`: `task` in studies/lgg.yaml is `study.lgg.task`.

    Without `key`, of the whole file.
    """
    folder = FOLDERS.get(PurePosixPath(file).parent.name)
    parts = [folder, PurePosixPath(file).stem, key] if folder else [key]
    return ".".join(filter(None, parts))


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every single setting by its dotted key; an empty mapping is one."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def select(raw: Mapping[str, Any], key: str, kind: type[T], path: Path = Path("params.yaml")) -> T:
    """The value at dotted `key`, validated as `kind` (a Section or any type pydantic knows).

    Raises ParamsError if the key is absent (with a suggestion) or its value does not fit.
    """
    value: Any = raw
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(value, Mapping) or part not in value:
            known = list(map(str, value)) if isinstance(value, Mapping) else []
            if depth == 1 and parts[0] in FOLDERS.values():
                (folder,) = (folder for folder, block in FOLDERS.items() if block == parts[0])
                raise ParamsError(
                    f"unknown {parts[0]} '{part}': no file {folder}/{part}.yaml.{suggestion(part, known)}"
                )
            file, within = _location(path, parts)
            above = f" in '{_location(path, parts[:depth])[1]}'" if depth and _location(path, parts[:depth])[1] else ""
            raise ParamsError(f"{file}: key '{within}' is missing{above}.{suggestion(part, known)}")
        value = value[part]
        if isinstance(value, ParamsError):
            raise value
    return _validated(kind, value, key, path)


def _location(path: Path, parts: Sequence[str]) -> tuple[Path, str]:
    """The file, and the key in it, of a dotted key of all settings; `path` is that of params.yaml."""
    for folder, block in FOLDERS.items():
        if len(parts) > 1 and parts[0] == block:
            return path.parent / folder / f"{parts[1]}.yaml", ".".join(parts[2:])
    return path, ".".join(parts)


def _validated(kind: type[T], value: Any, prefix: str, path: Path) -> T:
    strict = None if _is_section(kind) else ConfigDict(strict=True)  # a Section has its own
    try:
        return TypeAdapter(kind, config=strict).validate_python(value)
    except ValidationError as error:
        errors = error.errors()
        within = {mistake["loc"][:-1] for mistake in errors}  # a list with a wrong item also counts as too short
        errors = [mistake for mistake in errors if mistake["type"] != "too_short" or mistake["loc"] not in within]
        mistakes: dict[str, list[str]] = {}
        for mistake in errors[:MAX_MISTAKES]:
            location = [*filter(None, prefix.split(".")), *map(str, mistake["loc"])]
            file, key = _location(path, location)
            sentence = _sentence(mistake, kind, key)
            if not location and sentence.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
                where, _, sentence = sentence.partition(": ")
                file = path.parent / where
            mistakes.setdefault(str(file), []).append(sentence)
        if (more := len(errors) - MAX_MISTAKES) > 0:
            mistakes[str(file)].append(f"and {more} more mistake{'s' if more > 1 else ''}")
        raise ParamsError("; ".join(f"{file}: {'; '.join(of)}" for file, of in mistakes.items())) from None


def _sentence(error: Any, kind: Any, key: str) -> str:
    if error["type"] == "extra_forbidden":
        last = str(error["loc"][-1])
        return f"unknown key '{key}'.{suggestion(last, _fields_at(kind, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if error["type"] == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    found = list(error["input"]) if isinstance(error["input"], tuple) else error["input"]
    if worded := EXPECTED.get(error["type"]):
        expected = worded.format(**error.get("ctx", {}))
    else:
        expected = error["msg"].removeprefix("Input ")
    return f"{key}: {expected}, not {_SHORT.repr(found)}"


EXPECTED = {
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "should be a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "should be a list"),
    "int_type": "should be a valid integer without a decimal point or exponent, such as 1",
    "float_type": "should be a valid number without quotes, such as 0.5",
    "bool_type": "should be true or false",
    "too_short": "should have at least {min_length} item(s)",
    "too_long": "should have at most {max_length} item(s)",
}
"""By pydantic's error type, a message in the terms of YAML."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def _fields_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The known keys at the location of an unknown one."""
    for part in location:
        kind = _section_in(kind)
        if isinstance(part, int):  # of a tuple[X, ...], `kind` is X already
            continue
        kind = kind.model_fields[part].annotation if _is_section(kind) else get_args(kind)[-1]  # or dict[str, X]
    kind = _section_in(kind)
    return list(kind.model_fields) if _is_section(kind) else []


def _section_in(kind: Any) -> Any:
    """The Section in `Section | None` and in `tuple[Section, ...]`; anything else as it is."""
    if get_origin(kind) is dict:
        return kind
    return next((part for part in get_args(kind) if _is_section(part)), kind)


def _is_section(kind: Any) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)
