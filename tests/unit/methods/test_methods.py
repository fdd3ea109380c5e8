"""What is trained together: every variant's loss terms, where their gradients go, and what a frozen teacher keeps."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from classroom import params
from classroom.core.losses import feature_loss, prediction_loss, task_loss
from classroom.core.method import Method, network_seed
from classroom.core.networks.build import FEATURE_TAP, build
from classroom.errors import ParamsError, TrainingError
from classroom.methods.baselines.single_network import SingleNetwork
from classroom.methods.grid.points import weights_at
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import VARIANTS, Losses, Network, TaskLoss, Training, select
from classroom.training.loop import make_optimiser, train_step
from classroom.training.make import make
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink

SEED = 3
TASKS = {STUDY: "segmentation", CLASSES_STUDY: "classification"}
CLASSES = 7

# Of each student different ones, so that a weight in a wrong place shows.
WEIGHTS = {
    "S1": {"alpha": 0.2, "beta": 0.35, "gamma": 0.45},
    "S2": {"alpha": 0.125, "beta": 0.25, "gamma": 0.625},
}

# variant: what S1 and S2 receive in addition to their task. Written out by hand from Table 5: kind, giver, weight.
BY_HAND = {
    "ml-v1": ([("prediction", "S2", "gamma")], [("prediction", "S1", "gamma")]),
    "ml-v2": ([("feature", "S2", "gamma")], [("feature", "S1", "gamma")]),
    "ml-v3": ([("prediction", "S2", "gamma")], [("feature", "S1", "gamma")]),
    "kd_off-v1": ([("prediction", "T", "beta")], [("prediction", "T", "beta")]),
    "kd_off-v2": ([("feature", "T", "beta")], [("feature", "T", "beta")]),
    "kd_off-v3": ([("prediction", "T", "beta")], [("feature", "T", "beta")]),
    "kd_on-v1": ([("prediction", "T", "beta")], [("prediction", "T", "beta")]),
    "kd_on-v2": ([("feature", "T", "beta")], [("feature", "T", "beta")]),
    "kd_on-v3": ([("prediction", "T", "beta")], [("feature", "T", "beta")]),
    "kd_ml-v1": (
        [("prediction", "T", "beta"), ("prediction", "S2", "gamma")],
        [("prediction", "T", "beta"), ("prediction", "S1", "gamma")],
    ),
    "kd_ml-v2": (
        [("feature", "T", "beta"), ("feature", "S2", "gamma")],
        [("feature", "T", "beta"), ("feature", "S1", "gamma")],
    ),
    "kd_ml-v3": (
        [("feature", "T", "beta"), ("prediction", "S2", "gamma")],
        [("prediction", "T", "beta"), ("feature", "S1", "gamma")],
    ),
}
WITHOUT_TEACHER = ("ml-v1", "ml-v2", "ml-v3")
FROZEN_TEACHER = ("kd_off-v1", "kd_off-v2", "kd_off-v3")
TRAINED_TEACHER = ("kd_on-v1", "kd_on-v2", "kd_on-v3", "kd_ml-v1", "kd_ml-v2", "kd_ml-v3")


COMMITTED = shrink(params.load(ROOT / "params.yaml"))


def settings_with_weights() -> dict[str, Any]:
    raw = copy.deepcopy(COMMITTED)
    for study in TASKS:
        raw["study"][study]["weights"] = {variant: copy.deepcopy(WEIGHTS) for variant in VARIANTS}
    return raw


def made(
    name: str, study: str = CLASSES_STUDY, raw: dict[str, Any] | None = None, file: Path = Path("unused"), **more: Any
) -> Method:
    """In train mode."""
    raw = raw or settings_with_weights()
    return make(name, study, raw, SEED, file, TASKS[study], CLASSES, 32, **more).train()


both_tasks = pytest.mark.parametrize("study", TASKS, ids=TASKS.get)


@pytest.fixture(scope="module")
def teacher_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By study, what a trained teacher would have left: weights and batch statistics that no fresh network has."""
    files = {}
    for study in TASKS:
        method = made("teacher", study)
        with torch.no_grad():
            for _ in range(3):
                method.losses(*batch(study, 7))
            for parameter in method.parameters():
                parameter.add_(0.01)
        files[study] = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
        save_file({key: value.contiguous() for key, value in method.state_of("T").items()}, files[study])
    return files


