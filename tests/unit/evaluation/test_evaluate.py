"""Results of a method from the folders that its runs left, and of what does not belong together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.metrics import precision_recall_fscore_support

from classroom.core import predictions
from classroom.core.ensemble import with_ensemble
from classroom.core.metrics import per_image_counts, predict_labels, score
from classroom.errors import DataError
from classroom.evaluation.costs import costs
from classroom.evaluation.evaluate import auroc, evaluate, with_both_ensembles
from classroom.evaluation.grid import read_points
from classroom.params import Grid
from support.fabricated import metrics_of

IDS = ["patient_1_7", "patient_2_3"]
GROUPS = ["patient_1", "patient_2"]
# Two images of 2 x 2 pixels; of the second nothing is lesion.
TRUTH = [[[1, 1], [0, 0]], [[0, 0], [0, 0]]]
FIRST = [[[0.9, 0.2], [0.1, 0.1]], [[0.0, 0.1], [0.2, 0.5]]]  # one found, one missed, one too many at just one half
SECOND = [[[0.49, 0.81], [0.3, 0.1]], [[0.2, 0.2], [0.2, 0.2]]]  # the other found
TEACHER = [[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]  # perfect

BY_HAND = {
    "T": {"iou": 1.0, "f_score": 1.0},
    "S1": {"iou": 1 / 3, "f_score": 2 / 4},
    "S2": {"iou": 1 / 2, "f_score": 2 / 3},
    "ensemble": {"iou": 2 / 3, "f_score": 4 / 5},
    "ensemble_mean": {"iou": 1.0, "f_score": 1.0},
}


# Four images of three classes; the likeliest class stands behind each row.
CLASSES = [0, 1, 1, 2]
FIRST_SAYS = [[0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4]]  # 0, 1, 0 (wrong), 2
SECOND_SAYS = [[0.0, 0.55, 0.45], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0]]  # 1 (wrong), 1, 1, 0 (wrong)
TEACHER_SAYS = [[0.9, 0.1, 0.0], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]  # 0, 1, 2 (wrong), 2

CLASSES_BY_HAND = {  # accuracy; then precision and recall of classes 0, 1, 2, by three
    "T": {"accuracy": 3 / 4, "precision": (1 + 1 + 1 / 2) / 3, "recall": (1 + 1 / 2 + 1) / 3},
    "S1": {"accuracy": 3 / 4, "precision": (1 / 2 + 1 + 1) / 3, "recall": (1 + 1 / 2 + 1) / 3},
    "S2": {"accuracy": 2 / 4, "precision": (0 + 2 / 3 + 0) / 3, "recall": (0 + 1 + 0) / 3},
    # the maximum of each class: 0.6 wins of 0.55, 0.8, 0.9 of 0.5, 0.9 (wrong) of 0.4
    "ensemble": {"accuracy": 3 / 4, "precision": (1 / 2 + 1 + 0) / 3, "recall": (1 + 1 + 0) / 3},
    # the sums: 0.95 wins of 0.6 (wrong), 1.5, 1.2, 1.2 of 0.4 (wrong)
    "ensemble_mean": {"accuracy": 2 / 4, "precision": (0 + 2 / 3 + 0) / 3, "recall": (0 + 1 + 0) / 3},
}
CLASSES_FIDELITY = {  # the teacher says 0, 1, 2, 2
    "S1": {"accuracy": 3 / 4, "precision": (1 / 2 + 1 + 1) / 3, "recall": (1 + 1 + 1 / 2) / 3},
    "S2": {"accuracy": 1 / 4, "precision": (0 + 1 / 3 + 0) / 3, "recall": (0 + 1 + 0) / 3},
    "ensemble": {"accuracy": 2 / 4, "precision": (1 / 2 + 1 / 2 + 0) / 3, "recall": (1 + 1 + 0) / 3},
    "ensemble_mean": {"accuracy": 1 / 4, "precision": (0 + 1 / 3 + 0) / 3, "recall": (0 + 1 + 0) / 3},
}


def near(metrics: dict[str, dict[str, float]]) -> Any:
    return {
        name: {metric: pytest.approx(value, abs=1e-12) for metric, value in values.items()}
        for name, values in metrics.items()
    }


def leave_run(folder: Path, seed: int, probabilities: dict[str, Any], of_classes: bool = False, **changes: Any) -> None:
    """What `classroom train` leaves of a run, as far as evaluation reads it."""
    facts = {"encoder": "tu-resnet18", "encoder_options": {}, "weights": "random", "parameters": 1000}
    last = {name: {"iou": 0.25, "f_score": 0.4} for name in probabilities}
    ids, groups = (IDS, GROUPS) if not of_classes else ([f"image {row}" for row in range(4)], ["a", "b", "b", "c"])
    if of_classes:
        stacks = {name: np.array(values, np.float32) for name, values in probabilities.items()}
        stacks[predictions.GROUND_TRUTH] = np.eye(3, dtype=np.float32)[CLASSES]
    else:
        stacks = {name: predictions.quantise(np.array(values, np.float32)) for name, values in probabilities.items()}
        stacks[predictions.GROUND_TRUTH] = np.array(TRUTH, np.uint8) * 255
    predicted = {name: predict_labels(stack) for name, stack in with_ensemble(stacks).items()}
    truth = predicted.pop(predictions.GROUND_TRUTH)
    tested = {name: score(per_image_counts(decision, truth)) for name, decision in predicted.items()}
    metrics = {
        "study": "lgg-resnet18",
        "method": "kd_on-v1",
        "seed": seed,
        "data": {"source": "synthetic", "synthetic": True, "test": 2},
        "settings": {"training": {"epochs": 4}},
        "networks": {name: dict(facts) for name in probabilities},
        "extra_parameters": 0,
        "notes": [],
        "terms": {"S1/task": 0.5},
        "best": {"epochs": {name: seed + 1 for name in probabilities}, "val": {"S1": {"iou": 0.5}}, "test": tested},
        "last": {"epoch": 4, "val": {}, "test": last},
        "test_images": {"id": ids, "group": groups},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    predictions.write(folder / "predictions.parquet", ids, [stacks])
    save_file({f"{name}.weight": np.ones(3, np.float32) for name in probabilities}, folder / "weights.safetensors")


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
    assert seeds["0"]["test"] == near(BY_HAND)
    assert seeds["7"]["test"]["S1"] == seeds["0"]["test"]["S2"]
    assert seeds["7"]["test"]["S2"] == seeds["0"]["test"]["S1"]


def test_a_run_whose_network_diverged_is_no_result(runs: dict[int, Path], tmp_path: Path) -> None:
    """Its masks, stored as bytes, look like those of a network that finds nothing; its classes like the first one."""
    save_file({"S1.weight": np.array([1, np.nan], np.float32)}, runs[7] / "weights.safetensors")
    with pytest.raises(DataError, match=r"seed-7/weights\.safetensors: the network diverged: 1 .*'S1\.weight'"):
        evaluate(runs)
    nowhere = np.full((4, 3), np.nan)
    leave_run(tmp_path / "classes", 0, {"T": TEACHER_SAYS, "S1": nowhere}, of_classes=True)
    with pytest.raises(DataError, match=r"predictions\.parquet: NaN or infinite probabilities of S1, "):
        evaluate({0: tmp_path / "classes"})


def test_masks_that_are_all_empty_are_said(
    runs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The metrics are 0 or 1 by a single pixel then."""
    evaluate(runs)
    assert not recwarn.list
    monkeypatch.setitem(globals(), "TRUTH", np.zeros((2, 2, 2), int))
    leave_run(tmp_path / "empty", 0, {"S1": FIRST})
    with pytest.warns(UserWarning, match=r"predictions\.parquet: the mask of every test image is empty"):
        assert evaluate({0: tmp_path / "empty"})["seeds"]["0"]["test"] == {"S1": {"iou": 0.0, "f_score": 0.0}}


