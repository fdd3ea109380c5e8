"""From a source to batches: phantoms, readers, fetching, preparing, splits over arrays, order and augmentation."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import kagglehub
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from conftest import REAL_LGG
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from classroom.data import phantom, prepare, sources
from classroom.data.augment import Augment
from classroom.data.batches import open_splits, shuffled
from classroom.data.readers import lgg, read_all
from classroom.errors import DataError
from classroom.params import Augmentation, Dataset, Phantom

CPU = torch.device("cpu")


def phantoms(folder: Path, patients: int = 2, slices: int = 2, size: int = 32, seed: int = 0) -> Path:
    phantom.write(folder, Phantom(patients=patients, slices=slices, size=size, seed=seed))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def dataset(source: str, directory: Path | str = "nowhere") -> Dataset:
    return Dataset(
        reader="lgg",
        source=source,
        directory=str(directory),
        kaggle="mateuszbuda/lgg-mri-segmentation",
        phantom=Phantom(patients=2, slices=3, size=32, seed=0),
    )


# --- phantoms ---


def test_a_seed_decides_every_byte_of_the_phantoms(tmp_path):
    np.random.seed(1)  # the global stream must not count
    first = files_of(phantoms(tmp_path / "first", seed=5))
    np.random.seed(2)
    assert files_of(phantoms(tmp_path / "second", seed=5)) == first
    other = files_of(phantoms(tmp_path / "third", seed=6))
    assert other.keys() == first.keys()
    images = [name for name in first if not name.endswith("_mask.tif")]
    assert all(other[name] != first[name] for name in images)


def test_more_patients_leave_the_earlier_ones_as_they_were(tmp_path):
    few = files_of(phantoms(tmp_path / "few", patients=2))
    many = files_of(phantoms(tmp_path / "many", patients=4))
    assert len(many) == 2 * len(few) == 16
    assert {name: many[name] for name in few} == few


def test_phantoms_lie_in_the_layout_of_the_download(tmp_path):
    names = files_of(phantoms(tmp_path, patients=1, slices=2))
    assert list(names) == [
        "kaggle_3m/PHANTOM_0000/PHANTOM_0000_1.tif",
        "kaggle_3m/PHANTOM_0000/PHANTOM_0000_1_mask.tif",
        "kaggle_3m/PHANTOM_0000/PHANTOM_0000_2.tif",
        "kaggle_3m/PHANTOM_0000/PHANTOM_0000_2_mask.tif",
    ]
    image = tifffile.imread(tmp_path / "kaggle_3m/PHANTOM_0000/PHANTOM_0000_1.tif")
    mask = tifffile.imread(tmp_path / "kaggle_3m/PHANTOM_0000/PHANTOM_0000_1_mask.tif")
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((32, 32), np.uint8)


@pytest.fixture(scope="module")
def phantom_slices(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and boolean masks of 20 patients, read without our reader."""
    folder = phantoms(tmp_path_factory.mktemp("phantoms"), patients=20, slices=5, size=64)
    masks = sorted(folder.rglob("*_mask.tif"))
    return [(tifffile.imread(str(path).replace("_mask.tif", ".tif")), tifffile.imread(path) > 0) for path in masks]


def test_some_phantom_slices_are_free_of_lesions_and_others_are_not(phantom_slices):
    """Stratification and the metrics both need slices of either kind; 0.45 are meant to be free."""
    free = np.mean([not mask.any() for _, mask in phantom_slices])
    assert 0.3 < free < 0.6


def test_phantom_lesions_differ_in_size_and_lie_inside_the_image(phantom_slices):
    sizes = np.array([mask.mean() for _, mask in phantom_slices if mask.any()])
    assert sizes.max() < 0.25
    assert sizes.max() > 3 * np.median(sizes) / 2 > 0
    assert len(set(sizes)) > len(sizes) / 2


def test_phantom_lesions_are_brighter_than_their_surroundings_in_flair_most_of_all(phantom_slices):
    """Channel 1 is FLAIR, in which gliomas are hyperintense; a network must be able to learn them."""
    contrasts = []
    for image, mask in phantom_slices:
        if mask.any():
            ring = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=1)
            contrasts.append(image[mask].mean(axis=0) - image[ring].mean(axis=0))
    before, flair, after = np.mean(contrasts, axis=0)
    assert flair > 20
    assert flair > after > before
    assert np.mean(np.array(contrasts)[:, 1] > 0) > 0.9


