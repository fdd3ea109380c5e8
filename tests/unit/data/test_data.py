"""From a source to batches: generators, readers, fetching, preparing, splits over arrays, order and augmentation."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation

from classroom.core.augment import Augment
from classroom.core.batches import open_splits
from classroom.data import pixels, prepare, synthetic
from classroom.data.fetching import sources
from classroom.data.fetching.subset import draw
from classroom.data.readers import ham10000, histopathologic, isic2017, lgg, reader
from classroom.errors import DataError
from classroom.params import Augmentation, Dataset, Synthetic
from support.studies import REAL_IMAGES

CPU = torch.device("cpu")

ANY = Dataset(reader="lgg", source="directory", directory="nowhere", full_size=1)
"""Settings of a dataset whose reader asks for none."""


def drawn(folder: Path, name: str = "lgg", groups: int = 2, images: int = 2, size: int = 32, seed: int = 0) -> Path:
    """Synthetic images for the reader `name`, in `folder`."""
    settings = Synthetic(groups=groups, images_per_group=images, size=size, seed=seed)
    synthetic.GENERATORS[name](folder, settings)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


OURS = ("samples.csv", "about.json")
"""What fetching adds to the original files."""


def originals_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(folder).items() if name not in OURS}


def dataset(source: str, directory: Path | str = "nowhere", reader: str = "lgg", **changes: object) -> Dataset:
    return Dataset(
        reader=reader,
        source=source,
        directory=str(directory),
        kaggle=("mateuszbuda/lgg-mri-segmentation",),
        synthetic=Synthetic(groups=2, images_per_group=3, size=32, seed=0),
        full_size=1,
        **changes,
    )


# --- synthetic images of every kind ---


@pytest.mark.parametrize("name", synthetic.GENERATORS)
def test_a_seed_decides_every_byte_of_the_synthetic_images(tmp_path, name):
    """Otherwise DVC would see other data, and train again, on every machine."""
    np.random.seed(1)  # the global stream must not count
    first = files_of(drawn(tmp_path / "first", name, seed=5))
    np.random.seed(2)
    assert files_of(drawn(tmp_path / "second", name, seed=5)) == first
    other = files_of(drawn(tmp_path / "third", name, seed=6))
    images = {content for path, content in first.items() if path.endswith((".tif", ".jpg")) and "_mask" not in path}
    assert len(images) >= 2
    assert images.isdisjoint(other.values())


@pytest.mark.parametrize("name", synthetic.GENERATORS)
def test_more_groups_leave_the_earlier_ones_as_they_were(tmp_path, name):
    few = files_of(drawn(tmp_path / "few", name, groups=2))
    many = files_of(drawn(tmp_path / "many", name, groups=4))
    assert len(many) > len(few)
    for path, content in few.items():
        if path.endswith(".csv"):
            assert many[path].startswith(content)
        else:
            assert many[path] == content


@given(
    st.sampled_from(list(synthetic.GENERATORS)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(32, 70),
    st.integers(0, 999_999_999),
)
def test_synthetic_images_of_any_size_pass_for_the_original(tmp_path_factory, name, groups, images, size, seed):
    """They are read by the reader of the real data, and validated like these."""
    folder = tmp_path_factory.mktemp("synthetic")
    settings = Dataset(
        reader=name,
        source="synthetic",
        synthetic=Synthetic(groups=groups, images_per_group=images, size=size, seed=seed),
        full_size=1,
    )
    try:
        count = sources.fetch(name, settings, folder / "raw")
    except DataError as error:
        if name != "lgg" or "no pixel of the" not in str(error):  # so few slices may all be free of lesions
            raise
        reject()
    assert groups <= count <= groups * images
    table = pd.read_csv(folder / "raw" / "samples.csv", keep_default_na=False)
    assert table.group.nunique() == groups
    assert set(table.label) <= {*reader(name).CLASSES, ""}
    assert {pixels.read_image(folder / "raw" / image).shape for image in table.image} == {(size, size, 3)}


def test_a_reader_without_synthetic_images_says_which_have_some(tmp_path):
    with pytest.raises(DataError, match=r"^datasets/skin\.yaml: source: the reader 'isic2017' has no synthetic images"):
        sources.fetch("skin", dataset("synthetic", reader="isic2017"), tmp_path / "raw")


# --- synthetic images of LGG ---


def test_lgg_synthetic_images_lie_in_the_layout_of_the_download(tmp_path):
    names = files_of(drawn(tmp_path, groups=1, images=2))
    assert list(names) == [
        "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_1.tif",
        "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_1_mask.tif",
        "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_2.tif",
        "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_2_mask.tif",
    ]
    image = tifffile.imread(tmp_path / "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_1.tif")
    mask = tifffile.imread(tmp_path / "kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_1_mask.tif")
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((32, 32), np.uint8)


@pytest.fixture(scope="module")
def synthetic_slices(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and boolean masks of 20 patients, read without our reader."""
    folder = drawn(tmp_path_factory.mktemp("synthetic"), groups=20, images=5, size=64)
    masks = sorted(folder.rglob("*_mask.tif"))
    return [(tifffile.imread(str(path).replace("_mask.tif", ".tif")), tifffile.imread(path) > 0) for path in masks]


