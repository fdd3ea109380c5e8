"""The paired bootstrap, against hand computation, a literal loop and scipy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import scipy.stats

from classroom.core.metrics import score
from classroom.errors import DataError
from classroom.evaluation import significance
from classroom.evaluation.significance import OURS, PairedDifference, holm, paired_bootstrap
from support.fabricated import HISTOPATHOLOGIC, LGG


def of_classes(method: str, correct: list[list[int]], groups: list[str], network: str = "ensemble") -> dict[str, Any]:
    """A classification, from what was correct (1) or not (0): a list of images per seed."""
    seeds = {}
    for seed, images in enumerate(correct):
        kept = {"predicted": images, "true": [1] * len(images)}
        ids = [f"image-{index}" for index in range(len(images))]
        seeds[str(seed)] = {"test_images": {"id": ids, "group": groups, network: kept}}
    return {"study": "s", "method": method, "data": HISTOPATHOLOGIC, "seeds": seeds}


def of_masks(method: str, counts: list[dict[str, list[int]]], groups: list[str]) -> dict[str, Any]:
    """A segmentation, from tp, fp and fn of every image, per seed."""
    seeds = {}
    for seed, kept in enumerate(counts):
        ids = [f"image-{index}" for index in range(len(groups))]
        seeds[str(seed)] = {"test_images": {"id": ids, "group": groups, "ensemble": kept}}
    return {"study": "s", "method": method, "data": LGG, "seeds": seeds}


def drawn_masks(random: np.random.Generator, images: int, skill: float) -> dict[str, list[int]]:
    tp = random.binomial(100, skill, images)
    return {"tp": tp.tolist(), "fp": random.integers(0, 30, images).tolist(), "fn": (100 - tp).tolist()}


def test_a_tiny_case_by_hand() -> None:
    """Two groups of one image: V3 is right on both, ML V1 on the first only.

    Of the four equally likely draws, aa gives 0, ab and ba 1/2, bb 1: mean difference 1/2, interval 0 to 1, and a
    quarter of the draws is not above 0.
    """
    v3, v1 = of_classes("kd_ml-v3", [[1, 1]], ["a", "b"]), of_classes("ml-v1", [[1, 0]], ["a", "b"])
    (found,) = paired_bootstrap([v3, v1], [0], OURS)
    assert (found.versus, found.difference, found.low, found.high) == ("ml-v1", 0.5, 0.0, 1.0)
    assert found.p == found.adjusted_p == pytest.approx(0.5, abs=0.05)
    assert found.verdict == "not significant"


def test_identical_predictions_do_not_differ() -> None:
    images = [[1, 0, 1, 1, 0, 1]] * 3
    v3, v1 = (of_classes(method, images, list("aabbcc")) for method in ("kd_ml-v3", "ml-v1"))
    (found,) = paired_bootstrap([v3, v1], [0, 1, 2], OURS)
    assert found == PairedDifference("kd_ml-v3", "ml-v1", 0.0, 0.0, 0.0, 1.0, 1.0)


def test_a_large_difference_is_told_apart_in_its_direction() -> None:
    groups = [f"group-{index}" for index in range(60)]
    good, bad = [[1] * 58 + [0] * 2] * 3, [[1] * 30 + [0] * 30] * 3
    (found,) = paired_bootstrap(
        [of_classes("kd_ml-v3", good, groups), of_classes("kd_on-v1", bad, groups)], [0, 1, 2], OURS
    )
    assert found.verdict == "better"
    assert found.p == pytest.approx(2 / 2001)
    (found,) = paired_bootstrap(
        [of_classes("kd_ml-v3", bad, groups), of_classes("kd_on-v1", good, groups)], [0, 1, 2], OURS
    )
    assert found.verdict == "worse"
    assert found.high < 0


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_a_literal_loop_gives_the_same(seeds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws, image by image: pooled counts scored by `metrics.score`, averaged over the drawn seeds."""
    monkeypatch.setattr(significance, "REPLICATES", 60)
    random = np.random.default_rng(3)
    groups = [f"patient-{index}" for index in random.integers(0, 7, 40)]
    v3 = of_masks("kd_ml-v3", [drawn_masks(random, 40, 0.8) for _ in seeds], groups)
    v1 = of_masks("ml-v1", [drawn_masks(random, 40, 0.7) for _ in seeds], groups)
    names = sorted(set(groups))
    times, shares = significance._draws(len(names), len(seeds))
    assert (times.sum(axis=1) == len(names)).all()
    assert shares.sum(axis=1) == pytest.approx(np.ones(60))

    def iou(result: dict[str, Any], seed: int, images: list[int]) -> float:
        kept = result["seeds"][str(seed)]["test_images"]["ensemble"]
        return score({key: [values[image] for image in images] for key, values in kept.items()})["iou"]

    differences = []
    for replicate in range(60):
        images = [
            image
            for group, name in enumerate(names)
            for _ in range(int(times[replicate, group]))
            for image in range(40)
            if groups[image] == name
        ]
        differences.append(
            sum(shares[replicate, seed] * (iou(v3, seed, images) - iou(v1, seed, images)) for seed in seeds)
        )
    (found,) = paired_bootstrap([v3, v1], seeds, OURS)
    assert found.low == pytest.approx(np.percentile(differences, 2.5), abs=1e-12)
    assert found.high == pytest.approx(np.percentile(differences, 97.5), abs=1e-12)
    sides = min(sum(d <= 0 for d in differences), sum(d >= 0 for d in differences))
    assert found.p == pytest.approx(min(1, 2 * (1 + sides) / 61))
    every = list(range(40))
    assert found.difference == pytest.approx(np.mean([iou(v3, seed, every) - iou(v1, seed, every) for seed in seeds]))


