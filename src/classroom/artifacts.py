"""Types of the JSON files of runs and results: metrics.json, results/ and results/costs/."""

# Annotations are evaluated here, for `__required_keys__` to leave out what is NotRequired.
from typing import Any, Literal, NotRequired, TypedDict

NetworkName = Literal["T", "S1", "S2", "ensemble", "ensemble_mean"]
MEAN_ENSEMBLE = "ensemble_mean"
"""The mean of both students' probabilities; `ensemble` is the paper's maximum."""
SPLIT_NAMES = ("train", "val", "test")
Scores = dict[str, dict[str, float]]
"""By network and metric, as fractions."""
Conversions = dict[str, dict[str, int]]
"""Of `images` and `masks`, how many files were converted, by the kind of conversion."""


def conversions(converted: Conversions) -> str:
    """`images: 444 × grey to three channels; masks: …`."""
    kinds = (f"{what}: " + ", ".join(f"{n} × {kind}" for kind, n in of.items()) for what, of in converted.items())
    return "; ".join(kinds)


class Dataset(TypedDict):
    """A study's dataset.json."""

    dataset: str
    source: str
    synthetic: bool
    task: str
    group: str
    """The kind of group, such as `patient`; `image` if every image is a group."""
    grouping: NotRequired[str]
    """How groups are identified, and what may still be in two splits."""
    images: int
    groups: int
    labels: dict[str, int]
    """Images by label."""
    image_size: int
    converted: NotRequired[Conversions]


class SplitSettings(TypedDict):
    """`split` of a study."""

    percent: list[int]
    by: str
    seed: int


class Splits(TypedDict):
    """How the data were split."""

    split: SplitSettings
    train: int
    val: int
    test: int
    lacking: dict[str, list[str]]
    """By split, the labels without an image."""


class Data(Dataset, Splits):
    """A run's facts about its data."""


class Normalisation(TypedDict):
    """Per channel, for images in [0, 1]."""

    mean: list[float]
    std: list[float]


class NetworkFacts(TypedDict):
    """Facts about a network."""

    task: str
    encoder: str
    encoder_options: dict[str, Any]
    decoder_channels: NotRequired[list[int]]
    conv6_channels: NotRequired[int]
    weights: str
    """`hub`, `random` or a path."""
    parameters: int
    normalisation: Normalisation


class TrainingSettings(TypedDict):
    """`training` of params.yaml, optional ones only where they are not the paper's."""

    epochs: int
    batch_size: int
    learning_rate: float
    precision: str
    threads: int
    compile: bool
    optimiser: NotRequired[str]
    weight_decay: NotRequired[float]
    schedule: NotRequired[str]
    warmup_epochs: NotRequired[int]
    clip_gradients: NotRequired[float]
    early_stopping: NotRequired[int]


class PublishedFacts(TypedDict):
    """Facts about a published method, for tables and model cards."""

    label: str
    paper: str
    differences: list[str]
    """Settings and weights that are not the reference's."""
    shown: list[str]
    """Settings that are always shown."""


class LossSettings(TypedDict):
    """Losses and weights of a method."""

    losses: dict[str, Any]
    weights: NotRequired[dict[str, Any]]
    """By student and Greek letter for a variant, by term for a published method."""
    options: NotRequired[dict[str, Any]]
    """Only for a published method."""
    published: NotRequired[PublishedFacts]


class RunSettings(LossSettings):
    training: TrainingSettings
    balance: str


class PerImageCounts(TypedDict):
    """The test images in one order: id, group and, by network, `core.metrics.per_image_counts`."""

    id: list[str]
    group: list[str]
    T: NotRequired[dict[str, list[int]]]
    S1: NotRequired[dict[str, list[int]]]
    S2: NotRequired[dict[str, list[int]]]
    ensemble: NotRequired[dict[str, list[int]]]
    ensemble_mean: NotRequired[dict[str, list[int]]]


class MethodFacts(TypedDict):
    """Facts that all seeds of a method share."""

    study: str
    method: str
    data: Data
    extra_parameters: int
    notes: list[str]
    settings: RunSettings


class RunFacts(MethodFacts):
    """Facts about a run before it trains."""

    seed: int


class BestEpochs(TypedDict):
    epochs: dict[str, int]
    """By trained network."""
    val: Scores
    test: Scores


class LastEpoch(TypedDict):
    epoch: int
    val: Scores
    test: Scores


class Metrics(RunFacts):
    """A run's metrics.json."""

    networks: dict[str, NetworkFacts]
    best: BestEpochs
    last: LastEpoch
    terms: dict[str, float]
    """Mean of every weighted loss term in the last epoch, by network and term."""
    test_images: PerImageCounts


class SeedResult(TypedDict):
    """A run in a method's results."""

    predictions: str
    """MD5 of predictions.parquet."""
    best_epoch: dict[str, int]
    validation: Scores
    test: Scores
    fidelity: Scores
    """With the teacher's predictions as the ground truth; empty without a teacher."""
    last_epoch_test: Scores
    last_epoch_terms: dict[str, float]
    test_images: PerImageCounts
    hd95: NotRequired[dict[str, list[float | None]]]
    """Of segmentation by network, for every test image: `evaluation.boundary.hd95`."""
    auroc: NotRequired[dict[str, float | None]]
    """Of classification by network: `evaluation.evaluate.auroc`."""


class Result(MethodFacts):
    """A method's results, as `classroom evaluate` writes them."""

    networks: dict[str, NetworkFacts]
    seeds: dict[str, SeedResult]
    tuned: NotRequired[bool]
    """In results/comparison/, whether a published method's weights were chosen on validation."""


class ResourceUse(TypedDict):
    """Time, memory and threads of a training."""

    device: str
    seconds: float
    seconds_per_epoch: float | None
    """None where no epoch was timed."""
    peak_memory_mb: dict[str, int]
    """`process`, and `device` for an accelerator."""
    threads: int


class TrainingFacts(ResourceUse):
    """What a training adds to its manifest.json."""

    best_epoch: dict[str, int]
    versions: dict[str, str]
    together: NotRequired[list[str]]
    """The methods of the runs that trained in the same process. Times are this run's share; memory is that of all."""


class Cost(ResourceUse):
    """The cost and inputs of a run. None where an older manifest lacks a value."""

    run: str
    bytes: int
    identity: str | None
    """Digest of the command, settings, code and data of the run."""
    code_version: str | None
    command: str | None
    best_epoch: dict[str, int] | None
    content: str
    """MD5 of the run's folder, as dvc.lock records it."""
    predictions: str
    """MD5 of predictions.parquet."""


class MethodCosts(TypedDict):
    """A method's file in results/costs/."""

    study: str
    method: str
    seeds: dict[str, Cost]


class TableCosts(MethodCosts):
    table: str
    """The study's table of variants."""


class ComparedResult(Result):
    """A method of results/comparison/ with the costs of its runs, by seed, from results/costs/comparison/."""

    costs: dict[str, Cost]


class ComparedResults(TypedDict):
    """A study's published methods, and its student alone and ours."""

    published: list[ComparedResult]
    beside: list[ComparedResult]


class Searched(TypedDict):
    """A point of a search: the validation metric by seed and network, and the costs by seed."""

    weights: dict[str, Any]
    data: Data
    seeds: Scores
    costs: dict[str, Cost]


class GridPoint(Searched):
    """A variant with the weights of one point of the grid."""

    variant: str
    alpha_1: float
    alpha_2: float
    teacher_share: float


class FactorPoint(Searched):
    """A published method with its reference weights times a factor."""

    method: str
    factor: float
