"""HD95 against distances between all pairs of boundary pixels, and masks that are empty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from classroom.evaluation.boundary import hd95


def boundary(mask: np.ndarray) -> np.ndarray:
    """(pixels, 2): those with one of four neighbours outside of the mask or of the image."""
    height, width = mask.shape
    found = []
    for y, x in zip(*np.nonzero(mask), strict=True):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        if any(not (0 <= v < height and 0 <= u < width and mask[v, u]) for v, u in around):
            found.append((y, x))
    return np.array(found)


@pytest.mark.parametrize("seed", range(12))
def test_hd95_is_that_of_all_pairs_of_boundary_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    masks = []
    for _ in range(2):  # blobs, some of which touch the image's border or have holes
        y, x, radius = random.integers(0, 24), random.integers(0, 30), random.uniform(1, 9)
        rows, columns = np.ogrid[:24, :30]
        masks.append(
            ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (random.random((24, 30)) > 0.05 * (seed % 3))
        )
    assert all(mask.any() for mask in masks)
    distances = cdist(*map(boundary, masks))
    expected = max(np.percentile(distances.min(axis=side), 95) for side in (0, 1))
    assert hd95(*masks) == pytest.approx(expected)
    assert hd95(*reversed(masks)) == pytest.approx(expected)


def test_the_same_mask_is_at_no_distance_and_a_moved_pixel_as_far_as_it_was_moved() -> None:
    pixel = np.zeros((8, 8), bool)
    pixel[1, 2] = True
    assert hd95(pixel, pixel) == 0
    assert hd95(pixel, np.roll(pixel, (4, 3), axis=(0, 1))) == 5


def test_one_empty_mask_is_the_worst_that_there_is_and_two_are_nothing_to_measure() -> None:
    empty, lesion = np.zeros((6, 8), bool), np.ones((6, 8), bool)
    assert hd95(lesion, empty) == hd95(empty, lesion) == 10
    assert hd95(empty, empty) is None
