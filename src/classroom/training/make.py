"""Builds a method from its name: networks, and a pre-trained teacher where needed."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from classroom.core.method import Method, network_seed, total
from classroom.core.networks.build import Network as BuiltNetwork
from classroom.core.networks.build import build, seeded
from classroom.core.networks.weights import not_finite
from classroom.errors import ClassroomError, ParamsError, TrainingError
from classroom.methods import registry
from classroom.params import (
    BASELINES,
    VARIANTS,
    Losses,
    MethodWeights,
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
    teacher_weights: Path | None,
    task: str,
    classes: int,
    image_size: int,
    point: Sequence[float] | None = None,
    known: dict[str, BuiltNetwork] | None = None,
) -> Method:
    """Builds a method.

    Parameters
    ----------
    name
        of the method
    study
        key of its settings
    raw
        the settings as read
    seed
        of the networks' random weights
    teacher_weights
        weights.safetensors of the study's teacher, read by methods with a frozen teacher; None: random weights
    task
        segmentation or classification
    classes
        number of classes; ignored for segmentation
    image_size
        pixels along a side
    point
        of a search, replaces the weights of the losses
    known
        The networks of other runs by key (`equality.keys`): those with the same key are used here too, the others are
        added. None: all networks are new.

    Raises
    ------
    ParamsError
        A setting is missing or invalid.
    TrainingError
        The method is unknown, or the teacher's file is missing or damaged.
    """
    registry.check(name, task)
    build_method = _baseline if name in BASELINES else _learning_styles if name in VARIANTS else _comparison
    return build_method(_Making(name, study, raw, seed, teacher_weights, task, classes, image_size, point, known))


def make_on_meta(name: str, study: str, raw: dict[str, Any], task: str, classes: int, image_size: int) -> Method:
    """As `make`, but on the meta device, which takes no memory and downloads nothing: validates settings.

    Published methods get their reference weights if `raw` has none.

    Parameters
    ----------
    name, study, raw, task, classes, image_size
        as in `make`
    """
    raw = copy.deepcopy(raw)
    for role in ("teacher", "student"):
        raw["study"][study][role]["weights"] = "random"
    if registry.is_published(name):
        methods = raw["study"][study].setdefault("methods", {})
        methods.setdefault(name, {"options": {}, "weights": dict(registry.load(name)[task].weights)})
    with torch.device("meta"):
        method = make(name, study, raw, 0, None, task, classes, image_size)
    method.begin_epoch(0, select(raw, "training.epochs", int))
    return method


def try_on_meta(
    name: str, study: str, raw: dict[str, Any], task: str, classes: int, image_size: int, batch: int
) -> None:
    """Takes the losses of one batch and their gradients on the meta device, where nothing is computed.

    Parameters
    ----------
    name, study, raw, task, classes, image_size
        as in `make`
    batch
        images in the batch

    Raises
    ------
    ParamsError
        A setting is invalid, the networks do not take such a batch, or the method's losses fail.
    """
    images = torch.zeros(batch, 3, image_size, image_size, device="meta")
    targets = torch.zeros_like(images[:, :1]) if task == "segmentation" else torch.zeros_like(images[:, 0, 0, 0]).long()
    try:
        method = make_on_meta(name, study, raw, task, classes, image_size).train()
        total(term.weight * term.value for term in method.losses(images, targets)).backward()
    except ClassroomError:
        raise
    except Exception as error:  # anything, of torch, the encoders and a method's own file
        raise ParamsError(_failure(name, error, f"{batch} images of {image_size}×{image_size} pixels")) from None


def _failure(name: str, error: Exception, batch: str) -> str:
    """What failed, and where. Of a network alone, batch and network are all that there is to change."""
    reason = " ".join(str(error).split())
    if name in BASELINES:
        return f"cannot be trained on {batch} ({reason}). Change image_size, training.batch_size or the encoders."
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    of_methods = [(file, line) for file, line in frames if file.is_relative_to(registry.FOLDER)]
    own = [(file, line) for file, line in of_methods if file == registry.FOLDER / f"{name}.py"]
    where = [f"{file.relative_to(registry.FOLDER.parents[2])}, line {line}: " for file, line in own or of_methods]
    return f"{''.join(where[-1:])}{type(error).__name__}: {reason} (with {batch})"


@dataclass(frozen=True)
class _Making:
    """The arguments of `make`."""

    name: str
    study: str
    raw: dict[str, Any]
    seed: int
    teacher_weights: Path | None
    task: str
    classes: int
    image_size: int
    point: Sequence[float] | None
    known: dict[str, BuiltNetwork] | None

    def network(self, name: str, role: str, taps: Sequence[str] = ()) -> BuiltNetwork:
        if self.known is None:
            return self.new(name, role, taps)
        from classroom.training.equality import keys

        key = keys(self.name, self.study, self.raw, self.point)[name]
        if select(self.raw, "training.compile", bool):
            key += str(taps)  # what else a compiled network has to return may change its rounding
        if key in self.known:
            self.known[key].shared_by_runs = True
            self.known[key].tap(taps)
        else:
            self.known[key] = self.new(name, role, taps)
        return self.known[key]

    def new(self, name: str, role: str, taps: Sequence[str]) -> BuiltNetwork:
        settings = select(self.raw, f"study.{self.study}.{role}", Network)
        return build(settings, self.task, self.classes, network_seed(self.seed, name), taps)


# Lazy imports: a run depends only on the code that it uses.


def _baseline(making: _Making) -> Method:
    from classroom.methods.baselines.single_network import SingleNetwork

    network = NETWORK_OF_BASELINE[making.name]
    return SingleNetwork(network, making.network(network, making.name), select(making.raw, "losses.task", TaskLoss))


def _learning_styles(making: _Making) -> Method:
    from classroom.methods.learning_styles.exchange import EXCHANGE
    from classroom.methods.learning_styles.method import LearningStyles

    variant = EXCHANGE[making.name]
    if making.point is None:
        key = f"study.{making.study}.weights.{making.name}"
        weights = select(making.raw, key, VariantWeights)
        warn_of_sum(weights, key)
    else:
        from classroom.methods.grid.points import weights_at

        weights = weights_at(variant, *making.point)
    losses = select(making.raw, "losses", Losses)
    roles = {"S1": "student", "S2": "student"}
    if variant.teacher != "none":
        roles = {"T": "teacher", **roles}
    networks = {network: making.network(network, role) for network, role in roles.items()}
    if variant.teacher == "frozen":
        _load_teacher(networks["T"], making.teacher_weights)
    return LearningStyles(variant, weights, networks, losses)


def _comparison(making: _Making) -> Method:
    from classroom.methods.shared.comparison import Comparison

    kind = registry.load(making.name)[making.task]
    key = f"study.{making.study}.methods.{making.name}"
    options = select(making.raw, f"{key}.options", kind)
    if making.point is None:
        weights = select(making.raw, f"{key}.weights", MethodWeights).terms
        if wrong := kind.wrong_terms(weights):
            raise ParamsError(f"studies/{making.study}.yaml: methods.{making.name}.weights: {wrong}")
    else:
        (factor,) = making.point
        weights = {term: factor * value for term, value in kind.weights.items()}
    taps = options.tapped()
    networks = {"T": making.network("T", "teacher", taps), "S1": making.network("S1", "student", taps)}
    _load_teacher(networks["T"], making.teacher_weights)
    task, batch = select(making.raw, "losses.task", TaskLoss), select(making.raw, "training.batch_size", int)
    with seeded(network_seed(making.seed, "extras")):
        return Comparison(networks, options, weights, task, making.image_size, batch)


def _load_teacher(teacher: nn.Module, path: Path | None) -> None:
    if path is None:
        return
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
        raise TrainingError(f"{path}: holds the weights of another network. Train the study's teacher again.") from None
    if wrong := not_finite(state):
        raise TrainingError(
            f"{path}: the teacher diverged: {len(wrong)} of its tensors hold NaN or infinite values, '{wrong[0]}' "
            "first. Lower training.learning_rate and train the study's teacher again."
        )
