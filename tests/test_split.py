"""Splitting: no leaks under `by: group`, every image once, the promised proportions, the same seed the same split."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import STUDY
from hypothesis import given, settings
from hypothesis import strategies as st

from classroom.data import batches, split
from classroom.errors import DataError
from classroom.params import Split, select

PAPER = (75, 10, 15)


def index_of(groups: list[str], labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"image-{row}" for row in range(len(groups))], "group": groups, "label": labels})


@st.composite
def datasets(draw: st.DrawFn) -> pd.DataFrame:
    """40 to 110 patients with 1 to 6 images each, about half of them with a lesion, in any order."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = random.integers(1, 7, draw(st.integers(40, 110)))
    groups = [f"patient-{patient}" for patient, size in enumerate(sizes) for _ in range(size)]
    labels = (random.random(len(groups)) < draw(st.floats(0.35, 0.65))).astype(int)
    labels[: len(labels) // 3] = 1 - labels[len(labels) - len(labels) // 3 :][::-1]  # never too few of one label
    return index_of(groups, labels.tolist()).sample(frac=1, random_state=int(random.integers(1000)))


seeds = st.integers(0, 1000)
percentages = st.sampled_from([PAPER, (70, 10, 20), (80, 10, 10), (60, 20, 20), (50, 25, 25)])


@settings(max_examples=25, deadline=None)
@given(datasets(), seeds, percentages)
def test_no_patient_crosses_splits(index, seed, percent):
    """A patient on both sides of the split leaks, and the test scores would be too good."""
    assigned = split.assign(index, Split(percent=percent, by="group", seed=seed))
    assert (assigned.groupby(index.group).nunique() == 1).all()


@settings(max_examples=25, deadline=None)
@given(datasets(), seeds, st.sampled_from(["image", "group"]), percentages)
def test_every_image_is_in_exactly_one_split(index, seed, by, percent):
    assigned = split.assign(index, Split(percent=percent, by=by, seed=seed))
    assert assigned.index.equals(index.index)
    assert set(assigned) == {"train", "val", "test"}


@settings(max_examples=15, deadline=None)
@given(datasets(), seeds, st.sampled_from(["image", "group"]))
def test_the_same_seed_gives_the_same_split(index, seed, by):
    settings_ = Split(percent=PAPER, by=by, seed=seed)
    np.random.seed(seed)  # the global stream must not count
    first = split.assign(index, settings_)
    np.random.seed(seed + 1)
    pd.testing.assert_series_equal(split.assign(index.copy(), settings_), first)


@pytest.mark.parametrize("by", ["image", "group"])
def test_another_seed_gives_another_split(by):
    index = index_of([f"patient-{row // 4}" for row in range(400)], [row % 2 for row in range(400)])
    splits = {tuple(split.assign(index, Split(percent=PAPER, by=by, seed=seed))) for seed in range(5)}
    assert len(splits) == 5


@settings(max_examples=40, deadline=None)
@given(datasets(), seeds, percentages)
def test_by_image_every_label_has_its_share_of_every_split(index, seed, percent):
    """A share of f of k equal folds holds between f·⌊n/k⌋ and f·⌈n/k⌉ of a label's n images."""
    assigned = split.assign(index, Split(percent=percent, by="image", seed=seed))
    folds = 100 // int(np.gcd.reduce(percent))
    for label, count in index.label.value_counts().items():
        for name, share in zip(split.NAMES, percent, strict=True):
            found = ((assigned == name) & (index.label == label)).sum()
            of_folds = share * folds // 100
            assert of_folds * (count // folds) <= found <= of_folds * -(-count // folds)


@settings(max_examples=25, deadline=None)
@given(datasets(), seeds)
def test_by_group_the_splits_are_near_75_10_15(index, seed):
    assigned = split.assign(index, Split(percent=PAPER, by="group", seed=seed))
    for name, share in zip(split.NAMES, PAPER, strict=True):
        assert (assigned == name).mean() == pytest.approx(share / 100, abs=0.09)


@pytest.mark.parametrize("by", ["image", "group"])
def test_splitting_says_nothing(by, recwarn):
    """Users would take a library's warning for something that they did wrong."""
    index = index_of([f"patient-{row // 4}" for row in range(400)], [row % 2 for row in range(400)])
    split.assign(index, Split(percent=PAPER, by=by, seed=3))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("by", ["image", "group"])
def test_400_images_of_100_patients_split_75_10_15_exactly(by):
    """100 equal patients fill 20 folds exactly: 300, 40 and 60 images, half of each with a lesion."""
    index = index_of([f"patient-{row // 4}" for row in range(400)], [row % 2 for row in range(400)])
    assigned = split.assign(index, Split(percent=PAPER, by=by, seed=3))
    assert assigned.value_counts().to_dict() == {"train": 300, "val": 40, "test": 60}
    assert index.label.groupby(assigned).mean().to_dict() == {"train": 0.5, "val": 0.5, "test": 0.5}


def test_by_group_lesions_are_spread_over_the_splits():
    """Every other patient has lesions in all slices: without stratification a validation of 10 could miss them."""
    index = index_of([f"patient-{row // 4}" for row in range(400)], [row // 4 % 2 for row in range(400)])
    for seed in range(10):
        assigned = split.assign(index, Split(percent=PAPER, by="group", seed=seed))
        shares = index.label.groupby(assigned).mean()
        assert shares.to_numpy() == pytest.approx(0.5, abs=0.15), seed


# --- too few ---


def test_too_few_patients_are_counted():
    index = index_of([f"patient-{row // 4}" for row in range(19 * 4)], [row % 2 for row in range(19 * 4)])
    with pytest.raises(DataError, match=r"^split 75:10:15 by group: only 19 patients; at least 20 are needed\."):
        split.assign(index, Split(percent=PAPER, by="group", seed=0))
    # What the message proposes must help.
    split.assign(index, Split(percent=PAPER, by="image", seed=0))
    split.assign(index, Split(percent=(70, 10, 20), by="group", seed=0))


@pytest.mark.parametrize("by", ["image", "group"])
@pytest.mark.parametrize(("label", "described"), [(0, "without a lesion"), (1, "with a lesion")])
def test_too_few_images_of_a_kind_are_counted(by, label, described):
    index = index_of([f"patient-{row}" for row in range(100)], [label if row < 7 else 1 - label for row in range(100)])
    message = rf"^split 75:10:15: only 7 images {described}; at least 20 are needed"
    with pytest.raises(DataError, match=message):
        split.assign(index, Split(percent=PAPER, by=by, seed=0))


def test_percentages_that_need_finer_folds_need_more_images():
    index = index_of([f"patient-{row}" for row in range(80)], [row % 2 for row in range(80)])
    with pytest.raises(DataError, match=r"^split 74:11:15: only 40 images with.*at least 100 are needed"):
        split.assign(index, Split(percent=(74, 11, 15), by="image", seed=0))


def test_lesions_of_a_single_patient_cannot_be_in_every_split():
    """Scores on a split without any lesion would mean nothing."""
    groups = ["the one with lesions"] * 30 + [f"patient-{row // 4}" for row in range(160)]
    index = index_of(groups, [1] * 30 + [0] * 160)
    message = r"^split by group: no image with a lesion fell into '(train|val|test)'\. There are too few"
    with pytest.raises(DataError, match=message):
        split.assign(index, Split(percent=PAPER, by="group", seed=0))
    split.assign(index, Split(percent=PAPER, by="image", seed=0))


# --- the file ---


def test_the_file_holds_every_prepared_image_its_split_and_how_it_came_about(tiny_study, raw):
    table = pd.read_parquet(tiny_study / "splits.parquet")
    index = pd.read_parquet(tiny_study / "prepared" / "index.parquet")
    settings_ = select(raw, f"study.{STUDY}.split", Split)
    assert list(table.columns) == ["id", "group", "label", "split"]
    pd.testing.assert_frame_equal(table[["id", "group", "label"]], index[["id", "group", "label"]], check_like=True)
    assert table.split.tolist() == split.assign(index, settings_).tolist()
    assert json.loads(json.dumps(table.attrs["split"])) == raw["study"][STUDY]["split"]


def test_the_reported_sizes_are_those_of_the_file(tiny_study, tmp_path):
    settings_ = Split(percent=(60, 20, 20), by="image", seed=7)
    sizes = split.write(tiny_study / "prepared", settings_, tmp_path / "splits.parquet")
    table = pd.read_parquet(tmp_path / "splits.parquet")
    assert sizes == {name: int((table.split == name).sum()) for name in ("train", "val", "test")}
    assert sum(sizes.values()) == len(pd.read_parquet(tiny_study / "prepared" / "index.parquet"))
    assert batches.described(tmp_path / "splits.parquet") == {
        "split": {"percent": [60, 20, 20], "by": "image", "seed": 7},
        **sizes,
    }


def test_a_split_that_fails_leaves_the_old_file(tiny_study, tmp_path):
    target = tmp_path / "splits.parquet"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="at least 100 are needed"):
        split.write(tiny_study / "prepared", Split(percent=(74, 11, 15), by="image", seed=0), target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["splits.parquet"]
