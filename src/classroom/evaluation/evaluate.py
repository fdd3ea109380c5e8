"""Evaluates the runs of a method: every seed, every network and the ensemble."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from classroom.artifacts import MEAN_ENSEMBLE, MethodCosts, Metrics, PerImageCounts, Result, Scores, SeedResult
from classroom.core import predictions
from classroom.core.ensemble import STUDENTS, with_ensemble
from classroom.core.metrics import all_masks_empty, per_image_counts, predict_labels, score
from classroom.errors import DataError, reading
from classroom.evaluation.boundary import hd95
from classroom.evaluation.costs import costs
from classroom.files import content_hash, read_metrics
from classroom.progress import track


def evaluate(folders: dict[int, Path]) -> Result:
    """Evaluates one method; `folders`: by seed, the folder of its run.

    Per seed: the test metrics of every network and of the students' ensembles, from the saved predictions alone;
    fidelity (the teacher's predictions as the ground truth) where the run has a teacher; the metrics of the last epoch;
    the counts of every image, and its HD95 or the AUROC. Raises DataError if a run is missing or damaged, contradicts
    its own metrics.json, or was trained on other data than the other seeds' runs.
    """
    runs = {seed: read_metrics(folder) for seed, folder in folders.items()}
    first_seed, first = next(iter(runs.items()))
    facts: tuple[Literal["data", "networks", "settings"], ...] = ("data", "networks", "settings")
    for seed, run in runs.items():
        for fact in facts:
            if run[fact] != first[fact]:
                raise DataError(
                    f"{folders[seed]}: differs from the run of seed {first_seed} in {fact}, so they cannot be "
                    "averaged. Train this method again with all its seeds."
                )
    return {
        "study": first["study"],
        "method": first["method"],
        "data": first["data"],
        "networks": first["networks"],
        "extra_parameters": first["extra_parameters"],
        "notes": first["notes"],
        "settings": first["settings"],
        "seeds": {str(seed): _seed(runs[seed], folders[seed]) for seed in track(list(runs), "runs")},
    }


def evaluate_groups(
    runs: Mapping[str, Mapping[str, dict[int, Path]]],
) -> tuple[dict[str, list[Result]], dict[str, list[MethodCosts]]]:
    """Results and costs of several methods of a study, by group; `runs`: by group, method and seed, a run's folder.

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


class Evaluation(NamedTuple):
    """The evaluation of one run's predictions."""

    ids: list[str]
    per_image: dict[str, dict[str, np.ndarray]]
    """By network, `per_image_counts` of the test images."""
    test: Scores
    """By network and metric."""
    fidelity: Scores
    """The same with the teacher's predictions as the ground truth; empty without a teacher."""
    more: dict[str, Any]
    """By network, `hd95` of every test image, or `auroc`."""


def evaluate_predictions(path: Path) -> Evaluation:
    """Evaluates the predictions in the file `path`. Raises DataError if it is missing or damaged."""
    ids, stacks = predictions.read(path)
    ground_truth = predict_labels(stacks.pop(predictions.GROUND_TRUTH))
    stacks = with_both_ensembles(stacks)
    predicted = {name: predict_labels(stack) for name, stack in stacks.items()}
    per_image = {name: per_image_counts(labels, ground_truth) for name, labels in predicted.items()}
    students = [name for name in predicted if name != "T"] if "T" in predicted else []
    fidelity = {name: score(per_image_counts(predicted[name], predicted["T"])) for name in students}
    more: dict[str, Any]
    if ground_truth.ndim == 3:
        pairs = {name: zip(masks, ground_truth, strict=True) for name, masks in predicted.items()}
        more = {"hd95": {name: [hd95(*pair) for pair in of] for name, of in pairs.items()}}
    else:
        more = {"auroc": {name: auroc(stack, ground_truth) for name, stack in stacks.items()}}
    return Evaluation(ids, per_image, {name: score(of) for name, of in per_image.items()}, fidelity, more)


def with_both_ensembles(probabilities: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`with_ensemble`, the paper's maximum, and then the mean of both students' probabilities, if there are two.

    Masks are stored as ⌊256·p⌋, so a pixel whose mean is between 1/2 and 1/2 + 1/256 may be missing from the mean's
    mask.
    """
    found = with_ensemble(probabilities)
    if "ensemble" in found:
        first, second = (probabilities[student] for student in STUDENTS)
        if first.dtype == np.uint8:
            found[MEAN_ENSEMBLE] = ((first.astype(np.uint16) + second) // 2).astype(np.uint8)
        else:
            found[MEAN_ENSEMBLE] = (first + second) / 2
    return found


def auroc(probabilities: np.ndarray, true: np.ndarray) -> float | None:
    """One-vs-rest AUROC, averaged over the classes that have both positive and negative test images.

    None if there is no such class.
    """
    from sklearn.metrics import roc_auc_score

    of_class = [true == number for number in range(probabilities.shape[1])]
    both = [(is_it, probabilities[:, at]) for at, is_it in enumerate(of_class) if is_it.any() and not is_it.all()]
    found = [roc_auc_score(*pair) for pair in both]
    return float(np.mean(found)) if found else None


def _check_weights(path: Path) -> None:
    """Raises DataError if a weight is not finite: masks, stored as bytes, do not show that their network diverged."""
    with reading(path, "Train this run again.", SafetensorError), safe_open(path, "np") as file:
        wrong = [key for key in file.keys() if not np.isfinite(file.get_tensor(key)).all()]  # noqa: SIM118
    if wrong:
        raise DataError(
            f"{path}: the network diverged: {len(wrong)} of its tensors hold NaN or infinite values, '{wrong[0]}' "
            "first. Lower training.learning_rate and train this run again."
        )


def _seed(run: Metrics, folder: Path) -> SeedResult:
    path = folder / "predictions.parquet"
    _check_weights(folder / "weights.safetensors")
    ids, per_image, tested, fidelity, more = evaluate_predictions(path)
    if ids != run["test_images"]["id"]:
        raise DataError(f"{path}: does not belong to the same run as metrics.json next to it. Train this run again.")
    if {name: of for name, of in tested.items() if name != MEAN_ENSEMBLE} != run["best"]["test"]:
        raise DataError(f"{path}: does not give the metrics in metrics.json next to it. Train this run again.")
    if all_masks_empty(next(iter(per_image.values()))):
        warnings.warn(
            f"{path}: the mask of every test image is empty, so IoU and F-score are 0 for a network that predicts a "
            "pixel and 1 for one that predicts none. Use data with foreground in every split.",
            stacklevel=2,
        )
    counts = {name: {key: value.tolist() for key, value in of.items()} for name, of in per_image.items()}
    return {
        "predictions": content_hash(path),
        "best_epoch": run["best"]["epochs"],
        "validation": run["best"]["val"],
        "test": tested,
        "fidelity": fidelity,
        "last_epoch_test": run["last"]["test"],
        "last_epoch_terms": run["terms"],
        "test_images": cast(PerImageCounts, {"id": ids, "group": run["test_images"]["group"], **counts}),
        **more,  # type: ignore[typeddict-item]
    }
