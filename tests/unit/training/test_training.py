"""Training: the same settings give the same bits, killed or not, and what goes wrong is said."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, precision_score, recall_score

from classroom import params, speed
from classroom.artifacts import Metrics, Result
from classroom.core import predictions
from classroom.core.batches import open_splits, order
from classroom.core.ensemble import with_ensemble
from classroom.core.losses import task_loss
from classroom.core.method import Method, Term, network_seed
from classroom.core.metrics import METRICS, per_image_counts, predict_labels, score
from classroom.core.networks.build import Network, build
from classroom.errors import ClassroomError, TrainingError
from classroom.evaluation.evaluate import evaluate
from classroom.methods.baselines.single_network import SingleNetwork
from classroom.params import Network as NetworkSettings
from classroom.params import TaskLoss, select
from classroom.training import loop, run
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.loop import Interruption
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink
from support.trained import Silent, bits, study_of, task_of, train


@pytest.fixture(scope="module", params=["segmentation", "classification"])
def data(request: pytest.FixtureRequest, tiny_study: Path, tiny_classes_study: Path) -> Path:
    """One study of each task, for what a run leaves."""
    return {"segmentation": tiny_study, "classification": tiny_classes_study}[request.param]


@pytest.fixture(scope="module")
def classes_run(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the classification: the run that every disturbed one has to equal."""
    folder = tmp_path_factory.mktemp("undisturbed-classes")
    train(shrink(params.load(ROOT / "params.yaml")), tiny_classes_study, folder)
    return folder / "run"


@pytest.fixture(scope="module")
def undisturbed(data: Path, classes_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each task."""
    if task_of(data) == "classification":
        return classes_run
    folder = tmp_path_factory.mktemp("undisturbed")
    train(shrink(params.load(ROOT / "params.yaml")), data, folder)
    return folder / "run"


@pytest.fixture(scope="module")
def metrics(undisturbed: Path) -> dict[str, Any]:
    return json.loads((undisturbed / "metrics.json").read_text())


class StopAt(Silent):
    """Interrupts a training in its second epoch."""

    def __call__(self, progress: Progress, steps: int, epochs: int) -> None:
        if (progress.epoch, progress.step) == (1, 1):
            raise KeyboardInterrupt


def misfits(value: Any, kind: Any, place: str) -> list[str]:
    """Where in `value` something is missing, not foreseen or of another type than `kind` says."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        kinds = get_type_hints(kind)
        keys = [f"{place}.{key}" for key in (kind.__required_keys__ - value.keys()) | (value.keys() - kinds.keys())]
        return keys + [at for key in value.keys() & kinds for at in misfits(value[key], kinds[key], f"{place}.{key}")]
    if origin is dict:
        return [at for key, part in value.items() for at in misfits(part, parts[1], f"{place}.{key}")]
    if origin is list:
        return [at for number, part in enumerate(value) for at in misfits(part, parts[0], f"{place}.{number}")]
    return [] if kind is Any or isinstance(value, (float, int) if kind is float else kind) else [place]


def test_what_a_run_leaves_and_what_is_made_of_it_have_the_declared_types(
    undisturbed: Path, metrics: dict[str, Any]
) -> None:
    assert misfits(metrics, Metrics, "metrics") == []
    assert misfits(json.loads(json.dumps(evaluate({0: undisturbed}))), Result, "result") == []
    damaged = metrics | {"seed": "0", "best": {"epochs": {"T": None}, "val": {}}, "more": 1}
    assert set(misfits(damaged, Metrics, "m")) == {"m.seed", "m.best.epochs.T", "m.best.test", "m.more"}


def test_an_epoch_is_the_plain_loop_that_one_would_write(tiny: dict, data: Path, tmp_path: Path) -> None:
    """Every image of the epoch's order with its own target, Adam at the settings' rate: written out once more."""
    tiny["augmentation"] |= {"flip": 0.0, "transpose": 0.0, "affine": 0.0}
    tiny["training"]["epochs"] = 1
    train(tiny, data, tmp_path, method="student")
    study, task = tiny["study"][study_of(data)], task_of(data)
    pixels, targets = (np.load(data / f"prepared/{name}.npy") for name in ("images", "targets"))
    table = pd.read_parquet(data / "splits.parquet")
    rows = np.flatnonzero(table.split == "train")
    part = open_splits(data / "prepared", data / "splits.parquet")["train"]
    labels = len(json.loads((data / "prepared/dataset.json").read_text())["labels"])
    network = build(select(study, "student", NetworkSettings), task, labels, network_seed(0, "S1")).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=tiny["training"]["learning_rate"], fused=True)
    epoch = order(part, study["balance"], 0, 0)
    for step in range(len(epoch) // 8):
        chosen = rows[epoch[8 * step : 8 * step + 8]]
        truth = torch.from_numpy(targets[chosen])
        truth = truth[:, None].float() if task == "segmentation" else truth.long()
        images = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float() / 255
        loss = task_loss(network(images).logits, truth, _task(tiny))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    saved = load_file(tmp_path / "run/weights.safetensors")
    for key, value in network.state_dict().items():
        torch.testing.assert_close(saved[f"S1.{key}"], value, rtol=1e-4, atol=1e-6, msg=key)


SMALL_STEPS = {"batch_size": 16, "epochs": 3, "threads": 1}
OPTIONS = {
    "adamw, cosine after a warm-up, clipped": {
        "optimiser": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1, "clip_gradients": 0.5,
    },
    "adam with weight decay": {"optimiser": "adam", "weight_decay": 0.1},
    "sgd, clipped": {"optimiser": "sgd", "weight_decay": 0.01, "learning_rate": 0.05, "clip_gradients": 0.1},
}  # fmt: skip
"""Of `training`, which the paper does not use."""


def rates_of(settings: dict[str, Any], steps: int) -> list[float]:
    """The learning rate of every step, by torch's own two schedules one after the other."""
    rising = settings["warmup_epochs"] * steps
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings["learning_rate"])
    left = settings["epochs"] * steps - rising
    constant = torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)
    falling = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, left) if settings["schedule"] == "cosine" else constant
    )
    found = [settings["learning_rate"] * (step + 1) / (rising + 1) for step in range(rising)]
    for _ in range(left):
        found.append(falling.get_last_lr()[0])
        optimiser.step()
        falling.step()
    return found


