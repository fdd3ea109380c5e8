"""The adversarial term of SKD and IFVD: the discriminator, its loss, and that it takes its own steps."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classroom.errors import TrainingError
from classroom.methods import registry
from classroom.methods.adversarial.adversary import Adversary
from classroom.methods.adversarial.discriminator import WIDTHS, Discriminator
from classroom.methods.shared.comparison import Comparison
from classroom.methods.shared.tensors import two_channels
from support import oracles
from support.comparisons import WITH_ADVERSARY, batch_of, made, outputs, random_values, shared

OPTIONS = registry.published("segmentation")["skd"]().adversary


def adversary_with(discriminator: Any, **options: Any) -> Adversary:
    """`discriminator`: a module, or a function of maps (B, 2, H, W)."""
    adversary = Adversary(OPTIONS.model_copy(update=options), 64)
    if not isinstance(discriminator, nn.Module):
        module = nn.Module()
        module.forward = discriminator
        discriminator = module
    adversary.discriminator = discriminator
    return adversary


@pytest.mark.parametrize(("form", "expected"), [("wgan-gp", -9 + 10 * 4**2), ("hinge", 2 + 0)])
def test_the_discriminators_loss_by_hand(form: str, expected: float) -> None:
    """D = 5·(one pixel) is 1 of the student's map and 10 of the teacher's; its slope is 5 wherever one looks."""
    adversary = adversary_with(lambda maps: 5 * maps[:, 1, 0, 0], form=form)
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    student[:, 1, 0, 0], teacher[:, 1, 0, 0] = 0.2, 2.0  # D: 1 and 10
    assert adversary.loss(student, teacher).item() == pytest.approx(expected)


def test_the_hinge_wants_a_margin_on_both_sides() -> None:
    adversary = adversary_with(lambda maps: maps.sum(dim=(1, 2, 3)), form="hinge")
    real, fake = torch.tensor([0.25, 3.0]).view(2, 1, 1, 1), torch.tensor([-0.5, -4.0]).view(2, 1, 1, 1)
    assert adversary.loss(fake, real).item() == pytest.approx((0.75 + 0) / 2 + (0.5 + 0) / 2)


def test_the_gradient_penalty_looks_between_the_two() -> None:
    """D = ½ Σ x² has slope |x|. Between maps of length 3 (both the same) it is 3; of 0 and 3 somewhere below."""
    adversary = adversary_with(lambda maps: maps.square().sum(dim=(1, 2, 3)) / 2)
    maps = torch.full((1, 1, 3, 3), 1.0)
    assert adversary.loss(maps, maps).item() == pytest.approx(10 * (3 - 1) ** 2, rel=1e-5)
    torch.manual_seed(0)
    penalties = [adversary.loss(torch.zeros_like(maps), maps).item() - (0 - 4.5) for _ in range(20)]
    assert all(0 <= penalty <= 40 for penalty in penalties)
    assert max(penalties) - min(penalties) > 1, "every time the same point"


def test_the_gradient_penalty_draws_a_point_for_every_image() -> None:
    """D = ½ Σ x² of as many equal pairs of images: with one draw for all, the mean would be that draw's penalty."""
    seen = []
    adversary = adversary_with(lambda maps: seen.append(maps.detach()) or maps.square().sum(dim=(1, 2, 3)) / 2)
    adversary.loss(torch.zeros(8, 2, 2, 2), torch.ones(8, 2, 2, 2))
    between = seen[-1].flatten(1)
    assert torch.equal(between, between[:, :1].expand_as(between)), "one place between two images, not one a pixel"
    assert len(between[:, 0].unique()) == 8


class Discriminated(NamedTuple):
    """SKD after each of two steps."""

    method: Comparison
    snapshots: list[dict[str, torch.Tensor]]
    """The discriminator's parameters before the first step, after it, after the second."""
    untaught: bool
    same: bool


