"""The published methods of Table 10, their losses aside: where gradients go, what is refused, what a run leaves."""

from __future__ import annotations

import copy
import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from classroom.core import predictions
from classroom.core.networks.build import FEATURE_TAP, build
from classroom.data import prepare, split
from classroom.errors import ClassroomError, ParamsError, TrainingError
from classroom.methods import registry
from classroom.methods.shared.comparison import Comparison
from classroom.params import TASKS, Split, select
from classroom.params import Network as NetworkSettings
from classroom.settings.checks import check
from classroom.training import run
from classroom.training.make import make
from support.comparisons import (
    BATCH,
    CLASSES,
    COMMITTED,
    SETTINGS,
    STUDY_OF,
    batch_of,
    distances,
    each,
    enliven,
    made,
    output,
    shared,
)
from support.studies import CLASSES_STUDY, STUDY

CLS, SEG = "classification", "segmentation"


# Gradients

# By task and term: the modules of the student's body that the term must reach, and no others.
ENCODER = {CLS: "encoder", SEG: "encoder.model"}
STEM = ("conv1", "bn1")
WHOLE = ("",)
REACH: dict[tuple[str, str], tuple[str, ...]] = {
    ("fitnet", "feature"): (*STEM, "layer1", "layer2"),
    ("srrl", "feature"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("srrl", "regression"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("at", "attention"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("sp", "similarity"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("vid", "information"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("simkd", "feature"): (*STEM, "layer1", "layer2", "layer3", "layer4", "/last"),
    ("semckd", "feature"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
}
FIRST_BLOCK = (*STEM, "layer1", "layer2", "layer3", "layer4", "/decoder.blocks.0")
REACH_OF_MASKS: dict[tuple[str, str], tuple[str, ...]] = {
    ("fitnet", "feature"): FIRST_BLOCK,
    ("at", "attention"): FIRST_BLOCK,
    ("skd", "pair"): FIRST_BLOCK,
    ("ifvd", "variation"): FIRST_BLOCK,
    ("cwd", "feature"): FIRST_BLOCK,
    ("dsd", "pixel"): (*FIRST_BLOCK, "/decoder.blocks.1", "/decoder.blocks.2"),
    ("emkd", "importance"): (*STEM, "layer1", "layer2"),
    ("emkd", "affinity"): (*STEM, "layer1", "layer2"),
}
"""Every other term is of the logits and reaches all."""


def expected_reach(task: str, name: str, term: str, method: Comparison) -> set[str]:
    parts = (REACH if task == CLS else REACH_OF_MASKS).get((name, term), WHOLE)
    prefixes = tuple(
        f"body.{part[1:]}." if part.startswith("/") else f"body.{ENCODER[task]}.{part}." if part else "body."
        for part in parts
    )
    return {key for key, parameter in method.networks["S1"].named_parameters() if key.startswith(prefixes)}


def reached(module: nn.Module) -> set[str]:
    return {key for key, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


class Stepped(NamedTuple):
    """A method after every term's gradient has been looked at, and then after two steps of all terms."""

    method: Comparison
    reached: dict[str, set[str]]
    """By term, the student's parameters that it teaches."""
    spilt: set[str]
    """Terms that sent gradient into the teacher, or one that is not finite."""
    taught: set[str]
    """All parameters that any term teaches."""
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]


@functools.cache
def stepped(task: str, name: str) -> Stepped:
    torch.manual_seed(0)
    method = made(task, name)
    enliven(method)
    before = {key: value.clone() for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    found: dict[str, set[str]] = {}
    spilt: set[str] = set()
    taught: set[str] = set()
    for term in method.losses(*batch_of(task)):
        method.zero_grad(set_to_none=True)
        term.value.backward(retain_graph=True)
        found[term.name] = reached(method.networks["S1"])
        taught |= reached(method)
        finite = all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())
        if not finite or any(p.grad is not None for p in method.networks["T"].parameters()):
            spilt.add(term.name)
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for step in range(2):
        method.train()
        optimiser.zero_grad()
        sum(term.weight * term.value for term in method.losses(*batch_of(task, step))).backward()
        optimiser.step()
        method.after_step()
    return Stepped(method, found, spilt, taught, before, method.state_dict())


@each
def test_every_term_teaches_all_that_lies_before_it_and_nothing_else(task: str, name: str) -> None:
    """A tap on a detached tensor, or a wrong one, would train less of the student than the paper's method."""
    method, found, spilt, taught, _, _ = stepped(task, name)
    for term, keys in found.items():
        expected = expected_reach(task, name, term, method)
        assert keys == expected, f"{term}: misses {expected - keys}, should not reach {keys - expected}"
    assert not spilt, "gradients in the teacher, or not finite"
    extras = {key for key, p in method.named_parameters() if p.requires_grad and not key.startswith("networks.")}
    extras -= {"regressor.0.bias"}  # of a convolution before batch normalisation: without effect
    assert extras <= taught, f"never taught: {extras - taught}"


@each
def test_a_step_leaves_the_teacher_as_it_is_and_moves_every_extra(task: str, name: str) -> None:
    """Batch statistics are part of what the teacher learnt."""
    method, _, _, _, before, after = stepped(task, name)
    assert not any(module.training for module in method.networks["T"].modules())
    still = {key for key in before if torch.equal(before[key], after[key])}
    teachers = {key for key in before if key.startswith("networks.T.")}
    assert any("running_mean" in key for key in teachers)
    assert teachers <= still
    extras = {key for key, p in method.named_parameters() if p.requires_grad and not key.startswith("networks.")}
    assert not (still & extras) - {"regressor.0.bias"}


def test_simkd_borrows_the_teachers_head_and_trains_its_projector() -> None:
    _, _, _, _, before, after = stepped(CLS, "simkd")
    still = {key.removeprefix("networks.S1.body.") for key in before if torch.equal(before[key], after[key])}
    borrowed = [key for key in after if key.startswith(("networks.S1.body.conv6", "networks.S1.body.classifier"))]
    assert any("running_mean" in key for key in borrowed)
    assert {key.removeprefix("networks.S1.body.") for key in borrowed} <= still
    assert not any(key.startswith("last") for key in still), "batch statistics too: it is in train mode"


@each
def test_one_seed_gives_one_student_in_every_method(task: str, name: str) -> None:
    """Extra modules that drew from the student's random numbers would make another student to compare with."""
    alone, own = student_alone(task), shared(task, name).networks["S1"].state_dict()
    keys = [key for key in alone if name != "simkd" or key.startswith("body.encoder.")]
    assert keys
    assert all(torch.equal(alone[key], own[key]) for key in keys)


@functools.cache
def student_alone(task: str) -> dict[str, torch.Tensor]:
    return make("student", STUDY_OF[task], SETTINGS, 3, None, task, CLASSES, 64).networks["S1"].state_dict()


def test_extra_modules_are_drawn_from_the_runs_seed() -> None:
    """And from nothing else: what was drawn before does not matter."""
    torch.manual_seed(1)
    first = made(CLS, "srrl").connector[0].weight
    torch.manual_seed(2)
    assert torch.equal(made(CLS, "srrl").connector[0].weight, first)
    assert not torch.equal(made(CLS, "srrl", seed=4).connector[0].weight, first)


def test_a_point_of_a_search_multiplies_the_reference_weights() -> None:
    raw = copy.deepcopy(SETTINGS)
    raw["study"][STUDY]["methods"]["skd"]["weights"] = {"prediction": 7.0, "pair": 7.0, "adversarial": 7.0}
    method = made(SEG, "skd", raw, point=(0.1,))
    assert method.weights == pytest.approx({"prediction": 0.1, "pair": 1.0, "adversarial": 0.0001})


# What they look at


@pytest.mark.parametrize(
    ("task", "options", "whole"), [(CLS, {}, False), (CLS, {"convention": "B"}, True), (SEG, {}, True)]
)
def test_fitnet_asks_of_the_teacher_what_it_compares_and_no_more(task: str, options: dict, whole: bool) -> None:
    """Behind the hint lies more than half of a ResNet50; the terms are those of the whole pass."""
    method = made(task, "fitnet", **options)
    teacher = method.networks["T"]
    begun: set[str] = set()
    for name, part in teacher.body.named_modules():
        part.register_forward_pre_hook(lambda *_, name=name: begun.add(name.rpartition(".")[2]))
    images, targets = batch_of(task)
    terms = {term.name: term.value.item() for term in method.losses(images, targets)}
    assert {"layer1", "layer2"} <= begun
    assert ("layer3" in begun, "layer4" in begun) == (whole, whole)
    method.teacher_exit_layer = None
    assert {term.name: term.value.item() for term in method.losses(images, targets)} == terms


def test_taps_are_what_the_encoder_computes_after_its_last_activation() -> None:
    """A tensor kept by reference before an in-place ReLU, or a stage too early, would be another method."""
    at, emkd = made(CLS, "at").eval(), made(SEG, "emkd").eval()
    enliven(at)
    images, _ = batch_of(CLS)
    network, features = at.networks["S1"], {}
    with torch.no_grad():
        found = network(images).features
        encoder = network.body.encoder
        maps = encoder.maxpool(encoder.act1(encoder.bn1(encoder.conv1((images - network.mean) / network.std))))
        for number in range(1, 5):
            maps = getattr(encoder, f"layer{number}")(maps)
            features[f"layer{number}"] = maps
        for tap, expected in features.items():
            assert torch.equal(found[tap], expected)
            assert found[tap].min() >= 0
        logits = network.body.classifier(found["layer4"].mean(dim=(2, 3)))
        torch.testing.assert_close(network(images).logits, logits)

        network = emkd.networks["S1"]
        found = network(images).features
        inside = network.body.encoder((images - network.mean) / network.std)
    assert {tap: feature.shape[2] for tap, feature in found.items()} == {"stem": 32, "layer2": 8, "decoder.blocks.0": 4}
    assert torch.equal(found["stem"], inside[1])
    assert torch.equal(found["layer2"], inside[3])
    assert found["stem"].min() >= 0


@pytest.mark.parametrize(("task", "tap"), [(CLS, "encoder.bn1"), (SEG, "decoder.blocks.0.conv1.1")])
def test_a_tap_before_an_activation_in_place_is_not_overwritten_by_it(task: str, tap: str) -> None:
    """Kept by reference, a normalised map of both signs would reach the method rectified."""
    network = made(task, "at", taps=[tap]).eval().networks["S1"]
    images, _ = batch_of(task)
    with torch.no_grad():
        found = network(images).features[tap]
        network.body.get_submodule(tap).register_forward_hook(lambda module, inputs, output: -output)
        turned = network(images).features[tap]
    assert found.min() < 0 < found.max()
    assert torch.equal(found, turned), "what the module itself returned"


@pytest.mark.parametrize("name", ["ifvd", "emkd"])
def test_lesions_that_vanish_at_the_features_size_are_noted(name: str) -> None:
    """The reader of the table has to know that a mask-based method saw no lesion."""
    method = shared(SEG, name)
    targets = torch.zeros(3, 1, 64, 64)
    targets[1, :, :40, :40] = 1
    targets[2, :, 1, 1] = 1  # where no pixel of the small mask looks
    (note,) = method.notes(targets)
    assert "1 of 2" in note
    assert method.notes(targets[:2]) == []
    assert shared(SEG, "at").notes(targets) == []


def test_variances_start_at_five_learn_and_may_make_the_loss_negative() -> None:
    """In a plain list they would be trained, saved and moved to the accelerator by nobody."""
    method = made(CLS, "vid")
    assert all(torch.allclose(v, torch.tensor(5.0), rtol=1e-6) for v in method.options.variances(method))
    names = {key for key, _ in method.named_parameters()}
    assert {f"raw_variances.{number}" for number in range(4)} <= names
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    sum(term.weight * term.value for term in method.losses(*batch_of(CLS))).backward()
    optimiser.step()
    assert not any(torch.isclose(v, torch.tensor(5.0)).any() for v in method.options.variances(method))
    for number, raw in enumerate(method.raw_variances):
        method.means[number] = nn.Identity()
        nn.init.constant_(raw, -5.0)
    teacher = output(CLS, method, "T")
    assert distances(method, teacher, teacher)["information"] < -5


def test_other_initial_variances_are_met_exactly() -> None:
    """Also one whose exponential no float can hold: the softplus of a thousand is a thousand."""
    for initial in (0.3, 1000.0):
        method = made(CLS, "vid", initial_variance=initial, least_variance=0.1)
        assert torch.allclose(method.options.variances(method)[0], torch.tensor(initial), rtol=1e-5)
    nn.init.constant_(method.raw_variances[0], -100.0)
    assert method.options.variances(method)[0].min() >= 0.1


def test_simkd_predicts_with_the_teachers_head_on_projected_features() -> None:
    """The student's own classifier, left in by mistake, gives the reproductions of 10 % accuracy one reads about."""
    method = made(CLS, "simkd")
    enliven(method.networks["S1"].body.encoder)
    images, _ = batch_of(CLS)
    method.losses(images, torch.zeros(BATCH))
    method.eval()
    student, teacher = method.networks["S1"], method.networks["T"]
    with torch.no_grad():
        found, projected = student(images).logits, student(images).features["layer4"]
    head = copy.deepcopy(teacher.body).double()
    expected = head.classifier(head.conv6(projected.double()).mean(dim=(2, 3)))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    exponentials = expected.exp()
    expected = exponentials / exponentials.sum(dim=1, keepdim=True)
    torch.testing.assert_close(method.predict(images)["S1"].double(), expected, rtol=0, atol=1e-5)


def test_simkd_with_a_perfect_projector_is_the_teacher() -> None:
    method = made(CLS, "simkd").eval()
    body = method.networks["S1"].body
    body.encoder, body.last = method.networks["T"].body.encoder, nn.Identity()
    images, _ = batch_of(CLS)
    with torch.no_grad():
        found, teacher = method.networks["S1"].body(images), method.networks["T"].body(images)
    assert found.abs().sum() > 0
    assert torch.equal(found, teacher)


def test_simkd_has_no_classifier_of_its_own_and_sees_no_label() -> None:
    method = made(CLS, "simkd")
    student, teacher = method.networks["S1"].body, method.networks["T"].body
    for own, other in ((student.classifier, teacher.classifier), (student.conv6, teacher.conv6)):
        for key, value in own.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])
        assert not any(parameter.requires_grad for parameter in own.parameters())
        assert next(own.parameters()) is not next(other.parameters()), "shared, it could not be exported alone"
    images, targets = batch_of(CLS)
    method.eval()
    (first,), (second,) = method.losses(images, targets), method.losses(images, (targets + 1) % CLASSES)
    assert first.name == second.name == "feature"
    assert torch.equal(first.value, second.value)


# Sizes and beginnings


FULL = copy.deepcopy(SETTINGS)
FULL["study"][CLASSES_STUDY]["teacher"] = {"encoder": "resnet50", "encoder_options": {}, "weights": "random"}
FULL["study"][CLASSES_STUDY]["student"] = {"encoder": "resnet18", "encoder_options": {}, "weights": "random"}


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("fitnet", {}, 0.07), ("vid", {}, 12.5), ("srrl", {}, 1.05), ("simkd", {"reduction": 2}, 12.1),
        ("simkd", {"reduction": 8}, 1.2), ("semckd", {"mid_ratio": 2}, 854), ("semckd", {"mid_ratio": 0.25}, 19),
    ],
)  # fmt: skip
def test_extra_modules_have_the_published_sizes(name: str, options: dict[str, Any], millions: float) -> None:
    """A ResNet50's student is a ResNet18; nothing takes memory here."""
    with torch.device("meta"):
        method = made(CLS, name, FULL, image_size=64, **options)
    # They count convolutions alone, and round.
    assert method.extra_parameters / 1e6 == pytest.approx(millions, rel=0.045)


def test_methods_that_only_compare_have_no_extra_modules() -> None:
    for task, name in ((CLS, "at"), (CLS, "sp"), (SEG, "at"), (SEG, "dsd"), (SEG, "emkd")):
        assert shared(task, name).extra_parameters == 0, name


def test_what_simkd_leaves_is_counted_whole() -> None:
    """Encoder, projector and the teacher's head: a table that gave the bare student's size would flatter it."""
    method = made(CLS, "simkd")
    body = method.networks["S1"].body
    parts = [
        sum(p.numel() for p in part.parameters()) for part in (body.encoder, body.last, body.conv6, body.classifier)
    ]
    assert all(parts)
    assert method.networks["S1"].facts["parameters"] == sum(parts)
    assert method.extra_parameters == parts[1]


def test_srrls_connector_begins_as_the_authors_has_it() -> None:
    """Normal with a variance of 2 over the outputs; what torch draws by itself is less than half as wide."""
    raw = copy.deepcopy(SETTINGS)
    for role, width in (("teacher", 256), ("student", 128)):
        raw["study"][CLASSES_STUDY][role]["encoder_options"] = {"channels": [4, 4, 8, width]}
    method = made(CLS, "srrl", raw)
    convolution, normal = method.connector[0], method.connector[1]
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / convolution.out_channels), rel=0.05)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=0.02)
    assert (normal.weight == 1).all()
    assert (normal.bias == 0).all()


