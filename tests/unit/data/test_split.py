"""Splitting: no leaks under `by: group`, every image once, the promised proportions, the same seed the same split."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom.artifacts import SPLIT_NAMES
from classroom.core import batches
from classroom.data import split
from classroom.errors import DataError
from classroom.params import Split, select
from support.studies import STUDY

PAPER = (75, 10, 15)


def index_of(groups: list[str], labels: list[int] | list[str]) -> pd.DataFrame:
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


@given(datasets(), seeds, percentages)
def test_no_patient_crosses_splits(index, seed, percent):
    """A patient on both sides of the split leaks, and the test scores would be too good."""
    assigned = split.assign(index, Split(percent=percent, by="group", seed=seed))
    assert (assigned.groupby(index.group).nunique() == 1).all()


@given(datasets(), seeds, st.sampled_from(["image", "group"]), percentages)
def test_every_image_is_in_exactly_one_split(index, seed, by, percent):
    assigned = split.assign(index, Split(percent=percent, by=by, seed=seed))
    assert assigned.index.equals(index.index)
    assert set(assigned) == {"train", "val", "test"}


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


@given(datasets(), seeds, percentages)
def test_by_image_every_split_has_its_percentage_of_every_label_rounded(index, seed, percent):
    assigned = split.assign(index, Split(percent=percent, by="image", seed=seed))
    for images in (assigned, assigned[index.label == 0], assigned[index.label == 1]):
        for name, share in zip(SPLIT_NAMES, percent, strict=True):
            assert abs((images == name).sum() - share * len(images) / 100) < 1


def assert_sizes_are_kept(assigned: pd.Series, index: pd.DataFrame, percent: tuple[int, int, int], by: str) -> None:
    """Every split differs from its percentage of the images by less than the largest unit."""
    largest = 1 if by == "image" else index.group.value_counts().max()
    for name, share in zip(SPLIT_NAMES, percent, strict=True):
        assert abs((assigned == name).sum() - share * len(index) / 100) < largest


@given(datasets(), seeds, percentages)
def test_by_group_the_splits_have_their_percentages_to_less_than_the_largest_group(index, seed, percent):
    assigned = split.assign(index, Split(percent=percent, by="group", seed=seed))
    assert_sizes_are_kept(assigned, index, percent, "group")


def test_by_group_the_shares_of_labels_are_near_75_10_15():
    """110 patients as LGG's, of 20 to 88 slices, some with lesions in few of them and some in most."""
    random = np.random.default_rng(0)
    sizes = random.integers(20, 89, 110)
    labels = random.random(sizes.sum()) < np.repeat(random.beta(3, 5, 110), sizes)
    index = index_of([f"patient-{patient}" for patient, size in enumerate(sizes) for _ in range(size)], labels.tolist())
    for seed in range(3):
        assigned = split.assign(index, Split(percent=PAPER, by="group", seed=seed))
        for label in (True, False):
            shares = assigned[index.label == label].value_counts(normalize=True)[list(SPLIT_NAMES)]
            assert shares.to_numpy() == pytest.approx(np.array(PAPER) / 100, abs=0.02), (seed, label)


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
    with pytest.raises(
        DataError,
        match=r"^split 75:10:15 by group: only 19 groups \(patients, slides, lesions\), at least 20 are needed: "
        r"patient-0, .*, … \(19 in all\)\. Use more data, or percentages of fewer parts: \[70, 10, 20\] needs 10, or",
    ):
        split.assign(index, Split(percent=PAPER, by="group", seed=0))
    # What the message proposes must help.
    split.assign(index, Split(percent=PAPER, by="image", seed=0))
    split.assign(index, Split(percent=(70, 10, 20), by="group", seed=0))


def test_percentages_that_need_finer_folds_need_more_images():
    index = index_of([f"patient-{row}" for row in range(80)], [row % 2 for row in range(80)])
    with pytest.raises(
        DataError, match=r"^split 74:11:15: only 40 images of the most frequent label; at least 100 are needed"
    ):
        split.assign(index, Split(percent=(74, 11, 15), by="image", seed=0))


def test_lesions_of_a_single_patient_cannot_be_in_every_split():
    """Scores on a split without any lesion would mean nothing."""
    groups = ["the one with lesions"] * 30 + [f"patient-{row // 4}" for row in range(160)]
    index = index_of(groups, [1] * 30 + [0] * 160)
    message = r"^split by group: no image of '1' was assigned to '(train|val|test)', as there are too few"
    with pytest.raises(DataError, match=message):
        split.assign(index, Split(percent=PAPER, by="group", seed=0))
    split.assign(index, Split(percent=PAPER, by="image", seed=0))


# --- rare labels ---