def test_counts_of_every_image_are_kept(runs: dict[int, Path]) -> None:
    """Per-image and lesion-only averages can be had later without predicting again.

    The ensemble is the union, not the mean probability: 0.9 and 0.49 with 0.2 and 0.81 are both lesion.
    """
    images = evaluate(runs)["seeds"]["0"]["test_images"]
    assert (images["id"], images["group"]) == (IDS, GROUPS)
    assert images["S1"] == {"tp": [1, 0], "fp": [0, 1], "fn": [1, 0], "tn": [2, 3]}
    assert images["T"] == {"tp": [2, 0], "fp": [0, 0], "fn": [0, 0], "tn": [2, 4]}
    assert images["ensemble"] == {"tp": [2, 0], "fp": [0, 1], "fn": [0, 0], "tn": [2, 3]}


def test_the_last_epoch_is_reported_next_to_the_best(runs: dict[int, Path]) -> None:
    result = evaluate(runs)["seeds"]["7"]
    assert result["last_epoch_test"]["S1"] == {"iou": 0.25, "f_score": 0.4}
    assert result["best_epoch"] == {"T": 8, "S1": 8, "S2": 8}
    assert result["validation"] == {"S1": {"iou": 0.5}}


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


@pytest.fixture
def runs_of_classes(tmp_path: Path) -> dict[int, Path]:
    folders = {seed: tmp_path / f"classes-{seed}" for seed in (0, 1)}
    leave_run(folders[0], 0, {"T": TEACHER_SAYS, "S1": FIRST_SAYS, "S2": SECOND_SAYS}, of_classes=True)
    leave_run(folders[1], 1, {"T": TEACHER_SAYS, "S1": SECOND_SAYS, "S2": FIRST_SAYS}, of_classes=True)
    return folders