# What is refused


@pytest.mark.parametrize(("name", "batch"), [("semckd", 7), ("sp", 1)])
def test_a_batch_too_small_for_a_method_is_refused(name: str, batch: int) -> None:
    raw = copy.deepcopy(SETTINGS)
    raw["training"]["batch_size"] = batch
    with pytest.raises(TrainingError, match=rf"{name}.*batch_size"):
        made(CLS, name, raw)


@pytest.mark.parametrize(
    ("task", "name", "options", "match"),
    [
        (CLS, "fitnet", {"tap": "layer9"}, r"'layer9' does not exist.*mean 'layer.'.*layer1, layer2, layer3, layer4"),
        (SEG, "skd", {"tap": "decoder.block.0"}, r"mean 'decoder.blocks.0'.*decoder.blocks.0, decoder.blocks.1"),
        (SEG, "emkd", {"low": "layer7"}, r"'layer7' does not exist.*stem, layer1"),
        (SEG, "dsd", {"taps": ["decoder.blocks.0"]}, r"studies/lgg-resnet18\.yaml: methods\.dsd\.options\.taps"),
        (CLS, "simkd", {"reduction": 3}, r"reduction.*3"),
        (CLS, "at", {"convention": "C"}, r"convention.*C"),
        (CLS, "fitnet", {"taps": ["layer1"]}, r"unknown key.*taps.*Did you mean 'tap'"),
        (CLS, "vid", {"initial_variance": 1e-5, "least_variance": 1e-5}, "initial_variance must be above"),
    ],
)
def test_settings_that_cannot_be_are_said(task: str, name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ParamsError, match=match):
        made(task, name, **options)