def test_brightness_alone_does_not_tell_a_phantom_lesion(phantom_slices):
    """Otherwise a threshold would solve the task and the demo would show nothing of the methods."""
    flair = np.concatenate([image[..., 1].ravel() for image, _ in phantom_slices])
    truth = np.concatenate([mask.ravel() for _, mask in phantom_slices])
    best = max(
        (truth & (flair >= threshold)).sum() / (truth | (flair >= threshold)).sum() for threshold in range(0, 256, 4)
    )
    assert best < 0.8


# --- reading ---


def test_the_reader_finds_every_slice_in_the_order_of_its_number(tmp_path):
    samples = lgg.find(phantoms(tmp_path, patients=2, slices=11))
    expected = [f"PHANTOM_{patient:04d}_{number}" for patient in (0, 1) for number in range(1, 12)]
    assert [sample.id for sample in samples] == expected  # 10 and 11 after 9
    assert {sample.group for sample in samples[:11]} == {"PHANTOM_0000"}
    assert {sample.group for sample in samples[11:]} == {"PHANTOM_0001"}


def test_the_reader_returns_the_pixels_of_the_files(tmp_path):
    for sample, image, mask, _ in read_all("lgg", phantoms(tmp_path)):
        case = tmp_path / "kaggle_3m" / sample.group
        np.testing.assert_array_equal(image, tifffile.imread(case / f"{sample.id}.tif"))
        np.testing.assert_array_equal(mask, tifffile.imread(case / f"{sample.id}_mask.tif") > 127)
        assert mask.dtype == np.uint8


def test_blank_slices_may_recur(tmp_path):
    """The original set ends some scans with several black slices; they are no duplicates to complain of."""
    phantoms(tmp_path, patients=1, slices=3)
    for number in (1, 3):
        path = tmp_path / "kaggle_3m" / "PHANTOM_0000" / f"PHANTOM_0000_{number}.tif"
        tifffile.imwrite(path, np.zeros((32, 32, 3), np.uint8), photometric="rgb")
    assert len(list(read_all("lgg", tmp_path))) == 3


@pytest.fixture(scope="module", params=["phantoms", *(["real slices"] if REAL_LGG.exists() else [])])
def whole(request, tmp_path_factory) -> tuple[Path, int, tuple[int, int, int]]:
    """A complete dataset, the size of its slices, and its numbers of images, of images with a lesion, of patients."""
    if request.param == "real slices":
        return REAL_LGG, 256, (444, 222, 74)
    folder = phantoms(tmp_path_factory.mktemp("whole"), patients=6, slices=4, size=48)
    return folder, 48, (24, sum(tifffile.imread(path).any() for path in folder.rglob("*_mask.tif")), 6)


def test_a_whole_dataset_is_read_completely(whole):
    """Real files have what phantoms lack: another compression, blank slices, gaps in the numbers."""
    folder, size, counts = whole
    groups, with_lesion, images = set(), 0, 0
    for sample, image, mask, _ in read_all("lgg", folder):
        assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((size, size), np.uint8)
        assert mask.max() <= 1
        groups.add(sample.group)
        with_lesion += mask.any()
        images += 1
    assert (images, with_lesion, len(groups)) == counts


# --- sources ---


@pytest.mark.parametrize("given", ["the download", "its kaggle_3m"])
def test_a_folder_of_the_user_is_copied_unchanged(tmp_path, given):
    origin = phantoms(tmp_path / "download")
    before = files_of(origin)
    (origin / "kaggle_3m" / "README.md").write_text("not part of the data")
    (origin / "kaggle_3m" / "data.csv").write_text("Patient,age\n")
    target = tmp_path / "data" / "raw" / "lgg"
    folder = origin if given == "the download" else origin / "kaggle_3m"
    assert sources.fetch("lgg", dataset("directory", folder), target) == 4
    assert files_of(target) == before
    assert {name: content for name, content in files_of(origin).items() if name in before} == before
    assert [path.name for path in target.parent.iterdir()] == ["lgg"]


def test_a_folder_may_be_given_relative_to_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    phantoms(tmp_path / "download")
    assert sources.fetch("lgg", dataset("directory", "~/download"), tmp_path / "raw") == 4


def test_fetching_again_replaces_what_was_there(tmp_path):
    """Patients of an earlier source must not stay among those of the new one."""
    target = tmp_path / "raw"
    sources.fetch("lgg", dataset("phantom"), target)
    origin = phantoms(tmp_path / "download", patients=1, slices=1, seed=9)
    assert sources.fetch("lgg", dataset("directory", origin), target) == 1
    assert files_of(target) == files_of(origin)


