"""Whatever is wrong with a user's data, settings or folders is said in one paragraph that names it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from classroom.data.fetching import sources
from classroom.data.prepare import prepare
from classroom.data.synthetic import GENERATORS
from classroom.errors import DataError, ParamsError
from classroom.params import Dataset, Synthetic
from support.finished import classroom
from support.studies import copy_settings

TINY = Synthetic(groups=2, images_per_group=3, size=32, seed=0)
CASE = "kaggle_3m/SYNTHETIC_0001"
IMAGE = f"{CASE}/SYNTHETIC_0001_2.tif"
MASK = f"{CASE}/SYNTHETIC_0001_2_mask.tif"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By reader, a valid folder in the layout of the download; read only."""
    folder = tmp_path_factory.mktemp("drawn")
    for reader, draw in GENERATORS.items():
        draw(folder / reader, TINY)
    return folder


@pytest.fixture
def download(drawn: Path, tmp_path: Path) -> Path:
    """A folder of the user's, free to damage, in the layout of the Kaggle download of LGG."""
    return shutil.copytree(drawn / "lgg", tmp_path / "my downloads")


def fetch(directory: Path, target: Path, reader: str = "lgg", **changes: object) -> int:
    settings = Dataset(reader=reader, source="directory", directory=str(directory), full_size=1, **changes)
    return sources.fetch("lgg", settings, target)


# --- a folder of the user's that does not fit ---


