"""The settings: what params.yaml may hold, and how a command reads its share of it.

`params.yaml` is the one place for settings in force. `Params` is its complete type; `select` hands a command
only the keys that its stage declares in dvc.yaml, so that a changed key reruns exactly the stages that read it.
"""

from __future__ import annotations

import math
import re
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args, get_origin

from pydantic import (
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
from classroom.method_settings import (
    COMPARISON_METHODS,
    METHODS,
    Methods,
    MethodWeights,
    settings_type,
    wrong_terms,
)
from classroom.section import Section

T = TypeVar("T")

Technique = Literal["ml", "kd_off", "kd_on", "kd_ml"]
Strategy = Literal["v1", "v2", "v3"]
TECHNIQUES: tuple[str, ...] = get_args(Technique)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
VARIANTS: tuple[str, ...] = tuple(f"{t}-{s}" for t in TECHNIQUES for s in STRATEGIES)
BASELINES: tuple[str, ...] = ("teacher", "student")
"""The methods that train one network alone (Tables 2 and 13)."""
FIXED_REPORTS: tuple[str, ...] = ("table1", "table5", "cost", "index")
"""Reports that belong to no study."""
CKA_FIGURES: tuple[str, ...] = ("figure6", "figure10", "figure11")

Task = Literal["classification", "segmentation"]
Scale = Literal["demo", "small", "paper"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=999_999_999)]
Factor = Annotated[
    float, Field(gt=0, allow_inf_nan=False), WrapValidator(lambda value, check: (check(value), value)[1])
]
"""As it is written, 10 or 10.0: both engines name a folder by it."""
Pair = Annotated[tuple[str, str], Field(strict=False)]  # in a mapping, where `Section` does not see the list

NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")

FOLDERS = {"studies": "study", "datasets": "dataset"}
"""By folder with a file for each, the block of the settings that holds them by name."""

MOST_VALUES = 100_000
"""That a file of settings may hold, those behind aliases counted wherever they are referred to; ours holds 1,500."""
MOST_MISTAKES = 10
"""That are named at once."""


class Phantom(Section):
    """Synthetic images in the layout of a dataset; see `classroom.data.phantoms`."""

    groups: int = Field(ge=1, description="how many synthetic patients, slides or lesions")
    images_per_group: int = Field(ge=1, description="images of each (of lesions: at most)")
    size: int = Field(ge=32, description="height and width of an image, pixels")
    seed: Seed = Field(description="seed of everything that is drawn")


class Download(Section):
    """One file on the web."""

    url: str
    checksum: str = Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$", description="md5:… or sha256:…")


class Dataset(Section):
    """Where a dataset comes from and in which layout it lies."""

    reader: Literal["lgg", "histopathologic", "ham10000", "isic2017"] = Field(
        description="the layout of the folder: a module of classroom.data.readers"
    )
    source: Literal["phantom", "directory", "kaggle", "download"] = Field(description="which of the four below is used")
    directory: str = Field("", description="source directory: the folder in the layout of the original download")
    kaggle: tuple[str, ...] = Field((), description="source kaggle: owner/name of datasets, or competitions/name")
    download: tuple[Download, ...] = Field((), description="source download: files on the web, with checksums")
    phantom: Phantom | None = Field(None, description="source phantom: the synthetic stand-in")
    subset: Annotated[int, Field(ge=2)] | None = Field(
        None, description="keep a random subset of so many images, as many of each class; null keeps all"
    )
    subset_seed: Seed = 0
    full_size: int = Field(ge=1, description="images of the complete original, for `classroom forecast`")

    @model_validator(mode="after")
    def _has_its_source(self) -> Dataset:
        if not getattr(self, self.source):
            raise ValueError(f"source is '{self.source}', so '{self.source}' must be given")
        return self


