"""The paper's methods: all twelve variants, from the table in `exchange`."""

from __future__ import annotations

import torch

from classroom.core.losses import feature_loss, prediction_loss, task_loss
from classroom.core.method import Method, Term
from classroom.core.networks.build import Network, Output
from classroom.methods.learning_styles.exchange import Variant
from classroom.params import Losses, VariantWeights

PEER = {"S1": "S2", "S2": "S1"}


class LearningStyles(Method):
    """Two students S1 and S2, with or without a teacher T.

    Student k minimises α_k·task + β_k·(from the teacher) + γ_k·(from its peer); a trained teacher minimises its task
    loss. Received knowledge is detached: no gradient flows back to its source.

    References
    ----------
    Eqs. 4–7, 9, 10
    """

    def __init__(self, variant: Variant, weights: VariantWeights, networks: dict[str, Network], losses: Losses) -> None:
        """Freezes the teacher if the variant's is pre-trained.

        Parameters
        ----------
        variant
            row of `EXCHANGE`
        weights
            α, β, γ of both students
        networks
            S1, S2 and, if the variant has a teacher, T
        losses
            `losses` of params.yaml
        """
        self.frozen = ("T",) if variant.teacher == "frozen" else ()
        super().__init__(networks)
        self.variant = variant
        self.weights = weights
        self.functions = losses
        self.settings = {"weights": weights.model_dump(mode="json"), "losses": losses.model_dump(mode="json")}

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        """The terms of both students, and the task loss of a teacher that is trained."""
        outputs = {name: self._forward(name, images) for name in self.networks}
        terms = []
        if "T" in outputs and "T" not in self.frozen:
            terms.append(Term("T", "task", 1.0, task_loss(outputs["T"].logits, targets, self.functions.task)))
        for student in ("S1", "S2"):
            weights = getattr(self.weights, student)
            received = getattr(self.variant, student)
            own = outputs[student]
            terms.append(Term(student, "task", weights.alpha, task_loss(own.logits, targets, self.functions.task)))
            for source, kind, weight in (
                ("T", received.from_teacher, weights.beta),
                (PEER[student], received.from_peer, weights.gamma),
            ):
                if kind:
                    value = self._distance(kind, own, outputs[source])
                    terms.append(Term(student, f"{kind}_from_{source}", weight, value))
        return terms

    def _forward(self, name: str, images: torch.Tensor) -> Output:
        with torch.set_grad_enabled(name not in self.frozen):
            return self.networks[name](images)

    def _distance(self, kind: str, own: Output, other: Output) -> torch.Tensor:
        if kind == "prediction":
            return prediction_loss(own.logits, other.logits.detach(), self.functions.prediction)
        return feature_loss(own.shared, other.shared.detach())
