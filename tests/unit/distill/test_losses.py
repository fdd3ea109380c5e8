"""The losses against slow float64 derivations from the paper's formulas, other libraries and hand-computed values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torchvision.ops import sigmoid_focal_loss

from classroom.distill.losses import dice_loss, feature_loss, focal_loss, prediction_loss, task_loss
from classroom.errors import TrainingError
from classroom.params import PredictionLoss, TaskLoss

SHAPE = (2, 1, 3, 4)
LOGITS = arrays(np.float32, SHAPE, elements=st.floats(-12, 12, width=32))
MASKS = arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 1.0]))
MANY = settings(max_examples=60, deadline=None)
CLASS_LOGITS = arrays(np.float32, (4, 5), elements=st.floats(-12, 12, width=32))
DIRECTIONS = ("student||target", "target||student")

LN3 = math.log(3)  # the sigmoid of ln 3 is 3/4


def task_settings(gamma: float = 2.0, form: str = "binary") -> TaskLoss:
    return TaskLoss(focal_gamma=gamma, focal_form=form)


def prediction_settings(
    temperature: float = 2.0, direction: str = "student||target", squared: bool = False
) -> PredictionLoss:
    return PredictionLoss(temperature=temperature, direction=direction, multiply_by_squared_temperature=squared)


def maps(*values: float) -> torch.Tensor:
    """One image of one row of pixels."""
    return torch.tensor(values).view(1, 1, 1, -1)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def slow_focal(logits: np.ndarray, masks: np.ndarray, gamma: float, form: str) -> float:
    """First term of Eq. 8 pixel by pixel; the background's terms are Lin et al.'s, with 1 - g in place of g."""
    total = 0.0
    for logit, truth in zip(logits.ravel().tolist(), masks.ravel().tolist(), strict=True):
        g = sigmoid(logit)
        if truth == 1:
            total += -((1 - g) ** gamma) * math.log(g)
        elif form == "binary":
            total += -(g**gamma) * math.log(1 - g)
    return total / logits.size


def slow_dice(logits: np.ndarray, masks: np.ndarray) -> float:
    """Second term of Eq. 8."""
    overlap = squares = 0.0
    for logit, truth in zip(logits.ravel().tolist(), masks.ravel().tolist(), strict=True):
        g = sigmoid(logit)
        overlap += g * truth
        squares += g**2 + truth**2
    return 1 - 2 * overlap / squares


@MANY
@given(LOGITS, MASKS, st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.sampled_from(["binary", "printed"]))
def test_focal_loss_is_equation_8s_first_term(logits: Any, masks: Any, gamma: float, form: str) -> None:
    ours = focal_loss(torch.from_numpy(logits), torch.from_numpy(masks), task_settings(gamma, form)).item()
    assert ours == pytest.approx(slow_focal(logits, masks, gamma, form), rel=1e-4, abs=1e-6)


@MANY
@given(LOGITS, MASKS)
def test_dice_loss_is_equation_8s_second_term(logits: Any, masks: Any) -> None:
    ours = dice_loss(torch.from_numpy(logits), torch.from_numpy(masks)).item()
    assert ours == pytest.approx(slow_dice(logits, masks), rel=1e-4, abs=1e-5)


@MANY
@given(LOGITS, MASKS, st.sampled_from(["binary", "printed"]))
def test_task_loss_is_focal_plus_dice(logits: Any, masks: Any, form: str) -> None:
    ours = task_loss(torch.from_numpy(logits), torch.from_numpy(masks), task_settings(2.0, form)).item()
    expected = slow_focal(logits, masks, 2.0, form) + slow_dice(logits, masks)
    assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_focal_loss_by_hand() -> None:
    """Both pixels at probability 3/4: 1/16 * ln(4/3) in the foreground, 9/16 * ln 4 in the background."""
    logits, masks = maps(LN3, LN3), maps(1.0, 0.0)
    foreground, background = math.log(4 / 3) / 16, 9 / 16 * math.log(4)
    assert focal_loss(logits, masks, task_settings()).item() == pytest.approx((foreground + background) / 2)
    assert focal_loss(logits, masks, task_settings(form="printed")).item() == pytest.approx(foreground / 2)


def test_focal_loss_as_printed_has_no_background_terms() -> None:
    """A background pixel, however wrong, costs nothing in the sum as Eq. 8 prints it."""
    masks = maps(1.0, 0.0)
    printed = [focal_loss(maps(0.3, wrong), masks, task_settings(form="printed")).item() for wrong in (-9.0, 9.0)]
    binary = [focal_loss(maps(0.3, wrong), masks, task_settings()).item() for wrong in (-9.0, 9.0)]
    assert printed[0] == printed[1] > 0
    assert binary[1] > binary[0] + 1


@MANY
@given(LOGITS, MASKS, st.sampled_from([0.5, 2.0, 3.0]))
def test_focal_loss_agrees_with_torchvision(logits: Any, masks: Any, gamma: float) -> None:
    inputs = torch.from_numpy(logits), torch.from_numpy(masks)
    theirs = sigmoid_focal_loss(*(values.double() for values in inputs), alpha=-1, gamma=gamma, reduction="mean")
    assert focal_loss(*inputs, task_settings(gamma)).item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)


@MANY
@given(LOGITS, MASKS)
def test_focal_loss_without_focus_is_cross_entropy(logits: Any, masks: Any) -> None:
    inputs = torch.from_numpy(logits), torch.from_numpy(masks)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(*(values.double() for values in inputs))
    assert focal_loss(*inputs, task_settings(gamma=0)).item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


def test_dice_loss_squares_its_denominator() -> None:
    """Probabilities (3/4, 1/2) for truth (1, 0): 1 - 1.5/(9/16 + 1/4 + 1) = 5/29; unsquared it would be 1/3."""
    assert dice_loss(maps(LN3, 0.0), maps(1.0, 0.0)).item() == pytest.approx(5 / 29)


def test_dice_loss_pools_the_pixels_of_a_batch() -> None:
    """Averaged over images instead, an image without lesion would weigh as much as one that has one."""
    logits = torch.tensor([LN3, LN3, -LN3, -LN3]).view(2, 1, 1, 2)
    masks = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(2, 1, 1, 2)
    # overlap 2 * 3/4; squares 2 * 9/16 + 2 * 1/16 + 2 = 13/4
    assert dice_loss(logits, masks).item() == pytest.approx(1 - 3 / (13 / 4))


def test_a_perfect_segmentation_costs_nothing() -> None:
    masks = maps(1.0, 0.0, 1.0, 0.0)
    logits = 100 * (2 * masks - 1)
    assert dice_loss(logits, masks).item() == pytest.approx(0, abs=1e-6)
    assert task_loss(logits, masks, task_settings()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("logit", [-100.0, 0.0, 100.0])
def test_dice_loss_without_foreground_is_one(logit: float) -> None:
    """A batch of healthy slices must give a number, not 0/0."""
    assert dice_loss(torch.full(SHAPE, logit), torch.zeros(SHAPE)).item() == pytest.approx(1)


@MANY
@given(
    LOGITS, LOGITS, st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from(["student||target", "target||student"]),
    st.booleans(),
)  # fmt: skip
def test_prediction_loss_is_the_divergence_of_softened_predictions(
    student: Any, target: Any, temperature: float, direction: str, squared: bool
) -> None:
    p, q = (Bernoulli(logits=torch.from_numpy(logits).double() / temperature) for logits in (student, target))
    divergence = kl_divergence(p, q) if direction == "student||target" else kl_divergence(q, p)
    expected = divergence.mean().item() * (temperature**2 if squared else 1)
    ours = prediction_loss(
        torch.from_numpy(student), torch.from_numpy(target), prediction_settings(temperature, direction, squared)
    )
    assert ours.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("student||target", 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)),
        ("target||student", 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)),
    ],
)
def test_prediction_loss_by_hand(direction: str, expected: float) -> None:
    """At T = 2 a logit of 2 ln 3 softens to probability 3/4; the target's 0 to 1/2."""
    student, target = maps(2 * LN3), maps(0.0)
    plain = prediction_loss(student, target, prediction_settings(2, direction)).item()
    assert plain == pytest.approx(expected)
    assert prediction_loss(student, target, prediction_settings(2, direction, True)).item() == pytest.approx(4 * plain)


