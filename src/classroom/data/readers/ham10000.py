"""HAM10000: HAM10000_metadata.csv, images in HAM10000_images_part_1 and _part_2, masks <id>_segmentation.png.

Images and masks may be in several folders, as on Kaggle, where they are two datasets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import (
    SUFFIX,
    File,
    Found,
    Problems,
    Sample,
    by_name,
    check_all_used,
    check_complete,
    list_files,
    one_of,
    read_table,
    same_content,
)
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
EXPECTED = (
    "HAM10000_metadata.csv next to HAM10000_images_part_1/ and HAM10000_images_part_2/, as in the Kaggle download "
    "'kmader/skin-cancer-mnist-ham10000'"
)
IMAGES = re.compile(r"ham10000_images_part_[12]|images", re.IGNORECASE)
FILES = "images in HAM10000_images_part_1/ and _part_2/, and masks called <id>_segmentation.png"
OTHERS = r"hmnist_.*\.csv"
"""Thumbnails as tables, which Kaggle's download has, too."""


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every image with its label and, where there is one, its mask, sorted by id; a group is a lesion.

    A mask is called as its image, with or without a suffix. Raises DataError naming rows without an image, images
    without a row, masks without an image, rows with an unknown dx or no lesion, and files that are none of these.
    """
    problems = Problems()
    listing = list_files(folders, settings.ignore, problems)
    tables = [path for path in listing.files if path.name.lower() == "ham10000_metadata.csv"]
    table = one_of(tables, "HAM10000_metadata.csv", folders, EXPECTED)
    rows = read_table(table, ("lesion_id", "image_id", "dx"), key="image_id")
    files = listing.images()
    images = by_name(
        (path for path in files if IMAGES.fullmatch(path.parent.name) and not SUFFIX.search(path.stem)),
        listing, problems, "image",
    )  # fmt: skip
    known = {path for of in images.values() for path in of}
    copies = [
        path for path in files if path not in known and path.stem in images and same_content(path, images[path.stem][0])
    ]
    masks = by_name((path for path in files if path not in {*known, *copies}), listing, problems, "mask")
    rows = check_complete(rows, images, listing, problems)
    problems.add(
        f"Rows whose dx is none of {', '.join(CLASSES)}",
        *(f"'{name}' ({label})" for name, label in rows.dx[~rows.dx.isin(CLASSES)].items()),
    )
    problems.add("Rows without a lesion_id, which keeps a lesion in one split", *rows.index[rows.lesion_id == ""])
    problems.add(
        "Masks without an image", *(listing.files[of[0]] for name, of in sorted(masks.items()) if name not in images)
    )
    check_all_used(listing, {*files, *tables}, problems, FILES, OTHERS)
    problems.raise_any(", ".join(map(str, folders)))
    samples = [
        Sample(
            id=name,
            group=row.lesion_id,
            label=row.dx,
            image=_placed(images[name][0]),
            mask=_placed(masks[name][0]) if name in masks else None,
        )
        for name, row in zip(rows.index, rows.itertuples(index=False), strict=True)
    ]
    return Found(
        samples,
        "lesion",
        (File(table, table.name),),
        grouping="lesion_id of the table, which does not name patients: lesions of one patient may be in two splits",
    )


def _placed(path: Path) -> File:
    return File(path, f"{path.parent.name}/{path.name}")
