"""The training loop: one, two or three networks, whatever the method."""

from __future__ import annotations

import functools
import math
import signal
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from classroom.artifacts import Scores
from classroom.core.augment import Augment
from classroom.core.batches import SplitData, order
from classroom.core.ensemble import with_ensemble
from classroom.core.method import Method, Term, total
from classroom.core.metrics import per_image_counts, predict_labels, score
from classroom.core.predictions import quantise
from classroom.errors import TrainingError
from classroom.params import Training
from classroom.training.checkpoint import Checkpoints, DivergedError, Progress

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}


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
    """Trains `method` to its last epoch, or to the one at which `early_stopping` ends it.

    The order of samples and their augmentation depend on seed, epoch and step only.

    Parameters
    ----------
    method
        on `device`
    data
        the splits `train` and `val`
    augment
        applied to training batches
    settings
        `training` of params.yaml
    balance
        as in `batches.order`
    seed
        of the run
    device
        that trains
    checkpoints
        where to resume from and save to; holds the optimiser
    report
        called after every step with the progress and the steps per epoch
    log
        called with a line about resuming

    Returns
    -------
    The progress with history and best weights.

    Raises
    ------
    TrainingError
        The training split is smaller than one batch.
    DivergedError
        A loss, weight or prediction is not finite.
    """
    train = data["train"]
    # An incomplete last batch would distort batch statistics.
    drawn = len(order(train, balance, seed, 0))
    steps = drawn // settings.batch_size
    if steps == 0:
        raise TrainingError(
            f"the training split gives {drawn} images, fewer than one batch of {settings.batch_size}. "
            "Lower training.batch_size or use more data."
        )
    optimiser = checkpoints.optimiser
    progress = checkpoints.restore(log)
    schedule = make_schedule(optimiser, settings, steps, progress.epoch * steps + progress.step)
    with Interruption() as interruption:
        while progress.epoch < settings.epochs and not _stalled(progress, method, settings, log):
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
                    raise DivergedError(_not_finite(terms, values, progress, step))
                _add(progress, terms, values)
                schedule.step()
                report(progress, steps)
                if interruption.requested or checkpoints.due():
                    checkpoints.save(progress)
                interruption.stop_if_requested()
            _close_epoch(progress, method, data["val"], settings, steps, float(schedule.get_last_lr()[0]), device)
            checkpoints.save(progress)
    return progress


def make_optimiser(method: Method, settings: Training) -> torch.optim.Optimizer:
    """The optimiser of everything that learns in `method`."""
    parameters = [parameter for part in method.learning for parameter in part]
    make = OPTIMISERS[settings.optimiser]
    return make(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)


def make_schedule(optimiser: torch.optim.Optimizer, settings: Training, steps: int, done: int) -> LambdaLR:
    """The schedule of the learning rate, a function of the step alone: checkpoints need not store it.

    Parameters
    ----------
    optimiser
        new, or restored after `done` steps
    settings
        of the training
    steps
        per epoch
    done
        steps that are behind
    """
    rising, all_steps = settings.warmup_epochs * steps, settings.epochs * steps

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        if settings.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - rising) / (all_steps - rising))) / 2

    return LambdaLR(optimiser, share, last_epoch=done - 1)


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
        Only `precision` and `clip_gradients` are read.
    images : (B, 3, H, W) in [0, 1]
    targets : (B, 1, H, W) of {0, 1}, or classes (B,)
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        terms = method.losses(images, targets)
    optimiser.zero_grad(set_to_none=True)
    total(term.weight * term.value for term in terms).backward()
    if settings.clip_gradients:
        for part in method.learning:  # each for itself, so that no network's step depends on another's gradient
            torch.nn.utils.clip_grad_norm_(part, settings.clip_gradients)
    optimiser.step()
    method.after_step()
    return terms