def test_weights_of_other_terms_are_said_when_a_method_is_made() -> None:
    """`classroom train` reads its own share of the settings; nobody need have run `classroom check`."""
    raw = copy.deepcopy(SETTINGS)
    for weights, given in (({"featur": 1.0}, "featur"), ({}, "none"), ({"similarity": 1.0, "b": 1.0}, "similarity, b")):
        raw["study"][CLASSES_STUDY]["methods"]["sp"]["weights"] = weights
        with pytest.raises(ParamsError, match=rf"methods\.sp\.weights: expected weights of similarity, not of {given}"):
            made(CLS, "sp", raw)


def test_a_method_of_the_other_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"'emkd' is not a method for classification.*fitnet.*semckd"):
        make("emkd", CLASSES_STUDY, SETTINGS, 0, None, CLS, CLASSES, 64)
    with pytest.raises(TrainingError, match=r"unknown method 'fitnett'.*Did you mean 'fitnet'"):
        make("fitnett", CLASSES_STUDY, SETTINGS, 0, None, CLS, CLASSES, 64)


def test_a_hint_stage_needs_an_epoch_of_its_own() -> None:
    method = made(CLS, "fitnet", two_stage=True)
    with pytest.raises(TrainingError, match=r"two_stage.*training\.epochs"):
        method.begin_epoch(0, 1)
    made(CLS, "fitnet").begin_epoch(0, 1)