def test_scipy_finds_the_same_interval_for_single_images() -> None:
    random = np.random.default_rng(5)
    ours, theirs = random.random(300) < 0.9, random.random(300) < 0.8
    groups = [f"image-{index}" for index in range(300)]
    v3 = of_classes("kd_ml-v3", [ours.astype(int).tolist()], groups)
    v1 = of_classes("ml-v1", [theirs.astype(int).tolist()], groups)
    (found,) = paired_bootstrap([v3, v1], [0], OURS)
    expected = scipy.stats.bootstrap(
        (ours.astype(float), theirs.astype(float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True, vectorized=True, n_resamples=5_000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.007)


def test_whole_groups_are_drawn_so_that_alike_images_do_not_count_as_many() -> None:
    """Ten images of one patient say little more than one: the interval is as wide as that of the patients."""
    random = np.random.default_rng(1)
    ours, theirs = (random.random(20) < 0.8).astype(int), (random.random(20) < 0.7).astype(int)
    names = [f"patient-{index}" for index in range(20)]
    single = paired_bootstrap(
        [of_classes("kd_ml-v3", [ours.tolist()], names), of_classes("ml-v1", [theirs.tolist()], names)], [0], OURS
    )
    many = [np.repeat(values, 10).tolist() for values in (ours, theirs)]
    tenfold = paired_bootstrap(
        [
            of_classes(method, [values], np.repeat(names, 10).tolist())
            for method, values in zip(("kd_ml-v3", "ml-v1"), many, strict=True)
        ],
        [0],
        OURS,
    )
    assert tenfold == single


def test_the_other_s_own_network_is_compared() -> None:
    """The student alone has no ensemble."""
    v3 = of_classes("kd_ml-v3", [[1, 1, 1, 0]], list("abcd"))
    student = of_classes("student", [[1, 0, 0, 0]], list("abcd"), network="S1")
    (found,) = paired_bootstrap([student, v3], [0], OURS)
    assert (found.versus, found.difference) == ("student", 0.5)


def test_only_what_is_there_is_compared_in_a_fixed_order() -> None:
    results = [of_classes(name, [[1, 0]], ["a", "b"]) for name in ("kd_ml-v2", "ml-v3", "ml-v1", "kd_ml-v3")]
    assert [one.versus for one in paired_bootstrap(results, [0], OURS)] == ["ml-v1", "kd_ml-v2"]
    assert paired_bootstrap(results[:3], [0], OURS) == []
    assert paired_bootstrap(results[3:], [0], OURS) == []


@pytest.mark.parametrize("what", ["id", "group"])
def test_other_test_images_are_refused(what: str) -> None:
    v3, v1 = (of_classes(method, [[1, 0], [1, 1]], ["a", "b"]) for method in ("kd_ml-v3", "ml-v1"))
    v1["seeds"]["1"]["test_images"][what] = ["a", "another"]
    with pytest.raises(DataError, match=r"results of ml-v1, seed 1.*classroom evaluate s ml-v1"):
        paired_bootstrap([v3, v1], [0, 1], OURS)


def test_nothing_to_find_and_nothing_found_counts_as_right() -> None:
    """As in `metrics.pooled`: replicates of empty groups alone have IoU 1, not 0/0."""
    empty = {"tp": [0, 5], "fp": [0, 0], "fn": [0, 5]}
    full = {"tp": [0, 10], "fp": [0, 0], "fn": [0, 0]}
    (found,) = paired_bootstrap(
        [of_masks("kd_ml-v3", [full], ["a", "b"]), of_masks("ml-v1", [empty], ["a", "b"])], [0], OURS
    )
    assert (found.difference, found.low, found.high) == (0.5, 0.0, 0.5)


def test_holm_by_hand() -> None:
    """Holm 1979: 0.01 × 4, 0.02 × 3, then 0.03 × 2, and 0.04 × 1 is raised to what came before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_a_paper_sized_table_takes_no_time() -> None:
    """All comparisons of 1500 groups and three seeds."""
    random = np.random.default_rng(0)
    groups = [f"lesion-{index}" for index in range(1500)]
    results = [
        of_classes(
            method, random.integers(0, 2, (3, 1500)).tolist(), groups, "S1" if method == "student" else "ensemble"
        )
        for method in ("kd_ml-v3", *(other for _, other in significance.OURS))
    ]
    started = time.process_time()
    assert len(paired_bootstrap(results, [0, 1, 2], OURS)) == 6
    assert time.process_time() - started < 2  # a tenth of it as measured