@pytest.fixture(scope="module")
def teacher_file(teacher_files: dict[str, Path]) -> Path:
    """Of the classification."""
    return teacher_files[CLASSES_STUDY]


@pytest.fixture(scope="module")
def variants(teacher_file: Path) -> dict[str, Method]:
    """All twelve, of the classification, for tests that change no weight."""
    return {name: made(name, file=teacher_file) for name in VARIANTS}


def batch(study: str = CLASSES_STUDY, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 32, 32, generator=random)
    if TASKS[study] == "classification":
        return images, torch.randint(0, CLASSES, (4,), generator=random)
    return images, (torch.rand(4, 1, 32, 32, generator=random) < 0.3).float()


def gradients(method: Method, network: str) -> list[torch.Tensor]:
    """Those of one network's parameters that are not zero."""
    found = (parameter.grad for parameter in method.networks[network].parameters())
    return [gradient for gradient in found if gradient is not None and gradient.abs().sum() > 0]


def expected_terms(study: str, name: str, method: Method) -> dict[tuple[str, str], tuple[float, torch.Tensor]]:
    """By network and term its weight and value: alpha_k · task, beta_k · from the teacher, gamma_k · from the peer, and
    a trained teacher's task."""
    images, targets = batch(study)
    losses = select(settings_with_weights(), "losses", Losses)
    outputs = {network: method.networks[network](images) for network in method.networks}
    tap = FEATURE_TAP[TASKS[study]]
    expected = {}
    if name in TRAINED_TEACHER:
        expected["T", "task"] = 1.0, task_loss(outputs["T"].logits, targets, losses.task)
    for student, received in zip(("S1", "S2"), BY_HAND[name], strict=True):
        own = outputs[student]
        expected[student, "task"] = WEIGHTS[student]["alpha"], task_loss(own.logits, targets, losses.task)
        for kind, giver, weight in received:
            if kind == "prediction":
                value = prediction_loss(own.logits, outputs[giver].logits, losses.prediction)
            else:
                value = feature_loss(own.features[tap], outputs[giver].features[tap])
            expected[student, f"{kind}_from_{giver}"] = WEIGHTS[student][weight], value
    return expected


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_terms_their_weights_and_values_are_those_of_the_paper(name: str, variants: dict[str, Method]) -> None:
    method = variants[name]
    with torch.no_grad():
        terms, expected = method.losses(*batch()), expected_terms(CLASSES_STUDY, name, method)
    assert {(term.network, term.name): (term.weight, term.value) for term in terms} == expected
    assert len(terms) == len(expected), "a term is there twice"
    assert set(method.networks) == ({"S1", "S2"} if name in WITHOUT_TEACHER else {"T", "S1", "S2"})
    assert set(method.trained) == ({"T", "S1", "S2"} if name in TRAINED_TEACHER else {"S1", "S2"})


def test_a_segmentations_terms_are_of_masks_and_of_the_decoders_features() -> None:
    method = made("kd_ml-v3", STUDY)
    with torch.no_grad():
        terms, expected = method.losses(*batch(STUDY)), expected_terms(STUDY, "kd_ml-v3", method)
    assert {(term.network, term.name): (term.weight, term.value) for term in terms} == expected


@pytest.mark.parametrize("name", BY_HAND)
def test_no_term_sends_gradient_into_another_network(name: str, variants: dict[str, Method]) -> None:
    """The giver is not changed by the receiver, or the teacher would learn to be easy to imitate."""
    method = variants[name]
    for term in method.losses(*batch()):
        method.zero_grad(set_to_none=True)
        term.value.backward(retain_graph=True)
        assert gradients(method, term.network), f"{term.network}/{term.name} teaches nothing"
        for other in set(method.networks) - {term.network}:
            assert not gradients(method, other), f"{term.network}/{term.name} reaches {other}"


def test_a_teacher_that_diverged_teaches_nobody(teacher_file: Path, tmp_path: Path) -> None:
    state = load_file(teacher_file)
    key = next(key for key in state if key.endswith("running_var"))
    save_file(state | {key: torch.full_like(state[key], torch.inf)}, tmp_path / "teacher.safetensors")
    with pytest.raises(
        TrainingError, match=rf"teacher\.safetensors: the teacher diverged: 1 .*{key.removeprefix('T.')}"
    ):
        made("kd_off-v3", file=tmp_path / "teacher.safetensors")