def without(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def rename(before: str, after: str) -> Callable[[Path], None]:
    return lambda folder: (folder / before).rename(folder / after)


def repixel(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Rewrites the file at `path` with other pixels."""

    def damage(folder: Path) -> None:
        pixels = change(tifffile.imread(folder / path))
        photometric = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(folder / path, pixels, photometric=photometric)

    return damage


def cut(path: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: int(len(content) * share)])

    return damage


def as_png(path: str) -> Callable[[Path], None]:
    return lambda folder: Image.fromarray(tifffile.imread(folder / path)).save(folder / path, format="PNG")


def add_pair(name: str, like: str = "SYNTHETIC_0000_1", case: str = "SYNTHETIC_0001") -> Callable[[Path], None]:
    """Copies an image with its mask to another name."""

    def damage(folder: Path) -> None:
        origin, target = folder / "kaggle_3m" / like.rsplit("_", 1)[0], folder / "kaggle_3m" / case
        for ending in (".tif", "_mask.tif"):
            shutil.copy(origin / f"{like}{ending}", target / f"{name}{ending}")

    return damage


def add_case(name: str) -> Callable[[Path], None]:
    """Adds a patient with one slice."""

    def damage(folder: Path) -> None:
        (folder / "kaggle_3m" / name).mkdir()
        add_pair(f"{name}_1", case=name)(folder)

    return damage


def both_misnamed(folder: Path) -> None:
    rename(IMAGE, f"{CASE}/SYNTHETIC_0001_two.tif")(folder)
    rename(MASK, f"{CASE}/SYNTHETIC_0001_two_mask.tif")(folder)


def with_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(mask: np.ndarray) -> np.ndarray:
        mask[3, 4] = value
        return mask

    return change


NO_SLICE = r": Files other than <case>/<case>_<n>\.tif and <case>/<case>_<n>_mask\.tif; .*under ignore: kaggle_3m/"
NO_MASK = rf"Images without a mask \(expected <case>_<n>_mask\.tif next to them\): {IMAGE}\."
NO_IMAGE = rf": Masks without an image \(expected <case>_<n>\.tif next to them\): {MASK}\."
NO_FILE = rf": Pipes, devices or broken links; remove them, or list them under ignore: {IMAGE}\."
CASES = {
    # name: (damage, what is said after the folder's path)
    "image without mask": (without(MASK), f": {NO_MASK}"),
    "mask without image": (without(IMAGE), NO_IMAGE),
    "mask turned": (
        lambda folder: (repixel(IMAGE, lambda a: a[:20])(folder), repixel(MASK, lambda a: a[:, :20])(folder)),
        rf"/{MASK}: the mask is 20×32 pixels, its image 32×20\. Expected the same size",
    ),
    "image truncated within its pixels": (
        cut(IMAGE, 0.7),
        rf"/{IMAGE}: cannot be read as TIFF .*otherwise fetch it again",
    ),
    "image of no bytes": (cut(IMAGE, 0), rf"/{IMAGE}: is empty\. Expected an image"),
    "image that is text": (
        lambda folder: (folder / IMAGE).write_text("404: not found"),
        rf"/{IMAGE}: does not begin as a TIFF, PNG, JPEG or BMP file does",
    ),
    "image of floating-point numbers": (
        repixel(IMAGE, lambda image: image[..., 1].astype(np.float32)),
        rf"/{IMAGE}: contains float32 values.* Expected 8- or 16-bit integers",
    ),
    "stack of images": (
        repixel(IMAGE, lambda image: np.stack([image[..., 0]] * 5)),
        rf"/{IMAGE}: contains 5 images",
    ),
    "duplicate in another patient": (
        add_pair("SYNTHETIC_0001_9"),
        rf"/{CASE}/SYNTHETIC_0001_9\.tif: the same image as .*my downloads/kaggle_3m/SYNTHETIC_0000/SYNTHETIC_0000_1"
        r"\.tif\. Each image must occur once",
    ),
    "name without a number": (
        both_misnamed,
        rf"{NO_SLICE}SYNTHETIC_0001/SYNTHETIC_0001_two\.tif, {CASE}/SYNTHETIC_0001_two_mask\.tif\.",
    ),
    "name of another patient": (add_pair("SYNTHETIC_0000_1"), rf"{NO_SLICE}SYNTHETIC_0001/SYNTHETIC_0000_1\.tif, "),
    "image of another format": (
        lambda folder: (folder / CASE / "SYNTHETIC_0001_9.gif").write_bytes(b"GIF89a"),
        rf"{NO_SLICE}SYNTHETIC_0001/SYNTHETIC_0001_9\.gif\.",
    ),
    "link to nowhere": (
        lambda folder: ((folder / IMAGE).unlink(), (folder / IMAGE).symlink_to("annex/objects/gone")),
        NO_FILE,
    ),
    "pipe in place of an image": (lambda folder: ((folder / IMAGE).unlink(), os.mkfifo(folder / IMAGE)), NO_FILE),
    "folder in place of an image": (lambda folder: ((folder / IMAGE).unlink(), (folder / IMAGE).mkdir()), NO_IMAGE),
    "everything at once": (
        lambda folder: (without(MASK)(folder), add_pair("SYNTHETIC_0000_1")(folder)),
        rf": {NO_MASK} {NO_SLICE[2:]}SYNTHETIC_0001/SYNTHETIC_0000_1\.tif, .*SYNTHETIC_0000_1_mask\.tif\.",
    ),
    "name that a spreadsheet runs": (
        add_case("=cmd"),
        r"/kaggle_3m/=cmd/=cmd_1\.tif: '=cmd_1' is not a valid name\. .*: '=cmd' is not a valid name\. 2 such .* in "
        r"total\. Expected .*do not begin with one of =\+-@; rename them",
    ),
    "name with a line break": (
        add_case("a\nb"),
        r"/kaggle_3m/a\\nb/a\\nb_1\.tif: 'a\\nb_1' is not a valid name\..* Expected .*printable characters",
    ),
    "name that is no text": (
        add_case("a\udcff"),
        r": Files whose name is not UTF-8; rename them: kaggle_3m/a\\udcff/a\\udcff_1\.tif, .*_1_mask\.tif\.",
    ),
    "names that differ in case alone": (
        add_case("synthetic_0001"),
        r"/kaggle_3m/synthetic_0001/synthetic_0001_1\.tif: differs from .*/SYNTHETIC_0001/SYNTHETIC_0001_1\.tif only "
        r"in case .* 2 such problems in total\. .*rename one of them",
    ),
}


def test_the_undamaged_folders_are_accepted(drawn, tmp_path):
    for reader in GENERATORS:
        assert fetch(drawn / reader, tmp_path / reader, reader) > 1


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_folder_is_refused_by_the_name_of_the_users_file(download, tmp_path, case):
    """The user must find the file: a path of our temporary copy would be gone by then."""
    damage, said = CASES[case]
    damage(download)
    target = tmp_path / "data" / "raw" / "lgg"
    with pytest.raises(DataError, match=rf"^{re.escape(str(download))}{said}") as caught:
        fetch(download, target)
    print(f"{case}\n    {caught.value}")
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_masks_of_three_values_need_the_setting_foreground(download, tmp_path):
    repixel(MASK, with_value(1))(download)
    with pytest.raises(
        DataError,
        match=r"^datasets/lgg\.yaml: the masks contain 3 values: 0 \(in 6\), 1 \(in 1\), 255 .*"
        r"List those of the foreground, as in `foreground: \[1, 255\]`",
    ):
        fetch(download, tmp_path / "raw")
    with pytest.raises(
        DataError, match=r"^datasets/lgg\.yaml: foreground: no mask contains 7\. The masks contain 0 \(in 6\), 1"
    ):
        fetch(download, tmp_path / "raw", foreground=(255, 7))
    shares = []
    for foreground in ((255,), (255, 1), ("1-255",)):
        fetch(download, tmp_path / "raw", foreground=foreground)
        prepare("segmentation", 32, tmp_path / "raw", tmp_path / "prepared")
        shares.append(int(np.load(tmp_path / "prepared" / "targets.npy").sum()))
    assert shares[1] == shares[2] == shares[0] + 1


def test_all_unreadable_files_are_listed_at_once(download, tmp_path):
    images = sorted(path for path in download.rglob("*.tif") if "_mask" not in path.name)
    for path in images[:3]:
        path.write_text("404: not found")
    with pytest.raises(DataError) as caught:
        fetch(download, tmp_path / "raw")
    assert all(str(path) in str(caught.value) for path in images[:3])
    assert str(images[3]) not in str(caught.value)
    assert "3 such problems in total." in str(caught.value)


def test_a_damaged_folder_leaves_what_was_fetched_before(download, tmp_path):
    target = tmp_path / "data" / "raw" / "lgg"
    fetch(download, target)
    before = {path: path.read_bytes() for path in target.rglob("*.*")}
    cut(IMAGE, 0.5)(download)
    with pytest.raises(DataError, match="cannot be read as TIFF"):
        fetch(download, target)
    assert {path: path.read_bytes() for path in target.rglob("*.*")} == before
    assert [path.name for path in target.parent.iterdir()] == ["lgg"]


def test_strange_names_arrive_unchanged(download, tmp_path):
    names = ['O\'Brien "x", y', "Müller–中", "<script>|$x$", "a b;c&d", "%s{0}\\n"]
    for level, name in enumerate(names):
        add_case(name)(download)
        repixel(f"kaggle_3m/{name}/{name}_1.tif", lambda image, level=level: image // 2 + level)(download)
    assert fetch(download, tmp_path / "raw") == 6 + len(names)
    prepare("segmentation", 32, tmp_path / "raw", tmp_path / "prepared")
    assert set(names) <= set(pd.read_parquet(tmp_path / "prepared" / "index.parquet").group)


@pytest.mark.parametrize("source", ["directory", "kaggle"])
def test_a_link_may_lead_out_of_the_users_own_folder_but_not_out_of_a_download(download, tmp_path, monkeypatch, source):
    """Users who keep images elsewhere link them; what was downloaded must not fetch files of this machine."""
    (download / IMAGE).rename(tmp_path / "secret.tif")
    (download / IMAGE).symlink_to(tmp_path / "secret.tif")
    monkeypatch.setattr(sources, "_kaggle", lambda name, handle: download)
    settings = Dataset(reader="lgg", source=source, directory=str(download), kaggle=("x/y",), full_size=1)
    target = tmp_path / "data" / "raw" / "lgg"
    if source == "directory":
        assert sources.fetch("lgg", settings, target) == 6
        return
    said = (
        rf"^{re.escape(str(download))}/{IMAGE}: links to a file outside the download, {tmp_path}/secret\.tif\. Do not"
    )
    with pytest.raises(DataError, match=said):
        sources.fetch("lgg", settings, target)
    assert list(target.parent.iterdir()) == []


def test_a_folder_without_the_dataset_is_named_with_the_layout_that_was_expected(tmp_path):
    folder, target = tmp_path / "empty", tmp_path / "data" / "lgg"
    message = rf"^{re.escape(str(folder))}: no LGG dataset here\. Expected kaggle_3m/<case>/<case>_<n>\.tif next to"
    for inside in ("", "kaggle_3m/SYNTHETIC_0000", "images"):
        (folder / inside).mkdir(parents=True)
        with pytest.raises(DataError, match=message):
            fetch(folder, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_missing_folder_is_named_with_its_key(tmp_path, kind):
    folder = tmp_path / "downloads"
    if kind == "a file":
        folder.write_text("an archive, perhaps")
    target = tmp_path / "data" / "lgg"
    message = rf"^datasets/lgg\.yaml: directory: no such folder: {re.escape(str(folder))}\. Expected the folder"
    with pytest.raises(ParamsError, match=message):
        fetch(folder, target)
    assert list(target.parent.iterdir()) == []


# --- the other layouts ---


def add_line(path: str, line: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_text((folder / path).read_text() + line + "\n")


def retable(path: str, before: str, after: str) -> Callable[[Path], None]:
    """Replaces text in a table, once; `before` is a pattern."""

    def damage(folder: Path) -> None:
        text, count = re.subn(before, after, (folder / path).read_text(), count=1, flags=re.MULTILINE)
        assert count == 1  # or the case would test nothing
        (folder / path).write_text(text)

    return damage


def with_first(pattern: str, change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Changes the first file that matches."""
    return lambda folder: change(sorted(folder.glob(pattern))[0]) and None


def saved(mode: str, **options: object) -> Callable[[Path], object]:
    """Rewrites the image in another mode of Pillow."""
    return lambda path: Image.open(path).convert(mode).save(path, **options)


def twice(path: Path) -> object:
    return shutil.copy(path, path.with_suffix(".tiff" if path.suffix == ".tif" else ".jpeg"))


def twice_and_different(path: Path) -> None:
    twice(path)
    path.write_bytes(path.read_bytes() + b"more")


LIMIT = 300 * 300
"""Pixels, for these tests; Pillow's own limit is 90 million."""


def bomb(path: Path) -> None:
    Image.new("RGB", (310, 310)).save(path)


def tiff_bomb(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((310, 310, 3), np.uint8), photometric="rgb", compression="zlib")


LABELS = "train_labels.csv"
TISSUE = {
    # name: (damage, what is said)
    "no table": (
        without(LABELS),
        r": no train_labels\.csv here\. Expected train_labels\.csv \(id, label\) next to train/",
    ),
    "no images": (
        lambda folder: shutil.rmtree(folder / "train"),
        r"/train: no images here\. Expected train_labels\.csv",
    ),
    "two rows without image": (
        add_line(LABELS, "a,0\nb,1"),
        r": Rows whose image file is missing: 'a', 'b'\.",
    ),
    "image without row": (
        retable(LABELS, r"^\w{40},.*\n", ""),
        r": Images without a row: train/\w{40}\.tif\.",
    ),
    "label of another kind": (
        retable(LABELS, r"^(\w{40}),.", r"\1,tumour"),
        r": Rows whose label is neither 0 nor 1: '\w{40}' \(tumour\)\.",
    ),
    "row twice": (
        retable(LABELS, r"^(\w{40},.\n)", r"\1\1"),
        r"/train_labels\.csv: Rows that repeat the id of another row; expected one row for each image: line 3 '\w{40}'",
    ),
    "id that climbs out": (
        add_line(LABELS, "../../etc/passwd,0"),
        r"/train_labels\.csv: Rows whose id is not a valid image name .*: line 8 '\.\./\.\./etc/passwd'",
    ),
    "column missing": (
        retable(LABELS, "^id,label", "id,class"),
        r"/train_labels\.csv: lacks the columns label\. It has id, class",
    ),
    "no rows": (retable(LABELS, r"(?s)^(id,label\n).*", r"\1"), r"/train_labels\.csv: has no rows"),
    "rows of other lengths": (
        add_line(LABELS, "a,0,1,2\nb"),
        r"/train_labels\.csv: Rows that do not have a value for each of the 2 columns: line 8 \(4\), line 9 \(1\)\.",
    ),
    "quotation mark that is not closed": (
        add_line(LABELS, 'a,"0'),
        r"/train_labels\.csv: cannot be read as a table \(.*Expected CSV in UTF-8",
    ),
    "table that is no text": (
        lambda folder: (folder / LABELS).write_bytes(b"id,label\n\xff\xfe\x00,1\n"),
        r"/train_labels\.csv: cannot be read as a table \(.*Expected CSV in UTF-8",
    ),
    "index without an image": (
        retable("source_index.csv", r"^\w{40},.*\n", ""),
        r"/source_index\.csv: Images without a row \(expected a row for each image; or remove this table\): \w{40}\.",
    ),
    "index of other columns": (
        retable("source_index.csv", "^id,wsi", "id,slide"),
        r"/source_index\.csv: expected the column wsi",
    ),
    "index without places": (
        lambda folder: (
            retable("source_index.csv", "^id,wsi", "id,patient,x,y")(folder),
            retable("source_index.csv", "^(\\w{40}),.*(?s:.*)", r"\1,7,here,1")(folder),
            (folder / LABELS).write_text("\n".join((folder / LABELS).read_text().splitlines()[:2])),
            [path.unlink() for path in (folder / "train").iterdir() if path.stem not in (folder / LABELS).read_text()],
        ),
        r"/source_index\.csv: Rows whose x and y are not numbers \(pixels\): \w{40}\.",
    ),
    "image damaged": (
        with_first("train/*", lambda p: p.write_bytes(p.read_bytes()[:300])),
        r"/train/\w{40}\.tif: cannot be read as TIFF",
    ),
    "image far too large": (
        with_first("train/*", tiff_bomb),
        r"/train/\w{40}\.tif: has 96,100 pixels; the limit is 90,000,",
    ),
    "image that differs from its namesake": (
        with_first("train/*", twice_and_different),
        r": Several different files for one image: train/\w{40}\.tif and train/\w{40}\.tiff\.",
    ),
    "two sets": (
        lambda folder: (
            shutil.copytree(folder / "train", folder / "old" / "train"),
            (folder / "old" / LABELS).write_text("id,label\n"),
        ),
        r"/train_labels\.csv, .*: two different files train_labels\.csv\. Expected one; remove the wrong one",
    ),
}
METADATA, IMAGES, MASKS = "HAM10000_metadata.csv", "HAM10000_images_part_1", "masks"
SKIN = {
    "no table": (without(METADATA), r": no HAM10000_metadata\.csv here\. Expected HAM10000_metadata\.csv next to"),
    "rows without images": (
        lambda folder: shutil.rmtree(folder / IMAGES),
        r": Rows whose image file is missing: 'SYNTHETIC_00000_01', .*'\.",
    ),
    "image without row": (
        with_first(f"{IMAGES}/*", lambda path: shutil.copy(path, path.with_stem("ISIC_1"))),
        rf": Images without a row: {IMAGES}/ISIC_1\.jpg\.",
    ),
    "unknown diagnosis": (
        retable(METADATA, ",nv,", ",naevus,"),
        r": Rows whose dx is none of akiec, bcc, .*: 'SYNTHETIC_\w+' \(naevus\)\.",
    ),
    "lesion that a spreadsheet runs": (
        retable(METADATA, "^SYNTHETIC_00000,", "=cmd,"),
        r"/SYNTHETIC_00000_01\.jpg: '=cmd' is not a valid name\.",
    ),
    "no lesion": (
        retable(METADATA, "^SYNTHETIC_00000,", ","),
        r": Rows without a lesion_id, which keeps a lesion in one split: SYNTHETIC_00000_01\.",
    ),
    "mask without image": (
        with_first(f"{MASKS}/*", lambda path: shutil.copy(path, path.with_name("ISIC_1_segmentation.png"))),
        r": Masks without an image: masks/ISIC_1_segmentation\.png\.",
    ),
    "image damaged": (
        with_first(f"{IMAGES}/*", lambda path: path.write_bytes(path.read_bytes()[:400])),
        r"/SYNTHETIC_00000_01\.jpg: cannot be read as JPEG \(.*[Tt]runcated.*otherwise fetch it again",
    ),
    "image far too large": (with_first(f"{IMAGES}/*", bomb), r"01\.jpg: has 96,100 pixels; the limit is 90,000,"),
    "mask damaged": (
        with_first(f"{MASKS}/*", lambda path: path.write_bytes(path.read_bytes()[:80])),
        r"01_segmentation\.png: cannot be read as PNG \(.*otherwise fetch it again",
    ),
}


@pytest.mark.parametrize(
    ("reader", "case"), [("histopathologic", case) for case in TISSUE] + [("ham10000", case) for case in SKIN]
)
def test_a_damaged_folder_in_another_layout_is_refused_by_name(drawn, tmp_path, monkeypatch, reader, case):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMIT)
    damage, said = (TISSUE if reader == "histopathologic" else SKIN)[case]
    folder = shutil.copytree(drawn / reader, tmp_path / "my downloads")
    damage(folder)
    target = tmp_path / "data" / "raw" / "lgg"
    with pytest.raises(DataError, match=rf"^{re.escape(str(folder))}.*{said}") as caught:
        fetch(folder, target, reader)
    print(f"{case}\n    {caught.value}")
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            "a,1.0,1.0",
            r"Rows whose melanoma and seborrheic_keratosis are not .*, at most one of them 1\.0: 'a' \(1\.0, 1\.0\)",
        ),
        ("a,yes,no", r".*: 'a' \(yes, no\)"),
        (
            "b,0.0,0.0",
            r"Rows whose image file is missing: 'b'\. Images without a row: images/a\.jpg\. .*: masks/a_segmen",
        ),
    ],
)
def test_a_table_of_isic_that_does_not_fit_is_named(tmp_path, row, said):
    for folder, name in (("images", "a.jpg"), ("masks", "a_segmentation.png")):
        (tmp_path / folder).mkdir()
        Image.new("RGB" if folder == "images" else "L", (8, 8)).save(tmp_path / folder / name)
    (tmp_path / "ground_truth.csv").write_text(f"image_id,melanoma,seborrheic_keratosis\n{row}\n")
    with pytest.raises(DataError, match=rf"^{tmp_path}: {said}"):
        fetch(tmp_path, tmp_path / "raw", "isic2017")