@MANY
@given(LOGITS, LOGITS, st.sampled_from(["student||target", "target||student"]))
def test_prediction_loss_is_never_negative_and_zero_for_equals(student: Any, target: Any, direction: str) -> None:
    ours = torch.from_numpy(student)
    assert prediction_loss(ours, torch.from_numpy(target), prediction_settings(direction=direction)).item() >= -1e-6
    assert prediction_loss(ours, ours.clone(), prediction_settings(direction=direction)).item() == 0


@MANY
@given(st.floats(-20, 20, width=32), st.floats(0.125, 20, width=32), st.sampled_from([-1, 1]))
def test_a_student_that_disagrees_is_pulled_towards_its_target(logit: float, apart: float, sign: int) -> None:
    """A softmax over the single channel would give a loss of 0, and no gradient, for ever."""
    student = maps(logit).requires_grad_()
    prediction_loss(student, maps(logit + sign * apart), prediction_settings()).backward()
    assert student.grad.item() * sign < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("direction", ["student||target", "target||student"])
def test_prediction_loss_and_its_gradient_are_finite_for_extreme_logits(dtype: torch.dtype, direction: str) -> None:
    """One confident pixel must not end a training of hours with NaN."""
    pairs = torch.tensor(list(itertools.product((-100.0, -30.0, 0.0, 30.0, 100.0), repeat=2)), dtype=dtype)
    student = pairs[:, 0].reshape(1, 1, 5, 5).clone().requires_grad_()
    loss = prediction_loss(student, pairs[:, 1].reshape(1, 1, 5, 5), prediction_settings(1, direction))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["binary", "printed"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_task_loss_and_its_gradient_are_finite_for_extreme_logits(dtype: torch.dtype, form: str, gamma: float) -> None:
    """Whatever focusing parameter the settings accept: a finite loss with a NaN gradient ruins all weights unseen."""
    masks = maps(1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    logits = maps(-100.0, 0.0, 100.0, -100.0, 0.0, 100.0).to(dtype).requires_grad_()
    loss = task_loss(logits, masks, task_settings(gamma, form))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_networks_in_bfloat16_get_losses_computed_in_float32(seed: int) -> None:
    """Sums of thousands of pixels in bfloat16's 8 bits would drown what a student has learnt."""
    random = torch.Generator().manual_seed(seed)
    student, target = (torch.randn(4, 1, 32, 32, generator=random).bfloat16() for _ in range(2))
    masks = (torch.rand(4, 1, 32, 32, generator=random) < 0.2).float()
    exact_task = slow_focal(student.double().numpy(), masks.numpy(), 2.0, "binary")
    exact_task += slow_dice(student.double().numpy(), masks.numpy())
    exact_divergence = kl_divergence(Bernoulli(logits=student.double() / 2), Bernoulli(logits=target.double() / 2))
    exact_feature = ((student.double() - target.double()) ** 2).mean()
    assert task_loss(student, masks, task_settings()).item() == pytest.approx(exact_task, rel=1e-5)
    assert prediction_loss(student, target, prediction_settings()).item() == pytest.approx(
        exact_divergence.mean().item(), rel=1e-5
    )
    assert feature_loss(student, target).item() == pytest.approx(exact_feature.item(), rel=1e-5)


def test_feature_loss_by_hand() -> None:
    """Mean over all elements: (4 + 9 + 0 + 0) / 4, not per image or per channel."""
    feature, target = torch.tensor([[1.0, 2.0], [7.0, 0.5]]), torch.tensor([[3.0, 5.0], [7.0, 0.5]])
    assert feature_loss(feature, target).item() == pytest.approx(13 / 4)


@MANY
@given(
    arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-50, 50, width=32)),
    arrays(np.float32, (2, 3, 2, 2), elements=st.floats(-50, 50, width=32)),
)
def test_feature_loss_is_the_mean_squared_error(feature: Any, target: Any) -> None:
    expected = ((feature.astype(np.float64) - target.astype(np.float64)) ** 2).mean()
    ours = feature_loss(torch.from_numpy(feature), torch.from_numpy(target)).item()
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_feature_maps_that_cannot_be_compared_are_named_with_the_setting_to_change() -> None:
    """Broadcast, a map of one channel would be compared with all of the other's, and nobody would know."""
    with pytest.raises(TrainingError, match=r"\(512, 7, 7\) and \(1024, 7, 7\).*conv6_channels.*decoder_channels"):
        feature_loss(torch.zeros(2, 512, 7, 7), torch.zeros(2, 1024, 7, 7))
    with pytest.raises(TrainingError, match=r"\(4, 2, 2\) and \(1, 2, 2\)"):
        feature_loss(torch.zeros(2, 4, 2, 2), torch.zeros(2, 1, 2, 2))


