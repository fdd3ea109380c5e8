"""The ensemble of the students (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any


def union(masks: Sequence[Any]) -> Any:
    """Segmentation: a pixel is lesion if any network says so; boolean arrays or tensors of one shape."""
    return reduce(lambda a, b: a | b, masks)
