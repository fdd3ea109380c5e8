"""ISIC 2017 segmentation: images/<id>.jpg, masks/<id>_segmentation.png, ground_truth.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from classroom.data.readers import (
    UNKNOWN,
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
)
from classroom.params import Dataset

CLASSES: tuple[str, ...] = ("melanoma", "seborrheic_keratosis", "nevus")
FILES = "images/<id>.jpg and masks/<id>_segmentation.png"
EXPECTED = f"ground_truth.csv next to {FILES}"


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every image with its label and mask, sorted by id; each image is a group of its own.

    Raises DataError naming rows without an image or mask, images and masks without a row, and values other than 0
    and 1.
    """
    problems = Problems()
    listing = list_files(folders, settings.ignore, problems)
    tables = [path for path in listing.files if path.name == "ground_truth.csv"]
    table = one_of(tables, "ground_truth.csv", folders, EXPECTED)
    rows = read_table(table, ("image_id", "melanoma", "seborrheic_keratosis"), key="image_id")
    files = {kind: [path for path in listing.images() if path.parent.name == f"{kind}s"] for kind in ("image", "mask")}
    images, masks = (by_name(of, listing, problems, kind) for kind, of in files.items())
    rows = check_complete(rows, images, listing, problems)
    rows = check_complete(rows, masks, listing, problems, "mask")
    melanoma, keratosis, neither = CLASSES
    names: dict[tuple[str, str], str] = {("0", "0"): neither, ("1", "0"): melanoma, ("0", "1"): keratosis}
    labels = {
        row.Index: names.get((row.melanoma.removesuffix(".0"), row.seborrheic_keratosis.removesuffix(".0")))
        for row in rows.itertuples()
    }
    problems.add(
        "Rows whose melanoma and seborrheic_keratosis are not 0.0 or 1.0, at most one of them 1.0",
        *(
            f"'{name}' ({rows.melanoma[name]}, {rows.seborrheic_keratosis[name]})"
            for name, label in labels.items()
            if label is None
        ),
    )
    check_all_used(listing, {*files["image"], *files["mask"], *tables}, problems, FILES)
    problems.raise_any(", ".join(map(str, folders)))
    samples = [
        Sample(
            id=name,
            group=name,
            label=label,
            image=File(images[name][0], f"images/{images[name][0].name}"),
            mask=File(masks[name][0], f"masks/{masks[name][0].name}"),
        )
        for name, label in labels.items()
    ]
    return Found(samples, "image", (File(table, table.name),), UNKNOWN)
