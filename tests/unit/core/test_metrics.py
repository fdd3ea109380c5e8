"""From probabilities to metrics: against scikit-learn, torchmetrics and by hand; what is kept loses no decision."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from classroom.core import predictions
from classroom.core.ensemble import with_ensemble
from classroom.core.metrics import (
    COUNTS,
    LABELS,
    METRICS,
    all_masks_empty,
    classification_metrics,
    per_image_counts,
    pixel_counts,
    predict_labels,
    score,
    segmentation_metrics,
)
from classroom.errors import DataError

MASKS = arrays(bool, (3, 4, 5))


@given(MASKS, MASKS)
def test_counts_are_scikit_learns_of_every_image(mask: Any, truth: Any) -> None:
    ours = pixel_counts(mask, truth)
    assert tuple(ours) == COUNTS
    for image in range(len(mask)):
        tn, fp, fn, tp = confusion_matrix(truth[image].ravel(), mask[image].ravel(), labels=[False, True]).ravel()
        assert {name: ours[name][image] for name in COUNTS} == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


@given(MASKS, MASKS)
def test_metrics_are_scikit_learns_over_the_pixels_of_all_images_together(mask: Any, truth: Any) -> None:
    """Pooled over the split, as the paper's printed pairs suggest; a mean over images would be another number."""
    ours = segmentation_metrics(pixel_counts(mask, truth))
    assert set(ours) == {"iou", "f_score"}
    assert ours["iou"] == pytest.approx(jaccard_score(truth.ravel(), mask.ravel(), zero_division=1.0))
    assert ours["f_score"] == pytest.approx(f1_score(truth.ravel(), mask.ravel(), zero_division=1.0))


def test_metrics_by_hand() -> None:
    """3 pixels found, 1 too many, 2 missed, in two images: IoU 3/6, F 6/9; the mean over images would differ."""
    truth = np.array([[[1, 1, 1, 0]], [[1, 1, 0, 0]]], dtype=bool)
    mask = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 1]]], dtype=bool)
    assert segmentation_metrics(pixel_counts(mask, truth)) == {
        "iou": pytest.approx(1 / 2),
        "f_score": pytest.approx(2 / 3),
    }


@given(MASKS, MASKS)
def test_f_score_follows_from_iou(mask: Any, truth: Any) -> None:
    """F = 2 IoU / (1 + IoU) is exact for pooled counts; that the paper's pairs come close is why we pool."""
    ours = segmentation_metrics(pixel_counts(mask, truth))
    assert ours["f_score"] == pytest.approx(2 * ours["iou"] / (1 + ours["iou"]), abs=1e-12)


def test_counts_of_a_single_image_are_numbers() -> None:
    mask, truth = np.eye(3, dtype=bool), np.ones((3, 3), dtype=bool)
    assert {name: int(value) for name, value in pixel_counts(mask, truth).items()} == {
        "tp": 3,
        "fp": 0,
        "fn": 6,
        "tn": 0,
    }


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    """A test split of healthy slices must not end in 0/0."""
    for found, there, expected in ((False, False, 1.0), (True, False, 0.0), (False, True, 0.0), (True, True, 1.0)):
        ours = segmentation_metrics(pixel_counts(np.full((2, 3, 3), found), np.full((2, 3, 3), there)))
        assert ours == {"iou": expected, "f_score": expected}


def test_that_there_was_nothing_to_find_is_known_from_the_counts() -> None:
    empty, some = np.zeros((2, 3, 3), bool), np.eye(3, dtype=bool)[None].repeat(2, 0)
    assert [all_masks_empty(pixel_counts(some, truth)) for truth in (empty, some)] == [True, False]
    assert not all_masks_empty(per_image_counts(np.array([0, 1]), np.array([0, 0]))), "of classes"


def test_counts_of_many_large_images_do_not_overflow() -> None:
    many, none = np.full(3, 2**31 - 1), np.zeros(3, int)
    assert segmentation_metrics({"tp": many, "fp": many, "fn": none, "tn": none})["iou"] == 0.5


# Classes

SEVEN = st.integers(0, 6)
DECIDED_AND_TRUE = st.lists(st.tuples(SEVEN, SEVEN), min_size=1, max_size=40)


@given(DECIDED_AND_TRUE)
def test_metrics_of_classes_are_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    predicted, true = (np.array(values) for values in zip(*pairs, strict=True))
    ours = score(per_image_counts(predicted, true))
    tensors, seven = (torch.from_numpy(predicted), torch.from_numpy(true)), {"num_classes": 7}
    assert ours["accuracy"] == pytest.approx(
        torchmetrics.multiclass_accuracy(*tensors, average="micro", **seven).item()
    )
    for name, function in (
        ("precision", torchmetrics.multiclass_precision),
        ("recall", torchmetrics.multiclass_recall),
    ):
        assert ours[name] == pytest.approx(function(*tensors, average="macro", **seven).item(), abs=1e-6)


