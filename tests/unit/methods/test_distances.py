"""The losses of the twelve published methods of Table 10: as torchdistill has them where it does, else derived again in
float64 (oracles.py); each by hand; and what must be so whatever the input."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchdistill.losses import mid_level
from torchdistill.losses.mid_level import ATLoss, KDLoss, SPKDLoss, VIDLoss
from torchdistill.models.wrapper import Regressor4VID

from classroom.core.losses import task_loss
from classroom.core.networks.build import Output
from classroom.errors import TrainingError
from classroom.methods import registry
from classroom.methods.shared.comparison import Comparison
from classroom.methods.shared.tensors import same_size, softened_divergence, two_channels
from support import oracles
from support.comparisons import (
    BATCH,
    BLOCK,
    CLASSES,
    SETTINGS,
    STAGES,
    STUDY_OF,
    WIDER_TEACHER,
    WITH_ADVERSARY,
    answering,
    batch_of,
    distances,
    each,
    made,
    masks,
    output,
    outputs,
    random_values,
    shared,
    with_feature,
    without_learning,
)
from support.studies import CLASSES_STUDY

CLS, SEG = "classification", "segmentation"
SEEDS = st.integers(0, 2**31)
LN3 = math.log(3)  # the sigmoid of ln 3 is 3/4
KL_BY_HAND = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of (3/4, 1/4) and (1/2, 1/2)


def near(value: float, rel: float = 1e-4) -> Any:
    return pytest.approx(value, rel=rel)


def of_both(student: Output, teacher: Output, *taps: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Both features at every tap, in float64."""
    return [(student.features[tap].double(), teacher.features[tap].double()) for tap in taps]


def with_one_feature(student: torch.Tensor, teacher: torch.Tensor, *taps: str) -> list[Output]:
    return [with_feature(student, *taps), with_feature(teacher, *taps)]


# torchdistill, an independent implementation


