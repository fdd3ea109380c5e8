"""The twelve published methods of Table 10: their losses against float64 re-derivations (oracles.py), torchdistill and
numbers worked out by hand; where their gradients go; what a run of them leaves; what they refuse."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torchdistill.losses import mid_level
from torchdistill.losses.mid_level import ATLoss, KDLoss, SPKDLoss, VIDLoss
from torchdistill.models.wrapper import Regressor4VID

from classroom import params
from classroom.data import prepare, split
from classroom.errors import ClassroomError, ParamsError, TrainingError
from classroom.evaluation import predictions
from classroom.method_settings import METHODS, REFERENCE_WEIGHTS, departures, reference
from classroom.methods.adversary import Adversary
from classroom.methods.comparison import Comparison, same_size, two_channels
from classroom.methods.fitnet import FitNet
from classroom.methods.make import make
from classroom.networks.build import FEATURE_TAP, Network, Output, build
from classroom.networks.discriminator import Discriminator
from classroom.params import Network as NetworkSettings
from classroom.params import Split, TaskLoss, select
from classroom.training import run
from support import oracles
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink

CLASSES = 7
BATCH = 8
SEED = 3
STUDY_OF = {"segmentation": STUDY, "classification": CLASSES_STUDY}
PAIRS = [(task, name) for task in ("classification", "segmentation") for name in METHODS[task]]
WITH_ADVERSARY = ("skd", "ifvd")
FEW = settings(max_examples=8, deadline=None)
SEEDS = st.integers(0, 2**31)
LN3 = math.log(3)  # the sigmoid of ln 3 is 3/4
KL_BY_HAND = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) and (1/2, 1/2)

# What fabricated features look like: height and width by tap. Sides that no other tap has catch a mix-up.
SIDES = {
    "classification": {"layer1": 8, "layer2": 6, "layer3": 4, "layer4": 3, "projector": 3},
    "segmentation": {"stem": 16, "layer2": 8, "decoder.blocks.0": 4, "decoder.blocks.1": 8, "decoder.blocks.2": 16},
}
MASK_SIDE = 64


COMMITTED = params.load(ROOT / "params.yaml")


def all_settings() -> dict[str, Any]:
    """Thin networks, and every method as its reference has it whatever params.yaml says."""
    raw = shrink(COMMITTED)
    raw["training"]["batch_size"] = BATCH
    for task, study in STUDY_OF.items():
        raw["methods"][task] = {name: reference(task, name).model_dump(mode="json") for name in METHODS[task]}
        raw["method_weights"][study] = copy.deepcopy(REFERENCE_WEIGHTS[task])
    return raw


SETTINGS = all_settings()
WIDER_TEACHER = copy.deepcopy(SETTINGS)
WIDER_TEACHER["study"][STUDY]["teacher"]["encoder_options"] = {"channels": [4, 8, 8, 8]}


def made(task: str, name: str, raw: dict[str, Any] | None = None, image_size: int = 64, **options: Any) -> Comparison:
    """The method in train mode with a random teacher; `options` are its settings in place of the reference's."""
    raw = copy.deepcopy(raw or SETTINGS)
    more = {key: options.pop(key) for key in ("seed", "teacher_weights", "point") if key in options}
    raw["methods"][task][name] |= options
    arguments = {"seed": SEED, "teacher_weights": None} | more
    return make(name, STUDY_OF[task], raw, **arguments, task=task, classes=CLASSES, image_size=image_size).train()


@functools.cache
def shared(task: str, name: str, **options: Any) -> Comparison:
    """The same, built once: for tests that only ask for distances. Without a discriminator unless it is asked for."""
    if name in WITH_ADVERSARY:
        options.setdefault("adversarial", False)
    return made(task, name, **options)


def random_values(*shape: int, seed: int = 0) -> torch.Tensor:
    """From a generator whose stream is frozen for good."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def output(task: str, method: Comparison, network: str, seed: int, batch: int = BATCH, scale: float = 1.0) -> Output:
    """What a network could hand out: random logits, non-negative features as after a ReLU."""
    shapes = method.student_shapes if network == "S1" else method.teacher_shapes
    channels = {tap: shape[0] for tap, shape in shapes.items() if tap != "conv6"}
    if method.networks["S1"].shared == "projector":
        channels["projector"] = shapes["layer4"][0] if network == "T" else method.teacher_shapes["layer4"][0]
    features = {
        tap: scale * random_values(batch, width, SIDES[task][tap], SIDES[task][tap], seed=seed + 10 * place).abs()
        for place, (tap, width) in enumerate(channels.items())
    }
    logits = (batch, 1, MASK_SIDE, MASK_SIDE) if task == "segmentation" else (batch, CLASSES)
    return Output(2 * scale * random_values(*logits, seed=seed + 5), features, next(iter(features.values())))


def with_feature(student: torch.Tensor, *taps: str, logits: torch.Tensor | None = None) -> Output:
    """One feature map at several taps."""
    return Output(
        torch.zeros(len(student), 1, 2, 2) if logits is None else logits, dict.fromkeys(taps, student), student
    )


def masks(batch: int = BATCH, side: int = MASK_SIDE) -> torch.Tensor:
    """Rectangles: of various sizes, in the first image none, in the second everywhere."""
    found = torch.zeros(batch, 1, side, side)
    for b in range(2, batch):
        found[b, :, side // 8 * (b % 3) : side // 2 + side // 8 * (b % 3), : side // 4 * (1 + b % 3)] = 1
    found[1] = 1
    return found


def targets_of(task: str) -> torch.Tensor:
    return masks() if task == "segmentation" else torch.arange(BATCH) % CLASSES


def batch_of(task: str, seed: int = 0, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.random.RandomState(seed).rand(BATCH, 3, size, size)).float()
    return images, masks(side=size) if task == "segmentation" else torch.arange(BATCH) % CLASSES


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def distances(task: str, method: Comparison, student: Output, teacher: Output, **more: Any) -> dict[str, float]:
    found = method.distances(student, teacher, more.get("targets", targets_of(task)))
    return {name: value.item() for name, value in found.items()}


def enliven(method: nn.Module) -> None:
    """A residual network begins with its blocks switched off (timm), so that most of it would get no gradient."""
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.4)
                module.bias.uniform_(0.0, 0.6)


def answering(monkeypatch: pytest.MonkeyPatch, method: Comparison, student: Output, teacher: Output) -> None:
    """Both networks say this, whatever they are shown."""
    monkeypatch.setattr(method.networks["S1"], "forward", lambda images: student)
    monkeypatch.setattr(method.networks["T"], "forward", lambda images: teacher)
    monkeypatch.setattr(method.networks["T"], "features_until", lambda tap, images: teacher.features)


each = pytest.mark.parametrize(("task", "name"), PAIRS, ids=[f"{task}-{name}" for task, name in PAIRS])


# --- 1. every loss against a slow re-derivation ---


def slow_block(maps: np.ndarray, block: nn.Sequential) -> np.ndarray:
    """Convolution, batch normalisation of this batch, ReLU: padded so that 3×3 keeps the size."""
    convolution, normalisation = block[0], block[1]
    side = convolution.weight.shape[2]
    bias = None if convolution.bias is None else array(convolution.bias)
    maps = oracles.convolved(maps, array(convolution.weight), bias, padding=side // 2)
    return oracles.relu(oracles.batch_normalised(maps, array(normalisation.weight), array(normalisation.bias)))


@pytest.fixture(scope="module", params=[0, 1], ids=["first", "second"])
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


def outputs(
    task: str, method: Comparison, seed: int
) -> tuple[Output, Output, dict[str, np.ndarray], dict[str, np.ndarray]]:
    student, teacher = output(task, method, "S1", 100 * seed), output(task, method, "T", 100 * seed + 50)
    ours, theirs = ({tap: array(feature) for tap, feature in one.features.items()} for one in (student, teacher))
    return student, teacher, ours, theirs


def test_fitnet_is_the_mean_square_behind_its_regressor(seed: int) -> None:
    method = shared("classification", "fitnet")
    student, teacher, ours, theirs = outputs("classification", method, seed)
    expected = oracles.mean_square(slow_block(ours["layer2"], method.regressor), theirs["layer2"])
    assert distances("classification", method, student, teacher) == {"feature": pytest.approx(expected, rel=1e-4)}


def test_fitnet_of_masks_has_a_bare_convolution_and_a_pixel_divergence(seed: int) -> None:
    """Batch normalisation and ReLU, as in classification, would be another baseline than CIRKD's."""
    method, tap = shared("segmentation", "fitnet"), "decoder.blocks.0"
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    assert isinstance(method.regressor, nn.Conv2d)
    expected = oracles.mean_square(oracles.convolved(ours[tap], array(method.regressor.weight)), theirs[tap])
    assert distances("segmentation", method, student, teacher) == {
        "feature": pytest.approx(expected, rel=1e-4),
        "prediction": pytest.approx(oracles.pixel_kl(array(student.logits), array(teacher.logits), 1), rel=1e-4),
    }


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_attention_transfer_is_the_authors_code(seed: int, power: float) -> None:
    """Their Eq. 2, the norm of the difference, would make the published weights wrong by far."""
    method = shared("classification", "at", power=power)
    student, teacher, ours, theirs = outputs("classification", method, seed)
    taps = ("layer1", "layer2", "layer3", "layer4")
    expected = oracles.attention_transfer([ours[tap] for tap in taps], [theirs[tap] for tap in taps], power)
    assert distances("classification", method, student, teacher) == {"attention": pytest.approx(expected, rel=1e-4)}


@pytest.mark.parametrize(("student_side", "teacher_side"), [((6, 6), (4, 4)), ((4, 4), (7, 7)), ((3, 5), (3, 8))])
def test_attention_transfer_pools_the_larger_map(student_side: tuple, teacher_side: tuple) -> None:
    method = shared("segmentation", "at")
    student, teacher = random_values(2, 3, *student_side), random_values(2, 5, *teacher_side, seed=1)
    found = distances(
        "segmentation", method, with_feature(student, "decoder.blocks.0"), with_feature(teacher, "decoder.blocks.0")
    )
    assert found["attention"] == pytest.approx(
        oracles.attention_transfer([array(student)], [array(teacher)], 2), rel=1e-4
    )


def test_attention_transfer_of_masks_adds_a_pixel_divergence(seed: int) -> None:
    method, tap = shared("segmentation", "at"), "decoder.blocks.0"
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    assert distances("segmentation", method, student, teacher) == {
        "attention": pytest.approx(oracles.attention_transfer([ours[tap]], [theirs[tap]], 2), rel=1e-4),
        "prediction": pytest.approx(oracles.pixel_kl(array(student.logits), array(teacher.logits), 1), rel=1e-4),
    }


def test_similarity_preserving_normalises_the_rows_of_its_gram_matrices(seed: int) -> None:
    method = shared("classification", "sp")
    student, teacher, ours, theirs = outputs("classification", method, seed)
    expected = oracles.similarity_preserving(ours["layer4"], theirs["layer4"])
    assert distances("classification", method, student, teacher) == {"similarity": pytest.approx(expected, rel=1e-4)}


def test_variational_information_is_a_gaussian_log_likelihood(seed: int) -> None:
    method = made("classification", "vid")
    with torch.no_grad():
        for number, predictor in enumerate(method.predictors):  # variances that differ by channel
            predictor.raw_variance.copy_(random_values(1, predictor.raw_variance.shape[1], 1, 1, seed=number))
    student, teacher, ours, theirs = outputs("classification", method, seed)
    means, variances = [], []
    for predictor, tap in zip(method.predictors, ("layer1", "layer2", "layer3", "layer4"), strict=True):
        maps = ours[tap]
        for layer in (0, 2, 4):
            maps = oracles.convolved(maps, array(predictor.mean[layer].weight))
            maps = oracles.relu(maps) if layer < 4 else maps
        means.append(maps)
        variances.append(np.log1p(np.exp(array(predictor.raw_variance).ravel())) + 1e-5)
    expected = oracles.variational(means, [theirs[tap] for tap in ("layer1", "layer2", "layer3", "layer4")], variances)
    assert distances("classification", method, student, teacher) == {"information": pytest.approx(expected, rel=1e-4)}