def test_phantoms_are_fetched_as_the_settings_say(tmp_path):
    assert sources.fetch("lgg", dataset("phantom"), tmp_path / "raw") == 6
    assert files_of(tmp_path / "raw") == files_of(phantoms(tmp_path / "expected", patients=2, slices=3))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a test must not reach for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("copies", ["both", "nested only"])
def test_the_second_copy_in_kaggles_archive_does_not_count(tmp_path, monkeypatch, copies):
    """Kaggle's archive holds the dataset twice; read naively, every image would be its own duplicate."""
    download = phantoms(tmp_path / "cache")
    expected = files_of(download)
    shutil.copytree(download / "kaggle_3m", download / "lgg-mri-segmentation" / "kaggle_3m")
    if copies == "nested only":
        shutil.rmtree(download / "kaggle_3m")
    asked = []
    monkeypatch.setattr(kagglehub, "dataset_download", lambda name: asked.append(name) or str(download))
    assert sources.fetch("lgg", dataset("kaggle"), tmp_path / "raw") == 4
    assert files_of(tmp_path / "raw") == expected
    assert asked == ["mateuszbuda/lgg-mri-segmentation"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ConnectionError("no route\n  to host"), r"\(no route to host\)"),
        (PermissionError(), r"\(PermissionError\)"),
        (RuntimeError("403 Client Error: you must accept the rules"), r"\(403 Client Error: .*rules\)"),
    ],
    ids=["network", "no text", "account"],
)
def test_a_failed_download_is_one_sentence_with_a_way_out(tmp_path, monkeypatch, failure, reason):
    def fail(name: str) -> str:
        raise failure

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    message = (
        r"^params\.yaml: dataset\.lgg\.kaggle: 'mateuszbuda/lgg-mri-segmentation' could not be fetched from Kaggle "
        + reason
        + r"\. Check the network and your Kaggle token, or download it by hand and set source to 'directory'\.$"
    )
    with pytest.raises(DataError, match=message) as caught:
        sources.fetch("lgg", dataset("kaggle"), tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__  # kagglehub's own traceback would bury the message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_network")
def test_a_download_without_the_dataset_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(kagglehub, "dataset_download", lambda name: str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"cache: no LGG dataset here\. Expected kaggle_3m/<case>/"):
        sources.fetch("lgg", dataset("kaggle"), tmp_path / "raw")


# --- preparing ---


def prepared(raw: Path, size: int, target: Path) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    prepare.prepare("lgg", "lgg", "directory", size, raw, target)
    return (
        np.load(target / "images.npy"),
        np.load(target / "masks.npy"),
        pd.read_parquet(target / "index.parquet"),
    )


def test_prepared_arrays_equal_the_originals_when_nothing_is_resized(tmp_path):
    raw = phantoms(tmp_path / "raw", patients=3, slices=2)
    images, masks, index = prepared(raw, 32, tmp_path / "prepared")
    assert (images.shape, images.dtype) == ((6, 32, 32, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((6, 32, 32), np.uint8)
    assert list(index.columns) == ["id", "group", "label", "sha256"]
    for row, (sample, group, label) in enumerate(zip(index.id, index.group, index.label, strict=True)):
        case = raw / "kaggle_3m" / group
        original = tifffile.imread(case / f"{sample}_mask.tif")
        np.testing.assert_array_equal(images[row], tifffile.imread(case / f"{sample}.tif"))
        np.testing.assert_array_equal(masks[row] * 255, original)
        assert label == int(original.max() > 0)
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir()) == sorted(prepare.FILES)


def test_halved_images_agree_with_torchs_antialiased_resampling(tmp_path):
    raw = phantoms(tmp_path / "raw", patients=2, slices=3, size=64)
    full, _, _ = prepared(raw, 64, tmp_path / "full")
    half, masks, _ = prepared(raw, 32, tmp_path / "half")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(full).permute(0, 3, 1, 2).double(), size=(32, 32), mode="bilinear", antialias=True
    ).permute(0, 2, 3, 1)
    assert half.shape == (6, 32, 32, 3)
    assert np.abs(half - expected.numpy()).max() <= 1  # grey levels: one rounding per pass
    assert set(np.unique(masks)) == {0, 1}


def test_a_mask_at_a_third_of_its_size_keeps_every_third_pixel(tmp_path):
    """The nearest pixel of each 3×3 block is its centre: smoothed instead, small lesions would vanish."""
    raw = phantoms(tmp_path / "raw", patients=1, slices=1, size=96)
    mask = np.random.default_rng(0).random((96, 96)) < 0.3
    path = raw / "kaggle_3m" / "PHANTOM_0000" / "PHANTOM_0000_1_mask.tif"
    tifffile.imwrite(path, mask.astype(np.uint8) * 255)
    _, masks, _ = prepared(raw, 32, tmp_path / "prepared")
    np.testing.assert_array_equal(masks[0], mask[1::3, 1::3])


def test_the_digest_is_of_the_original_pixels_alone(tmp_path):
    """It must tell images apart and recognise one whose file was merely compressed anew or prepared at another size."""
    raw = phantoms(tmp_path / "raw", patients=2, slices=2)
    before = prepared(raw, 32, tmp_path / "a")[2].sha256
    assert before.str.fullmatch("[0-9a-f]{64}").all()
    assert before.is_unique
    path = raw / "kaggle_3m" / "PHANTOM_0001" / "PHANTOM_0001_1.tif"
    pixels = tifffile.imread(path)
    tifffile.imwrite(path, pixels, photometric="rgb", compression=None)
    assert prepared(raw, 64, tmp_path / "b")[2].sha256.equals(before)
    pixels[0, 0, 0] ^= 1
    tifffile.imwrite(path, pixels, photometric="rgb")
    after = prepared(raw, 32, tmp_path / "c")[2].sha256
    assert (after != before).tolist() == [False, False, True, False]


@pytest.mark.parametrize(("source", "synthetic"), [("phantom", True), ("directory", False), ("kaggle", False)])
def test_the_description_counts_the_data_and_says_whether_they_are_synthetic(tmp_path, source, synthetic):
    """Every table states it: a result on phantoms must never pass for one on patients."""
    raw = phantoms(tmp_path / "raw", patients=3, slices=4)
    assert prepare.prepare("lgg", "lgg", source, 32, raw, tmp_path / "prepared") == 12
    assert json.loads((tmp_path / "prepared" / "dataset.json").read_text()) == {
        "dataset": "lgg",
        "source": source,
        "synthetic": synthetic,
        "images": 12,
        "groups": 3,
        "with_lesion": sum(tifffile.imread(path).any() for path in raw.rglob("*_mask.tif")),
        "image_size": 32,
    }


def test_damaged_raw_data_leave_the_old_arrays(tmp_path):
    raw = phantoms(tmp_path / "raw")
    prepare.prepare("lgg", "lgg", "phantom", 32, raw, tmp_path / "prepared")
    before = files_of(tmp_path / "prepared")
    damaged = raw / "kaggle_3m" / "PHANTOM_0001" / "PHANTOM_0001_2.tif"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"PHANTOM_0001_2\.tif: cannot be read as TIFF"):
        prepare.prepare("lgg", "lgg", "phantom", 32, raw, tmp_path / "prepared")
    assert files_of(tmp_path / "prepared") == before


