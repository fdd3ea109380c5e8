"""The training loop: one, two or three networks, whatever the method."""

from __future__ import annotations

import math
import signal
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from classroom.artifacts import Scores
from classroom.data.augment import Augment
from classroom.data.batches import SplitData, order
from classroom.errors import TrainingError
from classroom.evaluation.ensemble import with_ensemble
from classroom.evaluation.metrics import decide, records, score
from classroom.evaluation.predictions import quantise
from classroom.methods.base import Method, Term, total
from classroom.params import Training
from classroom.training.checkpoint import Checkpoints, Progress


def fit(
    method: Method,
    data: dict[str, SplitData],
    augment: Augment,
    settings: Training,
    balance: str,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Callable[[Progress, int], None],
    log: Callable[[str], None],
) -> Progress:
    """Trains `method` to its last epoch and returns the progress with history and best weights.

    The order of samples and their augmentation are functions of seed, epoch and step alone. `report` is
    called after every step with the progress and the steps per epoch. Raises TrainingError for a training
    split under one batch and for a loss that is not finite.
    """
    train = data["train"]
    # An incomplete last batch would spoil batch statistics.
    drawn = len(order(train, balance, seed, 0))
    steps = drawn // settings.batch_size
    if steps == 0:
        raise TrainingError(
            f"the training split gives {drawn} images, fewer than one batch of {settings.batch_size}. "
            "Lower training.batch_size or use more data."
        )
    optimiser = checkpoints.optimiser
    progress = checkpoints.restore(log)
    with Interruption() as interruption:
        while progress.epoch < settings.epochs:
            positions = order(train, balance, seed, progress.epoch)
            method.train()
            method.begin_epoch(progress.epoch, settings.epochs)
            for step in range(progress.step, steps):
                batch = positions[step * settings.batch_size : (step + 1) * settings.batch_size]
                images, targets = train.batch(batch, device)
                augmented = augment(images, targets, zlib.crc32(f"{seed}/{progress.epoch}/{step}".encode()))
                terms = train_step(method, optimiser, settings, *augmented)
                values = _values(terms)
                if not all(map(math.isfinite, values)):
                    raise TrainingError(_not_finite(terms, values, progress, step, checkpoints))
                _add(progress, terms, values)
                report(progress, steps)
                if interruption.requested or checkpoints.due():
                    checkpoints.save(progress)
                interruption.stop_if_requested()
            _close_epoch(progress, method, data["val"], settings, steps, device)
            checkpoints.save(progress)
    return progress


def make_optimiser(method: Method, settings: Training) -> torch.optim.Optimizer:
    """Adam over everything that learns in `method`."""
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return torch.optim.Adam(learning, lr=settings.learning_rate, fused=True)


def train_step(
    method: Method, optimiser: torch.optim.Optimizer, settings: Training, images: torch.Tensor, targets: torch.Tensor
) -> list[Term]:
    """One step on an augmented batch: losses, backward pass, optimiser. Returns the loss terms.

    Parameters
    ----------
    method
        in training mode
    optimiser
        of `make_optimiser`
    settings
        Only `precision` is read.
    images : (B, 3, H, W) in [0, 1]
    targets : (B, 1, H, W) of {0, 1}, or classes (B,)
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        terms = method.losses(images, targets)
    optimiser.zero_grad(set_to_none=True)
    total(term.weight * term.value for term in terms).backward()
    optimiser.step()
    method.after_step()
    return terms


class Judgement:
    """What networks and their ensemble decided, image by image; collected by batches, as predictions of all images at a
    time would take memory for each of them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, list[np.ndarray]]] = {}

    def add(self, predicted: dict[str, np.ndarray], truth: np.ndarray) -> None:
        """Judges one batch of what `predict` yields."""
        for name, stack in with_ensemble(predicted).items():
            of_network = self._kept.setdefault(name, {})
            for key, values in records(decide(stack), truth).items():
                of_network.setdefault(key, []).append(values)

    @property
    def per_image(self) -> dict[str, dict[str, np.ndarray]]:
        """By network, `records` of all images that were added, in their order."""
        return {
            name: {key: np.concatenate(values) for key, values in of_network.items()}
            for name, of_network in self._kept.items()
        }

    @property
    def scores(self) -> Scores:
        """All metrics by network, and of the students' ensemble where there are two."""
        return {name: score(of_network) for name, of_network in self.per_image.items()}