def test_simkd_is_the_mean_square_of_projected_and_teachers_map(seed: int) -> None:
    method = shared("classification", "simkd")
    student, teacher, ours, theirs = outputs("classification", method, seed)
    expected = oracles.mean_square(ours["projector"], theirs["layer4"])
    assert distances("classification", method, student, teacher) == {"feature": pytest.approx(expected, rel=1e-4)}


def test_simkds_projector_is_a_bottleneck_of_three_blocks() -> None:
    """1×1, 3×3 at a part of the width, 1×1, each normalised and rectified: nothing that follows would show it."""
    method = made("classification", "simkd", reduction=4)
    projector = method.networks["S1"].body.projector
    maps = random_values(3, 8, 3, 3)
    expected = array(maps)
    for block in projector:
        expected = slow_block(expected, block)
    np.testing.assert_allclose(array(projector(maps)), expected, rtol=1e-3, atol=1e-5)
    assert [tuple(block[0].weight.shape) for block in projector] == [(3, 8, 1, 1), (3, 3, 3, 3), (12, 3, 1, 1)]


def test_srrl_compares_pooled_features_and_what_the_teachers_head_makes_of_them(seed: int) -> None:
    """A mean square on the logits, where a divergence would be another method; connector before pooling."""
    method = shared("classification", "srrl")
    student, teacher, ours, theirs = outputs("classification", method, seed)
    connected = slow_block(ours["layer4"], method.connector)
    head = method.networks["T"].body
    convolution, normalisation = head.conv6[0], head.conv6[1]
    maps = oracles.convolved(connected, array(convolution.weight))
    mean, variance = array(normalisation.running_mean), array(normalisation.running_var)
    maps = (maps - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    maps = oracles.relu(maps * array(normalisation.weight)[:, None, None] + array(normalisation.bias)[:, None, None])
    logits = maps.mean(axis=(2, 3)) @ array(head.classifier.weight).T + array(head.classifier.bias)
    assert distances("classification", method, student, teacher) == {
        "feature": pytest.approx(
            oracles.mean_square(connected.mean(axis=(2, 3)), theirs["layer4"].mean(axis=(2, 3))), rel=1e-4
        ),
        "regression": pytest.approx(oracles.mean_square(logits, array(teacher.logits)), rel=1e-4),
    }


def test_semckd_weighs_all_pairs_of_layers_by_attention(seed: int) -> None:
    method = shared("classification", "semckd", mid_ratio=0.5)
    student, teacher, ours, theirs = outputs("classification", method, seed)

    def embed(side: str, layer: int, row: np.ndarray) -> np.ndarray:
        first, _, second = (method.queries if side == "student" else method.keys)[layer]
        hidden = oracles.relu(array(first.weight) @ row + array(first.bias))
        return array(second.weight) @ hidden + array(second.bias)

    def regress(i: int, j: int, maps: np.ndarray) -> np.ndarray:
        narrow, middle, last = method.regressors[i][j]
        return oracles.convolved(slow_block(slow_block(maps, narrow), middle), array(last.weight))

    taps = ("layer1", "layer2", "layer3", "layer4")
    expected, alpha = oracles.semantic_calibration(
        [ours[tap] for tap in taps], [theirs[tap] for tap in taps], embed, regress
    )
    np.testing.assert_allclose(array(method.attention(student, teacher)), alpha, atol=1e-4)
    assert alpha.max() - alpha.min() > 0.05, "the inputs do not tell one layer from another"
    assert distances("classification", method, student, teacher) == {"feature": pytest.approx(expected, rel=1e-4)}


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_skd_compares_pixels_and_pairs_of_pixels(seed: int, pool: int) -> None:
    """Three does not divide four: the rest at the edge has a window of its own."""
    method, tap = shared("segmentation", "skd", pool=pool), "decoder.blocks.0"
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    assert distances("segmentation", method, student, teacher) == {
        "prediction": pytest.approx(oracles.pixel_kl(array(student.logits), array(teacher.logits), 1), rel=1e-4),
        "pair": pytest.approx(oracles.pair_wise(ours[tap], theirs[tap], pool), rel=1e-4),
    }


def test_ifvd_compares_cosines_with_the_means_of_the_classes(seed: int) -> None:
    """Per image, of the ground truth at the size of the features; two images have one class only."""
    method, tap = shared("segmentation", "ifvd"), "decoder.blocks.0"
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    expected = oracles.intra_class_variation(ours[tap], theirs[tap], array(masks()))
    assert distances("segmentation", method, student, teacher) == {
        "prediction": pytest.approx(oracles.pixel_kl(array(student.logits), array(teacher.logits), 1), rel=1e-4),
        "variation": pytest.approx(expected, rel=1e-4),
    }


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_divides_by_images_and_channels(seed: int, temperature: float) -> None:
    """By pixels, as a mean over all elements would, the term would be 65536 times too small."""
    method, tap = shared("segmentation", "cwd", temperature=temperature), "decoder.blocks.0"
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    logits = [oracles.two_channels(array(one.logits)) for one in (student, teacher)]
    assert distances("segmentation", method, student, teacher) == {
        "logits": pytest.approx(oracles.channel_wise(*logits, temperature), rel=1e-3),
        "feature": pytest.approx(oracles.channel_wise(ours[tap], theirs[tap], temperature), rel=1e-3),
    }


def test_cwd_widens_the_student_where_channels_differ(seed: int) -> None:
    """Behind a convolution, batch normalisation and ReLU, as the authors have it; where they agree, behind nothing."""
    method = made("segmentation", "cwd", WIDER_TEACHER, tap="layer2")
    narrow, wide = method.channels("layer2")
    assert narrow < wide
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    expected = oracles.channel_wise(slow_block(ours["layer2"], method.adapter), theirs["layer2"], 4)
    assert distances("segmentation", method, student, teacher)["feature"] == pytest.approx(expected, rel=1e-3)
    assert method.extra_parameters == narrow * wide + 2 * wide
    assert shared("segmentation", "cwd").extra_parameters == 0


def regressed(method: Comparison, own: np.ndarray, other: np.ndarray) -> float:
    return oracles.mean_square(oracles.convolved(own, array(method.regressor.weight)), other)


@pytest.mark.parametrize(
    ("name", "term", "options", "oracle"),
    [
        ("fitnet", "feature", {"tap": "layer2"}, regressed),
        ("at", "attention", {"taps": ["layer2"]}, lambda _, *maps: oracles.attention_transfer(*([m] for m in maps), 2)),
        ("skd", "pair", {"tap": "layer2", "adversarial": False}, lambda _, *maps: oracles.pair_wise(*maps, 2)),
        (
            "ifvd", "variation", {"tap": "layer2", "adversarial": False},
            lambda _, *maps: oracles.intra_class_variation(*maps, array(masks())),
        ),
    ],
)  # fmt: skip
def test_maps_of_other_widths_are_compared_in_segmentation(
    name: str, term: str, options: dict[str, Any], oracle: Callable[..., float]
) -> None:
    """At the first decoder block teacher and student are equally wide; the encoders' stages are not."""
    method = made("segmentation", name, WIDER_TEACHER, **options)
    student, teacher, ours, theirs = outputs("segmentation", method, 0)
    assert ours["layer2"].shape[1] < theirs["layer2"].shape[1]
    expected = oracle(method, ours["layer2"], theirs["layer2"])
    assert distances("segmentation", method, student, teacher)[term] == pytest.approx(expected, rel=1e-3)


def test_dsd_compares_residual_attention_and_categories(seed: int) -> None:
    method = shared("segmentation", "dsd")
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    # Logits as of a sure network: with others the categories' term is so small that rounding is all there is.
    student, teacher = (one._replace(logits=25 * one.logits) for one in (student, teacher))
    taps = [f"decoder.blocks.{number}" for number in range(3)]
    pixel = oracles.pixel_similarity([ours[tap] for tap in taps], [theirs[tap] for tap in taps], (16, 16))
    category = oracles.category_similarity(array(student.logits), array(teacher.logits), 32, 4)
    assert distances("segmentation", method, student, teacher) == {
        "pixel": pytest.approx(pixel, rel=1e-4),
        "category": pytest.approx(category, rel=1e-3),
    }


def test_emkd_compares_predictions_importance_and_regions(seed: int) -> None:
    method = shared("segmentation", "emkd")
    student, teacher, ours, theirs = outputs("segmentation", method, seed)
    taps = ("stem", "layer2")
    assert distances("segmentation", method, student, teacher) == {
        "prediction": pytest.approx(oracles.pixel_kl(array(student.logits), array(teacher.logits), 4), rel=1e-4),
        "importance": pytest.approx(sum(oracles.importance(ours[tap], theirs[tap], 4) for tap in taps), rel=1e-4),
        "affinity": pytest.approx(
            sum(oracles.region_affinity(ours[tap], theirs[tap], array(masks())) for tap in taps), rel=1e-3
        ),
    }


def test_emkd_brings_the_student_to_the_teachers_size() -> None:
    method = shared("segmentation", "emkd")
    student, teacher = random_values(BATCH, 3, 4, 4), random_values(BATCH, 5, 7, 7, seed=1)
    found = distances(
        "segmentation", method, with_feature(student, "stem", "layer2"), with_feature(teacher, "stem", "layer2")
    )
    assert found["importance"] == pytest.approx(2 * oracles.importance(array(student), array(teacher), 4), rel=1e-4)
    expected = 2 * oracles.region_affinity(array(student), array(teacher), array(masks()))
    assert found["affinity"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["at", "sp", "vid", "srrl", "fitnet", "semckd"])
def test_convention_b_adds_the_softened_divergence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """T² KL(teacher ‖ student) of weight 1 at T = 4, mean over the batch; convention A has none of it."""
    methods = {convention: shared("classification", name, convention=convention) for convention in ("A", "B")}
    teacher, student = (output("classification", methods["A"], network, 9) for network in ("T", "S1"))
    expected = oracles.softened_kl(array(student.logits), array(teacher.logits), 4)
    images, targets = batch_of("classification")
    terms = {}
    for convention, method in methods.items():
        answering(monkeypatch, method, student, teacher)
        terms[convention] = {term.name: term for term in method.losses(images, targets)}
    extra = terms["B"].keys() - terms["A"].keys()
    assert extra == {"prediction"}
    assert terms["B"]["prediction"].weight == 1
    assert terms["B"]["prediction"].value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("task", "options", "whole"),
    [("classification", {}, False), ("classification", {"convention": "B"}, True), ("segmentation", {}, True)],
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
    method.taught_until = None
    assert {term.name: term.value.item() for term in method.losses(images, targets)} == terms


def test_the_reference_convention_is_the_methods_own() -> None:
    conventions = {
        name: getattr(reference("classification", name), "convention", None) for name in METHODS["classification"]
    }
    assert conventions == {"fitnet": "A", "srrl": "A", "at": "A", "sp": "A", "vid": "A", "simkd": None, "semckd": "B"}


@each
def test_the_total_is_the_task_and_every_distance_times_its_weight(
    task: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that differ by term, so that one in a wrong place shows."""
    raw = copy.deepcopy(SETTINGS)
    weights = {term: 0.3 + 0.5 * place for place, term in enumerate(REFERENCE_WEIGHTS[task][name])}
    raw["method_weights"][STUDY_OF[task]][name] = weights
    method = made(task, name, raw).eval()  # in eval, batch statistics and spectral norms stay as they are
    student, teacher = output(task, method, "S1", 0), output(task, method, "T", 1)
    answering(monkeypatch, method, student, teacher)
    terms = method.losses(*batch_of(task))
    expected = sum(weights[key] * value for key, value in distances(task, method, student, teacher).items())
    if task == "classification":
        picked = [
            oracles.softmax(row)[label] for row, label in zip(array(student.logits), targets_of(task), strict=True)
        ]
        own = -float(np.mean(np.log(picked)))
    else:
        p, y = 1 / (1 + np.exp(-array(student.logits))), array(masks())
        right = np.where(y == 1, p, 1 - p)
        own = float(
            (-((1 - right) ** 2) * np.log(right)).mean() + 1 - 2 * (p * y).sum() / ((p**2).sum() + (y**2).sum())
        )
    expected += 0 if name == "simkd" else own
    if name == "semckd":  # convention B is its own
        expected += oracles.softened_kl(array(student.logits), array(teacher.logits), 4)
    assert {term.network for term in terms} == {"S1"}
    assert sum(term.weight * term.value.item() for term in terms) == pytest.approx(expected, rel=1e-4)


def test_a_point_of_a_search_multiplies_the_reference_weights() -> None:
    raw = copy.deepcopy(SETTINGS)
    raw["method_weights"][STUDY]["skd"] = {"prediction": 7.0, "pair": 7.0, "adversarial": 7.0}
    method = made("segmentation", "skd", raw, point=(0.1,))
    assert method.weights == pytest.approx({"prediction": 0.1, "pair": 1.0, "adversarial": 0.0001})


# --- by hand ---


def test_feature_losses_by_hand() -> None:
    """Differences 0, 2, 0, −4: (4 + 16) / 4."""
    student, teacher = torch.tensor([[[[1.0, 2], [3, 4]]]]), torch.tensor([[[[1.0, 0], [3, 8]]]])
    fitnet = made("segmentation", "fitnet")
    fitnet.regressor = nn.Identity()
    tap = "decoder.blocks.0"
    assert fitnet.distances(with_feature(student, tap), with_feature(teacher, tap), None)["feature"].item() == 5
    simkd = shared("classification", "simkd")
    found = simkd.distances(with_feature(student, "projector"), with_feature(teacher, "layer4"), None)
    assert found["feature"].item() == 5


def test_attention_by_hand() -> None:
    """(1, 1)/√2 and (1, 0): the squares of the differences sum to 2 − √2, over two positions."""
    student, teacher = torch.tensor([[[[3.0, -3.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    at, emkd = shared("segmentation", "at"), shared("segmentation", "emkd")
    tap = "decoder.blocks.0"
    found = at.distances(with_feature(student, tap), with_feature(teacher, tap), None)
    assert found["attention"].item() == pytest.approx(0.2928932)
    found = emkd.distances(
        with_feature(student, "stem", "layer2"), with_feature(teacher, "stem", "layer2"), torch.ones(1, 1, 2, 2)
    )
    assert found["importance"].item() == pytest.approx(2 * 0.5857864), "the sum over positions, of both taps"


def test_similarities_by_hand() -> None:
    """Four images all alike for the student, all unlike for the teacher: each row differs by 2 − 2/√4 = 1, of 4²."""
    student, teacher = torch.ones(4, 1, 1, 4), torch.eye(4).view(4, 1, 1, 4)
    method = shared("classification", "sp")
    found = method.distances(with_feature(student, "layer4"), with_feature(teacher, "layer4"), None)
    assert found["similarity"].item() == pytest.approx(4 / 16)


def test_information_by_hand() -> None:
    """Every tap: ½ (error² / 5 + ln 5) with errors of 0 and 2; 3.2189 of four taps is where perfect means begin."""
    method = made("classification", "vid")
    for predictor in method.predictors:
        predictor.mean = nn.Identity()
    taps = ("layer1", "layer2", "layer3", "layer4")
    teacher = {tap: random_values(2, shape[0], 2, 2) for tap, shape in method.teacher_shapes.items() if tap in taps}
    logits = torch.zeros(2, CLASSES)
    for error, expected in ((0.0, 3.2188758), (2.0, 3.2188758 + 4 * 0.4)):
        student = {tap: feature + error for tap, feature in teacher.items()}
        found = method.distances(Output(logits, student, logits), Output(logits, teacher, logits), None)
        assert found["information"].item() == pytest.approx(expected, rel=1e-6)


def test_srrl_by_hand() -> None:
    """Pooled (2, 0) against (1, 2): (1 + 4)/2. A head that sums gives 2 where the teacher said 5: 9."""
    raw = copy.deepcopy(SETTINGS)
    raw["study"][CLASSES_STUDY]["teacher"]["conv6_channels"] = None
    method = made("classification", "srrl", raw)
    method.connector = nn.Identity()
    method.networks["T"].body.classifier = head = nn.Linear(2, 1, bias=False)
    nn.init.ones_(head.weight)
    student = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 1.0]], [[0.0, 4.0]]]])
    found = method.distances(
        with_feature(student, "layer4"), with_feature(teacher, "layer4", logits=torch.tensor([[5.0]])), None
    )
    assert (found["feature"].item(), found["regression"].item()) == (2.5, 9.0)


def test_semantic_calibration_by_hand() -> None:
    """Equal attention ¼; student maps all 1, teacher maps 0, 1, 2, 3: ¼ (1 + 0 + 1 + 4), the mean of four layers."""
    method = made("classification", "semckd")
    taps = ("layer1", "layer2", "layer3", "layer4")
    for embedding in (*method.queries, *method.keys):
        for parameter in embedding.parameters():
            nn.init.ones_(parameter)  # every layer alike, whatever it says
    for row in method.regressors:
        for place in range(4):
            row[place] = nn.Identity()
    logits = torch.zeros(BATCH, CLASSES)
    student = {tap: torch.ones(BATCH, 1, 2, 2) for tap in taps}
    teacher = {tap: torch.full((BATCH, 1, 2, 2), float(place)) for place, tap in enumerate(taps)}
    found = method.distances(Output(logits, student, logits), Output(logits, teacher, logits), None)
    assert found["feature"].item() == pytest.approx(1.5)


def test_pairs_by_hand() -> None:
    """Pixels that point one way for the student, at right angles for the teacher: two of four cosines differ by 1."""
    method, tap = shared("segmentation", "skd", pool=1), "decoder.blocks.0"
    student = torch.tensor([[1.0, 5.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 7.0]]).view(1, 2, 1, 2)
    found = method.distances(with_feature(student, tap), with_feature(teacher, tap), None)
    assert found["pair"].item() == pytest.approx(0.5)


def test_variation_by_hand() -> None:
    """Lesion pixels (1, 0) and (0, 1) have cosine 1/√2 with their mean, two alike have 1; the background agrees."""
    method, tap = shared("segmentation", "ifvd"), "decoder.blocks.0"
    student = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])[None]
    teacher = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])[None]
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    found = method.distances(with_feature(student, tap), with_feature(teacher, tap), mask)
    assert found["variation"].item() == pytest.approx(2 * (1 - 1 / math.sqrt(2)) ** 2 / 4, rel=1e-5)


def test_channels_by_hand() -> None:
    """At T = 4, ½ · 8 ln 3 makes one of two positions three times as likely, in the other channel a third as likely."""
    method, tap = shared("segmentation", "cwd"), "decoder.blocks.0"
    flat, peaked = torch.zeros(1, 1, 1, 2), torch.tensor([[[[8 * LN3, 0.0]]]])
    found = method.distances(with_feature(flat, tap, logits=flat), with_feature(peaked / 2, tap, logits=peaked), None)
    assert found["logits"].item() == pytest.approx(16 * KL_BY_HAND)
    assert found["feature"].item() == pytest.approx(16 * KL_BY_HAND)


def test_residual_attention_by_hand() -> None:
    """Student (1, 0) → (0, 1), teacher the other way: residuals (−1, 1)/√2 and (1, −1)/√2 differ by √2 everywhere."""
    method = shared("segmentation", "dsd", taps=("decoder.blocks.0", "decoder.blocks.1"), category_size=2)
    left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    logits = torch.tensor([[[[8 * LN3, 0.0], [0.0, 0.0]]]])
    student = Output(torch.zeros_like(logits), {"decoder.blocks.0": left, "decoder.blocks.1": right}, left)
    teacher = Output(logits, {"decoder.blocks.0": right, "decoder.blocks.1": left}, left)
    found = distances("segmentation", method, student, teacher)
    assert found["pixel"] == pytest.approx(2)
    # Positions (3, 1, 1, 1)/6 and (1, 3, 3, 3)/10 against ¼ each: products 1/3, 0.28 and 0.2, where ¼ is expected.
    assert found["category"] == pytest.approx(((1 / 3 - 1 / 4) ** 2 + 0.03**2 + 2 * 0.05**2) / 4, rel=1e-5)


def test_regions_by_hand() -> None:
    """Lesion and background point one way for the student, at right angles for the teacher, at both taps."""
    method = shared("segmentation", "emkd")
    student = torch.tensor([[1.0, 4.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    mask = torch.tensor([[[[1.0, 0.0]]]])
    found = method.distances(with_feature(student, "stem", "layer2"), with_feature(teacher, "stem", "layer2"), mask)
    assert found["affinity"].item() == pytest.approx(2)


def test_the_softened_divergence_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two images one agrees: half of 16 · KL. A mean over classes too would be half of that again."""
    method = shared("classification", "at", convention="B")
    features = {tap: torch.ones(2, 1, 2, 2) for tap in ("layer1", "layer2", "layer3", "layer4")}
    teacher = Output(torch.tensor([[4 * LN3, 0.0], [1.0, 2.0]]), features, features["layer1"])
    student = Output(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), features, features["layer1"])
    answering(monkeypatch, method, student, teacher)
    terms = {term.name: term.value.item() for term in method.losses(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))}
    assert terms["prediction"] == pytest.approx(8 * KL_BY_HAND)


