"""What is trained together: every variant's loss terms, where their gradients go, and what a frozen teacher keeps."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from classroom import params
from classroom.distill.exchange import EXCHANGE
from classroom.distill.grid import weights_at
from classroom.distill.losses import feature_loss, prediction_loss, task_loss
from classroom.errors import ParamsError, TrainingError
from classroom.methods.alone import Alone
from classroom.methods.base import Method, Term, network_seed
from classroom.methods.make import make
from classroom.networks.build import FEATURE_TAP, build
from classroom.params import VARIANTS, Losses, Network, TaskLoss, select
from support.studies import CLASSES_STUDY, NETWORKS, ROOT, STUDY, shrink

SEED = 3
TASKS = {STUDY: "segmentation", CLASSES_STUDY: "classification"}
CLASSES = 7

# Of each student different ones, so that a weight in a wrong place shows.
WEIGHTS = {
    "S1": {"alpha": 0.2, "beta": 0.35, "gamma": 0.45},
    "S2": {"alpha": 0.125, "beta": 0.25, "gamma": 0.625},
}

# variant: what S1 and what S2 receive, besides their task. Written out by hand from Table 5: kind, giver, weight.
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
        raw["weights"][study] = {variant: copy.deepcopy(WEIGHTS) for variant in VARIANTS}
    return raw


def made(name: str, study: str, raw: dict[str, Any] | None = None, file: Path = Path("unused"), **more: Any) -> Method:
    return make(name, study, raw or settings_with_weights(), SEED, file, TASKS[study], CLASSES, 32, **more)


@pytest.fixture(scope="module", params=TASKS, ids=TASKS.get)
def study(request: pytest.FixtureRequest) -> str:
    """One study of each task: all of the following must hold for both."""
    return request.param


@pytest.fixture(scope="module")
def teacher_file(study: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the trained teacher baseline: its weights and batch statistics are no fresh network's."""
    method = made("teacher", study)
    with torch.no_grad():
        for _ in range(3):
            method.train().losses(*batch(study, 7))
        for parameter in method.parameters():
            parameter.add_(0.01)
    path = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in method.state_of("T").items()}, path)
    return path


@pytest.fixture
def variant_of(study: str, teacher_file: Path) -> Any:
    """A variant by its name, with `WEIGHTS`, in train mode."""
    return lambda name: made(name, study, file=teacher_file).train()


@pytest.fixture(scope="module")
def variants(study: str, teacher_file: Path) -> dict[str, Method]:
    """All twelve in train mode, for tests that change no weight."""
    return {name: made(name, study, file=teacher_file).train() for name in VARIANTS}


def batch(study: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 32, 32, generator=random)
    if TASKS[study] == "classification":
        return images, torch.randint(0, CLASSES, (4,), generator=random)
    return images, (torch.rand(4, 1, 32, 32, generator=random) < 0.3).float()


def gradients(method: Method, network: str) -> list[torch.Tensor]:
    """Those of one network's parameters that are not zero."""
    found = (parameter.grad for parameter in method.networks[network].parameters())
    return [gradient for gradient in found if gradient is not None and gradient.abs().sum() > 0]


def of_network(terms: list[Term], network: str) -> torch.Tensor:
    return sum(term.weight * term.value for term in terms if term.network == network)


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_terms_and_weights_are_those_of_the_paper(study: str, name: str, variants: dict[str, Method]) -> None:
    terms = variants[name].losses(*batch(study))
    expected = {("T", "task", 1.0)} if name in TRAINED_TEACHER else set()
    for student, received in zip(("S1", "S2"), BY_HAND[name], strict=True):
        expected.add((student, "task", WEIGHTS[student]["alpha"]))
        expected |= {(student, f"{kind}_from_{giver}", WEIGHTS[student][weight]) for kind, giver, weight in received}
    assert {(term.network, term.name, term.weight) for term in terms} == expected
    assert len(terms) == len(expected), "a term is there twice"


