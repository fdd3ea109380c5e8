"""Runs that train together: the same bits as one after the other, whatever happens to one of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from classroom import params
from classroom.core.method import Term
from classroom.core.networks.build import Network
from classroom.errors import TrainingError
from classroom.methods.learning_styles.method import LearningStyles
from classroom.params import VARIANTS
from classroom.training import equality, loop
from classroom.training.checkpoint import Checkpoints
from classroom.training.make import make
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink
from support.trained import Silent, bits, train

OFFLINE = "kd_off-v1 kd_off-v2 kd_off-v3"
PUBLISHED = "fitnet at"
JOINT = "teacher student " + " ".join(name for name in VARIANTS if name not in OFFLINE)


def settings() -> dict[str, Any]:
    """Two epochs of two steps."""
    raw = shrink(params.load(ROOT / "params.yaml"))
    raw["training"] |= {"epochs": 2, "batch_size": 16}
    raw["study"][CLASSES_STUDY]["methods"] = raw["study"]["histopathologic-resnet18"]["methods"]
    return raw


@pytest.fixture(scope="module", params=["segmentation", "classification"])
def data(request: pytest.FixtureRequest, tiny_study: Path, tiny_classes_study: Path) -> Path:
    return {"segmentation": tiny_study, "classification": tiny_classes_study}[request.param]


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method of a study, trained by itself: what the same methods together have to equal."""
    folder = tmp_path_factory.mktemp("alone")
    for name in f"{JOINT} {OFFLINE} {PUBLISHED}".split():
        train(settings(), data, folder / name, name, teacher_weights=folder / "teacher/run/weights.safetensors")
    return folder


def same(together: Path, alone: Path, names: str) -> None:
    assert [name for name in names.split() if bits(together / name / "run") != bits(alone / name / "run")] == []


def test_all_methods_together_have_the_bits_of_each_alone(data: Path, alone: Path, tmp_path: Path) -> None:
    lines = train(settings(), data, tmp_path, JOINT).lines
    same(tmp_path, alone, JOINT)
    assert "11 runs together" in lines[0]
    waiting = f"{OFFLINE} {PUBLISHED}"
    lines = train(
        settings(), data, tmp_path, waiting, teacher_weights=tmp_path / "teacher/run/weights.safetensors"
    ).lines
    same(tmp_path, alone, waiting)


def names_of(method: str, study: str) -> set[tuple[str, str, float]]:
    """Network, name and weight of every loss term of a method, as it trains."""
    made = make(method, study, settings(), 0, None, "segmentation", 2, 32)
    terms = made.losses(torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32))
    return {(term.network, term.name, term.weight) for term in terms}


@pytest.mark.parametrize("method", (JOINT + " " + OFFLINE).split())
def test_the_rule_of_equality_knows_every_term_that_a_network_learns_from(method: str) -> None:
    """A term that the rule did not know could make two networks equal to it that learn differently."""
    lessons = equality.lessons(method, STUDY, settings())
    known = {(name, term, weight) for name, lesson in lessons.items() for term, weight in lesson.terms.items()}
    assert known == names_of(method, STUDY)


def equal(raw: dict[str, Any], *runs: str) -> bool:
    """Whether networks, given as `method/network`, are one."""
    keys = {equality.keys(method, STUDY, raw)[name] for method, name in (run.split("/") for run in runs)}
    return len(keys) == 1