def test_metrics_of_classes_by_hand(recwarn: pytest.WarningsRecorder) -> None:
    """Of 3 zeros 2 are found, of 2 ones 1, the only two is missed; class 3 does not occur, class 4 is invented once."""
    true, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 4, 0])
    ours = score(per_image_counts(predicted, true))
    assert ours["accuracy"] == pytest.approx(3 / 6)
    # of classes 0, 1, 2, 4; class 2 is never predicted: precision 0; class 4 is never true: recall 0
    assert ours["precision"] == pytest.approx((2 / 3 + 1 / 2 + 0 + 0) / 4)
    assert ours["recall"] == pytest.approx((2 / 3 + 1 / 2 + 0 + 0) / 4)
    assert not recwarn.list, "users would take a library's warning for a mistake of theirs"


def test_precision_and_recall_are_not_exchanged() -> None:
    """All are called 0: each class of two is found or not, recall 1/2; half of what is called 0 is 0, precision 1/4."""
    true, predicted = np.array([0, 0, 1, 1]), np.zeros(4, int)
    assert classification_metrics(per_image_counts(predicted, true)) == {
        "accuracy": 0.5,
        "precision": 0.25,
        "recall": 0.5,
    }


def test_a_perfect_classification_of_one_class_is_perfect(recwarn: pytest.WarningsRecorder) -> None:
    """A validation split that lacks the rare classes must not be punished for them, nor warned of."""
    same = np.full(30, 5)
    assert classification_metrics(per_image_counts(same, same)) == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0}
    assert not recwarn.list


def test_every_metric_has_a_heading_and_each_task_its_own() -> None:
    """The first is the one by which epochs are chosen."""
    assert METRICS == {"segmentation": ("iou", "f_score"), "classification": ("accuracy", "precision", "recall")}
    assert set(LABELS) == {name for names in METRICS.values() for name in names}
    truth, mask = np.ones((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    assert tuple(score(per_image_counts(mask, truth))) == METRICS["segmentation"]
    assert tuple(score(per_image_counts(np.array([1]), np.array([1])))) == METRICS["classification"]


def test_metrics_from_saved_lists_are_those_from_arrays() -> None:
    """Evaluations hold what was predicted as JSON."""
    predicted, true = np.array([0, 2, 1, 1]), np.array([0, 1, 1, 2])
    lists = {"predicted": predicted.tolist(), "true": true.tolist()}
    assert score(lists) == score(per_image_counts(predicted, true))
    assert all(type(value) is float for value in score(lists).values())


def test_the_likeliest_class_is_decided() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]], np.float32)
    assert predict_labels(probabilities).tolist() == [1, 0, 2]


def test_a_pixel_of_one_half_is_lesion() -> None:
    assert predict_labels(np.array([[[0, 127, 128, 255]]], np.uint8)).tolist() == [[[False, False, True, True]]]


# The ensemble

BYTES = arrays(np.uint8, (3, 4, 5))


@given(BYTES, BYTES, BYTES)
def test_the_ensemble_is_the_union_of_the_students(teacher: Any, first: Any, second: Any) -> None:
    """A pixel is lesion if either student says so; the teacher has no vote."""
    together = with_ensemble({"T": teacher, "S1": first, "S2": second})
    assert list(together) == ["T", "S1", "S2", "ensemble"]
    predicted = {name: predict_labels(stack) for name, stack in together.items()}
    for place in itertools.product(*map(range, first.shape)):
        assert predicted["ensemble"][place] == (predicted["S1"][place] or predicted["S2"][place])
    assert np.array_equal(together["T"], teacher)


@given(
    arrays(np.float32, (4, 7), elements=st.floats(0, 1, width=32)),
    arrays(np.float32, (4, 7), elements=st.floats(0, 1, width=32)),
)
def test_the_ensemble_of_classes_is_the_maximum_rule(first: Any, second: Any) -> None:
    """The larger of both students' probabilities of each class, then the likeliest class (Sec. 3.2)."""
    predicted = predict_labels(with_ensemble({"S1": first, "S2": second})["ensemble"])
    for row in range(4):
        largest = [max(first[row, label], second[row, label]) for label in range(7)]
        assert predicted[row] == largest.index(max(largest))


def test_the_maximum_rule_is_not_an_average() -> None:
    """S1 is sure of class 0; S2 leans to 1 and S1 gives it the rest: the average would decide 1, the maximum 0."""
    first, second = np.array([[0.6, 0.4, 0.0]], np.float32), np.array([[0.0, 0.55, 0.45]], np.float32)
    assert ((first + second) / 2).argmax() == 1
    assert predict_labels(with_ensemble({"S1": first, "S2": second})["ensemble"]).tolist() == [0]


def test_without_two_students_there_is_no_ensemble() -> None:
    for names in (["T"], ["S1"], ["T", "S1"]):
        assert list(with_ensemble({name: np.ones((1, 2, 2), np.uint8) for name in names})) == names


def test_making_the_ensemble_changes_no_student() -> None:
    stacks = {"S1": np.array([[200, 3]], np.uint8), "S2": np.array([[7, 9]], np.uint8)}
    assert with_ensemble(stacks)["ensemble"].tolist() == [[200, 9]]
    assert list(stacks) == ["S1", "S2"]
    assert (stacks["S1"].tolist(), stacks["S2"].tolist()) == ([[200, 3]], [[7, 9]])


