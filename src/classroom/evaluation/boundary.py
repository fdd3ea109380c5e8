"""HD95, the distance between two masks' boundaries."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def hd95(mask: np.ndarray, ground_truth: np.ndarray) -> float | None:
    """The larger of the two directed 95th-percentile distances between the masks' boundaries, in pixels.

    The boundary of a mask is its pixels with at least one of their four neighbours outside the mask. If one mask is
    empty, the result is the image's diagonal, the worst value; if both are, it is None.

    Parameters
    ----------
    mask, ground_truth : (H, W) bool
        the predicted and the true mask

    References
    ----------
    Maier-Hein et al. 2024, Metrics Reloaded, Nature Methods 21, doi:10.1038/s41592-023-02151-z
    """
    union = mask | ground_truth
    if not union.any():
        return None
    if not (mask.any() and ground_truth.any()):
        return float(np.hypot(*mask.shape))
    # All boundaries are in the smallest box around both masks, and a mask ends where the box does.
    box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(union))
    first, second = (of[box] & ~binary_erosion(of[box]) for of in (mask, ground_truth))
    there, back = distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))