def test_equal_are_the_teachers_that_learn_and_the_students_that_do_not_hear_each_other() -> None:
    raw = settings()
    weights = raw["study"][STUDY]["weights"]
    teachers = ["teacher", *(f"kd_{which}-v{strategy}" for which in ("on", "ml") for strategy in (1, 2, 3))]
    assert equal(raw, *(f"{name}/T" for name in teachers))
    assert not equal(raw, "teacher/T", "kd_off-v1/T")
    assert equal(raw, "kd_on-v1/S1", "kd_on-v3/S1"), "both receive predictions"
    assert not equal(raw, "kd_on-v1/S1", "kd_on-v1/S2"), "they start differently"
    assert not equal(raw, "kd_on-v1/S1", "kd_off-v1/S1"), "their teachers differ"
    assert not equal(raw, "kd_on-v2/S1", "kd_on-v3/S1"), "features, predictions"
    weights["ml-v1"]["S1"] = weights["ml-v3"]["S1"]
    assert not equal(raw, "ml-v1/S1", "ml-v3/S1"), "their peers learn from different knowledge"
    weights["kd_on-v1"]["S2"]["alpha"] = 0.3
    assert equal(raw, "kd_on-v1/S1", "kd_on-v3/S1"), "the peer is not heard"
    weights["kd_on-v1"]["S1"]["alpha"] = 0.3
    assert not equal(raw, "kd_on-v1/S1", "kd_on-v3/S1")
    assert equal(raw, *(f"{name}/T" for name in teachers)), "the teacher hears nobody"


KD_ON = "kd_on-v1 kd_on-v2 kd_on-v3"


@pytest.fixture
def classes(tiny_classes_study: Path) -> Path:
    return tiny_classes_study


