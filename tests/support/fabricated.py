"""Results as `classroom evaluate` writes them, with whatever quality a test wants, without any training."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from classroom.artifacts import Metrics
from classroom.core.metrics import score
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import VARIANTS

GROUPS, EACH = 20, 5
"""Test images: so many groups, with so many images each; a quality in hundredths is met exactly."""
UNION = 1000
"""Pixels of the union of ground truth and prediction in an image."""

LGG = {
    "dataset": "lgg",
    "source": "directory",
    "synthetic": False,
    "task": "segmentation",
    "group": "patient",
    "images": 3929,
    "groups": 110,
    "labels": {"with foreground": 1373, "without foreground": 2556},
    "image_size": 128,
    "split": {"percent": [75, 10, 15], "by": "group", "seed": 4},
    "train": 2946,
    "val": 393,
    "test": 100,
    "lacking": {},
}
HISTOPATHOLOGIC = LGG | {
    "dataset": "histopathologic",
    "task": "classification",
    "group": "image",
    "images": 20000,
    "groups": 20000,
    "labels": {"negative": 10000, "positive": 10000},
    "split": {"percent": [75, 10, 15], "by": "image", "seed": 0},
}
HAM10000 = LGG | {
    "dataset": "ham10000",
    "task": "classification",
    "group": "lesion",
    "images": 10015,
    "groups": 7470,
    "labels": {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142},
}
TRAINING = {"epochs": 12, "batch_size": 8, "learning_rate": 0.0001, "precision": "fp32", "threads": 2}


def metrics_of(**facts: Any) -> dict[str, Any]:
    """A run's metrics.json with these facts, and null for those that a test does not read."""
    return dict.fromkeys(sorted(Metrics.__required_keys__)) | facts


def network(encoder: str = "resnet18", parameters: int = 14_328_209, **changes: Any) -> dict[str, Any]:
    """The facts of a U-Net."""
    facts = {"task": "segmentation", "encoder": encoder, "encoder_options": {}, "weights": "hub"}
    return facts | {"decoder_channels": [256, 128, 64, 32, 16], "parameters": parameters} | changes


def classifier(encoder: str = "resnet18", parameters: int = 11_177_538, **changes: Any) -> dict[str, Any]:
    facts = {"task": "classification", "encoder": encoder, "encoder_options": {}, "weights": "hub"}
    return facts | {"parameters": parameters} | changes


TEACHER = network("resnet50", 32_521_105)
MOBILENET = network("tu-mobilenetv1_100", 8_312_465)
CLASSIFYING_TEACHER = classifier("resnet50.tv_in1k", 24_561_223, conv6_channels=512)


def per_image_counts(task: str, quality: float, classes: int, random: np.random.Generator) -> dict[str, list[int]]:
    """Of every test image, so that pooled IoU or accuracy are `quality`, in an order that `random` draws."""
    count = GROUPS * EACH
    if task == "segmentation":
        tp = np.full(count, round(UNION * quality))
        return {"tp": tp.tolist(), "fp": (UNION - tp).tolist(), "fn": [0] * count, "tn": [0] * count}
    true = np.arange(count) % classes
    wrong = np.zeros(count, bool)
    wrong[random.permutation(count)[: round(count * (1 - quality))]] = True
    return {"predicted": np.where(wrong, (true + 1) % classes, true).tolist(), "true": true.tolist()}


def result(
    method: str,
    qualities: dict[str, list[float]],
    data: dict[str, Any] = LGG,
    study: str = "lgg-resnet18",
    fidelity: float = 0.9,
    **changes: Any,
) -> dict[str, Any]:
    """A method's results of seeds 0, 1, …, from each network's test IoU or accuracy by seed."""
    task, classes = data["task"], len(data["labels"])
    facts = {"segmentation": (TEACHER, network()), "classification": (CLASSIFYING_TEACHER, classifier())}[task]
    seeds = {}
    for seed in range(len(next(iter(qualities.values())))):
        random = np.random.default_rng([seed, zlib.crc32(method.encode())])
        found = {name: per_image_counts(task, values[seed], classes, random) for name, values in qualities.items()}
        test = {name: score(kept) for name, kept in found.items()}
        taught = [name for name in qualities if name != "T"] if "T" in qualities and len(qualities) > 1 else []
        seeds[str(seed)] = {
            "predictions": "of no run",
            "test": test,
            "last_epoch_test": {name: {key: value / 2 for key, value in s.items()} for name, s in test.items()},
            "fidelity": {name: {metric: fidelity for metric in test[name]} for name in taught},
            "test_images": {
                "id": [f"image-{index}" for index in range(GROUPS * EACH)],
                "group": [f"group-{index // EACH}" for index in range(GROUPS * EACH)],
                **found,
            },
        }
    settings = {"training": TRAINING, "balance": "none", "losses": {}}
    if method in EXCHANGE:
        weights = {"S1": {"alpha": 0.1, "beta": 0.0, "gamma": 0.9}, "S2": {"alpha": 0.2, "beta": 0.0, "gamma": 0.8}}
        settings["weights"] = weights
    return {
        "study": study,
        "method": method,
        "data": data,
        "networks": {name: facts[name != "T"] for name in qualities if name != "ensemble"},
        "settings": settings,
        "seeds": seeds,
    } | changes


def students(first: list[float], second: list[float], ensemble: list[float]) -> dict[str, list[float]]:
    return {"S1": first, "S2": second, "ensemble": ensemble}


def alone(method: str, qualities: list[float], facts: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A baseline's results."""
    name = {"teacher": "T", "student": "S1"}[method]
    if facts:
        changes["networks"] = {name: facts}
    return result(method, {name: qualities}, **changes)


def all_twelve(seeds: int = 3, data: dict[str, Any] = LGG, **changes: Any) -> list[dict[str, Any]]:
    """Every variant, of whole hundredths around 0.8, KD + ML V3 the best."""
    results = []
    for number, name in enumerate(VARIANTS):
        values = {
            network: [0.70 + (7 * number + 3 * seed + shift) % 10 / 100 for seed in range(seeds)]
            for shift, network in enumerate(("T", "S1", "S2", "ensemble"))
            if network != "T" or not name.startswith("ml-")
        }
        if name == "kd_ml-v3":
            values["ensemble"] = [value + 0.12 for value in values["ensemble"]]
        results.append(result(name, values, data, **changes))
    return results