def rare_index(rare: int, per_group: int = 1, common: int = 141) -> pd.DataFrame:
    """`rare` images of a rare label among `common` others, `per_group` images to a group, in a fixed mixed order."""
    labels = ["rare"] * rare + ["common"] * common
    groups = [f"rare-{row // per_group}" for row in range(rare)] + [f"common-{row // 2}" for row in range(common)]
    return index_of(groups, labels).sample(frac=1, random_state=0)


@pytest.mark.parametrize("by", ["image", "group"])
@pytest.mark.parametrize(("rare", "per_group"), [(4, 1), (4, 2), (4, 4), (1, 1), (2, 1), (3, 3)])
def test_a_rare_label_is_never_missing_from_training(rare, per_group, by, recwarn):
    """4 of 145 images, as few as synthetic dermatofibromas: a class never seen in training cannot be learnt."""
    index = rare_index(rare, per_group)
    for seed in range(15):
        assigned = split.assign(index, Split(percent=PAPER, by=by, seed=seed))
        found = assigned[index.label == "rare"]
        assert (found == "train").any(), seed
        if by == "group":
            assert (assigned.groupby(index.group).nunique() == 1).all()
    assert not recwarn.list


@pytest.mark.parametrize("by", ["image", "group"])
def test_few_images_of_a_label_are_spread_where_they_can_be(by):
    """Of three groups each split gets one; piled up in training, validation and test would say nothing of the label."""
    index = rare_index(6, 2)
    for seed in range(10):
        assigned = split.assign(index, Split(percent=PAPER, by=by, seed=seed))
        assert set(assigned[index.label == "rare"]) == {"train", "val", "test"}, seed