def test_classes_get_their_metrics_by_hand(runs_of_classes: dict[int, Path]) -> None:
    seeds = evaluate(runs_of_classes)["seeds"]
    assert seeds["0"]["test"] == near(CLASSES_BY_HAND)
    assert seeds["1"]["test"]["S1"] == seeds["0"]["test"]["S2"]
    assert seeds["1"]["test"]["ensemble"] == seeds["0"]["test"]["ensemble"]


def test_what_was_decided_for_every_image_is_kept(runs_of_classes: dict[int, Path]) -> None:
    """Confusion matrices and tests of significance can be had later without predicting again."""
    images = evaluate(runs_of_classes)["seeds"]["0"]["test_images"]
    assert images["group"] == ["a", "b", "b", "c"]
    assert images["S1"] == {"predicted": [0, 1, 0, 2], "true": CLASSES}
    assert images["ensemble"] == {"predicted": [0, 1, 1, 0], "true": CLASSES}


def test_fidelity_takes_the_runs_own_teacher_for_the_truth(
    runs: dict[int, Path], runs_of_classes: dict[int, Path]
) -> None:
    """Tables 11 and 12: whether the students say what the teacher says, right or wrong."""
    result = evaluate(runs_of_classes)["seeds"]["0"]["fidelity"]
    assert result == near(CLASSES_FIDELITY)
    predicted = {"S1": [0, 1, 0, 2], "S2": [1, 1, 1, 0], "ensemble": [0, 1, 1, 0], "ensemble_mean": [1, 1, 1, 0]}
    for name, said in predicted.items():
        theirs = precision_recall_fscore_support([0, 1, 2, 2], said, average="macro", zero_division=0)
        assert (result[name]["precision"], result[name]["recall"]) == pytest.approx(theirs[:2])
    # This teacher is perfect, so fidelity is what the ground truth gives.
    masks = evaluate(runs)["seeds"]["0"]
    assert masks["fidelity"] == {name: masks["test"][name] for name in ("S1", "S2", "ensemble", "ensemble_mean")}


def test_fidelity_of_masks_is_not_their_truth(tmp_path: Path) -> None:
    """A teacher who finds nothing: a student who finds nothing either follows it perfectly, and misses all."""
    nothing = [[[0.0, 0.0], [0.0, 0.0]]] * 2
    leave_run(tmp_path / "run", 0, {"T": nothing, "S1": nothing, "S2": FIRST})
    result = evaluate({0: tmp_path / "run"})["seeds"]["0"]
    assert result["test"]["S1"] == {"iou": 0.0, "f_score": 0.0}
    assert result["fidelity"]["S1"] == {"iou": 1.0, "f_score": 1.0}
    assert result["fidelity"]["S2"] == {"iou": 0.0, "f_score": 0.0}


