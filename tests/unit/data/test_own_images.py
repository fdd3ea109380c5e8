"""The readers for images of one's own: folders and tables. No file is dropped in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classroom.data.fetching import sources
from classroom.data.prepare import prepare
from classroom.data.readers import Found, reader
from classroom.data.split import write
from classroom.errors import DataError
from classroom.params import Dataset, Split


def draw(root: Path, *places: str, mask: bool = False) -> None:
    """Writes an image to every path, each with other pixels; or a mask with both values."""
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(place.encode())).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray((pixels[..., 0] > 127).astype(np.uint8) * 255 if mask else pixels).save(path)


def settings(name: str, root: Path, **options: object) -> Dataset:
    return Dataset(reader=name, source="directory", directory=str(root), full_size=1, **options)


def find(name: str, root: Path, **options: object) -> Found:
    return reader(name).find([root], settings(name, root, **options))


def pairs(found: Found) -> dict[str, str | None]:
    return {one.image.place: one.mask.place if one.mask else None for one in found.samples}


def said(name: str, root: Path, **options: object) -> str:
    """The one paragraph with which the reader refuses."""
    with pytest.raises(DataError) as error:
        find(name, root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- pairs of images and masks ---

LAYOUTS = {
    "the same names": ("images/a.png", "masks/a.png"),
    "other endings": ("images/a.jpg", "masks/a.tif"),
    "_mask": ("images/a.png", "masks/a_mask.png"),
    "_segmentation": ("images/ISIC_0000001.jpg", "masks/ISIC_0000001_segmentation.png"),
    "_seg": ("images/a.png", "masks/a_seg.png"),
    "_gt": ("images/a.png", "masks/a_GT.png"),
    "-mask": ("images/a.png", "masks/a-mask.png"),
    "subfolders alike": ("images/p1/a.png", "masks/p1/a_mask.png"),
    "subfolders of images alone": ("images/p1/a.png", "masks/a.png"),
    "a name that ends like a mask": ("images/a_seg.png", "masks/a_seg.png"),
    "capital endings": ("images/a.PNG", "masks/a.TIF"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mask_is_found_by_its_image_s_name(layout: str, tmp_path: Path) -> None:
    image, mask = LAYOUTS[layout]
    draw(tmp_path, image)
    draw(tmp_path, mask, mask=True)
    found = find("folders", tmp_path, images="images", masks="masks")
    assert pairs(found) == {image: mask}
    assert found.group == "image"


@pytest.mark.parametrize(("images", "masks"), [("", ""), ("", "masks"), ("images", ""), ("both", "both")])
def test_masks_may_lie_among_or_below_the_images(images: str, masks: str, tmp_path: Path) -> None:
    image, mask = (str(Path(folder, name)) for folder, name in ((images, "a.png"), (masks, "a_mask.png")))
    draw(tmp_path, image)
    draw(tmp_path, mask, mask=True)
    assert pairs(find("folders", tmp_path, images=images, masks=masks or ".")) == {image: mask}


def test_a_file_between_images_and_masks_in_one_folder_is_named_once(tmp_path: Path) -> None:
    draw(tmp_path, "a.png")
    draw(tmp_path, "a_mask.png", mask=True)
    (tmp_path / "notes.txt").write_text("")
    assert said("folders", tmp_path, masks=".").count("notes.txt") == 1


def test_one_name_in_two_folders_is_paired_by_its_folder(tmp_path: Path) -> None:
    draw(tmp_path, "images/p1/1.png", "images/p2/1.png")
    draw(tmp_path, "masks/p1/1.png", "masks/p2/1.png", mask=True)
    found = find("folders", tmp_path, images="images", masks="masks", group="^[^/]+")
    assert pairs(found) == {"images/p1/1.png": "masks/p1/1.png", "images/p2/1.png": "masks/p2/1.png"}
    assert [(one.id, one.group) for one in found.samples] == [("p1/1", "p1"), ("p2/1", "p2")]


def test_everything_that_is_no_pair_is_named_at_once(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    draw(tmp_path, "masks/a.png", "masks/a_mask.png", "masks/x.png", "masks/c.png", mask=True)
    (tmp_path / "images/notes.txt").write_text("by J.")
    os.mkfifo(tmp_path / "masks/pipe.png")
    (tmp_path / "images/gone.png").symlink_to("nowhere.png")
    (tmp_path / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    text = said("folders", tmp_path, images="images", masks="masks")
    assert text.startswith(f"{tmp_path}: ")
    for part in (
        r"Files that do not end in \.tif, .*: images/notes\.txt\.",
        r"Pipes, devices or broken links.*: images/gone\.png, masks/pipe\.png\.",
        r"Files whose name is not UTF-8; rename them: images/caf\\udce9\.png\.",
        r"Masks without an image: masks/x\.png\.",
        r"Images without a mask .*: images/b\.png, images/d\.png\.",
        r"Images with several masks: images/a\.png \(masks/a\.png, masks/a_mask\.png\)\.",
    ):
        assert re.search(part, text), (part, text)


def test_the_first_ten_are_named_and_all_are_counted(tmp_path: Path) -> None:
    draw(tmp_path, *(f"images/{number:02}.png" for number in range(23)))
    (tmp_path / "masks").mkdir()
    text = said("folders", tmp_path, images="images", masks="masks")
    assert "Images without a mask" in text
    assert re.search(r": images/00\.png, .*images/09\.png, … \(23 in all\)\.$", text)


def test_what_ignore_names_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/old/b.png")
    draw(tmp_path, "masks/a.png", mask=True)
    (tmp_path / "masks/readme.md").write_text("")
    options = {"images": "images", "masks": "masks"}
    found = find("folders", tmp_path, ignore=("*.md", "images/old/*"), **options)
    assert pairs(found) == {"images/a.png": "masks/a.png"}
    assert "images/old/b.png" in said("folders", tmp_path, ignore=("*.md",), **options)


def test_leftovers_of_systems_and_notebooks_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/.ipynb_checkpoints/a-checkpoint.png")
    draw(tmp_path, "masks/a.png", mask=True)
    for name in ("images/._a.png", "images/.DS_Store", "masks/Thumbs.db", "masks/desktop.ini", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert pairs(find("folders", tmp_path, images="images", masks="masks")) == {"images/a.png": "masks/a.png"}


def test_an_image_whose_name_begins_with_a_dot_is_an_image(tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/.b.png", "images/.more/c.png")
    draw(tmp_path, "masks/a.png", "masks/.b.png", mask=True)
    assert "images/.more/c.png" in said("folders", tmp_path, images="images", masks="masks")
    draw(tmp_path, "masks/.more/c.png", mask=True)
    assert len(pairs(find("folders", tmp_path, images="images", masks="masks"))) == 3


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "polyp/1.png", "none/1.png")
    real = os.scandir

    def scandir(path: str) -> object:  # the tests may run as root, who may read everything
        if Path(path).name == "none":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert said("folders", tmp_path) == (
        f"{tmp_path}/none: cannot be read (Permission denied). Change its permissions so that you can read it."
    )


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert said("folders", tmp_path, images="images").startswith(f"{tmp_path}/images: no images here.")
    assert "no folder images and masks here" in said("folders", tmp_path, images="images", masks="masks")


def test_images_that_the_pattern_of_groups_misses_are_named(tmp_path: Path) -> None:
    draw(tmp_path, "a/P01_1.png", "a/P01_2.png", "b/P02_1.png", "b/scan.png")
    text = said("folders", tmp_path, group=r"P\d+")
    assert r"Images whose path (without its ending) does not match the pattern of group, P\d+: b/scan.png." in text
    found = find("folders", tmp_path, group=r"(?P<slide>P\d+)_\d$", ignore=("scan.png",))
    assert (found.group, [one.group for one in found.samples]) == ("slide", ["P01", "P01", "P02"])


# --- a folder for each class ---


def test_the_first_folder_is_the_class(tmp_path: Path) -> None:
    draw(tmp_path, "polyp/1.png", "polyp/deep/2.png", "none/1.png", "none/1.jpg")
    found = find("folders", tmp_path)
    assert {one.id: one.label for one in found.samples} == {
        "polyp/1": "polyp", "polyp/deep/2": "polyp", "none/1.png": "none", "none/1.jpg": "none"
    }  # fmt: skip


def test_images_in_no_class_s_folder_are_named(tmp_path: Path) -> None:
    draw(tmp_path, "polyp/1.png", "2.png")
    assert "Images that are not in the folder of a class: 2.png." in said("folders", tmp_path)


def test_folders_called_like_splits_are_no_classes(tmp_path: Path) -> None:
    draw(tmp_path, "train/polyp/1.png", "test/none/2.png")
    assert "its folders test, train are named like splits" in said("folders", tmp_path)


def test_a_class_that_the_settings_lack_is_named_with_its_images(tmp_path: Path) -> None:
    draw(tmp_path, "polyp/1.png", "none/1.png", "none/2.png")
    with pytest.raises(DataError, match=r"^datasets/own\.yaml: classes: lacks 1 labels of the images: none \(of 2\)\."):
        sources.fetch("own", settings("folders", tmp_path, classes=("polyp",)), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


# --- tables ---


def table(root: Path, rows: Iterable[dict[str, object]], name: str = "own.csv") -> Path:
    frame = pd.DataFrame(rows)
    if name.endswith(".parquet"):
        frame.to_parquet(root / name, index=False)
    else:
        frame.to_csv(root / name, index=False)
    return root / name


@pytest.mark.parametrize("name", ["own.csv", "own.parquet"])
def test_a_table_names_images_labels_groups_and_splits(name: str, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere", "c.png")
    draw(tmp_path, "home/scans/a.png", "home/scans/b.png")
    rows = [
        {"image": "scans/b.png", "label": "x", "group": 2, "split": "val", "age": 4},
        {"image": "scans/a.png", "label": "y", "group": 1, "split": "train", "age": 5},
        {"image": str(tmp_path / "elsewhere/c.png"), "label": "x", "group": 3, "split": "test", "age": 6},
    ]
    table(tmp_path / "home", rows, name)
    found = find("table", tmp_path / "home", table=name)
    assert [(one.id, one.label, one.group, one.split) for one in found.samples] == [
        ("elsewhere/c", "x", "3", "test"), ("home/scans/a", "y", "1", "train"), ("home/scans/b", "x", "2", "val"),
    ]  # fmt: skip
    assert found.group == "group"


def test_a_pattern_of_groups_and_a_column_of_them_are_refused_together(tmp_path: Path) -> None:
    """The pattern was ignored, and yet written into the dataset's file."""
    draw(tmp_path, "P1.png")
    name = table(tmp_path, [{"image": "P1.png", "label": "x", "group": "p1"}]).name
    assert "has a column group, but the setting group, ^P, is given too" in said(
        "table", tmp_path, table=name, group="^P"
    )


