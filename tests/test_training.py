"""Training: the same settings give the same bits, killed or not, and what goes wrong is said."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import STUDY
from safetensors.torch import load_file

from classroom.data.batches import open_splits
from classroom.errors import ClassroomError, TrainingError
from classroom.evaluation import predictions
from classroom.evaluation.metrics import pooled
from classroom.methods.alone import Alone
from classroom.methods.base import Term
from classroom.training import run
from classroom.training.checkpoint import Checkpoints, Progress
from classroom.training.loop import Interruption, scores


class Silent:
    """Stands in for the progress bar, and remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *arguments: Any) -> None:
        pass

    def log(self, line: str) -> None:
        self.lines.append(line)


def train(raw: dict[str, Any], study: Path, folder: Path, method: str = "kd_ml-v3", **changes: Any) -> Silent:
    show = changes.pop("show", Silent())
    arguments = {
        "prepared": study / "prepared",
        "splits": study / "splits.parquet",
        "teacher_weights": folder / "teacher.safetensors",
        "target": folder / "run",
        "checkpoint_folder": folder / "checkpoints",
        "identity": "the same",
        "device": "cpu",
        "checkpoint_minutes": 10,
    }
    run.train(STUDY, method, 0, raw, **(arguments | changes), show=show)
    return show


def bits(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in run.FILES}


@pytest.fixture(scope="module")
def undisturbed(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every disturbed one has to equal."""
    from conftest import ROOT, shrink

    from classroom import params

    folder = tmp_path_factory.mktemp("undisturbed")
    train(shrink(params.load(ROOT / "params.yaml")), tiny_study, folder)
    return folder


def test_same_settings_give_the_same_bits(undisturbed: Path, tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    train(tiny, tiny_study, tmp_path)
    assert bits(tmp_path / "run") == bits(undisturbed / "run")


def test_another_seed_gives_other_weights(undisturbed: Path, tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    run.train(
        STUDY, "kd_ml-v3", 1, tiny, tiny_study / "prepared", tiny_study / "splits.parquet", tmp_path, tmp_path / "run",
        tmp_path / "checkpoints", "x", "cpu", 10, Silent(),
    )  # fmt: skip
    ours, theirs = (load_file(folder / "run/weights.safetensors") for folder in (tmp_path, undisturbed))
    assert not torch.equal(ours["S1.body.segmentation_head.0.weight"], theirs["S1.body.segmentation_head.0.weight"])


def life(raw: dict[str, Any], study: Path, folder: Path) -> None:
    """One life of a training that saves a checkpoint after every step; run in a process of its own."""
    train(raw, study, folder, checkpoint_minutes=0)


def test_killed_a_dozen_times_it_ends_in_the_same_bits(tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, in the middle of checkpoints too, costs nothing but time."""
    tiny["training"]["epochs"] = 12
    train(tiny, tiny_study, tmp_path / "undisturbed")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["classroom.training.run"])
    moments = random.Random(0)
    newest = tmp_path / "killed" / "checkpoints" / "newest.pt"
    saved_at_kill = []
    for _ in range(12):
        process = processes.Process(target=life, args=(tiny, tiny_study, tmp_path / "killed"))
        process.start()
        before = newest.stat().st_mtime_ns if newest.exists() else 0
        while process.is_alive() and (newest.stat().st_mtime_ns if newest.exists() else 0) == before:
            time.sleep(0.005)  # until this life has got further than the last
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the training ended before it was killed often enough"
        saved_at_kill.append(newest.stat().st_mtime_ns)
    assert len(set(saved_at_kill)) == 12
    resumed = train(tiny, tiny_study, tmp_path / "killed")
    assert "resumed from" in resumed.lines[-1]
    assert bits(tmp_path / "killed" / "run") == bits(tmp_path / "undisturbed" / "run")


