"""The ensemble of the students (Sec. 3.3)."""

from __future__ import annotations

from typing import Any

STUDENTS = ("S1", "S2")


def with_ensemble(masks: dict[str, Any]) -> dict[str, Any]:
    """`masks` by network, and the union of both students' as `ensemble` where there are two.

    Boolean arrays or tensors of one shape: a pixel is lesion if either student says so.
    """
    if all(student in masks for student in STUDENTS):
        return {**masks, "ensemble": masks["S1"] | masks["S2"]}
    return dict(masks)