@pytest.mark.parametrize(("form", "expected"), [("wgan-gp", -9 + 10 * 4**2), ("hinge", 2 + 0)])
def test_the_discriminators_loss_by_hand(form: str, expected: float) -> None:
    """D = 5·(one pixel) is 1 of the student's map and 10 of the teacher's; its slope is 5 wherever one looks."""

    class Slope(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return 5 * maps[:, 1, 0, 0]

    adversary = Adversary(reference("segmentation", "skd").adversary.model_copy(update={"form": form}), 64)
    adversary.discriminator = Slope()
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    student[:, 1, 0, 0], teacher[:, 1, 0, 0] = 0.2, 2.0  # D: 1 and 10
    assert adversary.loss(student, teacher).item() == pytest.approx(expected)


def test_the_hinge_wants_a_margin_on_both_sides() -> None:
    class Sum(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.sum(dim=(1, 2, 3))

    settings_ = reference("segmentation", "skd").adversary.model_copy(update={"form": "hinge"})
    adversary = Adversary(settings_, 64)
    adversary.discriminator = Sum()
    real, fake = torch.tensor([0.25, 3.0]).view(2, 1, 1, 1), torch.tensor([-0.5, -4.0]).view(2, 1, 1, 1)
    assert adversary.loss(fake, real).item() == pytest.approx((0.75 + 0) / 2 + (0.5 + 0) / 2)


def test_the_gradient_penalty_looks_between_the_two() -> None:
    """D = ½ Σ x² has slope |x|. Between maps of length 3 (both the same) it is 3; of 0 and 3 somewhere below."""

    class Bowl(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.square().sum(dim=(1, 2, 3)) / 2

    adversary = Adversary(reference("segmentation", "skd").adversary, 64)
    adversary.discriminator = Bowl()
    maps = torch.full((1, 1, 3, 3), 1.0)
    assert adversary.loss(maps, maps).item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)
    torch.manual_seed(0)
    penalties = [adversary.loss(torch.zeros_like(maps), maps).item() - (0 - 4.5) for _ in range(20)]
    assert all(0 <= penalty <= 40 for penalty in penalties)
    assert max(penalties) - min(penalties) > 1, "every time the same point"


# --- 2. torchdistill, an independent implementation ---


def at_taps(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """As torchdistill's hooks collect them."""
    return {tap: {"output": value} for tap, value in values.items()}


def pairs_of(*taps: str) -> dict[str, Any]:
    return {tap: {side: {"io": "output", "path": tap} for side in ("student", "teacher")} for tap in taps}


def test_attention_transfer_agrees_with_torchdistill(seed: int) -> None:
    method = shared("classification", "at")
    student, teacher, *_ = outputs("classification", method, seed)
    theirs = ATLoss(pairs_of("layer1", "layer2", "layer3", "layer4"), mode="code")
    expected = theirs(at_taps(student.features), at_taps(teacher.features)).item()
    assert distances("classification", method, student, teacher)["attention"] == pytest.approx(expected, rel=1e-5)


def test_similarity_preserving_agrees_with_torchdistill(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the length of the rows, which are theirs by the sum of the elements: `normalize(gram, 1)` takes the 1 for
    the norm's power, where the paper and its authors' code have the Euclidean norm."""
    method = shared("classification", "sp")
    student, teacher, *_ = outputs("classification", method, seed)
    monkeypatch.setattr(mid_level, "normalize", lambda gram, power: nn.functional.normalize(gram, 2.0, dim=1))
    expected = SPKDLoss("layer4", "layer4", "batchmean")(at_taps(student.features), at_taps(teacher.features)).item()
    assert distances("classification", method, student, teacher)["similarity"] == pytest.approx(expected, rel=1e-4)


def test_variational_information_agrees_with_torchdistill(seed: int) -> None:
    """Their regressor too, which holds one variance per channel as we do."""
    method = shared("classification", "vid")
    student, teacher, *_ = outputs("classification", method, seed)
    predicted = {}
    for predictor, tap in zip(method.predictors, ("layer1", "layer2", "layer3", "layer4"), strict=True):
        ours, theirs = method.channels(tap)
        regressor = Regressor4VID(ours, theirs, theirs, eps=1e-5, init_pred_var=5.0)
        regressor.regressor.load_state_dict(predictor.mean.state_dict())
        predicted[tap] = regressor(student.features[tap])
    expected = VIDLoss(pairs_of(*predicted))(at_taps(predicted), at_taps(teacher.features)).item()
    assert distances("classification", method, student, teacher)["information"] == pytest.approx(expected, rel=1e-5)


def test_convention_b_agrees_with_torchdistills_distillation(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    method = shared("classification", "at", convention="B")
    student, teacher, *_ = outputs("classification", method, seed)
    answering(monkeypatch, method, student, teacher)
    images, targets = batch_of("classification")
    ours = sum(term.value.item() for term in method.losses(images, targets) if term.name in ("task", "prediction"))
    theirs = KDLoss("z", "output", "z", "output", temperature=4, alpha=1.0, beta=1.0)
    expected = theirs(at_taps({"z": student.logits}), at_taps({"z": teacher.logits}), targets).item()
    assert ours == pytest.approx(expected, rel=1e-5)


def test_divergences_of_masks_agree_with_torchdistills_distillation(seed: int) -> None:
    """Their softmax over two channels a pixel is our one logit; over positions it is CWD's."""
    emkd, cwd = shared("segmentation", "emkd"), shared("segmentation", "cwd")
    student, teacher, *_ = outputs("segmentation", emkd, seed)
    pairs = [torch.cat([torch.zeros_like(one.logits), one.logits], dim=1) for one in (student, teacher)]
    total = KDLoss("z", "output", "z", "output", temperature=4, beta=1.0, reduction="sum")
    expected = 16 * total(*(at_taps({"z": logits}) for logits in pairs)).item() / student.logits.numel()
    assert distances("segmentation", emkd, student, teacher)["prediction"] == pytest.approx(expected, rel=1e-4)

    student, teacher, *_ = outputs("segmentation", cwd, seed)
    rows = [one.features["decoder.blocks.0"].flatten(2).flatten(0, 1) for one in (student, teacher)]
    mean = KDLoss("z", "output", "z", "output", temperature=4, beta=1.0)
    expected = 16 * mean(*(at_taps({"z": logits}) for logits in rows)).item()
    assert distances("segmentation", cwd, student, teacher)["feature"] == pytest.approx(expected, rel=1e-4)


# --- 3. gradients ---

# By task and term: the modules of the student's body that the term must reach, and no others.
ENCODER = {"classification": "encoder", "segmentation": "encoder.model"}
STEM = ("conv1", "bn1")
WHOLE = ("",)
REACH: dict[tuple[str, str], tuple[str, ...]] = {
    ("fitnet", "feature"): (*STEM, "layer1", "layer2"),
    ("srrl", "feature"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("srrl", "regression"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("at", "attention"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("sp", "similarity"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("vid", "information"): (*STEM, "layer1", "layer2", "layer3", "layer4"),
    ("simkd", "feature"): (*STEM, "layer1", "layer2", "layer3", "layer4", "/projector"),
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
    parts = (REACH if task == "classification" else REACH_OF_MASKS).get((name, term), WHOLE)
    prefixes = tuple(
        f"body.{part[1:]}." if part.startswith("/") else f"body.{ENCODER[task]}.{part}." if part else "body."
        for part in parts
    )
    return {key for key, parameter in method.networks["S1"].named_parameters() if key.startswith(prefixes)}


def reached(module: nn.Module) -> set[str]:
    return {key for key, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@each
def test_every_term_teaches_all_that_lies_before_it_and_nothing_else(task: str, name: str) -> None:
    """A tap on a detached tensor, or a wrong one, would train less of the student than the paper's method."""
    torch.manual_seed(0)
    method = made(task, name)
    enliven(method)
    before = {key: value.clone() for key, value in method.networks["T"].state_dict().items()}
    images, targets = batch_of(task)
    seen: set[str] = set()
    for term in method.losses(images, targets):
        method.zero_grad(set_to_none=True)
        term.value.backward(retain_graph=True)
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())
        found, expected = reached(method.networks["S1"]), expected_reach(task, name, term.name, method)
        assert found == expected, f"{term.name}: misses {expected - found}, should not reach {found - expected}"
        assert all(parameter.grad is None for parameter in method.networks["T"].parameters())
        seen |= reached(method)
    extras = {key for key, p in method.named_parameters() if p.requires_grad and not key.startswith("networks.")}
    extras -= {"regressor.0.bias"}  # of a convolution before batch normalisation: without effect
    assert extras <= seen, f"never taught: {extras - seen}"
    after = method.networks["T"].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the teacher's batch statistics moved"


@each
def test_a_step_leaves_the_teacher_as_it_is_and_moves_every_extra(task: str, name: str) -> None:
    torch.manual_seed(0)
    method = made(task, name, adversarial=False) if name in WITH_ADVERSARY else made(task, name)
    enliven(method)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=0.01)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    for step in range(2):
        method.train()
        optimiser.zero_grad()
        sum(term.weight * term.value for term in method.losses(*batch_of(task, step))).backward()
        optimiser.step()
        method.after_step()
    after = method.state_dict()
    assert not any(module.training for module in method.networks["T"].modules())
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("networks.T."))
    still = {
        key for key, p in method.named_parameters()
        if p.requires_grad and not key.startswith("networks.") and torch.equal(before[key], after[key])
    }  # fmt: skip
    assert not still - {"regressor.0.bias"}
    if name == "simkd":
        borrowed = [key for key in before if key.startswith(("networks.S1.body.conv6", "networks.S1.body.classifier"))]
        assert any("running_mean" in key for key in borrowed)
        assert all(torch.equal(before[key], after[key]) for key in borrowed), "the teacher's head is only borrowed"
        statistics = [key for key in before if key.startswith("networks.S1.body.projector") and "running_mean" in key]
        assert not any(torch.equal(before[key], after[key]) for key in statistics), "the projector is not in train mode"


@each
def test_one_seed_gives_one_student_in_every_method(task: str, name: str) -> None:
    """Extra modules that drew from the student's random numbers would make another student to compare with."""
    alone = make("student", STUDY_OF[task], SETTINGS, SEED, None, task, CLASSES, 64).networks["S1"].state_dict()
    method = shared(task, name)
    own = method.networks["S1"].state_dict()
    keys = [key for key in alone if name != "simkd" or key.startswith("body.encoder.")]
    assert keys
    assert all(torch.equal(alone[key], own[key]) for key in keys)


@pytest.fixture(scope="module")
def discriminated() -> dict[str, Any]:
    """SKD after a step of the student and after two of its discriminator: parameters after each."""
    torch.manual_seed(0)
    method = made("segmentation", "skd")
    snapshots = []

    def snapshot() -> None:
        snapshots.append({key: value.detach().clone() for key, value in method.adversary.named_parameters()})

    images, targets = batch_of("segmentation")
    trained = [key for key, p in method.named_parameters() if p.requires_grad]
    snapshot()
    for _ in range(2):
        method.zero_grad(set_to_none=True)
        sum(term.weight * term.value for term in method.losses(images, targets)).backward()
        untaught = all(p.grad is None for p in method.adversary.parameters())
        gradients = {key: p.grad.clone() for key, p in method.networks["S1"].named_parameters() if p.grad is not None}
        method.after_step()
        same = all(
            torch.equal(gradients[key], p.grad)
            for key, p in method.networks["S1"].named_parameters()
            if key in gradients
        )
        snapshot()
    return {"snapshots": snapshots, "trained": trained, "untaught": untaught, "same": same, "method": method}


def test_the_students_optimiser_does_not_hold_the_discriminator(discriminated: dict[str, Any]) -> None:
    """Trained by both, it would learn to help the student."""
    assert not any(key.startswith("adversary") for key in discriminated["trained"])
    assert discriminated["untaught"], "the student's loss left gradients in the discriminator"
    assert discriminated["same"], "the discriminator's step left gradients in the student"
    assert discriminated["method"].extra_parameters == sum(
        p.numel() for p in discriminated["method"].adversary.parameters()
    )


def test_the_discriminator_takes_its_own_step(discriminated: dict[str, Any]) -> None:
    """Its attention begins as the identity, so that only gamma learns in the first step, the rest from then on.

    Without effect, by their nature: a constant added to D (of WGAN), and to every key.
    """
    start, first, second = discriminated["snapshots"]
    nothing = {key for key in start if key.endswith(("key.bias", "layers.11.bias"))}
    assert len(nothing) == 3
    attention = {key for key in start if any(part in key for part in (".query.", ".key.", ".value."))}
    moved_first = {key for key in start if not torch.equal(start[key], first[key])}
    moved_second = {key for key in start if not torch.equal(first[key], second[key])}
    assert start.keys() - attention - nothing <= moved_first
    assert not attention & moved_first
    assert attention - nothing <= moved_second
    gammas = [key for key in start if key.endswith("gamma")]
    assert len(gammas) == 2
    assert all(start[key] == 0 for key in gammas)


def test_the_discriminator_trains_with_the_settings_it_was_given(discriminated: dict[str, Any]) -> None:
    """The first step of Adam is as long as its learning rate in every direction that has a slope."""
    start, first, _ = discriminated["snapshots"]
    change = (first["discriminator.layers.0.weight"] - start["discriminator.layers.0.weight"]).abs()
    assert change == pytest.approx(4e-4, rel=0.02)
    (group,) = discriminated["method"].adversary.get_extra_state()["param_groups"]
    assert tuple(group["betas"]) == (0.9, 0.99)


def test_the_discriminator_learns_to_tell_teacher_from_student() -> None:
    """Turned round, it would reward a student for being told apart."""
    torch.manual_seed(1)
    method = made("segmentation", "skd")
    student, teacher = output("segmentation", method, "S1", 0, batch=4), output("segmentation", method, "T", 1, batch=4)
    teacher = teacher._replace(logits=teacher.logits.sign())  # the surer of the two

    def apart() -> float:
        with torch.no_grad():
            real, fake = (method.adversary.discriminator(two_channels(one.logits)).mean() for one in (teacher, student))
        return (real - fake).item()

    before = apart()
    for _ in range(3):
        method.adversary.distance(student, teacher)
        method.after_step()
    assert apart() > before + 0.5
    settled = {key: value.clone() for key, value in method.adversary.named_parameters()}
    method.after_step()  # nothing new was seen
    assert all(torch.equal(settled[key], value) for key, value in method.adversary.named_parameters())


def test_the_adversarial_term_is_what_the_discriminator_thinks_of_the_student() -> None:
    """The network of Liu et al., layer by layer in float64, with attention that is not the identity."""
    torch.manual_seed(2)
    discriminator = Discriminator(2, 64)
    for _ in range(3):
        discriminator(random_values(4, 2, 64, 64))  # batch statistics as of a training
    discriminator.eval()
    layers = list(discriminator.layers)
    widths = [layer.weight.shape[0] for layer in layers if isinstance(layer, nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 1]
    adversary = Adversary(reference("segmentation", "skd").adversary, 64)
    adversary.discriminator = discriminator
    student = output("segmentation", shared("segmentation", "skd"), "S1", 3, batch=2)

    normal = layers[0]
    maps = oracles.two_channels(array(student.logits))
    mean, deviation = array(normal.running_mean), np.sqrt(array(normal.running_var) + 1e-5)
    maps = (maps - mean[:, None, None]) / deviation[:, None, None]  # its weight is 1, its bias 0
    kinds = []
    for layer in layers[1:]:
        kinds.append(type(layer).__name__.removeprefix("Parametrized"))
        if isinstance(layer, nn.Conv2d):
            last = layer is layers[-1]
            stride, padding = (1, 0) if last else (2, 1)
            maps = oracles.convolved(maps, array(layer.weight), array(layer.bias), stride, padding)
            if not last:
                longest = np.linalg.svd(array(layer.weight).reshape(len(layer.weight), -1), compute_uv=False)[0]
                assert longest == pytest.approx(1, abs=0.15), "no spectral normalisation"
        elif isinstance(layer, nn.LeakyReLU):
            maps = np.where(maps > 0, maps, 0.1 * maps)
        else:
            nn.init.constant_(layer.gamma, 0.5)
            flat = maps.reshape(*maps.shape[:2], -1)
            query, key, value = (
                np.einsum("oc,bcn->bon", array(one.weight)[:, :, 0, 0], flat) + array(one.bias)[None, :, None]
                for one in (layer.query, layer.key, layer.value)
            )
            gathered = np.zeros_like(flat)
            for b in range(len(flat)):
                for i in range(flat.shape[2]):
                    share = oracles.softmax(np.array([query[b, :, i] @ key[b, :, j] for j in range(flat.shape[2])]))
                    gathered[b, :, i] = value[b] @ share
            maps = maps + 0.5 * gathered.reshape(maps.shape)
    assert kinds == [*["Conv2d", "LeakyReLU"] * 3, "SelfAttention", "Conv2d", "LeakyReLU", "SelfAttention", "Conv2d"]
    assert adversary.distance(student, student).item() == pytest.approx(-maps.mean(), rel=1e-3)


# --- 4. what must be so whatever the input ---


def test_variances_start_at_five_learn_and_may_make_the_loss_negative() -> None:
    """In a plain list they would be trained, saved and moved to the accelerator by nobody."""
    method = made("classification", "vid")
    assert all(torch.allclose(p.variance, torch.tensor(5.0), rtol=1e-6) for p in method.predictors)
    names = {key for key, _ in method.named_parameters()}
    assert {f"predictors.{number}.raw_variance" for number in range(4)} <= names
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=0.1)
    sum(term.weight * term.value for term in method.losses(*batch_of("classification"))).backward()
    optimiser.step()
    assert not any(torch.isclose(p.variance, torch.tensor(5.0)).any() for p in method.predictors)
    for predictor in method.predictors:
        predictor.mean = nn.Identity()
        nn.init.constant_(predictor.raw_variance, -5.0)
    teacher = output("classification", method, "T", 0)
    assert distances("classification", method, teacher, teacher)["information"] < -5


def test_other_initial_variances_are_met_exactly() -> None:
    method = made("classification", "vid", initial_variance=0.3, least_variance=0.1)
    assert all(torch.allclose(p.variance, torch.tensor(0.3), rtol=1e-5) for p in method.predictors)
    nn.init.constant_(method.predictors[0].raw_variance, -100.0)
    assert method.predictors[0].variance.min() >= 0.1


@FEW
@given(SEEDS)
def test_attention_over_the_teachers_layers_sums_to_one(number: int) -> None:
    method = shared("classification", "semckd")
    alpha = method.attention(
        output("classification", method, "S1", number), output("classification", method, "T", number + 1)
    )
    assert alpha.shape == (BATCH, 4, 4)
    assert (alpha >= 0).all()
    torch.testing.assert_close(alpha.sum(dim=2), torch.ones(BATCH, 4))


def test_a_lower_sharpness_makes_attention_choose() -> None:
    """It divides the logits of the attention: as a factor it would do the reverse."""
    soft, sharp = shared("classification", "semckd"), shared("classification", "semckd", sharpness=0.1)
    student, teacher = output("classification", soft, "S1", 0), output("classification", soft, "T", 1)
    assert sharp.attention(student, teacher).max() > soft.attention(student, teacher).max() + 0.05


def test_simkd_predicts_with_the_teachers_head_on_projected_features() -> None:
    """The student's own classifier, left in by mistake, gives the reproductions of 10 % accuracy one reads about."""
    method = made("classification", "simkd")
    enliven(method.networks["S1"].body.encoder)
    images, _ = batch_of("classification")
    method.losses(images, torch.zeros(BATCH))
    method.eval()
    student, teacher = method.networks["S1"], method.networks["T"]
    with torch.no_grad():
        found, projected = student(images).logits, student(images).features["projector"]
    head = teacher.body
    convolution, normal = head.conv6[0], head.conv6[1]
    maps = oracles.convolved(array(projected), array(convolution.weight))
    maps = (maps - array(normal.running_mean)[:, None, None]) / np.sqrt(array(normal.running_var) + 1e-5)[:, None, None]
    maps = oracles.relu(maps * array(normal.weight)[:, None, None] + array(normal.bias)[:, None, None])
    expected = maps.mean(axis=(2, 3)) @ array(head.classifier.weight).T + array(head.classifier.bias)
    np.testing.assert_allclose(array(found), expected, rtol=1e-4, atol=1e-5)
    probabilities = method.predict(images)["S1"]
    np.testing.assert_allclose(array(probabilities), np.array([oracles.softmax(row) for row in expected]), atol=1e-5)


def test_simkd_with_a_perfect_projector_is_the_teacher() -> None:
    method = made("classification", "simkd").eval()
    body = method.networks["S1"].body
    body.encoder, body.projector = method.networks["T"].body.encoder, nn.Identity()
    images, _ = batch_of("classification")
    with torch.no_grad():
        found, teacher = method.networks["S1"].body(images), method.networks["T"].body(images)
    assert found.abs().sum() > 0
    assert torch.equal(found, teacher)


def test_simkd_has_no_classifier_of_its_own_and_sees_no_label() -> None:
    method = made("classification", "simkd")
    student, teacher = method.networks["S1"].body, method.networks["T"].body
    for own, other in ((student.classifier, teacher.classifier), (student.conv6, teacher.conv6)):
        for key, value in own.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])
        assert not any(parameter.requires_grad for parameter in own.parameters())
        assert next(own.parameters()) is not next(other.parameters()), "shared, it could not be exported alone"
    images, targets = batch_of("classification")
    method.eval()
    (first,), (second,) = method.losses(images, targets), method.losses(images, (targets + 1) % CLASSES)
    assert first.name == second.name == "feature"
    assert torch.equal(first.value, second.value)


def test_taps_are_what_the_encoder_computes_after_its_last_activation() -> None:
    """A tensor kept by reference before an in-place ReLU, or a stage too early, would be another method."""
    at, emkd = made("classification", "at").eval(), made("segmentation", "emkd").eval()
    enliven(at)
    images, _ = batch_of("classification")
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


@pytest.mark.parametrize(
    ("task", "tap"), [("classification", "encoder.bn1"), ("segmentation", "decoder.blocks.0.conv1.1")]
)
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


@FEW
@given(SEEDS, st.floats(0.05, 20), st.sampled_from(["at", "emkd"]))
def test_attention_ignores_scale_and_the_order_of_channels(number: int, factor: float, name: str) -> None:
    method, term = shared("segmentation", name), {"at": "attention", "emkd": "importance"}[name]
    student, teacher = output("segmentation", method, "S1", number), output("segmentation", method, "T", number + 1)
    random = np.random.RandomState(number)
    changed = {
        tap: factor * feature[:, torch.from_numpy(random.permutation(feature.shape[1]))]
        for tap, feature in student.features.items()
    }
    before = distances("segmentation", method, student, teacher)[term]
    after = distances("segmentation", method, student._replace(features=changed), teacher)[term]
    assert after == pytest.approx(before, rel=1e-4)


@FEW
@given(SEEDS, st.floats(0.05, 20))
def test_similarity_ignores_rotation_scale_and_order(number: int, factor: float) -> None:
    method = shared("classification", "sp")
    student, teacher = output("classification", method, "S1", number), output("classification", method, "T", number + 1)
    random = np.random.RandomState(number)
    feature = student.features["layer4"]
    rotation = np.linalg.qr(random.standard_normal((feature[0].numel(), feature[0].numel())))[0]
    turned = factor * (feature.flatten(1) @ torch.from_numpy(rotation).float()).view_as(feature)
    order = torch.from_numpy(random.permutation(BATCH))
    before = distances("classification", method, student, teacher)["similarity"]
    after = method.distances(
        student._replace(features={"layer4": turned[order]}),
        teacher._replace(features={"layer4": teacher.features["layer4"][order]}),
        None,
    )["similarity"].item()
    assert after == pytest.approx(before, rel=1e-3)
    one_sided = student._replace(features={"layer4": feature.roll(1, 0)})
    assert distances("classification", method, one_sided, teacher)["similarity"] != pytest.approx(before, rel=1e-3)


@FEW
@given(SEEDS)
def test_channel_wise_divergence_ignores_a_constant_of_every_channel(number: int) -> None:
    method, tap = shared("segmentation", "cwd"), "decoder.blocks.0"
    student, teacher = output("segmentation", method, "S1", number), output("segmentation", method, "T", number + 1)
    feature = student.features[tap]
    moved = Output(
        student.logits + 3 * random_values(BATCH, 1, 1, 1, seed=number % 2**31),
        {tap: feature + 3 * random_values(*feature.shape[:2], 1, 1, seed=number % 2**31)},
        feature,
    )
    before, after = (distances("segmentation", method, one, teacher) for one in (student, moved))
    assert after == {key: pytest.approx(value, rel=1e-3) for key, value in before.items()}
    tilted = moved._replace(features={tap: feature + torch.arange(4.0)})
    assert distances("segmentation", method, tilted, teacher)["feature"] != pytest.approx(before["feature"], rel=1e-3)


@FEW
@given(SEEDS, st.sampled_from([1, 2]))
def test_pairs_ignore_the_length_of_a_pixels_feature(number: int, pool: int) -> None:
    """Of a pooled pixel: all that falls into its window gets the same factor."""
    method, tap = shared("segmentation", "skd", pool=pool), "decoder.blocks.0"
    student, teacher = output("segmentation", method, "S1", number), output("segmentation", method, "T", number + 1)
    feature = student.features[tap]
    factors = np.random.RandomState(number).uniform(0.1, 10, (BATCH, 1, 4 // pool, 4 // pool))
    factors = torch.from_numpy(np.kron(factors, np.ones((1, 1, pool, pool)))).float()
    before = distances("segmentation", method, student, teacher)["pair"]
    after = distances("segmentation", method, student._replace(features={tap: feature * factors}), teacher)["pair"]
    assert after == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_divergence_of_masks_is_bernoullis_and_ignores_an_offset_of_both_channels(temperature: float) -> None:
    """[−z/2, z/2] and [0, z] differ by z/2 at every pixel. One channel alone would give 0 for ever."""
    method = shared("segmentation", "skd", temperature=temperature)
    student, teacher, *_ = outputs("segmentation", method, 0)
    found = distances("segmentation", method, student, teacher)["prediction"]
    p, q = (1 / (1 + np.exp(-array(one.logits) / temperature)) for one in (teacher, student))
    bernoulli = temperature**2 * float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean())
    assert found > 0.01
    assert found == pytest.approx(bernoulli, rel=1e-4)
    first = [array(one.logits)[:1, :, :16] for one in (student, teacher)]
    assert oracles.pixel_kl(*first, temperature, offset=-0.5) == pytest.approx(
        oracles.pixel_kl(*first, temperature, offset=0)
    )
    small = [
        with_feature(torch.ones(1, 1, 2, 2), "decoder.blocks.0", logits=torch.from_numpy(z).float()) for z in first
    ]
    ours = method.distances(*small, None)["prediction"].item()
    assert ours == pytest.approx(oracles.pixel_kl(*first, temperature, offset=0), rel=1e-4)


def test_two_channels_are_the_softmaxs_form_of_the_sigmoid() -> None:
    logits = torch.tensor([[[[LN3, -2.0, 0.0]]]])
    found = torch.softmax(two_channels(logits), dim=1)
    torch.testing.assert_close(found[:, 1:], torch.sigmoid(logits))
    torch.testing.assert_close(found[:, :1], 1 - torch.sigmoid(logits))
    assert torch.equal(two_channels(logits), torch.cat([-logits / 2, logits / 2], dim=1)), "a constant channel"


def test_two_channels_refuse_what_has_two_already() -> None:
    with pytest.raises(TrainingError, match="one logit a pixel, not 2"):
        two_channels(torch.zeros(1, 2, 4, 4))


def test_bounds_are_reached_and_not_passed() -> None:
    """Attention on different pixels is as far apart as it can be: 2 as a sum, 2 / (H·W) as a mean."""
    student, teacher = torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 4)
    student[..., 0, 0], teacher[..., 3, 3] = 5.0, 0.1
    tap = "decoder.blocks.0"
    at, emkd = shared("segmentation", "at"), shared("segmentation", "emkd")
    found = at.distances(with_feature(student, tap), with_feature(teacher, tap), None)
    assert found["attention"].item() == pytest.approx(2 / 16)
    found = emkd.distances(
        with_feature(student, "stem", "layer2"), with_feature(teacher, "stem", "layer2"), torch.ones(3, 1, 4, 4)
    )
    assert found["importance"].item() == pytest.approx(2 * 2)


@FEW
@given(SEEDS, st.floats(0.01, 100))
def test_distances_stay_within_their_bounds(number: int, scale: float) -> None:
    seg, cls = "segmentation", "classification"
    for task, name, term, least, most in (
        (cls, "at", "attention", 0, sum(2 / side**2 for side in (8, 6, 4, 3))),
        (cls, "sp", "similarity", 0, 2 / BATCH),
        (seg, "emkd", "importance", 0, 2 * 2),
        (seg, "emkd", "affinity", 0, 2 * 4),
        (seg, "ifvd", "variation", 0, 4),
        (seg, "skd", "pair", 0, 4),
    ):
        method = shared(task, name)
        student = output(task, method, "S1", number, scale=scale)
        found = distances(task, method, student, output(task, method, "T", number + 1))[term]
        assert least < found <= most, name


@each
def test_a_student_equal_to_the_teacher_is_told_nothing(task: str, name: str) -> None:
    """Zero, but for VID's ½ log 5 per tap: a penalty for a perfect student would pull it away."""
    method = made(task, name, adversarial=False) if name in WITH_ADVERSARY else made(task, name)
    for extra in ("regressor", "connector", "adapter"):
        if hasattr(method, extra):
            setattr(method, extra, nn.Identity())
    teacher = output(task, method, "T", 0)
    if name == "vid":
        for predictor in method.predictors:
            predictor.mean = nn.Identity()
    if name == "semckd":  # no layer can equal all of the teacher's four, unless they are alike
        for row in method.regressors:
            for place in range(4):
                row[place] = nn.Identity()
        feature = random_values(BATCH, 2, 3, 3)
        teacher = teacher._replace(features=dict.fromkeys(teacher.features, feature))
    student = teacher
    if name == "simkd":
        student = teacher._replace(features={"projector": teacher.features["layer4"]})
    if name == "srrl":  # its logits are what its own head says
        with torch.no_grad():
            logits = method.networks["T"].body.head(teacher.features["layer4"])
        teacher = teacher._replace(logits=logits)
    expected = 4 * 0.5 * math.log(5) if name == "vid" else 0
    for term, value in distances(task, method, student, teacher).items():
        assert value == pytest.approx(expected, abs=1e-6), term


@pytest.mark.parametrize("name", ["ifvd", "emkd"])
@pytest.mark.parametrize("kind", ["no lesion", "no background", "lesion lost at the features' size"])
def test_masks_of_one_class_are_no_division_by_nothing(name: str, kind: str) -> None:
    """Healthy slices are common; without background, the reference code of EMKD gives NaN."""
    method = shared("segmentation", name)
    student, teacher, *_ = outputs("segmentation", method, 0)
    leaves = {tap: feature.clone().requires_grad_() for tap, feature in student.features.items()}
    mask = torch.full((BATCH, 1, MASK_SIDE, MASK_SIDE), float(kind == "no background"))
    if kind.startswith("lesion"):
        mask[:, :, 1, 1] = 1
    found = method.distances(student._replace(features=leaves), teacher, mask)
    term = {"ifvd": "variation", "emkd": "affinity"}[name]
    found[term].backward()
    gradients = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    if name == "emkd":
        assert found[term].item() == 0
    else:  # one class: every pixel against the mean of the whole image
        tap = "decoder.blocks.0"
        expected = oracles.intra_class_variation(
            array(student.features[tap]), array(teacher.features[tap]), array(mask)
        )
        assert found[term].item() == pytest.approx(expected, rel=1e-4)


def test_images_of_one_class_do_not_dilute_the_others_affinity() -> None:
    method = shared("segmentation", "emkd")
    student, teacher, *_ = outputs("segmentation", method, 0)
    whole = distances("segmentation", method, student, teacher)["affinity"]

    def only(one: Output) -> Output:  # masks() has no lesion in image 0 and no background in image 1
        return Output(one.logits[2:], {tap: feature[2:] for tap, feature in one.features.items()}, one.shared[2:])

    rest = distances("segmentation", method, only(student), only(teacher), targets=masks()[2:])["affinity"]
    assert whole == pytest.approx(rest, rel=1e-5)
    assert whole > 0


@pytest.mark.parametrize("name", ["at", "fitnet", "skd", "ifvd", "cwd", "dsd", "emkd"])
def test_a_batch_of_one_image_has_finite_distances(name: str) -> None:
    method = shared("segmentation", name)
    student, teacher = (output("segmentation", method, network, 7, batch=1) for network in ("S1", "T"))
    found = distances("segmentation", method, student, teacher, targets=masks(3)[2:])
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("name", ["ifvd", "emkd"])
def test_lesions_that_vanish_at_the_features_size_are_remarked(name: str) -> None:
    """The reader of the table has to know that a mask-based method saw no lesion."""
    method = shared("segmentation", name)
    targets = torch.zeros(3, 1, 64, 64)
    targets[1, :, :40, :40] = 1
    targets[2, :, 1, 1] = 1  # where no pixel of the small mask looks
    (remark,) = method.remarks(targets)
    assert "1 of 2" in remark
    assert method.remarks(targets[:2]) == []
    assert shared("segmentation", "at").remarks(targets) == []


# --- 5. sizes and beginnings ---


FULL = copy.deepcopy(SETTINGS)
FULL["study"][CLASSES_STUDY]["teacher"] = {"encoder": "resnet50", "encoder_options": {}, "weights": "random"}
FULL["study"][CLASSES_STUDY]["student"] = {"encoder": "resnet18", "encoder_options": {}, "weights": "random"}


FULL_STUDENT = copy.deepcopy(SETTINGS)
FULL_STUDENT["study"][CLASSES_STUDY]["teacher"]["encoder_options"] = {"channels": [4, 4, 8, 256]}
FULL_STUDENT["study"][CLASSES_STUDY]["student"] = {"encoder": "resnet18", "encoder_options": {}, "weights": "random"}


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("fitnet", {}, 0.07), ("at", {}, 0.00), ("sp", {}, 0.00), ("vid", {}, 12.5), ("srrl", {}, 1.05),
        ("simkd", {"reduction": 2}, 12.1), ("simkd", {"reduction": 4}, 3.7), ("simkd", {"reduction": 8}, 1.2),
        ("semckd", {"mid_ratio": 2}, 854), ("semckd", {"mid_ratio": 1}, 227), ("semckd", {"mid_ratio": 0.25}, 19),
    ],
)  # fmt: skip
def test_extra_modules_have_the_published_sizes(name: str, options: dict[str, Any], millions: float) -> None:
    """A ResNet50's student is a ResNet18; nothing takes memory here."""
    with torch.device("meta"):
        method = made("classification", name, FULL, image_size=224, **options)
    # They count convolutions alone, and round.
    assert method.extra_parameters / 1e6 == pytest.approx(millions, rel=0.045)


def test_what_simkd_leaves_is_counted_whole() -> None:
    """Encoder, projector and the teacher's head: a table that gave the bare student's size would flatter it."""
    method = made("classification", "simkd")
    body = method.networks["S1"].body
    parts = [
        sum(p.numel() for p in part.parameters())
        for part in (body.encoder, body.projector, body.conv6, body.classifier)
    ]
    assert all(parts)
    assert method.networks["S1"].facts["parameters"] == sum(parts)
    assert method.extra_parameters == parts[1]


def test_srrls_connector_begins_as_the_authors_has_it() -> None:
    """Normal with a variance of 2 over the outputs; what torch draws by itself is less than half as wide."""
    method = made("classification", "srrl", FULL_STUDENT)
    convolution, normal = method.connector[0], method.connector[1]
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / convolution.out_channels), rel=0.05)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=0.02)
    assert (normal.weight == 1).all()
    assert (normal.bias == 0).all()