@pytest.mark.parametrize("name", BY_HAND)
def test_the_weighted_total_is_the_sum_assembled_by_hand(study: str, name: str, variants: dict[str, Method]) -> None:
    """L_k = alpha_k * task + beta_k * from the teacher + gamma_k * from the peer, and the teacher's task loss."""
    method = variants[name]
    images, targets = batch(study)
    losses = select(settings_with_weights(), "losses", Losses)
    with torch.no_grad():
        outputs = {network: method.networks[network](images) for network in method.networks}
        logits = {network: output.logits for network, output in outputs.items()}
        tap = FEATURE_TAP[TASKS[study]]
        features = {network: output.features[tap] for network, output in outputs.items()}
        expected = task_loss(logits["T"], targets, losses.task) if name in TRAINED_TEACHER else torch.zeros(())
        for student, received in zip(("S1", "S2"), BY_HAND[name], strict=True):
            expected += WEIGHTS[student]["alpha"] * task_loss(logits[student], targets, losses.task)
            for kind, giver, weight in received:
                if kind == "prediction":
                    value = prediction_loss(logits[student], logits[giver], losses.prediction)
                else:
                    value = feature_loss(features[student], features[giver])
                expected += WEIGHTS[student][weight] * value
    total = sum(term.weight * term.value for term in method.losses(images, targets))
    torch.testing.assert_close(total.detach(), expected)


@pytest.mark.parametrize("name", BY_HAND)
def test_no_term_sends_gradient_into_another_network(study: str, name: str, variants: dict[str, Method]) -> None:
    """Whoever gives is not changed by who receives, or the teacher would learn to be easy to imitate."""
    method = variants[name]
    terms = method.losses(*batch(study))
    for term in terms:
        method.zero_grad(set_to_none=True)
        term.value.backward(retain_graph=True)
        assert gradients(method, term.network), f"{term.network}/{term.name} teaches nothing"
        for other in set(method.networks) - {term.network}:
            assert not gradients(method, other), f"{term.network}/{term.name} reaches {other}"


@pytest.mark.parametrize("name", [*WITHOUT_TEACHER, *FROZEN_TEACHER, *TRAINED_TEACHER])
def test_networks_are_those_of_the_technique(name: str, variants: dict[str, Method]) -> None:
    method = variants[name]
    assert set(method.networks) == ({"S1", "S2"} if name in WITHOUT_TEACHER else {"T", "S1", "S2"})
    assert set(method.trained) == ({"T", "S1", "S2"} if name in TRAINED_TEACHER else {"S1", "S2"})