@pytest.mark.parametrize("name", ["simkd", "srrl"])
def test_any_encoder_of_the_settings_can_be_compared(name: str) -> None:
    """A MobileNetV2 ends in a convolution after its last stage: what a classifier pools is not its `layer4`."""
    raw = copy.deepcopy(SETTINGS)
    for role in ("teacher", "student"):
        raw["study"][CLASSES_STUDY][role] |= {"encoder": "mobilenetv2_035", "encoder_options": {}}
    raw["study"][CLASSES_STUDY]["teacher"]["conv6_channels"] = None
    with torch.no_grad():
        terms = made(CLS, name, raw).losses(*batch_of(CLS))
    assert all(torch.isfinite(term.value) for term in terms)


def test_a_stage_that_an_encoder_does_not_have_is_said_before_training() -> None:
    """A ConvNeXt begins with stride 4: its `stem` has no channels, and a mean over none is not a number."""
    raw = copy.deepcopy(SETTINGS)
    for role in ("teacher", "student"):
        raw["study"][STUDY][role] |= {"encoder": "tu-convnext_atto", "encoder_options": {}}
    with pytest.raises(ClassroomError, match="stem"):
        made(SEG, "emkd", raw)


# All settings


def committed() -> dict[str, Any]:
    """With a comparison of both tasks, whatever scale is committed."""
    raw = copy.deepcopy(COMMITTED)
    classes = next(name for name, study in raw["study"].items() if study["task"] == CLS)
    raw |= {"ours": "kd_ml-v3", "comparison": {task: list(registry.published(task)) for task in TASKS}}
    for task, study in ((CLS, classes), (SEG, STUDY)):
        raw["study"][study]["reports"]["comparison"] = "table10"
        raw["study"][study]["methods"] = {
            name: {"options": kind().model_dump(mode="json"), "weights": dict(kind.weights)}
            for name, kind in registry.published(task).items()
        }
    raw["training"]["batch_size"] = 8
    return raw


