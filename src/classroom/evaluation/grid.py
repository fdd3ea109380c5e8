"""What a search of weights found on validation. The test split is not looked at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from classroom.artifacts import FactorPoint, GridPoint, Metrics, Scores
from classroom.evaluation.costs import costs
from classroom.files import read_metrics
from classroom.params import Grid


def read_points(folder: Path, grid: Grid, seeds: Sequence[int]) -> list[GridPoint]:
    """Every point of the grid with the validation metric that chooses (fraction), by seed and network.

    With each what its runs took, by seed. `folder` holds the run folders <variant>/<alpha_1>-<alpha_2>-<teacher_share>/
    seed-<n>. Raises DataError if a file in one is missing or damaged.
    """
    points: list[GridPoint] = []
    for variant, alpha_1, alpha_2, share in itertools.product(
        (*grid.joint, *grid.offline), grid.alpha_1, grid.alpha_2, grid.teacher_share
    ):
        folders = {seed: folder / variant / f"{alpha_1}-{alpha_2}-{share}" / f"seed-{seed}" for seed in seeds}
        runs = {seed: read_metrics(place) for seed, place in folders.items()}
        points.append(
            {
                "variant": variant,
                "alpha_1": alpha_1,
                "alpha_2": alpha_2,
                "teacher_share": share,
                "weights": runs[seeds[0]]["settings"]["weights"],
                "synthetic": runs[seeds[0]]["data"]["synthetic"],
                "seeds": _chosen_by(runs),
                "costs": costs(folders),
            }
        )
    return points


def read_factors(
    folder: Path, methods: Sequence[str], factors: Sequence[float], seeds: Sequence[int]
) -> list[FactorPoint]:
    """Every factor of a published method's reference weights, with the metric that chooses, as `read_points`.

    `folder` holds the run folders <method>/<factor>/seed-<n>. Raises DataError as `read_points`.
    """
    points: list[FactorPoint] = []
    for method, factor in itertools.product(methods, factors):
        folders = {seed: folder / method / str(factor) / f"seed-{seed}" for seed in seeds}
        runs = {seed: read_metrics(place) for seed, place in folders.items()}
        first = runs[seeds[0]]
        points.append(
            {
                "method": method,
                "factor": factor,
                "weights": first["settings"]["weights"],
                "data": first["data"],
                "seeds": _chosen_by(runs),
                "costs": costs(folders),
            }
        )
    return points


def _chosen_by(runs: dict[int, Metrics]) -> Scores:
    """By seed and network: the validation metric by which epochs are chosen."""
    return {
        str(seed): {name: next(iter(scores.values())) for name, scores in run["best"]["val"].items()}
        for seed, run in runs.items()
    }