def test_without_teacher_or_without_students_there_is_no_fidelity(tmp_path: Path) -> None:
    says = {"T": TEACHER_SAYS, "S1": FIRST_SAYS, "S2": SECOND_SAYS}
    for networks in (("S1", "S2"), ("T",), ("S1",)):
        leave_run(tmp_path / "run", 0, {name: says[name] for name in networks}, of_classes=True)
        assert evaluate({0: tmp_path / "run"})["seeds"]["0"]["fidelity"] == {}


@pytest.mark.parametrize("of_classes", [False, True], ids=["masks", "classes"])
def test_predictions_that_do_not_give_the_runs_metrics_are_refused(of_classes: bool, tmp_path: Path) -> None:
    """Half copied, or predictions of another training of the same images: no table may be made of them."""
    folder = tmp_path / "run"
    first, second = (FIRST_SAYS, SECOND_SAYS) if of_classes else (FIRST, SECOND)
    leave_run(folder, 0, {"S1": first, "S2": second}, of_classes)
    evaluate({0: folder})
    metrics = (folder / "metrics.json").read_text()
    leave_run(folder, 0, {"S1": first, "S2": first}, of_classes)
    (folder / "metrics.json").write_text(metrics)
    with pytest.raises(DataError, match=r"predictions\.parquet: does not give the metrics in metrics\.json next to it"):
        evaluate({0: folder})


def test_metrics_that_were_edited_by_hand_are_refused(runs_of_classes: dict[int, Path]) -> None:
    path = runs_of_classes[1] / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["best"]["test"]["S1"]["accuracy"] += 0.01
    path.write_text(json.dumps(metrics))
    with pytest.raises(DataError, match=r"classes-1.predictions\.parquet: does not give the metrics"):
        evaluate(runs_of_classes)


# What runs took

MANIFEST = {
    "stage": "train",
    "seconds": 12.5,
    "seconds_per_epoch": 2.5,
    "peak_memory_mb": {"process": 812},
    "device": "cpu",
    "threads": 1,
    "versions": {"torch": "2"},
    "identity": "0a1b",
    "code_version": "0123456789ab",
    "command": "classroom train x student --seed 7",
    "best_epoch": {"S1": 3},
}


def test_costs_are_read_from_the_manifests(runs: dict[int, Path]) -> None:
    for seed, folder in runs.items():
        (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"seconds": 12.5 + seed}))
        save_file({"S1.weight": np.zeros(1000 + seed, np.float32)}, folder / "weights.safetensors")
    result = costs(runs)
    assert set(result) == {"0", "7"}
    kept = ("seconds", "seconds_per_epoch", "peak_memory_mb", "device", "threads")
    assert {key: result["7"][key] for key in kept} == {
        "seconds": 19.5, "seconds_per_epoch": 2.5, "peak_memory_mb": {"process": 812}, "device": "cpu", "threads": 1
    }  # fmt: skip
    assert result["7"]["run"] == runs[7].as_posix()
    assert {key: result["7"][key] for key in ("identity", "code_version", "command", "best_epoch")} == {
        key: MANIFEST[key] for key in ("identity", "code_version", "command", "best_epoch")
    }
    assert result["7"]["predictions"] == evaluate(runs)["seeds"]["7"]["predictions"]
    assert result["7"]["bytes"] == sum(len(file.read_bytes()) for file in runs[7].iterdir()) > 1007


def test_a_run_from_before_manifests_had_a_digest_need_not_be_trained_again(runs: dict[int, Path]) -> None:
    for folder in runs.values():
        (folder / "manifest.json").write_text(json.dumps({k: v for k, v in MANIFEST.items() if k != "identity"}))
    assert costs(runs)["7"]["identity"] is None