def test_a_frozen_teacher_keeps_every_bit(teacher_file: Path) -> None:
    """Batch statistics too: in train mode each batch would shift what it teaches away from its baseline."""
    method = made("kd_off-v3", file=teacher_file)
    saved = load_file(teacher_file)
    students_before = {key: value.clone() for key, value in method.networks["S1"].state_dict().items()}
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        method.train()
        optimiser.zero_grad()
        sum(term.weight * term.value for term in method.losses(*batch(seed=step))).backward()
        optimiser.step()
    assert not any(module.training for module in method.networks["T"].modules())
    assert all(module.training for module in method.networks["S1"].modules())
    after = method.networks["T"].state_dict()
    assert after.keys() == {key.removeprefix("T.") for key in saved}
    assert all(torch.equal(after[key], saved[f"T.{key}"]) for key in after)
    assert any("running_mean" in key for key in after)
    fresh = made("teacher").networks["T"].state_dict()
    assert not all(torch.equal(fresh[key], after[key]) for key in fresh), "any teacher would have passed"
    trained = method.networks["S1"].state_dict()
    assert not any(torch.equal(students_before[key], trained[key]) for key in trained if "running_mean" in key)


@pytest.mark.parametrize("name", ["kd_on-v3", "kd_ml-v3"])
def test_a_trained_teacher_takes_the_same_step_as_one_alone(name: str) -> None:
    """The tables say that T learns from its task alone and starts from the same seed in every technique."""
    after = []
    for method in (made(name), made("teacher")):
        assert method.networks["T"].training
        before = {key: value.clone() for key, value in method.networks["T"].state_dict().items()}
        optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
        sum(term.weight * term.value for term in method.losses(*batch())).backward()
        optimiser.step()
        after.append(method.networks["T"].state_dict())
    assert not any(torch.equal(before[key], after[0][key]) for key in before if "classifier" in key or "conv6.0" in key)
    for key, value in after[0].items():
        torch.testing.assert_close(value, after[1][key])


def test_clipping_keeps_the_networks_apart() -> None:
    """One norm for all would make the teacher's steps depend on its students."""
    settings = select(settings_with_weights(), "training", Training)
    settings = settings.model_copy(update={"optimiser": "sgd", "learning_rate": 0.5, "clip_gradients": 0.01})
    moved = []
    for name in ("kd_ml-v3", "teacher"):
        method = made(name).train()
        before = [parameter.detach().clone() for parameter in method.networks["T"].parameters()]
        train_step(method, make_optimiser(method, settings), settings, *batch())
        moved.append([now - then for now, then in zip(method.networks["T"].parameters(), before, strict=True)])
    assert torch.cat([step.flatten() for step in moved[0]]).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    for ours, alone in zip(*moved, strict=True):
        torch.testing.assert_close(ours, alone)


@both_tasks
def test_students_share_pretrained_weights_and_nothing_else(study: str, tmp_path: Path) -> None:
    """Alike in every bit, V1 and V2 would train one student twice."""
    raw = settings_with_weights()
    encoder = build(select(raw, f"study.{study}.student", Network), TASKS[study], CLASSES, 99).body.encoder
    path = tmp_path / "encoder.safetensors"
    save_file({key: value.contiguous() for key, value in encoder.state_dict().items()}, path)
    raw["study"][study]["student"]["weights"] = str(path)
    first, second = (network.body for network in made("ml-v1", study, raw).networks.values())
    for key, value in encoder.state_dict().items():
        for student in (first, second):
            assert torch.equal(student.encoder.state_dict()[key], value)
    random_parts = ("segmentation_head.0.weight", "decoder.blocks.0.conv1.0.weight")
    for key in random_parts if study == STUDY else ("classifier.weight",):
        assert not torch.equal(first.state_dict()[key], second.state_dict()[key])


def test_a_networks_seed_follows_from_the_runs_seed_and_its_name() -> None:
    seeds = {network_seed(seed, name) for seed in range(20) for name in ("T", "S1", "S2")}
    assert len(seeds) == 60
    assert network_seed(0, "S1") == network_seed(0, "S1")


def test_one_seed_gives_one_student_in_every_method(teacher_file: Path) -> None:
    """The baseline student and every variant's S1 start alike, so a difference between them is the method's."""
    alone = made("student").networks["S1"].state_dict()
    for name in ("ml-v2", "kd_off-v1", "kd_ml-v3"):
        together = made(name, file=teacher_file).networks["S1"].state_dict()
        assert all(torch.equal(alone[key], together[key]) for key in alone), name


