"""Significance of the differences between methods of a study: a paired bootstrap over groups and seeds.

Images of one patient or lesion are correlated, so whole groups are resampled, and all methods share the samples.
scipy.stats.bootstrap resamples one level only, groups or seeds; here both levels are one matrix product: sums per group
times the number of times each group was drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classroom.artifacts import NetworkName, Result
from classroom.core.metrics import METRICS
from classroom.errors import DataError
from classroom.methods.learning_styles.exchange import EXCHANGE

SUBJECT = "kd_ml-v3"
STUDENT = "student"
OURS = [(SUBJECT, other) for other in (STUDENT, "ml-v1", "kd_off-v1", "kd_on-v1", "kd_ml-v1", "kd_ml-v2")]
"""KD + ML V3 and what it is compared with."""
ALONE = [(variant, STUDENT) for variant in EXCHANGE]
"""Each variant and the student alone."""
REPLICATES = 2000
LEVEL = 0.05
"""Significance level of the adjusted p; intervals cover 95 %."""
FEW_GROUPS = 10


class PairedDifference(NamedTuple):
    """One method minus another in the task's first metric, as a fraction: a variant's ensemble, any other's student."""

    method: str
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


def paired_bootstrap(
    results: Sequence[Result],
    seeds: Sequence[int],
    pairs: Sequence[tuple[str, str]],
) -> list[PairedDifference]:
    """Compares the first with the second method of each pair, in the task's first metric.

    Parameters
    ----------
    results
        of one study
    seeds
        over which the differences are averaged
    pairs
        of methods, such as `OURS`; a pair with a method that is not among the results is left out

    Returns
    -------
    list of PairedDifference
        With percentile intervals of 95 %, the two-sided bootstrap p, and p adjusted for the number of pairs (Holm).

    Raises
    ------
    DataError
        If methods were tested on different images.
    """
    by_method = {result["method"]: result for result in results}
    compared = [pair for pair in pairs if by_method.keys() >= {*pair}]
    if not compared:
        return []
    first = compared[0][0]
    ids, groups = _images(by_method[first], seeds[0])
    methods = dict.fromkeys(itertools.chain(*compared))
    for method in methods:
        for seed in seeds:
            if _images(by_method[method], seed) != (ids, groups):
                raise DataError(
                    f"results of {method}, seed {seed}, were obtained on other test images than {first}'s, so they "
                    "cannot be compared. Train and evaluate both again: "
                    f"`classroom evaluate {by_method[method]['study']} {method}`."
                )
    distinct, group_of = np.unique(groups, return_inverse=True)
    sums = {method: _sums(by_method[method], seeds, group_of) for method in methods}
    group_draws, seed_draws = _draws(len(distinct), len(seeds))
    observed, replicates = [], []
    for one, other in compared:
        observed.append(float((_ratio(sums[one].sum(axis=1)) - _ratio(sums[other].sum(axis=1))).mean()))
        per_seed = _ratio(group_draws @ sums[one]) - _ratio(group_draws @ sums[other])
        replicates.append((per_seed * seed_draws).sum(axis=1))
    p = [_p(of) for of in replicates]
    intervals = [map(float, np.percentile(of, [100 * LEVEL / 2, 100 - 100 * LEVEL / 2])) for of in replicates]
    return [
        PairedDifference(*pair, difference, *interval, *of_pair)
        for pair, difference, interval, *of_pair in zip(compared, observed, intervals, p, holm(p), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted by Holm's method, in the order given: the k-th smallest of n times n − k + 1, monotone, at most 1."""
    adjusted = [0.0] * len(p)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[position]))
        adjusted[position] = largest
    return adjusted


def network_of(method: str) -> NetworkName:
    """The network of a method that is compared."""
    return "ensemble" if method in EXCHANGE else "S1"


def group_count(result: Result) -> int:
    """The number of groups (patients, lesions) in the test split of a result."""
    return len(set(next(iter(result["seeds"].values()))["test_images"]["group"]))


def _images(result: Result, seed: int) -> tuple[list[str], list[str]]:
    tested = result["seeds"][str(seed)]["test_images"]
    return tested["id"], tested["group"]


def _sums(result: Result, seeds: Sequence[int], group_of: np.ndarray) -> np.ndarray:
    """(2, groups, seeds): per group the numerator and denominator of the metric.

    Accuracy: correct images and all images. IoU: pixels of the intersection and of the union.
    """
    task, network = result["data"]["task"], network_of(result["method"])
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