def hooked(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """As torchdistill's hooks collect them."""
    return {tap: {"output": value} for tap, value in values.items()}


def pairs_of(*taps: str) -> dict[str, Any]:
    return {tap: {side: {"io": "output", "path": tap} for side in ("student", "teacher")} for tap in taps}


def their_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    """T² · KL of rows (B, classes), mean over the batch."""
    loss = KDLoss("z", "output", "z", "output", temperature=temperature, beta=1)
    return temperature**2 * loss(hooked({"z": student.double()}), hooked({"z": teacher.double()})).item()


def rows(maps: torch.Tensor) -> torch.Tensor:
    """Every channel of every image as a row of its positions."""
    return maps.flatten(2).flatten(0, 1)


def test_attention_transfer_agrees_with_torchdistill() -> None:
    """As the authors' code has it: their Eq. 2, the norm of the difference, would make the weights wrong by far."""
    method = shared(CLS, "at")
    student, teacher = outputs(CLS, method)
    expected = ATLoss(pairs_of(*STAGES), mode="code")(hooked(student.features), hooked(teacher.features)).item()
    assert distances(method, student, teacher) == {"attention": near(expected)}


def test_similarity_preserving_agrees_with_torchdistill(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the length of the rows, which are theirs by the sum of the elements: `normalize(gram, 1)` takes the 1 for
    the norm's power, where the paper and its authors' code have the Euclidean norm."""
    method = shared(CLS, "sp")
    student, teacher = outputs(CLS, method)
    monkeypatch.setattr(mid_level, "normalize", lambda gram, power: F.normalize(gram, 2.0, dim=1))
    expected = SPKDLoss("layer4", "layer4", "batchmean")(hooked(student.features), hooked(teacher.features)).item()
    assert distances(method, student, teacher) == {"similarity": near(expected)}


def test_variational_information_agrees_with_torchdistill() -> None:
    """Their regressor too, which holds one variance per channel as we do."""
    method = made(CLS, "vid")
    student, teacher = outputs(CLS, method)
    predicted = {}
    for number, (mean, raw, tap) in enumerate(zip(method.means, method.raw_variances, STAGES, strict=True)):
        ours, theirs = method.channels(tap)
        regressor = Regressor4VID(ours, theirs, theirs, eps=1e-5, init_pred_var=5.0)
        torch.testing.assert_close(regressor.soft_plus_param.float(), raw.flatten())
        with torch.no_grad():  # variances that differ by channel
            raw += random_values(1, theirs, 1, 1, seed=number)
        regressor.soft_plus_param = nn.Parameter(raw.flatten())
        regressor.regressor.load_state_dict(mean.state_dict())
        predicted[tap] = regressor(student.features[tap])
    expected = VIDLoss(pairs_of(*predicted))(hooked(predicted), hooked(teacher.features)).item()
    assert distances(method, student, teacher) == {"information": near(expected)}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_distillation_agrees_with_torchdistill(temperature: float) -> None:
    """Divided by images and channels: a mean over all elements would be 65536 times too small."""
    method = shared(SEG, "cwd", temperature=temperature)
    student, teacher = outputs(SEG, method)
    logits = [rows(oracles.two_channels(one.logits)) for one in (student, teacher)]
    features = [rows(one.features[BLOCK]) for one in (student, teacher)]
    assert distances(method, student, teacher) == {
        "logits": near(their_divergence(*logits, temperature)),
        "feature": near(their_divergence(*features, temperature)),
    }


@pytest.mark.parametrize(
    ("name", "options", "temperature"),
    [
        ("fitnet", {}, 1), ("at", {}, 1), ("skd", {}, 1), ("skd", {"temperature": 2.0}, 2), ("ifvd", {}, 1),
        ("emkd", {}, 4),
    ],
)  # fmt: skip
def test_the_prediction_loss_of_masks_agrees_with_torchdistill(name: str, options: dict, temperature: float) -> None:
    """Their softmax over two channels a pixel is our one logit."""
    method = shared(SEG, name, **options)
    student, teacher = outputs(SEG, method)
    pixels = [F.pad(one.logits.reshape(-1, 1), (1, 0)) for one in (student, teacher)]
    expected = their_divergence(*pixels, temperature)
    assert distances(method, student, teacher)["prediction"] == near(expected)


def test_convention_b_adds_the_prediction_loss_of_torchdistill() -> None:
    """T² KL(teacher ‖ student) of weight 1 at T = 4, mean over the batch; convention A has none of it."""
    for name in ("at", "sp", "vid", "srrl", "fitnet", "semckd"):
        terms = {}
        for convention in ("A", "B"):
            method = shared(CLS, name, convention=convention)
            student, teacher = outputs(CLS, method)
            with answering(method, student, teacher):
                terms[convention] = {term.name: term for term in method.losses(*batch_of(CLS))}
        assert terms["B"].keys() - terms["A"].keys() == {"prediction"}, name
        assert terms["B"]["prediction"].weight == 1, name
        expected = their_divergence(student.logits, teacher.logits, 4)
        assert terms["B"]["prediction"].value.item() == near(expected), name


def test_the_reference_convention_is_the_methods_own() -> None:
    conventions = {name: getattr(kind(), "convention", None) for name, kind in registry.published(CLS).items()}
    assert conventions == {"fitnet": "A", "srrl": "A", "at": "A", "sp": "A", "vid": "A", "simkd": None, "semckd": "B"}


# What no other library has: derived again in float64


def test_fitnet_is_the_mean_square_behind_its_regressor() -> None:
    method = shared(CLS, "fitnet")
    student, teacher = outputs(CLS, method)
    ((own, other),) = of_both(student, teacher, "layer2")
    expected = oracles.mean_square(oracles.block(own, method.regressor), other)
    assert distances(method, student, teacher) == {"feature": near(expected)}


@pytest.mark.parametrize(
    ("ours", "theirs", "stride", "padding", "kernel"),
    [(4, 4, 1, 0, 1), (8, 4, 2, 1, 3), (4, 8, 2, 1, 4), (7, 4, 1, 0, 4), (6, 5, 1, 0, 2)],
)
def test_fitnets_regressor_follows_from_the_sizes(
    ours: int, theirs: int, stride: int, padding: int, kernel: int
) -> None:
    """Equal 1×1; twice 3×3 of stride 2; half 4×4 transposed; otherwise as much kernel as there is to lose."""
    method = fitnet_of(ours, theirs)
    convolution, _, *rest = method.regressor
    assert tuple(convolution.weight.shape[2:]) == (kernel, kernel)
    assert [type(layer) for layer in rest] == [nn.ReLU]
    student, teacher = random_values(2, 3, ours, ours), random_values(2, 5, theirs, theirs, seed=1)
    function = F.conv_transpose2d if ours < theirs else F.conv2d
    maps = function(student, convolution.weight, convolution.bias, stride=stride, padding=padding)
    expected = oracles.mean_square(F.relu(F.batch_norm(maps, None, None, training=True)), teacher)
    assert distances(method, *with_one_feature(student, teacher, "layer2"))["feature"] == near(expected)


def fitnet_of(student_side: int, teacher_side: int) -> Comparison:
    """Of maps of any size."""
    method = made(CLS, "fitnet")
    method.student_shapes = {"layer2": (3, student_side, student_side)}
    method.teacher_shapes = {"layer2": (5, teacher_side, teacher_side)}
    method.regressor = method.options.extras(method)["regressor"]
    return method


def test_fitnet_refuses_a_student_whose_map_is_too_small() -> None:
    with pytest.raises(TrainingError, match="3×3 cannot be mapped to the teacher's 5×5"):
        fitnet_of(3, 5)


def test_fitnet_of_masks_has_a_bare_convolution() -> None:
    """Batch normalisation and ReLU, as in classification, would be another baseline than CIRKD's."""
    method = made(SEG, "fitnet", WIDER_TEACHER, tap="layer2")
    student, teacher = outputs(SEG, method)
    assert isinstance(method.regressor, nn.Conv2d)
    ((own, other),) = of_both(student, teacher, "layer2")
    assert own.shape[1] < other.shape[1]
    expected = oracles.mean_square(F.conv2d(own, method.regressor.weight.double()), other)
    found = distances(method, student, teacher)
    assert found == {"feature": near(expected), "prediction": found["prediction"]}


def test_simkd_is_the_mean_square_of_projected_and_teachers_map() -> None:
    method = shared(CLS, "simkd")
    student, teacher = outputs(CLS, method)
    expected = oracles.mean_square(student.features["layer4"], teacher.features["layer4"])
    assert distances(method, student, teacher) == {"feature": near(expected)}


def test_simkds_projector_is_a_bottleneck_of_three_blocks() -> None:
    """1×1, 3×3 at a part of the width, 1×1, each normalised and rectified: nothing that follows would show it."""
    projector = shared(CLS, "simkd", reduction=4).networks["S1"].body.last
    maps = random_values(3, 8, 3, 3)
    expected = maps.double()
    for block in projector:
        expected = oracles.block(expected, block)
    torch.testing.assert_close(projector(maps).double(), expected, rtol=1e-3, atol=1e-5)
    assert [tuple(block[0].weight.shape) for block in projector] == [(3, 8, 1, 1), (3, 3, 3, 3), (12, 3, 1, 1)]


def test_srrl_compares_pooled_features_and_what_the_teachers_head_makes_of_them() -> None:
    """A mean square on the logits, where a divergence would be another method; connector before pooling."""
    method = shared(CLS, "srrl")
    student, teacher = outputs(CLS, method)
    ((own, other),) = of_both(student, teacher, "layer4")
    connected = oracles.block(own, method.connector)
    head = copy.deepcopy(method.networks["T"].body).double()
    logits = head.classifier(head.conv6(connected).mean(dim=(2, 3)))
    assert distances(method, student, teacher) == {
        "feature": near(oracles.mean_square(connected.mean(dim=(2, 3)), other.mean(dim=(2, 3)))),
        "regression": near(oracles.mean_square(logits, teacher.logits.double())),
    }


def test_semckd_weighs_all_pairs_of_layers_by_attention() -> None:
    method = shared(CLS, "semckd", mid_ratio=0.5)
    student, teacher = outputs(CLS, method)

    def embed(side: str, layer: int, row: torch.Tensor) -> torch.Tensor:
        first, _, second = (method.queries if side == "student" else method.keys)[layer]
        hidden = F.relu(F.linear(row, first.weight.double(), first.bias.double()))
        return F.linear(hidden, second.weight.double(), second.bias.double())

    def regress(i: int, j: int, maps: torch.Tensor) -> torch.Tensor:
        narrow, middle, last = method.regressors[i][j]
        return F.conv2d(oracles.block(oracles.block(maps, narrow), middle), last.weight.double())

    with torch.no_grad():
        features = zip(*of_both(student, teacher, *STAGES), strict=True)
        expected, alpha = oracles.semantic_calibration(*features, embed, regress)
        torch.testing.assert_close(
            method.options.attention(method, student, teacher).double(), alpha, rtol=0, atol=1e-4
        )
    assert alpha.max() - alpha.min() > 0.05, "the inputs do not tell one layer from another"
    assert distances(method, student, teacher) == {"feature": near(expected)}


def test_a_lower_sharpness_makes_attention_choose() -> None:
    """It divides the logits of the attention: as a factor it would do the reverse."""
    soft, sharp = shared(CLS, "semckd"), shared(CLS, "semckd", sharpness=0.1)
    student, teacher = outputs(CLS, soft)
    chosen, spread = (method.options.attention(method, student, teacher) for method in (sharp, soft))
    assert chosen.max() > spread.max() + 0.05


@pytest.mark.parametrize("pool", [1, 3])
def test_skd_compares_pairs_of_pixels(pool: int) -> None:
    """Three does not divide four: the rest at the edge has a window of its own."""
    student, teacher = random_values(2, 3, 4, 4), random_values(2, 5, 4, 4, seed=1)
    found = distances(shared(SEG, "skd", pool=pool), *with_one_feature(student, teacher, BLOCK))
    assert found == {"prediction": 0, "pair": near(oracles.pair_wise(student.double(), teacher.double(), pool))}


def test_ifvd_compares_cosines_with_the_means_of_the_classes() -> None:
    """Per image, of the ground truth at the size of the features; two images have one class only."""
    student, teacher = random_values(4, 3, 4, 4).abs(), random_values(4, 5, 4, 4, seed=1).abs()
    expected = oracles.intra_class_variation(student.double(), teacher.double(), masks(4).double())
    found = distances(shared(SEG, "ifvd"), *with_one_feature(student, teacher, BLOCK))
    assert found == {"prediction": 0, "variation": near(expected)}


def test_cwd_widens_the_student_where_channels_differ() -> None:
    """Behind a convolution, batch normalisation and ReLU, as the authors have it; where they agree, behind nothing."""
    method = made(SEG, "cwd", WIDER_TEACHER, tap="layer2")
    narrow, wide = method.channels("layer2")
    assert narrow < wide
    student, teacher = outputs(SEG, method)
    ((own, other),) = of_both(student, teacher, "layer2")
    expected = their_divergence(rows(oracles.block(own, method.adapter)), rows(other), 4)
    assert distances(method, student, teacher)["feature"] == near(expected, 1e-3)
    assert method.extra_parameters == narrow * wide + 2 * wide
    assert shared(SEG, "cwd").extra_parameters == 0


def test_dsd_compares_residual_attention_and_categories() -> None:
    method = shared(SEG, "dsd")
    student, teacher = outputs(SEG, method)
    # Logits as of a sure network: with others the categories' term is so small that rounding is all there is.
    student, teacher = (one._replace(logits=25 * one.logits) for one in (student, teacher))
    features = zip(*of_both(student, teacher, *(f"decoder.blocks.{number}" for number in range(3))), strict=True)
    category = oracles.category_similarity(student.logits.double(), teacher.logits.double(), 32, 4)
    assert distances(method, student, teacher) == {
        "pixel": near(oracles.pixel_similarity(*features, (16, 16))),
        "category": near(category, 1e-3),
    }


@pytest.mark.parametrize("teacher_side", [4, 7])
def test_emkd_compares_importance_and_regions_at_the_teachers_size(teacher_side: int) -> None:
    student = random_values(BATCH, 3, 4, 4).abs()
    teacher = random_values(BATCH, 5, teacher_side, teacher_side, seed=1).abs()
    found = distances(shared(SEG, "emkd"), *with_one_feature(student, teacher, "stem", "layer2"))
    student, teacher = student.double(), teacher.double()
    assert found == {
        "prediction": 0,
        "importance": near(2 * oracles.importance(student, teacher, 4)),
        "affinity": near(2 * oracles.region_affinity(student, teacher, masks().double()), 1e-3),
    }


def test_the_larger_map_is_pooled_to_the_smaller_by_its_mean() -> None:
    large, small = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)
    pooled = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    assert torch.equal(same_size(large, small)[0], pooled)
    assert torch.equal(same_size(small, large)[1], pooled)
    assert same_size(large, small)[1] is small
    assert same_size(large[:, :, :3], large)[1].shape == (1, 1, 3, 4), "one side is enough"


def test_maps_that_cannot_be_pooled_to_each_other_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"4×8 and 8×4 cannot be matched.*Choose another tap"):
        same_size(torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 8, 4))