@pytest.fixture(scope="module")
def kd_on(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KD (on) of the classification, each variant alone."""
    folder = tmp_path_factory.mktemp("kd-on")
    for name in KD_ON.split():
        train(settings(), tiny_classes_study, folder / name, name)
    return folder


def test_a_kill_between_two_checkpoints_of_a_group_costs_no_bits(
    classes: Path, kd_on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some runs are a step ahead of the others then: they go back to their previous checkpoint."""
    healthy, saved = Checkpoints.save, []

    def killed(self: Checkpoints, progress: Any) -> None:
        if len(saved) == 3 * 2 + 1:
            raise KeyboardInterrupt
        healthy(self, progress)
        saved.append((self.folder.parent.name, progress.epoch, progress.step))

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(settings(), classes, tmp_path, KD_ON, checkpoint_minutes=0)
    assert saved[-2:] == [("kd_on-v3", 0, 2), ("kd_on-v1", 0, 3)]
    monkeypatch.setattr(Checkpoints, "save", healthy)
    lines = train(settings(), classes, tmp_path, KD_ON).lines
    assert [line.split(": ")[-1] for line in lines if "resumed" in line] == ["epoch 1, after step 2"] * 3
    same(tmp_path, kd_on, KD_ON)


def test_a_run_whose_settings_changed_starts_again_and_the_others_resume(
    classes: Path, kd_on: Path, tmp_path: Path
) -> None:
    """And a run that was begun alone goes on with the others."""

    class StopAt(Silent):
        def __call__(self, progress: Any, *more: Any) -> None:
            if (progress.epoch, progress.step) == (1, 1):
                raise KeyboardInterrupt

    for names in ("kd_on-v1 kd_on-v2", "kd_on-v3"):
        folder = tmp_path if " " in names else tmp_path / names
        with pytest.raises(KeyboardInterrupt):
            train(settings(), classes, folder, names, show=StopAt())
    lines = train(settings(), classes, tmp_path, KD_ON, identities={"kd_on-v1": "another"}).lines
    assert len([line for line in lines if "resumed" in line]) == 2
    assert any("kd_on-v1" in line and "with other settings" in line for line in lines)
    same(tmp_path, kd_on, KD_ON)


def test_a_run_that_diverges_is_named_and_leaves_the_others_to_finish(
    classes: Path, kd_on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first, whose optimiser has trained the teacher so far."""
    healthy, steps = LearningStyles.losses, []

    def diverging(self: LearningStyles, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        terms = healthy(self, images, targets)
        if self.variant.name == "kd_on-v1":
            steps.append(0)
            if len(steps) == 2:
                return [term._replace(value=term.value * torch.nan) if term.network == "S2" else term for term in terms]
        return terms

    monkeypatch.setattr(LearningStyles, "losses", diverging)
    message = (
        r"^\S*kd_on-v1/run: the loss S2/task, S2/prediction_from_T is not finite in epoch 1, step 2 .*nothing of it"
    )
    with pytest.raises(TrainingError, match=message) as raised:
        train(settings(), classes, tmp_path, KD_ON)
    assert "kd_on-v2" not in str(raised.value)
    same(tmp_path, kd_on, "kd_on-v2 kd_on-v3")
    assert not list((tmp_path / "kd_on-v1/run").iterdir())


def test_runs_that_stop_early_leave_the_others_their_bits(classes: Path, tmp_path: Path) -> None:
    """Under all the options of a training: what is shared goes on in the optimisers of those that train on."""
    raw = settings()
    raw["training"] |= {
        "epochs": 6, "early_stopping": 2, "optimiser": "sgd", "learning_rate": 0.1, "weight_decay": 0.01,
        "schedule": "cosine", "warmup_epochs": 1, "clip_gradients": 0.1,
    }  # fmt: skip
    names = "teacher kd_on-v1 kd_on-v2"
    for name in names.split():
        train(raw, classes, tmp_path / "alone" / name, name)
    train(raw, classes, tmp_path, names)
    same(tmp_path, tmp_path / "alone", names)
    ends = {len(pd.read_csv(tmp_path / name / "run/history.csv")) for name in names.split()}
    assert len(ends) > 1, "they all end in the same epoch, so this test shows nothing"


def test_runs_that_draw_random_numbers_train_alone(classes: Path, tmp_path: Path) -> None:
    """What one draws would depend on those that train with it."""
    raw = settings()
    raw["study"][CLASSES_STUDY]["student"]["encoder_options"]["drop_path_rate"] = 0.5
    for name in KD_ON.split():
        train(raw, classes, tmp_path / "alone" / name, name)
    lines = train(raw, classes, tmp_path, "teacher " + KD_ON).lines
    assert any(line.startswith("kd_on-v1, kd_on-v2, kd_on-v3: draws random numbers") for line in lines)
    same(tmp_path, tmp_path / "alone", KD_ON)


def test_a_group_that_is_too_large_for_a_gpu_is_halved(
    classes: Path, kd_on: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = loop.step_together

    def small(runs: list[loop.Run], *more: Any) -> list[loop.Run]:
        if len(runs) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return healthy(runs, *more)

    monkeypatch.setattr(loop, "step_together", small)
    lines = train(settings(), classes, tmp_path, KD_ON).lines
    assert any("3 runs need more memory than cpu has" in line for line in lines)
    same(tmp_path, kd_on, KD_ON)


def test_compiled_networks_are_shared_too(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch traced is run without a compiler's minutes."""
    monkeypatch.setattr(Network, "compile", functools.partialmethod(Network.compile, backend="eager"))
    raw, names = settings(), "kd_on-v2 kd_on-v3"
    raw["training"] |= {"compile": True, "epochs": 1}
    for name in names.split():
        train(raw, classes, tmp_path / "alone" / name, name)
    lines = train(raw, classes, tmp_path, names).lines
    assert "4 networks learn instead of 6" in lines[0]
    same(tmp_path, tmp_path / "alone", names)


def test_a_limit_of_networks_splits_a_group(classes: Path, kd_on: Path, tmp_path: Path) -> None:
    """The second and third variant have a student in common, so they are four networks; with the first, five."""
    lines = train(settings() | {"together": {"max_networks": 4}}, classes, tmp_path, KD_ON).lines
    assert [line.split(":")[0] for line in lines if "together" in line] == ["2 runs together"]
    same(tmp_path, kd_on, KD_ON)


def test_what_a_group_takes_is_divided_among_its_runs(classes: Path, tmp_path: Path) -> None:
    facts = train(settings(), classes, tmp_path, "teacher " + KD_ON).facts
    assert all(of["together"] == ["teacher", *KD_ON.split()] for of in facts.values())
    assert facts["teacher"]["seconds"] < facts["kd_on-v1"]["seconds"], "a quarter of a teacher, and students"
