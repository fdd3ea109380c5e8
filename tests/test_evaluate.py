"""Results of a method from the folders that its runs left, and of what does not belong together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classroom.errors import DataError
from classroom.evaluation import predictions
from classroom.evaluation.evaluate import evaluate

IDS = ["patient_1_7", "patient_2_3"]
# Two images of 2 x 2 pixels; of the second nothing is lesion.
TRUTH = [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]
FIRST = [[[0.9, 0.2], [0.1, 0.1]], [[0.0, 0.1], [0.2, 0.5]]]  # one found, one missed, one too many at just one half
SECOND = [[[0.49, 0.8], [0.3, 0.1]], [[0.2, 0.2], [0.2, 0.2]]]  # the other found
TEACHER = [[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]  # perfect

BY_HAND = {
    "T": {"iou": 1.0, "f_score": 1.0},
    "S1": {"iou": 1 / 3, "f_score": 2 / 4},
    "S2": {"iou": 1 / 2, "f_score": 2 / 3},
    "ensemble": {"iou": 2 / 3, "f_score": 4 / 5},
}


def leave_run(folder: Path, seed: int, probabilities: dict[str, Any], **changes: Any) -> None:
    """What `classroom train` leaves of a run, as far as evaluation reads it."""
    facts = {"encoder": "tu-resnet18", "encoder_options": {}, "weights": "random", "parameters": 1000}
    last = {name: {"iou": 0.25, "f_score": 0.4} for name in probabilities}
    metrics = {
        "study": "lgg-resnet18",
        "method": "kd_on-v1",
        "seed": seed,
        "data": {"source": "phantom", "synthetic": True, "test": 2},
        "settings": {"training": {"epochs": 4}},
        "networks": {name: dict(facts) for name in probabilities},
        "best": {"epochs": {name: seed + 1 for name in probabilities}, "val": {}, "test": {}},
        "last": {"epoch": 4, "val": {}, "test": last},
        "test_images": {"id": IDS},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    stacks = {name: predictions.quantise(np.array(values, np.float32)) for name, values in probabilities.items()}
    stacks[predictions.TRUTH] = np.array(TRUTH, np.uint8) * 255
    predictions.write(folder / "predictions.parquet", IDS, stacks)


@pytest.fixture
def runs(tmp_path: Path) -> dict[int, Path]:
    """Two seeds; in the second one the students have changed places."""
    folders = {seed: tmp_path / f"seed-{seed}" for seed in (0, 7)}
    leave_run(folders[0], 0, {"T": TEACHER, "S1": FIRST, "S2": SECOND})
    leave_run(folders[7], 7, {"T": TEACHER, "S1": SECOND, "S2": FIRST})
    return folders


def test_every_seed_and_network_gets_its_metrics_by_hand(runs: dict[int, Path]) -> None:
    seeds = evaluate(runs)["seeds"]
    assert list(seeds) == ["0", "7"]
    assert seeds["0"]["test"] == {
        name: {metric: pytest.approx(value) for metric, value in values.items()} for name, values in BY_HAND.items()
    }
    assert seeds["7"]["test"]["S1"] == seeds["0"]["test"]["S2"]
    assert seeds["7"]["test"]["S2"] == seeds["0"]["test"]["S1"]


def test_the_ensemble_is_better_than_either_student_where_they_complete_each_other(runs: dict[int, Path]) -> None:
    """The union, not the mean probability: 0.9 and 0.49 beside 0.2 and 0.8 are both lesion."""
    result = evaluate(runs)["seeds"]["0"]
    assert result["test_images"]["ensemble"] == {"tp": [2, 0], "fp": [0, 1], "fn": [0, 0], "tn": [2, 3]}


def test_counts_of_every_image_are_kept(runs: dict[int, Path]) -> None:
    """Per-image and lesion-only averages can be had later without predicting again."""
    images = evaluate(runs)["seeds"]["0"]["test_images"]
    assert images["id"] == IDS
    assert images["S1"] == {"tp": [1, 0], "fp": [0, 1], "fn": [1, 0], "tn": [2, 3]}
    assert images["T"] == {"tp": [2, 0], "fp": [0, 0], "fn": [0, 0], "tn": [2, 4]}


def test_the_last_epoch_stands_beside_the_best(runs: dict[int, Path]) -> None:
    result = evaluate(runs)["seeds"]["7"]
    assert result["last_epoch_test"]["S1"] == {"iou": 0.25, "f_score": 0.4}
    assert result["best_epoch"] == {"T": 8, "S1": 8, "S2": 8}


def test_results_remember_the_predictions_that_they_were_made_from(runs: dict[int, Path]) -> None:
    """By their hash a table notices that a run was trained again since."""
    for seed, folder in runs.items():
        digest = hashlib.md5((folder / "predictions.parquet").read_bytes()).hexdigest()
        assert evaluate(runs)["seeds"][str(seed)]["predictions"] == digest


def test_what_the_runs_have_in_common_is_stated_once(runs: dict[int, Path]) -> None:
    result = evaluate(runs)
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    assert {key: result[key] for key in ("study", "method", "data", "networks", "settings")} == {
        key: metrics[key] for key in ("study", "method", "data", "networks", "settings")
    }


def test_results_can_be_written_as_json(runs: dict[int, Path]) -> None:
    """NumPy's numbers cannot."""
    result = evaluate(runs)
    assert json.loads(json.dumps(result)) == result


