"""The weights at one point of a grid search (Sec. 4.2: "identified using a grid search")."""

from __future__ import annotations

from classroom.methods.learning_styles.exchange import Received, Variant
from classroom.params import StudentWeights, VariantWeights


def weights_at(variant: Variant, alpha_1: float, alpha_2: float, teacher_share: float) -> VariantWeights:
    """The weights α, β, γ of both students at a point of the grid; they sum to 1.

    Parameters
    ----------
    variant
        decides what each student receives
    alpha_1, alpha_2
        weight α of the task loss of S1 and S2
    teacher_share
        share of 1 − α for the teacher (β) if a student receives from teacher and peer; the peer (γ) gets the rest

    References
    ----------
    Sec. 4.2
    """
    return VariantWeights(
        S1=_student(variant.S1, alpha_1, teacher_share), S2=_student(variant.S2, alpha_2, teacher_share)
    )


def _student(received: Received, alpha: float, teacher_share: float) -> StudentWeights:
    if received.from_teacher is None:
        teacher_share = 0.0
    elif received.from_peer is None:
        teacher_share = 1.0
    beta = round((1 - alpha) * teacher_share, 6)
    return StudentWeights(alpha=alpha, beta=beta, gamma=max(0.0, round(1 - alpha - beta, 6)))  # never -0.0
