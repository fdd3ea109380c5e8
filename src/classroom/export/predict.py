"""`classroom predict`: an exported model's answers to images of any size. Neither torch nor the run is needed."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from classroom.core.metrics import predict_labels
from classroom.core.predictions import quantise
from classroom.data.pixels import FORMATS, read_image
from classroom.data.prepare import resized
from classroom.data.readers import walk
from classroom.errors import ExportError
from classroom.export.model import Model
from classroom.files import folder_written_whole

TABLE = "predictions.csv"
NO_IMAGES = ("_mask", "_segmentation", "_probability")
"""What the names of masks end with, in the datasets' folders and in ours: in a folder, these are left out."""


class Job(NamedTuple):
    """An image and the name, without an ending, under which its results are written."""

    image: Path
    name: str


def find(paths: Sequence[Path]) -> tuple[list[Job], int]:
    """Every image in `paths`, files or folders, in this order and each once; and how many masks were left out.

    The name of an image in a folder is its place there, that of a file its own; of those that would be called alike,
    all but the first get a number. Raises ExportError if a path does not exist, or if there are no images.
    """
    found: dict[str, tuple[Path, Path]] = {}
    masks = 0
    for path in paths:
        if path.is_dir():
            for file in walk([path]):
                if file.suffix.lower() not in FORMATS:
                    continue
                if file.stem.endswith(NO_IMAGES):
                    masks += 1
                else:
                    found.setdefault(os.path.realpath(file), (file, file.relative_to(path)))
        elif path.exists():
            found.setdefault(os.path.realpath(path), (path, Path(path.name)))
        else:
            raise ExportError(f"{path}: no such file or folder. Expected images ({', '.join(FORMATS)}).")
    if not found:
        left_out = f", only {masks} masks" if masks else ""
        raise ExportError(
            f"{', '.join(map(str, paths))}: no images here{left_out}. Expected files that end in {', '.join(FORMATS)}."
        )
    return _named(found.values()), masks


def predict(
    model: Model,
    jobs: Sequence[Job],
    target: Path,
    batch_size: int,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Writes `target`: predictions.csv and, of masks, two 8-bit PNGs an image; the whole folder or nothing.

    NAME_mask.png has 0 and 255, NAME_probability.png ⌊256·p⌋ (so a mask is where that is 128 or more); both are of the
    image's own size, brought there from the model's by nearest neighbour. predictions.csv has a row per image:
    of masks the lesion's share of the image, of classes the likeliest and the probability of each. `show` is called
    after every image.

    Raises ExportError if `target` holds anything already, and DataError for a file that is no 8-bit RGB image: all are
    read once before the first prediction.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target}: holds something already. Name another folder with --out, or move it away.")
    for job in jobs:
        read_image(job.image)
    size = model.about["image_size"]
    rows: list[dict[str, Any]] = []
    with folder_written_whole(target) as folder:
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            images = [read_image(job.image) for job in batch]
            small = np.stack([resized(image, (size, size), Image.Resampling.BILINEAR) for image in images])
            for job, image, answer in zip(batch, images, model.probabilities(small), strict=True):
                if model.about["task"] == "segmentation":
                    rows.append(_write_mask(job, image.shape[:2], answer, folder))
                else:
                    rows.append(_classes(job, model.about["labels"], answer))
                show()
        with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def _write_mask(job: Job, shape: tuple[int, int], answer: np.ndarray, folder: Path) -> dict[str, Any]:
    probability = resized(quantise(answer), shape, Image.Resampling.NEAREST)
    mask = predict_labels(probability[None])[0]
    names = {kind: f"{job.name}_{kind}.png" for kind in ("mask", "probability")}
    (folder / names["mask"]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / names["mask"])
    Image.fromarray(probability).save(folder / names["probability"])
    return {"image": job.image, "lesion_share": f"{mask.mean():.6f}", **names}


def _classes(job: Job, labels: Sequence[str], answer: np.ndarray) -> dict[str, Any]:
    decided = labels[predict_labels(answer[None])[0]]
    return {"image": job.image, "label": decided, **{name: f"{p:.6f}" for name, p in zip(labels, answer, strict=True)}}


def _named(found: Iterable[tuple[Path, Path]]) -> list[Job]:
    taken: set[str] = set()
    jobs = []
    for image, place in found:
        name = wanted = place.with_suffix("").as_posix()
        number = 1
        while name.casefold() in taken:  # some file systems know no capitals
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        jobs.append(Job(image, name))
    return jobs
