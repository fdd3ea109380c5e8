"""The paper's losses as other libraries have them, in float64; by hand; and for input at the edge."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torchvision.ops import sigmoid_focal_loss

from classroom.core.losses import dice_loss, feature_loss, focal_loss, prediction_loss, task_loss
from classroom.errors import TrainingError
from classroom.params import PredictionLoss, TaskLoss

NUMBERS = st.floats(-12, 12, width=32)
SHAPE = (2, 1, 3, 4)
LOGITS = arrays(np.float32, SHAPE, elements=NUMBERS).map(torch.from_numpy)
MASKS = arrays(np.float32, SHAPE, elements=st.sampled_from([0.0, 1.0])).map(torch.from_numpy)
CLASS_LOGITS = arrays(np.float32, (4, 5), elements=NUMBERS).map(torch.from_numpy)
DIRECTIONS = ("student||target", "target||student")
FORMS = ("binary", "printed")
DTYPES = (torch.float32, torch.bfloat16)

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


def their_focal(logits: torch.Tensor, masks: torch.Tensor, gamma: float = 2.0, form: str = "binary") -> torch.Tensor:
    """Torchvision's; as Eq. 8 prints it, a sum, and the background's terms are not there."""
    masks = masks.double()
    terms = sigmoid_focal_loss(logits.double(), masks, alpha=-1, gamma=gamma)
    return (terms * masks).sum() if form == "printed" else terms.mean()


def slow_dice(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Second term of Eq. 8."""
    g, truth = logits.double().sigmoid().ravel(), masks.double().ravel()
    return 1 - 2 * (g @ truth) / (g @ g + truth @ truth)


def their_divergence(student: torch.Tensor, target: torch.Tensor, settings: PredictionLoss) -> torch.Tensor:
    """torch.distributions'."""
    kind = Categorical if student.ndim == 2 else Bernoulli
    p, q = (kind(logits=logits.double() / settings.temperature) for logits in (student, target))
    divergence = kl_divergence(p, q) if settings.direction == "student||target" else kl_divergence(q, p)
    return divergence.mean() * (settings.temperature**2 if settings.multiply_by_squared_temperature else 1)


def near(expected: torch.Tensor, rel: float = 1e-4, abs: float = 1e-5) -> Any:
    return pytest.approx(expected.item(), rel=rel, abs=abs)


# The task's loss


@given(LOGITS, MASKS, st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.sampled_from(FORMS))
def test_the_task_loss_of_masks_is_torchvisions_focal_loss_and_dice(
    logits: torch.Tensor, masks: torch.Tensor, gamma: float, form: str
) -> None:
    """Eq. 8, for any logits and masks."""
    options = task_settings(gamma, form)
    focal, dice = their_focal(logits, masks, gamma, form), slow_dice(logits, masks)
    assert focal_loss(logits, masks, options).item() == near(focal, abs=1e-6)
    assert dice_loss(logits, masks).item() == near(dice)
    assert task_loss(logits, masks, options).item() == near(focal + dice)


def test_focal_loss_by_hand() -> None:
    """Both pixels at probability 3/4: 1/16 * ln(4/3) in the foreground, 9/16 * ln 4 in the background."""
    logits, masks = maps(LN3, LN3), maps(1.0, 0.0)
    foreground, background = math.log(4 / 3) / 16, 9 / 16 * math.log(4)
    assert focal_loss(logits, masks, task_settings()).item() == pytest.approx((foreground + background) / 2)
    assert focal_loss(logits, masks, task_settings(form="printed")).item() == pytest.approx(foreground)


def test_the_printed_focal_loss_is_a_sum_over_the_batch() -> None:
    """Eq. 8 has no mean: as many pixels again cost as much again."""
    logits, masks = torch.full((2, 1, 4, 4), LN3), torch.ones(2, 1, 4, 4)
    assert focal_loss(logits, masks, task_settings(form="printed")).item() == pytest.approx(32 * math.log(4 / 3) / 16)


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
    assert task_loss(100 * (2 * masks - 1), masks, task_settings()).item() == pytest.approx(0, abs=1e-6)


def test_dice_loss_without_foreground_is_one() -> None:
    """A batch of healthy slices must give a number, not 0/0."""
    for logit in (-100.0, 0.0, 100.0):
        assert dice_loss(torch.full(SHAPE, logit), torch.zeros(SHAPE)).item() == pytest.approx(1), logit


