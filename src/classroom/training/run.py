"""One run: study × method × seed, from params.yaml and prepared data to the files it leaves."""

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

from classroom.artifacts import ImageRecords, Metrics, RunFacts, TrainingReceipt, TrainingSettings
from classroom.data.augment import Augment
from classroom.data.batches import SplitData, kept_on, open_splits
from classroom.data.batches import about as about_data
from classroom.evaluation import predictions
from classroom.files import written_whole
from classroom.methods.base import Method
from classroom.methods.make import make
from classroom.networks.reproducible import make_deterministic
from classroom.params import Augmentation, Training, select
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.devices import claim_device, free_memory
from classroom.training.loop import Judgement, fit, judge, predict

if TYPE_CHECKING:
    from classroom.training.progress import Show

JUDGED = ("val", "test")
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
) -> TrainingReceipt:
    """Trains one run and leaves `FILES` in `target`; returns what the manifest should say of it.

    Resumes from `checkpoint_folder` if a checkpoint of the same `identity` lies there; the caller removes it
    once the manifest is written. `show` is called with the progress, the steps per epoch and the epochs after
    every step. `point` of a grid search takes the place of the variant's weights. Raises ClassroomError before any
    training for settings, data or weights that do not fit, or if a folder cannot be written.
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
    about = about_data(prepared, splits, data)
    method = make(
        method_name, study, raw, seed, teacher_weights, about["task"],
        classes=len(about["labels"]), image_size=about["image_size"], point=point,
    ).to(where)  # fmt: skip
    data = kept_on(where, data, free_memory(where))
    remarks = method.remarks(_sample(data["train"]))
    for remark in remarks:
        show.log(remark)
    optimiser = torch.optim.Adam(
        [p for p in method.parameters() if p.requires_grad], lr=settings.learning_rate, fused=True
    )
    if settings.compile:
        method.compile_networks()
    checkpoints = Checkpoints(checkpoint_folder, identity, checkpoint_minutes, method, optimiser)
    torch.manual_seed(seed)

    clock = Clock(show, settings.epochs)
    progress = fit(
        method, data, augment, settings, balance, seed, where, checkpoints,
        clock, show.log,
    )  # fmt: skip
    facts: RunFacts = {
        "study": study,
        "method": method_name,
        "seed": seed,
        "data": about,
        "extra_parameters": method.extra_parameters,
        "remarks": remarks,
        "settings": {
            **method.settings,
            "training": cast(TrainingSettings, settings.model_dump(mode="json")),
            "balance": balance,
        },
    }
    save(method, progress, data, settings, where, target, facts)
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
    """Writes the run's files: weights and test predictions of each network's best epoch, metrics of best and last."""
    last = {name: judge(method, data[name], settings.batch_size, device).scores for name in JUDGED}
    method.load_states({key: value.to(device) for key, value in progress.best_state.items()})
    val, test = judge(method, data["val"], settings.batch_size, device), Judgement()

    def kept() -> Iterator[dict[str, np.ndarray]]:
        for predicted, truth in predict(method, data["test"], settings.batch_size, device):
            test.add(predicted, truth)
            yield {**predicted, predictions.TRUTH: _as_predicted(truth, predicted)}

    with written_whole(*(target / name for name in FILES)) as (weights, parquet, metrics_file, history):
        predictions.write(parquet, data["test"].ids, kept())
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
            "test_images": _images(data["test"], test, list(method.networks)),
        }
        metrics_file.write_text(json.dumps(metrics, indent=1) + "\n")
        # not save_file, whose error of a full disk is no OSError
        weights.write_bytes(serialised({key: value.contiguous() for key, value in progress.best_state.items()}))
        pd.DataFrame(progress.history).to_csv(history, index=False)


def _images(split: SplitData, judgement: Judgement, networks: list[str]) -> ImageRecords:
    per_image = judgement.per_image
    records = {name: {key: value.tolist() for key, value in per_image[name].items()} for name in networks}
    return cast(ImageRecords, {"id": split.ids, "group": split.groups, **records})


def peak_memory_mb(device: torch.device) -> dict[str, int]:
    """Peak memory of this process, and of the accelerator where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20}
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_allocated(device) // 2**20
    return peak


class Clock:
    """Passes progress on and takes the time, of this session's steps alone, first one aside."""

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


def _as_predicted(truth: np.ndarray, predicted: dict[str, np.ndarray]) -> np.ndarray:
    """The truth in the form of a perfect prediction: bytes 0 and 255, or probability 1 of the true class."""
    if truth.ndim == 3:
        return truth.astype(np.uint8) * 255
    return np.eye(next(iter(predicted.values())).shape[1], dtype=np.float32)[truth]


def _check_writable(folder: Path) -> None:
    """A run of hours must not find out at its end that it cannot be saved."""
    probe = folder / ".writable"
    with written_whole(probe):
        pass
    probe.unlink()
