"""The ensemble of the students (Secs. 3.2, 3.3)."""

from __future__ import annotations

import numpy as np

STUDENTS = ("S1", "S2")


def with_ensemble(probabilities: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`probabilities` by network, and as `ensemble` the elementwise maximum of both students', if there are two.

    For classes this is the paper's maximum rule; thresholded masks become the union of both students' masks.
    """
    if all(student in probabilities for student in STUDENTS):
        return {**probabilities, "ensemble": np.maximum(*(probabilities[student] for student in STUDENTS))}
    return dict(probabilities)