@each
def test_the_total_is_the_task_and_every_distance_times_its_weight(task: str, name: str) -> None:
    """Weights that differ by term, so that one in a wrong place shows."""
    raw = copy.deepcopy(SETTINGS)
    weights = {term: 0.3 + 0.5 * place for place, term in enumerate(registry.published(task)[name].weights)}
    raw["study"][STUDY_OF[task]]["methods"][name]["weights"] = weights
    method = made(task, name, raw, **({"adversarial": False} if name in WITH_ADVERSARY else {}))
    student, teacher = outputs(task, method)
    images, targets = batch_of(task)
    with answering(method, student, teacher):
        terms = method.losses(images, targets)
    expected = distances(method, student, teacher)
    assert expected.keys() == weights.keys() - {"adversarial"}
    expected = {term: weights[term] * value for term, value in expected.items()}
    if name != "simkd":  # no label enters its training
        expected["task"] = task_loss(student.logits, targets, method.task_settings).item()
    if name == "semckd":  # convention B is its own
        expected["prediction"] = softened_divergence(student.logits, teacher.logits, 4).item()
    assert {term.name: term.weight * term.value.item() for term in terms} == {k: near(v) for k, v in expected.items()}
    assert len(terms) == len(expected)
    assert {term.network for term in terms} == {"S1"}