@pytest.mark.parametrize("options", OPTIONS)
def test_optimiser_schedule_and_clipping_are_torchs_own_in_a_plain_loop(
    options: str, tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    tiny["augmentation"] |= {"flip": 0.0, "transpose": 0.0, "affine": 0.0}
    settings = tiny["training"]
    settings |= SMALL_STEPS | OPTIONS[options]
    train(tiny, tiny_classes_study, tmp_path, method="student")
    data = open_splits(tiny_classes_study / "prepared", tiny_classes_study / "splits.parquet")["train"]
    student = select(tiny["study"][CLASSES_STUDY], "student", NetworkSettings)
    network = build(student, "classification", 7, network_seed(0, "S1")).train()
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings["optimiser"]]
    momentum = {"momentum": 0.9} if settings["optimiser"] == "sgd" else {}
    optimiser = kind(network.parameters(), lr=1.0, weight_decay=settings["weight_decay"], fused=True, **momentum)
    steps = len(order(data, "mean", 0, 0)) // 16
    rates = rates_of(settings, steps)
    assert tiny["study"][CLASSES_STUDY]["balance"] == "mean"
    assert steps > 1
    for epoch in range(3):
        positions = order(data, "mean", 0, epoch)
        for step in range(steps):
            images, targets = data.batch(positions[16 * step : 16 * step + 16], torch.device("cpu"))
            optimiser.param_groups[0]["lr"] = rates[epoch * steps + step]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(images).logits, targets).backward()
            if limit := settings.get("clip_gradients"):
                gradients = [parameter.grad for parameter in network.parameters()]
                norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
                for gradient in gradients:
                    gradient *= min(1.0, limit / norm)
            optimiser.step()
    last = torch.load(tmp_path / "checkpoints/newest.pt", weights_only=True)["method"]
    for key, value in network.state_dict().items():
        torch.testing.assert_close(last[f"networks.S1.{key}"], value, rtol=1e-3, atol=1e-5, msg=key)
    history = pd.read_csv(tmp_path / "run/history.csv").learning_rate
    following = [*rates, 0.0 if settings["schedule"] == "cosine" else settings["learning_rate"]]
    np.testing.assert_allclose(history, following[steps::steps], atol=1e-12)


@pytest.mark.parametrize("options", [*OPTIONS.values(), {"early_stopping": 2}], ids=[*OPTIONS, "early stopping"])
def test_interrupted_with_any_option_it_ends_in_the_same_bits(
    options: dict[str, Any], tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    tiny["training"] |= SMALL_STEPS | options
    train(tiny, tiny_classes_study, tmp_path / "undisturbed", method="student")
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tiny_classes_study, tmp_path, method="student", show=StopAt(), checkpoint_minutes=0)
    assert "resumed from" in train(tiny, tiny_classes_study, tmp_path, method="student").lines[-1]
    assert bits(tmp_path / "run") == bits(tmp_path / "undisturbed/run")


