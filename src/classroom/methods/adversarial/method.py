"""The adversarial part of SKD and IFVD: its settings, and the term that it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from classroom.methods.shared.published import Positive, Segmentation, Weight
from classroom.section import Section

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class Adversary(Section):
    """The discriminator between the student's and the teacher's logit maps."""

    form: Literal["wgan-gp", "hinge"] = Field(default="wgan-gp", description="Loss of the discriminator.")
    gradient_penalty: Weight = Field(default=10.0, description="Weight of the gradient penalty of `wgan-gp`.")
    weight: Positive = Field(default=0.1, description="Weight of the discriminator's own loss.")
    learning_rate: Positive = Field(
        default=4e-4, description="Learning rate of the discriminator's Adam, which has betas 0.9 and 0.99."
    )


class Adversarial(Segmentation):
    """A method with an adversary, unless `adversarial` is off."""

    shown: ClassVar[tuple[str, ...]] = ("adversarial",)

    adversarial: bool = Field(default=True, description="Train a discriminator; `false` leaves its term out.")
    adversary: Adversary = Field(default=Adversary(), description="Settings of the discriminator.")

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from classroom.methods.adversarial.adversary import Adversary

        return {"adversary": Adversary(self.adversary, model.image_size)} if self.adversarial else {}

    def adversarial_term(self, model: Comparison, student: Output, teacher: Output) -> dict[str, Tensor]:
        """The term `adversarial`, if there is an adversary."""
        return {"adversarial": model.adversary.distance(student, teacher)} if self.adversarial else {}

    def after_step(self, model: Comparison) -> None:
        if self.adversarial:
            model.adversary.step()