# --- splits over arrays ---


def test_the_splits_hold_every_image_once_under_its_own_name(tiny_study):
    data = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")
    index = pd.read_parquet(tiny_study / "prepared" / "index.parquet")
    table = pd.read_parquet(tiny_study / "splits.parquet").set_index("id")
    rows = np.concatenate([part.rows for part in data.values()])
    assert sorted(rows) == list(range(len(index)))
    for name, part in data.items():
        assert len(part) == len(part.ids) > 0
        assert part.ids == index.id[part.rows].tolist()
        assert (table.split[part.ids] == name).all()


def test_a_batch_holds_the_pixels_of_its_images_between_0_and_1(tiny_study):
    part = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["train"]
    positions = np.array([5, 0, 5])
    images, masks = part.batch(positions, CPU)
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
    assert (masks.shape, masks.dtype) == ((3, 1, 32, 32), torch.float32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for row, position in enumerate(positions):
        sample = part.ids[position]
        case = tiny_study / "raw" / "kaggle_3m" / sample.rsplit("_", 1)[0]
        pixels = tifffile.imread(case / f"{sample}.tif").transpose(2, 0, 1)
        np.testing.assert_allclose(images[row].numpy(), pixels / 255, rtol=1e-6)
        np.testing.assert_array_equal(masks[row, 0].numpy(), tifffile.imread(case / f"{sample}_mask.tif") / 255)


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_batches_in_order_hold_every_image_once(tiny_study, batch_size):
    """Predictions are written beside the split's ids, so the order is part of the result."""
    part = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["test"]
    batches = list(part.in_order(batch_size, CPU))
    assert [len(images) for images, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1][0]) <= batch_size
    images, masks = part.batch(np.arange(len(part)), CPU)
    assert torch.equal(torch.cat([batch for batch, _ in batches]), images)
    assert torch.equal(torch.cat([batch for _, batch in batches]), masks)