def test_a_resumed_run_has_taken_what_all_its_sessions_took(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds a step; the step that was interrupted left nothing, and is taken again."""
    now = [0.0]

    class TenSeconds(Silent):
        def __call__(self, *arguments: Any) -> None:
            now[0] += 10

    class StopAtTenSeconds(StopAt):
        def __call__(self, *arguments: Any) -> None:
            super().__call__(*arguments)
            now[0] += 10

    monkeypatch.setattr(run, "time", types.SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    at_once = train(tiny, tiny_classes_study, tmp_path / "at once", method="student", show=TenSeconds())
    with pytest.raises(KeyboardInterrupt):
        train(tiny, tiny_classes_study, tmp_path, method="student", show=StopAtTenSeconds(), checkpoint_minutes=0)
    resumed = train(tiny, tiny_classes_study, tmp_path, method="student", show=TenSeconds())
    assert "resumed from" in resumed.lines[-1]
    assert resumed.facts["student"]["seconds"] == at_once.facts["student"]["seconds"] >= 40


def test_the_papers_options_change_nothing(
    classes_run: Path, tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    """Written out, they leave the same files as left out, metrics.json included."""
    tiny["training"] |= {
        "optimiser": "adam", "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0, "clip_gradients": None,
        "early_stopping": None,
    }  # fmt: skip
    train(tiny, tiny_classes_study, tmp_path)
    assert bits(tmp_path / "run") == bits(classes_run)


def test_early_stopping_waits_for_every_network_and_is_final(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs in which neither student got better; S2's third epoch counts for both."""
    found = {"S1": [0.5, 0.4, 0.4, 0.4, 0.4, 0.9], "S2": [0.5, 0.4, 0.6, 0.6, 0.5, 0.9]}
    epochs = iter(range(6))

    def evaluated(runs: list[loop.Run], *split: Any) -> Any:
        epoch = next(epochs)
        scores = {name: {"accuracy": of[epoch]} for name, of in found.items()}
        return {run.name: types.SimpleNamespace(scores=scores) for run in runs}

    monkeypatch.setattr("classroom.training.loop.evaluate", evaluated)
    tiny["training"] |= {"epochs": 6, "early_stopping": 2}
    lines = train(tiny, tiny_classes_study, tmp_path, method="ml-v2").lines
    assert lines[-1] == "ends after epoch 5 of 6: no better validation since epoch 3"
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (metrics["last"]["epoch"], metrics["best"]["epochs"]) == (5, {"S1": 1, "S2": 3})
    assert metrics["settings"]["training"]["early_stopping"] == 2
    assert len(pd.read_csv(tmp_path / "run/history.csv")) == 5
    again = train(tiny, tiny_classes_study, tmp_path, method="ml-v2").lines  # killed before its files were written
    assert "ends after epoch 5 of 6" in again[-1]


def test_a_forecast_times_the_step_of_the_training(
    tiny: dict, monkeypatch: pytest.MonkeyPatch, classes_run: Path
) -> None:
    """And knows the size of the weights that a run leaves."""
    taken = []

    def step(*arguments: Any) -> list[Term]:
        taken.append(loop.train_step(*arguments))
        return taken[-1]

    monkeypatch.setattr(speed, "train_step", step)
    found = speed.measure("kd_ml-v3", CLASSES_STUDY, tiny, classes=7, device="cpu")
    assert len(taken) == speed.STEPS + 1
    assert found.training_step > found.prediction > 0
    assert found.weight_bytes == sum(value.nbytes for value in load_file(classes_run / "weights.safetensors").values())


def test_a_step_of_seconds_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At scale paper a step takes ten seconds on a CPU: four of each kind, and a forecast takes minutes."""
    clock = iter(range(0, 100, 5))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    taken: list[int] = []
    assert speed._seconds(lambda: taken.append(1), torch.device("cpu")) == 5
    assert len(taken) == 1


def test_another_seed_gives_other_weights(
    classes_run: Path, tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    tiny["training"]["epochs"] = 1
    train(tiny, tiny_classes_study, tmp_path, seed=1)
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "run", classes_run))
    assert not torch.equal(ours["S1.body.classifier.weight"], theirs["S1.body.classifier.weight"])


def life(raw: dict[str, Any], study: Path, folder: Path) -> None:
    """One life of a training that saves a checkpoint after every step; run in a process of its own."""
    train(raw, study, folder, checkpoint_minutes=0)


def last_saved(checkpoints: Path) -> int:
    """When the last checkpoint was written, 0 before the first; for a moment only the previous one is there."""
    times = [0]
    for name in ("newest.pt", "previous.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append((checkpoints / name).stat().st_mtime_ns)
    return max(times)


def test_killed_time_and_again_it_ends_in_the_same_bits(tiny: dict, tiny_classes_study: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, in the middle of checkpoints too, costs nothing but time."""
    lives = 4
    tiny["training"]["epochs"] = lives
    train(tiny, tiny_classes_study, tmp_path / "undisturbed")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["classroom.training.run"])
    moments = random.Random(0)
    checkpoints = tmp_path / "killed" / "checkpoints"
    saved_at_kill = []
    for _ in range(lives):
        process = processes.Process(target=life, args=(tiny, tiny_classes_study, tmp_path / "killed"))
        process.start()
        before = last_saved(checkpoints)
        while process.is_alive() and last_saved(checkpoints) == before:
            time.sleep(0.005)  # until this life has got further than the last
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the training ended before it was killed often enough"
        saved_at_kill.append(last_saved(checkpoints))
    assert len(set(saved_at_kill)) == lives
    resumed = train(tiny, tiny_classes_study, tmp_path / "killed")
    assert "resumed from" in resumed.lines[-1]
    assert bits(tmp_path / "killed" / "run") == bits(tmp_path / "undisturbed" / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_a_terminated_training_saves_and_goes_on(
    number: signal.Signals, classes_run: Path, tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    """A cluster's time limit, or the end of an SSH session, must not cost the steps since the last checkpoint."""

    class TerminateAt(Silent):
        def __call__(self, progress: Progress, steps: int, epochs: int) -> None:
            if (progress.epoch, progress.step) == (0, 2):
                os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as stopped:
        train(tiny, tiny_classes_study, tmp_path, show=TerminateAt())
    assert stopped.value.code == 128 + number
    assert any("after step 2" in line for line in train(tiny, tiny_classes_study, tmp_path).lines)
    assert bits(tmp_path / "run") == bits(classes_run)


def test_signals_are_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_under_nohup_outlives_its_session() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not interruption.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def stopped(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that stopped in its second epoch, with two checkpoints; read only."""
    folder = tmp_path_factory.mktemp("stopped")

    with pytest.raises(KeyboardInterrupt):
        train(
            shrink(params.load(ROOT / "params.yaml")), tiny_classes_study, folder, show=StopAt(), checkpoint_minutes=0
        )
    return folder


@pytest.fixture
def interrupted(stopped: Path, tmp_path: Path) -> Path:
    """The same, free to damage."""
    shutil.copytree(stopped, tmp_path / "interrupted")
    return tmp_path / "interrupted"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    interrupted: Path, classes_run: Path, tiny: dict, tiny_classes_study: Path
) -> None:
    """Here by one bit of a tensor: torch reads such a file without a word."""
    newest = interrupted / "checkpoints" / "newest.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    torch.load(newest, weights_only=True)
    lines = train(tiny, tiny_classes_study, interrupted).lines
    assert "newest.pt is damaged" in lines[0]
    assert "trying the one before it" in lines[0]
    assert "resumed from" in lines[1]
    assert "previous.pt" in lines[1]
    assert bits(interrupted / "run") == bits(classes_run)


@pytest.fixture
def checkpoints(tiny: dict, tmp_path: Path) -> Checkpoints:
    """Of a tiny network, with two checkpoints written."""
    method = SingleNetwork("T", _network(tiny), _task(tiny))
    checkpoints = Checkpoints(tmp_path / "checkpoints", "x", 0, method, torch.optim.Adam(method.parameters()))
    for epoch in (1, 2):
        checkpoints.save(Progress(epoch=epoch))
    return checkpoints


def test_two_damaged_checkpoints_cost_time_alone(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """They are read without pickle's powers: a file that would execute code is a damaged file."""

    class Hostile:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "hacked"),))

    checkpoints.newest.write_bytes(checkpoints.newest.read_bytes()[:1000])
    torch.save({"identity": "x", "method": Hostile()}, checkpoints.previous)
    lines: list[str] = []
    assert checkpoints.restore(lines.append) == Progress()
    assert "newest.pt is damaged" in lines[0]
    assert "trying the one before it" in lines[0]
    assert "previous.pt is damaged" in lines[1]
    assert "starting from the beginning" in lines[1]
    assert not (tmp_path / "hacked").exists()