class MetricAccumulator:
    """Collects the counts of networks and their ensemble by batch, so that no split's predictions fill the memory."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[np.ndarray]]] = {}

    def add(self, predicted: dict[str, np.ndarray], ground_truth: np.ndarray) -> None:
        """Adds one batch of `predict`."""
        for name, stack in with_ensemble(predicted).items():
            of_network = self._counts.setdefault(name, {})
            for key, values in per_image_counts(predict_labels(stack), ground_truth).items():
                of_network.setdefault(key, []).append(values)

    @property
    def per_image(self) -> dict[str, dict[str, np.ndarray]]:
        """By network, `per_image_counts` of all images added, in their order."""
        return {
            name: {key: np.concatenate(values) for key, values in of_network.items()}
            for name, of_network in self._counts.items()
        }

    @property
    def scores(self) -> Scores:
        """All metrics by network, including the ensemble of two students."""
        return {name: score(of_network) for name, of_network in self.per_image.items()}


def evaluate(method: Method, split: SplitData, batch_size: int, device: torch.device, when: str) -> MetricAccumulator:
    """Evaluates every network on a whole split.

    Parameters
    ----------
    method
        on `device`; left in eval mode
    split
        the images
    batch_size
        images at a time
    device
        that predicts
    when
        as in `predict`
    """
    metrics = MetricAccumulator()
    for predicted, ground_truth in predict(method, split, batch_size, device, when):
        metrics.add(predicted, ground_truth)
    return metrics


@torch.no_grad()
def predict(
    method: Method, split: SplitData, batch_size: int, device: torch.device, when: str
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Yields, batch by batch in the split's order, the predictions of every network and the ground truth.

    Parameters
    ----------
    method
        on `device`; left in eval mode
    split
        the images
    batch_size
        images at a time
    device
        that predicts
    when
        whose weights these are, such as `after epoch 3`, for the error

    Yields
    ------
    predicted : (B, H, W) uint8, ⌊256·p⌋; or (B, classes) float32
        by network
    ground_truth : (B, H, W) bool, or (B,) int64

    Raises
    ------
    DivergedError
        A probability is not finite.
    """
    method.eval()
    for images, targets in split.in_order(batch_size, device):
        predicted = {}
        for name, tensor in method.predict(images).items():
            probabilities = tensor.cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise DivergedError(f"the predictions of {name} are not finite {when}")
            predicted[name] = quantise(probabilities[:, 0]) if probabilities.ndim == 4 else probabilities
        ground_truth = targets.cpu().numpy()
        yield predicted, ground_truth[:, 0] > 0 if ground_truth.ndim == 4 else ground_truth


class Interruption:
    """Delays SIGTERM, SIGHUP and Ctrl-C to the end of the current step, so that its checkpoint is saved first.

    SIGHUP is the end of an SSH session; where it is ignored, as under nohup, it stays so.
    """

    def __enter__(self) -> Interruption:
        self.requested = 0
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        handled = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._request) for number in handled}
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
    """All values in one transfer after the whole step is queued: the only time that a step waits for the GPU."""
    return torch.stack([term.value.detach().float() for term in terms]).tolist()


def _add(progress: Progress, terms: list[Term], values: list[float]) -> None:
    for term, value in zip(terms, values, strict=True):
        key = f"{term.network}/{term.name}"
        progress.sums[key] = progress.sums.get(key, 0.0) + value
        progress.weighted[key] = progress.weighted.get(key, 0.0) + term.weight * value
    progress.step += 1


def _stalled(progress: Progress, method: Method, settings: Training, log: Callable[[str], None]) -> bool:
    """Whether `early_stopping` ends the training: no network got better for so many epochs."""
    if settings.early_stopping is None or not progress.best_epoch:
        return False
    since = max(method.first_stage(settings.epochs), *progress.best_epoch.values())
    if stalled := progress.epoch - since >= settings.early_stopping:
        log(f"ends after epoch {progress.epoch} of {settings.epochs}: no better validation since epoch {since}")
    return stalled


def _close_epoch(
    progress: Progress,
    method: Method,
    val: SplitData,
    settings: Training,
    steps: int,
    rate: float,
    device: torch.device,
) -> None:
    """Validates, keeps each network's best weights, adds the epoch to the history and starts the next epoch."""
    by_network = evaluate(method, val, settings.batch_size, device, f"after epoch {progress.epoch + 1}").scores
    row: dict[str, float] = {"epoch": progress.epoch + 1, "learning_rate": rate}
    row |= {f"loss/{key}": total / steps for key, total in progress.sums.items()}
    row |= {f"weighted/{key}": total / steps for key, total in progress.weighted.items()}
    row |= {f"val/{name}/{metric}": value for name in by_network for metric, value in by_network[name].items()}
    progress.history.append(row)
    for name in method.trained:
        selection_metric = next(iter(by_network[name].values()))
        if selection_metric > progress.best_score.get(name, -1.0):
            state = method.state_of(name)
            progress.best_state |= {key: value.detach().cpu().clone() for key, value in state.items()}
            progress.best_epoch[name], progress.best_score[name] = progress.epoch + 1, selection_metric
    progress.epoch, progress.step, progress.sums, progress.weighted = progress.epoch + 1, 0, {}, {}


def _not_finite(terms: list[Term], values: list[float], progress: Progress, step: int) -> str:
    wrong = [f"{t.network}/{t.name}" for t, value in zip(terms, values, strict=True) if not math.isfinite(value)]
    return f"the loss {', '.join(wrong)} is not finite in epoch {progress.epoch + 1}, step {step + 1}"