# --- 6. bad input ---


@pytest.mark.parametrize(("name", "batch"), [("semckd", 4), ("semckd", 7), ("sp", 1)])
def test_a_batch_too_small_for_a_method_is_refused(name: str, batch: int) -> None:
    raw = copy.deepcopy(SETTINGS)
    raw["training"]["batch_size"] = batch
    with pytest.raises(TrainingError, match=rf"{name}.*batch_size"):
        made("classification", name, raw)


@pytest.mark.parametrize(
    ("task", "name", "options", "match"),
    [
        (
            "classification",
            "fitnet",
            {"tap": "layer9"},
            r"'layer9' does not exist.*Did you mean 'layer.'.*layer1, layer2, layer3, layer4",
        ),
        ("classification", "at", {"taps": ["layer1", "nowhere"]}, r"'nowhere' does not exist.*stem, layer1"),
        (
            "segmentation",
            "skd",
            {"tap": "decoder.block.0"},
            r"Did you mean 'decoder.blocks.0'.*decoder.blocks.0, decoder.blocks.1",
        ),
        ("segmentation", "emkd", {"low": "layer7"}, r"'layer7' does not exist.*stem, layer1"),
        ("segmentation", "dsd", {"taps": ["decoder.blocks.0"]}, r"methods.segmentation.dsd.taps"),
        ("classification", "simkd", {"reduction": 3}, r"reduction.*3"),
        ("classification", "at", {"convention": "C"}, r"convention.*C"),
        ("classification", "fitnet", {"taps": ["layer1"]}, r"unknown key.*taps.*Did you mean 'tap'"),
    ],
)
def test_settings_that_cannot_be_are_said(task: str, name: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ParamsError, match=match):
        made(task, name, image_size=64, **options)