def test_an_image_of_isic_without_its_mask_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "ground_truth.csv").write_text("image_id,melanoma,seborrheic_keratosis\na,0.0,0.0\n")
    with pytest.raises(DataError, match=rf"^{tmp_path}: Rows whose mask file is missing: 'a'\."):
        fetch(tmp_path, tmp_path / "raw", "isic2017")


# --- the command line ---


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's root with nothing but the committed settings, free to edit."""
    root = tmp_path / "project"
    root.mkdir()
    copy_settings(root)
    return root


def edit(path: str, before: str, after: str) -> Callable[[Path], None]:
    """Replaces text in a file of settings."""

    def change(project: Path) -> None:
        text = (project / path).read_text()
        assert text.count(before) == 1, before  # or the case would test nothing
        (project / path).write_text(text.replace(before, after))

    return change


LGG = "datasets/lgg.yaml"
missing_directory = edit(LGG, "source: synthetic\n", "source: directory\n")


def damaged_image(project: Path) -> None:
    missing_directory(project)
    GENERATORS["lgg"](project / "data" / "downloads" / "lgg", TINY)
    cut(IMAGE, 0.5)(project / "data" / "downloads" / "lgg")


def file_for(path: str) -> Callable[[Path], None]:
    """Permissions would not stop the superuser; a file where a folder belongs does."""

    def spoil(project: Path) -> None:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("in the way")

    return spoil


