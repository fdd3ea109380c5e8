"""From the runs of one method to its results: every seed, every network and the ensemble."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np

from classroom.artifacts import ImageRecords, MethodCosts, Metrics, Result, Scores, SeedResult
from classroom.errors import DataError
from classroom.evaluation import predictions
from classroom.evaluation.costs import costs
from classroom.evaluation.ensemble import with_ensemble
from classroom.evaluation.metrics import decide, nothing_to_find, records, score
from classroom.files import content_hash, read_metrics


def evaluate(folders: dict[int, Path]) -> Result:
    """Results of one method from its run's folder by seed.

    Per seed: the test metrics of every network and of the students' ensemble, from the saved predictions alone; with
    the teacher's decisions in the truth's place (fidelity) where the run has one; the metrics of the last epoch; what
    was decided for every image. Raises DataError if a run is missing, damaged, disagrees with its own metrics, or
    was made on other data than its siblings.
    """
    runs = {seed: read_metrics(folder) for seed, folder in folders.items()}
    first_seed, first = next(iter(runs.items()))
    facts: tuple[Literal["data", "networks", "settings"], ...] = ("data", "networks", "settings")
    for seed, run in runs.items():
        for fact in facts:
            if run[fact] != first[fact]:
                raise DataError(
                    f"{folders[seed]}: other {fact} than seed {first_seed}'s run, so they cannot be averaged. "
                    "Train this method again with all its seeds."
                )
    return {
        "study": first["study"],
        "method": first["method"],
        "data": first["data"],
        "networks": first["networks"],
        "extra_parameters": first["extra_parameters"],
        "remarks": first["remarks"],
        "settings": first["settings"],
        "seeds": {str(seed): _seed(run, folders[seed]) for seed, run in runs.items()},
    }


def compare(
    runs: Mapping[str, Mapping[str, dict[int, Path]]],
) -> tuple[dict[str, list[Result]], dict[str, list[MethodCosts]]]:
    """Results and costs of several methods of a study, by group; `runs`: by group and method, a run's folder by seed.

    Raises DataError as `evaluate` and `costs` do.
    """
    results = {group: [evaluate(folders) for folders in of.values()] for group, of in runs.items()}
    taken: dict[str, list[MethodCosts]] = {
        group: [
            {"study": result["study"], "method": method, "seeds": costs(folders)}
            for result, (method, folders) in zip(results[group], of.items(), strict=True)
        ]
        for group, of in runs.items()
    }
    return results, taken


class Judged(NamedTuple):
    """What follows from the predictions of one run."""

    ids: list[str]
    per_image: dict[str, dict[str, np.ndarray]]
    """By network, what `records` keeps of every test image."""
    test: Scores
    """By network and metric, with the truth."""
    fidelity: Scores
    """The same with the teacher's decisions in the truth's place; of students that have one."""


def judge(path: Path) -> Judged:
    """Judges the predictions in the file `path`. Raises DataError if it is missing or damaged."""
    ids, stacks = predictions.read(path)
    truth = decide(stacks.pop(predictions.TRUTH))
    decided = {name: decide(stack) for name, stack in with_ensemble(stacks).items()}
    per_image = {name: records(decision, truth) for name, decision in decided.items()}
    students = [name for name in decided if name != "T"] if "T" in decided and len(decided) > 1 else []
    fidelity = {name: score(records(decided[name], decided["T"])) for name in students}
    return Judged(ids, per_image, {name: score(of) for name, of in per_image.items()}, fidelity)


def _seed(run: Metrics, folder: Path) -> SeedResult:
    path = folder / "predictions.parquet"
    ids, per_image, tested, fidelity = judge(path)
    if ids != run["test_images"]["id"]:
        raise DataError(f"{path}: not of the same run as metrics.json beside it. Train this run again.")
    if tested != run["best"]["test"]:
        raise DataError(f"{path}: does not give the metrics in metrics.json beside it. Train this run again.")
    if nothing_to_find(next(iter(per_image.values()))):
        warnings.warn(
            f"{path}: there was nothing to find: the mask of every test image is empty, so IoU and F-score are 0 for a "
            "network that marks a pixel and 1 for one that marks none. Use data that have lesions in every split.",
            stacklevel=2,
        )
    decided = {name: {key: value.tolist() for key, value in per_image[name].items()} for name in per_image}
    return {
        "predictions": content_hash(path),
        "best_epoch": run["best"]["epochs"],
        "validation": run["best"]["val"],
        "test": tested,
        "fidelity": fidelity,
        "last_epoch_test": run["last"]["test"],
        "last_epoch_terms": run["terms"],
        "test_images": cast(ImageRecords, {"id": ids, "group": run["test_images"]["group"], **decided}),
    }