def test_some_synthetic_slices_are_free_of_lesions_and_others_are_not(synthetic_slices):
    """Stratification and the metrics both need slices of either kind; 0.45 are meant to be free."""
    free = np.mean([not mask.any() for _, mask in synthetic_slices])
    assert 0.3 < free < 0.6


def test_synthetic_lesions_differ_in_size_and_lie_inside_the_image(synthetic_slices):
    sizes = np.array([mask.mean() for _, mask in synthetic_slices if mask.any()])
    assert sizes.max() < 0.25
    assert sizes.max() > 3 * np.median(sizes) / 2 > 0
    assert len(set(sizes)) > len(sizes) / 2


def test_synthetic_lesions_are_brighter_than_their_surroundings_in_flair_most_of_all(synthetic_slices):
    """Channel 1 is FLAIR, in which gliomas are hyperintense; a network must be able to learn them."""
    contrasts = []
    for image, mask in synthetic_slices:
        if mask.any():
            ring = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=1)
            contrasts.append(image[mask].mean(axis=0) - image[ring].mean(axis=0))
    before, flair, after = np.mean(contrasts, axis=0)
    assert flair > 20
    assert flair > after > before
    assert np.mean(np.array(contrasts)[:, 1] > 0) > 0.9


def test_brightness_alone_does_not_identify_a_synthetic_lesion(synthetic_slices):
    """Otherwise a threshold would solve the task and the demo would show nothing of the methods."""
    flair = np.concatenate([image[..., 1].ravel() for image, _ in synthetic_slices])
    truth = np.concatenate([mask.ravel() for _, mask in synthetic_slices])
    best = max(
        (truth & (flair >= threshold)).sum() / (truth | (flair >= threshold)).sum() for threshold in range(0, 256, 4)
    )
    assert best < 0.8


# --- synthetic images of stained tissue ---


