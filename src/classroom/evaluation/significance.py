"""Whether KD + ML V3 differs from the others by more than chance: a paired bootstrap over test groups and seeds.

The images of one patient or lesion are alike, so whole groups are drawn, never images; and all methods are judged on
the same draws. scipy.stats.bootstrap draws one level only, groups or seeds; the two levels here are sums of groups
times how often each was drawn, one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classroom.artifacts import NetworkName, Result
from classroom.errors import DataError
from classroom.evaluation.metrics import METRICS

SUBJECT = "kd_ml-v3"
VERSUS: dict[str, NetworkName] = {
    "student": "S1",
    **dict.fromkeys(("ml-v1", "kd_off-v1", "kd_on-v1", "kd_ml-v1", "kd_ml-v2"), "ensemble"),
}
"""Methods that KD + ML V3's ensemble is compared with, and which of their networks."""
REPLICATES = 2000
LEVEL = 0.05
"""Differences whose adjusted p is below it count as told apart; intervals cover the rest, 95 %."""
FEW_GROUPS = 10


class Comparison(NamedTuple):
    """KD + ML V3's ensemble minus another method, in the task's first metric, as fractions."""

    versus: str
    difference: float
    low: float
    high: float
    p: float
    adjusted_p: float

    @property
    def verdict(self) -> str:
        if self.adjusted_p >= LEVEL:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


def compare(results: Sequence[Result], seeds: Sequence[int]) -> list[Comparison]:
    """KD + ML V3's ensemble against every method of VERSUS among `results`, averaged over `seeds`.

    Percentile intervals of 95 %, two-sided bootstrap p, and p adjusted for the number of comparisons (Holm). Empty
    where V3 or all others are missing. Raises DataError if the methods were tested on different images.
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
                    f"results of {result['method']}, seed {seed}, are of other test images than {SUBJECT}'s, so they "
                    f"cannot be compared. Train and evaluate both again: `classroom evaluate {result['study']} "
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
        compared.append(Comparison(method, observed, low, high, _p(replicates), adjusted_p))
    return compared


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjustment for several comparisons, in the order given: the k-th smallest of n times n − k + 1.

    No adjusted p is below that of a smaller p, nor above 1.
    """
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[position]))
        adjusted[position] = largest
    return adjusted


def group_count(result: Result) -> int:
    """How many groups (patients, lesions) a result was tested on."""
    return len(set(next(iter(result["seeds"].values()))["test_images"]["group"]))


def _images(result: Result, seed: int) -> tuple[list[str], list[str]]:
    tested = result["seeds"][str(seed)]["test_images"]
    return tested["id"], tested["group"]


def _sums(result: Result, network: NetworkName, seeds: Sequence[int], group_of: np.ndarray) -> np.ndarray:
    """(2, groups, seeds): per group the two numbers whose ratio is the metric.

    Correct images and images give accuracy; pixels of the intersection and of the union give pooled IoU.
    """
    task = result["data"]["task"]
    columns = []
    parts: tuple[np.ndarray, np.ndarray]
    for seed in seeds:
        kept = {key: np.asarray(value) for key, value in result["seeds"][str(seed)]["test_images"][network].items()}
        if METRICS[task][0] == "iou":
            parts = kept["tp"], kept["tp"] + kept["fp"] + kept["fn"]
        else:
            parts = kept["decided"] == kept["true"], np.ones(len(group_of))
        columns.append([np.bincount(group_of, weights=part) for part in parts])
    return np.moveaxis(np.array(columns), 0, -1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First over second along the first axis; 1 where there is nothing to find and nothing was found."""
    part, whole = sums
    return np.divide(part, whole, out=np.ones_like(part), where=whole > 0)


def _draws(groups: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """(REPLICATES, groups): how often each was drawn, with replacement; (REPLICATES, seeds): the share of each seed."""
    random = np.random.default_rng(0)
    drawn = random.integers(groups, size=(REPLICATES, groups)) + groups * np.arange(REPLICATES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=REPLICATES * groups).reshape(REPLICATES, groups)
    return times.astype(float), random.multinomial(seeds, [1 / seeds] * seeds, REPLICATES) / seeds


def _p(replicates: np.ndarray) -> float:
    """Two-sided: twice the smaller share of replicates on either side of no difference, one added to each count."""
    sides = min(int((replicates <= 0).sum()), int((replicates >= 0).sum()))
    return min(1.0, 2 * (1 + sides) / (1 + len(replicates)))
