"""ISIC 2017 segmentation: images/<id>.jpg, masks/<id>_segmentation.png, ground_truth.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import File, Found, Sample, by_id, check_complete, one_of, read_table, walk
from classroom.errors import DataError
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("melanoma", "seborrheic_keratosis", "nevus")
EXPECTED = "ground_truth.csv next to images/<id>.jpg and masks/<id>_segmentation.png"


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every image with its label and mask, sorted by id; each image is a group of its own.

    Raises DataError for a row without an image or mask, an image or mask without a row, or values other than 0 and 1.
    """
    tables = [path for path in walk(folders) if path.name == "ground_truth.csv"]
    table = one_of(tables, "ground_truth.csv", folders, EXPECTED)
    rows = read_table(table, ("image_id", "melanoma", "seborrheic_keratosis"), key="image_id")
    images = by_id(walk([table.parent / "images"]), (".jpg", ".jpeg"))
    masks = by_id(walk([table.parent / "masks"]), ("_segmentation.png",))
    check_complete(images, rows.index, table, f"{table.parent / 'images'}/")
    check_complete(masks, rows.index, table, f"{table.parent / 'masks'}/")
    melanoma, keratosis, neither = CLASSES
    names: dict[tuple[float, float], str] = {(0, 0): neither, (1, 0): melanoma, (0, 1): keratosis}
    samples = []
    for row in rows.itertuples():
        try:
            label = names[float(row.melanoma), float(row.seborrheic_keratosis)]
        except (KeyError, ValueError):
            raise DataError(
                f"{table}: '{row.Index}': melanoma is '{row.melanoma}' and seborrheic_keratosis "
                f"'{row.seborrheic_keratosis}'. Expected 0.0 or 1.0, and at most one of them 1.0."
            ) from None
        image, mask = images[row.Index], masks[row.Index]
        samples.append(
            Sample(
                id=row.Index,
                group=row.Index,
                label=label,
                image=File(image, f"images/{image.name}"),
                mask=File(mask, f"masks/{mask.name}"),
            )
        )
    return Found(samples, "image", (File(table, table.name),))
