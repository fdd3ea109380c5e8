"""IoU and F-score from pixel counts (Eqs. 12, 13)."""

from __future__ import annotations

from typing import Any

COUNTS = ("tp", "fp", "fn", "tn")
METRICS = ("iou", "f_score")
LABELS = {"iou": "IoU", "f_score": "F-score"}


def counts(mask: Any, truth: Any) -> dict[str, Any]:
    """True/false positives/negatives per image; boolean arrays or tensors (…, H, W) give counts (…)."""
    return {
        "tp": (mask & truth).sum(axis=(-2, -1)),
        "fp": (mask & ~truth).sum(axis=(-2, -1)),
        "fn": (~mask & truth).sum(axis=(-2, -1)),
        "tn": (~mask & ~truth).sum(axis=(-2, -1)),
    }


def pooled(per_image: dict[str, Any]) -> dict[str, float]:
    """IoU and F-score from counts summed over all images, as fractions.

    Where there is nothing to find and nothing was found, both are 1.
    """
    tp, fp, fn = (int(sum(per_image[name])) for name in ("tp", "fp", "fn"))
    return {"iou": _ratio(tp, tp + fp + fn), "f_score": _ratio(2 * tp, 2 * tp + fp + fn)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
