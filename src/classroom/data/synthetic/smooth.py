"""Smooth random fields: tissue, skin, uneven borders."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import zoom


def smooth(random: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A smooth random field (size, size) with values of about [−1, 1].

    Parameters
    ----------
    random
        source of the random numbers
    size
        pixels along a side
    cells
        approximate number of bumps along a side
    """
    coarse = random.uniform(-1, 1, size=(cells + 2, cells + 2))
    return zoom(coarse, size / (cells + 2), order=3, grid_mode=True, mode="nearest")[:size, :size]