# Classification


def slow_softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


@MANY
@given(CLASS_LOGITS, st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_cross_entropy_is_equation_2(logits: Any, classes: list[int]) -> None:
    """Minus the log of the true class's probability, mean over the batch."""
    expected = sum(-math.log(slow_softmax(row)[true]) for row, true in zip(logits.tolist(), classes, strict=True)) / 4
    ours = task_loss(torch.from_numpy(logits), torch.tensor(classes), task_settings()).item()
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-6)
    theirs = torch.nn.functional.nll_loss(torch.from_numpy(logits).double().log_softmax(1), torch.tensor(classes))
    assert ours == pytest.approx(theirs.item(), rel=1e-5, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    """Probabilities (3/4, 1/4) and (1/2, 1/2): (ln 4 + ln 2) / 2 for the second class of each."""
    logits = torch.tensor([[LN3, 0.0], [1.0, 1.0]])
    assert task_loss(logits, torch.tensor([1, 1]), task_settings()).item() == pytest.approx(1.5 * math.log(2))


def test_the_focal_losss_settings_do_not_reach_a_classification() -> None:
    logits, classes = torch.randn(3, 4), torch.tensor([0, 3, 1])
    values = {task_loss(logits, classes, task_settings(*pair)).item() for pair in ((0, "binary"), (5.0, "printed"))}
    assert len(values) == 1


@MANY
@given(CLASS_LOGITS, CLASS_LOGITS, st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from(DIRECTIONS), st.booleans())
def test_prediction_loss_of_classes_is_the_divergence_of_softened_predictions(
    student: Any, target: Any, temperature: float, direction: str, squared: bool
) -> None:
    """Eqs. 1, 3 and 5 literally, in plain Python: sum over classes of p * ln(p / q), mean over the batch."""
    expected = 0.0
    for own, other in zip(student.tolist(), target.tolist(), strict=True):
        p, q = (slow_softmax([logit / temperature for logit in row]) for row in (own, other))
        if direction == "target||student":
            p, q = q, p
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(student)
    expected *= temperature**2 if squared else 1
    ours = prediction_loss(
        torch.from_numpy(student), torch.from_numpy(target), prediction_settings(temperature, direction, squared)
    ).item()
    assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_prediction_loss_of_classes_agrees_with_torch(direction: str) -> None:
    student, target = (torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    p, q = (Categorical(logits=logits.double() / 2) for logits in (student, target))
    divergence = kl_divergence(p, q) if direction == DIRECTIONS[0] else kl_divergence(q, p)
    ours = prediction_loss(student, target, prediction_settings(direction=direction)).item()
    assert ours == pytest.approx(divergence.mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("student||target", 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)),
        ("target||student", 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)),
    ],
)
def test_prediction_loss_of_two_classes_by_hand(direction: str, expected: float) -> None:
    """At T = 2 logits (2 ln 3, 0) soften to (3/4, 1/4); equal ones to halves. The other image of the batch agrees."""
    student, target = torch.tensor([[2 * LN3, 0.0], [1.0, 5.0]]), torch.tensor([[7.0, 7.0], [1.0, 5.0]])
    plain = prediction_loss(student, target, prediction_settings(2, direction)).item()
    assert plain == pytest.approx(expected / 2)
    assert prediction_loss(student, target, prediction_settings(2, direction, True)).item() == pytest.approx(4 * plain)