def test_training_on_a_batch_never_writes_to_the_arrays(tiny_study):
    part = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["train"]
    first, first_masks = part.batch(np.array([0]), CPU)
    first.zero_()
    first_masks.fill_(7)
    images, masks = part.batch(np.array([0]), CPU)
    assert images.max() > 0
    assert masks.max() <= 1


@pytest.fixture
def study(tmp_path: Path, tiny_study: Path) -> Path:
    """A copy of the tiny study's arrays and splits, free to damage."""
    shutil.copytree(tiny_study / "prepared", tmp_path / "prepared")
    shutil.copy(tiny_study / "splits.parquet", tmp_path)
    return tmp_path


def rewrite(path: Path, change) -> None:
    change(pd.read_parquet(path)).to_parquet(path, index=False)


@pytest.mark.parametrize(
    "mix_up",
    [
        lambda study: rewrite(study / "splits.parquet", lambda table: table.iloc[:-1]),
        lambda study: rewrite(study / "splits.parquet", lambda table: table.iloc[::-1]),
        lambda study: rewrite(study / "splits.parquet", lambda table: table.assign(id="x" + table.id)),
        lambda study: rewrite(study / "prepared" / "index.parquet", lambda table: table.iloc[1:]),
        lambda study: np.save(study / "prepared" / "images.npy", np.zeros((5, 32, 32, 3), np.uint8)),
        lambda study: np.save(study / "prepared" / "masks.npy", np.zeros((5, 32, 32), np.uint8)),
    ],
    ids=["fewer", "other order", "other ids", "shorter index", "other images", "other masks"],
)
def test_arrays_and_splits_that_do_not_belong_together_are_refused(study, mix_up):
    """Trained on, they would put test images into training without a sign of it."""
    mix_up(study)
    with pytest.raises(DataError, match=r"splits\.parquet: does not belong to .*prepared.*Run `classroom split`"):
        open_splits(study / "prepared", study / "splits.parquet")