def change(raw: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split("/")
    for part in above:
        raw = raw[part]
    raw[last] = value


COMPARISON = "comparison/segmentation"
OF_STUDY = f"study/{STUDY}/methods"
FILE = rf"^studies/{STUDY}\.yaml: "


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (COMPARISON, ["fitnett"], r"^params\.yaml: comparison\.segmentation: unknown method 'fitnett'.*fitnet"),
        (COMPARISON, ["simkd"], r"^params\.yaml: comparison\.segmentation.*'simkd'.*other task"),
        (COMPARISON, ["at", "at"], r"^params\.yaml: comparison\.segmentation: expected each value once"),
        (COMPARISON, [], rf"comparison\.segmentation: no method is named, but studies/{STUDY}\.yaml has reports\.comp"),
        ("ours", "kd_ml-v4", r"^params\.yaml: ours: 'kd_ml-v4' is not in variants.*kd_ml-v"),
        ("tune/segmentation", {"studies": [STUDY], "methods": ["vid"]}, r"tune\.segmentation\.meth.*'vid'.*other task"),
        ("tune/segmentation", {"studies": [CLASSES_STUDY], "methods": ["at"]}, r"'ham.*' is a study of classification"),
        ("tune/segmentation", {"studies": [STUDY] * 2, "methods": ["at"]}, r"studies: expected each value once"),
        (
            OF_STUDY,
            {},
            rf"{FILE}methods lacks an entry for methods that comparison\.segmentation lists\. Add: at: .*skd: ",
        ),
        (f"{OF_STUDY}/at/weights", {"attention": 1.0}, rf"{FILE}methods\.at\.weights: expected weights of attention, "),
        (f"{OF_STUDY}/at/weights/attention", -1.0, rf"{FILE}methods\.at\.weights\.attention: .*greater than or equal"),
        (f"{OF_STUDY}/simkd", {"options": {}, "weights": {}}, rf"{FILE}methods: 'simkd' is not a method for seg"),
        ("training/batch_size", 4, r"^params\.yaml: training\.batch_size: 4 is too small for semckd"),
        (
            f"{OF_STUDY}/cwd/options/tempreature",
            4.0,
            rf"{FILE}unknown key 'methods\.cwd\.options\.tempreature'\. Did you mean 'temperature'",
        ),
        (f"{OF_STUDY}/skd/options/adversary/form", "lsgan", rf"{FILE}methods\.skd\.options\.adversary\.form: should"),
        ("tune/factors", [], r"tune\.factors"),
        ("tune/factors", [0.0], r"tune\.factors"),
    ],
)
def test_a_comparison_that_cannot_be_is_said(path: str, value: Any, match: str) -> None:
    raw = committed()
    change(raw, path, value)
    with pytest.raises(ParamsError, match=match):
        check(raw)


