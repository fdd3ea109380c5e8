"""What is trained together: every variant's loss terms, where their gradients go, and what a frozen teacher keeps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, STUDY, THIN, shrink
from safetensors.torch import load_file, save_file

from classroom import params
from classroom.distill.losses import feature_loss, prediction_loss, task_loss
from classroom.errors import ParamsError, TrainingError
from classroom.methods.alone import Alone
from classroom.methods.base import Method, Term, network_seed
from classroom.methods.make import make
from classroom.networks.build import build
from classroom.params import VARIANTS, Losses, Network, TaskLoss, select

SEED = 3
TAP = "decoder.blocks.0"

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
    raw["weights"][STUDY] = {variant: copy.deepcopy(WEIGHTS) for variant in VARIANTS}
    return raw


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands in for the trained teacher baseline: its weights and batch statistics are no fresh network's."""
    method = make("teacher", STUDY, settings_with_weights(), SEED, Path("unused"))
    with torch.no_grad():
        for _ in range(3):
            method.train().losses(*batch(7))
        for parameter in method.parameters():
            parameter.add_(0.01)
    path = tmp_path_factory.mktemp("teacher") / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in method.state_of("T").items()}, path)
    return path


@pytest.fixture
def variant_of(teacher_file: Path) -> Any:
    """A variant by its name, with `WEIGHTS`, in train mode."""
    return lambda name: make(name, STUDY, settings_with_weights(), SEED, teacher_file).train()


@pytest.fixture(scope="module")
def variants(teacher_file: Path) -> dict[str, Method]:
    """All twelve in train mode, for tests that change no weight."""
    return {name: make(name, STUDY, settings_with_weights(), SEED, teacher_file).train() for name in VARIANTS}


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 32, 32, generator=random)
    return images, (torch.rand(4, 1, 32, 32, generator=random) < 0.3).float()


def gradients(method: Method, network: str) -> list[torch.Tensor]:
    """Those of one network's parameters that are not zero."""
    found = (parameter.grad for parameter in method.networks[network].parameters())
    return [gradient for gradient in found if gradient is not None and gradient.abs().sum() > 0]


def of_network(terms: list[Term], network: str) -> torch.Tensor:
    return sum(term.weight * term.value for term in terms if term.network == network)


@pytest.mark.parametrize("name", BY_HAND)
def test_loss_terms_and_weights_are_those_of_the_paper(name: str, variants: dict[str, Method]) -> None:
    terms = variants[name].losses(*batch())
    expected = {("T", "task", 1.0)} if name in TRAINED_TEACHER else set()
    for student, received in zip(("S1", "S2"), BY_HAND[name], strict=True):
        expected.add((student, "task", WEIGHTS[student]["alpha"]))
        expected |= {(student, f"{kind}_from_{giver}", WEIGHTS[student][weight]) for kind, giver, weight in received}
    assert {(term.network, term.name, term.weight) for term in terms} == expected
    assert len(terms) == len(expected), "a term is there twice"


@pytest.mark.parametrize("name", BY_HAND)
def test_the_weighted_total_is_the_sum_assembled_by_hand(name: str, variants: dict[str, Method]) -> None:
    """L_k = alpha_k * task + beta_k * from the teacher + gamma_k * from the peer, and the teacher's task loss."""
    method = variants[name]
    images, masks = batch()
    losses = select(settings_with_weights(), "losses", Losses)
    with torch.no_grad():
        outputs = {network: method.networks[network](images) for network in method.networks}
        logits = {network: output.logits for network, output in outputs.items()}
        features = {network: output.features[TAP] for network, output in outputs.items()}
        expected = task_loss(logits["T"], masks, losses.task) if name in TRAINED_TEACHER else torch.zeros(())
        for student, received in zip(("S1", "S2"), BY_HAND[name], strict=True):
            expected += WEIGHTS[student]["alpha"] * task_loss(logits[student], masks, losses.task)
            for kind, giver, weight in received:
                if kind == "prediction":
                    value = prediction_loss(logits[student], logits[giver], losses.prediction)
                else:
                    value = feature_loss(features[student], features[giver])
                expected += WEIGHTS[student][weight] * value
    total = sum(term.weight * term.value for term in method.losses(images, masks))
    torch.testing.assert_close(total.detach(), expected)


