"""The adversary of SKD and IFVD: a discriminator with its own optimiser."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.networks.build import Output
from classroom.methods.adversarial.discriminator import Discriminator
from classroom.methods.adversarial.method import Adversary as AdversarySettings
from classroom.methods.shared.tensors import two_channels


class Adversary(nn.Module):
    """A discriminator of the teacher's logit maps (real) and the student's (fake).

    It is trained by its own optimiser after the student's step, on the same batch. The optimiser is part of the state,
    so that a resumed training is bit-identical.
    """

    def __init__(self, settings: AdversarySettings, image_size: int) -> None:
        """Raises TrainingError for images that are too small."""
        super().__init__()
        self.settings = settings
        self.discriminator = Discriminator(channels=2, image_size=image_size).requires_grad_(False)
        self._optimiser: torch.optim.Optimizer | None = None
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def distance(self, student: Output, teacher: Output) -> torch.Tensor:
        """−mean D(student), which the student minimises."""
        own, other = two_channels(student.logits), two_channels(teacher.logits)
        self._seen = (own.detach(), other)
        return -self.discriminator(own).mean()

    def step(self) -> None:
        """One step of the discriminator on the last logit maps of `distance`."""
        if self._seen is None:
            return
        own, other = self._seen
        self._seen = None
        self.discriminator.requires_grad_(True)
        optimiser = self._get_optimiser()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(own.device.type, enabled=False):
            (self.settings.weight * self.loss(own, other)).backward()
        optimiser.step()
        self.discriminator.requires_grad_(False)

    def loss(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The discriminator's loss on two-channel logit maps (B, 2, H, W)."""
        real, fake = self.discriminator(teacher), self.discriminator(student)
        if self.settings.form == "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        return fake.mean() - real.mean() + self.settings.gradient_penalty * self._penalty(student, teacher)

    def get_extra_state(self) -> dict[str, Any]:
        return self._optimiser.state_dict() if self._optimiser else {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state:
            self._get_optimiser().load_state_dict(state)

    def _get_optimiser(self) -> torch.optim.Optimizer:
        if self._optimiser is None:  # created late, when the parameters are on their device
            self._optimiser = torch.optim.Adam(
                self.discriminator.parameters(), lr=self.settings.learning_rate, betas=(0.9, 0.99), fused=True
            )
        return self._optimiser

    def _penalty(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """The gradient penalty (‖∇D‖ − 1)² between both maps, mean over the batch (Gulrajani et al., 2017)."""
        share = torch.rand(len(student), 1, 1, 1, device=student.device)
        between = (share * teacher + (1 - share) * student).requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