@pytest.fixture(scope="module")
def discriminated() -> Discriminated:
    torch.manual_seed(0)
    method = made("segmentation", "skd")
    parameters = dict(method.adversary.named_parameters())
    snapshots = [copy.deepcopy(parameters)]
    untaught = same = True
    for _ in range(2):
        method.zero_grad(set_to_none=True)
        sum(term.weight * term.value for term in method.losses(*batch_of("segmentation"))).backward()
        untaught &= all(p.grad is None for p in parameters.values())
        student = [p for p in method.networks["S1"].parameters() if p.grad is not None]
        gradients = [p.grad.clone() for p in student]
        method.after_step()
        same &= all(torch.equal(gradient, p.grad) for gradient, p in zip(gradients, student, strict=True))
        snapshots.append(copy.deepcopy(parameters))
    return Discriminated(method, snapshots, untaught, same)


def test_the_students_optimiser_does_not_hold_the_discriminator(discriminated: Discriminated) -> None:
    """Trained by both, it would learn to help the student."""
    method = discriminated.method
    assert not any(p.requires_grad for p in method.adversary.parameters())
    assert discriminated.untaught, "the student's loss left gradients in the discriminator"
    assert discriminated.same, "the discriminator's step left gradients in the student"
    assert method.extra_parameters == sum(p.numel() for p in method.adversary.parameters()) > 0


def test_the_discriminator_takes_its_own_step(discriminated: Discriminated) -> None:
    """Its attention begins as the identity, so that only gamma learns in the first step, the rest from then on.

    Without effect, by their nature: a constant added to D (of WGAN), and to every key.
    """
    start, first, second = discriminated.snapshots
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


def test_the_discriminator_trains_with_the_settings_it_was_given(discriminated: Discriminated) -> None:
    """The first step of Adam is as long as its learning rate in every direction that has a slope."""
    start, first, _ = discriminated.snapshots
    change = (first["discriminator.layers.0.weight"] - start["discriminator.layers.0.weight"]).abs()
    assert change == pytest.approx(4e-4, rel=0.02)
    (group,) = discriminated.method.adversary.get_extra_state()["param_groups"]
    assert tuple(group["betas"]) == (0.9, 0.99)


def test_the_discriminators_loss_has_a_weight_of_its_own() -> None:
    """Adam's steps do not show it; its first moment is a tenth of the gradient."""
    moments = []
    for weight in (0.1, 0.3):
        torch.manual_seed(0)
        adversary = Adversary(OPTIONS.model_copy(update={"weight": weight}), 64)
        adversary.distance(*outputs("segmentation", shared("segmentation", "skd"), batch=2))
        adversary.step()
        state = adversary.get_extra_state()["state"]
        moments.append(torch.cat([entry["exp_avg"].flatten() for entry in state.values()]))
    assert moments[0].abs().max() > 0
    torch.testing.assert_close(3 * moments[0], moments[1], rtol=1e-3, atol=1e-6)


def test_the_discriminator_learns_to_tell_teacher_from_student() -> None:
    """With the opposite sign it would reward a student for being recognised."""
    torch.manual_seed(1)
    adversary = Adversary(OPTIONS.model_copy(update={"learning_rate": 0.01}), 64)
    student, teacher = outputs("segmentation", shared("segmentation", "skd"), batch=4)
    teacher = teacher._replace(logits=teacher.logits.sign())  # the surer of the two

    def apart() -> float:
        with torch.no_grad():
            real, fake = (adversary.discriminator(two_channels(one.logits)).mean() for one in (teacher, student))
        return (real - fake).item()

    before = apart()
    for _ in range(5):
        adversary.distance(student, teacher)
        adversary.step()
    assert apart() > before + 0.5
    settled = {key: value.clone() for key, value in adversary.named_parameters()}
    adversary.step()  # nothing new was seen
    assert all(torch.equal(settled[key], value) for key, value in adversary.named_parameters())