def nothing(project: Path) -> None:
    pass


COMMANDS = {
    # name: (command, what is done to the project before, what the command says)
    "misspelt key": (
        "fetch lgg",
        edit(LGG, "synthetic: {groups:", "synthetic: {group:"),
        r"datasets/lgg\.yaml: key 'synthetic\.groups' is missing; "
        r"unknown key 'synthetic\.group'\. Did you mean 'groups'\?",
    ),
    "unknown dataset": (
        "fetch lgq",
        nothing,
        r"unknown dataset 'lgq': no file datasets/lgq\.yaml\. Did you mean 'lgg'\?",
    ),
    "no such directory": (
        "fetch lgg",
        missing_directory,
        r"datasets/lgg\.yaml: directory: no such folder: data/downloads/lgg\. Expected .*",
    ),
    "damaged image": (
        "fetch lgg",
        damaged_image,
        r"data/downloads/lgg/kaggle_3m/SYNTHETIC_0001/SYNTHETIC_0001_2\.tif: cannot be read as TIFF .*",
    ),
    "output cannot be written": (
        "fetch lgg",
        file_for("data"),
        r"data/raw/lgg: cannot be written \(.*\)\. Move what is in the way and run again\.",
    ),
    "file where the output belongs": (
        "fetch lgg",
        file_for("data/raw/lgg"),
        r"data/raw/lgg: is a file, expected a folder\. Move it away and run again\.",
    ),
    "nothing fetched": (
        "prepare lgg-resnet18",
        nothing,
        r"data/raw/lgg/about\.json: no such file\. Run `classroom fetch lgg` first\.",
    ),
    "nothing to split": (
        "split lgg-resnet18",
        nothing,
        r"data/prepared/lgg-resnet18/index\.parquet: cannot be read .*Run `classroom prepare` for this study again\.",
    ),
    "nothing prepared": (
        "train lgg-resnet18 ml-v1 --seed 0",
        nothing,
        r"data/prepared/lgg-resnet18, data/splits/lgg-resnet18\.parquet: cannot be read .*"
        r"Run `classroom prepare` and `classroom split` for this study again\.",
    ),
    "value of another type": (
        "check",
        edit("studies/lgg-resnet18.yaml", "encoder: tu-resnet50", "encoder: [tu-resnet50]"),
        r"studies/lgg-resnet18\.yaml: teacher\.encoder: should be a valid string, not \['tu-resnet50'\]",
    ),
    "split of an unknown study": (
        "split lgg-resnet81",
        nothing,
        r"unknown study 'lgg-resnet81': no file studies/lgg-resnet81\.yaml\. Did you mean 'lgg-resnet18'\?",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_cannot_run_without_dvc_says_why_in_one_paragraph(project, case):
    """In a folder that is no project of DVC's; within one see test_bad_project.py."""
    command, spoil, said = COMMANDS[case]
    spoil(project)
    done = classroom(f"classroom {command}", project)
    print(f"{case}\n    {done.error.strip()}")
    assert re.fullmatch(rf"Error: {said}\n", done.error), done.error
    assert (done.code, done.out) == (1, "")


def test_the_installed_command_shows_no_traceback_and_fails(project):
    """By its exit code Snakemake and DVC know that the job failed."""
    (project / "params.yaml").unlink()
    command = [str(Path(sys.executable).parent / "classroom"), "fetch", "lgg"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    said = "params.yaml: no such file. Commands run in the project's root, where params.yaml is."
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {said}\n")


def test_a_command_that_can_run_says_what_it_made(project):
    edit(LGG, "groups: 60, images_per_group: 5", "groups: 2, images_per_group: 2")(project)
    said = "data/raw/lgg: 4 images, all valid (synthetic)\nmasks: foreground 255, all other values are background\n"
    assert classroom("classroom fetch lgg", project) == (0, said, "")
    assert len(list((project / "data" / "raw" / "lgg").rglob("*.tif"))) == 8
