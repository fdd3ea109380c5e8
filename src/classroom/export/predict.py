"""`classroom predict`: runs an exported model on images of any size, without torch and without its run."""

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
MASK_ENDINGS = ("_mask", "_segmentation", "_probability")
"""Endings of mask names, in the datasets' folders and in our output; files in a folder with these are skipped."""


class Job(NamedTuple):
    """An image, and the name of its results without an ending."""

    image: Path
    name: str


def find(paths: Sequence[Path]) -> tuple[list[Job], int]:
    """Every image in `paths` (files or folders) once, in this order, and the number of skipped masks.

    Images in a folder are named by their path in it, other files by their name; duplicates get a number. Raises
    ExportError if a path does not exist or there are no images.
    """
    found: dict[str, tuple[Path, Path]] = {}
    masks = 0
    for path in paths:
        if path.is_dir():
            for file in walk([path]):
                if file.suffix.lower() not in FORMATS:
                    continue
                if file.stem.endswith(MASK_ENDINGS):
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
    """Writes predictions.csv and, for segmentation, two 8-bit PNGs per image; the whole folder or nothing.

    NAME_mask.png has values 0 and 255, NAME_probability.png ⌊256·p⌋, which is 128 or more inside the mask; both are
    resized to the image's size by nearest neighbour. predictions.csv has a row per image: the lesion's share of the
    image, or the most probable class and the probability of each.

    Parameters
    ----------
    model
        an exported model
    jobs
        of `find`
    target
        a folder that is empty or does not exist
    batch_size
        images at a time
    show
        called after every image

    Raises
    ------
    ExportError
        `target` is not empty, or a probability is not finite.
    DataError
        A file is no 8-bit RGB image; all files are read once before the first prediction.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target}: is no empty folder. Name another one with --out, or move it away.")
    for job in jobs:
        read_image(job.image)
    size = model.about["image_size"]
    rows: list[dict[str, Any]] = []
    with folder_written_whole(target) as folder:
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            images = [read_image(job.image) for job in batch]
            small = np.stack([resized(image, (size, size), Image.Resampling.BILINEAR) for image in images])
            for job, image, probabilities in zip(batch, images, model.probabilities(small), strict=True):
                if not np.isfinite(probabilities).all():
                    raise ExportError(
                        f"{job.image}: {model.path} ({model.about['network']} of {model.about['study']} "
                        f"{model.about['method']}, seed {model.about['seed']}) gives NaN or infinite probabilities for "
                        "it, so nothing is written. Lower training.learning_rate, train the run again and export it."
                    )
                if model.about["task"] == "segmentation":
                    rows.append(_write_mask(job, image.shape[:2], probabilities, folder))
                else:
                    rows.append(_class_row(job, model.about["labels"], probabilities))
                show()
        with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


def _write_mask(job: Job, shape: tuple[int, int], probabilities: np.ndarray, folder: Path) -> dict[str, Any]:
    probability = resized(quantise(probabilities), shape, Image.Resampling.NEAREST)
    mask = predict_labels(probability[None])[0]
    names = {kind: f"{job.name}_{kind}.png" for kind in ("mask", "probability")}
    (folder / names["mask"]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / names["mask"])
    Image.fromarray(probability).save(folder / names["probability"])
    return {"image": job.image, "lesion_share": f"{mask.mean():.6f}", **names}


def _class_row(job: Job, labels: Sequence[str], probabilities: np.ndarray) -> dict[str, Any]:
    predicted = labels[predict_labels(probabilities[None])[0]]
    return {
        "image": job.image,
        "label": predicted,
        **{name: f"{p:.6f}" for name, p in zip(labels, probabilities, strict=True)},
    }


def _named(found: Iterable[tuple[Path, Path]]) -> list[Job]:
    taken: set[str] = set()
    jobs = []
    for image, place in found:
        name = wanted = place.with_suffix("").as_posix()
        number = 1
        while name.casefold() in taken:  # some file systems ignore case
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        jobs.append(Job(image, name))
    return jobs