@pytest.fixture(scope="module")
def synthetic_patches(tmp_path_factory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels of {0, 1} and slides of 60 slides, read without our reader."""
    folder = drawn(tmp_path_factory.mktemp("patches"), "histopathologic", groups=60, images=5, size=64)
    table = pd.read_csv(folder / "train_labels.csv").merge(pd.read_csv(folder / "source_index.csv"), on="id")
    images = np.stack([tifffile.imread(folder / "train" / f"{name}.tif") for name in table.id])
    return images, table.label.to_numpy(), table.wsi.to_numpy()


def test_both_classes_of_patches_are_frequent(synthetic_patches):
    _, labels, slides = synthetic_patches
    assert (len(labels), len(set(slides))) == (300, 60)
    assert 0.4 < labels.mean() < 0.6


def centre_of(images: np.ndarray) -> np.ndarray:
    return images[:, 20:44, 20:44]


def best_threshold(feature: np.ndarray, labels: np.ndarray) -> float:
    """The largest share of right answers that a threshold on one number can have."""
    return max(((feature > threshold) == labels).mean() for threshold in np.unique(feature))


def test_the_centre_tells_the_classes_of_patches_apart_but_not_perfectly(synthetic_patches):
    """Too easy, and every method would score 100 %; too hard, and the demo would show noise."""
    images, labels, _ = synthetic_patches
    assert 0.85 < best_threshold(-centre_of(images)[..., 0].mean(axis=(1, 2)), labels) < 0.98


def test_the_surroundings_of_a_patch_hardly_tell_its_class(synthetic_patches):
    """As in PCam, where only the centre counts: a network has to learn where to look."""
    images, labels, _ = synthetic_patches
    border = np.concatenate([images[:, :8].mean(axis=(1, 2)), images[:, -8:].mean(axis=(1, 2))], axis=1)
    assert all(best_threshold(sign * feature, labels) < 0.65 for feature in border.T for sign in (1, -1))


def test_patches_of_a_slide_share_its_stain(synthetic_patches):
    """So that a split by image flatters, as it does on real slides."""
    images, _, slides = synthetic_patches
    hue = pd.Series(images[..., 0].mean(axis=(1, 2)) - images[..., 2].mean(axis=(1, 2)))
    within = hue.groupby(slides).std().mean()
    assert within < 0.8 * hue.std()


# --- synthetic images of skin lesions ---


@pytest.fixture(scope="module")
def synthetic_lesions(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = drawn(tmp_path_factory.mktemp("lesions"), "ham10000", groups=200, images=3, size=48)
    return folder, pd.read_csv(folder / "HAM10000_metadata.csv")


def test_the_classes_of_lesions_are_as_unequal_as_in_the_original(synthetic_lesions):
    _, table = synthetic_lesions
    lesions = table.groupby("lesion_id").dx.first().value_counts()
    original = {"nv": 134, "mel": 22, "bkl": 22, "bcc": 10, "akiec": 7, "vasc": 3, "df": 3}  # of 200
    assert lesions.sum() == 200
    assert all(abs(lesions[label] - count) <= 1 for label, count in original.items())
    assert (table.groupby("lesion_id").dx.nunique() == 1).all()
    assert set(table.groupby("lesion_id").size()) == {1, 2, 3}


def test_of_sixty_lesions_or_more_every_class_has_three_at_least(synthetic_lesions):
    """Training, validation and test must each be able to get one."""
    labels = synthetic_lesions[1].groupby("lesion_id").dx.first()  # fewer lesions would be the first of these
    for groups in range(60, len(labels) + 1):
        assert labels[:groups].value_counts().reindex(ham10000.CLASSES).min() >= 3, groups


def test_lesions_differ_from_the_skin_around_them(synthetic_lesions):
    """A network must be able to find them, and a mask that misses its lesion would teach nonsense."""
    folder, table = synthetic_lesions
    contrasts, sizes = [], []
    for name in table.image_id[:80]:
        image = np.asarray(Image.open(folder / "HAM10000_images_part_1" / f"{name}.jpg")).astype(float)
        mask = np.asarray(Image.open(folder / "masks" / f"{name}_segmentation.png")) > 0
        ring = binary_dilation(mask, iterations=6) & ~binary_dilation(mask, iterations=2)
        contrasts.append(np.abs(image[mask].mean(axis=0) - image[ring].mean(axis=0)).sum())
        sizes.append(mask.mean())
    assert np.mean(np.array(contrasts) > 20) > 0.9
    assert np.min(sizes) > 0.02
    assert np.max(sizes) < 0.8
    assert np.max(sizes) > 3 * np.min(sizes)


def test_colour_alone_does_not_identify_the_class_of_a_lesion(synthetic_lesions):
    """Too easy, and every method would score 100 %; too hard, and the demo would show noise.

    Of lesions other than nevi, the neighbour in colour, as compared with the skin, is of the same class more often than
    by chance (0.15), yet mostly not.
    """
    folder, table = synthetic_lesions
    colours = []
    for name in table.image_id:
        image = np.asarray(Image.open(folder / "HAM10000_images_part_1" / f"{name}.jpg"))
        mask = np.asarray(Image.open(folder / "masks" / f"{name}_segmentation.png")) > 0
        colours.append(image[mask].mean(axis=0) / image[binary_dilation(mask, iterations=6) & ~mask].mean(axis=0))
    colours, rare = np.array(colours), (table.dx != "nv").to_numpy()
    lesions, labels, colours = table.lesion_id[rare].to_numpy(), table.dx[rare].to_numpy(), colours[rare]
    apart = np.linalg.norm(colours[:, None] - colours, axis=2)
    apart[lesions[:, None] == lesions] = np.inf
    assert 0.3 < (labels[apart.argmin(axis=1)] == labels).mean() < 0.65


# --- reading: what belongs to a dataset ---


def test_the_reader_finds_every_slice_in_the_order_of_its_number(tmp_path):
    samples = lgg.find([drawn(tmp_path, groups=2, images=11)], ANY).samples
    expected = [f"SYNTHETIC_{patient:04d}_{number}" for patient in (0, 1) for number in range(1, 12)]
    assert [sample.id for sample in samples] == expected  # 10 and 11 after 9
    assert {sample.group for sample in samples[:11]} == {"SYNTHETIC_0000"}
    assert {sample.group for sample in samples[11:]} == {"SYNTHETIC_0001"}


WHOLE = {
    # folder: (reader, images, groups, what a group is, masks, labels)
    "lgg": ("lgg", 444, 74, "patient", 444, {None: 444}),
    "ham10000": (
        "ham10000", 145, 141, "lesion", 3,
        {"nv": 80, "mel": 24, "bkl": 18, "bcc": 8, "vasc": 6, "akiec": 5, "df": 4},
    ),
    "isic2017_seg": (
        "isic2017", 63, 63, "image", 63, {"nevus": 36, "seborrheic_keratosis": 21, "melanoma": 6},
    ),
    "histopathologic_idc": ("histopathologic", 629, 26, "tile", 0, {"negative": 392, "positive": 237}),
}  # fmt: skip


@pytest.mark.parametrize("folder", WHOLE)
def test_the_real_subsets_are_found_and_fetched_completely(tmp_path, folder):
    """Real files have what synthetic ones lack: other compressions, blank slices, gaps in the numbers, other shapes."""
    if not (REAL_IMAGES / folder).exists():
        pytest.skip(
            "the expected counts are of patients' real images, which are not ours to distribute with the code; the "
            "readers' other tests draw images in the same layouts"
        )
    name, images, groups, group, masks, labels = WHOLE[folder]
    found = reader(name).find([REAL_IMAGES / folder], ANY)
    assert (len(found.samples), found.group) == (images, group)
    assert len({sample.group for sample in found.samples}) == groups
    assert Counter(sample.label for sample in found.samples) == labels
    assert sum(sample.mask is not None for sample in found.samples) == masks
    assert sources.fetch(name, dataset("directory", REAL_IMAGES / folder, name), tmp_path / "raw") == images
    for path, content in originals_of(tmp_path / "raw").items():
        assert (REAL_IMAGES / folder / path).read_bytes() == content
    if name == "lgg":
        prepare.prepare("segmentation", 32, tmp_path / "raw", tmp_path / "prepared")
        about = json.loads((tmp_path / "prepared" / "dataset.json").read_text())
        assert about["labels"] == {"with foreground": 222, "without foreground": 222}


def test_blank_slices_may_recur(tmp_path):
    """The original set ends some scans with several black slices; they are no duplicates to complain of."""
    drawn(tmp_path / "origin", groups=1, images=3)
    for number in (1, 3):
        path = tmp_path / "origin" / "kaggle_3m" / "SYNTHETIC_0000" / f"SYNTHETIC_0000_{number}.tif"
        tifffile.imwrite(path, np.zeros((32, 32, 3), np.uint8), photometric="rgb")
    assert sources.fetch("lgg", dataset("directory", tmp_path / "origin"), tmp_path / "raw") == 3


def indexed(folder: Path, table: str) -> Path:
    """Synthetic images of tissue with another source_index.csv; ID0 to ID3 stand for their ids, in order."""
    drawn(folder, "histopathologic")
    ids = sorted(pd.read_csv(folder / "train_labels.csv").id)
    for number, name in enumerate(ids):
        table = table.replace(f"ID{number}", name)
    (folder / "source_index.csv").write_text(table)
    return folder


def test_neighbouring_patches_of_a_patient_are_one_group(tmp_path):
    """Neighbours look alike: in different splits, they would leak."""
    table = "id,patient,x,y\nID0,7,1,1\nID1,7,451,499\nID2,7,501,1\nID3,8,1,1\n"
    found = histopathologic.find([indexed(tmp_path, table)], ANY)
    assert found.group == "tile"
    assert [sample.group for sample in found.samples] == ["7-0-0", "7-0-0", "7-1-0", "8-0-0"]


def test_patches_of_a_patient_are_one_group_where_there_are_enough_patients_to_split(tmp_path):
    folder = drawn(tmp_path, "histopathologic", groups=22, images=1)
    ids = sorted(pd.read_csv(folder / "train_labels.csv").id)
    for patients, kind in ((20, "patient"), (19, "slide")):
        rows = [f"{name},p{number % patients},w{number}\n" for number, name in enumerate(ids)]
        (folder / "source_index.csv").write_text("id,patient,wsi\n" + "".join(rows))
        found = histopathologic.find([folder], ANY)
        assert (found.group, len({sample.group for sample in found.samples})) == (
            kind,
            {"patient": 20, "slide": 22}[kind],
        )


TWO_DATES = {"SYNTHETIC_0000": "TCGA_CS_4941_19960909", "SYNTHETIC_0001": "TCGA_CS_4941_19970102",
             "SYNTHETIC_0002": "tcga_cs_4942_19960909", "SYNTHETIC_0003": "TCGA_HT_4941_19960909",
             "SYNTHETIC_0004": "TCGA_CS_4941"}  # fmt: skip


def test_the_examinations_of_one_patient_are_one_group(tmp_path):
    """Follow-up scans show the same brain: in two splits, they would leak."""
    folder = drawn(tmp_path, groups=5, images=2)
    for before, after in TWO_DATES.items():
        for path in sorted((folder / "kaggle_3m" / before).iterdir()):
            path.rename(path.with_name(path.name.replace(before, after)))
        (folder / "kaggle_3m" / before).rename(folder / "kaggle_3m" / after)
    found = lgg.find([folder], ANY)
    assert Counter(sample.group for sample in found.samples) == {
        "TCGA_CS_4941": 6, "TCGA_CS_4942": 2, "TCGA_HT_4941": 2
    }  # fmt: skip
    assert len({sample.image.path.parent for sample in found.samples}) == 5


def as_png(path: Path) -> None:
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()


@pytest.mark.parametrize("name", synthetic.GENERATORS)
@pytest.mark.parametrize("change", [lambda p: p.rename(p.with_suffix(p.suffix.upper())), as_png], ids=["upper", "png"])
def test_no_image_is_lost_for_its_ending(tmp_path, name, change):
    """A case whose files end in .TIF was left out without a word."""
    folder = drawn(tmp_path / "origin", name)
    expected = len(reader(name).find([folder], ANY).samples)
    for path in sorted(folder.rglob("*.tif" if name != "ham10000" else "*.jpg"))[:4]:
        change(path)
    assert sources.fetch("x", dataset("directory", folder, name), tmp_path / "raw") == expected


@pytest.mark.parametrize("spelling", ["{}.png", "{}_Mask.PNG", "{}_SEGMENTATION.tif"])
def test_masks_of_skin_may_be_called_as_their_images_are(tmp_path, spelling):
    """Those called as the image alone were left out without a word."""
    folder = drawn(tmp_path, "ham10000", groups=8)
    masks = sorted((folder / "masks").iterdir())
    for path in masks:
        Image.open(path).save(path.with_name(spelling.format(path.name.removesuffix("_segmentation.png"))))
        path.unlink()
    found = ham10000.find([folder], ANY)
    assert sum(sample.mask is not None for sample in found.samples) == len(masks) > 0


def test_a_row_may_end_in_a_comma(tmp_path):
    """The labels were then read as the names of images."""
    folder = drawn(tmp_path, "histopathologic")
    expected = histopathologic.find([folder], ANY)
    for table in (folder / "train_labels.csv", folder / "source_index.csv"):
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([head, *(f"{row}," for row in rows[:2]), "", *rows[2:], ","]))
    assert histopathologic.find([folder], ANY) == expected


def test_files_that_ignore_names_are_left_out_with_their_rows(tmp_path):
    folder = drawn(tmp_path, "ham10000", groups=8)
    everything = ham10000.find([folder], ANY)
    first = everything.samples[0].id
    (folder / "notes.docx").write_text("not ours")
    found = ham10000.find([folder], ANY.model_copy(update={"ignore": (f"{first}*", "*.docx")}))
    assert found.samples == everything.samples[1:]


def test_patches_of_a_slide_are_one_group_and_patches_of_unknown_origin_are_their_own(tmp_path):
    drawn(tmp_path, "histopathologic")
    found = histopathologic.find([tmp_path], ANY)
    assert (found.group, {sample.group for sample in found.samples}) == ("slide", {"SYNTHETIC_0000", "SYNTHETIC_0001"})
    (tmp_path / "source_index.csv").unlink()
    found = histopathologic.find([tmp_path], ANY)
    assert (found.group, len({sample.group for sample in found.samples})) == ("image", 4)


@pytest.mark.parametrize(
    ("name", "spelling"),
    [("histopathologic", {".tif": ".TIF"}), ("histopathologic", {".tif": ".tiff"}), ("ham10000", {".jpg": ".JPG"}),
     ("ham10000", {".jpg": ".jpeg"}), ("ham10000", {"HAM10000_images_part_1": "ham10000_images_part_2"}),
     ("ham10000", {"HAM10000_images_part_1": "images"}), ("ham10000", {"masks": "deep/er", ".png": ".PNG"})],
    ids=str,
)  # fmt: skip
def test_other_spellings_of_the_layout_are_the_same_dataset(tmp_path, name, spelling):
    """Archives differ in capitals from one mirror to the next; nothing may be missed for that."""
    origin, other = drawn(tmp_path / "origin", name), tmp_path / "other"
    for path, content in files_of(origin).items():
        for before, after in spelling.items():
            path = path.replace(before, after)
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes(content)
    expected, found = reader(name).find([origin], ANY), reader(name).find([other], ANY)
    assert [(s.id, s.group, s.label, s.mask is not None) for s in found.samples] == [
        (s.id, s.group, s.label, s.mask is not None) for s in expected.samples
    ]


def test_masks_are_taken_where_there_are_some(tmp_path):
    drawn(tmp_path, "ham10000", groups=3, images=1)
    next(path for path in sorted((tmp_path / "masks").iterdir())).unlink()
    assert [sample.mask is not None for sample in ham10000.find([tmp_path], ANY).samples] == [False, True, True]


def isic(folder: Path, table: str = "image_id,melanoma,seborrheic_keratosis\na,1.0,0.0\nb,0,1\nc,0.0,0.0\n") -> Path:
    """Three images in the layout of the ISIC 2017 subset, wider than high."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, name in enumerate("abc"):
        random = np.random.default_rng(number)
        Image.fromarray(random.integers(0, 255, (30, 40, 3), np.uint8)).save(folder / "images" / f"{name}.jpg")
        mask = (random.random((30, 40)) < 0.5).astype(np.uint8) * 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}_segmentation.png")
    (folder / "ground_truth.csv").write_text(table)
    return folder


