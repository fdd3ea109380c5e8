"""Runs (study × method × seed): from settings and prepared data to the files of each."""

from __future__ import annotations

import functools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as serialised

from classroom.artifacts import Metrics, PerImageCounts, RunFacts, Scores, TrainingFacts, TrainingSettings
from classroom.core import predictions
from classroom.core.augment import Augment
from classroom.core.batches import SplitData, cache_on_device, open_splits, read_dataset
from classroom.core.networks.build import Network
from classroom.core.networks.reproducible import make_deterministic
from classroom.devices import claim_device, free_memory
from classroom.errors import TrainingError
from classroom.files import written_whole
from classroom.params import Augmentation, Together, Training, select
from classroom.progress import RECORDED_EVERY, State, record
from classroom.training.checkpoint import Checkpoints, DivergedError, Position, Progress, positions
from classroom.training.loop import (
    DrawingError,
    MetricAccumulator,
    Run,
    as_labels,
    evaluate,
    fit,
    make_optimiser,
    not_diverged,
    predict,
)
from classroom.training.make import make

if TYPE_CHECKING:
    from classroom.progress import Show

EVALUATED_SPLITS = ("val", "test")
BEST = "with the weights of the best epochs"
FILES = ("weights.safetensors", "predictions.parquet", "metrics.json", "history.csv")


@dataclass(frozen=True)
class Request:
    """One run to train."""

    method: str
    target: Path
    """Folder of the run."""
    checkpoint_folder: Path
    """Resumed from, if a checkpoint in it has the same `identity`. The caller removes it after writing the manifest."""
    identity: str
    """Digest of everything that decides the result."""
    point: tuple[float, ...] | None = None
    """Of a search, replaces the weights of the losses."""