def test_a_comparison_that_can_be_is_sound() -> None:
    """A small batch too, where there is no SemCKD."""
    raw = committed()
    check(raw)
    raw["training"]["batch_size"] = 4
    raw["comparison"][CLS].remove("semckd")
    check(raw)


def test_departures_from_the_reference_are_named() -> None:
    """Table 10 says of every row whether it is the reference's."""
    fitnet, at = (registry.published(CLS)[name] for name in ("fitnet", "at"))
    assert fitnet().differences({"feature": 100.0}) == []
    assert fitnet(tap="layer3").differences({"feature": 30.0}) == ["tap layer3", "weight feature 30"]
    skd = registry.published(SEG)["skd"]
    found = skd(adversarial=False, adversary={"form": "hinge"}).differences(skd.weights)
    assert found == ["adversarial false", "adversary form hinge"], "of a section, what differs in it"
    assert at(taps=["layer3", "layer4"]).differences({"attention": 1000.0}) == ["taps layer3 layer4"]


# Resuming, and what a run leaves


@pytest.mark.parametrize("convention", ["A", "B"])
def test_the_hint_comes_first_and_alone(convention: str) -> None:
    """By the epoch alone, so that a training that goes on in its second half does not begin with the hint."""
    method = made(CLS, "fitnet", two_stage=True, convention=convention)
    second = {"task", "prediction"} if convention == "B" else {"task"}
    for epochs, stages in ((4, [1, 1, 0, 0]), (2, [1, 0]), (5, [1, 1, 0, 0, 0])):
        for epoch, hint in enumerate(stages):
            method.begin_epoch(epoch, epochs)
            names = {term.name for term in method.losses(*batch_of(CLS))}
            assert names == ({"feature"} if hint else second), (epoch, epochs)


class Silent:
    """Stands in for the progress bar, and remembers what was logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, progress: Any, steps: int, epochs: int) -> None:
        pass

    def log(self, line: str) -> None:
        self.lines.append(line)


class Killed(Silent):
    """After a step, and before its checkpoint is written; every step before has one."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self.moment = (epoch, step)

    def __call__(self, progress: Any, steps: int, epochs: int) -> None:
        if (progress.epoch, progress.step) == self.moment:
            raise KeyboardInterrupt