@pytest.mark.parametrize("name", ["kd_off-v2", "kd_ml-v3"])
def test_states_come_back_as_they_were(name: str, teacher_file: Path) -> None:
    """The best epoch's weights are put back this way before the test split is predicted."""
    method, images = made(name, file=teacher_file), batch()[0]
    method.losses(*batch())  # batch statistics move too
    state = {key: value.clone() for network in method.trained for key, value in method.state_of(network).items()}
    expected = method.eval().predict(images)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    assert not torch.equal(method.predict(images)["S1"], expected["S1"])
    method.load_states(state)
    restored = method.predict(images)
    assert all(torch.equal(restored[network], expected[network]) for network in expected)
    assert {key.split(".")[0] for key in state} == set(method.trained)


@both_tasks
def test_predictions_are_probabilities_of_every_network(study: str, teacher_files: dict[str, Path]) -> None:
    method = made("kd_off-v1", study, file=teacher_files[study]).eval()
    images = batch(study)[0]
    predicted = method.predict(images)
    assert set(predicted) == {"T", "S1", "S2"}
    for name, probabilities in predicted.items():
        logits = method.networks[name](images).logits.detach().double()
        if study == STUDY:
            shape, expected = (4, 1, 32, 32), 1 / (1 + torch.exp(-logits))
        else:
            shape, expected = (4, CLASSES), logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        assert probabilities.shape == shape
        assert not probabilities.requires_grad
        torch.testing.assert_close(probabilities.double(), expected, atol=1e-6, rtol=1e-5)


@both_tasks
@pytest.mark.parametrize(("baseline", "network"), [("teacher", "T"), ("student", "S1")])
def test_a_baseline_learns_its_task_and_nothing_else(study: str, baseline: str, network: str) -> None:
    method = made(baseline, study)
    images, targets = batch(study)
    (term,) = method.losses(images, targets)
    assert isinstance(method, SingleNetwork)
    assert (term.network, term.name, term.weight) == (network, "task", 1.0)
    assert method.trained == list(method.networks) == [network]
    with torch.no_grad():
        logits = method.networks[network](images).logits
    torch.testing.assert_close(
        term.value.detach(), task_loss(logits, targets, select(COMMITTED, "losses.task", TaskLoss))
    )
    term.value.backward()
    assert gradients(method, network)


def test_teacher_and_student_are_the_studys_own() -> None:
    networks = made("kd_on-v1").networks
    settings_of = {name: network.facts["encoder_options"] for name, network in networks.items()}
    student, teacher = ({"channels": [4, 4, 8, width]} for width in (8, 12))
    assert settings_of == {"T": teacher, "S1": student, "S2": student}


def test_a_run_records_the_weights_and_losses_it_was_given(variants: dict[str, Method]) -> None:
    """Tables print the weights from this record, not from settings that may have changed since."""
    recorded, losses = variants["kd_ml-v3"].settings, COMMITTED["losses"]
    assert recorded == {"weights": WEIGHTS, "losses": losses}
    assert made("student").settings == {"losses": {"task": losses["task"]}}


# What make() refuses


@pytest.mark.parametrize(("wrong", "near"), [("kd_of-v1", "kd_off-v1"), ("techer", "teacher"), ("ml_v1", "ml-v1")])
def test_an_unknown_method_is_named_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(TrainingError, match=f"unknown method '{wrong}'. Did you mean '{near}'"):
        made(wrong)


def test_an_unknown_study_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'lgg-resnet18'"):
        make("ml-v1", "lgg-resnet81", settings_with_weights(), 0, Path("unused"), "segmentation", 2, 32)


def test_weights_that_do_not_sum_to_one_are_used_with_a_warning() -> None:
    """They may be set on purpose."""
    raw = settings_with_weights()
    weights = {"S1": {"alpha": 0.1, "gamma": 0.8}, "S2": {"alpha": 0.2, "gamma": 0.8}}
    raw["study"][CLASSES_STUDY]["weights"]["ml-v3"] = weights
    with pytest.warns(UserWarning, match=rf"studies/{CLASSES_STUDY}\.yaml: weights\.ml-v3\.S1: .* = 0\.9, not 1"):
        method = made("ml-v3", raw=raw)
    assert [term.weight for term in method.losses(*batch())] == [0.1, 0.8, 0.2, 0.8]