def train(
    study: str,
    requests: Sequence[Request],
    seed: int,
    raw: dict[str, Any],
    prepared: Path,
    splits: Path,
    teacher_weights: Path,
    device: str,
    checkpoint_minutes: float,
    show: Show,
    finish: Callable[[Request, TrainingFacts], None],
) -> None:
    """Trains runs of one study and seed, and writes `FILES` to the folder of each.

    Several runs train together: on the same batches, and a network that is the same in several of them
    (`equality.keys`) once. Each run's files have the same bits as if it were trained alone. Runs that resume at
    different steps, that draw random numbers in their steps, beyond `max_networks`, or for which a GPU has too little
    memory, follow one after the other.

    Parameters
    ----------
    study, seed
        of all runs
    requests
        the runs
    raw
        all settings, as `classroom.params.load` returns them
    prepared
        folder of the prepared data
    splits
        splits.parquet of the study
    teacher_weights
        weights.safetensors of the study's teacher, for methods with a pretrained one
    device
        as in `devices.claim_device`
    checkpoint_minutes
        time between checkpoints within an epoch
    show
        called after every step with the progress, the steps per epoch and the epochs
    finish
        called with each run whose files are written, and the training's part of its manifest

    Raises
    ------
    ClassroomError
        Before any training: settings, data or weights do not fit together, or a folder cannot be written. Later: a
        loss, weight or prediction of some runs is not finite. Nothing is written of these; the others are finished.
    """
    trainer = _Trainer(study, seed, raw, teacher_weights, checkpoint_minutes, show, finish)
    for request in requests:
        for folder in (request.target, request.checkpoint_folder):
            _check_writable(folder)
    trainer.open(prepared, splits, device)
    waiting = [one for part in within_limit(study, requests, raw) for one in by_position(part)]
    while waiting:
        at, group = waiting.pop(0)
        try:
            trainer.train(group, at)
        except DrawingError as error:
            show.log(f"{error}: draws random numbers in its steps, as dropout does, so it is trained alone")
            alone = [request for request in group if request.method in error.names]
            together = [request for request in group if request not in alone]
            waiting = [*by_position(together), *((None, [request]) for request in alone), *waiting]
        except torch.cuda.OutOfMemoryError:
            left = [request for request in group if request not in trainer.done]
            if len(left) == 1:
                raise
            show.log(f"{len(left)} runs need more memory than {trainer.device} has: half of them are trained later")
            waiting = [*by_position(left[: len(left) // 2]), *by_position(left[len(left) // 2 :]), *waiting]
        finally:
            trainer.started = time.monotonic()  # what was taken is in the manifests, or in the checkpoints
    if trainer.diverged:
        wrong = "; ".join(f"{request.target}: {error}" for request, error in trainer.diverged.items())
        rest = " of it" if len(requests) > 1 else ""
        raise TrainingError(
            f"{wrong}, so nothing{rest} is recorded: lower training.learning_rate or a weight, or check the images, "
            "and run the same command again."
        )


def within_limit(study: str, requests: Sequence[Request], raw: dict[str, Any]) -> list[list[Request]]:
    """The runs in parts of no more than `max_networks` different networks, if a run alone has no more.

    Parameters
    ----------
    study
        of the runs
    requests
        one for each run
    raw
        all settings
    """
    if len(requests) < 2 or (limit := Together.of(raw).max_networks) is None:
        return [list(requests)]
    from classroom.training.equality import keys  # only of several runs, as it knows methods of other kinds

    parts: list[list[Request]] = []
    networks = set[str]()
    for request in requests:
        own = {*keys(request.method, study, raw, request.point).values()}
        networks |= own
        if not parts or len(networks) > limit:
            parts.append([])
            networks = own
        parts[-1].append(request)
    return parts


def by_position(requests: Sequence[Request]) -> list[tuple[Position | None, list[Request]]]:
    """Runs by the step at which they resume; None for a single one, which resumes wherever it can.

    A kill while the checkpoints of several runs are written leaves some of them ahead: these go back to the one before.
    """
    if len(requests) < 2:
        return [(None, list(requests))] if requests else []
    found = {request: positions(request.checkpoint_folder, request.identity) for request in requests}
    started = [set(of) for of in found.values() if of]
    common = set.intersection(*started) if started else set()
    at = {request: max(common or of) if of else (0, 0) for request, of in found.items()}
    return [(step, [request for request in requests if at[request] == step]) for step in sorted({*at.values()})]


class _Trainer:
    """What the runs of one `train` have in common, and which of them are over."""

    def __init__(
        self,
        study: str,
        seed: int,
        raw: dict[str, Any],
        teacher_weights: Path,
        checkpoint_minutes: float,
        show: Show,
        finish: Callable[[Request, TrainingFacts], None],
    ) -> None:
        """The parameters are those of the function `train`."""
        self.study, self.seed, self.raw, self.teacher_weights = study, seed, raw, teacher_weights
        self.checkpoint_minutes, self.show, self.finish = checkpoint_minutes, show, finish
        self.settings = select(raw, "training", Training)
        self.balance = select(raw, f"study.{study}.balance", str)
        self.augment = Augment(select(raw, "augmentation", Augmentation))
        self.done: set[Request] = set()
        self.diverged: dict[Request, DivergedError] = {}
        self.started = time.monotonic()

    def open(self, prepared: Path, splits: Path, device: str) -> None:
        """Opens the study's data, for training on `device`."""
        make_deterministic(self.settings.threads)
        self.device = claim_device(device, self.show.log)
        data = open_splits(prepared, splits)
        self.dataset = read_dataset(prepared, splits, data)
        self.data = cache_on_device(self.device, data, free_memory(self.device))

    def train(self, group: Sequence[Request], at: Position | None) -> None:
        """Trains runs that resume at the same step, and finishes each when it is over."""
        runs = self._make(group)
        torch.manual_seed(self.seed)
        for run in runs:
            run.progress = run.checkpoints.restore(self.show.log, at)
            run.checkpoints.session_seconds = functools.partial(self._seconds, run, runs)
        clock, going = Clock(self.show, self.settings.epochs), runs
        while going:
            going = fit(going, self.data, self.augment, self.settings, self.balance, self.seed, self.device, clock)
            over = [run for run in going if run.is_over(self.settings)]
            for run in over:
                if run.progress.epoch < self.settings.epochs:
                    self.show.log(
                        f"{f'{run.name} ' * (len(runs) > 1)}ends after epoch {run.progress.epoch} of "
                        f"{self.settings.epochs}: no better validation since epoch {run.better_until(self.settings)}"
                    )
            going = [run for run in going if run not in over]
            with _unchanged({network for run in going for network in run.method.networks.values()}):
                for run in save(over, self.data, self.settings, self.device):
                    request = group[runs.index(run)]
                    self.finish(request, self._facts(run, runs, clock))
                    self.done.add(request)
        self.diverged |= {r: run.diverged for r, run in zip(group, runs, strict=True) if run.diverged}

    def _make(self, group: Sequence[Request]) -> list[Run]:
        known: dict[str, Network] | None = {} if len(group) > 1 else None
        runs = []
        for request in group:
            method = make(
                request.method, self.study, self.raw, self.seed, self.teacher_weights, self.dataset["task"],
                classes=len(self.dataset["labels"]), image_size=self.dataset["image_size"], point=request.point,
                known=known,
            ).to(self.device)  # fmt: skip
            notes = method.notes(_sample(self.data["train"]))
            for note in notes:
                self.show.log(note)
            optimiser = make_optimiser(method, self.settings)
            if self.settings.compile:
                method.compile_networks()
            facts: RunFacts = {
                "study": self.study,
                "method": request.method,
                "seed": self.seed,
                "data": self.dataset,
                "extra_parameters": method.extra_parameters,
                "notes": notes,
                "settings": {
                    **method.settings,
                    "training": cast(TrainingSettings, self.settings.model_dump(mode="json", exclude_defaults=True)),
                    "balance": self.balance,
                },
            }
            checkpoints = Checkpoints(
                request.checkpoint_folder, request.identity, self.checkpoint_minutes, method, optimiser
            )
            runs.append(Run(request.method, method, optimiser, checkpoints, Progress(), request.target, facts))
        if known is not None:
            trained = sum(len(run.method.trained) for run in runs)
            distinct = {run.method.networks[name] for run in runs for name in run.method.trained}
            size = sum(parameter.nbytes for network in distinct for parameter in network.parameters())
            self.show.log(
                f"{len(runs)} runs together: {len(distinct)} networks learn instead of {trained}; their weights and "
                f"the optimiser's averages take {3 * size / 1e6:.0f} MB, and the rest as much as one run alone"
            )
        return runs

    def _seconds(self, run: Run, runs: Sequence[Run]) -> float:
        """The run's share of what its group has taken in this session."""
        return _share(run, runs) * (time.monotonic() - self.started)

    def _facts(self, run: Run, runs: Sequence[Run], clock: Clock) -> TrainingFacts:
        per_epoch = clock.seconds_per_epoch
        facts: TrainingFacts = {
            "device": self.device.type,
            "seconds": round(run.progress.seconds + self._seconds(run, runs), 1),
            "seconds_per_epoch": per_epoch and round(_share(run, runs) * per_epoch, 3),
            "peak_memory_mb": peak_memory_mb(self.device),
            "threads": self.settings.threads,
            "best_epoch": run.progress.best_epoch,
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }
        if len(runs) > 1:
            facts["together"] = [other.name for other in runs]
        return facts


def _share(run: Run, runs: Sequence[Run]) -> float:
    """The run's share of what its group takes: by trained parameters, those of a shared network in equal parts."""
    networks = [network for other in runs for network in (other.method.networks[name] for name in other.method.trained)]
    size = {network: sum(parameter.numel() for parameter in network.parameters()) for network in networks}
    own = [run.method.networks[name] for name in run.method.trained]
    return sum(size[network] / networks.count(network) for network in own) / sum(size.values())


@contextmanager
def _unchanged(networks: set[Network]) -> Iterator[None]:
    """Whatever is loaded into the networks meanwhile, afterwards they are as before."""
    before = [(network, {key: value.clone() for key, value in network.state_dict().items()}) for network in networks]
    yield
    for network, state in before:
        network.load_state_dict(state)


def save(runs: Sequence[Run], data: dict[str, SplitData], settings: Training, device: torch.device) -> list[Run]:
    """Writes the runs' files: weights and test predictions of each network's best epoch, metrics of best and last.

    Returns the runs that have not diverged; nothing is written of the others.

    Parameters
    ----------
    runs
        as trained in the last epoch; left with the best weights
    data
        the splits `val` and `test`
    settings
        Only `batch_size` is read.
    device
        that predicts
    """
    if not runs:
        return []
    when = f"after epoch {runs[0].progress.epoch}"
    last = {name: evaluate(runs, data[name], settings.batch_size, device, when) for name in EVALUATED_SPLITS}
    runs = not_diverged(runs)
    for run in runs:
        run.method.load_states({key: value.to(device) for key, value in run.progress.best_state.items()})
    val = evaluate(runs, data["val"], settings.batch_size, device, BEST)
    for run in not_diverged(runs):
        scores = {name: last[name][run.name].scores for name in last}
        with run.watched():
            _write(run, scores, val[run.name].scores, data["test"], settings, device)
    return not_diverged(runs)


def _write(
    run: Run, last: dict[str, Scores], val: Scores, split: SplitData, settings: Training, device: torch.device
) -> None:
    """Writes a run's files, with its best weights loaded. Raises DivergedError if a prediction is not finite."""
    method, progress, test = run.method, run.progress, MetricAccumulator()

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for images, targets in split.in_order(settings.batch_size, device):
            predicted, ground_truth = predict(method, images, BEST), as_labels(targets)
            test.add(predicted, ground_truth)
            yield {**predicted, predictions.GROUND_TRUTH: _as_prediction(ground_truth, predicted)}

    with written_whole(*(run.target / name for name in FILES)) as (weights, parquet, metrics_file, history):
        predictions.write(parquet, split.ids, batches())
        metrics: Metrics = {
            **run.facts,
            "networks": {name: network.facts for name, network in method.networks.items()},
            "best": {"epochs": progress.best_epoch, "val": val, "test": test.scores},
            "last": {"epoch": progress.epoch, "val": last["val"], "test": last["test"]},
            "terms": {
                key.removeprefix("weighted/"): value
                for key, value in progress.history[-1].items()
                if key.startswith("weighted/")
            },
            "test_images": _per_image_counts(split, test, list(method.networks)),
        }
        metrics_file.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        # Not save_file: its error for a full disk is no OSError.
        weights.write_bytes(serialised({key: value.contiguous() for key, value in progress.best_state.items()}))
        pd.DataFrame(progress.history).to_csv(history, index=False)


def _per_image_counts(split: SplitData, metrics: MetricAccumulator, networks: list[str]) -> PerImageCounts:
    per_image = metrics.per_image
    counts = {name: {key: value.tolist() for key, value in per_image[name].items()} for name in networks}
    return cast(PerImageCounts, {"id": split.ids, "group": split.groups, **counts})


def peak_memory_mb(device: torch.device) -> dict[str, int]:
    """Peak memory of this process, and of the accelerator where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


class Clock:
    """Passes progress on, records it, and times the steps of this session, without the first one."""

    def __init__(self, show: Show, epochs: int) -> None:
        self.show, self.epochs = show, epochs
        self.began: tuple[float, float] | None = None
        self.seconds_per_epoch: float | None = None
        self.recorded = -RECORDED_EVERY

    def __call__(self, runs: Sequence[Run], steps: int) -> None:
        """Reports where `runs` are in an epoch of so many `steps`."""
        progress = runs[0].progress
        now, done = time.monotonic(), progress.epoch + progress.step / steps
        if self.began is None:
            self.began = (now, done)
        elif done > self.began[1]:
            self.seconds_per_epoch = round((now - self.began[0]) / (done - self.began[1]), 3)
        if now - self.recorded >= RECORDED_EVERY:
            self.recorded = now
            for run in runs:
                record(run.checkpoints.folder, self._state(run, steps))
        if len(runs) > 1:
            losses = {run.name: sum(run.progress.weighted.values()) for run in runs}
            progress = Progress(progress.epoch, progress.step, weighted=losses)
        self.show(progress, steps, self.epochs)

    def _state(self, run: Run, steps: int) -> State:
        progress = run.progress
        last = progress.history[-1] if progress.history else {}
        return {
            "epoch": progress.epoch,
            "epochs": self.epochs,
            "step": progress.step,
            "steps": steps,
            "loss": sum(progress.weighted.values()) / progress.step,
            "validation": {
                name: next(value for key, value in last.items() if key.startswith(f"val/{name}/"))
                for name in (run.method.trained if last else ())
            },
            "seconds_per_epoch": self.seconds_per_epoch,
            "written": time.time(),
        }


def _sample(split: SplitData) -> torch.Tensor:
    """At most 500 targets, evenly spaced: masks (N, 1, H, W) or classes (N,)."""
    positions = np.unique(np.linspace(0, len(split) - 1, 500).astype(int))
    targets = torch.from_numpy(split.targets[split.rows[positions]])
    return targets.unsqueeze(1) if targets.ndim == 3 else targets


def _as_prediction(ground_truth: np.ndarray, predicted: dict[str, np.ndarray]) -> np.ndarray:
    """The ground truth as a perfect prediction: bytes 0 and 255, or probability 1 of the true class."""
    if ground_truth.ndim == 3:
        return ground_truth.astype(np.uint8) * 255
    return np.eye(next(iter(predicted.values())).shape[1], dtype=np.float32)[ground_truth]


def _check_writable(folder: Path) -> None:
    """Fails now rather than after hours of training."""
    probe = folder / ".writable"
    with written_whole(probe):
        pass
    probe.unlink()
