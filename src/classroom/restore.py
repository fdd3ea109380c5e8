"""Restores trained networks from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from classroom.artifacts import Metrics, NetworkFacts
from classroom.core.networks.build import Network, build
from classroom.core.networks.weights import not_finite
from classroom.errors import TrainingError, reading
from classroom.files import read_metrics
from classroom.params import Network as NetworkSettings

PROJECTOR = "body.last."
"""The prefix by which a student with its teacher's head (SimKD) is recognised."""
SHARED_FACTS: tuple[Literal["study", "seed", "data"], ...] = ("study", "seed", "data")
"""Facts that a run and the run of its teacher must share."""


def restore(run: Path, name: str, teacher_run: Path | None = None) -> Network:
    """Restores a network on the CPU, in eval mode and without gradients. Downloads nothing.

    Parameters
    ----------
    run
        folder of the run
    name
        T, S1 or S2
    teacher_run
        The study's teacher of the same seed, used if T was not trained in `run` because it was frozen or the method
        has no teacher.

    Raises
    ------
    DataError, TrainingError
        A file is missing, damaged, of another network or of one that diverged, or the student has its teacher's head
        (SimKD).
    """
    about = read_metrics(run)
    state = _weights(run, name)
    if not state:
        return _from_teacher(run, about, name, teacher_run)
    if any(key.startswith(PROJECTOR) for key in state):
        raise TrainingError(
            f"{run}: {name} ends in its teacher's classifier ({about['method']}), so it cannot be restored by itself. "
            "Use another method."
        )
    facts = _facts(run, about, name)
    try:
        known = {key: value for key, value in facts.items() if key in NetworkSettings.model_fields}
        settings = NetworkSettings.model_validate(known | {"weights": "random"})
        network = build(settings, facts["task"], classes=len(about["data"]["labels"]), seed=0)
        network.normalise(facts["normalisation"]["mean"], facts["normalisation"]["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{run / 'metrics.json'}: does not describe {name} ({_one_line(error)}). Train this run again."
        ) from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            f"{run / 'weights.safetensors'}: {name} is another network than metrics.json says ({_one_line(error)}). "
            "Train this run again."
        ) from None
    network.facts = facts
    return network.requires_grad_(False).eval()


def _from_teacher(run: Path, about: Metrics, name: str, teacher_run: Path | None) -> Network:
    if name != "T" or about["method"] == "teacher":
        raise TrainingError(f"{run}: holds no weights of '{name}'. Its networks: {', '.join(about['networks'])}.")
    if teacher_run is None:
        raise TrainingError(f"{run}: T was not trained in it. Name the run of the study's teacher with the same seed.")
    teacher = read_metrics(teacher_run)
    other: list[str] = [fact for fact in SHARED_FACTS if teacher[fact] != about[fact]]
    if "T" in about["networks"] and teacher["networks"].get("T") != about["networks"]["T"]:
        other.append("network")
    if teacher["method"] != "teacher":
        other.append("method")
    if other:
        raise TrainingError(
            f"{teacher_run}: not the teacher of {run}: it differs in {', '.join(other)}. Train the study's teacher and "
            "then this method again."
        )
    return restore(teacher_run, "T")


def _facts(run: Path, about: Metrics, name: str) -> NetworkFacts:
    try:
        return about["networks"][name]
    except (KeyError, TypeError):
        raise TrainingError(f"{run / 'metrics.json'}: does not describe {name}. Train this run again.") from None


def _weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one network only."""
    path, prefix = run / "weights.safetensors", f"{name}."
    again = "Train this run again."
    with reading(path, again, SafetensorError, kind=TrainingError), safe_open(path, "pt") as file:
        state = {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    if wrong := not_finite(state):
        raise TrainingError(
            f"{path}: {name} diverged: {len(wrong)} of its tensors hold NaN or infinite values, '{wrong[0]}' first. "
            "Lower training.learning_rate and train this run again."
        )
    return state


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
