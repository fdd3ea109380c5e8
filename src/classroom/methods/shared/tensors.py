"""What the losses of published methods are made of. Each function loads torch when it is called; see `published`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference over all elements."""
    import torch.nn.functional as F

    return F.mse_loss(student, teacher)


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """The same vectors, along `dim`, with length 1."""
    import torch.nn.functional as F

    return F.normalize(vectors, dim=dim)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """The cosine between vectors along dimension 1."""
    import torch.nn.functional as F

    return F.cosine_similarity(first, second, dim=1)


def attention(feature: Tensor, power: float) -> Tensor:
    """The attention map of a feature map (B, C, H, W): mean_c |f|^power as a unit vector per sample (B, H·W)."""
    return unit(feature.abs().pow(power).mean(dim=1).flatten(1))


def softened_divergence(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student), mean over the batch or, for segmentation, over all pixels.

    Parameters
    ----------
    logits : (B, 1, H, W), or (B, classes)
        the student's
    target : as `logits`
        the teacher's
    temperature
        T

    References
    ----------
    Hinton et al., 2015, arXiv 1503.02531
    """
    from classroom.core.losses import prediction_loss
    from classroom.params import PredictionLoss

    settings = PredictionLoss(
        temperature=temperature, direction="target||student", multiply_by_squared_temperature=True
    )
    return prediction_loss(logits, target, settings)


def two_channels(logits: Tensor) -> Tensor:
    """One logit z per pixel (B, 1, H, W) as two, [−z/2, z/2]: their softmax is [1 − σ(z), σ(z)].

    Raises TrainingError for more than one channel.
    """
    import torch

    if logits.shape[1] != 1:
        raise TrainingError(f"expected one logit per pixel, not {logits.shape[1]} channels.")
    return torch.cat([-logits / 2, logits / 2], dim=1)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Pools the larger map to the size of the smaller one.

    Raises TrainingError if one is higher and the other wider.
    """
    import torch.nn.functional as F

    (*_, height, width), (*_, teacher_height, teacher_width) = student.shape, teacher.shape
    student_size, teacher_size = (height, width), (teacher_height, teacher_width)
    check_sizes(student_size, teacher_size)
    if student_size > teacher_size:
        return F.adaptive_avg_pool2d(student, teacher_size), teacher
    if student_size < teacher_size:
        return student, F.adaptive_avg_pool2d(teacher, student_size)
    return student, teacher


def check_sizes(student: tuple[int, int], teacher: tuple[int, int]) -> None:
    """Raises TrainingError if neither map can be pooled to the other."""
    if (student[0] - teacher[0]) * (student[1] - teacher[1]) < 0:
        raise TrainingError(
            f"feature maps of {student[0]}×{student[1]} and {teacher[0]}×{teacher[1]} cannot be matched by pooling. "
            "Choose another tap."
        )


def interpolated(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, H, W) at another size, bilinearly."""
    import torch.nn.functional as F

    return F.interpolate(maps, size=tuple(size), mode="bilinear")


def resized(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (B, 1, H, W) at another size, by nearest neighbour."""
    import torch.nn.functional as F

    return F.interpolate(masks.float(), size=tuple(size), mode="nearest")


def lost_foreground(masks: Tensor, size: Sequence[int]) -> list[str]:
    """A sentence on how many masks lose their whole foreground when resized to `size`; empty if none does."""
    marked = masks[(masks > 0).flatten(1).any(dim=1)]
    if not len(marked):
        return []
    lost = int((~resized(marked, size).flatten(1).any(dim=1)).sum())
    if not lost:
        return []
    return [
        f"at {size[0]}×{size[1]}, the size of the features that are compared, {lost} of {len(marked)} training "
        "masks lose their whole foreground"
    ]


def block(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU.

    Parameters
    ----------
    inputs, outputs
        channels
    kernel
        odd size of the convolution, which keeps the size of the map
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