@pytest.mark.parametrize("name", FROZEN_TEACHER)
def test_a_frozen_teacher_keeps_every_bit(study: str, name: str, variant_of: Any) -> None:
    """Batch statistics too: in train mode each batch would shift what it teaches away from its baseline."""
    method = variant_of(name)
    before = {key: value.clone() for key, value in method.networks["T"].state_dict().items()}
    students_before = {key: value.clone() for key, value in method.networks["S1"].state_dict().items()}
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        method.train()
        optimiser.zero_grad()
        sum(term.weight * term.value for term in method.losses(*batch(study, step))).backward()
        optimiser.step()
    assert not any(module.training for module in method.networks["T"].modules())
    assert all(module.training for module in method.networks["S1"].modules())
    after = method.networks["T"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any("running_mean" in key for key in before)
    trained = method.networks["S1"].state_dict()
    assert not any(torch.equal(students_before[key], trained[key]) for key in trained if "running_mean" in key)


def test_a_frozen_teacher_has_the_baselines_weights(study: str, variant_of: Any, teacher_file: Path) -> None:
    method = variant_of("kd_off-v1")
    baseline = made("teacher", study)
    saved = load_file(teacher_file)
    for key, value in method.networks["T"].state_dict().items():
        assert torch.equal(value, saved[f"T.{key}"]), key
    fresh = baseline.networks["T"].state_dict()
    assert not all(torch.equal(value, saved[f"T.{key}"]) for key, value in fresh.items())


@pytest.mark.parametrize("name", TRAINED_TEACHER)
def test_a_trained_teacher_learns_from_its_task(study: str, name: str, variants: dict[str, Method]) -> None:
    method = variants[name]
    method.zero_grad(set_to_none=True)
    of_network(method.losses(*batch(study)), "T").backward()
    parameters = list(method.networks["T"].parameters())
    assert len(gradients(method, "T")) > len(parameters) / 2
    assert method.networks["T"].training


@pytest.mark.parametrize("name", ["kd_on-v3", "kd_ml-v3"])
def test_a_trained_teacher_takes_the_same_step_as_one_alone(study: str, name: str, variant_of: Any) -> None:
    """The tables say that T learns from its task alone and starts from the same seed in every technique."""
    raw = settings_with_weights()
    after = []
    for method in (variant_of(name), made("teacher", study, raw).train()):
        optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
        sum(term.weight * term.value for term in method.losses(*batch(study))).backward()
        optimiser.step()
        after.append(method.networks["T"].state_dict())
    for key, value in after[0].items():
        torch.testing.assert_close(value, after[1][key])


def test_the_two_students_start_from_different_weights(study: str, variants: dict[str, Method]) -> None:
    """Alike in every bit, V1 and V2 would train one student twice."""
    first, second = (variants["ml-v1"].networks[name].state_dict() for name in ("S1", "S2"))
    random_parts = ("body.segmentation_head.0.weight", "body.decoder.blocks.0.conv1.0.weight")
    for key in random_parts if study == STUDY else ("body.classifier.weight",):
        assert not torch.equal(first[key], second[key])


def test_students_share_pretrained_weights_and_nothing_else(study: str, tmp_path: Path) -> None:
    raw = settings_with_weights()
    encoder = build(select(raw, f"study.{study}.student", Network), TASKS[study], CLASSES, 99).body.encoder
    path = tmp_path / "encoder.safetensors"
    save_file({key: value.contiguous() for key, value in encoder.state_dict().items()}, path)
    raw["study"][study]["student"]["weights"] = str(path)
    networks = made("ml-v1", study, raw).networks
    for key, value in encoder.state_dict().items():
        for student in ("S1", "S2"):
            assert torch.equal(networks[student].body.encoder.state_dict()[key], value)
    heads = [
        network.body.segmentation_head[0] if study == STUDY else network.body.classifier
        for network in networks.values()
    ]
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_a_networks_seed_follows_from_the_runs_seed_and_its_name() -> None:
    seeds = {network_seed(seed, name) for seed in range(20) for name in ("T", "S1", "S2")}
    assert len(seeds) == 60
    assert network_seed(0, "S1") == network_seed(0, "S1")


def test_one_seed_gives_one_student_in_every_method(study: str, variant_of: Any) -> None:
    """The baseline student and every variant's S1 start alike, so a difference between them is the method's."""
    alone = made("student", study).networks["S1"].state_dict()
    for name in ("ml-v2", "kd_off-v1", "kd_ml-v3"):
        together = variant_of(name).networks["S1"].state_dict()
        assert all(torch.equal(alone[key], together[key]) for key in alone)


@pytest.mark.parametrize("name", ["ml-v1", "kd_off-v2", "kd_ml-v3"])
def test_states_come_back_as_they_were(study: str, name: str, variant_of: Any) -> None:
    """The best epoch's weights are put back this way before the test split is predicted."""
    method, images = variant_of(name), batch(study)[0]
    method.losses(*batch(study))  # batch statistics move too
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


def test_predictions_are_probabilities_of_every_network(study: str, variant_of: Any) -> None:
    method = variant_of("kd_off-v1").eval()
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


@pytest.mark.parametrize(("baseline", "network"), [("teacher", "T"), ("student", "S1")])
def test_a_baseline_learns_its_task_and_nothing_else(study: str, baseline: str, network: str) -> None:
    raw = settings_with_weights()
    method = made(baseline, study, raw).train()
    images, targets = batch(study)
    (term,) = method.losses(images, targets)
    assert isinstance(method, Alone)
    assert (term.network, term.name, term.weight) == (network, "task", 1.0)
    assert method.trained == list(method.networks) == [network]
    with torch.no_grad():
        logits = method.networks[network](images).logits
    torch.testing.assert_close(term.value.detach(), task_loss(logits, targets, select(raw, "losses.task", TaskLoss)))
    term.value.backward()
    assert gradients(method, network)


def test_teacher_and_student_are_the_studys_own(study: str) -> None:
    raw = settings_with_weights()
    raw["study"][study]["teacher"]["encoder_options"] = {"channels": [4, 8, 8, 8]}
    method = made("kd_on-v1", study, raw)
    assert method.networks["T"].facts["encoder_options"] == {"channels": [4, 8, 8, 8]}
    for student in ("S1", "S2"):
        assert (
            method.networks[student].facts["encoder_options"] == (NETWORKS[TASKS[study]]["student"]["encoder_options"])
        )


def test_a_run_records_the_weights_and_losses_it_was_given(study: str, variants: dict[str, Method]) -> None:
    """Tables print the weights from this record, not from settings that may have changed since."""
    recorded = variants["kd_ml-v3"].settings
    raw = settings_with_weights()
    assert recorded["weights"] == WEIGHTS
    assert recorded["losses"] == raw["losses"]
    assert made("student", study, raw).settings == {"losses": {"task": raw["losses"]["task"]}}


# What make() refuses


@pytest.mark.parametrize(
    ("wrong", "near"), [("kd_of-v1", "kd_off-v1"), ("kdml-v3", "kd_ml-v3"), ("techer", "teacher"), ("ml_v1", "ml-v1")]
)
def test_an_unknown_method_is_named_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(TrainingError, match=f"unknown method '{wrong}'. Did you mean '{near}'"):
        made(wrong, STUDY)


def test_an_unknown_study_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'lgg-resnet18'"):
        make("ml-v1", "lgg-resnet81", settings_with_weights(), 0, Path("unused"), "segmentation", 2, 32)


def test_weights_that_do_not_sum_to_one_are_used_with_a_warning(study: str) -> None:
    """Table 9's ML V3 is printed so."""
    raw = settings_with_weights()
    raw["weights"][study]["ml-v3"] = {"S1": {"alpha": 0.1, "gamma": 0.8}, "S2": {"alpha": 0.2, "gamma": 0.8}}
    with pytest.warns(UserWarning, match=rf"weights\.{study}\.ml-v3\.S1: .* = 0\.9, not 1"):
        method = made("ml-v3", study, raw)
    assert [term.weight for term in method.train().losses(*batch(study))] == [0.1, 0.8, 0.2, 0.8]


@pytest.mark.parametrize("name", FROZEN_TEACHER)
def test_offline_distillation_without_its_teacher_says_how_to_train_it(study: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.safetensors: .*classroom train STUDY teacher --seed SEED"):
        made(name, study, file=tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", [*WITHOUT_TEACHER, *TRAINED_TEACHER])
def test_the_other_variants_need_no_teachers_file(study: str, name: str, tmp_path: Path) -> None:
    """They must start at once, without waiting for the baseline."""
    made(name, study, file=tmp_path / "absent.safetensors")


def test_a_truncated_teacher_is_named(study: str, teacher_file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(teacher_file.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"half\.safetensors: the trained teacher cannot be read"):
        made("kd_off-v1", study, file=half)


@pytest.mark.parametrize("which", ["another encoder", "wider", "another decoder or Conv6"])
def test_a_teacher_of_other_settings_is_refused(study: str, which: str, teacher_file: Path) -> None:
    """Left from before a change of params.yaml: other tensors, or the same tensors in other shapes."""
    raw = settings_with_weights()
    prefix, part = ("tu-", {"decoder_channels": [8, 8, 4, 4, 4]}) if study == STUDY else ("", {"conv6_channels": 16})
    raw["study"][study]["teacher"] |= {
        "another encoder": {"encoder": f"{prefix}resnet26"},
        "wider": {"encoder_options": {"channels": [4, 4, 8, 16]}},
        "another decoder or Conv6": part,
    }[which]
    with pytest.raises(TrainingError, match=r"weights\.safetensors: the weights of another network.*teacher again"):
        made("kd_off-v1", study, raw, teacher_file)


def test_a_teacher_of_other_classes_is_refused(study: str, teacher_file: Path) -> None:
    """Its dataset was exchanged since. A segmentation has one logit per pixel whatever the classes are called."""
    arguments = ("kd_off-v1", study, settings_with_weights(), SEED, teacher_file, TASKS[study])
    if study == STUDY:
        assert make(*arguments, classes=3, image_size=32).networks["T"](torch.rand(2, 3, 32, 32)).logits.shape[1] == 1
    else:
        with pytest.raises(TrainingError, match="the weights of another network"):
            make(*arguments, classes=3, image_size=32)


def test_a_point_of_a_grid_takes_the_place_of_the_settings_weights(study: str) -> None:
    """Trained with params.yaml's weights instead, every point of a search would be the same run."""
    method = made("kd_ml-v3", study, point=(0.1, 0.4, 0.25)).train()
    expected = {"S1": (0.1, 0.225, 0.675), "S2": (0.4, 0.15, 0.45)}  # alpha, a quarter of the rest, the remainder
    for student, (alpha, beta, gamma) in expected.items():
        recorded = method.settings["weights"][student]
        assert recorded == {"alpha": alpha, "beta": pytest.approx(beta), "gamma": pytest.approx(gamma)}
        weights = [term.weight for term in method.losses(*batch(study)) if term.network == student]
        assert weights == pytest.approx([alpha, beta, gamma])
    raw = settings_with_weights()
    del raw["weights"]  # a search need not declare what it does not read
    made("kd_ml-v3", study, raw, point=(0.1, 0.4, 0.25))


# Points of a grid

SHARES = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@settings(max_examples=200, deadline=None)
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
