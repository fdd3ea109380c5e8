"""HAM10000: HAM10000_metadata.csv, images in HAM10000_images_part_1 and _part_2, masks <id>_segmentation.png.

Images and masks may be in several folders, as on Kaggle, where they are two datasets. Other files are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import File, Found, Sample, by_id, check_complete, one_of, read_table, walk
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
EXPECTED = (
    "HAM10000_metadata.csv next to HAM10000_images_part_1/ and HAM10000_images_part_2/, as in the Kaggle download "
    "'kmader/skin-cancer-mnist-ham10000'"
)
IMAGES = re.compile(r"ham10000_images_part_[12]|images", re.IGNORECASE)
MASK = "_segmentation.png"


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every image with its label and, where there is one, its mask, sorted by id; a group is a lesion.

    Raises DataError for a row without an image, an image without a row, a mask without its image, or an unknown dx.
    """
    files = walk(folders)
    tables = [path for path in files if path.name.lower() == "ham10000_metadata.csv"]
    table = one_of(tables, "HAM10000_metadata.csv", folders, EXPECTED)
    rows = read_table(table, ("lesion_id", "image_id", "dx"), key="image_id")
    for name, label in rows.dx[~rows.dx.isin(CLASSES)].items():
        raise DataError(f"{table}: '{name}': dx is '{label}'. Expected one of {', '.join(CLASSES)}.")
    for name in rows.index[rows.lesion_id == ""]:
        raise DataError(f"{table}: '{name}': has no lesion_id. Expected one, so that its lesion stays in one split.")
    images = by_id((path for path in files if IMAGES.fullmatch(path.parent.name)), (".jpg", ".jpeg"))
    check_complete(images, rows.index, table, "HAM10000_images_part_1/, _part_2/ or images/")
    masks = by_id(files, (MASK,))
    if lone := sorted(set(masks) - set(images)):
        raise DataError(
            f"{masks[lone[0]]}: a mask without its image ({len(lone)} such masks). Expected the images of all masks; "
            "fetch them, or remove the masks."
        )
    samples = [
        Sample(
            id=name,
            group=row.lesion_id,
            label=row.dx,
            image=_placed(images[name]),
            mask=_placed(masks[name]) if name in masks else None,
        )
        for name, row in zip(rows.index, rows.itertuples(index=False), strict=True)
    ]
    return Found(samples, "lesion", (File(table, table.name),))


def _placed(path: Path) -> File:
    return File(path, f"{path.parent.name}/{path.name}")
