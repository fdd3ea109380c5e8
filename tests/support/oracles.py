"""The published methods' formulas (Table 10) in float64 numpy, slow and literal: nothing here comes from classroom.

Maps are (B, C, H, W), masks (B, 1, H, W) of {0, 1}, logits (B, classes) or (B, 1, H, W).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

Array = np.ndarray


# What the formulas are made of


def unit(vector: Array) -> Array:
    return vector / max(math.sqrt(sum(float(v) ** 2 for v in vector)), 1e-12)


def softmax(values: Array) -> Array:
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def divergence(p: Array, q: Array) -> float:
    """Σ p log (p/q)."""
    return sum(a * math.log(a / b) for a, b in zip(p.ravel(), q.ravel(), strict=True) if a > 0)


def cosine(a: Array, b: Array) -> float:
    return float(np.dot(unit(a), unit(b)))


def adaptive_pooled(maps: Array, size: tuple[int, int]) -> Array:
    """Average pooling to a size: bin i reaches from ⌊i·H/h⌋ to ⌈(i+1)·H/h⌉."""
    height, width = maps.shape[2:]
    result = np.zeros((*maps.shape[:2], *size))
    for i, j in itertools.product(range(size[0]), range(size[1])):
        rows = slice(i * height // size[0], -(-(i + 1) * height // size[0]))
        columns = slice(j * width // size[1], -(-(j + 1) * width // size[1]))
        result[:, :, i, j] = maps[:, :, rows, columns].mean(axis=(2, 3))
    return result


def smaller_of(student: Array, teacher: Array) -> tuple[Array, Array]:
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return adaptive_pooled(student, size), adaptive_pooled(teacher, size)


def max_pooled(maps: Array, kernel: int) -> Array:
    """What is left over at the edge makes a smaller window."""
    height, width = (-(-side // kernel) for side in maps.shape[2:])
    result = np.zeros((*maps.shape[:2], height, width))
    for i, j in itertools.product(range(height), range(width)):
        window = maps[:, :, i * kernel : (i + 1) * kernel, j * kernel : (j + 1) * kernel]
        result[:, :, i, j] = window.max(axis=(2, 3))
    return result


def nearest(masks: Array, size: tuple[int, int]) -> Array:
    rows = [i * masks.shape[2] // size[0] for i in range(size[0])]
    columns = [j * masks.shape[3] // size[1] for j in range(size[1])]
    return masks[:, :, rows][:, :, :, columns]


def bilinear(maps: Array, size: tuple[int, int]) -> Array:
    """Pixels are areas: the centre of i in the result lies at (i + ½)·H/h − ½ in the source."""
    for axis, length in ((2, size[0]), (3, size[1])):
        source, parts = maps.shape[axis], []
        for i in range(length):
            place = max((i + 0.5) * source / length - 0.5, 0.0)
            low = min(int(place), source - 1)
            high = min(low + 1, source - 1)
            share = place - low
            parts.append((1 - share) * maps.take(low, axis) + share * maps.take(high, axis))
        maps = np.stack(parts, axis)
    return maps


def convolved(maps: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0) -> Array:
    maps = np.pad(maps, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    outputs, _, high, wide = weight.shape
    height, width = ((side - k) // stride + 1 for side, k in zip(maps.shape[2:], (high, wide), strict=True))
    result = np.zeros((len(maps), outputs, height, width))
    for i, j in itertools.product(range(height), range(width)):
        window = maps[:, :, i * stride : i * stride + high, j * stride : j * stride + wide]
        result[:, :, i, j] = window.reshape(len(maps), -1) @ weight.reshape(outputs, -1).T
    return result if bias is None else result + bias[None, :, None, None]


def transposed_convolved(maps: Array, weight: Array, bias: Array | None, stride: int, padding: int) -> Array:
    """Every input pixel stamps the kernel (inputs, outputs, k, k), multiplied by its value, on the result."""
    batch, inputs, height, width = maps.shape
    kernel = weight.shape[2]
    result = np.zeros((batch, weight.shape[1], (height - 1) * stride + kernel, (width - 1) * stride + kernel))
    for b, c, i, j in itertools.product(range(batch), range(inputs), range(height), range(width)):
        result[b, :, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += maps[b, c, i, j] * weight[c]
    if padding:
        result = result[:, :, padding:-padding, padding:-padding]
    return result if bias is None else result + bias[None, :, None, None]


def batch_normalised(maps: Array, weight: Array, bias: Array) -> Array:
    """With the statistics of this batch, as in training."""
    result = np.empty_like(maps)
    for c in range(maps.shape[1]):
        values = maps[:, c]
        result[:, c] = (values - values.mean()) / math.sqrt(values.var() + 1e-5) * weight[c] + bias[c]
    return result


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def two_channels(logits: Array) -> Array:
    return np.concatenate([-logits / 2, logits / 2], axis=1)


# Prediction losses


def softened_kl(student: Array, teacher: Array, temperature: float) -> float:
    """T²/B Σ_b Σ_c p_c log (p_c/q_c), the teacher's p first."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        total += divergence(softmax(z_t / temperature), softmax(z_s / temperature))
    return temperature**2 * total / len(student)


