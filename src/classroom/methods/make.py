"""From a method's name to the method: networks built, pre-trained teacher loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from classroom.errors import TrainingError
from classroom.methods import names
from classroom.methods.base import Method, network_seed
from classroom.networks.build import build
from classroom.params import (
    BASELINES,
    Losses,
    Network,
    TaskLoss,
    VariantWeights,
    select,
    warn_of_sum,
)

NETWORK_OF_BASELINE = {"teacher": "T", "student": "S1"}


def make(
    name: str,
    study: str,
    raw: dict[str, Any],
    seed: int,
    teacher_weights: Path,
    task: str,
    classes: int,
    point: Sequence[float] | None = None,
) -> Method:
    """The method called `name` for `study`, with the settings in `raw`; networks drawn from `seed`.

    `teacher_weights` is the file of the study's teacher baseline, read only by methods with a frozen
    teacher; `point` of a grid search takes the place of the variant's weights. Raises ParamsError for what the
    settings lack, TrainingError for an unknown method or if that file is missing or damaged.
    """
    names.check(name)
    if name in BASELINES:
        from classroom.methods.alone import Alone  # only what a run uses counts among its dependencies

        settings = select(raw, f"study.{study}.{name}", Network)
        network = NETWORK_OF_BASELINE[name]
        built = build(settings, task, classes, network_seed(seed, network))
        return Alone(network, built, select(raw, "losses.task", TaskLoss))

    from classroom.distill.exchange import EXCHANGE
    from classroom.methods.learning_styles import LearningStyles

    variant = EXCHANGE[name]
    if point is None:
        weights = select(raw, f"weights.{study}.{name}", VariantWeights)
        warn_of_sum(weights, f"weights.{study}.{name}")
    else:
        from classroom.distill.grid import weights_at

        weights = weights_at(variant, *point)
    losses = select(raw, "losses", Losses)
    roles = {"S1": "student", "S2": "student"}
    if variant.teacher != "none":
        roles = {"T": "teacher", **roles}
    networks = {
        network: build(select(raw, f"study.{study}.{role}", Network), task, classes, network_seed(seed, network))
        for network, role in roles.items()
    }
    if variant.teacher == "frozen":
        _load_teacher(networks["T"], teacher_weights)
    return LearningStyles(variant, weights, networks, losses)


def _load_teacher(teacher: nn.Module, path: Path) -> None:
    try:
        state = {key.removeprefix("T."): value for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: the trained teacher cannot be read ({' '.join(str(error).split())}). "
            "Train the study's teacher first: `classroom train STUDY teacher --seed SEED`."
        ) from None
    try:
        teacher.load_state_dict(state)
    except RuntimeError:
        raise TrainingError(f"{path}: the weights of another network. Train the study's teacher again.") from None