@given(CLASS_LOGITS, st.lists(st.integers(0, 4), min_size=4, max_size=4).map(torch.tensor))
def test_the_task_loss_of_classes_is_the_cross_entropy(logits: torch.Tensor, classes: torch.Tensor) -> None:
    """Eq. 2: minus the log of the true class's probability, mean over the batch."""
    expected = -Categorical(logits=logits.double()).log_prob(classes).mean()
    assert task_loss(logits, classes, task_settings()).item() == near(expected, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    """Probabilities (3/4, 1/4) and (1/2, 1/2): (ln 4 + ln 2) / 2 for the second class of each."""
    logits = torch.tensor([[LN3, 0.0], [1.0, 1.0]])
    assert task_loss(logits, torch.tensor([1, 1]), task_settings()).item() == pytest.approx(1.5 * math.log(2))


def test_the_focal_losss_settings_do_not_reach_a_classification() -> None:
    logits, classes = torch.randn(3, 4), torch.tensor([0, 3, 1])
    values = {task_loss(logits, classes, task_settings(*pair)).item() for pair in ((0, "binary"), (5.0, "printed"))}
    assert len(values) == 1


# Predictions


@given(
    st.sampled_from([LOGITS, CLASS_LOGITS]).flatmap(lambda logits: st.tuples(logits, logits)),
    st.builds(prediction_settings, st.sampled_from([1.0, 2.0, 4.0]), st.sampled_from(DIRECTIONS), st.booleans()),
)
def test_prediction_loss_is_the_divergence_of_softened_predictions(
    pair: tuple[torch.Tensor, torch.Tensor], options: PredictionLoss
) -> None:
    """Eqs. 1, 3 and 5, for any logits of masks or classes; never negative, and nothing between equals."""
    ours = prediction_loss(*pair, options).item()
    assert ours == near(their_divergence(*pair, options))
    assert ours >= -1e-6
    assert prediction_loss(pair[0], pair[0].clone(), options).item() == 0


BY_HAND = {
    "student||target": 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2),
    "target||student": 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2),
}


@pytest.mark.parametrize(("direction", "expected"), BY_HAND.items())
def test_prediction_loss_by_hand(direction: str, expected: float) -> None:
    """At T = 2 a logit of 2 ln 3 softens to probability 3/4, the target's 0 to 1/2; so do logits of two classes.

    The other image of the batch of classes agrees."""
    masks = maps(2 * LN3), maps(0.0)
    classes = torch.tensor([[2 * LN3, 0.0], [1.0, 5.0]]), torch.tensor([[7.0, 7.0], [1.0, 5.0]])
    for squared, factor in ((False, 1), (True, 4)):
        options = prediction_settings(2, direction, squared)
        assert prediction_loss(*masks, options).item() == pytest.approx(factor * expected)
        assert prediction_loss(*classes, options).item() == pytest.approx(factor * expected / 2)


@given(st.floats(-20, 20, width=32), st.floats(0.125, 20, width=32), st.sampled_from([-1, 1]))
def test_a_student_that_disagrees_is_pulled_towards_its_target(logit: float, apart: float, sign: int) -> None:
    """A softmax over the single channel would give a loss of 0, and no gradient, for ever."""
    student = maps(logit).requires_grad_()
    prediction_loss(student, maps(logit + sign * apart), prediction_settings()).backward()
    assert student.grad.item() * sign < 0


@given(CLASS_LOGITS, CLASS_LOGITS, st.floats(-30, 30), st.sampled_from(DIRECTIONS))
def test_adding_the_same_to_all_logits_of_an_image_changes_no_prediction(
    student: torch.Tensor, target: torch.Tensor, constant: float, direction: str
) -> None:
    options = prediction_settings(direction=direction)
    expected = prediction_loss(student, target, options)
    for moved in ((student + constant, target), (student, target - constant)):
        assert prediction_loss(*moved, options).item() == near(expected, 1e-3, 1e-4)


def test_a_class_of_one_logit_per_pixel_is_never_softened_away() -> None:
    """The shape tells the task: the same numbers as one-channel masks must not fall into the softmax, which gives 0."""
    student, target, options = torch.tensor([[2.0], [-1.0]]), torch.tensor([[-1.0], [3.0]]), prediction_settings()
    assert prediction_loss(student, target, options).item() == 0
    masks = student.view(2, 1, 1, 1), target.view(2, 1, 1, 1)
    assert prediction_loss(*masks, options).item() == near(their_divergence(*masks, options)) != 0


