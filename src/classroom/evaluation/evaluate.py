"""From the runs of one method to its results: every seed, every network and the ensemble."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from classroom.errors import DataError
from classroom.evaluation import predictions
from classroom.evaluation.ensemble import with_ensemble
from classroom.evaluation.metrics import COUNTS, counts, pooled
from classroom.files import content_hash


def evaluate(folders: dict[int, Path]) -> dict[str, Any]:
    """Results of one method from its run's folder by seed.

    Per seed: the pooled test metrics of every network and of the students' ensemble, from the saved
    predictions alone; the metrics of the last epoch beside them; pixel counts per image. Raises DataError if
    a run is missing, damaged, or was made on other data than its siblings.
    """
    runs = {seed: _run(folder) for seed, folder in folders.items()}
    first_seed, first = next(iter(runs.items()))
    for seed, run in runs.items():
        for fact in ("data", "networks", "settings"):
            if run[fact] != first[fact]:
                raise DataError(
                    f"{folders[seed]}: other {fact} than seed {first_seed}'s run, so they cannot be averaged. "
                    "Train this method again with all its seeds."
                )
    shared = {key: first[key] for key in ("study", "method", "data", "networks", "settings")}
    return shared | {"seeds": {str(seed): _seed(run, folders[seed]) for seed, run in runs.items()}}


def _run(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        run = json.loads(path.read_text())
        missing = {"study", "method", "data", "networks", "settings", "best", "last", "test_images"} - run.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Train this run again.") from None
    if missing:
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}. Train this run again.")
    return run


def _seed(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "predictions.parquet"
    ids, stacks = predictions.read(path)
    if ids != run["test_images"]["id"]:
        raise DataError(f"{path}: not of the same run as metrics.json beside it. Train this run again.")
    truth = predictions.mask(stacks.pop(predictions.TRUTH))
    masks = {name: predictions.mask(stack) for name, stack in stacks.items()}
    per_image = {name: counts(mask, truth) for name, mask in with_ensemble(masks).items()}
    return {
        "predictions": content_hash(path),
        "best_epoch": run["best"]["epochs"],
        "test": {name: pooled(per_image[name]) for name in per_image},
        "last_epoch_test": run["last"]["test"],
        "test_images": {
            "id": ids,
            **{name: {key: per_image[name][key].tolist() for key in COUNTS} for name in per_image},
        },
    }
