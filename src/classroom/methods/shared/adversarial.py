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

    form: Literal["wgan-gp", "hinge"] = "wgan-gp"
    gradient_penalty: Weight = 10.0
    weight: Positive = Field(default=0.1, description="of its own loss")
    learning_rate: Positive = Field(default=4e-4, description="of its Adam, betas 0.9 and 0.99")


class Adversarial(Segmentation):
    """A method with an adversary, unless `adversarial` is off."""

    shown: ClassVar[tuple[str, ...]] = ("adversarial",)

    adversarial: bool = True
    adversary: Adversary = Adversary()

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from classroom.methods.shared.adversary import Adversary

        return {"adversary": Adversary(self.adversary, model.image_size)} if self.adversarial else {}

    def adversarial_term(self, model: Comparison, student: Output, teacher: Output) -> dict[str, Tensor]:
        """The term `adversarial`, if there is an adversary."""
        return {"adversarial": model.adversary.distance(student, teacher)} if self.adversarial else {}

    def after_step(self, model: Comparison) -> None:
        if self.adversarial:
            model.adversary.step()
