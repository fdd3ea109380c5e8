"""The paper's losses (Eqs. 1–10). All take logits or features of a whole batch and return a scalar.

Logits are (B, 1, H, W), one sigmoid channel, for segmentation and (B, classes) for classification. Losses are computed
in float32 for networks of any precision. The caller detaches the targets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from classroom.errors import TrainingError
from classroom.params import PredictionLoss, TaskLoss


def task_loss(logits: torch.Tensor, targets: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """Focal + Dice loss L_FD for segmentation, cross-entropy for classification.

    Parameters
    ----------
    logits : (B, 1, H, W), or (B, classes)
        before the sigmoid or softmax
    targets : (B, 1, H, W) of {0, 1}, or (B,)
        masks, or class indices
    settings
        `losses.task`

    References
    ----------
    Eq. 8 (segmentation), Eq. 2 (classification)
    """
    logits = logits.float()
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets)
    return focal_loss(logits, targets, settings) + dice_loss(logits, targets)


def focal_loss(logits: torch.Tensor, masks: torch.Tensor, settings: TaskLoss) -> torch.Tensor:
    """The focal loss, over all pixels of the batch.

    Parameters
    ----------
    logits : (B, 1, H, W)
        before the sigmoid
    masks : (B, 1, H, W) of {0, 1}
        1 is foreground
    settings
        `focal_form`: `binary` is the mean over all pixels, as in Lin et al.; `printed` is the sum over the foreground.

    References
    ----------
    Eq. 8, first term; Lin et al., ICCV 2017
    """
    right, wrong = _log_probabilities(logits * (2 * masks - 1))  # of the logit of the pixel's true class
    # (1 − p)^τ as an exponential: the gradient of a power is infinite for 1 − p = 0 and τ < 1.
    terms = -torch.exp(settings.focal_gamma * wrong) * right
    if settings.focal_form == "printed":
        return (terms * masks).sum()
    return terms.mean()


def dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The Dice loss with squared denominators, over all pixels of the batch (Eq. 8, second term).

    1 for a batch without foreground; the small constant only prevents 0/0.
    """
    probabilities = torch.sigmoid(logits)
    overlap = (probabilities * masks).sum()
    return 1 - 2 * overlap / (probabilities.square().sum() + masks.square().sum() + 1e-7)


def prediction_loss(logits: torch.Tensor, target: torch.Tensor, settings: PredictionLoss) -> torch.Tensor:
    """L_KD_p and L_ML_p: the KL divergence of temperature-softened predictions.

    Classification: of the softmax distributions, mean over the batch. Segmentation: of a Bernoulli distribution per
    pixel, mean over all pixels.

    Parameters
    ----------
    logits : (B, 1, H, W), or (B, classes)
        the student's
    target : (B, 1, H, W), or (B, classes)
        the teacher's or the peer's, detached
    settings
        `losses.prediction`

    References
    ----------
    Eqs. 1, 3, 5
    """
    student = logits.float() / settings.temperature
    other = target.float() / settings.temperature
    p, q = (student, other) if settings.direction == "student||target" else (other, student)
    divergence = _categorical(p, q) if logits.ndim == 2 else _bernoulli(p, q)
    factor = settings.temperature**2 if settings.multiply_by_squared_temperature else 1.0
    return factor * divergence.mean()


def feature_loss(feature: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L_KD_f and L_ML_f (Sec. 3.2): mean squared error of two feature maps (B, C, H, W), over all elements.

    Raises TrainingError for maps of different shapes.
    """
    if feature.shape != target.shape:
        raise TrainingError(
            f"the feature maps to compare have shapes {tuple(feature.shape[1:])} and {tuple(target.shape[1:])}. Set "
            "the study's teacher.conv6_channels (classification) or decoder_channels (segmentation) so that they agree."
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

    Three times as fast as two calls of `F.logsigmoid`, whose log1p only matters for probabilities within 1e-7 of 1;
    their logarithms add nothing to a mean.
    """
    size = logits.abs()
    rest = torch.log(1 + torch.exp(-size))
    return (logits - size) / 2 - rest, -(logits + size) / 2 - rest