def test_a_terminated_training_saves_and_goes_on(
    undisturbed: Path, tiny: dict, tiny_study: Path, tmp_path: Path
) -> None:
    """A cluster's SIGTERM at a time limit must not cost the steps since the last checkpoint."""

    class TerminateAt(Silent):
        def __call__(self, progress: Progress, steps: int, epochs: int) -> None:
            if (progress.epoch, progress.step) == (0, 2):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        train(tiny, tiny_study, tmp_path, show=TerminateAt())
    assert stopped.value.code == 128 + signal.SIGTERM
    assert any("after step 2" in line for line in train(tiny, tiny_study, tmp_path).lines)
    assert bits(tmp_path / "run") == bits(undisturbed / "run")


def test_signals_are_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def interrupted(tiny: dict, tiny_study: Path, tmp_path: Path) -> Path:
    """A training that stopped in its second epoch, with two checkpoints beside."""

    class StopAt(Silent):
        def __call__(self, progress: Progress, steps: int, epochs: int) -> None:
            if (progress.epoch, progress.step) == (1, 1):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, tiny_study, tmp_path, show=StopAt(), checkpoint_minutes=0)
    return tmp_path


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    interrupted: Path, undisturbed: Path, tiny: dict, tiny_study: Path
) -> None:
    newest = interrupted / "checkpoints" / "newest.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    lines = train(tiny, tiny_study, interrupted).lines
    assert "newest.pt is damaged" in lines[0]
    assert "resumed from" in lines[1]
    assert "previous.pt" in lines[1]
    assert bits(interrupted / "run") == bits(undisturbed / "run")


def test_a_checkpoint_of_other_settings_is_not_resumed(
    interrupted: Path, undisturbed: Path, tiny: dict, tiny_study: Path
) -> None:
    lines = train(tiny, tiny_study, interrupted, identity="another").lines
    assert all("not resumed" in line for line in lines)
    assert bits(interrupted / "run") == bits(undisturbed / "run")


def test_a_checkpoint_that_executes_code_is_refused(interrupted: Path, tiny: dict, tiny_study: Path) -> None:
    """Checkpoints are read without pickle's powers: a hostile file is a damaged file."""

    class Hostile:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(interrupted / "hacked"),))

    for name in ("newest.pt", "previous.pt"):
        torch.save({"identity": "the same", "method": Hostile()}, interrupted / "checkpoints" / name)
    train(tiny, tiny_study, interrupted)
    assert not (interrupted / "hacked").exists()