@pytest.mark.parametrize(
    "name", ["prepared/images.npy", "prepared/masks.npy", "prepared/index.parquet", "splits.parquet"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_a_missing_or_damaged_file_says_what_to_run(study, name, damage):
    path = study / name
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text("not one of ours")
    message = r"prepared, .*splits\.parquet: cannot be read .*Run `classroom prepare` and `classroom split`"
    with pytest.raises(DataError, match=message) as caught:
        open_splits(study / "prepared", study / "splits.parquet")
    assert "\n" not in str(caught.value)


def test_a_table_without_splits_says_what_to_run(study):
    rewrite(study / "splits.parquet", lambda table: table.drop(columns="split"))
    with pytest.raises(DataError, match="Run `classroom prepare` and `classroom split`"):
        open_splits(study / "prepared", study / "splits.parquet")


# --- order ---

counts, seeds, epochs = st.integers(0, 300), st.integers(0, 2**32), st.integers(0, 10_000)


@given(counts, seeds, epochs)
def test_a_shuffled_order_holds_every_position_once(count, seed, epoch):
    assert sorted(shuffled(count, seed, epoch)) == list(range(count))


@given(counts, seeds, epochs)
def test_an_order_depends_on_nothing_but_seed_and_epoch(count, seed, epoch):
    """A training that was killed must go on with the very batches it would have seen."""
    np.random.seed(epoch)
    first = shuffled(count, seed, epoch)
    np.random.seed(epoch + 1)
    np.testing.assert_array_equal(shuffled(count, seed, epoch), first)


@given(st.integers(20, 300), seeds, epochs)
def test_another_epoch_or_seed_has_another_order(count, seed, epoch):
    order = shuffled(count, seed, epoch).tolist()
    assert shuffled(count, seed, epoch + 1).tolist() != order
    assert shuffled(count, seed + 1, epoch).tolist() != order
    assert order != list(range(count))


# --- augmentation ---


def augmentation(**changes) -> Augment:
    values = {"flip": 0.5, "transpose": 0.5, "affine": 0.5, "rotation_degrees": 30, "shift": 0.1, "scale": (0.9, 1.1)}
    return Augment(Augmentation(**(values | changes)))


def ellipses(count: int = 8, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Images equal to their masks, of shapes that no flip or turn maps onto themselves."""
    y, x = np.mgrid[:size, :size]
    mask = ((x - 40) / 15) ** 2 + ((y - 24) / 7) ** 2 < 1
    mask |= ((x - 22) / 4) ** 2 + ((y - 42) / 6) ** 2 < 1
    masks = torch.from_numpy(mask).float().expand(count, 1, size, size).clone()
    return masks.expand(count, 3, size, size).clone(), masks


geometries = st.fixed_dictionaries(
    {
        "flip": st.sampled_from([0.0, 0.5, 1.0]),
        "transpose": st.sampled_from([0.0, 0.5, 1.0]),
        "affine": st.sampled_from([0.0, 0.5, 1.0]),
        "rotation_degrees": st.floats(0, 180),
        "shift": st.floats(0, 0.2),
        "scale": st.tuples(st.floats(0.7, 1), st.floats(1, 1.3)),
    }
)


@settings(max_examples=40, deadline=None)
@given(geometries, st.integers(0, 2**63 - 1))
def test_augmented_masks_stay_binary_and_follow_their_images(geometry, seed):
    """A mask that goes another way than its image teaches the network nonsense."""
    images, masks = ellipses()
    new_images, new_masks = augmentation(**geometry)(images, masks, seed)
    assert new_images.shape == images.shape
    assert new_masks.shape == masks.shape
    assert set(new_masks.unique().tolist()) <= {0.0, 1.0}
    assert new_images.min() >= 0
    assert new_images.max() <= 1 + 1e-5
    seen, meant = new_images[:, :1] > 0.5, new_masks > 0.5
    overlap = (seen & meant).sum((1, 2, 3)) / (seen | meant).sum((1, 2, 3))
    assert overlap.min() > 0.85


def test_flips_and_turns_move_pixels_without_changing_them():
    """Turned by interpolation between pixels, small lesions would fade."""
    images = torch.randint(256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255
    masks = (images[:, :1] > 0.5).float()
    new_images, new_masks = augmentation(affine=0)(images, masks, seed=4)
    assert torch.equal((new_images[:, :1] > 0.5).float(), new_masks)
    reached = set()
    for before, after in zip(images, new_images, strict=True):
        # The eight ways to lay a square; transposes are among them.
        laid = [torch.rot90(way, turns, (1, 2)) for way in (before, before.flip(-1)) for turns in range(4)]
        found = [way for way, image in enumerate(laid) if torch.allclose(image, after, atol=1e-3, rtol=0)]
        assert len(found) == 1
        reached.update(found)
    assert len(reached) >= 6


def test_every_image_of_a_batch_is_drawn_its_own_geometry():
    images, masks = ellipses(count=16)
    new_images, _ = augmentation(affine=1)(images, masks, seed=0)
    assert len({image.contiguous().numpy().tobytes() for image in new_images}) == 16


def test_the_same_seed_draws_the_same_geometry_whatever_was_drawn_before():
    """Resuming a killed training depends on it, and so does comparing two methods."""
    images, masks = ellipses()
    augment = augmentation()
    torch.manual_seed(1)
    first = augment(images, masks, seed=7)
    torch.manual_seed(2)
    for again in (augment(images, masks, seed=7), augmentation()(images, masks, seed=7)):
        assert torch.equal(again[0], first[0])
        assert torch.equal(again[1], first[1])
    assert not torch.equal(augment(images, masks, seed=8)[0], first[0])


def test_augmentation_leaves_the_global_random_numbers_and_its_input_alone():
    images, masks = ellipses()
    kept = images.clone(), masks.clone()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augmentation(flip=1, affine=1)(images, masks, seed=0)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


def test_with_all_probabilities_zero_nothing_is_augmented():
    images = torch.rand(4, 3, 32, 32)
    masks = (torch.rand(4, 1, 32, 32) > 0.5).float()
    new_images, new_masks = augmentation(flip=0, transpose=0, affine=0)(images, masks, seed=0)
    assert torch.equal(new_images, images)
    assert torch.equal(new_masks, masks)


def test_augmented_images_keep_the_memory_layout_that_training_is_fast_with():
    images, masks = ellipses()
    new_images, _ = augmentation()(images.contiguous(memory_format=torch.channels_last), masks, seed=0)
    assert new_images.is_contiguous(memory_format=torch.channels_last)