class Split(Section):
    """Training, validation and test (75:10:15 in the paper)."""

    percent: tuple[int, int, int] = Field(description="training, validation, test; sums to 100")
    by: Literal["image", "group"] = Field(description="what never crosses splits: an image, or a whole patient")
    seed: Seed = Field(description="seed of the shuffle")

    @field_validator("percent")
    @classmethod
    def _sums_to_100(cls, percent: tuple[int, int, int]) -> tuple[int, int, int]:
        if sum(percent) != 100 or min(percent) < 1:
            raise ValueError(f"three whole percentages of at least 1 that sum to 100, not {list(percent)}")
        return percent


class Network(Section):
    """A network: an encoder by name, what stands on it, and where its weights come from."""

    encoder: str = Field(
        description="classification: any model of timm; segmentation: any encoder of segmentation-models-pytorch, "
        "`tu-NAME` for timm's"
    )
    encoder_options: dict[str, Any] = Field(description="passed on to timm, e.g. thinner channels")
    decoder_channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=5, max_length=5)] | None = (
        Field(None, description="segmentation: widths of the U-Net's five decoder blocks")
    )
    conv6_channels: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="classification: width of an extra 1×1 block after the last feature map (Table 6, Conv6), which "
        "brings a teacher to its students' width; null for none",
    )
    weights: str = Field(description="`hub` (ImageNet), `random`, or the path of a .safetensors file")


class StudyTables(Section):
    """The names of a study's reports; `tableN` are those of the paper and get its numbers beside ours."""

    variants: str = Field(description="the twelve variants")
    baselines: str = Field(description="teacher and student alone; studies may share one")
    fidelity: str = Field(description="students compared with their own teacher")
    architecture: str = Field(description="layers, output shapes and parameters of both networks")