def pixel_kl(student: Array, teacher: Array, temperature: float, offset: float = -0.5) -> float:
    """The same of two channels [offset·z, (1 + offset)·z] a pixel, mean over all pixels of all images."""
    p, q = [], []
    for found, logits in ((q, student), (p, teacher)):
        powers = [np.exp(share * logits / temperature) for share in (offset, 1 + offset)]
        found.extend(power / (powers[0] + powers[1]) for power in powers)
    per_pixel = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
    return float(temperature**2 * per_pixel.mean())


# One per method, in the order of Table 10


def mean_square(student: Array, teacher: Array) -> float:
    assert student.shape == teacher.shape
    return sum((float(a) - float(b)) ** 2 for a, b in zip(student.ravel(), teacher.ravel(), strict=True)) / student.size


def attention_vector(feature: Array, power: float) -> Array:
    """n (vec (mean_c |f_c|^p)) of one image's (C, H, W)."""
    channels, height, width = feature.shape
    activity = [
        sum(abs(feature[c, i, j]) ** power for c in range(channels)) / channels
        for i in range(height) for j in range(width)
    ]  # fmt: skip
    return unit(np.array(activity))


def attention_transfer(students: list[Array], teachers: list[Array], power: float) -> float:
    total = 0.0
    for student, teacher in zip(students, teachers, strict=True):
        student, teacher = smaller_of(student, teacher)
        rows = [attention_vector(s, power) - attention_vector(t, power) for s, t in zip(student, teacher, strict=True)]
        total += float(np.mean(np.array(rows) ** 2))
    return total


def similarity_preserving(student: Array, teacher: Array) -> float:
    batch = len(student)
    grams = []
    for feature in (student, teacher):
        gram = np.array([[np.sum(feature[a] * feature[b]) for b in range(batch)] for a in range(batch)])
        grams.append(np.array([unit(row) for row in gram]))
    return float(((grams[1] - grams[0]) ** 2).sum()) / batch**2


def variational(means: list[Array], teachers: list[Array], variances: list[Array]) -> float:
    """`means`: what was predicted of each teacher map; `variances`: per channel."""
    total = 0.0
    for mean, teacher, variance in zip(means, teachers, variances, strict=True):
        terms = [
            0.5 * ((mean[b, c, i, j] - teacher[b, c, i, j]) ** 2 / variance[c] + math.log(variance[c]))
            for b, c, i, j in itertools.product(*map(range, teacher.shape))
        ]
        total += sum(terms) / len(terms)
    return total


def semantic_calibration(student: list[Array], teacher: list[Array], embed, regress) -> tuple[float, Array]:
    """`embed(side, layer, row)`: MLP of a descriptor; `regress(i, j, maps)`: R_ij. Returns the loss and α (B, i, j)."""
    batch = len(student[0])
    similar = {
        side: [np.array([[np.sum(f[a] * f[b]) for b in range(batch)] for a in range(batch)]) for f in features]
        for side, features in (("student", student), ("teacher", teacher))
    }
    alpha = np.zeros((batch, len(student), len(teacher)))
    for b, i in itertools.product(range(batch), range(len(student))):
        query = unit(embed("student", i, similar["student"][i][b]))
        keys = [unit(embed("teacher", j, similar["teacher"][j][b])) for j in range(len(teacher))]
        alpha[b, i] = softmax(np.array([np.dot(query, key) for key in keys]))
    total = 0.0
    for i, j in itertools.product(range(len(student)), range(len(teacher))):
        own, other = smaller_of(student[i], teacher[j])
        own = regress(i, j, own)
        for b in range(batch):
            total += alpha[b, i, j] * float(np.mean((own[b] - other[b]) ** 2))
    return total / (batch * len(student)), alpha