# Probabilities in one byte

HALF = np.float32(0.5)
BELOW, ABOVE = np.nextafter(HALF, np.float32(0)), np.nextafter(HALF, np.float32(1))


@given(st.floats(0, 1, width=32))
@example(float(HALF))
@example(float(BELOW))
@example(float(ABOVE))
@example(0.0)
@example(1.0)
@example(float(np.nextafter(np.float32(1), np.float32(0))))
def test_a_byte_decides_as_its_probability_does(probability: float) -> None:
    """Otherwise metrics from a run's file would differ from the metrics of the run."""
    (byte,) = predictions.quantise(np.array([probability], np.float32))
    assert (byte >= 128) == (np.float32(probability) >= HALF)
    assert predict_labels(np.array([[[byte]]]))[0, 0, 0] == (np.float32(probability) >= HALF)


@given(st.floats(0, 1, width=32))
def test_a_byte_is_within_one_256th_below_its_probability(probability: float) -> None:
    (byte,) = predictions.quantise(np.array([probability], np.float32))
    assert byte <= 256 * probability
    assert byte > 256 * probability - 1 or byte == 255


def test_bytes_by_hand() -> None:
    values = np.array([0, 1 / 256, BELOW, 0.5, ABOVE, 0.75, 255 / 256, 1], np.float32)
    ours = predictions.quantise(values)
    assert ours.dtype == np.uint8
    assert ours.tolist() == [0, 1, 127, 128, 128, 192, 255, 255]


# The file


@given(st.data(), st.booleans())
def test_predictions_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, of_classes: bool
) -> None:
    """Heights and widths that differ, names in any script, every byte, every probability to its last bit; however many
    images come, and are written, at a time."""
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))
    name = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)  # ids are file names
    ids = data.draw(st.lists(name, min_size=shape[0], max_size=shape[0], unique=True))
    networks = data.draw(st.permutations(["T", "S1", "S2", predictions.GROUND_TRUTH]))
    if of_classes:
        content = arrays(np.float32, shape[:2], elements=st.floats(0, 1, width=32))
    else:
        content = arrays(np.uint8, shape)
    written = {name: data.draw(content) for name in networks}
    path = tmp_path_factory.mktemp("predictions") / "predictions.parquet"
    size, buffer = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 100, predictions.BUFFER_BYTES]))
    batches = [
        {name: stack[start : start + size] for name, stack in written.items()} for start in range(0, shape[0], size)
    ]
    with mock.patch.object(predictions, "BUFFER_BYTES", buffer):
        predictions.write(path, ids, batches)
    read_ids, read = predictions.read(path)
    assert read_ids == ids
    assert list(read) == list(written)
    for name, stack in written.items():
        assert read[name].dtype == stack.dtype
        assert read[name].tobytes() == stack.tobytes()
        assert read[name].shape == stack.shape


@pytest.fixture(params=["masks", "classes"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    if request.param == "masks":
        one = lambda: random.integers(0, 256, (5, 16, 16), dtype=np.uint8)  # noqa: E731
    else:
        one = lambda: random.dirichlet(np.ones(7), 5).astype(np.float32)  # noqa: E731
    stacks = {name: one() for name in ("S1", "S2", predictions.GROUND_TRUTH)}
    predictions.write(tmp_path / "predictions.parquet", [f"slice {index}" for index in range(5)], [stacks])
    return tmp_path / "predictions.parquet"


def test_the_same_predictions_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    """Runs are compared by their files' hashes."""
    ids, stacks = predictions.read(file)
    predictions.write(tmp_path / "again.parquet", ids, [stacks])
    assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()


def test_a_truncated_file_is_named(file: Path) -> None:
    content = file.read_bytes()
    for share in (0, 0.01, 0.5, 0.99):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=r"predictions\.parquet: cannot be read.*Train this run again"):
            predictions.read(file)


def test_an_image_of_another_size_than_the_file_says_is_refused(file: Path) -> None:
    table = pq.read_table(file)
    wrong = {"16×16": "16×15", "7": "6"}[table.schema.metadata[b"shape"].decode()]
    pq.write_table(table.replace_schema_metadata({"shape": wrong}), file)
    with pytest.raises(DataError, match=r"predictions\.parquet: cannot be read"):
        predictions.read(file)


def test_an_absent_file_and_another_program_s_are_named(tmp_path: Path) -> None:
    """Or one of an older version, whose files said height and width."""
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "other.parquet")
    table = pa.table({"network": ["S1", "ground_truth"], "id": ["a", "a"], "probability": [b"\0", b"\0"]})
    pq.write_table(table.replace_schema_metadata({"height": "1", "width": "1"}), tmp_path / "old.parquet")
    for name in ("absent", "other", "old"):
        message = rf"{name}\.parquet: cannot be read as a run's predictions.*Train this run again"
        with pytest.raises(DataError, match=message):
            predictions.read(tmp_path / f"{name}.parquet")