def test_a_checkpoint_of_other_settings_is_not_resumed(checkpoints: Checkpoints) -> None:
    lines: list[str] = []
    assert checkpoints.restore(lines.append).epoch == 2
    checkpoints.identity = "another"
    assert checkpoints.restore(lines.append) == Progress()
    assert ["ignored" in line for line in lines] == [False, True, True]


def test_a_checkpoint_that_cannot_be_written_keeps_the_last_ones(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(content: dict, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(TrainingError, match="No space left on device"):
        checkpoints.save(Progress(epoch=3))
    assert {path.name for path in checkpoints.folder.iterdir()} == {"newest.pt", "previous.pt"}
    assert torch.load(checkpoints.newest, weights_only=True)["progress"]["epoch"] == 2


def test_the_metrics_follow_from_the_saved_predictions(undisturbed: Path, metrics: dict, data: Path) -> None:
    """Everything downstream reads predictions only, so they must reproduce the run's own numbers exactly."""
    ids, stacks = predictions.read(undisturbed / "predictions.parquet")
    test = open_splits(data / "prepared", data / "splits.parquet")["test"]
    assert ids == test.ids == metrics["test_images"]["id"]
    assert test.groups == metrics["test_images"]["group"]
    assert np.array_equal(predict_labels(stacks.pop(predictions.GROUND_TRUTH)), test.ground_truth)
    evaluated = {
        name: score(per_image_counts(predict_labels(stack), test.ground_truth))
        for name, stack in with_ensemble(stacks).items()
    }
    assert evaluated == metrics["best"]["test"]
    assert set(metrics["best"]["test"]) == {"T", "S1", "S2", "ensemble"}
    for network in ("T", "S1", "S2"):
        assert score(metrics["test_images"][network]) == metrics["best"]["test"][network]
        assert tuple(metrics["best"]["test"][network]) == METRICS[task_of(data)]


def test_evaluation_finds_what_the_training_said(undisturbed: Path, metrics: dict) -> None:
    result = evaluate({0: undisturbed})["seeds"]["0"]
    assert set(result["test"]) - set(metrics["best"]["test"]) == {"ensemble_mean"}, "which no training looks at"
    assert result["test"] == metrics["best"]["test"] | {"ensemble_mean": result["test"]["ensemble_mean"]}
    assert result["validation"] == metrics["best"]["val"]
    assert result["last_epoch_test"] == metrics["last"]["test"]
    assert set(result["fidelity"]) == {"S1", "S2", "ensemble", "ensemble_mean"}


def test_the_saved_weights_give_the_saved_predictions(undisturbed: Path, tiny: dict, data: Path, metrics: dict) -> None:
    """Loading a run's weights gives the network of the table: here loaded and asked by hand."""
    study = tiny["study"][study_of(data)]
    settings = select(study, "student", NetworkSettings)
    network = build(settings, task_of(data), len(metrics["data"]["labels"]), seed=99).eval()
    state = load_file(undisturbed / "weights.safetensors")
    network.load_state_dict({key.removeprefix("S2."): value for key, value in state.items() if key.startswith("S2.")})
    ids, stacks = predictions.read(undisturbed / "predictions.parquet")
    index = pd.read_parquet(data / "prepared/index.parquet").id.tolist()
    pixels = np.load(data / "prepared/images.npy")[[index.index(name) for name in ids]]
    with torch.no_grad():
        found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).probabilities.numpy()
    if task_of(data) == "segmentation":
        assert np.abs(np.floor(found[:, 0] * 256).clip(max=255) - stacks["S2"].astype(int)).max() <= 1
    else:
        np.testing.assert_allclose(found, stacks["S2"], atol=1e-5)


def test_the_record_says_what_the_run_was_given(metrics: dict, tiny: dict, data: Path) -> None:
    study = tiny["study"][study_of(data)]
    about = json.loads((data / "prepared/dataset.json").read_text())
    assert metrics["data"].items() >= about.items()
    assert metrics["data"]["split"] == study["split"]
    assert metrics["settings"]["balance"] == study["balance"]
    # What is as in the paper may be left out of params.yaml, so it is left out here.
    as_in_the_paper = {"schedule": "constant", "warmup_epochs": 0}
    assert metrics["settings"]["training"] | as_in_the_paper == tiny["training"]
    assert metrics["settings"]["weights"]["S1"] == {"beta": 0.0, "gamma": 0.0} | study["weights"]["kd_ml-v3"]["S1"]
    assert {name: facts["task"] for name, facts in metrics["networks"].items()} == dict.fromkeys(
        ("T", "S1", "S2"), task_of(data)
    )


def test_history_has_every_loss_component_and_validation_metric(undisturbed: Path, data: Path) -> None:
    history = pd.read_csv(undisturbed / "history.csv")
    assert history.epoch.tolist() == [1, 2]
    expected = {
        "loss/T/task", "loss/S1/task", "loss/S1/feature_from_T", "loss/S1/prediction_from_S2", "loss/S2/task",
        "loss/S2/prediction_from_T", "loss/S2/feature_from_S1", "learning_rate", "epoch",
    }  # fmt: skip
    expected |= {name.replace("loss/", "weighted/") for name in expected if name.startswith("loss/")}
    for network in ("T", "S1", "S2", "ensemble"):
        expected |= {f"val/{network}/{metric}" for metric in METRICS[task_of(data)]}
    assert set(history.columns) == expected
    assert history.notna().all().all()


def test_best_weights_are_of_each_networks_best_validation_epoch(undisturbed: Path, metrics: dict, data: Path) -> None:
    """By IoU or accuracy, the first of equals; never by the test split."""
    history = pd.read_csv(undisturbed / "history.csv")
    chooses = {"segmentation": "iou", "classification": "accuracy"}[task_of(data)]
    for network, epoch in metrics["best"]["epochs"].items():
        column = history[f"val/{network}/{chooses}"]
        assert epoch == history.epoch[column.idxmax()]
        assert metrics["best"]["val"][network][chooses] == pytest.approx(column.max(), abs=1e-12)
    assert metrics["last"]["epoch"] == 2


def test_the_first_metric_of_the_task_chooses_the_epoch_and_no_other(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs chosen by F-score or recall would not be those that the tables claim; of equals the first is kept."""
    first, *others = METRICS["classification"]
    epochs = iter([(0.5, 0.9), (0.6, 0.1), (0.6, 0.95)])

    def evaluated(runs: list[loop.Run], *split: Any) -> Any:
        chooses, other = next(epochs)
        scores = {"S1": {first: chooses, **dict.fromkeys(others, other)}}
        return {run.name: types.SimpleNamespace(scores=scores) for run in runs}

    monkeypatch.setattr("classroom.training.loop.evaluate", evaluated)
    tiny["training"]["epochs"] = 3
    train(tiny, tiny_classes_study, tmp_path, method="student")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["best"]["epochs"] == {"S1": 2}
    saved = load_file(tmp_path / "run/weights.safetensors")["S1.body.classifier.weight"]
    last = torch.load(tmp_path / "checkpoints/newest.pt", weights_only=True)["method"]
    assert not torch.equal(saved, last["networks.S1.body.classifier.weight"]), "those of the last epoch"


# Classification alone


@pytest.mark.parametrize("data", ["classification"], indirect=True)
def test_predictions_of_classes_are_probabilities_and_their_metrics_scikit_learns(
    undisturbed: Path, metrics: dict, data: Path
) -> None:
    """Fidelity too: the same functions with what the run's own teacher says as the ground truth (Table 11)."""
    ids, stacks = predictions.read(undisturbed / "predictions.parquet")
    classes = len(metrics["data"]["labels"])
    table = pd.read_parquet(data / "splits.parquet").set_index("id")
    truth = [list(metrics["data"]["labels"]).index(label) for label in table.label[ids]]
    for stack in stacks.values():
        assert (stack.shape, stack.dtype) == ((len(ids), classes), np.float32)
        np.testing.assert_allclose(stack.sum(axis=1), 1, atol=1e-5)
    assert stacks["ground_truth"].argmax(axis=1).tolist() == truth
    result = evaluate({0: undisturbed})["seeds"]["0"]
    said = {name: stacks[name].argmax(axis=1) for name in ("T", "S1", "S2")}
    said["ensemble"] = np.maximum(stacks["S1"], stacks["S2"]).argmax(axis=1)
    said["ensemble_mean"] = (stacks["S1"] + stacks["S2"]).argmax(axis=1)
    for kind, expected, names in (
        ("test", truth, ("T", "S1", "S2", "ensemble", "ensemble_mean")),
        ("fidelity", said["T"], result["fidelity"]),
    ):
        for name in names:
            macro = {"average": "macro", "zero_division": 0}
            assert result[kind][name] == pytest.approx(
                {
                    "accuracy": accuracy_score(expected, said[name]),
                    "precision": precision_score(expected, said[name], **macro),
                    "recall": recall_score(expected, said[name], **macro),
                }
            )


def test_balance_decides_the_steps_and_the_weights(tiny_classes_study: Path, tiny: dict, tmp_path: Path) -> None:
    """Left out in silence, the common class would be all that is learnt, and the settings would claim otherwise."""
    seen: dict[str, list[int]] = {}
    for balance in ("none", "mean"):

        class Count(Silent):
            def __call__(self, progress: Progress, steps: int, epochs: int, balance: str = balance) -> None:
                seen.setdefault(balance, []).append(steps)

        tiny["study"][CLASSES_STUDY]["balance"] = balance
        tiny["training"]["epochs"] = 1
        train(tiny, tiny_classes_study, tmp_path / balance, method="student", show=Count())
    part = open_splits(tiny_classes_study / "prepared", tiny_classes_study / "splits.parquet")["train"]
    classes = len(set(part.ground_truth.tolist()))
    balanced = round(len(part) / classes) * classes
    assert seen == {"none": [len(part) // 8] * (len(part) // 8), "mean": [balanced // 8] * (balanced // 8)}
    first, second = (load_file(tmp_path / balance / "run/weights.safetensors") for balance in ("none", "mean"))
    assert not torch.equal(first["S1.body.classifier.weight"], second["S1.body.classifier.weight"])


def test_a_teacher_without_its_students_width_says_which_setting_is_meant(
    tiny_classes_study: Path, tiny: dict, tmp_path: Path
) -> None:
    tiny["study"][CLASSES_STUDY]["teacher"]["conv6_channels"] = None
    with pytest.raises(TrainingError, match=r"\(8, 1, 1\) and \(12, 1, 1\).*conv6_channels"):
        train(tiny, tiny_classes_study, tmp_path, method="kd_on-v2")


def test_a_point_of_a_grid_is_trained_with_its_weights(tiny_classes_study: Path, tiny: dict, tmp_path: Path) -> None:
    tiny["training"]["epochs"] = 1
    train(tiny, tiny_classes_study, tmp_path, point=(0.3, 0.5, 0.5))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["settings"]["weights"] == {
        "S1": {"alpha": 0.3, "beta": 0.35, "gamma": 0.35},
        "S2": {"alpha": 0.5, "beta": 0.25, "gamma": 0.25},
    }
    history = pd.read_csv(tmp_path / "run/history.csv")
    np.testing.assert_allclose(history["weighted/S1/task"], 0.3 * history["loss/S1/task"])


# What goes wrong


def test_a_network_that_diverges_in_the_last_step_is_not_recorded(tiny: dict, data: Path, tmp_path: Path) -> None:
    """Its loss was finite, what it predicts is not; a mask of it would be stored as empty."""
    images = len(open_splits(data / "prepared", data / "splits.parquet")["train"])
    tiny["training"] |= {"epochs": 1, "batch_size": images, "learning_rate": 1e30}
    tiny["study"][study_of(data)]["balance"] = "none"
    message = rf"^{tmp_path / 'run'}: .* S1.* not finite after epoch 1 .*nothing is recorded: lower training\.learning"
    with pytest.raises(TrainingError, match=message):
        train(tiny, data, tmp_path, method="student")
    assert not list((tmp_path / "run").iterdir())
    assert not list((tmp_path / "checkpoints").glob("*.pt")), "it would be resumed for ever"


def test_predictions_of_the_test_split_that_are_not_finite_are_not_recorded(
    tiny: dict, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of the test split may overflow where those of the validation split do not."""
    healthy = SingleNetwork.predict
    test = open_splits(data / "prepared", data / "splits.parquet")["test"]
    first = torch.from_numpy(test.images[test.rows[0]].copy()).permute(2, 0, 1).float() / 255

    def overflowing(self: SingleNetwork, images: torch.Tensor) -> dict[str, torch.Tensor]:
        broken = (images == first).flatten(1).all(dim=1)
        found = healthy(self, images)
        return {name: torch.where(broken.view(-1, *[1] * (p.ndim - 1)), math.nan, p) for name, p in found.items()}

    monkeypatch.setattr(SingleNetwork, "predict", overflowing)
    tiny["training"]["epochs"] = 1
    with pytest.raises(TrainingError, match=r"run: the predictions of S1 are not finite after epoch 1 "):
        train(tiny, data, tmp_path, method="student")
    assert not list((tmp_path / "run").iterdir())


def test_weights_that_are_not_finite_are_not_saved_to_be_resumed(checkpoints: Checkpoints) -> None:
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with torch.no_grad():
        next(checkpoints.method.networks["T"].body.decoder.parameters())[0] = math.nan
    with pytest.raises(TrainingError, match=r"the weights T\.body\.decoder.* are not finite after epoch 3, step 2"):
        checkpoints.save(Progress(epoch=2, step=2))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


@pytest.mark.parametrize("wrong", [{"value": math.nan}, {"weight": 1e39}])
def test_a_loss_that_is_not_finite_names_run_step_component_and_weights(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, float]
) -> None:
    """Also one that is not finite with its weight alone, which is seen in the message."""
    from classroom.methods.learning_styles.method import LearningStyles

    healthy, calls = LearningStyles.losses, []
    part = open_splits(tiny_classes_study / "prepared", tiny_classes_study / "splits.parquet")["train"]
    steps = len(order(part, tiny["study"][CLASSES_STUDY]["balance"], 0, 0)) // 8

    def losses(self: LearningStyles, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        calls.append(1)
        terms = healthy(self, images, targets)
        if len(calls) == steps + 2:
            factor = wrong.get("value", 1)
            terms[1] = terms[1]._replace(weight=wrong.get("weight", terms[1].weight), value=terms[1].value * factor)
        return terms

    monkeypatch.setattr(LearningStyles, "losses", losses)
    said = (
        r"run: the loss S1/task is not finite in epoch 2, step 2 \(NaN or infinite; weights of the losses: "
        rf"T/task 1, S1/task {wrong.get('weight', 0.2):g}, .*\), so nothing is recorded: lower .*rate or a weight"
    )
    with pytest.raises(TrainingError, match=said.replace("1e+39", r"1e\+39")):
        train(tiny, tiny_classes_study, tmp_path)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_batch_larger_than_the_training_split_is_refused(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    tiny["training"]["batch_size"] = 1000
    with pytest.raises(TrainingError, match=r"fewer than one batch of 1000.*training\.batch_size"):
        train(tiny, tiny_classes_study, tmp_path, method="student")


def test_an_output_that_cannot_be_written_is_found_before_training(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file where the run's folder should be")
    started = Silent()
    with pytest.raises(ClassroomError, match="cannot be written"):
        train(tiny, tiny_classes_study, tmp_path, method="student", show=started)
    assert not (tmp_path / "checkpoints").exists()


def test_bf16_trains_with_losses_in_fp32(tiny: dict, tiny_classes_study: Path, tmp_path: Path) -> None:
    tiny["training"] |= {"precision": "bf16", "epochs": 1}
    train(tiny, tiny_classes_study, tmp_path)
    weights = load_file(tmp_path / "run/weights.safetensors")
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert np.isfinite(history.filter(like="loss").to_numpy()).all()


def test_compiled_networks_train_as_others_do(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taps and best weights included. What torch traced is run without a compiler's minutes."""
    monkeypatch.setattr(Network, "compile", functools.partialmethod(Network.compile, backend="eager"))
    tiny["training"]["epochs"] = 1
    for folder, compiled in (("plain", False), ("compiled", True)):
        tiny["training"]["compile"] = compiled
        train(tiny, tiny_classes_study, tmp_path / folder, method="ml-v2")
    compiled, plain = (tmp_path / folder / "run" for folder in ("compiled", "plain"))
    assert load_file(compiled / "weights.safetensors").keys() == load_file(plain / "weights.safetensors").keys()
    history, expected = (pd.read_csv(run / "history.csv") for run in (compiled, plain))
    losses = [name for name in expected if name.startswith("loss/")]
    assert list(history) == list(expected)
    np.testing.assert_allclose(history[losses].iloc[0], expected[losses].iloc[0], rtol=1e-3)
    assert json.loads((compiled / "metrics.json").read_text())["settings"]["training"]["compile"] is True


def test_networks_of_one_kind_with_different_taps_are_compiled_each_for_its_own(tiny: dict) -> None:
    """torch.compile takes two networks for the same if only their hooks differ, and would hand out no feature map."""
    settings = select(tiny, f"study.{CLASSES_STUDY}.student", NetworkSettings)
    few, many = (build(settings, "classification", 2, 0, taps) for taps in ((), ("layer1",)))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = [network.eval()(images) for network in (few, many)]
        Both = type("Both", (SingleNetwork,), {"__init__": lambda self, networks: Method.__init__(self, networks)})
        method = Both({"few": few, "many": many})
        for network in method.networks.values():
            network.compile = functools.partial(network.compile, backend="eager")
        method.compile_networks()
        for network, output in zip((few, many), expected, strict=True):
            compiled = network(images)
            torch.testing.assert_close(compiled.logits, output.logits)
            assert compiled.features.keys() == output.features.keys()


def test_data_that_stay_on_the_device_train_the_same_bits(
    classes_run: Path, tiny: dict, tiny_classes_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU whose memory holds them."""
    monkeypatch.setattr(run, "free_memory", lambda device: 2**40)
    train(tiny, tiny_classes_study, tmp_path)
    assert bits(tmp_path / "run") == bits(classes_run)


def test_no_library_takes_more_threads_than_a_job_may() -> None:
    """Eight jobs side by side, each with a BLAS that takes all cores, would be slower than one after the other."""
    code = (
        "from classroom.cli import _limit_threads\n"
        "_limit_threads()\n"
        "import json, numpy, pandas, pyarrow, sklearn.metrics, threadpoolctl\n"
        "pools = [pool['num_threads'] for pool in threadpoolctl.threadpool_info()]\n"
        "print(json.dumps([*pools, pyarrow.cpu_count()]))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert set(json.loads(done.stdout)) == {1}


def test_offline_distillation_keeps_its_teacher_out_of_the_weights(
    tiny: dict, tiny_classes_study: Path, tmp_path: Path
) -> None:
    """T of KD(off) is the baseline: its predictions are recorded, its weights are not stored a second time."""
    tiny["training"]["epochs"] = 1
    train(tiny, tiny_classes_study, tmp_path / "teacher", method="teacher")
    weights = tmp_path / "teacher/run/weights.safetensors"
    train(tiny, tiny_classes_study, tmp_path / "kd", method="kd_off-v3", teacher_weights=weights)
    assert {key.split(".")[0] for key in load_file(tmp_path / "kd/run/weights.safetensors")} == {"S1", "S2"}
    baseline = predictions.read(tmp_path / "teacher/run/predictions.parquet")[1]
    distilled = predictions.read(tmp_path / "kd/run/predictions.parquet")[1]
    assert np.array_equal(baseline["T"], distilled["T"])


def _network(raw: dict) -> Any:
    return build(select(raw, f"study.{STUDY}.teacher", NetworkSettings), "segmentation", 2, 0)


def _task(raw: dict) -> Any:
    return select(raw, "losses.task", TaskLoss)