def pair_wise(student: Array, teacher: Array, pool: int) -> float:
    affinities = []
    for feature in (student, teacher):
        nodes = max_pooled(feature, pool)
        nodes = nodes.reshape(*nodes.shape[:2], -1)
        count = nodes.shape[2]
        affinities.append(
            [[[cosine(image[:, i], image[:, j]) for j in range(count)] for i in range(count)] for image in nodes]
        )
    return float(np.mean((np.array(affinities[0]) - np.array(affinities[1])) ** 2))


def intra_class_variation(student: Array, teacher: Array, masks: Array) -> float:
    small = nearest(masks, student.shape[2:])
    variations = []
    for feature in (student, teacher):
        batch, _, height, width = feature.shape
        variation = np.zeros((batch, height, width))
        for b in range(batch):
            for k in (0, 1):
                places = np.argwhere(small[b, 0] == k)
                prototype = sum(feature[b, :, i, j] for i, j in places) / (len(places) + 1e-6) if len(places) else None
                for i, j in places:
                    variation[b, i, j] = cosine(feature[b, :, i, j], prototype)
        variations.append(variation)
    return float(np.mean((variations[0] - variations[1]) ** 2))


def channel_wise(student: Array, teacher: Array, temperature: float) -> float:
    batch, channels = student.shape[:2]
    total = 0.0
    for b, c in itertools.product(range(batch), range(channels)):
        total += divergence(softmax(teacher[b, c].ravel() / temperature), softmax(student[b, c].ravel() / temperature))
    return temperature**2 * total / (batch * channels)


def pixel_similarity(students: list[Array], teachers: list[Array], size: tuple[int, int]) -> float:
    """DSD's residual attention: of maps n(mean_c f²), each brought to `size` before it gets length 1."""
    residuals = []
    for maps in (students, teachers):
        vectors = []
        for feature in maps:
            activity = bilinear((feature**2).mean(axis=1, keepdims=True), size)
            vectors.append([unit(image.ravel()) for image in activity])
        pairs = list(itertools.combinations(range(len(maps)), 2))
        residuals.append([[unit(b - a) for a, b in zip(vectors[m], vectors[n], strict=True)] for m, n in pairs])
    own, other = (np.array(values) for values in residuals)
    count = len(students)
    return 2 / (count * (count - 1)) * float(sum(np.mean((a - b) ** 2) for a, b in zip(own, other, strict=True)))


def category_similarity(student: Array, teacher: Array, size: int, temperature: float) -> float:
    grams = []
    for logits in (student, teacher):
        maps = adaptive_pooled(two_channels(logits), (size, size))
        gram = []
        for image in maps:
            positions = [softmax(channel.ravel() / temperature) for channel in image]
            gram.append([[float(np.dot(a, b)) for b in positions] for a in positions])
        grams.append(np.array(gram))
    return float(np.mean((grams[0] - grams[1]) ** 2))


def importance(student: Array, teacher: Array, power: float) -> float:
    """EMKD's: the sum over positions, mean over the batch."""
    student = bilinear(student, teacher.shape[2:])
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        total += float(((attention_vector(own, power) - attention_vector(other, power)) ** 2).sum())
    return total / len(student)


def region_affinity(student: Array, teacher: Array, masks: Array) -> float:
    """EMKD's, over the images that show lesion and background at the size of the teacher's map."""
    student = bilinear(student, teacher.shape[2:])
    small = nearest(masks, teacher.shape[2:])
    squares = []
    for own, other, mask in zip(student, teacher, small[:, 0], strict=True):
        if mask.min() == mask.max():
            continue
        contrasts = []
        for feature in (own, other):
            lesion = (feature * mask).sum(axis=(1, 2)) / (mask.sum() + 1)
            background = (feature * (1 - mask)).sum(axis=(1, 2)) / (1 - mask).sum()
            contrasts.append(cosine(background, lesion))
        squares.append((contrasts[0] - contrasts[1]) ** 2)
    return sum(squares) / len(squares) if squares else 0.0