class Study(Section):
    """One dataset, one task and one teacher/student pair: one table of twelve variants."""

    dataset: str
    task: Task
    image_size: int = Field(ge=32, multiple_of=32, description="height and width the networks see, pixels")
    split: Split
    balance: Literal["none", "mean"] = Field(
        description="of training classes: `mean` draws as many images of each class as an average class has, by under- "
        "and over-sampling, anew in every epoch"
    )
    tables: StudyTables
    teacher: Network
    student: Network

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
                    "teacher and student share the first decoder block's feature map, so decoder_channels must start "
                    f"alike: {first} and {second}"
                )
            if self.balance != "none":
                raise ValueError("balance is of classes, so a segmentation study has 'none'")
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
    """Segmentation: focal + Dice, Eq. 8. (Classification: cross-entropy, Eq. 2, which has no settings.)"""

    focal_gamma: float = Field(ge=0, allow_inf_nan=False, description="the focusing parameter, τ in Eq. 8")
    focal_form: Literal["binary", "printed"] = Field(
        description="`binary`: mean over all pixels; `printed`: sum over the foreground pixels, Eq. 8 as printed"
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
    compile: bool = Field(description="networks by torch.compile; it changes rounding, so it is a setting")


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


class Picture(Section):
    """What the variants make of a segmentation study's hardest test images."""

    study: str
    kind: Literal["all_variants", "diverse", "ensembles", "kd_ml"] = Field(
        description="both students of every variant (Figure 4), of every technique's V3 (5), the outlines of every "
        "technique's V3 ensemble (7), both students of KD + ML with each strategy (9)"
    )


class Grid(Section):
    """Grid search of α, β, γ, chosen on validation: each student's α, and how the rest is shared out."""

    studies: tuple[str, ...] = Field(description="where to search; [] for no search")
    joint: tuple[str, ...] = Field(description="variants to search, as in variants.joint")
    offline: tuple[str, ...] = Field(description="as in variants.offline")
    alpha_1: tuple[Inside, ...] = Field(min_length=1, description="values of S1's alpha")
    alpha_2: tuple[Inside, ...] = Field(min_length=1, description="values of S2's alpha")
    teacher_share: tuple[Inside, ...] = Field(
        min_length=1, description="the part of 1 − alpha that goes to beta; the rest to gamma. Only kd_ml has both"
    )

    @model_validator(mode="after")
    def _variants_are_known(self) -> Grid:
        Variants(joint=self.joint, offline=self.offline)
        for key in ("studies", "alpha_1", "alpha_2", "teacher_share"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: each value once, not {list(values)}")
        return self


class Compared(Section):
    """Published methods that train in some studies of one task."""

    studies: tuple[str, ...] = Field(description="where; [] for none")
    methods: tuple[str, ...] = Field(description="which; [] for none")


class Comparison(Section):
    """Table 10: published methods beside ours."""

    tables: Annotated[tuple[str, ...], Field(max_length=1)] = Field(description="the report's name; [] for none")
    ours: str = Field(description="the variant that stands for ours")
    classification: Compared
    segmentation: Compared


class Tune(Section):
    """Search of the published methods' weights, chosen on validation: each factor multiplies the reference weights."""

    factors: Annotated[tuple[Factor, ...], Field(min_length=1)]
    classification: Compared
    segmentation: Compared

    @field_validator("factors")
    @classmethod
    def _once(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(factors)) != len(factors):
            raise ValueError(f"each value once, not {list(factors)}")
        return factors


class Cka(Section):
    """Centred kernel alignment: how alike the layers of teacher and students are."""

    studies: tuple[str, ...] = Field(description="where, for every variant and seed; [] for none")
    figures: dict[str, str] = Field(description="figure6 (KD + ML), figure10 (KD, ML), figure11 (students): the study")


class Deploy(Section):
    """What deploying costs: the teacher, one student and the ensemble of both, exported and measured side by side."""

    tables: Annotated[tuple[str, ...], Field(max_length=1)] = Field(description="the report's name; [] for none")
    method: str = Field(description="the variant whose students are exported")
    studies: tuple[str, ...] = Field(description="where; [] for none")


class Params(Section):
    """The whole of params.yaml."""

    scale: Scale = Field(description="the overlay these values came from; stated in every table")
    seeds: tuple[Seed, ...] = Field(min_length=1)
    studies: tuple[str, ...] = Field(description="every block of `study`, as a list")
    baseline_tables: tuple[str, ...] = Field(description="every name under study.*.tables.baselines, as a list")
    variants: Variants
    samples: dict[str, str] = Field(description="pictures of predictions: a study and the variant that is shown")
    pictures: dict[str, Picture] = Field(description="pictures of the hardest test images, by name")
    twins: dict[str, Pair] = Field(
        description="reports with two studies side by side, e.g. split by image and by group"
    )
    grid: Grid
    cka: Cka
    deploy: Deploy
    comparison: Comparison
    tune: Tune
    dataset: dict[str, Dataset]
    study: dict[str, Study]
    weights: dict[str, dict[str, VariantWeights]]
    methods: Methods
    method_weights: dict[str, dict[str, MethodWeights]] = Field(
        description="of published methods: by study and method, the weight of every loss term"
    )
    losses: Losses
    augmentation: Augmentation
    training: Training

    @property
    def trained_variants(self) -> tuple[str, ...]:
        return (*self.variants.joint, *self.variants.offline)

    @model_validator(mode="after")
    def _names_refer(self) -> Params:
        for kind, names in (("dataset", self.dataset), ("study", self.study)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind}.{name}: a name is lower-case letters, digits, '-' and '_'")
        for key in ("seeds", "studies", "baseline_tables"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}: each once, not {list(values)}")
        self._check_studies()
        self._check_reports()
        self._check_weights()
        self._check_comparison()
        self._check_deploy()
        for key, study in (
            *((f"samples.{name}", name) for name in self.samples),
            *((f"pictures.{name}", picture.study) for name, picture in self.pictures.items()),
            *(("cka.studies", name) for name in self.cka.studies),
            *(("deploy.studies", name) for name in self.deploy.studies),
            *(("grid.studies", name) for name in self.grid.studies),
            *((f"twins.{twin}", name) for twin, names in self.twins.items() for name in names),
        ):
            if study not in self.study:
                raise ValueError(f"{key}: unknown study '{study}'.{suggestion(study, self.study)}")
        for twin, (first, second) in self.twins.items():
            if first == second:
                raise ValueError(f"twins.{twin}: two different studies, not '{first}' twice")
        for study, variant in self.samples.items():
            if variant not in self.trained_variants:
                raise ValueError(
                    f"samples.{study}: '{variant}' is not in variants.{suggestion(variant, self.trained_variants)}"
                )
            if self.study[study].task != "segmentation":
                raise ValueError(f"samples.{study}: pictures of masks need a segmentation study")
        for name, study in self.cka.figures.items():
            if name not in CKA_FIGURES:
                raise ValueError(f"cka.figures: unknown figure '{name}'. Known: {', '.join(CKA_FIGURES)}.")
            if study not in self.cka.studies:
                raise ValueError(f"cka.figures.{name}: '{study}' is not in cka.studies")
        for name, picture in self.pictures.items():
            if self.study[picture.study].task != "segmentation":
                raise ValueError(f"pictures.{name}: pictures of masks need a segmentation study")
        return self

    def _check_studies(self) -> None:
        for name in self.studies:
            if name not in self.study:
                raise ValueError(f"studies: unknown study '{name}'.{suggestion(name, self.study)}")
        for name, study in self.study.items():
            if name not in self.studies:
                raise ValueError(f"studies must list every block of study: '{name}' is missing there")
            if study.dataset not in self.dataset:
                raise ValueError(
                    f"study.{name}.dataset: unknown dataset '{study.dataset}'.{suggestion(study.dataset, self.dataset)}"
                )

    def _check_reports(self) -> None:
        owners: dict[str, str] = {name: "a report of its own" for name in FIXED_REPORTS}
        for study in self.studies:
            tables = self.study[study].tables
            for kind in ("variants", "fidelity", "architecture", "baselines"):
                key, name = f"study.{study}.tables.{kind}", getattr(tables, kind)
                if not NAME.fullmatch(name):
                    raise ValueError(f"{key}: a name is lower-case letters, digits, '-' and '_', not '{name}'")
                owner = "baselines" if kind == "baselines" else key
                if owners.setdefault(name, owner) != owner:
                    raise ValueError(f"{key}: '{name}' is taken ({owners[name]}); each report has a name of its own")
                if kind == "baselines" and name not in self.baseline_tables:
                    raise ValueError(f"baseline_tables lacks '{name}', which {key} names")
        for name in self.baseline_tables:
            if owners.get(name) != "baselines":
                raise ValueError(f"baseline_tables: no study names '{name}' under tables.baselines")
        for key, name in (
            *((f"twins.{name}", name) for name in self.twins),
            *((f"comparison.tables.{name}", name) for name in self.comparison.tables),
            *((f"deploy.tables.{name}", name) for name in self.deploy.tables),
            *((f"pictures.{name}", name) for name in self.pictures),
            *((f"cka.figures.{name}", name) for name in self.cka.figures),
        ):
            if not NAME.fullmatch(name):
                raise ValueError(f"{key}: a name is lower-case letters, digits, '-' and '_', not '{name}'")
            if name in owners:
                raise ValueError(f"{key}: the name is taken ({owners[name]})")
            owners[name] = key

    def _check_weights(self) -> None:
        for name in self.studies:
            for variant in self.trained_variants:
                if variant not in self.weights.get(name, {}):
                    raise ValueError(f"weights.{name} lacks '{variant}', which variants lists")
        for name, variants in self.weights.items():
            if name not in self.study:
                raise ValueError(f"weights: unknown study '{name}'.{suggestion(name, self.study)}")
            for variant in variants:
                if variant not in VARIANTS:
                    raise ValueError(f"weights.{name}: unknown variant '{variant}'.{suggestion(variant, VARIANTS)}")

    def _check_comparison(self) -> None:
        compared = any(getattr(self.comparison, task).studies for task in METHODS)
        if compared and self.comparison.ours not in self.trained_variants:
            raise ValueError(
                f"comparison.ours: '{self.comparison.ours}' is not in variants."
                f"{suggestion(self.comparison.ours, self.trained_variants)}"
            )
        if self.comparison.tables and not compared:
            raise ValueError("comparison.tables names a report, but no study is compared: set it to []")
        for section in ("comparison", "tune"):
            for task, known in METHODS.items():
                compared_here: Compared = getattr(getattr(self, section), task)
                self._check_compared(f"{section}.{task}", task, compared_here, known)
        for name, methods in self.method_weights.items():
            if name not in self.study:
                raise ValueError(f"method_weights: unknown study '{name}'.{suggestion(name, self.study)}")
            task = self.study[name].task
            for method, weights in methods.items():
                if method not in METHODS[task]:
                    raise ValueError(
                        f"method_weights.{name}: '{method}' is no method of {task}.{suggestion(method, METHODS[task])}"
                    )
                if wrong := wrong_terms(task, method, weights.terms):
                    raise ValueError(f"method_weights.{name}.{method}: {wrong}")

    def _check_deploy(self) -> None:
        deploy = self.deploy
        if len(set(deploy.studies)) != len(deploy.studies):
            raise ValueError(f"deploy.studies: each once, not {list(deploy.studies)}")
        if bool(deploy.tables) != bool(deploy.studies):
            raise ValueError("deploy: tables names the report on studies, so both are given or both are []")
        if deploy.studies and deploy.method not in self.trained_variants:
            raise ValueError(
                f"deploy.method: '{deploy.method}' is not in variants."
                f"{suggestion(deploy.method, self.trained_variants)}"
            )

    def _check_compared(self, key: str, task: str, compared: Compared, known: tuple[str, ...]) -> None:
        for part in ("studies", "methods"):
            values = getattr(compared, part)
            if len(set(values)) != len(values):
                raise ValueError(f"{key}.{part}: each once, not {list(values)}")
        for name in compared.studies:
            if name not in self.study:
                raise ValueError(f"{key}.studies: unknown study '{name}'.{suggestion(name, self.study)}")
            if self.study[name].task != task:
                raise ValueError(f"{key}.studies: '{name}' is a study of {self.study[name].task}")
        for method in compared.methods:
            if method not in known:
                elsewhere = " It is one of the other task." if method in COMPARISON_METHODS else ""
                raise ValueError(
                    f"{key}.methods: unknown method '{method}'.{elsewhere or suggestion(method, known)} "
                    f"Known: {', '.join(known)}."
                )
            for name in compared.studies:
                if key.startswith("comparison") and method not in self.method_weights.get(name, {}):
                    raise ValueError(f"method_weights.{name} lacks '{method}', which {key}.methods lists")
            least, batch = settings_type(task, method).least_batch, self.training.batch_size
            if compared.studies and batch < least:
                raise ValueError(
                    f"training.batch_size: {batch} is too small for {method} ({key}.methods), which looks at the "
                    f"images of a batch together. Set it to {least} or more, or leave {method} out."
                )


def load(path: Path) -> dict[str, Any]:
    """The raw mapping in the YAML file at `path`.

    Raises ParamsError if there is no such file or it is not a YAML mapping of plain values.
    """
    try:
        text, yaml = path.read_text(encoding="utf-8"), YAML(typ="safe", pure=True)  # it says best what is wrong
        document = yaml.compose(text)
        if _more_than(MOST_VALUES, document):
            raise ParamsError(
                f"{path}: expected settings, found more than {MOST_VALUES:,} values, counting what aliases (*name) "
                "repeat. Write the values out."
            )
        raw = yaml.constructor.construct_document(document) if document else None
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file. Commands run in the project's root, where params.yaml lies."
        ) from None
    except OSError as error:  # a folder, no permission
        raise ParamsError(f"{path}: cannot be read ({error.strerror}). Expected a YAML file of settings.") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    except (YAMLError, ValueError, RecursionError) as error:  # a number of 5000 digits; brackets in brackets
        raise ParamsError(f"{path}: not valid YAML: {_yaml_reason(error)}. Mend it there.") from None
    if not isinstance(raw, dict):
        found = "none" if raw is None else f"a {type(raw).__name__}"
        raise ParamsError(f"{path}: expected a mapping of settings, found {found}. Bring the file back.")
    return raw


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "brackets nested too deeply"
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark, problem = error.problem_mark, " ".join(error.problem.split())
    if problem.startswith("but "):
        problem = f"{error.context} {problem}"
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}"


