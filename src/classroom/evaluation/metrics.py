"""Decisions from probabilities, and metrics from decisions (Eqs. 11–15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COUNTS = ("tp", "fp", "fn", "tn")
METRICS = {"segmentation": ("iou", "f_score"), "classification": ("accuracy", "precision", "recall")}
"""By task; the first is the one by which epochs and weights are chosen."""
LABELS = {
    "iou": "IoU", "f_score": "F-score", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall",
}  # fmt: skip


def decide(probabilities: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) bool of bytes ⌊256·p⌋: lesion where p ≥ 0.5; classes (N,) of (N, classes): the likeliest."""
    return probabilities >= 128 if probabilities.ndim == 3 else probabilities.argmax(axis=1)


def records(decided: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of every image, an entry each: pixel counts of masks, or the class decided and the true one."""
    if decided.ndim == 3:
        return counts(decided, truth)
    return {"decided": decided, "true": truth}


def counts(mask: Any, truth: Any) -> dict[str, Any]:
    """True/false positives/negatives per image; boolean arrays (…, H, W) give counts (…)."""
    return {
        "tp": (mask & truth).sum(axis=(-2, -1)),
        "fp": (mask & ~truth).sum(axis=(-2, -1)),
        "fn": (~mask & truth).sum(axis=(-2, -1)),
        "tn": (~mask & ~truth).sum(axis=(-2, -1)),
    }


def score(per_image: Mapping[str, Any]) -> dict[str, float]:
    """All metrics of a task from `records`, as fractions; the one that chooses comes first."""
    return pooled(per_image) if "tp" in per_image else classified(per_image)


def pooled(per_image: Mapping[str, Any]) -> dict[str, float]:
    """IoU and F-score from counts summed over all images (Eqs. 12, 13).

    Where there is nothing to find (`nothing_to_find`), both are 1 if nothing was found and 0 otherwise.
    """
    tp, fp, fn = (int(sum(per_image[name])) for name in ("tp", "fp", "fn"))
    return {"iou": _ratio(tp, tp + fp + fn), "f_score": _ratio(2 * tp, 2 * tp + fp + fn)}


def nothing_to_find(per_image: Mapping[str, Any]) -> bool:
    """Whether these are pixel counts of masks that are all empty."""
    return "tp" in per_image and not sum(per_image["tp"]) + sum(per_image["fn"])


def classified(per_image: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy, and precision and recall averaged over classes (Eqs. 11, 14, 15).

    The average is over the classes that are true or decided somewhere; one that is never decided has precision 0.
    """
    from sklearn.metrics import precision_score, recall_score

    true, decided = np.asarray(per_image["true"]), np.asarray(per_image["decided"])
    return {
        "accuracy": float((true == decided).mean()),
        "precision": float(precision_score(true, decided, average="macro", zero_division=0)),
        "recall": float(recall_score(true, decided, average="macro", zero_division=0)),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