@pytest.mark.parametrize(("initial", "least"), [(1e-5, 1e-5), (0.5, 1.0)])
def test_an_initial_variance_below_the_least_is_said(initial: float, least: float) -> None:
    """Not a `math domain error`."""
    with pytest.raises(ParamsError, match="initial_variance"):
        made("classification", "vid", initial_variance=initial, least_variance=least)


def test_a_large_initial_variance_is_no_overflow() -> None:
    """Its exponential is none that a float can hold; the softplus of a thousand is a thousand."""
    method = made("classification", "vid", initial_variance=1000.0)
    assert torch.allclose(method.predictors[0].variance, torch.tensor(1000.0))


@pytest.mark.parametrize("weights", [{"featur": 1.0}, {}, {"feature": 1.0, "prediction": 1.0}])
def test_weights_of_other_terms_are_said_when_a_method_is_made(weights: dict[str, float]) -> None:
    """`classroom train` reads its own share of params.yaml; nobody need have run `classroom check`."""
    raw = copy.deepcopy(SETTINGS)
    raw["method_weights"][CLASSES_STUDY]["sp"] = weights
    with pytest.raises(ParamsError, match="similarity"):
        made("classification", "sp", raw)


def test_a_method_of_the_other_task_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"'emkd' is no method of classification.*fitnet.*semckd"):
        make("emkd", CLASSES_STUDY, SETTINGS, 0, None, "classification", CLASSES, 64)
    with pytest.raises(TrainingError, match=r"unknown method 'fitnett'.*Did you mean 'fitnet'"):
        make("fitnett", CLASSES_STUDY, SETTINGS, 0, None, "classification", CLASSES, 64)