def test_a_manifest_that_says_nothing_is_named(runs: dict[int, Path]) -> None:
    for folder in runs.values():
        (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    path = runs[7] / "manifest.json"
    for content in (None, "", '{"seconds"', "{}", "[]", "3", "null"):
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(DataError, match=r"seed-7.manifest\.json: cannot be read as a run's manifest.*Train this"):
            costs(runs)


# What a grid search found

GRID = Grid(
    studies=("x",), joint=("ml-v1",), offline=("kd_off-v1",), alpha_1=(0.1, 0.4), alpha_2=(0.2,), teacher_share=(0.5,)
)


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """Validation accuracies that tell variant, alpha and seed: 0.<variant><alpha><seed>."""
    for number, variant in enumerate(("ml-v1", "kd_off-v1")):
        for alpha in (0.1, 0.4):
            for seed in (0, 1):
                value = number / 10 + alpha / 10 + seed / 1000
                folder = tmp_path / variant / f"{alpha}-0.2-0.5" / f"seed-{seed}"
                folder.mkdir(parents=True)
                run = metrics_of(
                    best={"val": {"S1": {"accuracy": value, "precision": 0.99}}, "test": "not looked at"},
                    settings={"weights": {"S1": {"alpha": alpha}}},
                    data={"synthetic": True},
                )
                (folder / "metrics.json").write_text(json.dumps(run))
                (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"seconds": value}))
                (folder / "predictions.parquet").write_text("of another test")
    return tmp_path


def test_every_point_of_a_grid_is_read_with_what_chooses_it(searched: Path) -> None:
    points = read_points(searched, GRID, [0, 1])
    assert [(point["variant"], point["alpha_1"], point["alpha_2"], point["teacher_share"]) for point in points] == [
        ("ml-v1", 0.1, 0.2, 0.5), ("ml-v1", 0.4, 0.2, 0.5), ("kd_off-v1", 0.1, 0.2, 0.5), ("kd_off-v1", 0.4, 0.2, 0.5)
    ]  # fmt: skip
    assert points[3]["weights"] == {"S1": {"alpha": 0.4}}
    assert points[3]["seeds"] == {"0": {"S1": pytest.approx(0.14)}, "1": {"S1": pytest.approx(0.141)}}
    assert all(point["data"] == {"synthetic": True} for point in points)
    assert points[3]["costs"]["1"]["seconds"] == pytest.approx(0.141)
    assert points[3]["costs"]["1"]["run"].endswith("kd_off-v1/0.4-0.2-0.5/seed-1")


def test_a_point_that_was_not_trained_is_named(searched: Path) -> None:
    """A best of the points that happen to be there would be no search."""
    path = searched / "kd_off-v1" / "0.4-0.2-0.5" / "seed-1" / "metrics.json"
    for content in (None, "", "{}", "[]", '{"best": {"val": {}}}'):
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(
            DataError, match=r"kd_off-v1.0\.4-0\.2-0\.5.seed-1.metrics\.json: (cannot be read|lacks ).*Train this run"
        ):
            read_points(searched, GRID, [0, 1])


def test_a_network_alone_has_no_ensemble(tmp_path: Path) -> None:
    leave_run(tmp_path / "alone", 0, {"T": TEACHER}, method="teacher")
    assert set(evaluate({0: tmp_path / "alone"})["seeds"]["0"]["test"]) == {"T"}


def test_a_missing_run_is_named(runs: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"seed-2.metrics\.json: cannot be read.*Train this run again"):
        evaluate({**runs, 2: tmp_path / "seed-2"})


def test_a_truncated_record_is_named(runs: dict[int, Path]) -> None:
    path = runs[7] / "metrics.json"
    content = path.read_text()
    for kept in (0, 1, 100):
        path.write_text(content[:kept])
        with pytest.raises(DataError, match=r"seed-7.metrics\.json: cannot be read"):
            evaluate(runs)


@pytest.mark.parametrize("key", ["seed", "networks", "test_images"])
def test_a_record_that_lacks_something_is_named(key: str, runs: dict[int, Path]) -> None:
    path = runs[7] / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics[key]
    path.write_text(json.dumps(metrics))
    with pytest.raises(DataError, match=rf"seed-7.metrics\.json: lacks {key}\. Train this run again"):
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
    """A mean over a run on synthetic images and one on patients' would be a number of nothing."""
    leave_run(runs[7], 7, {"T": TEACHER, "S1": SECOND, "S2": FIRST}, **{fact: value})
    with pytest.raises(DataError, match=f"seed-7: differs from the run of seed 0 in {fact}, .*Train this method again"):
        evaluate(runs)


