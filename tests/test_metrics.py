"""From probabilities to metrics: counts against scikit-learn, a byte per pixel that loses no decision, the ensemble."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from classroom.errors import DataError
from classroom.evaluation import predictions
from classroom.evaluation.ensemble import with_ensemble
from classroom.evaluation.metrics import COUNTS, counts, pooled

MASKS = arrays(bool, (3, 4, 5))
MANY = settings(max_examples=60, deadline=None)


@MANY
@given(MASKS, MASKS)
def test_counts_are_scikit_learns_of_every_image(mask: Any, truth: Any) -> None:
    ours = counts(mask, truth)
    assert tuple(ours) == COUNTS
    for image in range(len(mask)):
        tn, fp, fn, tp = confusion_matrix(truth[image].ravel(), mask[image].ravel(), labels=[False, True]).ravel()
        assert {name: ours[name][image] for name in COUNTS} == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


@MANY
@given(MASKS, MASKS)
def test_metrics_are_scikit_learns_over_the_pixels_of_all_images_together(mask: Any, truth: Any) -> None:
    """Pooled over the split, as the paper's printed pairs suggest; a mean over images would be another number."""
    ours = pooled(counts(mask, truth))
    assert set(ours) == {"iou", "f_score"}
    assert ours["iou"] == pytest.approx(jaccard_score(truth.ravel(), mask.ravel(), zero_division=1.0))
    assert ours["f_score"] == pytest.approx(f1_score(truth.ravel(), mask.ravel(), zero_division=1.0))


def test_metrics_by_hand() -> None:
    """3 pixels found, 1 too many, 2 missed, in two images: IoU 3/6, F 6/9; the mean over images would differ."""
    truth = np.array([[[1, 1, 1, 0]], [[1, 1, 0, 0]]], dtype=bool)
    mask = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 1]]], dtype=bool)
    assert pooled(counts(mask, truth)) == {"iou": pytest.approx(1 / 2), "f_score": pytest.approx(2 / 3)}


@MANY
@given(MASKS, MASKS)
def test_f_score_follows_from_iou(mask: Any, truth: Any) -> None:
    """F = 2 IoU / (1 + IoU) is exact for pooled counts; that the paper's pairs come close is why we pool."""
    ours = pooled(counts(mask, truth))
    assert ours["f_score"] == pytest.approx(2 * ours["iou"] / (1 + ours["iou"]), abs=1e-12)


@MANY
@given(MASKS, MASKS)
def test_tensors_give_what_arrays_give(mask: Any, truth: Any) -> None:
    ours = counts(torch.from_numpy(mask), torch.from_numpy(truth))
    expected = counts(mask, truth)
    assert {name: ours[name].tolist() for name in COUNTS} == {name: expected[name].tolist() for name in COUNTS}
    assert pooled(ours) == pooled(expected)


def test_counts_of_a_single_image_are_numbers() -> None:
    mask, truth = np.eye(3, dtype=bool), np.ones((3, 3), dtype=bool)
    assert {name: int(value) for name, value in counts(mask, truth).items()} == {"tp": 3, "fp": 0, "fn": 6, "tn": 0}


@pytest.mark.parametrize(
    ("found", "there", "expected"), [(False, False, 1.0), (True, False, 0.0), (False, True, 0.0), (True, True, 1.0)]
)
def test_nothing_to_find_and_nothing_found_is_perfect(found: bool, there: bool, expected: float) -> None:
    """A test split of healthy slices must not end in 0/0."""
    shape = (2, 3, 3)
    ours = pooled(counts(np.full(shape, found), np.full(shape, there)))
    assert ours == {"iou": expected, "f_score": expected}


def test_counts_of_many_large_images_do_not_overflow() -> None:
    many, none = np.full(3, 2**31 - 1), np.zeros(3, int)
    assert pooled({"tp": many, "fp": many, "fn": none, "tn": none})["iou"] == 0.5


# The ensemble


