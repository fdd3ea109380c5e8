"""Reading results, and checking that they fit into one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from classroom.artifacts import ComparedResults, Result
from classroom.errors import DataError, reading
from classroom.files import content_hash, read_json

PLACES = (("published", "compared"), ("beside", "runs"))
"""By group of a comparison's methods, the folder of their runs."""


def read_results(paths: Sequence[Path], runs: Path = Path("runs")) -> list[Result]:
    """The results in `paths`.

    Raises DataError if a file is missing or damaged, or was made from other predictions than those below
    `runs`; a run that is missing (results pulled alone) is not checked.
    """
    results = []
    for path in paths:
        result = cast(Result, read_json(path, Result.__required_keys__, "Run `classroom evaluate` for it again."))
        _check_made_from(runs, result, path, f"Run `classroom evaluate {result['study']} {result['method']}` again.")
        results.append(result)
    return results


def read_variants(study: str, variants: Sequence[str]) -> list[Result]:
    """The results of a study's `variants`. Raises DataError as `read_results`."""
    return read_results([Path("results/variants", study, f"{variant}.json") for variant in variants])


def read_comparison(path: Path, root: Path = Path()) -> ComparedResults:
    """The results of a comparison in `path`, results/comparison/TABLE/STUDY.json, each with its `costs` by seed.

    Raises DataError if a file is missing or damaged, or was made from other predictions than those in the runs.
    """
    again = f"Run `classroom evaluate {path.stem} published` again."
    with reading(path, again):
        results = json.loads(path.read_text(encoding="utf-8"))
        costs = json.loads((root / "results/costs" / path.relative_to(root / "results")).read_text(encoding="utf-8"))
        pairs = [(place, *pair) for group, place in PLACES for pair in zip(results[group], costs[group], strict=True)]
    for place, result, cost in pairs:
        result["costs"] = cost["seeds"]
        _check_made_from(root / place, result, path, again)
    return results


def check_alike(results: Sequence[Result], seeds: Sequence[int], same_data: bool = True) -> None:
    """One heading describes all rows, so they must come from the same seeds, training and, usually, data.

    Raises DataError, with the command to run, for results that do not.
    """
    first = results[0]
    for result in results:
        again = f"`classroom evaluate {result['study']} {result['method']}`"
        if set(result["seeds"]) != {str(seed) for seed in seeds}:
            raise DataError(
                f"results of {result['method']} have the seeds {', '.join(result['seeds'])}, not "
                f"{', '.join(map(str, seeds))}. Run {again} again."
            )
        other = result["settings"]["training"] != first["settings"]["training"]
        if same_data:
            other |= result["data"] != first["data"] or result["settings"]["balance"] != first["settings"]["balance"]
        if other:
            raise DataError(
                f"results of {result['method']} and {first['method']} come from other data or training settings. "
                f"Train and evaluate both again: {again}."
            )


def _check_made_from(runs: Path, result: Result, path: Path, again: str) -> None:
    for seed, of_seed in result["seeds"].items():
        predicted = runs / result["study"] / result["method"] / f"seed-{seed}" / "predictions.parquet"
        if predicted.exists() and content_hash(predicted) != of_seed["predictions"]:
            raise DataError(f"{path}: was made from another version of {predicted}. {again}")
