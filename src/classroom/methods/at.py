"""AT, attention transfer: the student imitates the teacher's attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from classroom.methods.shared.published import (
    SHARED_BLOCK,
    STAGES,
    Classification,
    Positive,
    Published,
    Segmentation,
    Taps,
)
from classroom.methods.shared.tensors import attention, mean_square, same_size

if TYPE_CHECKING:
    from torch import Tensor

    from classroom.core.networks.build import Output
    from classroom.methods.shared.comparison import Comparison


class AT(Published):
    """As in the authors' code; their Eq. 2 has the norm of the difference instead of its mean square."""

    label = "AT"
    paper = "Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928"
    formula = "Σ_l mean (A(f_S) − A(f_T))², A = mean_c |f|^p as a vector of length 1"

    taps: Taps
    power: Positive = Field(2.0, description="Power of the activations.")

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        pairs = (same_size(student.features[tap], teacher.features[tap]) for tap in self.taps)
        values = (mean_square(attention(own, self.power), attention(other, self.power)) for own, other in pairs)
        return {"attention": sum(values, start=student.logits.new_zeros(()))}


class ATClassification(AT, Classification):
    weights = {"attention": 1000.0}

    taps: Taps = STAGES


class ATSegmentation(AT, Segmentation):
    """With a prediction loss, as in CIRKD."""

    weights = {"attention": 10_000.0, "prediction": 1.0}

    taps: Taps = (SHARED_BLOCK,)

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        attention_term = super().losses(model, student, teacher, targets)
        return {**attention_term, "prediction": self.prediction(student, teacher)}


METHOD = {"classification": ATClassification, "segmentation": ATSegmentation}