def judge(method: Method, split: SplitData, batch_size: int, device: torch.device) -> Judgement:
    """Of every image of a split."""
    judgement = Judgement()
    for predicted, truth in predict(method, split, batch_size, device):
        judgement.add(predicted, truth)
    return judgement


@torch.no_grad()
def predict(
    method: Method, split: SplitData, batch_size: int, device: torch.device
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """By batch, in the split's order: what every network thinks, as it is kept and judged, and the truth.

    Bytes ⌊256·p⌋ (B, H, W) of masks, float32 probabilities (B, classes) of classes; the truth as `SplitData.truth`.
    """
    method.eval()
    for images, targets in split.in_order(batch_size, device):
        predicted = {}
        for name, tensor in method.predict(images).items():
            probabilities = tensor.cpu().numpy()
            predicted[name] = quantise(probabilities[:, 0]) if probabilities.ndim == 4 else probabilities
        truth = targets.cpu().numpy()
        yield predicted, truth[:, 0] > 0 if truth.ndim == 4 else truth


class Interruption:
    """SIGTERM and Ctrl-C end the training after the step under way, with its checkpoint written."""

    def __enter__(self) -> Interruption:
        self.requested = 0
        self.before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def stop_if_requested(self) -> None:
        if self.requested:
            raise SystemExit(128 + self.requested)

    def _request(self, number: int, frame: object) -> None:
        self.requested = number


def _values(terms: list[Term]) -> list[float]:
    """In one go, and asked for when the whole step is queued: the only time that a step waits for a GPU."""
    return torch.stack([term.value.detach().float() for term in terms]).tolist()


def _add(progress: Progress, terms: list[Term], values: list[float]) -> None:
    for term, value in zip(terms, values, strict=True):
        key = f"{term.network}/{term.name}"
        progress.sums[key] = progress.sums.get(key, 0.0) + value
        progress.weighted[key] = progress.weighted.get(key, 0.0) + term.weight * value
    progress.step += 1


def _close_epoch(
    progress: Progress, method: Method, val: SplitData, settings: Training, steps: int, device: torch.device
) -> None:
    """Validates, keeps each network's best weights, writes the epoch's row of history and turns to the next epoch."""
    by_network = judge(method, val, settings.batch_size, device).scores
    row: dict[str, float] = {"epoch": progress.epoch + 1, "learning_rate": settings.learning_rate}
    row |= {f"loss/{key}": total / steps for key, total in progress.sums.items()}
    row |= {f"weighted/{key}": total / steps for key, total in progress.weighted.items()}
    row |= {f"val/{name}/{metric}": value for name in by_network for metric, value in by_network[name].items()}
    progress.history.append(row)
    for name in method.trained:
        chosen_by = next(iter(by_network[name].values()))
        if chosen_by > progress.best_score.get(name, -1.0):
            state = method.state_of(name)
            progress.best_state |= {key: value.detach().cpu().clone() for key, value in state.items()}
            progress.best_epoch[name], progress.best_score[name] = progress.epoch + 1, chosen_by
    progress.epoch, progress.step, progress.sums, progress.weighted = progress.epoch + 1, 0, {}, {}


def _not_finite(terms: list[Term], values: list[float], progress: Progress, step: int, checkpoints: Checkpoints) -> str:
    guilty = [f"{t.network}/{t.name}" for t, value in zip(terms, values, strict=True) if not math.isfinite(value)]
    kept = f"The last good checkpoint is {checkpoints.newest}." if checkpoints.newest.exists() else "No checkpoint yet."
    return (
        f"loss not finite in epoch {progress.epoch + 1}, step {step + 1}: {', '.join(guilty)}. {kept} "
        "Lower training.learning_rate or look at the images of this batch, then run the same command again."
    )
