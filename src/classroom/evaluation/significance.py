"""Significance of the differences between KD + ML V3 and other methods: a paired bootstrap over groups and seeds.

Images of one patient or lesion are correlated, so whole groups are resampled, and all methods share the samples.
scipy.stats.bootstrap resamples one level only, groups or seeds; here both levels are one matrix product: sums per group
times how often each group was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classroom.artifacts import NetworkName, Result
from classroom.core.metrics import METRICS
from classroom.errors import DataError

SUBJECT = "kd_ml-v3"
VERSUS: dict[str, NetworkName] = {
    "student": "S1",
    **dict.fromkeys(("ml-v1", "kd_off-v1", "kd_on-v1", "kd_ml-v1", "kd_ml-v2"), "ensemble"),
}
"""By method that KD + ML V3's ensemble is compared with, the network to compare."""
REPLICATES = 2000
LEVEL = 0.05
"""Significance level of the adjusted p; intervals cover 95 %."""
FEW_GROUPS = 10


class PairedDifference(NamedTuple):
    """The difference between KD + ML V3's ensemble and another method, in the task's first metric, as a fraction."""

    versus: str
    difference: float
    low: float
    high: float
    p: float
    adjusted_p: float

    @property
    def verdict(self) -> str:
        """In words: better, worse or not significant."""
        if self.adjusted_p >= LEVEL:
            return "not significant"
        return "better" if self.difference > 0 else "worse"


def paired_bootstrap(results: Sequence[Result], seeds: Sequence[int]) -> list[PairedDifference]:
    """Compares KD + ML V3's ensemble with every method of VERSUS among `results`, averaged over `seeds`.

    Gives percentile intervals of 95 %, the two-sided bootstrap p, and p adjusted for the number of comparisons (Holm).
    Empty if V3 or all other methods are missing. Raises DataError if methods were tested on different images.
    """
    by_method = {result["method"]: result for result in results}
    others = [method for method in VERSUS if method in by_method]
    if SUBJECT not in by_method or not others:
        return []
    subject = by_method[SUBJECT]
    ids, groups = _images(subject, seeds[0])
    for result in [subject, *(by_method[method] for method in others)]:
        for seed in seeds:
            if _images(result, seed) != (ids, groups):
                raise DataError(
                    f"results of {result['method']}, seed {seed}, were obtained on other test images than {SUBJECT}'s, "
                    f"so they cannot be compared. Train and evaluate both again: `classroom evaluate {result['study']} "
                    f"{result['method']}`."
                )
    distinct, group_of = np.unique(groups, return_inverse=True)
    ours = _sums(subject, "ensemble", seeds, group_of)
    group_draws, seed_draws = _draws(len(distinct), len(seeds))
    found = []
    for method in others:
        theirs = _sums(by_method[method], VERSUS[method], seeds, group_of)
        observed = float((_ratio(ours.sum(axis=1)) - _ratio(theirs.sum(axis=1))).mean())
        per_seed = _ratio(group_draws @ ours) - _ratio(group_draws @ theirs)
        found.append((method, observed, (per_seed * seed_draws).sum(axis=1)))
    adjusted = holm([_p(replicates) for _, _, replicates in found])
    compared = []
    for (method, observed, replicates), adjusted_p in zip(found, adjusted, strict=True):
        low, high = map(float, np.percentile(replicates, [100 * LEVEL / 2, 100 - 100 * LEVEL / 2]))
        compared.append(PairedDifference(method, observed, low, high, _p(replicates), adjusted_p))
    return compared


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted by Holm's method, in the order given: the k-th smallest of n times n − k + 1, monotone, at most 1."""
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[position]))
        adjusted[position] = largest
    return adjusted


def group_count(result: Result) -> int:
    """The number of groups (patients, lesions) in the test split of a result."""
    return len(set(next(iter(result["seeds"].values()))["test_images"]["group"]))


def _images(result: Result, seed: int) -> tuple[list[str], list[str]]:
    tested = result["seeds"][str(seed)]["test_images"]
    return tested["id"], tested["group"]


def _sums(result: Result, network: NetworkName, seeds: Sequence[int], group_of: np.ndarray) -> np.ndarray:
    """(2, groups, seeds): per group the numerator and denominator of the metric.

    Accuracy: correct images and all images. IoU: pixels of the intersection and of the union.
    """
    task = result["data"]["task"]
    columns = []
    parts: tuple[np.ndarray, np.ndarray]
    for seed in seeds:
        counts = {key: np.asarray(value) for key, value in result["seeds"][str(seed)]["test_images"][network].items()}
        if METRICS[task][0] == "iou":
            parts = counts["tp"], counts["tp"] + counts["fp"] + counts["fn"]
        else:
            parts = counts["predicted"] == counts["true"], np.ones(len(group_of))
        columns.append([np.bincount(group_of, weights=part) for part in parts])
    return np.moveaxis(np.array(columns), 0, -1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First over second along the first axis; 1 where all masks are empty and no pixel was predicted."""
    part, whole = sums
    return np.divide(part, whole, out=np.ones_like(part), where=whole > 0)


def _draws(groups: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each group was drawn, with replacement (REPLICATES, groups); the share of each seed (…, seeds)."""
    random = np.random.default_rng(0)
    drawn = random.integers(groups, size=(REPLICATES, groups)) + groups * np.arange(REPLICATES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=REPLICATES * groups).reshape(REPLICATES, groups)
    return times.astype(float), random.multinomial(seeds, [1 / seeds] * seeds, REPLICATES) / seeds


def _p(replicates: np.ndarray) -> float:
    """Two-sided p: twice the smaller share of replicates on either side of 0, one added to each count."""
    sides = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    return min(1.0, 2 * (1 + sides) / (1 + len(replicates)))
