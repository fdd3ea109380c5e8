"""Predicted labels from probabilities, and metrics from labels (Eqs. 11–15)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COUNTS = ("tp", "fp", "fn", "tn")
METRICS = {"segmentation": ("iou", "f_score"), "classification": ("accuracy", "precision", "recall")}
"""By task; the first one selects epochs and weights."""
LABELS = {
    "iou": "IoU", "f_score": "F-score", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall",
}  # fmt: skip


def predict_labels(probabilities: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) bool from bytes ⌊256·p⌋, where p ≥ 0.5; or the likeliest class (N,) of (N, classes)."""
    return probabilities >= 128 if probabilities.ndim == 3 else probabilities.argmax(axis=1)


def per_image_counts(predicted: np.ndarray, ground_truth: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored for every image: the pixel counts of masks (N, H, W), or predicted and true class (N,)."""
    if predicted.ndim == 3:
        return pixel_counts(predicted, ground_truth)
    return {"predicted": predicted, "true": ground_truth}


def pixel_counts(mask: Any, ground_truth: Any) -> dict[str, Any]:
    """True/false positives/negatives per image; boolean arrays (…, H, W) give counts (…)."""
    return {
        "tp": (mask & ground_truth).sum(axis=(-2, -1)),
        "fp": (mask & ~ground_truth).sum(axis=(-2, -1)),
        "fn": (~mask & ground_truth).sum(axis=(-2, -1)),
        "tn": (~mask & ~ground_truth).sum(axis=(-2, -1)),
    }


def score(per_image: Mapping[str, Any]) -> dict[str, float]:
    """All metrics of a task from `per_image_counts`, as fractions, in the order of METRICS."""
    return segmentation_metrics(per_image) if "tp" in per_image else classification_metrics(per_image)


def segmentation_metrics(per_image: Mapping[str, Any]) -> dict[str, float]:
    """IoU and F-score from counts summed over all images (Eqs. 12, 13).

    If all masks are empty (`all_masks_empty`), both are 1 if no pixel was predicted and 0 otherwise.
    """
    tp, fp, fn = (int(sum(per_image[name])) for name in ("tp", "fp", "fn"))
    return {"iou": _ratio(tp, tp + fp + fn), "f_score": _ratio(2 * tp, 2 * tp + fp + fn)}


def all_masks_empty(per_image: Mapping[str, Any]) -> bool:
    """Whether these are pixel counts and no ground-truth mask has a pixel."""
    return "tp" in per_image and not sum(per_image["tp"]) + sum(per_image["fn"])


def classification_metrics(per_image: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy, and precision and recall averaged over classes (Eqs. 11, 14, 15).

    The average is over the classes that occur among the true or the predicted ones; a class that is never predicted
    has precision 0.
    """
    from sklearn.metrics import precision_score, recall_score

    true, predicted = np.asarray(per_image["true"]), np.asarray(per_image["predicted"])
    return {
        "accuracy": float((true == predicted).mean()),
        "precision": float(precision_score(true, predicted, average="macro", zero_division=0)),
        "recall": float(recall_score(true, predicted, average="macro", zero_division=0)),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
