"""The published methods' formulas (Table 10) once more, image by image: nothing here comes from classroom.

Only methods that no other library has. Tensors are float64; maps (B, C, H, W), masks (B, 1, H, W) of {0, 1}, logits
(B, 1, H, W).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt().clamp(min=1e-12)


def cosine(a: Tensor, b: Tensor) -> float:
    return (unit(a) @ unit(b)).item()


def mean_square(own: Tensor, other: Tensor) -> float:
    assert own.shape == other.shape
    return ((own - other) ** 2).mean().item()


def two_channels(logits: Tensor) -> Tensor:
    return torch.cat([-logits / 2, logits / 2], dim=1)


def smaller_of(student: Tensor, teacher: Tensor) -> list[Tensor]:
    size = [min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return [F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher)]


def block(maps: Tensor, layers: nn.Sequential) -> Tensor:
    """Convolution padded so that it keeps the size, batch normalisation of this batch, ReLU."""
    weight, normal = layers[0].weight.double(), layers[1]
    maps = F.conv2d(maps, weight, padding=weight.shape[2] // 2)
    return F.relu(F.batch_norm(maps, None, None, normal.weight.double(), normal.bias.double(), training=True))


def attention_vector(feature: Tensor, power: float) -> Tensor:
    """n (vec (mean_c |f_c|^p)) of one image's (C, H, W)."""
    return unit((feature.abs() ** power).mean(dim=0).ravel())


def semantic_calibration(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    embed: Callable[[str, int, Tensor], Tensor],
    regress: Callable[[int, int, Tensor], Tensor],
) -> tuple[float, Tensor]:
    """`embed(side, layer, row)`: MLP of a descriptor; `regress(i, j, maps)`: R_ij. Returns the loss and α (B, i, j)."""
    batch, layers = len(students[0]), range(len(students))
    alike = {
        side: [torch.stack([torch.stack([(a * b).sum() for b in maps]) for a in maps]) for maps in features]
        for side, features in (("student", students), ("teacher", teachers))
    }
    alpha = torch.zeros(batch, len(students), len(teachers), dtype=torch.float64)
    for b, i in itertools.product(range(batch), layers):
        query = unit(embed("student", i, alike["student"][i][b]))
        similar = torch.stack([query @ unit(embed("teacher", j, alike["teacher"][j][b])) for j in layers])
        alpha[b, i] = similar.exp() / similar.exp().sum()
    total = 0.0
    for i, j in itertools.product(layers, layers):
        own, other = smaller_of(students[i], teachers[j])
        own = regress(i, j, own)
        total += sum((alpha[b, i, j] * ((own[b] - other[b]) ** 2).mean()).item() for b in range(batch))
    return total / (batch * len(students)), alpha


def pair_wise(student: Tensor, teacher: Tensor, pool: int) -> float:
    """What is left over at the edge makes a smaller window."""
    affinities = []
    for maps in (student, teacher):
        nodes = F.max_pool2d(maps, pool, ceil_mode=True).flatten(2)
        nodes = nodes / nodes.square().sum(dim=1, keepdim=True).sqrt()
        affinities.append(torch.einsum("bci,bcj->bij", nodes, nodes))
    return mean_square(*affinities)


def intra_class_variation(student: Tensor, teacher: Tensor, masks: Tensor) -> float:
    small = F.interpolate(masks, student.shape[2:], mode="nearest")[:, 0]
    variations = []
    for maps in (student, teacher):
        variation = torch.zeros_like(small)
        for b, k in itertools.product(range(len(maps)), (0, 1)):
            pixels = maps[b][:, small[b] == k]
            if pixels.numel():
                variation[b, small[b] == k] = F.cosine_similarity(pixels, pixels.mean(dim=1, keepdim=True), dim=0)
        variations.append(variation)
    return mean_square(*variations)


def pixel_similarity(students: Sequence[Tensor], teachers: Sequence[Tensor], size: tuple[int, int]) -> float:
    """DSD's residual attention: of maps n(mean_c f²), each brought to `size` before it gets length 1."""
    residuals = []
    for maps in (students, teachers):
        activity = [F.interpolate((one**2).mean(dim=1, keepdim=True), size, mode="bilinear") for one in maps]
        vectors = [[unit(image.ravel()) for image in one] for one in activity]
        pairs = itertools.combinations(vectors, 2)
        residuals.append([torch.stack([unit(b - a) for a, b in zip(*pair, strict=True)]) for pair in pairs])
    return sum(mean_square(a, b) for a, b in zip(*residuals, strict=True)) / len(residuals[0])


def category_similarity(student: Tensor, teacher: Tensor, size: int, temperature: float) -> float:
    grams = []
    for logits in (student, teacher):
        maps = F.adaptive_avg_pool2d(two_channels(logits), size).flatten(2) / temperature
        positions = maps.exp() / maps.exp().sum(dim=2, keepdim=True)
        grams.append(torch.einsum("bki,bli->bkl", positions, positions))
    return mean_square(*grams)


def importance(student: Tensor, teacher: Tensor, power: float) -> float:
    """EMKD's: the sum over positions, mean over the batch."""
    student = F.interpolate(student, teacher.shape[2:], mode="bilinear")
    pairs = [[attention_vector(image, power) for image in pair] for pair in zip(student, teacher, strict=True)]
    return sum(((own - other) ** 2).sum().item() for own, other in pairs) / len(pairs)


def region_affinity(student: Tensor, teacher: Tensor, masks: Tensor) -> float:
    """EMKD's, over the images that show lesion and background at the size of the teacher's map."""
    student = F.interpolate(student, teacher.shape[2:], mode="bilinear")
    small = F.interpolate(masks, teacher.shape[2:], mode="nearest")[:, 0]
    squares = []
    for own, other, mask in zip(student, teacher, small, strict=True):
        if mask.min() < mask.max():
            contrasts = [cosine(one[:, mask == 0].mean(dim=1), one[:, mask == 1].mean(dim=1)) for one in (own, other)]
            squares.append((contrasts[0] - contrasts[1]) ** 2)
    return sum(squares) / len(squares) if squares else 0.0
