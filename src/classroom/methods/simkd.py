"""SimKD: the student's features are projected to the teacher's and classified by the teacher's classifier."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, field_validator

from classroom.methods.shared.published import LAST_MAP, Published
from classroom.methods.shared.tensors import block, mean_square, same_size

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classroom.core.networks.build import Output
    from classroom.core.networks.classifier import Classifier
    from classroom.methods.shared.comparison import Comparison


class SimKD(Published):
    """Training uses no labels. The saved student consists of its encoder, the projector, and a copy of the teacher's
    layers after the last map."""

    label = "SimKD"
    paper = "Chen et al., CVPR 2022, arXiv 2203.14001"
    formula = "mean (P(f_S) − f_T)²; prediction: T's classifier on P(f_S)"
    weights = {"feature": 1.0}
    uses_labels = False

    reduction: Literal[2, 4, 8] = Field(2, description="Factor by which the projector's bottleneck is narrower.")

    @field_validator("reduction", mode="before")
    @classmethod
    def _whole(cls, reduction: Any) -> Any:
        if isinstance(reduction, float):  # a Literal takes 2.0 for 2, even if strict
            raise ValueError(f"should be 2, 4 or 8, not {reduction}")
        return reduction

    def tapped(self) -> Sequence[str]:
        return (LAST_MAP,)

    def extras(self, model: Comparison) -> dict[str, nn.Module]:
        """None: the student itself gets the projector, in front of copies of the teacher's Conv6 and classifier."""
        from torch import nn

        from classroom.core.networks.build import Network
        from classroom.methods.shared.frozen import Frozen

        student = model.networks["S1"]
        body, teacher = (cast("Classifier", network.body) for network in (student, model.networks["T"]))
        inputs, outputs = model.channels(LAST_MAP)
        narrow = max(1, outputs // self.reduction)
        body.last = nn.Sequential(block(inputs, narrow), block(narrow, narrow, kernel=3), block(narrow, outputs))
        body.conv6 = Frozen(*copy.deepcopy(teacher.conv6).children())
        body.classifier = copy.deepcopy(teacher.classifier).requires_grad_(False)
        student.remove_hooks()
        model.networks["S1"] = whole = Network(body, *student.normalisation, shared=LAST_MAP)
        whole.facts = student.facts | {"parameters": whole.parameter_count}
        return {}

    def losses(self, model: Comparison, student: Output, teacher: Output, targets: Tensor) -> dict[str, Tensor]:
        own, other = same_size(student.features[LAST_MAP], teacher.features[LAST_MAP])
        return {"feature": mean_square(own, other)}

    def notes(self, model: Comparison, targets: Tensor) -> list[str]:
        return ["its projector counts in training and at inference: it stays"]


METHOD = {"classification": SimKD}