def test_only_offline_distillation_needs_its_teachers_file(tmp_path: Path) -> None:
    """It says how to train it; the others must start at once, without waiting for the baseline."""
    absent = tmp_path / "absent.safetensors"
    for name in BY_HAND:
        if name not in FROZEN_TEACHER:
            made(name, file=absent)
            continue
        with pytest.raises(TrainingError, match=r"absent\.safetensors: .*classroom train STUDY teacher --seed SEED"):
            made(name, file=absent)


def test_a_truncated_teacher_is_named(teacher_file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(teacher_file.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"half\.safetensors: the trained teacher cannot be read"):
        made("kd_off-v1", file=half)


@pytest.mark.parametrize(
    "other", [{"encoder": "resnet26"}, {"encoder_options": {"channels": [4, 4, 8, 16]}}, {"conv6_channels": 16}]
)
def test_a_teacher_of_other_settings_is_refused(other: dict[str, Any], teacher_file: Path) -> None:
    """Left from before a change of params.yaml: other tensors, or the same tensors in other shapes."""
    raw = settings_with_weights()
    raw["study"][CLASSES_STUDY]["teacher"] |= other
    with pytest.raises(TrainingError, match=r"weights\.safetensors: holds the weights of another net.*teacher again"):
        made("kd_off-v1", raw=raw, file=teacher_file)


def test_a_teacher_of_other_classes_is_refused(teacher_files: dict[str, Path]) -> None:
    """Its dataset was exchanged since. A segmentation has one logit per pixel whatever the classes are called."""
    raw = settings_with_weights()
    with pytest.raises(TrainingError, match="the weights of another network"):
        make("kd_off-v1", CLASSES_STUDY, raw, SEED, teacher_files[CLASSES_STUDY], "classification", 3, 32)
    segmentation = make("kd_off-v1", STUDY, raw, SEED, teacher_files[STUDY], "segmentation", 3, 32)
    assert segmentation.networks["T"](torch.rand(2, 3, 32, 32)).logits.shape[1] == 1


def test_a_point_of_a_grid_takes_the_place_of_the_settings_weights() -> None:
    """Trained with the study's weights instead, every point of a search would be the same run."""
    raw = settings_with_weights()
    del raw["study"][CLASSES_STUDY]["weights"]  # a search need not declare what it does not read
    method = made("kd_ml-v3", raw=raw, point=(0.1, 0.4, 0.25))
    expected = {"S1": (0.1, 0.225, 0.675), "S2": (0.4, 0.15, 0.45)}  # alpha, a quarter of the rest, the remainder
    terms = method.losses(*batch())
    for student, (alpha, beta, gamma) in expected.items():
        recorded = method.settings["weights"][student]
        assert recorded == {"alpha": alpha, "beta": pytest.approx(beta), "gamma": pytest.approx(gamma)}
        weights = [term.weight for term in terms if term.network == student]
        assert weights == pytest.approx([alpha, beta, gamma])


# Points of a grid

SHARES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(st.sampled_from(VARIANTS), SHARES, SHARES, SHARES)
def test_the_weights_at_a_point_sum_to_one_and_give_nothing_to_what_is_not_received(
    name: str, alpha_1: float, alpha_2: float, teacher_share: float
) -> None:
    """By hand: a weight on what a student does not receive would be lost, and its losses would sum to less than 1."""
    weights = weights_at(EXCHANGE[name], alpha_1, alpha_2, teacher_share)
    technique = name.split("-")[0]
    share = {"ml": 0.0, "kd_off": 1.0, "kd_on": 1.0, "kd_ml": teacher_share}[technique]
    for student, alpha in ((weights.S1, alpha_1), (weights.S2, alpha_2)):
        assert student.alpha == alpha
        assert student.beta == pytest.approx((1 - alpha) * share, abs=1e-6)
        assert student.alpha + student.beta + student.gamma == pytest.approx(1, abs=1e-6)
        if technique == "ml":
            assert student.beta == 0
        if technique in ("kd_off", "kd_on"):
            assert student.gamma == 0
        assert math.copysign(1, student.beta) == math.copysign(1, student.gamma) == 1, "a table would print -0.00"


def test_the_papers_own_weights_are_points_of_a_grid() -> None:
    """Table 3's KD+ML: half of what is left goes to the teacher."""
    weights = weights_at(EXCHANGE["kd_ml-v1"], 0.1, 0.2, 0.5)
    assert weights.model_dump() == {
        "S1": {"alpha": 0.1, "beta": 0.45, "gamma": 0.45},
        "S2": {"alpha": 0.2, "beta": 0.4, "gamma": 0.4},
    }
