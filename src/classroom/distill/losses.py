"""The paper's losses, equations 1–10. All take logits or features of a whole batch and return a scalar.

They are computed in float32 whatever the networks' precision. Targets are the caller's to detach.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.params import PredictionLoss, TaskLoss


def task_loss(logits: torch.Tensor, masks: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """L_FD, Eq. 8: focal + Dice. `logits`, `masks`: (B, 1, H, W); masks of {0, 1}."""
    logits = logits.float()
    return focal_loss(logits, masks, settings) + dice_loss(logits, masks)


def focal_loss(logits: torch.Tensor, masks: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """The first term of Eq. 8, mean over all pixels.

    `binary` is Lin et al.'s focal loss over all pixels; `printed` keeps the foreground pixels' terms only.
    """
    signed = logits * (2 * masks - 1)  # the logit of the pixel's true class
    # (1 − p)^τ as an exponential: the power's gradient is not finite where 1 − p vanishes and τ < 1.
    terms = -torch.exp(settings.focal_gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    if settings.focal_form == "printed":
        terms = terms * masks
    return terms.mean()


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The second term of Eq. 8, with squared denominators as printed, over the batch's pixels together.

    1 for a batch without any foreground, up to rounding; the small constant only averts 0/0.
    """
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum()
    return 1 - 2 * overlap / (probabilities.square().sum() + masks.square().sum() + 1e-7)


def prediction_loss(logits: torch.Tensor, target: torch.Tensor, settings: PredictionLoss) -> torch.Tensor:
    """L_KD_p, L_ML_p, Eqs. 1, 3, 5: KL divergence of temperature-softened predictions, mean over pixels.

    One sigmoid channel: per pixel the divergence of two Bernoulli distributions. `logits` are the student's,
    `target` the teacher's or the peer's: (B, 1, H, W).
    """
    student = logits.float() / settings.temperature
    other = target.float() / settings.temperature
    p, q = (student, other) if settings.direction == "student||target" else (other, student)
    divergence = torch.sigmoid(p) * (F.logsigmoid(p) - F.logsigmoid(q))
    divergence = divergence + torch.sigmoid(-p) * (F.logsigmoid(-p) - F.logsigmoid(-q))
    factor = settings.temperature**2 if settings.multiply_by_squared_temperature else 1.0
    return factor * divergence.mean()


def feature_loss(feature: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L_KD_f, L_ML_f, Sec. 3.2: mean squared error of two feature maps of the same shape, over all elements."""
    return F.mse_loss(feature.float(), target.float())