@MANY
@given(CLASS_LOGITS, CLASS_LOGITS, st.floats(-30, 30), st.sampled_from(DIRECTIONS))
def test_adding_the_same_to_all_logits_of_an_image_changes_no_prediction(
    student: Any, target: Any, constant: float, direction: str
) -> None:
    ours, other = torch.from_numpy(student), torch.from_numpy(target)
    options = prediction_settings(direction=direction)
    expected = prediction_loss(ours, other, options).item()
    assert prediction_loss(ours + constant, other, options).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert prediction_loss(ours, other - constant, options).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@MANY
@given(CLASS_LOGITS, CLASS_LOGITS, st.sampled_from(DIRECTIONS))
def test_prediction_loss_of_classes_is_never_negative_and_zero_for_equals(
    student: Any, target: Any, direction: str
) -> None:
    ours, options = torch.from_numpy(student), prediction_settings(direction=direction)
    assert prediction_loss(ours, torch.from_numpy(target), options).item() >= -1e-6
    assert prediction_loss(ours, ours.clone(), options).item() == 0


def test_a_class_of_one_logit_per_pixel_is_never_softened_away() -> None:
    """The shape tells the task: the same numbers as one-channel masks must not fall into the softmax, which gives 0."""
    student, target = torch.tensor([[2.0], [-1.0]]), torch.tensor([[-1.0], [3.0]])
    assert prediction_loss(student, target, prediction_settings()).item() == 0
    as_masks = prediction_loss(student.view(2, 1, 1, 1), target.view(2, 1, 1, 1), prediction_settings()).item()
    p, q = (Bernoulli(logits=logits.double() / 2) for logits in (student, target))
    assert as_masks == pytest.approx(kl_divergence(p, q).mean().item(), rel=1e-5)
    assert as_masks > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_losses_of_classes_and_their_gradients_are_finite_for_extreme_logits(
    dtype: torch.dtype, direction: str
) -> None:
    pairs = torch.tensor(list(itertools.product((-100.0, 0.0, 100.0), repeat=4)), dtype=dtype)
    student, target = pairs[:, :2].clone().requires_grad_(), pairs[:, 2:]
    divergence = prediction_loss(student, target, prediction_settings(1, direction))
    entropy = task_loss(student, torch.arange(len(pairs)) % 2, task_settings())
    (divergence + entropy).backward()
    assert divergence.dtype == entropy.dtype == torch.float32
    assert divergence.isfinite()
    assert entropy.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(2))
def test_classifiers_in_bfloat16_get_losses_computed_in_float32(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    student, target = (torch.randn(64, 7, generator=random).bfloat16() for _ in range(2))
    classes = torch.randint(0, 7, (64,), generator=random)
    entropy = torch.nn.functional.cross_entropy(student.double(), classes)
    divergence = kl_divergence(Categorical(logits=student.double() / 2), Categorical(logits=target.double() / 2))
    assert task_loss(student, classes, task_settings()).item() == pytest.approx(entropy.item(), rel=1e-5)
    assert prediction_loss(student, target, prediction_settings()).item() == pytest.approx(
        divergence.mean().item(), rel=1e-5
    )