# Features


def test_feature_loss_by_hand() -> None:
    """Mean over all elements: (4 + 9 + 0 + 0) / 4, not per image or per channel."""
    feature, target = torch.tensor([[1.0, 2.0], [7.0, 0.5]]), torch.tensor([[3.0, 5.0], [7.0, 0.5]])
    assert feature_loss(feature, target).item() == pytest.approx(13 / 4)


def test_feature_maps_that_cannot_be_compared_are_named_with_the_setting_to_change() -> None:
    """Broadcast, a map of one channel would be compared with all of the other's, and nobody would know."""
    with pytest.raises(TrainingError, match=r"\(512, 7, 7\) and \(1024, 7, 7\).*conv6_channels.*decoder_channels"):
        feature_loss(torch.zeros(2, 512, 7, 7), torch.zeros(2, 1024, 7, 7))
    with pytest.raises(TrainingError, match=r"\(4, 2, 2\) and \(1, 2, 2\)"):
        feature_loss(torch.zeros(2, 4, 2, 2), torch.zeros(2, 1, 2, 2))


# Extreme input, half precision


def assert_finite(loss: torch.Tensor, logits: torch.Tensor, case: Any) -> None:
    """Of a loss that was computed in float32, and of its gradient."""
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32, case
    assert loss.isfinite(), case
    assert gradient.isfinite().all(), case


def test_the_task_loss_and_its_gradient_are_finite_for_extreme_logits() -> None:
    """Whatever focusing parameter the settings accept: a finite loss with a NaN gradient ruins all weights unseen."""
    masks = maps(1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    for case in itertools.product(DTYPES, (0.0, 0.5, 1.0, 2.0), FORMS):
        dtype, *options = case
        logits = maps(-200.0, 0.0, 200.0, -200.0, 0.0, 200.0).to(dtype).requires_grad_()
        assert_finite(task_loss(logits, masks, task_settings(*options)), logits, case)


def test_prediction_losses_and_their_gradients_are_finite_for_extreme_logits() -> None:
    """One confident pixel, or image, must not end a training of hours with NaN."""
    pixels = torch.tensor(list(itertools.product((-100.0, -30.0, 0.0, 30.0, 100.0), repeat=2)))
    classes = torch.tensor(list(itertools.product((-100.0, 0.0, 100.0), repeat=4)))
    for case in itertools.product(DTYPES, DIRECTIONS):
        dtype, direction = case
        options = prediction_settings(1, direction)
        student, target = (logits.to(dtype).view(1, 1, 5, 5) for logits in pixels.T)
        student.requires_grad_()
        assert_finite(prediction_loss(student, target, options), student, case)
        student, target = classes[:, :2].to(dtype).requires_grad_(), classes[:, 2:].to(dtype)
        assert_finite(prediction_loss(student, target, options), student, case)
        assert_finite(task_loss(student, torch.arange(len(classes)) % 2, task_settings()), student, case)


def test_networks_in_bfloat16_get_losses_computed_in_float32() -> None:
    """Sums of thousands of pixels in bfloat16's 8 bits would drown what a student has learnt."""
    random = torch.Generator().manual_seed(0)
    student, target = (torch.randn(4, 1, 32, 32, generator=random).bfloat16() for _ in range(2))
    masks = (torch.rand(4, 1, 32, 32, generator=random) < 0.2).float()
    expected = their_focal(student, masks) + slow_dice(student, masks)
    assert task_loss(student, masks, task_settings()).item() == near(expected, 1e-5, 0)
    options = prediction_settings()
    assert prediction_loss(student, target, options).item() == near(their_divergence(student, target, options), 1e-5, 0)
    assert feature_loss(student, target).item() == near(F.mse_loss(student.double(), target.double()), 1e-5, 0)

    student, target = (torch.randn(64, 7, generator=random).bfloat16() for _ in range(2))
    classes = torch.randint(0, 7, (64,), generator=random)
    assert task_loss(student, classes, task_settings()).item() == near(F.cross_entropy(student.double(), classes), 1e-5)
    assert prediction_loss(student, target, options).item() == near(their_divergence(student, target, options), 1e-5, 0)
