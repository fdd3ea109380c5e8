"""The paper's losses, equations 1–10. All take logits or features of a whole batch and return a scalar.

The shape of the logits tells the task: (B, 1, H, W), one sigmoid channel, is segmentation, (B, classes) is
classification. Losses are computed in float32 whatever the networks' precision. Targets are the caller's to detach.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.errors import TrainingError
from classroom.params import PredictionLoss, TaskLoss


def task_loss(logits: torch.Tensor, targets: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """L_FD, Eq. 8, focal + Dice, of masks (B, 1, H, W) of {0, 1}; cross-entropy, Eq. 2, of class indices (B,)."""
    logits = logits.float()
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets)
    return focal_loss(logits, targets, settings) + dice_loss(logits, targets)


def focal_loss(logits: torch.Tensor, masks: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """The first term of Eq. 8, over the batch's pixels together.

    `binary` is Lin et al.'s focal loss, mean over all pixels; `printed` is the sum over the foreground pixels.
    """
    right, wrong = _log_probabilities(logits * (2 * masks - 1))  # of the logit of the pixel's true class
    # (1 − p)^τ as an exponential: the power's gradient is not finite where 1 − p vanishes and τ < 1.
    terms = -torch.exp(settings.focal_gamma * wrong) * right
    if settings.focal_form == "printed":
        return (terms * masks).sum()
    return terms.mean()


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The second term of Eq. 8, with squared denominators as printed, over the batch's pixels together.

    1 for a batch without any foreground, up to rounding; the small constant only averts 0/0.
    """
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum()
    return 1 - 2 * overlap / (probabilities.square().sum() + masks.square().sum() + 1e-7)


def prediction_loss(logits: torch.Tensor, target: torch.Tensor, settings: PredictionLoss) -> torch.Tensor:
    """L_KD_p, L_ML_p, Eqs. 1, 3, 5: KL divergence of temperature-softened predictions.

    `logits` are the student's, `target` the teacher's or the peer's. Classification: of the two softmax
    distributions, mean over the batch. Segmentation: of two Bernoulli distributions per pixel, mean over pixels.
    """
    student = logits.float() / settings.temperature
    other = target.float() / settings.temperature
    p, q = (student, other) if settings.direction == "student||target" else (other, student)
    divergence = _categorical(p, q) if logits.ndim == 2 else _bernoulli(p, q)
    factor = settings.temperature**2 if settings.multiply_by_squared_temperature else 1.0
    return factor * divergence.mean()


def feature_loss(feature: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L_KD_f, L_ML_f, Sec. 3.2: mean squared error of two feature maps of the same shape, over all elements.

    Raises TrainingError for maps of different shapes.
    """
    if feature.shape != target.shape:
        raise TrainingError(
            f"the feature maps to compare have shapes {tuple(feature.shape[1:])} and {tuple(target.shape[1:])}. Set "
            "study.*.teacher.conv6_channels (classification) or decoder_channels (segmentation) so that they agree."
        )
    return F.mse_loss(feature.float(), target.float())


def _categorical(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(softmax p ‖ softmax q) per sample, of logits (B, classes)."""
    log_p, log_q = F.log_softmax(p, dim=1), F.log_softmax(q, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _bernoulli(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(sigmoid p ‖ sigmoid q) per pixel."""
    (one_p, zero_p), (one_q, zero_q) = _log_probabilities(p), _log_probabilities(q)
    return torch.sigmoid(p) * (one_p - one_q) + torch.sigmoid(-p) * (zero_p - zero_q)


def _log_probabilities(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log sigmoid(z) and log sigmoid(−z), with exact gradients.

    `F.logsigmoid` of both takes three times as long, on account of log1p: it tells probabilities within 1e-7 of 1
    apart, whose logarithms add nothing to a mean.
    """
    size = logits.abs()
    rest = torch.log(1 + torch.exp(-size))
    return (logits - size) / 2 - rest, -(logits + size) / 2 - rest