# By hand


def test_feature_losses_by_hand() -> None:
    """Differences 0, 2, 0, −4: (4 + 16) / 4."""
    student, teacher = torch.tensor([[[[1.0, 2], [3, 4]]]]), torch.tensor([[[[1.0, 0], [3, 8]]]])
    fitnet, simkd = shared(CLS, "fitnet"), shared(CLS, "simkd")
    with without_learning(fitnet):
        assert distances(fitnet, *with_one_feature(student, teacher, "layer2")) == {"feature": 5}
    assert distances(simkd, with_feature(student, "layer4"), with_feature(teacher, "layer4")) == {"feature": 5}


def test_attention_by_hand() -> None:
    """(1, 1)/√2 and (1, 0): the squares of the differences sum to 2 − √2, over two positions."""
    maps = torch.tensor([[[[3.0, -3.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    assert distances(shared(SEG, "at"), *with_one_feature(*maps, BLOCK))["attention"] == near(0.2928932)
    found = distances(shared(SEG, "emkd"), *with_one_feature(*maps, "stem", "layer2"))
    assert found["importance"] == near(2 * 0.5857864), "the sum over positions, of both taps"


def test_the_power_of_attention_by_hand() -> None:
    """|−1|³ and |2|³ are (1, 8)/√65; (1, 0) is that far from it: 2 − 2/√65, over two positions."""
    method = shared(SEG, "at", power=3.0)
    maps = torch.tensor([[[[-1.0, 2.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    assert distances(method, *with_one_feature(*maps, BLOCK))["attention"] == near(1 - 1 / math.sqrt(65))


def test_similarities_by_hand() -> None:
    """Four images all alike for the student, all unlike for the teacher: each row differs by 2 − 2/√4 = 1, of 4²."""
    maps = torch.ones(4, 1, 1, 4), torch.eye(4).view(4, 1, 1, 4)
    assert distances(shared(CLS, "sp"), *with_one_feature(*maps, "layer4")) == {"similarity": near(4 / 16)}


def test_information_by_hand() -> None:
    """Every tap: ½ (error² / 5 + ln 5) with errors of 0 and 2; 3.2189 of four taps is where perfect means begin."""
    method = shared(CLS, "vid")
    teacher = output(CLS, method, "T")
    for error, expected in ((0.0, 3.2188758), (2.0, 3.2188758 + 4 * 0.4)):
        student = teacher._replace(features={tap: feature + error for tap, feature in teacher.features.items()})
        with without_learning(method):
            assert distances(method, student, teacher) == {"information": near(expected, 1e-6)}


def test_srrl_by_hand() -> None:
    """Pooled (2, 0) against (1, 2): (1 + 4)/2. A head that sums gives 2 where the teacher said 5: 9."""
    raw = copy.deepcopy(SETTINGS)
    raw["study"][CLASSES_STUDY]["teacher"]["conv6_channels"] = None
    method = made(CLS, "srrl", raw)
    method.networks["T"].body.classifier = head = nn.Linear(2, 1, bias=False)
    nn.init.ones_(head.weight)
    student = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 1.0]], [[0.0, 4.0]]]])
    teacher = with_feature(teacher, "layer4", logits=torch.tensor([[5.0]]))
    with without_learning(method):
        assert distances(method, with_feature(student, "layer4"), teacher) == {"feature": 2.5, "regression": 9.0}


def test_semantic_calibration_by_hand() -> None:
    """Equal attention ¼; student maps all 1, teacher maps 0, 1, 2, 3: ¼ (1 + 0 + 1 + 4), the mean of four layers."""
    method = made(CLS, "semckd")
    for embedding in (*method.queries, *method.keys):
        for parameter in embedding.parameters():
            nn.init.ones_(parameter)  # every layer alike, whatever it says
    logits = torch.zeros(BATCH, CLASSES)
    student = {tap: torch.ones(BATCH, 1, 2, 2) for tap in STAGES}
    teacher = {tap: torch.full((BATCH, 1, 2, 2), float(place)) for place, tap in enumerate(STAGES)}
    with without_learning(method):
        found = distances(method, Output(logits, student, logits), Output(logits, teacher, logits))
    assert found == {"feature": near(1.5)}


def test_pairs_by_hand() -> None:
    """Pixels that point one way for the student, at right angles for the teacher: two of four cosines differ by 1."""
    student = torch.tensor([[1.0, 5.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 7.0]]).view(1, 2, 1, 2)
    assert distances(shared(SEG, "skd", pool=1), *with_one_feature(student, teacher, BLOCK))["pair"] == near(0.5)


def test_variation_by_hand() -> None:
    """Lesion pixels (1, 0) and (0, 1) have cosine 1/√2 with their mean, two alike have 1; the background agrees."""
    student = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])[None]
    teacher = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])[None]
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    found = distances(shared(SEG, "ifvd"), *with_one_feature(student, teacher, BLOCK), mask)
    assert found["variation"] == near(2 * (1 - 1 / math.sqrt(2)) ** 2 / 4)


def test_channels_by_hand() -> None:
    """At T = 4, ½ · 8 ln 3 makes one of two positions three times as likely, in the other channel a third as likely."""
    flat, peaked = torch.zeros(1, 1, 1, 2), torch.tensor([[[[8 * LN3, 0.0]]]])
    student, teacher = with_feature(flat, BLOCK, logits=flat), with_feature(peaked / 2, BLOCK, logits=peaked)
    expected = near(16 * KL_BY_HAND)
    assert distances(shared(SEG, "cwd"), student, teacher) == {"logits": expected, "feature": expected}


def test_residual_attention_by_hand() -> None:
    """Student (1, 0) → (0, 1), teacher the other way: residuals (−1, 1)/√2 and (1, −1)/√2 differ by √2 everywhere."""
    method = shared(SEG, "dsd", taps=("decoder.blocks.0", "decoder.blocks.1"), category_size=2)
    left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    logits = torch.tensor([[[[8 * LN3, 0.0], [0.0, 0.0]]]])
    student = Output(torch.zeros_like(logits), {"decoder.blocks.0": left, "decoder.blocks.1": right}, left)
    teacher = Output(logits, {"decoder.blocks.0": right, "decoder.blocks.1": left}, left)
    # Positions (3, 1, 1, 1)/6 and (1, 3, 3, 3)/10 against ¼ each: products 1/3, 0.28 and 0.2, where ¼ is expected.
    category = ((1 / 3 - 1 / 4) ** 2 + 0.03**2 + 2 * 0.05**2) / 4
    assert distances(method, student, teacher) == {"pixel": near(2), "category": near(category)}


def test_regions_by_hand() -> None:
    """Lesion and background point one way for the student, at right angles for the teacher, at both taps."""
    student = torch.tensor([[1.0, 4.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    mask = torch.tensor([[[[1.0, 0.0]]]])
    found = distances(shared(SEG, "emkd"), *with_one_feature(student, teacher, "stem", "layer2"), mask)
    assert found["affinity"] == near(2)


def test_the_softened_divergence_by_hand() -> None:
    """Of two images one agrees: half of 16 · KL. A mean over classes too would be half of that again."""
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[4 * LN3, 0.0], [1.0, 2.0]])
    assert softened_divergence(student, teacher, 4).item() == near(8 * KL_BY_HAND)


def test_two_channels_are_the_softmaxs_form_of_the_sigmoid() -> None:
    logits = torch.tensor([[[[LN3, -2.0, 0.0]]]])
    found = torch.softmax(two_channels(logits), dim=1)
    torch.testing.assert_close(found, torch.cat([1 - torch.sigmoid(logits), torch.sigmoid(logits)], dim=1))
    assert torch.equal(two_channels(logits), torch.cat([-logits / 2, logits / 2], dim=1)), "a constant channel"
    with pytest.raises(TrainingError, match="one logit per pixel, not 2"):
        two_channels(torch.zeros(1, 2, 4, 4))


# Whatever the input


@given(SEEDS, st.floats(0.05, 20), st.sampled_from([("at", "attention"), ("emkd", "importance")]))
def test_attention_ignores_scale_and_the_order_of_channels(number: int, factor: float, which: tuple[str, str]) -> None:
    name, term = which
    method = shared(SEG, name)
    student, teacher = outputs(SEG, method, number, batch=2)
    changed = student._replace(features={tap: factor * maps.flip(1) for tap, maps in student.features.items()})
    before, after = (distances(method, one, teacher)[term] for one in (student, changed))
    assert after == near(before)


@given(SEEDS, st.floats(0.05, 20))
def test_similarity_ignores_rotation_scale_and_the_order_of_images(number: int, factor: float) -> None:
    """And notices if the order of one side's images alone changes."""
    method = shared(CLS, "sp")
    student, teacher = outputs(CLS, method, number)
    feature = student.features["layer4"]
    rotation = torch.linalg.qr(random_values(feature[0].numel(), feature[0].numel(), seed=number))[0]
    turned = factor * (feature.flatten(1) @ rotation).view_as(feature)
    before = distances(method, student, teacher)["similarity"]
    both = (turned.flip(0), teacher.features["layer4"].flip(0))
    assert distances(method, *with_one_feature(*both, "layer4"))["similarity"] == near(before, 1e-3)
    rolled = [student._replace(features={"layer4": feature.roll(by, 0)}) for by in (1, 2, 3)]  # one may be alike
    assert any(distances(method, one, teacher)["similarity"] != near(before, 1e-3) for one in rolled)


@given(SEEDS)
def test_channel_wise_divergence_ignores_a_constant_of_every_channel(number: int) -> None:
    """And notices one that differs by position."""
    method = shared(SEG, "cwd")
    student, teacher = outputs(SEG, method, number, batch=2)
    feature = student.features[BLOCK]
    moved = student._replace(
        logits=student.logits + 3 * random_values(2, 1, 1, 1, seed=number),
        features={BLOCK: feature + 3 * random_values(*feature.shape[:2], 1, 1, seed=number)},
    )
    before, after = (distances(method, one, teacher) for one in (student, moved))
    assert after == {key: near(value, 1e-3) for key, value in before.items()}
    tilted = moved._replace(features={BLOCK: feature + torch.arange(4.0)})
    assert distances(method, tilted, teacher)["feature"] != near(before["feature"], 1e-3)


@given(SEEDS)
def test_pairs_ignore_the_length_of_a_pixels_feature(number: int) -> None:
    """Of a pooled pixel: all that falls into its window gets the same factor."""
    method = shared(SEG, "skd", pool=2)
    student, teacher = outputs(SEG, method, number, batch=2)
    factors = random_values(2, 1, 2, 2, seed=number).exp().repeat_interleave(2, 2).repeat_interleave(2, 3)
    longer = student._replace(features={BLOCK: student.features[BLOCK] * factors})
    before, after = (distances(method, one, teacher)["pair"] for one in (student, longer))
    assert after == near(before, 1e-3)


@given(SEEDS, st.floats(0.01, 100))
def test_distances_stay_within_their_bounds(number: int, scale: float) -> None:
    """Attention on different pixels is as far apart as it can be: 2 as a sum, 2 / (H·W) as a mean."""
    for task, name, term, most in (
        (CLS, "at", "attention", sum(2 / side**2 for side in (8, 6, 4, 3))),
        (CLS, "sp", "similarity", 2 / BATCH),
        (SEG, "emkd", "importance", 2 * 2),
        (SEG, "emkd", "affinity", 2 * 4),
        (SEG, "ifvd", "variation", 4),
        (SEG, "skd", "pair", 4),
    ):
        method = shared(task, name)
        found = distances(method, *outputs(task, method, number, scale=scale))[term]
        assert 0 < found <= most, name


@each
def test_a_student_equal_to_the_teacher_is_told_nothing(task: str, name: str) -> None:
    """Zero, but for VID's ½ log 5 per tap: a penalty for a perfect student would pull it away."""
    method = shared(task, name)
    student = teacher = output(task, method, "T")
    if name == "semckd":  # no layer can equal all of the teacher's four, unless they are alike
        student = teacher = with_feature(random_values(BATCH, 2, 3, 3), *STAGES)
    if name == "simkd":
        student = teacher._replace(features={"layer4": teacher.features["layer4"]})
    if name == "srrl":  # its logits are what its own head says
        teacher = teacher._replace(logits=method.networks["T"].body.head(teacher.features["layer4"]))
    expected = pytest.approx(4 * 0.5 * math.log(5) if name == "vid" else 0, abs=1e-6)
    with without_learning(method):
        found = distances(method, student, teacher)
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize(("name", "term"), [("ifvd", "variation"), ("emkd", "affinity")])
@pytest.mark.parametrize("kind", ["no lesion", "no background", "lesion lost at the features' size"])
def test_masks_of_one_class_are_no_division_by_nothing(name: str, term: str, kind: str) -> None:
    """Healthy slices are common; without background, the reference code of EMKD gives NaN."""
    method = shared(SEG, name)
    student, teacher = outputs(SEG, method, batch=2)
    leaves = {tap: feature.clone().requires_grad_() for tap, feature in student.features.items()}
    mask = torch.full((2, 1, 64, 64), float(kind == "no background"))
    if kind.startswith("lesion"):
        mask[:, :, 1, 1] = 1
    found = method.distances(student._replace(features=leaves), teacher, mask)[term]
    found.backward()
    gradients = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    if name == "emkd":
        assert found.item() == 0
    else:  # one class: every pixel against the mean of the whole image
        features = of_both(student, teacher, BLOCK)[0]
        assert found.item() == near(oracles.intra_class_variation(*features, mask.double()))


def test_a_batch_of_one_image_has_finite_distances() -> None:
    for name in registry.published(SEG):
        method = shared(SEG, name)
        found = distances(method, *outputs(SEG, method, batch=1), masks(3)[2:])
        assert all(map(math.isfinite, found.values())), f"{name}: {found}"


@each
def test_distances_are_computed_in_float32_whatever_the_networks_precision(task: str, name: str) -> None:
    """Gram matrices and fourth powers of half precision overflow, or keep two digits."""
    options = {"adversarial": True} if name in WITH_ADVERSARY else {}
    method = made(task, name, **options).eval()  # in eval, a spectral norm does not move between two calls
    student, teacher = outputs(task, method, scale=50)

    def rounded(one: Output, kind: torch.dtype) -> Output:
        features = {tap: feature.bfloat16().to(kind) for tap, feature in one.features.items()}
        return Output(one.logits.bfloat16().to(kind), features, one.shared.bfloat16().to(kind))

    exact = distances(method, rounded(student, torch.float32), rounded(teacher, torch.float32))
    said = [rounded(one, torch.bfloat16) for one in (student, teacher)]
    with answering(method, *said), torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(*batch_of(task))
    assert all(term.value.dtype == torch.float32 for term in terms)
    assert all(torch.isfinite(term.value) for term in terms)
    found = {term.name: term.value.item() for term in terms if term.name in exact}
    assert found == {key: near(value, 1e-5) for key, value in exact.items()}