def test_predictions_of_another_run_are_refused(runs: dict[int, Path]) -> None:
    """Other images, another order, or fewer of them."""
    for ids in (["patient_1_7", "patient_9_9"], ["patient_2_3", "patient_1_7"], ["patient_1_7"]):
        leave_run(runs[7], 7, {"T": TEACHER, "S1": SECOND, "S2": FIRST}, test_images={"id": ids, "group": GROUPS})
        with pytest.raises(
            DataError, match=r"seed-7.predictions\.parquet: does not belong to the same run as metrics\.json"
        ):
            evaluate(runs)


def test_evaluation_changes_nothing_on_disk_and_can_be_written_as_json(runs: dict[int, Path]) -> None:
    """NumPy's numbers cannot."""
    before = {path: path.read_bytes() for folder in runs.values() for path in folder.iterdir()}
    first = evaluate(runs)
    assert {path: path.read_bytes() for folder in runs.values() for path in folder.iterdir()} == before
    assert json.loads(json.dumps(first)) == first == evaluate(runs)


def test_the_mean_of_both_students_is_an_ensemble_of_its_own(runs: dict[int, Path], tmp_path: Path) -> None:
    """By hand, the means of FIRST and SECOND reach one half in 0.9 with 0.49 and in 0.2 with 0.81 only."""
    seed = evaluate(runs)["seeds"]["0"]
    assert list(seed["test"]) == ["T", "S1", "S2", "ensemble", "ensemble_mean"]
    assert seed["test_images"]["ensemble_mean"] == {"tp": [2, 0], "fp": [0, 0], "fn": [0, 0], "tn": [2, 4]}
    assert seed["test"]["ensemble_mean"] == seed["fidelity"]["ensemble_mean"] == {"iou": 1.0, "f_score": 1.0}
    leave_run(tmp_path / "classes", 0, {"S1": FIRST_SAYS, "S2": SECOND_SAYS}, of_classes=True)
    images = evaluate({0: tmp_path / "classes"})["seeds"]["0"]["test_images"]
    assert images["ensemble_mean"]["predicted"] == [1, 1, 1, 0]  # the sums are 0.6, 0.95; …; 0.6, 1.2; 1.2, 0.4


def test_the_mean_of_stored_masks_is_that_of_the_probabilities() -> None:
    """But for pixels within a 256th of one half."""
    p = np.random.default_rng(0).random((2, 100, 20, 20), dtype=np.float32)
    stacks = dict(zip(("S1", "S2"), map(predictions.quantise, p), strict=True))
    marked, mean = predict_labels(with_both_ensembles(stacks)["ensemble_mean"]), p.mean(axis=0)
    certain = (mean < 1 / 2) | (mean >= 1 / 2 + 1 / 256)
    assert (marked == (mean >= 1 / 2))[certain].all()
    assert certain.mean() > 0.99


def test_hd95_is_kept_of_every_image_and_auroc_of_every_network(runs: dict[int, Path], tmp_path: Path) -> None:
    assert evaluate(runs)["seeds"]["0"]["hd95"] == {
        "T": [0, None],  # of the second image nothing is lesion, and nothing predicted
        "S1": [pytest.approx(0.95), pytest.approx(8**0.5)],
        "S2": [pytest.approx(0.95), None],
        "ensemble": [0, pytest.approx(8**0.5)],
        "ensemble_mean": [0, None],
    }
    leave_run(tmp_path / "classes", 0, {"S1": FIRST_SAYS, "S2": SECOND_SAYS}, of_classes=True)
    found = evaluate({0: tmp_path / "classes"})["seeds"]["0"]["auroc"]
    # class 0: 0.6 against 0.1, 0.5, 0.3; class 1: 0.8, 0.3 against 0.4, 0.3; class 2: 0.4 against 0, 0.1, 0.2
    assert found["S1"] == pytest.approx((3 / 3 + 2.5 / 4 + 3 / 3) / 3)


def test_auroc_leaves_out_classes_that_are_not_there() -> None:
    says = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
    assert auroc(says, np.array([0, 1])) == 1
    assert auroc(says, np.array([1, 1])) is None
