"""The training loop: one run or several, whatever their methods."""

from __future__ import annotations

import functools
import itertools
import math
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from classroom.artifacts import RunFacts, Scores
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


@dataclass(eq=False)
class Run:
    """A training under way: one method with its optimiser. Runs may share networks, as `equality.keys` says."""

    name: str
    method: Method
    optimiser: torch.optim.Optimizer
    checkpoints: Checkpoints
    progress: Progress
    target: Path
    """Where its files are written."""
    facts: RunFacts
    diverged: DivergedError | None = None
    weights: dict[str, float] = field(default_factory=dict)
    """Of the terms of the last step's loss, by network and name."""

    def is_over(self, settings: Training) -> bool:
        """Whether it has trained all epochs, or `early_stopping` ends it: no network got better for so many."""
        if self.progress.epoch >= settings.epochs:
            return True
        if settings.early_stopping is None or not self.progress.best_epoch:
            return False
        return self.progress.epoch - self.better_until(settings) >= settings.early_stopping

    def better_until(self, settings: Training) -> int:
        """The last epoch in which a network got better, or could not yet."""
        return max(self.method.first_stage(settings.epochs), *self.progress.best_epoch.values())

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever diverges inside ends this run alone."""
        try:
            yield
        except DivergedError as error:
            weights = ", ".join(f"{term} {weight:g}" for term, weight in self.weights.items())
            of_losses = weights and f"; weights of the losses: {weights}"
            self.diverged = DivergedError(f"{error} (NaN or infinite{of_losses})")


def fit(
    runs: Sequence[Run],
    data: dict[str, SplitData],
    augment: Augment,
    settings: Training,
    balance: str,
    seed: int,
    device: torch.device,
    report: Callable[[Sequence[Run], int], None],
) -> list[Run]:
    """Trains runs of one study and seed, on the same batches, until one or more of them are over.

    A run is over at its last epoch, or at the one at which `early_stopping` ends it.
    The order of samples and their augmentation depend on seed, epoch and step only. A network that several runs share
    learns once; each run still has the bits that it has when it is trained alone.

    Parameters
    ----------
    runs
        at the same step of the same epoch
    data
        the splits `train` and `val`
    augment
        applied to training batches
    settings
        `training` of params.yaml
    balance
        as in `batches.order`
    seed
        of the runs
    device
        that trains
    report
        called after every step with the runs and the steps per epoch

    Returns
    -------
    The runs that have not diverged, with history and best weights: those that are over, and others.

    Raises
    ------
    TrainingError
        The training split is smaller than one batch.
    DrawingError
        A step of several runs has drawn random numbers.
    """
    train, going = data["train"], list(runs)
    # An incomplete last batch would distort batch statistics.
    drawn = len(order(train, balance, seed, 0))
    steps = drawn // settings.batch_size
    if steps == 0:
        raise TrainingError(
            f"the training split gives {drawn} images, fewer than one batch of {settings.batch_size}. "
            "Lower training.batch_size or use more data."
        )
    done = runs[0].progress.epoch * steps + runs[0].progress.step
    schedules = {run: make_schedule(run.optimiser, settings, steps, done) for run in runs}
    with Interruption() as interruption:
        while going and not any(run.is_over(settings) for run in going):
            epoch = going[0].progress.epoch
            positions = order(train, balance, seed, epoch)
            for run in going:
                run.method.train()
                run.method.begin_epoch(epoch, settings.epochs)
            for step in range(going[0].progress.step, steps):
                batch = positions[step * settings.batch_size : (step + 1) * settings.batch_size]
                images, targets = train.batch(batch, device)
                augmented = augment(images, targets, zlib.crc32(f"{seed}/{epoch}/{step}".encode()))
                going = step_together(going, settings, *augmented)
                if not going:
                    return []
                for run in going:
                    schedules[run].step()
                report(going, steps)
                if interruption.requested or any(run.checkpoints.due() for run in going):
                    going = _save(going)
                interruption.stop_if_requested()
            going = _save(_close_epoch(going, data["val"], settings, steps, device))
    return going


class DrawingError(Exception):
    """These runs have drawn random numbers in a step, which would depend on the runs that train together."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.names = [run.name for run in runs]
        super().__init__(", ".join(self.names))


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


def step_together(runs: Sequence[Run], settings: Training, images: torch.Tensor, targets: torch.Tensor) -> list[Run]:
    """One step of each run on the same augmented batch; returns the runs that have not diverged.

    Parameters
    ----------
    runs
        in training mode
    settings, images, targets
        as in `train_step`

    Raises
    ------
    DrawingError
        There are several runs, and the step of one has drawn random numbers.
    """
    trained = set[nn.Module]()
    of_runs, drawing = [], []
    for run in runs:
        before = _random_state(images.device)
        of_runs.append(train_step(run.method, run.optimiser, settings, images, targets, trained))
        if not torch.equal(before, _random_state(images.device)):
            drawing.append(run)
    if drawing and len(runs) > 1:
        raise DrawingError(drawing)
    values = iter(_values([term for terms in of_runs for term in terms]))
    for run, terms in zip(runs, of_runs, strict=True):
        own = [(term, next(values)) for term in terms]
        run.weights = {f"{term.network}/{term.name}": term.weight for term in terms}
        with run.watched():
            _add(run.progress, own)
    return not_diverged(runs)