@pytest.mark.parametrize("name", WITH_ADVERSARY)
def test_images_too_small_for_the_discriminator_are_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=r"64×64.*32×32.*adversarial"):
        made("segmentation", name, image_size=32)
    assert made("segmentation", name, image_size=32, adversarial=False).extra_parameters == 0


def test_the_smallest_images_fit_the_discriminator() -> None:
    assert Discriminator(2, 64).eval()(torch.zeros(1, 2, 64, 64)).shape == (1, 1, 1, 1)


def test_maps_that_cannot_be_pooled_to_each_other_are_refused() -> None:
    with pytest.raises(TrainingError, match="4×8 and 8×4 cannot be matched"):
        same_size(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 8, 4))
    method, wide, high = shared("segmentation", "at"), torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 8, 4)
    with pytest.raises(TrainingError, match="Choose another tap"):
        method.distances(with_feature(wide, "decoder.blocks.0"), with_feature(high, "decoder.blocks.0"), None)


class Toy(nn.Module):
    """A network that is one tapped convolution of any width and stride."""

    def __init__(self, channels: int, side: int, image_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(first=nn.Conv2d(3, channels, image_size - side + 1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def toy_fitnet(student_side: int, teacher_side: int) -> FitNet:
    networks = {
        name: Network(Toy(channels, side, 12), [0.0] * 3, [1.0] * 3, "body.first")
        for name, channels, side in (("T", 5, teacher_side), ("S1", 3, student_side))
    }
    options = reference("classification", "fitnet").model_copy(update={"tap": "body.first"})
    return FitNet(
        networks, options, {"feature": 100.0}, TaskLoss(focal_gamma=2, focal_form="binary"), 12, BATCH
    ).train()


@pytest.mark.parametrize(("ours", "theirs", "kernel"), [(4, 4, 1), (8, 4, 3), (4, 8, 4), (7, 4, 4), (6, 5, 2)])
def test_fitnets_regressor_follows_from_the_sizes(ours: int, theirs: int, kernel: int) -> None:
    """Equal 1×1; twice 3×3 of stride 2; half 4×4 transposed; otherwise as much kernel as there is to lose."""
    method = toy_fitnet(ours, theirs)
    convolution, normal = method.regressor[0], method.regressor[1]
    assert tuple(convolution.weight.shape[2:]) == (kernel, kernel)
    student, teacher = random_values(2, 3, ours, ours), random_values(2, 5, theirs, theirs, seed=1)
    found = method.distances(with_feature(student, "body.first"), with_feature(teacher, "body.first"), None)
    weight, bias = array(convolution.weight), None if convolution.bias is None else array(convolution.bias)
    if ours < theirs:
        maps = oracles.transposed_convolved(array(student), weight, bias, stride=2, padding=1)
    else:
        twice = ours == 2 * theirs
        maps = oracles.convolved(array(student), weight, bias, stride=2 if twice else 1, padding=1 if twice else 0)
    maps = oracles.relu(oracles.batch_normalised(maps, array(normal.weight), array(normal.bias)))
    assert found["feature"].item() == pytest.approx(oracles.mean_square(maps, array(teacher)), rel=1e-4)


def test_fitnet_refuses_a_student_whose_map_is_too_small() -> None:
    with pytest.raises(TrainingError, match="3×3 cannot be brought to the teacher's 5×5"):
        toy_fitnet(3, 5)


def test_a_hint_stage_needs_an_epoch_of_its_own() -> None:
    method = made("classification", "fitnet", two_stage=True)
    with pytest.raises(TrainingError, match=r"two_stage.*training\.epochs"):
        method.begin_epoch(0, 1)
    made("classification", "fitnet").begin_epoch(0, 1)


@pytest.mark.parametrize("name", ["simkd", "srrl", "sp"])
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_any_encoder_of_the_settings_can_be_compared(name: str, role: str) -> None:
    """A MobileNetV2 ends in a convolution after its last stage: what a classifier pools is not its `layer4`."""
    raw = copy.deepcopy(SETTINGS)
    raw["study"][CLASSES_STUDY][role] |= {"encoder": "mobilenetv2_035", "encoder_options": {}}
    raw["study"][CLASSES_STUDY]["teacher"]["conv6_channels"] = None
    method = made("classification", name, raw)
    with torch.no_grad():
        terms = method.losses(*batch_of("classification"))
    assert all(torch.isfinite(term.value) for term in terms)


def test_a_stage_that_an_encoder_does_not_have_is_said_before_training() -> None:
    """A ConvNeXt begins with stride 4: its `stem` has no channels, and a mean over none is not a number."""
    raw = copy.deepcopy(SETTINGS)
    for role in ("teacher", "student"):
        raw["study"][STUDY][role] |= {"encoder": "tu-convnext_atto", "encoder_options": {}}
    with pytest.raises(ClassroomError, match="stem"):
        made("segmentation", "emkd", raw)


# The whole of params.yaml


def committed() -> dict[str, Any]:
    """With a comparison of both tasks, whatever scale is committed."""
    raw = copy.deepcopy(COMMITTED)
    classes = next(name for name, study in raw["study"].items() if study["task"] == "classification")
    raw["comparison"] = {
        "tables": ["table10"], "ours": "kd_ml-v3",
        "classification": {"studies": [classes], "methods": list(METHODS["classification"])},
        "segmentation": {"studies": [STUDY], "methods": list(METHODS["segmentation"])},
    }  # fmt: skip
    raw["method_weights"] |= {
        classes: copy.deepcopy(REFERENCE_WEIGHTS["classification"]),
        STUDY: copy.deepcopy(REFERENCE_WEIGHTS["segmentation"]),
    }
    raw["training"]["batch_size"] = 8
    return raw


def change(raw: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split("/")
    for part in above:
        raw = raw[part]
    raw[last] = value


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (
            "comparison/segmentation/methods",
            ["fitnett"],
            r"comparison\.segmentation\.methods: unknown method 'fitnett'.*fitnet",
        ),
        ("comparison/segmentation/methods", ["simkd"], r"comparison\.segmentation\.methods.*'simkd'.*other task"),
        ("comparison/classification/methods", ["sp", "sp"], r"comparison\.classification\.methods: each once"),
        ("comparison/segmentation/studies", [CLASSES_STUDY], r"'ham10000-classification' is a study of classification"),
        ("comparison/segmentation/studies", ["lgg-resnet81"], r"unknown study 'lgg-resnet81'.*lgg-resnet18"),
        ("comparison/ours", "kd_ml-v4", r"comparison\.ours: 'kd_ml-v4' is not in variants.*kd_ml-v"),
        (
            "tune/segmentation",
            {"studies": [STUDY], "methods": ["vid"]},
            r"tune\.segmentation\.methods.*'vid'.*other task",
        ),
        (f"method_weights/{STUDY}", {}, rf"method_weights\.{STUDY} lacks 'fitnet'"),
        (
            f"method_weights/{STUDY}/at",
            {"attention": 1.0},
            rf"method_weights\.{STUDY}\.at: expected weights of attention, prediction",
        ),
        (
            f"method_weights/{STUDY}/at",
            {"attention": -1.0, "prediction": 1.0},
            r"attention.*greater than or equal to 0",
        ),
        (f"method_weights/{STUDY}/simkd", {"feature": 1.0}, r"'simkd' is no method of segmentation"),
        ("method_weights/nowhere", {}, r"method_weights: unknown study 'nowhere'"),
        ("training/batch_size", 4, r"training\.batch_size: 4 is too small for semckd"),
        ("methods/segmentation/cwd/tempreature", 4.0, r"unknown key.*tempreature.*Did you mean 'temperature'"),
        ("methods/segmentation/skd/adversary/form", "lsgan", r"methods\.segmentation\.skd\.adversary\.form"),
        ("tune/factors", [], r"tune\.factors"),
        ("tune/factors", [0.0], r"tune\.factors"),
    ],
)
def test_a_comparison_that_cannot_be_is_said(path: str, value: Any, match: str) -> None:
    raw = committed()
    params.check(raw)  # sound before
    change(raw, path, value)
    with pytest.raises(ParamsError, match=match):
        params.check(raw)


def test_a_small_batch_is_nobodys_trouble_without_semckd() -> None:
    raw = committed()
    raw["training"]["batch_size"] = 4
    raw["comparison"]["classification"]["methods"].remove("semckd")
    params.check(raw)


def test_departures_from_the_reference_are_named() -> None:
    """Table 10 says of every row whether it is the reference's."""
    usual = reference("classification", "fitnet").model_dump(mode="json")
    assert departures("classification", "fitnet", usual, {"feature": 100.0}) == []
    found = departures("classification", "fitnet", usual | {"tap": "layer3"}, {"feature": 30.0})
    assert found == ["tap layer3", "weight feature 30"]
    usual = reference("segmentation", "skd").model_dump(mode="json")
    changed = usual | {"adversarial": False, "adversary": usual["adversary"] | {"form": "hinge"}}
    found = departures("segmentation", "skd", changed, REFERENCE_WEIGHTS["segmentation"]["skd"])
    assert found == ["adversarial false", "adversary form hinge"], "of a section, what differs in it"
    usual = reference("classification", "at").model_dump(mode="json")
    found = departures("classification", "at", usual | {"taps": ["layer3", "layer4"]}, {"attention": 1000.0})
    assert found == ["taps layer3 layer4"]


# --- 7. half precision ---


@each
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_distances_are_computed_in_float32_whatever_the_networks_precision(
    task: str, name: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gram matrices and fourth powers of half precision overflow, or keep two digits."""
    method = made(task, name).eval()  # in eval, a spectral norm does not move between two calls
    student, teacher = output(task, method, "S1", 0, scale=scale), output(task, method, "T", 1, scale=scale)

    def rounded(one: Output, kind: torch.dtype) -> Output:
        features = {tap: feature.bfloat16().to(kind) for tap, feature in one.features.items()}
        return Output(one.logits.bfloat16().to(kind), features, one.shared.bfloat16().to(kind))

    exact = distances(task, method, rounded(student, torch.float32), rounded(teacher, torch.float32))
    answering(monkeypatch, method, rounded(student, torch.bfloat16), rounded(teacher, torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(*batch_of(task))
    assert all(term.value.dtype == torch.float32 for term in terms)
    assert all(torch.isfinite(term.value) for term in terms)
    found = {term.name: term.value.item() for term in terms if term.name in exact}
    assert found == {key: pytest.approx(value, rel=1e-5) for key, value in exact.items()}


# --- 8. resuming, and what a run leaves ---


@each
def test_a_checkpoint_brings_the_extras_back(task: str, name: str, tmp_path: Path) -> None:
    """And with them the optimiser of a discriminator: the step after must be the same in every bit."""
    size = 64 if name == "skd" else 32
    options = {"adversarial": False} if name == "ifvd" else {}

    def step(method: Comparison, number: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(number)
        values = [term.value for term in method.losses(*batch_of(task, number, size))]
        method.after_step()
        parameters = {
            key: p.detach().clone() for key, p in method.named_parameters() if not key.startswith("networks.T")
        }
        return parameters | {f"value {place}": value.detach() for place, value in enumerate(values)}

    method = made(task, name, image_size=size, **options)
    for parameter in method.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(0.01)
    step(method, 1)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    fresh = made(task, name, image_size=size, seed=SEED + 1, **options)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    expected, found = step(method, 2), step(fresh, 2)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    if name == "skd":
        unresumed = made(task, name, seed=SEED + 1)
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        state["adversary._extra_state"] = {}
        unresumed.load_state_dict(state)
        other = step(unresumed, 2)
        assert any(not torch.equal(other[key], value) for key, value in expected.items()), "its optimiser has no memory"


@pytest.mark.parametrize(("epochs", "stages"), [(2, [1, 0]), (4, [1, 1, 0, 0]), (5, [1, 1, 0, 0, 0])])
@pytest.mark.parametrize("convention", ["A", "B"])
def test_the_hint_comes_first_and_alone(epochs: int, stages: list[int], convention: str) -> None:
    method = made("classification", "fitnet", two_stage=True, convention=convention)
    second = {"task", "prediction"} if convention == "B" else {"task"}
    for epoch, hint in enumerate(stages):
        method.begin_epoch(epoch, epochs)
        names = {term.name for term in method.losses(*batch_of("classification"))}
        assert names == ({"feature"} if hint else second)


def test_a_resumed_method_knows_its_stage() -> None:
    """A training that goes on in its third of four epochs begins there, not with the hint."""
    method = made("classification", "fitnet", two_stage=True)
    method.begin_epoch(2, 4)
    assert [term.name for term in method.losses(*batch_of("classification"))] == ["task"]


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
    raw["methods"][task][name] |= options
    raw["training"] |= {"epochs": 2, "batch_size": 4 if name == "skd" else 8, "threads": 1}
    show = show or Silent()
    run.train(
        STUDY_OF[task], name, 0, raw, data / "prepared", data / "splits.parquet", data / "teacher.safetensors",
        folder / "run", folder / "checkpoints", identity="the same", device="cpu", show=show,
        checkpoint_minutes=0 if isinstance(show, Killed) else 10,
    )  # fmt: skip
    return show


def with_teacher(folder: Path, task: str, labels: int) -> Path:
    """Beside the data, the study's trained teacher: here one that has moved away from its seed."""
    teacher = make("teacher", STUDY_OF[task], SETTINGS, 5, None, task, labels, 64)
    enliven(teacher)
    state = {key: value.contiguous() for key, value in teacher.state_of("T").items()}
    save_file(state, folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def data(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny segmentation at 64 pixels, which the discriminator needs, and with three steps an epoch."""
    folder = tmp_path_factory.mktemp("data-64")
    prepare.prepare("segmentation", 64, tiny_study / "raw", folder / "prepared")
    split.write(folder / "prepared", Split(percent=(20, 20, 60), by="image", seed=0), folder / "splits.parquet")
    labels = len(json.loads((folder / "prepared/dataset.json").read_text())["labels"])
    return with_teacher(folder, "segmentation", labels)


@pytest.fixture(scope="module")
def classes_data(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data-classes")
    for name in ("prepared", "splits.parquet"):
        (folder / name).symlink_to(tiny_classes_study / name)
    labels = len(json.loads((folder / "prepared/dataset.json").read_text())["labels"])
    return with_teacher(folder, "classification", labels)


def bits(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "run" / name).read_bytes() for name in run.FILES}


def killed_twice(data: Path, folder: Path, name: str, task: str, **options: Any) -> list[str]:
    """Killed in the middle of both epochs, between a step and its checkpoint."""
    for moment in ((0, 3), (1, 2)):
        with pytest.raises(KeyboardInterrupt):
            train(data, folder, name, task, Killed(*moment), **options)
    return train(data, folder, name, task, **options).lines


@pytest.fixture(scope="module")
def skd_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skd")
    train(data, folder, "skd", "segmentation")
    return folder


def test_killed_in_the_middle_an_adversarial_training_ends_in_the_same_bits(
    data: Path, skd_run: Path, tmp_path: Path
) -> None:
    """Of the discriminator too: weights, batch statistics, spectral norms, Adam's moments, random places between."""
    lines = killed_twice(data, tmp_path, "skd", "segmentation")
    assert any("resumed from" in line for line in lines)
    assert bits(tmp_path) == bits(skd_run)


@pytest.mark.parametrize(("name", "options"), [("fitnet", {"two_stage": True}), ("semckd", {})])
def test_killed_in_the_middle_a_comparison_ends_in_the_same_bits(
    classes_data: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    train(classes_data, tmp_path / "undisturbed", name, "classification", **options)
    lines = killed_twice(classes_data, tmp_path / "killed", name, "classification", **options)
    assert any("resumed from" in line for line in lines)
    assert bits(tmp_path / "killed") == bits(tmp_path / "undisturbed")
    history = pd.read_csv(tmp_path / "killed/run/history.csv")
    if name == "fitnet":
        assert history["loss/S1/feature"].notna().tolist() == [True, False]
        assert history["loss/S1/task"].notna().tolist() == [False, True]


def test_a_run_leaves_the_student_alone(data: Path, skd_run: Path) -> None:
    """No discriminator, no teacher: whoever loads the weights needs nothing of the training."""
    state = load_file(skd_run / "run/weights.safetensors")
    network = build(select(SETTINGS, f"study.{STUDY}.student", NetworkSettings), "segmentation", 2, 99)
    assert {key.removeprefix("S1.") for key in state} == network.state_dict().keys()
    assert all(key.startswith("S1.") for key in state)
    network.load_state_dict({key.removeprefix("S1."): value for key, value in state.items()})
    metrics = json.loads((skd_run / "run/metrics.json").read_text())
    assert metrics["extra_parameters"] > 3_000_000
    assert set(metrics["networks"]) == set(metrics["best"]["test"]) == {"T", "S1"}
    assert set(metrics["terms"]) == {"S1/task", "S1/prediction", "S1/pair", "S1/adversarial"}


def checkpointed(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a training: with the receipt, `classroom train` would have removed it."""
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
    fresh = made("segmentation", "skd").adversary.state_dict()
    weights = [key for key in fresh if key.endswith(("gamma", "original", "0.weight"))]
    assert len(weights) == 7
    assert not any(torch.equal(method[f"adversary.{key}"], fresh[key]) for key in weights)
    assert not any(key.startswith("networks.T.") for key in method)


@pytest.mark.parametrize(("task", "name"), [("classification", "vid"), ("classification", "semckd")])
def test_a_training_trains_and_keeps_every_extra(classes_data: Path, tmp_path: Path, task: str, name: str) -> None:
    """Extras that the optimiser does not hold are what other reproductions of VID have."""
    train(classes_data, tmp_path, name, task)
    saved = checkpointed(tmp_path)["method"]
    with torch.no_grad():
        fresh = made(task, name, seed=0, image_size=32)
    extras = [key for key, _ in fresh.named_parameters() if not key.startswith("networks.")]
    assert extras
    assert {key for key in extras if torch.equal(saved[key], fresh.state_dict()[key])} == set()
    left = load_file(tmp_path / "run/weights.safetensors")
    assert all(key.startswith("S1.") for key in left), "an extra is in what the run leaves"


def test_weighted_terms_are_on_record(skd_run: Path) -> None:
    """Reference weights were tuned for another optimiser and batch: the reader has to see what dominates."""
    history = pd.read_csv(skd_run / "run/history.csv")
    for term, weight in {"task": 1, **REFERENCE_WEIGHTS["segmentation"]["skd"]}.items():
        np.testing.assert_allclose(history[f"weighted/S1/{term}"], weight * history[f"loss/S1/{term}"], rtol=1e-6)


def test_a_run_of_simkd_leaves_projector_and_the_teachers_head(classes_data: Path, tmp_path: Path) -> None:
    """Loaded by hand and put together from its three parts, it must give the recorded predictions."""
    train(classes_data, tmp_path, "simkd", "classification")
    state = load_file(tmp_path / "run/weights.safetensors")
    teacher = load_file(classes_data / "teacher.safetensors")
    assert {key.split(".")[2] for key in state} == {"encoder", "projector", "conv6", "classifier"}
    for key, value in teacher.items():
        if key.startswith(("T.body.conv6", "T.body.classifier")):
            assert torch.equal(state[key.replace("T.", "S1.", 1)], value), key
    labels = len(json.loads((classes_data / "prepared/dataset.json").read_text())["labels"])
    method = make("simkd", CLASSES_STUDY, SETTINGS, 7, None, "classification", labels, 32).eval()
    network = method.networks["S1"]
    network.load_state_dict({key.removeprefix("S1."): value for key, value in state.items()})
    ids, stacks = predictions.read(tmp_path / "run/predictions.parquet")
    index = pd.read_parquet(classes_data / "prepared/index.parquet").id.tolist()
    pixels = np.load(classes_data / "prepared/images.npy")[[index.index(name) for name in ids]]
    with torch.no_grad():
        found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).probabilities.numpy()
    np.testing.assert_allclose(found, stacks["S1"], atol=1e-5)
    assert set(stacks) == {"T", "S1", "truth"}


def test_the_teacher_of_a_comparison_is_the_studys_own(classes_data: Path) -> None:
    saved = load_file(classes_data / "teacher.safetensors")
    for name in ("at", "simkd"):
        raw = copy.deepcopy(SETTINGS)
        labels = len(json.loads((classes_data / "prepared/dataset.json").read_text())["labels"])
        method = make(name, CLASSES_STUDY, raw, 0, classes_data / "teacher.safetensors", "classification", labels, 32)
        state = method.networks["T"].state_dict()
        assert all(torch.equal(state[key.removeprefix("T.")], value) for key, value in saved.items())
        assert FEATURE_TAP["classification"] in method.networks["T"].shapes(32)
    with pytest.raises(TrainingError, match="Train the study's teacher first"):
        make("at", CLASSES_STUDY, SETTINGS, 0, classes_data / "none.safetensors", "classification", labels, 32)


# --- 9. golden values ---

GOLDEN: dict[str, dict[str, float]] = {
    "classification/fitnet": {"feature": 0.8436239},
    "classification/srrl": {"feature": 0.4126752, "regression": 6.722096},
    "classification/at": {"attention": 0.07735483},
    "classification/sp": {"similarity": 0.002168834},
    "classification/vid": {"information": 5.741195},
    "classification/simkd": {"feature": 0.7080194},
    "classification/semckd": {"feature": 1.068020},
    "segmentation/fitnet": {"feature": 1.968267, "prediction": 0.6125845},
    "segmentation/at": {"attention": 0.01851571, "prediction": 0.6125845},
    "segmentation/skd": {"prediction": 0.6125845, "pair": 0.004472779},
    "segmentation/ifvd": {"prediction": 0.6125845, "variation": 0.009026382},
    "segmentation/cwd": {"logits": 1.018810, "feature": 0.3546245},
    "segmentation/dsd": {"pixel": 0.007179439, "category": 0.005192367},
    "segmentation/emkd": {"prediction": 0.9608985, "importance": 1.621387, "affinity": 0.0007019140},
}
"""Losses of inputs and extra modules from numpy's frozen generator: what they were when every test above passed."""


@each
def test_losses_are_on_the_scale_they_were(task: str, name: str) -> None:
    """A factor that slips into a loss changes what every weight means, in this project and against its papers."""
    method = made(task, name, adversarial=False) if name in WITH_ADVERSARY else made(task, name)
    extras = [(key, p) for key, p in method.named_parameters() if not key.startswith("networks.")]
    if name == "srrl":
        head = method.networks["T"].body
        extras += [*head.conv6.named_parameters(), *head.classifier.named_parameters()]
    with torch.no_grad():
        for number, (_, parameter) in enumerate(extras):
            parameter.copy_(0.5 * random_values(*parameter.shape, seed=1000 + number))
    student, teacher = output(task, method, "S1", 200), output(task, method, "T", 300)
    if name == "dsd":  # of sure networks: its term of categories is nothing otherwise
        student, teacher = (one._replace(logits=25 * one.logits) for one in (student, teacher))
    found = distances(task, method, student, teacher)
    assert found == {key: pytest.approx(value, rel=1e-4) for key, value in GOLDEN[f"{task}/{name}"].items()}
