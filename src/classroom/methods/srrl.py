"""SRRL, softmax regression representation learning: the teacher's classifier is applied to the student's features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from classroom.methods.shared.published import LAST_MAP, Classification
from classroom.methods.shared.tensors import block, mean_square, same_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.core.networks.classifier import Classifier
    from classroom.methods.shared.comparison import Comparison


class SRRL(Classification):
    """As in the authors' code, the connector comes before the pooling. The gradient passes through the teacher's frozen
    classifier. The student predicts with its own classifier."""

    label = "SRRL"
    paper = "Yang et al., ICLR 2021"
    formula = "mean (g_S − g_T)² + mean (h_T(c(f_S)) − z_T)², g pooled features, h_T the teacher's classifier"
    weights = {"feature": 1.0, "regression": 1.0}

    def tapped(self) -> Sequence[str]:
        return (LAST_MAP,)

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        from torch import nn

        student, teacher = model.channels(LAST_MAP)
        connector = block(student, teacher)
        nn.init.normal_(cast(nn.Conv2d, connector[0]).weight, std=math.sqrt(2 / teacher))
        return {"connector": connector}

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(student.features[LAST_MAP], teacher.features[LAST_MAP])
        own = model.connector(own)
        teacher_body = cast("Classifier", model.networks["T"].body)
        return {
            "feature": mean_square(own.mean(dim=(2, 3)), other.mean(dim=(2, 3))),
            "regression": mean_square(teacher_body.head(own), teacher.logits),
        }


METHOD = {"classification": SRRL}