def test_the_two_columns_of_isic_are_three_classes(tmp_path):
    found = isic2017.find([isic(tmp_path)], ANY)
    assert [(sample.id, sample.label) for sample in found.samples] == [
        ("a", "melanoma"),
        ("b", "seborrheic_keratosis"),
        ("c", "nevus"),
    ]


def test_a_link_that_leads_in_a_circle_does_not_hang_the_search(tmp_path):
    drawn(tmp_path / "set", "ham10000")
    (tmp_path / "set" / "masks" / "back").symlink_to(tmp_path / "set")
    assert len(ham10000.find([tmp_path], ANY).samples) >= 2


# --- sources ---


@pytest.mark.parametrize("given", ["the download", "its kaggle_3m"])
def test_a_folder_of_the_user_is_copied_unchanged(tmp_path, given):
    origin = drawn(tmp_path / "download")
    before = files_of(origin)
    (origin / "kaggle_3m" / "README.md").write_text("not part of the data")
    (origin / "kaggle_3m" / "data.csv").write_text("Patient,age\n")
    target = tmp_path / "data" / "raw" / "lgg"
    folder = origin if given == "the download" else origin / "kaggle_3m"
    assert sources.fetch("lgg", dataset("directory", folder), target) == 4
    assert originals_of(target) == before
    assert {name: content for name, content in files_of(origin).items() if name in before} == before
    assert [path.name for path in target.parent.iterdir()] == ["lgg"]