def test_a_network_alone_has_no_ensemble(tmp_path: Path) -> None:
    leave_run(tmp_path / "alone", 0, {"T": TEACHER}, method="teacher")
    assert set(evaluate({0: tmp_path / "alone"})["seeds"]["0"]["test"]) == {"T"}


def test_a_missing_run_is_named(runs: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seed-2.metrics\.json: cannot be read.*Train this run again"):
        evaluate({**runs, 2: tmp_path / "seed-2"})


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_truncated_record_is_named(kept: int, runs: dict[int, Path]) -> None:
    path = runs[7] / "metrics.json"
    path.write_text(path.read_text()[:kept])
    with pytest.raises(DataError, match=r"seed-7.metrics\.json: cannot be read"):
        evaluate(runs)


def test_a_run_without_predictions_is_named(runs: dict[int, Path]) -> None:
    (runs[7] / "predictions.parquet").unlink()
    with pytest.raises(DataError, match=r"seed-7.predictions\.parquet: cannot be read"):
        evaluate(runs)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("data", {"source": "directory", "synthetic": False, "test": 2}),
        ("settings", {"training": {"epochs": 50}}),
        ("networks", {"T": {"encoder": "tu-resnet50", "parameters": 2000}}),
    ],
)
def test_runs_of_other_data_networks_or_settings_are_not_averaged(
    fact: str, value: dict[str, Any], runs: dict[int, Path]
) -> None:
    """A mean over a phantom's run and a patient's would be a number of nothing."""
    leave_run(runs[7], 7, {"T": TEACHER, "S1": SECOND, "S2": FIRST}, **{fact: value})
    with pytest.raises(DataError, match=f"seed-7: other {fact} than seed 0's run.*Train this method again"):
        evaluate(runs)


@pytest.mark.parametrize("ids", [["patient_1_7", "patient_9_9"], ["patient_2_3", "patient_1_7"], ["patient_1_7"]])
def test_predictions_of_another_run_are_refused(ids: list[str], runs: dict[int, Path]) -> None:
    """Other images, another order, or fewer of them."""
    leave_run(runs[7], 7, {"T": TEACHER, "S1": SECOND, "S2": FIRST}, test_images={"id": ids})
    with pytest.raises(DataError, match=r"seed-7.predictions\.parquet: not of the same run as metrics\.json"):
        evaluate(runs)


def test_evaluation_changes_nothing_on_disk(runs: dict[int, Path]) -> None:
    before = {path: path.read_bytes() for folder in runs.values() for path in folder.iterdir()}
    first = evaluate(runs)
    assert {path: path.read_bytes() for folder in runs.values() for path in folder.iterdir()} == before
    assert evaluate(runs) == first
