"""`classroom predict`: runs an exported model on images of any size, without torch and without its run."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from classroom.core.metrics import predict_labels
from classroom.core.predictions import quantise
from classroom.data.pixels import FORMATS, Converted, read_image
from classroom.data.prepare import resized
from classroom.data.readers import FORMULAS, SUFFIX, walk
from classroom.errors import DataError, ExportError, printable, raise_for
from classroom.export.model import Model
from classroom.files import folder_written_whole

TABLE, FAILED = "predictions.csv", "failed.csv"
PROBABILITY = re.compile(r"_probability$", re.IGNORECASE)
"""How the names of our own pictures end, but for those of masks; in a folder, both are skipped."""
MASK, OTHER = "named as masks", "of other formats"
LONGEST = 255 - len("_probability.png")
"""Bytes of a name, so that file systems take it with this ending."""


class Job(NamedTuple):
    """An image, and the name of its results without an ending."""

    image: Path
    name: str


def find(paths: Sequence[Path]) -> tuple[list[Job], Counter[str]]:
    """Every image in `paths` (files or folders) once, in this order, and how many files are left out, by the reason.

    Images in a folder are named by their path in it, other files by their name; duplicates get a number. Raises
    ExportError if a path does not exist or there are no images.
    """
    found: dict[str, tuple[Path, Path]] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            for file in walk([path]):
                if file.suffix.lower() not in FORMATS:
                    left_out[OTHER] += file.name not in (TABLE, FAILED)
                elif SUFFIX.search(file.stem) or PROBABILITY.search(file.stem):
                    left_out[MASK] += 1
                else:
                    found.setdefault(os.path.realpath(file), (file, file.relative_to(path)))
        elif path.exists():
            found.setdefault(os.path.realpath(path), (path, Path(path.name)))
        else:
            raise ExportError(f"{path}: no such file or folder. Expected images ({', '.join(FORMATS)}).")
    left_out = +left_out
    if not found:
        only = ", only " + " and ".join(f"{count} {reason}" for reason, count in left_out.items()) if left_out else ""
        raise ExportError(
            f"{', '.join(map(str, paths))}: no images here{only}. Expected files that end in {', '.join(FORMATS)}."
        )
    return _named(found.values()), left_out


class Result(NamedTuple):
    """What `predict` did."""

    count: int
    """Images with a prediction."""
    failed: list[str]
    """What is wrong with the others, a sentence each."""
    converted: Converted


def predict(
    model: Model,
    jobs: Sequence[Job],
    target: Path,
    batch_size: int,
    show: Callable[[], None] = lambda: None,
) -> Result:
    """Writes predictions.csv and, for segmentation, two 8-bit PNGs per image; the whole folder or nothing.

    NAME_mask.png has values 0 and 255, NAME_probability.png ⌊256·p⌋, which is 128 or more inside the mask; both are
    resized by nearest neighbour to the image's size, upright as an image viewer shows it. predictions.csv has a row per
    image: the share of foreground, or the most probable class and the probability of each. Images that cannot
    be read are in failed.csv, each with the reason.

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
        No image can be read.
    """
    _check_empty(target)
    size = model.about["image_size"]
    rows: list[dict[str, Any]] = []
    failed: dict[Path, str] = {}
    converted: Converted = Counter()
    with folder_written_whole(target) as folder:
        readable = _read(jobs, converted, failed, show)
        while batch := list(islice(readable, batch_size)):
            small = np.stack([resized(image, (size, size), Image.Resampling.BILINEAR) for _, image in batch])
            for (job, image), probabilities in zip(batch, model.probabilities(small), strict=True):
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
        if not rows:
            raise_for(list(failed.values()), "Nothing was written.")
        _write_table(folder / TABLE, rows)
        if failed:
            _write_table(folder / FAILED, [{"image": _path(path), "problem": text} for path, text in failed.items()])
    return Result(len(rows), list(failed.values()), converted)


def _check_empty(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    number = 2
    while (other := target.with_name(f"{target.name}-{number}")).exists():
        number += 1
    what = "holds the results of an earlier prediction" if (target / TABLE).exists() else "is not an empty folder"
    raise ExportError(f"{target}: {what}. Name another one, such as `--out {other}`, or move it away.")


def _read(
    jobs: Iterable[Job], converted: Converted, failed: dict[Path, str], show: Callable[[], None]
) -> Iterator[tuple[Job, np.ndarray]]:
    """The images one by one; one that cannot be read is `failed` and stops no other."""
    for job in jobs:
        try:
            yield job, read_image(job.image, converted)
        except DataError as error:
            failed[job.image] = str(error)
            show()


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV table that neither a terminal nor a spreadsheet runs: names may be anyone's."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(map(_cell, rows[0]))
        table.writerows(map(_cell, row.values()) for row in rows)


def _cell(value: str) -> str:
    text = printable(value)
    return f"'{text}" if text.startswith(tuple(FORMULAS)) else text


def _path(path: Path | str) -> str:
    """The same path, which no spreadsheet takes for a formula."""
    return f"./{path}" if str(path).startswith(tuple(FORMULAS)) else str(path)


def _write_mask(job: Job, shape: tuple[int, int], probabilities: np.ndarray, folder: Path) -> dict[str, Any]:
    probability = resized(quantise(probabilities), shape, Image.Resampling.NEAREST)
    mask = predict_labels(probability[None])[0]
    names = {kind: f"{job.name}_{kind}.png" for kind in ("mask", "probability")}
    (folder / names["mask"]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / names["mask"])
    Image.fromarray(probability).save(folder / names["probability"])
    return {
        "image": _path(job.image),
        "foreground_share": f"{mask.mean():.6f}",
        **{kind: _path(name) for kind, name in names.items()},
    }


def _class_row(job: Job, labels: Sequence[str], probabilities: np.ndarray) -> dict[str, Any]:
    predicted = labels[predict_labels(probabilities[None])[0]]
    return {
        "image": _path(job.image),
        "label": predicted,
        **{name: f"{p:.6f}" for name, p in zip(labels, probabilities, strict=True)},
    }


def _named(found: Iterable[tuple[Path, Path]]) -> list[Job]:
    taken: set[str] = set()
    jobs = []
    for image, place in found:
        name = wanted = "/".join(_harmless(part) for part in place.with_suffix("").parts)
        number = 1
        while name.casefold() in taken:  # some file systems ignore case
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        jobs.append(Job(image, name))
    return jobs


def _harmless(part: str) -> str:
    """A part of a path without signs that steer a terminal or are no text, short enough for an ending and a number."""
    text = "".join(sign if sign.isprintable() else "_" for sign in part)
    return text.encode()[: LONGEST - 8].decode(errors="ignore")
