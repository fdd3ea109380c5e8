"""Batches of classes: the order of an epoch, its balance, and what augmentation leaves alone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classroom.core.augment import Augment
from classroom.core.batches import SplitData, cache_on_device, open_splits, order
from classroom.params import Augmentation

CPU = torch.device("cpu")
SEEDS, EPOCHS = st.integers(0, 2**32), st.integers(0, 10_000)
COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=7)


def split_of(counts: list[int], missing: int = 0) -> SplitData:
    """So many images of each class, mixed, among rows that belong to other splits; `missing` classes come first."""
    classes = np.repeat(np.arange(len(counts)) + missing, counts)
    classes = np.random.default_rng(len(classes)).permutation(classes)
    targets = np.zeros(2 * len(classes), np.uint8)  # every other row is of another split
    targets[1::2] = classes
    rows = np.arange(1, len(targets), 2)
    return SplitData(np.empty((len(targets), 1, 1, 3), np.uint8), targets, rows, [str(row) for row in rows], ["g"])


@given(COUNTS, SEEDS, EPOCHS)
def test_without_balance_an_epoch_holds_every_image_once(counts: list[int], seed: int, epoch: int) -> None:
    split = split_of(counts)
    assert sorted(order(split, "none", seed, epoch)) == list(range(sum(counts)))


@given(COUNTS, SEEDS, EPOCHS, st.integers(0, 3))
def test_with_balance_every_class_is_seen_equally_often(counts: list[int], seed: int, epoch: int, missing: int) -> None:
    """As often as an average class occurs (Sec. 4.1); a class that the split lacks is not waited for."""
    split = split_of(counts, missing)
    drawn = order(split, "mean", seed, epoch)
    size = round(sum(counts) / len(counts))
    assert np.bincount(split.ground_truth[drawn]).tolist() == [0] * missing + [size] * len(counts)


@given(COUNTS, SEEDS, EPOCHS)
def test_no_image_of_a_class_is_preferred(counts: list[int], seed: int, epoch: int) -> None:
    """A small class's images come as often as one another, give or take one; a large class's at most once."""
    split = split_of(counts)
    seen = np.bincount(order(split, "mean", seed, epoch), minlength=len(split))
    size = round(sum(counts) / len(counts))
    for label, count in enumerate(counts):
        often = seen[split.ground_truth == label]
        assert often.max() - often.min() <= 1
        assert often.max() == -(-size // count)


@pytest.mark.parametrize("balance", ["none", "mean"])
@given(counts=COUNTS, seed=SEEDS, epoch=EPOCHS)
def test_an_epoch_depends_on_nothing_but_seed_and_number(
    balance: str, counts: list[int], seed: int, epoch: int
) -> None:
    """A training that was killed must go on with the very batches that it would have seen."""
    split = split_of(counts)
    np.random.seed(epoch)
    first = order(split, balance, seed, epoch)
    np.random.seed(epoch + 1)
    np.testing.assert_array_equal(order(split, balance, seed, epoch), first)
    assert len(order(split, balance, seed, epoch + 1)) == len(first), "epochs of different lengths cannot be resumed"


@pytest.mark.parametrize("balance", ["none", "mean"])
@given(counts=st.lists(st.integers(12, 60), min_size=2, max_size=7), seed=SEEDS, epoch=EPOCHS)
def test_another_epoch_or_seed_has_another_order(balance: str, counts: list[int], seed: int, epoch: int) -> None:
    split = split_of(counts)
    first = order(split, balance, seed, epoch).tolist()
    assert order(split, balance, seed, epoch + 1).tolist() != first
    assert order(split, balance, seed + 1, epoch).tolist() != first
    assert first != sorted(first), "not shuffled at all"


def test_a_large_class_shows_other_images_in_other_epochs() -> None:
    """Drawn once for all, most photographs of the common class would never be learnt from."""
    split = split_of([200, 10])
    seen = set()
    for epoch in range(12):
        drawn = order(split, "mean", 0, epoch)
        seen |= {position for position in drawn.tolist() if split.ground_truth[position] == 0}
    assert len(seen) == 200


def test_classes_are_mixed_within_an_epoch() -> None:
    """Class after class, a batch would hold one class only, and batch normalisation would tell which."""
    split = split_of([40, 40, 40, 40])
    truth = split.ground_truth[order(split, "mean", 0, 0)]
    assert np.mean(truth[1:] != truth[:-1]) > 0.5


# Validation and test


@pytest.mark.parametrize("name", ["val", "test"])
@pytest.mark.parametrize("batch_size", [8, 1000])
def test_evaluated_splits_are_never_balanced(tiny_classes_study: Path, name: str, batch_size: int) -> None:
    """All images once, in the order of the ids next to which the predictions are written."""
    part = open_splits(tiny_classes_study / "prepared", tiny_classes_study / "splits.parquet")[name]
    table = pd.read_parquet(tiny_classes_study / "splits.parquet").query("split == @name")
    assert (part.ids, part.groups) == (table.id.tolist(), table.group.tolist())
    stored = np.load(tiny_classes_study / "prepared" / "targets.npy")[table.index]
    targets = torch.cat([targets for _, targets in part.in_order(batch_size, CPU)])
    assert targets.tolist() == stored.tolist() == part.ground_truth.tolist()


def test_a_batch_of_classes_holds_their_images_and_indices(tiny_classes_study: Path) -> None:
    part = open_splits(tiny_classes_study / "prepared", tiny_classes_study / "splits.parquet")["train"]
    pixels = np.load(tiny_classes_study / "prepared" / "images.npy")
    positions = np.array([5, 0, 5])
    images, targets = part.batch(positions, CPU)
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (targets.shape, targets.dtype) == ((3,), torch.int64), "cross-entropy takes nothing else"
    for row, position in enumerate(positions):
        expected = pixels[part.rows[position]].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(images[row].numpy(), expected, rtol=1e-6)
        assert targets[row] == part.ground_truth[position]


def test_the_truth_of_masks_is_of_booleans(tiny_study: Path) -> None:
    part = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["val"]
    assert (part.ground_truth.shape, part.ground_truth.dtype) == ((len(part), 32, 32), bool)
    _, masks = part.batch(np.arange(len(part)), CPU)
    np.testing.assert_array_equal(masks[:, 0].numpy() == 1, part.ground_truth)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_device_that_holds_the_data_gives_the_same_batches(tiny_study: Path, name: str) -> None:
    data = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")
    size = data["train"].images.nbytes + data["train"].targets.nbytes
    assert cache_on_device(CPU, data, free=4 * size - 1) is data, "no room for the networks would be left"
    kept = cache_on_device(CPU, data, free=4 * size)[name]
    positions = np.array([1, 0, 1])
    for batch, again in zip(data[name].batch(positions, CPU), kept.batch(positions, CPU), strict=True):
        assert torch.equal(batch, again)
        assert batch.stride() == again.stride()
    assert np.array_equal(kept.ground_truth, data[name].ground_truth)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists what is mapped")
def test_the_memory_of_a_training_does_not_grow_with_its_images(tmp_path: Path) -> None:
    """Pages of the memory map are released after reading: a cluster counts them and kills jobs with too many."""
    count, side = 400, 256  # 75 MB
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (count, side, side, 3))[:] = 7
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    split = SplitData(images, np.zeros(count, np.uint8), np.arange(count), [], [])
    before = psutil.Process().memory_info().shared
    most = max(psutil.Process().memory_info().shared for _ in split.in_order(8, CPU))
    assert most - before < 20 * 2**20


# Augmentation


@pytest.fixture
def augment() -> Augment:
    return Augment(Augmentation(flip=0.5, transpose=0.5, affine=0.5, rotation_degrees=30, shift=0.1, scale=(0.9, 1.1)))


def test_augmentation_moves_pixels_and_no_class(augment: Augment) -> None:
    images, classes = torch.rand(16, 3, 32, 32), torch.arange(16) % 7
    kept = images.clone(), classes.clone()
    moved, same = augment(images, classes, seed=0)
    assert torch.equal(same, kept[1])
    assert same.dtype == torch.int64
    assert moved.shape == images.shape
    assert moved.is_contiguous(memory_format=torch.channels_last)
    changed = [not torch.equal(before, after) for before, after in zip(kept[0], moved, strict=True)]
    assert sum(changed) >= 8
    assert torch.equal(images, kept[0]), "the batch itself was written to"


def test_the_same_seed_augments_a_classification_alike_whatever_was_drawn_before(augment: Augment) -> None:
    """Resuming a killed training depends on it. In between, masks may pass through the same object."""
    images, classes = torch.rand(8, 3, 32, 32), torch.arange(8) % 7
    torch.manual_seed(1)
    first = augment(images, classes, seed=7)[0]
    torch.manual_seed(2)
    augment(images, (images[:, :1] > 0.5).float(), seed=3)
    assert torch.equal(augment(images, classes, seed=7)[0], first)
    assert not torch.equal(augment(images, classes, seed=8)[0], first)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augment(images, classes, seed=7)
    assert torch.equal(torch.rand(4), expected)