def train_step(
    method: Method,
    optimiser: torch.optim.Optimizer,
    settings: Training,
    images: torch.Tensor,
    targets: torch.Tensor,
    trained: set[nn.Module] | None = None,
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
    trained
        The networks that runs before this one have already trained on this batch; this method's are added.
    """
    trained = set() if trained is None else trained
    with torch.autocast(images.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        terms = method.losses(images, targets)
    if new := [term for term in terms if method.networks[term.network] not in trained]:
        total(term.weight * term.value for term in new).backward()
    # From here on nothing happens to networks that are already trained: these have no gradients.
    if settings.clip_gradients:
        for part in method.learning:  # each for itself, so that no network's step depends on another's gradient
            torch.nn.utils.clip_grad_norm_(part, settings.clip_gradients)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    method.after_step()
    trained |= set(method.networks.values())
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


def evaluate(
    runs: Sequence[Run], split: SplitData, batch_size: int, device: torch.device, when: str
) -> dict[str, MetricAccumulator]:
    """Evaluates every network of runs on a whole split, those that runs share once; returns the metrics by run.

    A run that has diverged is marked so and left out.

    Parameters
    ----------
    runs
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
    metrics = {run.name: MetricAccumulator() for run in runs}
    going = list(runs)
    for run in runs:
        run.method.eval()
    for images, targets in split.in_order(batch_size, device):
        ground_truth = as_labels(targets)
        for run in going:
            with run.watched():
                metrics[run.name].add(predict(run.method, images, when), ground_truth)
        going = not_diverged(going)
    return {run.name: metrics[run.name] for run in going}


@torch.no_grad()
def predict(method: Method, images: torch.Tensor, when: str) -> dict[str, np.ndarray]:
    """The predictions of every network for one batch: (B, H, W) uint8, ⌊256·p⌋; or (B, classes) float32.

    Parameters
    ----------
    method
        in eval mode
    images : (B, 3, H, W) in [0, 1]
    when
        whose weights these are, such as `after epoch 3`, for the error

    Raises
    ------
    DivergedError
        A probability is not finite.
    """
    predicted = {}
    for name, tensor in method.predict(images).items():
        probabilities = tensor.cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise DivergedError(f"the predictions of {name} are not finite {when}")
        predicted[name] = quantise(probabilities[:, 0]) if probabilities.ndim == 4 else probabilities
    return predicted


def as_labels(targets: torch.Tensor) -> np.ndarray:
    """Targets of a batch as ground truth: (B, H, W) bool, or (B,) int64."""
    ground_truth = targets.cpu().numpy()
    return ground_truth[:, 0] > 0 if ground_truth.ndim == 4 else ground_truth


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
        """Ends the process, with the exit code of the signal, if one has arrived."""
        if self.requested:
            raise SystemExit(128 + self.requested)

    def _request(self, number: int, frame: object) -> None:
        self.requested = number


def _values(terms: list[Term]) -> list[float]:
    """All values in one transfer after the whole step is queued: the only time that a step waits for the GPU."""
    return torch.stack([term.value.detach().float() for term in terms]).tolist()


def not_diverged(runs: Sequence[Run]) -> list[Run]:
    """The runs that go on, in whose optimisers the networks that they share with others learn on."""
    going = [run for run in runs if run.diverged is None]
    if len(going) < len(runs):
        _share_states(runs)
    return going


def _share_states(runs: Sequence[Run]) -> None:
    """Gives all optimisers that hold a parameter its state, which is in the first of them, whose step it was."""
    states: dict[torch.Tensor, Any] = {}
    for run in runs:
        for parameter in itertools.chain(*(group["params"] for group in run.optimiser.param_groups)):
            if parameter in states:
                run.optimiser.state[parameter] = states[parameter]
            elif parameter in run.optimiser.state:
                states[parameter] = run.optimiser.state[parameter]


def _save(runs: Sequence[Run]) -> list[Run]:
    """Saves the checkpoint of each run; returns the runs that have not diverged."""
    _share_states(runs)
    for run in runs:
        with run.watched():
            run.checkpoints.save(run.progress)
    return not_diverged(runs)


def _random_state(device: torch.device) -> torch.Tensor:
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.cat([torch.get_rng_state(), *on_device])


def _add(progress: Progress, terms: Sequence[tuple[Term, float]]) -> None:
    """Adds a step's terms and their values. Raises DivergedError if one is not finite, or not when it is weighted."""
    if wrong := [
        f"{term.network}/{term.name}"
        for term, value in terms
        if not (math.isfinite(value) and abs(term.weight * value) <= torch.finfo(torch.float32).max)
    ]:
        where = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
        raise DivergedError(f"the loss {', '.join(wrong)} is not finite in {where}")
    for term, value in terms:
        key = f"{term.network}/{term.name}"
        progress.sums[key] = progress.sums.get(key, 0.0) + value
        progress.weighted[key] = progress.weighted.get(key, 0.0) + term.weight * value
    progress.step += 1


def _close_epoch(
    runs: Sequence[Run], val: SplitData, settings: Training, steps: int, device: torch.device
) -> list[Run]:
    """Validates, keeps each network's best weights, adds the epoch to the histories and starts the next epoch.

    Returns the runs that have not diverged.
    """
    metrics = evaluate(runs, val, settings.batch_size, device, f"after epoch {runs[0].progress.epoch + 1}")
    going = [run for run in runs if run.name in metrics]
    for run in going:
        _close_epoch_of(run, metrics[run.name].scores, steps)
    return going


def _close_epoch_of(run: Run, by_network: Scores, steps: int) -> None:
    method, progress = run.method, run.progress
    row: dict[str, float] = {"epoch": progress.epoch + 1, "learning_rate": float(run.optimiser.param_groups[0]["lr"])}
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
