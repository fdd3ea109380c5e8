"""The validation metrics of a search of weights. The test split is not read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from classroom.artifacts import FactorPoint, GridPoint, Metrics, Scores
from classroom.evaluation.costs import costs
from classroom.files import read_metrics
from classroom.params import Grid


def read_points(folder: Path, grid: Grid, seeds: Sequence[int]) -> list[GridPoint]:
    """Every point of a grid search with its selection metric and costs.

    Parameters
    ----------
    folder
        holds the runs <variant>/<alpha_1>-<alpha_2>-<teacher_share>/seed-<n>
    grid
        `grid` of params.yaml
    seeds
        of the runs

    Returns
    -------
    The selection metric (a fraction) by seed and network, and the costs by seed.

    Raises
    ------
    DataError
        A file of a run is missing or damaged.
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
                "data": runs[seeds[0]]["data"],
                "seeds": _selection_metric(runs),
                "costs": costs(folders),
            }
        )
    return points


def read_factors(
    folder: Path, methods: Sequence[str], factors: Sequence[float], seeds: Sequence[int]
) -> list[FactorPoint]:
    """Every factor of published methods' reference weights with its selection metric and costs, as `read_points`.

    Parameters
    ----------
    folder
        holds the runs <method>/<factor>/seed-<n>
    methods
        published methods
    factors
        what their reference weights were multiplied by
    seeds
        of the runs

    Raises
    ------
    DataError
        A file of a run is missing or damaged.
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
                "seeds": _selection_metric(runs),
                "costs": costs(folders),
            }
        )
    return points


def _selection_metric(runs: dict[int, Metrics]) -> Scores:
    """By seed and network: the validation metric by which epochs are selected."""
    return {
        str(seed): {name: next(iter(scores.values())) for name, scores in run["best"]["val"].items()}
        for seed, run in runs.items()
    }