@pytest.mark.parametrize("name", synthetic.GENERATORS)
def test_what_is_fetched_is_described_for_all_that_comes_later(tmp_path, name):
    """Nothing later knows the layout: samples.csv and about.json are all that it has."""
    origin = drawn(tmp_path / "download", name)
    count = sources.fetch("mine", dataset("directory", origin, name), tmp_path / "raw")
    assert originals_of(tmp_path / "raw") == files_of(origin)  # the tables, too
    found = reader(name).find([origin], ANY)
    table = pd.read_csv(tmp_path / "raw" / "samples.csv", keep_default_na=False)
    assert list(table.columns) == ["id", "group", "label", "image", "mask"]
    assert len(table) == count == len(found.samples)
    for row, sample in zip(table.itertuples(), found.samples, strict=True):
        assert (row.id, row.group, row.label) == (sample.id, sample.group, sample.label or "")
        assert (tmp_path / "raw" / row.image).read_bytes() == sample.image.path.read_bytes()
        if sample.mask is None:
            assert row.mask == ""
        else:
            assert (tmp_path / "raw" / row.mask).read_bytes() == sample.mask.path.read_bytes()
    assert json.loads((tmp_path / "raw" / "about.json").read_text()) == {
        "dataset": "mine",
        "source": "directory",
        "synthetic": False,
        "group": {"lgg": "patient", "histopathologic": "slide", "ham10000": "lesion"}[name],
        "grouping": found.grouping,
        "labels": list(reader(name).CLASSES),
        "subset": None,
        "missing_masks": "refuse",
        "foreground": [] if name == "histopathologic" else [255],
        "converted": {},
    }