@MANY
@given(MASKS, MASKS, MASKS)
def test_the_ensemble_is_the_union_of_the_students(teacher: Any, first: Any, second: Any) -> None:
    """A pixel is lesion if either student says so; the teacher has no vote."""
    together = with_ensemble({"T": teacher, "S1": first, "S2": second})
    assert list(together) == ["T", "S1", "S2", "ensemble"]
    for place in itertools.product(*map(range, first.shape)):
        assert together["ensemble"][place] == (first[place] or second[place])
    assert np.array_equal(together["T"], teacher)


@pytest.mark.parametrize("names", [["T"], ["S1"], ["T", "S1"]])
def test_without_two_students_there_is_no_ensemble(names: list[str]) -> None:
    masks = {name: np.ones((1, 2, 2), dtype=bool) for name in names}
    assert list(with_ensemble(masks)) == names


def test_making_the_ensemble_changes_no_student() -> None:
    masks = {"S1": np.array([[True, False]]), "S2": np.array([[False, False]])}
    with_ensemble(masks)
    assert list(masks) == ["S1", "S2"]
    assert masks["S2"].tolist() == [[False, False]]


def test_the_ensemble_of_tensors_is_the_same() -> None:
    masks = {"S1": torch.tensor([[True, False]]), "S2": torch.tensor([[False, False]])}
    assert with_ensemble(masks)["ensemble"].tolist() == [[True, False]]


# Probabilities in one byte

HALF = np.float32(0.5)
BELOW, ABOVE = np.nextafter(HALF, np.float32(0)), np.nextafter(HALF, np.float32(1))


@settings(max_examples=300, deadline=None)
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
    assert predictions.mask(np.array([byte]))[0] == (np.float32(probability) >= HALF)


@settings(max_examples=300, deadline=None)
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


def test_the_numbers_next_to_one_half_decide_differently() -> None:
    assert predictions.mask(predictions.quantise(np.array([BELOW, HALF, ABOVE]))).tolist() == [False, True, True]


# The file


@MANY
@given(st.data())
def test_predictions_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Heights and widths that differ, names in any script, values of every byte."""
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)))
    name = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)  # ids are file names
    ids = data.draw(st.lists(name, min_size=shape[0], max_size=shape[0], unique=True))
    networks = data.draw(st.permutations(["T", "S1", "S2", predictions.TRUTH]))
    written = {name: data.draw(arrays(np.uint8, shape)) for name in networks}
    path = tmp_path_factory.mktemp("predictions") / "predictions.parquet"
    predictions.write(path, ids, written)
    read_ids, read = predictions.read(path)
    assert read_ids == ids
    assert list(read) == list(written)
    for name, stack in written.items():
        assert read[name].dtype == np.uint8
        assert np.array_equal(read[name], stack)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    stacks = {name: random.integers(0, 256, (5, 16, 16), dtype=np.uint8) for name in ("S1", "S2", predictions.TRUTH)}
    predictions.write(tmp_path / "predictions.parquet", [f"slice {index}" for index in range(5)], stacks)
    return tmp_path / "predictions.parquet"


def test_the_same_predictions_give_the_same_bytes(file: Path, tmp_path: Path) -> None:
    """Runs are compared by their files' hashes."""
    predictions.write(tmp_path / "again.parquet", *predictions.read(file))
    assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(share: float, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(DataError, match=r"predictions\.parquet: cannot be read.*Train this run again"):
        predictions.read(file)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.parquet: cannot be read"):
        predictions.read(tmp_path / "absent.parquet")


def test_another_programs_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: cannot be read as a run's predictions"):
        predictions.read(tmp_path / "other.parquet")


def test_an_image_of_another_size_than_the_file_says_is_refused(file: Path) -> None:
    table = pq.read_table(file).replace_schema_metadata({"height": "16", "width": "15"})
    pq.write_table(table, file)
    with pytest.raises(DataError, match=r"predictions\.parquet: cannot be read"):
        predictions.read(file)