def _more_than(most: int, document: Node | None) -> bool:
    """Whether there are more values than `most`; of aliases that multiply one another, no more are looked at."""
    waiting, count = [document], 0
    while waiting and count <= most:
        count += 1
        node = waiting.pop()
        if isinstance(node, MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            waiting += node.value
    return count > most


def check(raw: Mapping[str, Any], path: Path = Path("params.yaml")) -> Params:
    """Validates the whole file.

    Raises ParamsError naming the key, what was expected and, for a misspelt key, the likely one.
    """
    return _validated(Params, dict(raw), "", path)


def warn_of_sum(weights: VariantWeights, where: str, path: Path = Path("params.yaml")) -> None:
    """Warns of a student whose alpha, beta and gamma do not sum to 1 (all of the paper's do)."""
    for student in ("S1", "S2"):
        w: StudentWeights = getattr(weights, student)
        total = w.alpha + w.beta + w.gamma
        if not math.isclose(total, 1, abs_tol=1e-6):
            warnings.warn(
                f"{path}: {where}.{student}: alpha + beta + gamma = {total:g}, not 1; kept as it stands",
                stacklevel=2,
            )


def dotted(file: str, key: str = "") -> str:
    """The place in the settings (`load`) of `key` in `file`: `task` in studies/lgg.yaml is `study.lgg.task`.

    Without `key`, of the whole file.
    """
    folder = FOLDERS.get(PurePosixPath(file).parent.name)
    parts = [folder, PurePosixPath(file).stem, key] if folder else [key]
    return ".".join(filter(None, parts))


def select(raw: Mapping[str, Any], key: str, kind: type[T], path: Path = Path("params.yaml")) -> T:
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


def _validated(kind: type[T], value: Any, prefix: str, path: Path) -> T:
    strict = None if _is_section(kind) else ConfigDict(strict=True)  # a Section has its own
    try:
        return TypeAdapter(kind, config=strict).validate_python(value)
    except ValidationError as error:
        errors = error.errors()
        within = {mistake["loc"][:-1] for mistake in errors}  # a list with a wrong item counts as too short as well
        errors = [mistake for mistake in errors if mistake["type"] != "too_short" or mistake["loc"] not in within]
        mistakes = [_sentence(mistake, kind, prefix) for mistake in errors[:MOST_MISTAKES]]
        if (more := len(errors) - len(mistakes)) > 0:
            mistakes.append(f"and {more} more mistake{'s' if more > 1 else ''}")
        raise ParamsError(f"{path}: " + "; ".join(mistakes)) from None


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
"""Pydantic's errors that it words for programmers."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def _fields_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    for part in location:
        kind = _section_in(kind)
        if _is_section(kind):
            kind = kind.model_fields[part].annotation
        elif not isinstance(part, int):  # dict[str, X]; of a tuple[X, ...] `kind` is X already
            kind = get_args(kind)[-1]
    kind = _section_in(kind)
    return list(kind.model_fields) if _is_section(kind) else []


def _section_in(kind: Any) -> Any:
    """The Section in `Section | None` and in `tuple[Section, ...]`; anything else as it is."""
    if get_origin(kind) is dict:
        return kind
    return next((part for part in get_args(kind) if _is_section(part)), kind)


def _is_section(kind: Any) -> TypeGuard[type[Section]]:
    return isinstance(kind, type) and issubclass(kind, Section)