def test_a_folder_may_be_given_relative_to_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    drawn(tmp_path / "download")
    assert sources.fetch("lgg", dataset("directory", "~/download"), tmp_path / "raw") == 4


def test_fetching_again_replaces_what_was_there(tmp_path):
    """Patients of an earlier source must not stay among those of the new one."""
    target = tmp_path / "raw"
    sources.fetch("lgg", dataset("synthetic"), target)
    origin = drawn(tmp_path / "download", groups=1, images=1, seed=9)
    assert sources.fetch("lgg", dataset("directory", origin), target) == 1
    assert originals_of(target) == files_of(origin)


def test_synthetic_images_are_fetched_as_the_settings_say(tmp_path):
    assert sources.fetch("lgg", dataset("synthetic"), tmp_path / "raw") == 6
    assert originals_of(tmp_path / "raw") == files_of(drawn(tmp_path / "expected", groups=2, images=3))
    assert json.loads((tmp_path / "raw" / "about.json").read_text())["synthetic"] is True


@pytest.mark.parametrize("copies", ["both", "nested only"])
def test_the_second_copy_in_kaggles_archive_does_not_count(tmp_path, copies):
    """Kaggle's archive holds the LGG set twice; read naively, every image would be its own duplicate."""
    download = drawn(tmp_path / "cache")
    expected = files_of(download)
    shutil.copytree(download / "kaggle_3m", download / "lgg-mri-segmentation" / "kaggle_3m")
    if copies == "nested only":
        shutil.rmtree(download / "kaggle_3m")
    assert sources.fetch("lgg", dataset("directory", download), tmp_path / "raw") == 4
    assert originals_of(tmp_path / "raw") == expected


# --- subsets ---