@pytest.mark.parametrize(
    "text",
    [
        "image;mask\r\nscans\\a.png;masks\\a.png\r\n",  # Excel, in some countries
        "\ufeffImage,Mask,\nscans/a.png,masks/a.png,\n\n",
        "image\tmask\nscans/a.png\tmasks/a.png\n",
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(text: str, tmp_path: Path) -> None:
    draw(tmp_path, "scans/a.png")
    draw(tmp_path, "masks/a.png", mask=True)
    (tmp_path / "own.csv").write_bytes(text.encode())
    assert pairs(find("table", tmp_path, table="own.csv")) == {"files/scans/a.png": "files/masks/a.png"}


def test_every_row_that_cannot_be_used_is_named_at_once(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "b.png", "c.png", "d.png")
    rows = [
        {"image": "a.png", "label": "x", "group": "p1", "split": "train"},
        {"image": "gone.png", "label": "x", "group": "p2", "split": "val"},
        {"image": "./a.png", "label": "x", "group": "p1", "split": "train"},
        {"image": "b.png", "label": "", "group": "p1", "split": "test"},
        {"image": "c.png", "label": "y", "group": "p3", "split": "holdout"},
        {"image": "", "label": "y", "group": "p3", "split": "val"},
        {"image": "d.png", "label": "y", "group": "", "split": ""},
    ]
    text = said("table", tmp_path, table=table(tmp_path, rows).name)
    for part in (
        "Rows whose image does not exist: line 3 gone.png.",
        "Images in several rows: a.png (line 2, line 4).",
        "Rows without a label: line 5.",
        "Rows with an unknown split (expected train, val, test): line 6 'holdout'.",
        "Rows without an image: line 7.",
        "Rows without a group: line 8.",
        "Rows without a split: line 8.",
        "Groups in several splits; assign all images of each to one split: p1 (test, train).",
        "Splits without an image: val.",
    ):
        assert part in text, (part, text)


def test_a_table_without_the_columns_says_which_it_has(tmp_path: Path) -> None:
    table(tmp_path, [{"file": "a.png", "label": 1}])
    assert "expected the column image, and label or mask; found file, label." in said(
        "table", tmp_path, table="own.csv"
    )
    assert "no table 'else.csv' here" in said("table", tmp_path, table="else.csv")


@pytest.mark.parametrize(
    "content",
    ["image,label\na.png,x\n".encode("utf-16"), b"PK\x03\x04\x14\x00\x08\xff\xfe", b"image,label\na.png,caf\xe9\n"],
)
def test_a_table_that_is_no_text_is_named(content: bytes, tmp_path: Path) -> None:
    """As Excel's Unicode text, a workbook, or Latin-1."""
    (tmp_path / "own.csv").write_bytes(content)
    text = said("table", tmp_path, table="own.csv")
    assert re.match(rf"{tmp_path}/own\.csv: cannot be read as a table \(.*\)\. Expected CSV in UTF-8", text)


def test_a_table_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, [{"image": "a.png", "label": "x"}])
    whole = Path.open

    def opened(self: Path, *args: Any, **options: Any) -> Any:  # the tests may run as root, who may read everything
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    assert said("table", tmp_path, table="own.csv").startswith(f"{path}: cannot be read as a table (Permission")


@pytest.mark.parametrize("other", ["cat", " Cat", "CAT"])
def test_labels_that_differ_only_in_case_or_blanks_are_named(other: str, tmp_path: Path) -> None:
    """Each would be a class of its own, in silence."""
    draw(tmp_path, "Cat/1.png", "Cat/2.png", f"{other}/3.png", "dog/4.png")
    own = settings("folders", tmp_path, classes=("Cat", other, "dog"))
    with pytest.raises(DataError, match=rf"'{other}' \(of .*/3\.png\).*: labels that differ only in case or") as error:
        sources.fetch("own", own, tmp_path / "raw")
    assert f"'Cat' (of {tmp_path}/Cat/1.png)" in str(error.value)
    assert "dog" not in str(error.value)


@pytest.mark.parametrize(("value", "said"), [(0, "no pixel of the 2 masks is"), (255, "every pixel of the 2 masks is")])
def test_masks_that_mark_nothing_or_everything_are_refused(value: int, said: str, tmp_path: Path) -> None:
    draw(tmp_path, "images/a.png", "images/b.png")
    (tmp_path / "masks").mkdir()
    for name in "ab":
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / f"masks/{name}.png")
    own = settings("folders", tmp_path, images="images", masks="masks")
    with pytest.raises(DataError, match=rf"^datasets/own\.yaml: {said} foreground .* nothing to learn\."):
        sources.fetch("own", own, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_masks_that_mark_nothing_are_refused_by_a_segmentation_of_images_with_labels(tmp_path: Path) -> None:
    """And by no classification; a lesion that vanishes at the study's size is none either."""
    draw(tmp_path, "a.png", "b.png")
    for name, pixel in {"a": (1, 1), "b": (2, 3)}.items():
        mask = np.zeros((8, 8), np.uint8)
        mask[pixel] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
    rows = [{"image": f"{name}.png", "mask": f"{name}_mask.png", "label": name} for name in "ab"]
    own = settings("table", tmp_path, table=table(tmp_path, rows).name, classes=("a", "b"))
    sources.fetch("own", own, tmp_path / "raw")
    assert prepare("segmentation", 8, tmp_path / "raw", tmp_path / "prepared") == 2
    assert prepare("classification", 2, tmp_path / "raw", tmp_path / "classes") == 2
    with pytest.raises(DataError, match=r"raw: no pixel of the masks is foreground at 2×2 pixels, so there is nothing"):
        prepare("segmentation", 2, tmp_path / "raw", tmp_path / "small")
    assert not list((tmp_path / "small").glob("*"))


# --- what becomes of them ---


def test_given_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [
        {"image": f"{n}.png", "label": "xy"[n % 2], "split": ["train", "train", "val", "test"][n // 2]}
        for n in range(8)
    ]
    draw(tmp_path / "own", *(row["image"] for row in rows))
    table(tmp_path / "own", rows)
    sources.fetch("own", settings("table", tmp_path / "own", table="own.csv", classes=("x", "y")), tmp_path / "raw")
    prepare("classification", 8, tmp_path / "raw", tmp_path / "prepared")
    given = Split(percent=(50, 25, 25), by="given", seed=0)
    assert write(tmp_path / "prepared", given, tmp_path / "splits.parquet") == {"train": 4, "val": 2, "test": 2}
    splits = pd.read_parquet(tmp_path / "splits.parquet").set_index("id").split
    assert {name: splits[name] for name in splits.index} == {str(n): rows[n]["split"] for n in range(8)}


def test_given_splits_need_a_table_that_gives_them(tmp_path: Path) -> None:
    draw(tmp_path / "own", "x/1.png", "y/2.png")
    sources.fetch("own", settings("folders", tmp_path / "own", classes=("x", "y")), tmp_path / "raw")
    prepare("classification", 8, tmp_path / "raw", tmp_path / "prepared")
    with pytest.raises(DataError, match=r"lacks the splits of its images, which `split: \{by: given\}` needs"):
        write(tmp_path / "prepared", Split(percent=(50, 25, 25), by="given", seed=0), tmp_path / "splits.parquet")


def test_a_class_without_a_training_image_is_named(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "label": "xxy"[n], "split": ["train", "val", "test"][n]} for n in range(3)]
    draw(tmp_path / "own", *(row["image"] for row in rows))
    table(tmp_path / "own", rows)
    sources.fetch("own", settings("table", tmp_path / "own", table="own.csv", classes=("x", "y")), tmp_path / "raw")
    prepare("classification", 8, tmp_path / "raw", tmp_path / "prepared")
    with pytest.raises(DataError, match=r"^split: no training image of y\."):
        write(tmp_path / "prepared", Split(percent=(50, 25, 25), by="given", seed=0), tmp_path / "splits.parquet")