@st.composite
def imbalanced(draw: st.DrawFn) -> pd.DataFrame:
    """HAM10000's case: 70 to 120 lesions of 1 to 4 photographs, seven classes, each lesion of one; some very rare."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = random.integers(1, 5, draw(st.integers(70, 120)))
    classes = random.choice(list("abcdefg"), len(sizes), p=[0.62, 0.13, 0.1, 0.06, 0.05, 0.03, 0.01])
    classes[: len(sizes) // 2] = "a"
    return index_of(
        [f"lesion-{lesion}" for lesion, size in enumerate(sizes) for _ in range(size)],
        [label for label, size in zip(classes.tolist(), sizes, strict=True) for _ in range(size)],
    ).sample(frac=1, random_state=int(random.integers(1000)))


@given(imbalanced(), seeds, st.sampled_from(["image", "group"]), percentages)
def test_of_many_classes_none_is_missing_from_training_and_no_group_crosses(index, seed, by, percent):
    parts = 100 // int(np.gcd.reduce(percent))
    try:
        assigned = split.assign(index, Split(percent=percent, by=by, seed=seed))
    except DataError as error:
        # Only a frequent label may be the reason: photographs of two lesions at most cannot be in all three splits.
        label = re.search(r"no image of '(\w)' was assigned to", str(error)).group(1)
        assert (index.label == label).sum() >= parts
        assert by == "group"
        assert index.group[index.label == label].nunique() < 3
        return
    assert set(assigned[assigned == "train"].index.map(index.label)) == set(index.label)
    if by == "group":
        assert (assigned.groupby(index.group).nunique() == 1).all()
    for label, count in index.label.value_counts().items():
        if count >= parts:
            assert set(assigned[index.label == label]) == {"train", "val", "test"}
    assert_sizes_are_kept(assigned, index, percent, by)


@st.composite
def few_units(draw: st.DrawFn) -> tuple[pd.DataFrame, str, tuple[int, int, int]]:
    """So few images or groups that all assignments can be tried; as many have the label 'a' as there must be."""
    percent = draw(
        st.sampled_from([(50, 25, 25), (25, 25, 50), (25, 50, 25), (20, 20, 60), (60, 20, 20), (40, 40, 20)])
    )
    by = draw(st.sampled_from(["image", "group"]))
    most = 1 if by == "image" else 3
    parts = 100 // int(np.gcd.reduce(percent))
    common = draw(st.lists(st.lists(st.sampled_from("abcde"), max_size=most - 1), min_size=parts, max_size=parts))
    others = draw(st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=most), max_size=8 - parts))
    units = [["a", *labels] for labels in common] + others
    groups = [f"group-{unit}" for unit, labels in enumerate(units) for _ in labels]
    return index_of(groups, list(itertools.chain(*units))), by, percent


@given(few_units(), seeds)
def test_an_assignment_is_found_whenever_there_is_one(few, seed):
    """Every assignment of 4 to 8 units is tried: which keep the sizes and miss no label where it must be?"""
    index, by, percent = few
    counts = pd.crosstab(index.group if by == "group" else index.id, index.label)
    tried = np.array(list(itertools.product(range(3), repeat=len(counts))))
    images = np.einsum("aus,ul->asl", tried[:, :, None] == range(3), counts)  # assignments × splits × labels
    wanted = np.array(percent) * len(index) / 100
    sizes_kept = (abs(images.sum(axis=2) - wanted) < counts.sum(axis=1).max()).all(axis=1)
    frequent = counts.sum() >= 100 // int(np.gcd.reduce(percent))
    none_missing = (images[:, 0] > 0).all(axis=1) & (images[:, :, frequent] > 0).all(axis=(1, 2))
    missing = (images == 0).sum(axis=(1, 2))[sizes_kept & none_missing]
    try:
        assigned = split.assign(index, Split(percent=percent, by=by, seed=seed))
    except DataError:
        assert not len(missing)
        return
    assert_sizes_are_kept(assigned, index, percent, by)
    found = pd.crosstab(assigned, index.label).loc[list(SPLIT_NAMES)]
    assert (found.loc["train"] > 0).all()
    assert (found.loc[:, frequent] > 0).all(axis=None)
    assert (found == 0).to_numpy().sum() == missing.min()


def test_rare_labels_of_a_few_groups_are_all_in_training():
    """Lesions of three rare classes: where they fall into three of four folds, and training has two, one is lost."""
    rare = {"d": [2], "e": [3], "f": [1, 2]}
    groups = [f"common-{row // 3}" for row in range(230)]
    labels = ["a"] * 230
    for label, sizes in rare.items():
        for lesion, size in enumerate(sizes):
            groups += [f"{label}-{lesion}"] * size
            labels += [label] * size
    index = index_of(groups, labels)
    for seed in range(20):
        assigned = split.assign(index, Split(percent=(50, 25, 25), by="group", seed=seed))
        assert set(index.label[assigned == "train"]) == {"a", "d", "e", "f"}, seed
        assert index.group[(assigned == "train") & (index.label == "f")].nunique() == 1, seed  # the other is spread
        assert_sizes_are_kept(assigned, index, (50, 25, 25), "group")


def test_a_frequent_label_of_one_group_is_refused_by_group_and_a_rare_one_is_not():
    """20 images of one lesion ought to be in every split and cannot be; 4 need not be."""
    frequent = rare_index(20, 20)
    with pytest.raises(
        DataError, match=r"^split by group: no image of 'rare' was assigned to '(val|test)'.*split by image"
    ):
        split.assign(frequent, Split(percent=PAPER, by="group", seed=0))
    split.assign(frequent, Split(percent=PAPER, by="image", seed=0))
    split.assign(rare_index(4, 4), Split(percent=PAPER, by="group", seed=0))


def test_training_of_one_percent_is_filled_with_rare_labels_and_those_without_room_are_named():
    """Training gets 4 or 5 of 404 or 405 images, one of them common: four rare labels fit, and five do not."""
    for seed in range(5):
        settings_ = Split(percent=(1, 49, 50), by="image", seed=seed)
        index, crowded = (
            index_of([f"patient-{row}" for row in range(400 + rare)], ["common"] * 400 + list("vwxyz"[:rare]))
            for rare in (4, 5)
        )
        assigned = split.assign(index, settings_)
        assert sorted(index.label[assigned == "train"]) == ["common", *"vwxy"]
        with pytest.raises(
            DataError,
            match=r"^split by image: no image of '([v-z]|common)' was assigned to 'train', as there are too few",
        ):
            split.assign(crowded, settings_)


# --- the file ---


@pytest.mark.parametrize("rare", ["rare", 1])
def test_what_a_split_lacks_is_written_down(tmp_path, rare):
    """Tables must be able to say that a class was not tested at all; as JSON, whatever pandas makes of the labels."""
    index = rare_index(4, 4)
    if rare == 1:
        index["label"] = (index.label == "rare").astype(int)
    index.to_parquet(tmp_path / "index.parquet", index=False)
    split.write(tmp_path, Split(percent=PAPER, by="group", seed=0), tmp_path / "splits.parquet")
    about = batches.read_splits(tmp_path / "splits.parquet")
    assert about["lacking"] == {"val": [rare], "test": [rare]}
    assert json.loads(json.dumps(about)) == about


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
    assert sizes == {name: int((table.split == name).sum()) for name in SPLIT_NAMES}
    assert sum(sizes.values()) == len(pd.read_parquet(tiny_study / "prepared" / "index.parquet"))
    assert batches.read_splits(tmp_path / "splits.parquet") == {
        "split": {"percent": [60, 20, 20], "by": "image", "seed": 7},
        **sizes,
        "lacking": {},
    }


def test_a_split_that_fails_leaves_the_old_file(tiny_study, tmp_path):
    target = tmp_path / "splits.parquet"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="at least 100 are needed"):
        split.write(tiny_study / "prepared", Split(percent=(74, 11, 15), by="image", seed=0), target)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["splits.parquet"]