def test_a_checkpoint_that_cannot_be_written_keeps_the_last_one(tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    method = Alone("T", _network(tiny), _task(tiny))
    optimiser = torch.optim.Adam(method.parameters())
    checkpoints = Checkpoints(tmp_path / "checkpoints", "x", 0, method, optimiser)
    checkpoints.save(Progress(epoch=1))
    (tmp_path / "checkpoints" / "newest.pt.tmp").mkdir()  # stands in for a full disk
    with pytest.raises((TrainingError, IsADirectoryError, PermissionError)):
        checkpoints.save(Progress(epoch=2))
    assert torch.load(checkpoints.newest, weights_only=True)["progress"]["epoch"] == 1


def test_the_metrics_follow_from_the_saved_predictions(undisturbed: Path, tiny_study: Path) -> None:
    """Everything downstream reads predictions only, so they must reproduce the run's own numbers exactly."""
    metrics = json.loads((undisturbed / "run/metrics.json").read_text())
    ids, stacks = predictions.read(undisturbed / "run/predictions.parquet")
    test = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["test"]
    assert ids == test.ids == metrics["test_images"]["id"]
    truth = predictions.mask(stacks.pop("truth"))
    assert np.array_equal(truth, test.masks[test.rows] > 0)
    recomputed = scores({name: stack / np.float32(256) for name, stack in stacks.items()}, test)
    assert recomputed == metrics["best"]["test"]
    assert set(metrics["best"]["test"]) == {"T", "S1", "S2", "ensemble"}
    for network in ("T", "S1", "S2"):
        assert pooled(metrics["test_images"][network]) == metrics["best"]["test"][network]


def test_history_has_every_loss_component_and_validation_metric(undisturbed: Path) -> None:
    history = pd.read_csv(undisturbed / "run/history.csv")
    assert history.epoch.tolist() == [1, 2]
    assert {
        "loss/T/task", "loss/S1/task", "loss/S1/feature_from_T", "loss/S1/prediction_from_S2", "loss/S2/task",
        "loss/S2/prediction_from_T", "loss/S2/feature_from_S1", "val/T/iou", "val/ensemble/f_score", "learning_rate",
    } <= set(history.columns)  # fmt: skip
    assert history.notna().all().all()


def test_best_weights_are_of_each_networks_best_validation_epoch(undisturbed: Path) -> None:
    history = pd.read_csv(undisturbed / "run/history.csv")
    metrics = json.loads((undisturbed / "run/metrics.json").read_text())
    for network, epoch in metrics["best"]["epochs"].items():
        column = history[f"val/{network}/iou"]
        assert epoch == history.epoch[column.idxmax()]
        assert metrics["best"]["val"][network]["iou"] == pytest.approx(column.max(), abs=1e-12)
    assert metrics["last"]["epoch"] == 2


def test_a_loss_that_is_not_finite_names_step_component_and_checkpoint(
    tiny: dict, tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from classroom.methods.learning_styles import LearningStyles

    healthy, calls = LearningStyles.losses, []

    def losses(self: LearningStyles, images: torch.Tensor, masks: torch.Tensor) -> list[Term]:
        calls.append(1)
        terms = healthy(self, images, masks)
        if len(calls) == 8:  # six steps an epoch: second epoch, second step
            terms[1] = terms[1]._replace(value=terms[1].value * float("nan"))
        return terms

    monkeypatch.setattr(LearningStyles, "losses", losses)
    with pytest.raises(TrainingError, match=r"epoch 2, step 2: S1/task.*newest\.pt"):
        train(tiny, tiny_study, tmp_path)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_batch_larger_than_the_training_split_is_refused(tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    tiny["training"]["batch_size"] = 64
    with pytest.raises(TrainingError, match=r"fewer than one batch of 64.*training\.batch_size"):
        train(tiny, tiny_study, tmp_path, method="student")


def test_an_output_that_cannot_be_written_is_found_before_training(
    tiny: dict, tiny_study: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file where the run's folder should be")
    started = Silent()
    with pytest.raises(ClassroomError, match="cannot be written"):
        train(tiny, tiny_study, tmp_path, method="student", show=started)
    assert not (tmp_path / "checkpoints").exists()


def test_bf16_trains_with_losses_in_fp32(tiny: dict, tiny_study: Path, tmp_path: Path) -> None:
    tiny["training"] |= {"precision": "bf16", "epochs": 1}
    train(tiny, tiny_study, tmp_path)
    weights = load_file(tmp_path / "run/weights.safetensors")
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert np.isfinite(history.filter(like="loss").to_numpy()).all()


def test_an_absent_device_is_named() -> None:
    with pytest.raises(TrainingError, match="device 'cuda:7' cannot be used"):
        run.choose_device("cuda:7")


def test_offline_distillation_keeps_its_teacher_out_of_the_weights(
    tiny: dict, tiny_study: Path, tmp_path: Path
) -> None:
    """T of KD(off) is the baseline: its predictions are recorded, its weights are not stored a second time."""
    train(tiny, tiny_study, tmp_path / "teacher", method="teacher")
    weights = tmp_path / "teacher/run/weights.safetensors"
    train(copy.deepcopy(tiny), tiny_study, tmp_path / "kd", method="kd_off-v3", teacher_weights=weights)
    assert {key.split(".")[0] for key in load_file(tmp_path / "kd/run/weights.safetensors")} == {"S1", "S2"}
    alone = predictions.read(tmp_path / "teacher/run/predictions.parquet")[1]
    beside = predictions.read(tmp_path / "kd/run/predictions.parquet")[1]
    assert np.array_equal(alone["T"], beside["T"])


def _network(raw: dict) -> Any:
    from classroom.networks.build import build
    from classroom.params import Network, select

    return build(select(raw, f"study.{STUDY}.teacher", Network), 0)


def _task(raw: dict) -> Any:
    from classroom.params import TaskLoss, select

    return select(raw, "losses.task", TaskLoss)