def train(data: Path, folder: Path, name: str, task: str, show: Silent | None = None, **options: Any) -> Silent:
    raw = copy.deepcopy(SETTINGS)
    raw["study"][STUDY_OF[task]]["methods"][name]["options"] |= options
    raw["training"] |= {"epochs": 2, "batch_size": 4 if name == "skd" else 8, "threads": 1}
    show = show or Silent()
    run.train(
        STUDY_OF[task], [run.Request(name, folder / "run", folder / "checkpoints", "the same")], 0, raw,
        data / "prepared", data / "splits.parquet", data / "teacher.safetensors", device="cpu", show=show,
        checkpoint_minutes=0 if isinstance(show, Killed) else 10, finish=lambda request, facts: None,
    )  # fmt: skip
    return show


def with_teacher(folder: Path, task: str, labels: int) -> Path:
    """In addition to the data, the study's trained teacher: here one that has moved away from its seed."""
    teacher = make("teacher", STUDY_OF[task], SETTINGS, 5, None, task, labels, 64)
    enliven(teacher)
    state = {key: value.contiguous() for key, value in teacher.state_of("T").items()}
    save_file(state, folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def data(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny segmentation at 64 pixels, which the discriminator needs, and with three steps an epoch."""
    folder = tmp_path_factory.mktemp("data-64")
    prepare.prepare(SEG, 64, tiny_study / "raw", folder / "prepared")
    split.write(folder / "prepared", Split(percent=(20, 20, 60), by="image", seed=0), folder / "splits.parquet")
    labels = len(json.loads((folder / "prepared/dataset.json").read_text())["labels"])
    return with_teacher(folder, SEG, labels)


@pytest.fixture(scope="module")
def classes_data(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data-classes")
    for name in ("prepared", "splits.parquet"):
        (folder / name).symlink_to(tiny_classes_study / name)
    labels = len(json.loads((folder / "prepared/dataset.json").read_text())["labels"])
    return with_teacher(folder, CLS, labels)


def bits(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "run" / name).read_bytes() for name in run.FILES}


def killed_once(data: Path, folder: Path, name: str, task: str, **options: Any) -> list[str]:
    """In the middle of the second epoch, between a step and its checkpoint; what the second life says."""
    with pytest.raises(KeyboardInterrupt):
        train(data, folder, name, task, Killed(1, 2), **options)
    return train(data, folder, name, task, **options).lines


@pytest.fixture(scope="module")
def skd_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skd")
    train(data, folder, "skd", SEG)
    return folder


def test_killed_in_the_middle_an_adversarial_training_ends_in_the_same_bits(
    data: Path, skd_run: Path, tmp_path: Path
) -> None:
    """Of the discriminator too: weights, batch statistics, spectral norms, Adam's moments, random places between."""
    lines = killed_once(data, tmp_path, "skd", SEG)
    assert any("resumed from" in line for line in lines)
    assert bits(tmp_path) == bits(skd_run)


def test_an_adversary_keeps_its_own_optimiser() -> None:
    """Whatever trains the student: its discriminator takes no part in that, nor in the clipping."""
    method = made(SEG, "skd")
    theirs = {id(parameter) for parameter in method.adversary.discriminator.parameters()}
    assert not theirs & {id(parameter) for part in method.learning for parameter in part}
    assert isinstance(method.adversary._get_optimiser(), torch.optim.Adam)


def test_early_stopping_leaves_the_second_stage_its_time() -> None:
    """While the hint alone is trained, the student cannot get better on validation."""
    assert made(CLS, "fitnet", two_stage=True).first_stage(9) == 4
    assert made(CLS, "fitnet").first_stage(9) == made(SEG, "skd").first_stage(9) == 0


def test_killed_in_the_middle_a_training_of_two_stages_ends_in_the_same_bits(
    classes_data: Path, tmp_path: Path
) -> None:
    train(classes_data, tmp_path / "undisturbed", "fitnet", CLS, two_stage=True)
    killed_once(classes_data, tmp_path / "killed", "fitnet", CLS, two_stage=True)
    assert bits(tmp_path / "killed") == bits(tmp_path / "undisturbed")
    history = pd.read_csv(tmp_path / "killed/run/history.csv")
    assert history["loss/S1/feature"].notna().tolist() == [True, False]
    assert history["loss/S1/task"].notna().tolist() == [False, True]
    saved = checkpointed(tmp_path / "undisturbed")["method"]
    fresh = made(CLS, "fitnet", seed=0, image_size=32).regressor.state_dict()
    unmoved = {key for key, value in fresh.items() if torch.equal(saved[f"regressor.{key}"], value)}
    assert unmoved <= {"0.bias"}, "the optimiser does not hold the regressor"


def test_a_run_leaves_the_student_alone(data: Path, skd_run: Path) -> None:
    """No discriminator, no teacher: the weights can be loaded without the training."""
    state = load_file(skd_run / "run/weights.safetensors")
    network = build(select(SETTINGS, f"study.{STUDY}.student", NetworkSettings), SEG, 2, 99)
    assert {key.removeprefix("S1.") for key in state} == network.state_dict().keys()
    assert all(key.startswith("S1.") for key in state)
    network.load_state_dict({key.removeprefix("S1."): value for key, value in state.items()})
    metrics = json.loads((skd_run / "run/metrics.json").read_text())
    assert metrics["extra_parameters"] == made(SEG, "skd").extra_parameters > 1000
    assert set(metrics["networks"]) == set(metrics["best"]["test"]) == {"T", "S1"}
    assert set(metrics["terms"]) == {"S1/task", "S1/prediction", "S1/pair", "S1/adversarial"}


def checkpointed(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a training: with the manifest, `classroom train` would have removed it."""
    return torch.load(folder / "checkpoints/newest.pt", weights_only=True)


def test_a_training_trains_the_discriminator_after_every_step(skd_run: Path) -> None:
    """And keeps it, with its optimiser and without the teacher, in the checkpoint."""
    content = checkpointed(skd_run)
    method = content["method"]
    steps = {int(state["step"]) for state in content["optimiser"]["state"].values()}
    own = {int(state["step"]) for state in method["adversary._extra_state"]["state"].values()}
    assert len(steps) == 1
    assert min(steps) > 1
    assert own == steps
    fresh = made(SEG, "skd").adversary.state_dict()
    weights = [key for key in fresh if key.endswith(("gamma", "original", "0.weight"))]
    assert len(weights) == 7
    assert not any(torch.equal(method[f"adversary.{key}"], fresh[key]) for key in weights)
    assert not any(key.startswith("networks.T.") for key in method)


def test_weighted_terms_are_on_record(skd_run: Path) -> None:
    """Reference weights were tuned for another optimiser and batch: the reader has to see what dominates."""
    history = pd.read_csv(skd_run / "run/history.csv")
    for term, weight in {"task": 1, **registry.published(SEG)["skd"].weights}.items():
        np.testing.assert_allclose(history[f"weighted/S1/{term}"], weight * history[f"loss/S1/{term}"], rtol=1e-6)


def test_a_run_of_simkd_leaves_projector_and_the_teachers_head(classes_data: Path, tmp_path: Path) -> None:
    """Loaded by hand and put together from its three parts, it must give the recorded predictions."""
    train(classes_data, tmp_path, "simkd", CLS)
    state = load_file(tmp_path / "run/weights.safetensors")
    teacher = load_file(classes_data / "teacher.safetensors")
    assert {key.split(".")[2] for key in state} == {"encoder", "last", "conv6", "classifier"}
    for key, value in teacher.items():
        if key.startswith(("T.body.conv6", "T.body.classifier")):
            assert torch.equal(state[key.replace("T.", "S1.", 1)], value), key
    labels = len(json.loads((classes_data / "prepared/dataset.json").read_text())["labels"])
    method = make("simkd", CLASSES_STUDY, SETTINGS, 7, None, CLS, labels, 32).eval()
    network = method.networks["S1"]
    network.load_state_dict({key.removeprefix("S1."): value for key, value in state.items()})
    ids, stacks = predictions.read(tmp_path / "run/predictions.parquet")
    index = pd.read_parquet(classes_data / "prepared/index.parquet").id.tolist()
    pixels = np.load(classes_data / "prepared/images.npy")[[index.index(name) for name in ids]]
    with torch.no_grad():
        found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).probabilities.numpy()
    np.testing.assert_allclose(found, stacks["S1"], atol=1e-5)
    assert set(stacks) == {"T", "S1", "ground_truth"}


def test_the_teacher_of_a_comparison_is_the_studys_own(classes_data: Path) -> None:
    saved = load_file(classes_data / "teacher.safetensors")
    for name in ("at", "simkd"):
        raw = copy.deepcopy(SETTINGS)
        labels = len(json.loads((classes_data / "prepared/dataset.json").read_text())["labels"])
        method = make(name, CLASSES_STUDY, raw, 0, classes_data / "teacher.safetensors", CLS, labels, 32)
        state = method.networks["T"].state_dict()
        assert all(torch.equal(state[key.removeprefix("T.")], value) for key, value in saved.items())
        assert FEATURE_TAP[CLS] in method.networks["T"].shapes(32)
    with pytest.raises(TrainingError, match="Train the study's teacher first"):
        make("at", CLASSES_STUDY, SETTINGS, 0, classes_data / "none.safetensors", CLS, labels, 32)