@given(
    st.lists(st.sampled_from("abc"), min_size=3, max_size=60),
    st.integers(2, 30),
    st.integers(0, 2**31),
)
def test_a_subset_has_as_many_of_each_class_or_is_refused_by_the_class_that_lacks(labels, subset, seed):
    have = Counter(labels)
    wanted = {label: subset // 3 + (number < subset % 3) for number, label in enumerate("abc")}
    lacking = [label for label in "abc" if have[label] < wanted[label]]
    if lacking:
        with pytest.raises(DataError, match=rf"^datasets/mine\.yaml: subset: .*'{lacking[0]}'.* null for all"):
            draw(labels, "abc", subset, seed, "mine")
        return
    drawn = draw(labels, "abc", subset, seed, "mine")
    assert Counter(labels[position] for position in drawn) == +Counter(wanted)
    assert drawn == sorted(set(drawn)) == draw(labels, "abc", subset, seed, "mine")


@given(st.integers(0, 2**31))
def test_another_seed_draws_another_subset(seed):
    labels = ["a", "b"] * 200
    assert draw(labels, "ab", 40, seed, "mine") != draw(labels, "ab", 40, seed + 1, "mine")


def test_only_the_subset_is_copied(tmp_path):
    """Of Kaggle's 220 025 patches the paper takes 20 000: the rest must not go through DVC."""
    origin = drawn(tmp_path / "origin", "histopathologic", groups=10, images=3)
    settings = dataset("directory", origin, "histopathologic", subset=8)
    assert sources.fetch("hist", settings, tmp_path / "raw") == 8
    table = pd.read_csv(tmp_path / "raw" / "samples.csv")
    assert table.label.value_counts().to_dict() == {"negative": 4, "positive": 4}
    assert {path.stem for path in (tmp_path / "raw" / "train").iterdir()} == set(table.id)
    assert json.loads((tmp_path / "raw" / "about.json").read_text())["subset"] == 8


def test_a_subset_that_cannot_be_drawn_is_said_before_anything_is_copied(tmp_path):
    origin = drawn(tmp_path / "origin", "histopathologic", groups=4, images=1)
    with pytest.raises(
        DataError, match=r"6 images of 2 classes need 3 of 'negative', .* are only 2\. Set subset to 4 or less"
    ):
        sources.fetch("hist", dataset("directory", origin, "histopathologic", subset=6), tmp_path / "raw")
    with pytest.raises(
        DataError, match=r"datasets/lgg\.yaml: subset: .*the reader 'lgg' has no classes\. Set subset to null"
    ):
        sources.fetch("lgg", dataset("synthetic", subset=2), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


# --- preparing ---


def raw_of(folder: Path, name: str = "lgg", **sizes: int) -> Path:
    """Synthetic images, fetched to `folder`."""
    origin = drawn(folder.with_name(f"{folder.name}-origin"), name, **sizes)
    sources.fetch(name, dataset("directory", origin, name), folder)
    return folder


def prepared(raw: Path, size: int, target: Path) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    prepare.prepare("segmentation", size, raw, target)
    return (
        np.load(target / "images.npy"),
        np.load(target / "targets.npy"),
        pd.read_parquet(target / "index.parquet"),
    )


def test_prepared_arrays_equal_the_originals_when_nothing_is_resized(tmp_path):
    raw = raw_of(tmp_path / "raw", groups=3, images=2)
    images, masks, index = prepared(raw, 32, tmp_path / "prepared")
    assert (images.shape, images.dtype) == ((6, 32, 32, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((6, 32, 32), np.uint8)
    assert list(index.columns) == ["id", "group", "label", "sha256"]
    for row, (sample, group, label) in enumerate(zip(index.id, index.group, index.label, strict=True)):
        case = raw / "kaggle_3m" / group
        original = tifffile.imread(case / f"{sample}_mask.tif")
        np.testing.assert_array_equal(images[row], tifffile.imread(case / f"{sample}.tif"))
        np.testing.assert_array_equal(masks[row] * 255, original)
        assert label == ("with foreground" if original.max() > 0 else "without foreground")
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir()) == sorted(prepare.FILES)


@pytest.mark.parametrize("name", ["histopathologic", "ham10000"])
def test_a_class_is_its_place_among_the_labels(tmp_path, name):
    """The network's outputs are in this order: another one would exchange the classes in every table."""
    raw = raw_of(tmp_path / "raw", name, groups=12, images=2)
    count = prepare.prepare("classification", 32, raw, tmp_path / "prepared")
    targets = np.load(tmp_path / "prepared" / "targets.npy")
    index = pd.read_parquet(tmp_path / "prepared" / "index.parquet")
    about = json.loads((tmp_path / "prepared" / "dataset.json").read_text())
    assert (targets.shape, targets.dtype) == ((count,), np.uint8)
    assert list(about["labels"]) == list(reader(name).CLASSES)  # those without an image, too
    assert [reader(name).CLASSES[target] for target in targets] == index.label.tolist()
    assert about["labels"] == {label: (index.label == label).sum() for label in reader(name).CLASSES}
    table = pd.read_csv(raw / "samples.csv").set_index("id")
    assert (table.label[index.id].to_numpy() == index.label.to_numpy()).all()
    for image, path in zip(np.load(tmp_path / "prepared" / "images.npy"), table.image[index.id], strict=True):
        np.testing.assert_array_equal(image, pixels.read_image(raw / path))


def test_only_images_with_a_mask_are_segmented_and_all_are_classified(tmp_path):
    """HAM10000 in part: a label for each image, a mask for some."""
    origin = drawn(tmp_path / "origin", "ham10000", groups=5, images=1)
    first, second, *_ = sorted((origin / "masks").iterdir())
    for path in (first, second):
        path.unlink()
    sources.fetch("skin", dataset("directory", origin, "ham10000"), tmp_path / "raw")
    assert prepare.prepare("classification", 32, tmp_path / "raw", tmp_path / "classes") == 5
    assert prepare.prepare("segmentation", 32, tmp_path / "raw", tmp_path / "masks") == 3
    about = json.loads((tmp_path / "masks" / "dataset.json").read_text())
    assert about["labels"] == {"with foreground": 3}


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("histopathologic", "segmentation", "has no masks; a segmentation study needs masks"),
        ("lgg", "classification", "has no labels; a classification study needs labels"),
    ],
)
def test_a_dataset_that_does_not_fit_the_task_is_named(tmp_path, name, task, said):
    raw = raw_of(tmp_path / "raw", name)
    with pytest.raises(DataError, match=rf"raw: dataset '{name}' {said}"):
        prepare.prepare(task, 32, raw, tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_an_oblong_image_is_squeezed_with_its_mask(tmp_path):
    """As in the paper, which makes 224×224 of 600×450; cut off instead, lesions at the sides would be lost."""
    sources.fetch("skin", dataset("directory", isic(tmp_path / "origin"), "isic2017"), tmp_path / "raw")
    images, masks, _ = prepared(tmp_path / "raw", 32, tmp_path / "prepared")
    for row, name in enumerate("abc"):
        image = Image.open(tmp_path / "raw" / "images" / f"{name}.jpg")
        mask = Image.open(tmp_path / "raw" / "masks" / f"{name}_segmentation.png")
        assert image.size == (40, 30)
        np.testing.assert_array_equal(images[row], np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
        np.testing.assert_array_equal(masks[row] * 255, np.asarray(mask.resize((32, 32), Image.Resampling.NEAREST)))


def test_halved_images_agree_with_torchs_antialiased_resampling(tmp_path):
    raw = raw_of(tmp_path / "raw", groups=2, images=3, size=64)
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
    raw = raw_of(tmp_path / "raw", groups=2, images=2, size=96)
    mask = np.random.default_rng(0).random((96, 96)) < 0.3
    path = raw / "kaggle_3m" / "SYNTHETIC_0000" / "SYNTHETIC_0000_1_mask.tif"
    tifffile.imwrite(path, mask.astype(np.uint8) * 255)
    _, masks, _ = prepared(raw, 32, tmp_path / "prepared")
    np.testing.assert_array_equal(masks[0], mask[1::3, 1::3])


def test_the_digest_is_of_the_original_pixels_alone(tmp_path):
    """It must distinguish images, and recognise one whose file was recompressed or prepared at another size."""
    raw = raw_of(tmp_path / "raw", groups=2, images=2)
    before = prepared(raw, 32, tmp_path / "a")[2].sha256
    assert before.str.fullmatch("[0-9a-f]{64}").all()
    assert before.is_unique
    path = raw / "kaggle_3m" / "SYNTHETIC_0001" / "SYNTHETIC_0001_1.tif"
    values = tifffile.imread(path)
    tifffile.imwrite(path, values, photometric="rgb", compression=None)
    assert prepared(raw, 64, tmp_path / "b")[2].sha256.equals(before)
    values[0, 0, 0] ^= 1
    tifffile.imwrite(path, values, photometric="rgb")
    after = prepared(raw, 32, tmp_path / "c")[2].sha256
    assert (after != before).tolist() == [False, False, True, False]


@pytest.mark.parametrize(("source", "synthetic"), [("synthetic", True), ("directory", False)])
def test_the_description_counts_the_data_and_says_whether_they_are_synthetic(tmp_path, source, synthetic):
    """Every table states it: a result on synthetic images must never pass for one on patients."""
    origin, raw = drawn(tmp_path / "origin", groups=2, images=3), tmp_path / "raw"
    sources.fetch("brains", dataset(source, origin), raw)
    assert prepare.prepare("segmentation", 32, raw, tmp_path / "prepared") == 6
    lesions = sum(tifffile.imread(path).any() for path in raw.rglob("*_mask.tif"))
    assert json.loads((tmp_path / "prepared" / "dataset.json").read_text()) == {
        "dataset": "brains",
        "source": source,
        "synthetic": synthetic,
        "task": "segmentation",
        "group": "patient",
        "grouping": lgg.find([origin], ANY).grouping,
        "images": 6,
        "groups": 2,
        "labels": {"with foreground": lesions, "without foreground": 6 - lesions},
        "image_size": 32,
    }


def test_damaged_raw_data_leave_the_old_arrays(tmp_path):
    raw = raw_of(tmp_path / "raw")
    prepare.prepare("segmentation", 32, raw, tmp_path / "prepared")
    before = files_of(tmp_path / "prepared")
    damaged = raw / "kaggle_3m" / "SYNTHETIC_0001" / "SYNTHETIC_0001_2.tif"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match=r"SYNTHETIC_0001_2\.tif: cannot be read as TIFF"):
        prepare.prepare("segmentation", 32, raw, tmp_path / "prepared")
    assert files_of(tmp_path / "prepared") == before


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_text(path.read_text()[:20])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("damage", [remove, truncate])
def test_a_dataset_without_its_description_says_what_to_run(tmp_path, name, damage: Callable[[Path], None]):
    """Such as data that an earlier version fetched."""
    raw = raw_of(tmp_path / "raw")
    damage(raw / name)
    with pytest.raises(DataError, match=r"raw.*: .*Run `classroom fetch raw`") as caught:
        prepare.prepare("segmentation", 32, raw, tmp_path / "prepared")
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("batch_size", [4, 1000])
def test_batches_in_order_hold_every_image_once(tiny_study, batch_size):
    """Predictions are written next to the split's ids, so the order is part of the result."""
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
        lambda study: np.save(study / "prepared" / "targets.npy", np.zeros((5, 32, 32), np.uint8)),
    ],
    ids=["fewer", "other order", "other ids", "shorter index", "other images", "other masks"],
)
def test_arrays_and_splits_that_do_not_belong_together_are_refused(study, mix_up):
    """Trained on, they would put test images into training without a sign of it."""
    mix_up(study)
    with pytest.raises(
        DataError, match=r"splits\.parquet: was made from other images.*prepared.*Run `classroom split`"
    ):
        open_splits(study / "prepared", study / "splits.parquet")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("prepared/images.npy", "missing"),
        ("prepared/images.npy", "empty"),
        ("prepared/targets.npy", "truncated"),
        ("prepared/targets.npy", "text"),
        ("prepared/index.parquet", "truncated"),
        ("splits.parquet", "missing"),
        ("splits.parquet", "text"),
    ],
)
def test_a_missing_or_damaged_file_says_what_to_run(study, name, damage):
    path = study / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"not one of ours"}[damage])
    message = r"prepared, .*splits\.parquet: cannot be read .*Run `classroom prepare` and `classroom split`"
    with pytest.raises(DataError, match=message) as caught:
        open_splits(study / "prepared", study / "splits.parquet")
    assert "\n" not in str(caught.value)


def test_a_table_without_splits_says_what_to_run(study):
    rewrite(study / "splits.parquet", lambda table: table.drop(columns="split"))
    with pytest.raises(DataError, match="Run `classroom prepare` and `classroom split`"):
        open_splits(study / "prepared", study / "splits.parquet")


# --- augmentation ---


def augmentation(**changes) -> Augment:
    values = {"flip": 0.5, "transpose": 0.5, "affine": 0.5, "rotation_degrees": 30, "shift": 0.1, "scale": (0.9, 1.1)}
    return Augment(Augmentation(**(values | changes)))


def ellipses(count: int = 4, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
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