def test_the_adversarial_term_is_what_the_discriminator_thinks_of_the_student() -> None:
    """The network of Liu et al., layer by layer in float64, with attention that is not the identity."""
    torch.manual_seed(2)
    discriminator = Discriminator(2, 64)
    for _ in range(3):
        discriminator(random_values(4, 2, 64, 64))  # batch statistics as of a training
    discriminator.eval()
    student, _ = outputs("segmentation", shared("segmentation", "skd"), batch=2)
    normal, *layers = discriminator.layers
    maps = oracles.two_channels(student.logits.double())
    maps = F.batch_norm(maps, normal.running_mean.double(), normal.running_var.double())
    kinds = []
    for layer in layers:
        kinds.append(type(layer).__name__.removeprefix("Parametrized"))
        if isinstance(layer, nn.Conv2d):
            last = layer is layers[-1]
            stride, padding = (1, 0) if last else (2, 1)
            maps = F.conv2d(maps, layer.weight.double(), layer.bias.double(), stride, padding)
            longest = torch.linalg.svdvals(layer.weight.flatten(1))[0].item()
            assert last or longest == pytest.approx(1, abs=0.15), "no spectral normalisation"
        elif isinstance(layer, nn.LeakyReLU):
            maps = torch.where(maps > 0, maps, 0.1 * maps)
        else:
            nn.init.constant_(layer.gamma, 0.5)
            for one in (layer.query, layer.key):  # as drawn, a place attends to all others alike
                nn.init.normal_(one.weight)
            query, key, value = (
                F.conv2d(maps, one.weight.double(), one.bias.double()).flatten(2)
                for one in (layer.query, layer.key, layer.value)
            )
            gathered = torch.zeros_like(value)
            for b, i in np.ndindex(len(maps), value.shape[2]):
                share = (query[b, :, i] @ key[b]).exp()
                gathered[b, :, i] = value[b] @ (share / share.sum())
            maps = maps + 0.5 * gathered.view_as(maps)
    assert kinds == [*["Conv2d", "LeakyReLU"] * 3, "SelfAttention", "Conv2d", "LeakyReLU", "SelfAttention", "Conv2d"]
    found = adversary_with(discriminator).distance(student, student).item()
    assert found == pytest.approx(-maps.mean().item(), rel=1e-3)


def test_the_discriminator_is_as_wide_as_the_papers() -> None:
    """Everywhere else here it is thin."""
    assert WIDTHS == (64, 128, 256, 512)
    layers = Discriminator(2, 64).layers
    assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == [8, 8, 16, 16, 1]
    assert [layer.query.out_channels for layer in layers if hasattr(layer, "query")] == [2, 2]


@pytest.mark.parametrize("name", WITH_ADVERSARY)
def test_images_too_small_for_the_discriminator_are_refused(name: str) -> None:
    with pytest.raises(TrainingError, match=r"64×64.*32×32.*adversarial"):
        made("segmentation", name, image_size=32)
    without = made("segmentation", name, image_size=32, adversarial=False)
    without.after_step()
    assert without.extra_parameters == 0


def test_the_smallest_images_fit_the_discriminator() -> None:
    assert Discriminator(2, 64).eval()(torch.zeros(1, 2, 64, 64)).shape == (1, 1, 1, 1)


def test_a_checkpoint_brings_the_discriminator_and_its_optimiser_back() -> None:
    """The step after must be the same in every bit; without the optimiser's memory it would not."""

    def step(adversary: Adversary, number: int) -> list[torch.Tensor]:
        torch.manual_seed(number)
        adversary.distance(*outputs("segmentation", shared("segmentation", "skd"), number, batch=2))
        adversary.step()
        return [parameter.detach().clone() for parameter in adversary.parameters()]

    adversary, resumed, forgetful = (Adversary(OPTIONS, 64) for _ in range(3))
    step(adversary, 1)
    state = copy.deepcopy(adversary.state_dict())
    resumed.load_state_dict(state)
    forgetful.load_state_dict(state | {"_extra_state": {}})
    expected, found, other = (step(one, 2) for one in (adversary, resumed, forgetful))
    assert all(map(torch.equal, expected, found))
    assert not all(map(torch.equal, expected, other)), "its optimiser has no memory"
