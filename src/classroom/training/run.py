"""One run (study × method × seed): from settings and prepared data to the run's files."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as serialised

from classroom.artifacts import Metrics, PerImageCounts, RunFacts, TrainingFacts, TrainingSettings
from classroom.core import predictions
from classroom.core.augment import Augment
from classroom.core.batches import SplitData, cache_on_device, open_splits, read_dataset
from classroom.core.method import Method
from classroom.core.networks.reproducible import make_deterministic
from classroom.devices import claim_device, free_memory
from classroom.errors import TrainingError
from classroom.files import written_whole
from classroom.params import Augmentation, Training, select
from classroom.training.checkpoint import Checkpoints, DivergedError, Progress
from classroom.training.loop import MetricAccumulator, evaluate, fit, make_optimiser, predict
from classroom.training.make import make

if TYPE_CHECKING:
    from classroom.progress import Show

EVALUATED_SPLITS = ("val", "test")
FILES = ("weights.safetensors", "predictions.parquet", "metrics.json", "history.csv")


def train(
    study: str,
    method_name: str,
    seed: int,
    raw: dict[str, Any],
    prepared: Path,
    splits: Path,
    teacher_weights: Path,
    target: Path,
    checkpoint_folder: Path,
    identity: str,
    device: str,
    checkpoint_minutes: float,
    show: Show,
    point: Sequence[float] | None = None,
) -> TrainingFacts:
    """Trains one run and writes `FILES` to `target`.

    Parameters
    ----------
    study, method_name, seed
        name the run
    raw
        all settings, as `classroom.params.load` returns them
    prepared
        folder of the prepared data
    splits
        splits.parquet of the study
    teacher_weights
        weights.safetensors of the study's teacher, for methods with a pretrained one
    target
        folder of the run
    checkpoint_folder
        Resumes from a checkpoint of the same `identity` in it. The caller removes it after writing the manifest.
    identity
        digest of everything that decides the result
    device
        as in `devices.claim_device`
    checkpoint_minutes
        time between checkpoints within an epoch
    show
        called after every step with the progress, the steps per epoch and the epochs
    point
        of a grid search, replaces the variant's weights

    Returns
    -------
    The training's part of the manifest.

    Raises
    ------
    ClassroomError
        Before any training: settings, data or weights do not fit together, or a folder cannot be written. Later: a
        loss, weight or prediction is not finite; nothing is written then.
    """
    started = time.monotonic()
    settings = select(raw, "training", Training)
    balance = select(raw, f"study.{study}.balance", str)
    augment = Augment(select(raw, "augmentation", Augmentation))
    for folder in (target, checkpoint_folder):
        _check_writable(folder)
    make_deterministic(settings.threads)
    where = claim_device(device, show.log)
    data = open_splits(prepared, splits)
    dataset = read_dataset(prepared, splits, data)
    method = make(
        method_name, study, raw, seed, teacher_weights, dataset["task"],
        classes=len(dataset["labels"]), image_size=dataset["image_size"], point=point,
    ).to(where)  # fmt: skip
    data = cache_on_device(where, data, free_memory(where))
    notes = method.notes(_sample(data["train"]))
    for note in notes:
        show.log(note)
    optimiser = make_optimiser(method, settings)
    if settings.compile:
        method.compile_networks()
    checkpoints = Checkpoints(checkpoint_folder, identity, checkpoint_minutes, method, optimiser)
    torch.manual_seed(seed)

    clock = Clock(show, settings.epochs)
    facts: RunFacts = {
        "study": study,
        "method": method_name,
        "seed": seed,
        "data": dataset,
        "extra_parameters": method.extra_parameters,
        "notes": notes,
        "settings": {
            **method.settings,
            "training": cast(TrainingSettings, settings.model_dump(mode="json", exclude_defaults=True)),
            "balance": balance,
        },
    }
    try:
        progress = fit(
            method, data, augment, settings, balance, seed, where, checkpoints,
            clock, show.log,
        )  # fmt: skip
        save(method, progress, data, settings, where, target, facts)
    except DivergedError as error:
        raise TrainingError(
            f"{target}: {error} (NaN or infinite), so nothing is recorded: lower training.learning_rate or check the "
            "images, and run the same command again."
        ) from None
    return {
        "device": where.type,
        "seconds": round(time.monotonic() - started, 1),
        "seconds_per_epoch": clock.seconds_per_epoch,
        "peak_memory_mb": peak_memory_mb(where),
        "threads": settings.threads,
        "best_epoch": progress.best_epoch,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def save(
    method: Method,
    progress: Progress,
    data: dict[str, SplitData],
    settings: Training,
    device: torch.device,
    target: Path,
    facts: RunFacts,
) -> None:
    """Writes the run's files: weights and test predictions of each network's best epoch, metrics of best and last.

    Parameters
    ----------
    method
        as trained in the last epoch; left with the best weights
    progress
        of the finished training
    data
        the splits `val` and `test`
    settings
        Only `batch_size` is read.
    device
        that predicts
    target
        folder of the run
    facts
        for metrics.json
    """
    when = f"after epoch {progress.epoch}"
    last = {name: evaluate(method, data[name], settings.batch_size, device, when).scores for name in EVALUATED_SPLITS}
    method.load_states({key: value.to(device) for key, value in progress.best_state.items()})
    when = (
        f"with the weights of the best epochs ({', '.join(f'{name} {of}' for name, of in progress.best_epoch.items())})"
    )
    val, test = evaluate(method, data["val"], settings.batch_size, device, when), MetricAccumulator()

    def test_batches() -> Iterator[dict[str, np.ndarray]]:
        for predicted, ground_truth in predict(method, data["test"], settings.batch_size, device, when):
            test.add(predicted, ground_truth)
            yield {**predicted, predictions.GROUND_TRUTH: _as_prediction(ground_truth, predicted)}

    with written_whole(*(target / name for name in FILES)) as (weights, parquet, metrics_file, history):
        predictions.write(parquet, data["test"].ids, test_batches())
        metrics: Metrics = {
            **facts,
            "networks": {name: network.facts for name, network in method.networks.items()},
            "best": {"epochs": progress.best_epoch, "val": val.scores, "test": test.scores},
            "last": {"epoch": progress.epoch, "val": last["val"], "test": last["test"]},
            "terms": {
                key.removeprefix("weighted/"): value
                for key, value in progress.history[-1].items()
                if key.startswith("weighted/")
            },
            "test_images": _per_image_counts(data["test"], test, list(method.networks)),
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
    """Passes progress on and times the steps of this session, without the first one."""

    def __init__(self, show: Show, epochs: int) -> None:
        self.show, self.epochs = show, epochs
        self.began: tuple[float, float] | None = None
        self.seconds_per_epoch: float | None = None

    def __call__(self, progress: Progress, steps: int) -> None:
        now, done = time.monotonic(), progress.epoch + progress.step / steps
        if self.began is None:
            self.began = (now, done)
        elif done > self.began[1]:
            self.seconds_per_epoch = round((now - self.began[0]) / (done - self.began[1]), 3)
        self.show(progress, steps, self.epochs)


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
