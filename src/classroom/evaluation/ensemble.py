"""The ensemble of the students (Secs. 3.2, 3.3)."""

from __future__ import annotations

import numpy as np

STUDENTS = ("S1", "S2")


def with_ensemble(probabilities: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`probabilities` by network, and as `ensemble` the larger of the students' where there are two.

    For classes that is the paper's maximum rule; for masks, thresholded, the union of both students'.
    """
    if all(student in probabilities for student in STUDENTS):
        return {**probabilities, "ensemble": np.maximum(*(probabilities[student] for student in STUDENTS))}
    return dict(probabilities)