@pytest.mark.parametrize("name", BY_HAND)
def test_no_term_sends_gradient_into_another_network(name: str, variants: dict[str, Method]) -> None:
    """Whoever gives is not changed by who receives, or the teacher would learn to be easy to imitate."""
    method = variants[name]
    terms = method.losses(*batch())
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
def test_a_frozen_teacher_keeps_every_bit(name: str, variant_of: Any) -> None:
    """Batch statistics too: in train mode each batch would shift what it teaches away from its baseline."""
    method = variant_of(name)
    before = {key: value.clone() for key, value in method.networks["T"].state_dict().items()}
    students_before = {key: value.clone() for key, value in method.networks["S1"].state_dict().items()}
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        method.train()
        optimiser.zero_grad()
        sum(term.weight * term.value for term in method.losses(*batch(step))).backward()
        optimiser.step()
    assert not any(module.training for module in method.networks["T"].modules())
    assert all(module.training for module in method.networks["S1"].modules())
    after = method.networks["T"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any("running_mean" in key for key in before)
    trained = method.networks["S1"].state_dict()
    assert not any(torch.equal(students_before[key], trained[key]) for key in trained if "running_mean" in key)


def test_a_frozen_teacher_has_the_baselines_weights(variant_of: Any, teacher_file: Path) -> None:
    method = variant_of("kd_off-v1")
    baseline = make("teacher", STUDY, settings_with_weights(), SEED, teacher_file)
    saved = load_file(teacher_file)
    for key, value in method.networks["T"].state_dict().items():
        assert torch.equal(value, saved[f"T.{key}"]), key
    fresh = baseline.networks["T"].state_dict()
    assert not all(torch.equal(value, saved[f"T.{key}"]) for key, value in fresh.items())


@pytest.mark.parametrize("name", TRAINED_TEACHER)
def test_a_trained_teacher_learns_from_its_task(name: str, variants: dict[str, Method]) -> None:
    method = variants[name]
    method.zero_grad(set_to_none=True)
    of_network(method.losses(*batch()), "T").backward()
    parameters = list(method.networks["T"].parameters())
    assert len(gradients(method, "T")) > len(parameters) / 2
    assert method.networks["T"].training


@pytest.mark.parametrize("name", ["kd_on-v3", "kd_ml-v3"])
def test_a_trained_teacher_takes_the_same_step_as_one_alone(name: str, variant_of: Any, teacher_file: Path) -> None:
    """The tables say that T learns from its task alone and starts from the same seed in every technique."""
    raw = settings_with_weights()
    after = []
    for method in (variant_of(name), make("teacher", STUDY, raw, SEED, teacher_file).train()):
        optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
        sum(term.weight * term.value for term in method.losses(*batch())).backward()
        optimiser.step()
        after.append(method.networks["T"].state_dict())
    for key, value in after[0].items():
        torch.testing.assert_close(value, after[1][key])


def test_the_two_students_start_from_different_weights(variants: dict[str, Method]) -> None:
    """Alike in every bit, V1 and V2 would train one student twice."""
    first, second = (variants["ml-v1"].networks[name].state_dict() for name in ("S1", "S2"))
    for key in ("body.segmentation_head.0.weight", "body.decoder.blocks.0.conv1.0.weight"):
        assert not torch.equal(first[key], second[key])


def test_students_share_pretrained_weights_and_nothing_else(tmp_path: Path, teacher_file: Path) -> None:
    raw = settings_with_weights()
    encoder = build(select(raw, f"study.{STUDY}.student", Network), 99).body.encoder
    path = tmp_path / "encoder.safetensors"
    save_file({key: value.contiguous() for key, value in encoder.state_dict().items()}, path)
    raw["study"][STUDY]["student"]["weights"] = str(path)
    networks = make("ml-v1", STUDY, raw, SEED, teacher_file).networks
    for key, value in encoder.state_dict().items():
        for student in ("S1", "S2"):
            assert torch.equal(networks[student].body.encoder.state_dict()[key], value)
    assert not torch.equal(
        networks["S1"].body.segmentation_head[0].weight, networks["S2"].body.segmentation_head[0].weight
    )


def test_a_networks_seed_follows_from_the_runs_seed_and_its_name() -> None:
    seeds = {network_seed(seed, name) for seed in range(20) for name in ("T", "S1", "S2")}
    assert len(seeds) == 60
    assert network_seed(0, "S1") == network_seed(0, "S1")


def test_one_seed_gives_one_student_in_every_method(variant_of: Any, teacher_file: Path) -> None:
    """The baseline student and every variant's S1 start alike, so a difference between them is the method's."""
    alone = make("student", STUDY, settings_with_weights(), SEED, teacher_file).networks["S1"].state_dict()
    for name in ("ml-v2", "kd_off-v1", "kd_ml-v3"):
        together = variant_of(name).networks["S1"].state_dict()
        assert all(torch.equal(alone[key], together[key]) for key in alone)


@pytest.mark.parametrize("name", ["ml-v1", "kd_off-v2", "kd_ml-v3"])
def test_states_come_back_as_they_were(name: str, variant_of: Any) -> None:
    """The best epoch's weights are put back this way before the test split is predicted."""
    method, images = variant_of(name), batch()[0]
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


def test_predictions_are_probabilities_of_every_network(variant_of: Any) -> None:
    method = variant_of("kd_off-v1").eval()
    images = batch()[0]
    predicted = method.predict(images)
    assert set(predicted) == {"T", "S1", "S2"}
    for name, probabilities in predicted.items():
        logits = method.networks[name](images).logits.detach().double()
        assert probabilities.shape == (4, 1, 32, 32)
        assert not probabilities.requires_grad
        torch.testing.assert_close(probabilities.double(), 1 / (1 + torch.exp(-logits)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("baseline", "network"), [("teacher", "T"), ("student", "S1")])
def test_a_baseline_learns_its_task_and_nothing_else(baseline: str, network: str, teacher_file: Path) -> None:
    raw = settings_with_weights()
    method = make(baseline, STUDY, raw, SEED, teacher_file).train()
    images, masks = batch()
    (term,) = method.losses(images, masks)
    assert isinstance(method, Alone)
    assert (term.network, term.name, term.weight) == (network, "task", 1.0)
    assert method.trained == list(method.networks) == [network]
    with torch.no_grad():
        logits = method.networks[network](images).logits
    torch.testing.assert_close(term.value.detach(), task_loss(logits, masks, select(raw, "losses.task", TaskLoss)))
    term.value.backward()
    assert gradients(method, network)


def test_teacher_and_student_are_the_studys_own(teacher_file: Path) -> None:
    raw = settings_with_weights()
    raw["study"][STUDY]["teacher"]["encoder_options"] = {"channels": [4, 8, 8, 8]}
    method = make("kd_on-v1", STUDY, raw, SEED, teacher_file)
    assert method.networks["T"].facts["encoder_options"] == {"channels": [4, 8, 8, 8]}
    for student in ("S1", "S2"):
        assert method.networks[student].facts["encoder_options"] == THIN["encoder_options"]


def test_a_run_records_the_weights_and_losses_it_was_given(variants: dict[str, Method]) -> None:
    """Tables print the weights from this record, not from settings that may have changed since."""
    recorded = variants["kd_ml-v3"].settings
    raw = settings_with_weights()
    assert recorded["weights"] == WEIGHTS
    assert recorded["losses"] == raw["losses"]
    assert make("student", STUDY, raw, SEED, Path("unused")).settings == {"losses": {"task": raw["losses"]["task"]}}


# What make() refuses


@pytest.mark.parametrize(
    ("wrong", "near"), [("kd_of-v1", "kd_off-v1"), ("kdml-v3", "kd_ml-v3"), ("techer", "teacher"), ("ml_v1", "ml-v1")]
)
def test_an_unknown_method_is_named_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(TrainingError, match=f"unknown method '{wrong}'. Did you mean '{near}'"):
        make(wrong, STUDY, settings_with_weights(), 0, Path("unused"))


def test_an_unknown_study_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'lgg-resnet18'"):
        make("ml-v1", "lgg-resnet81", settings_with_weights(), 0, Path("unused"))


def test_weights_that_do_not_sum_to_one_are_used_with_a_warning() -> None:
    """Table 9's ML V3 is printed so."""
    raw = settings_with_weights()
    raw["weights"][STUDY]["ml-v3"] = {"S1": {"alpha": 0.1, "gamma": 0.8}, "S2": {"alpha": 0.2, "gamma": 0.8}}
    with pytest.warns(UserWarning, match=rf"weights\.{STUDY}\.ml-v3\.S1: .* = 0\.9, not 1"):
        method = make("ml-v3", STUDY, raw, 0, Path("unused"))
    assert [term.weight for term in method.train().losses(*batch())] == [0.1, 0.8, 0.2, 0.8]


@pytest.mark.parametrize("name", FROZEN_TEACHER)
def test_offline_distillation_without_its_teacher_says_how_to_train_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.safetensors: .*classroom train STUDY teacher --seed SEED"):
        make(name, STUDY, settings_with_weights(), 0, tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", [*WITHOUT_TEACHER, *TRAINED_TEACHER])
def test_the_other_variants_need_no_teachers_file(name: str, tmp_path: Path) -> None:
    """They must start at once, without waiting for the baseline."""
    make(name, STUDY, settings_with_weights(), 0, tmp_path / "absent.safetensors")


def test_a_truncated_teacher_is_named(teacher_file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(teacher_file.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"half\.safetensors: the trained teacher cannot be read"):
        make("kd_off-v1", STUDY, settings_with_weights(), 0, half)


@pytest.mark.parametrize(
    "other",
    [
        {"encoder": "tu-resnet26"},
        {"encoder_options": {"channels": [4, 4, 8, 16]}},
        {"decoder_channels": [8, 8, 4, 4, 4]},
    ],
    ids=["another encoder", "wider", "another decoder"],
)
def test_a_teacher_of_other_settings_is_refused(other: dict[str, Any], teacher_file: Path) -> None:
    """Left from before a change of params.yaml: other tensors, or the same tensors in other shapes."""
    raw = settings_with_weights()
    raw["study"][STUDY]["teacher"] |= other
    with pytest.raises(TrainingError, match=r"weights\.safetensors: the weights of another network.*teacher again"):
        make("kd_off-v1", STUDY, raw, 0, teacher_file)
