"""Fetches a dataset into data/raw/<dataset>: synthetic images, a local folder, Kaggle, or files on the web.

All sources share these steps: a reader finds the dataset's files, an optional subset is drawn, every file is copied
unchanged (DVC versions the originals), and every image and mask is decoded once to validate it.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classroom.data.fetching import archives, pcam
from classroom.data.fetching.download import download, redact
from classroom.data.fetching.subset import draw
from classroom.data.pixels import (
    Converted,
    choose_foreground,
    digest,
    is_foreground,
    read_image,
    read_mask_values,
)
from classroom.data.readers import FORMULAS, File, Found, Sample, classes_of, folder_of, reader
from classroom.data.synthetic import GENERATORS
from classroom.errors import DataError, counted, listed, raise_for
from classroom.files import DISK_FULL, folder_written_whole
from classroom.params import Dataset
from classroom.progress import log, track

DOWNLOADS = Path("data/downloads")


def fetch(name: str, dataset: Dataset, target: Path, downloads: Path = DOWNLOADS) -> int:
    """Fetches and validates a dataset.

    Parameters
    ----------
    name
        of the dataset
    dataset
        its settings
    target
        Gets the files in their original layout; samples.csv with a row per image (id, group, label, image and mask as
        paths in `target`, label and mask empty if there is none); and about.json (source, synthetic or not).
    downloads
        Downloads stay in its subfolder `name`, so that nothing is downloaded twice.

    Returns
    -------
    The number of images.

    Raises
    ------
    DataError
        The source is missing or a file cannot be used; `target` then stays as it was.
    """
    # First, to find out before any download whether `target` can be written.
    with folder_written_whole(target) as folder, ExitStack() as stack:
        folders = _folders(name, dataset, downloads / name, stack)
        found = _found(name, dataset, folders)
        _check_labels(name, dataset, found.samples)
        if unused := found.unused_columns():
            log(f"{name}: {unused}")
        for table in found.tables:
            _copy(table, folder)
        pixels = check_pixels(name, dataset, found.samples, copies=folder)
        if not any(sample.label for sample in found.samples):  # else they may be for classification
            check_foreground(f"datasets/{name}.yaml", found.samples, pixels)
        _describe(name, dataset, found, pixels, folder)
    return len(found.samples)


def look(name: str, dataset: Dataset) -> Found:
    """The files that `fetch` would find in the user's folder; raises DataError as it does, but for unknown labels."""
    return _found(name, dataset, [folder_of(name, dataset)])


def _found(name: str, dataset: Dataset, folders: Sequence[Path]) -> Found:
    """The files of the dataset, whose names are safe to use."""
    found = reader(dataset.reader).find(folders, dataset)
    samples = _chosen(name, dataset, found.samples)
    files = [*found.tables, *(file for one in samples for file in (one.image, one.mask) if file is not None)]
    if dataset.source != "directory":  # a folder of the user's may well consist of links
        _check_inside(files, folders)
    _check_names(samples, files)
    return replace(found, samples=samples)


def _folders(name: str, dataset: Dataset, downloads: Path, stack: ExitStack) -> list[Path]:
    """The folders to search, with the original files; temporary ones are gone when `stack` closes."""
    if dataset.source == "synthetic":
        if dataset.reader not in GENERATORS:
            raise DataError(
                f"datasets/{name}.yaml: source: the reader '{dataset.reader}' has no synthetic images; "
                f"{', '.join(GENERATORS)} do. Set source to 'directory', 'kaggle' or 'download'."
            )
        assert dataset.synthetic is not None  # validated by Dataset
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="classroom-")))
        GENERATORS[dataset.reader](folder, dataset.synthetic)
        return [folder]
    if dataset.source == "directory":
        return [folder_of(name, dataset)]
    if dataset.source == "kaggle":
        return [_kaggle(name, handle) for handle in dataset.kaggle]
    return _downloaded(name, dataset, downloads, stack)


def _kaggle(name: str, handle: str) -> Path:
    """Kaggle's copy of a dataset, or of a competition's data where `handle` is competitions/NAME, on this machine."""
    import kagglehub  # slow, and speaks up when imported without an account

    competition = handle.removeprefix("competitions/")
    try:
        if competition != handle:
            return Path(kagglehub.competition_download(competition))
        return Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub and requests have no common base
        reason = redact(" ".join(str(error).split()) or type(error).__name__).rstrip(".")
        rules = (
            f"accept the competition's rules at https://www.kaggle.com/competitions/{competition}/rules, "
            if competition != handle
            else ""
        )
        raise DataError(
            f"datasets/{name}.yaml: kaggle: '{handle}' could not be fetched from Kaggle ({reason}). "
            f"Check the network and your Kaggle token, {rules}or download it by hand and set source to 'directory'."
        ) from None


def _downloaded(name: str, dataset: Dataset, downloads: Path, stack: ExitStack) -> list[Path]:
    """Downloads and unpacks the missing files."""
    folders = []
    for number, file in enumerate(dataset.download):
        # One folder per checksum: files of the same name do not collide.
        folder = downloads / file.checksum.split(":")[1][:12]
        try:
            path = download(file.url, file.checksum, folder)
        except DataError as error:
            raise DataError(f"datasets/{name}.yaml: download[{number}]: {error}") from None
        if archives.is_archive(path):
            folder = folder / "unpacked"
            if not folder.exists():
                archives.unpack(path, folder)
        folders.append(folder)
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    if dataset.reader == "histopathologic" and any(path.suffix == ".h5" for path in files):
        converted = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pcam-", dir=downloads)))
        pcam.convert(files, classes_of(dataset), dataset.subset, dataset.subset_seed, name, converted)
        return [converted]
    return folders


def _chosen(name: str, dataset: Dataset, samples: list[Sample]) -> list[Sample]:
    """The samples to keep."""
    if dataset.subset is None:
        return samples
    labels = classes_of(dataset)
    if not labels:
        raise DataError(
            f"datasets/{name}.yaml: subset: {dataset.subset} images cannot be drawn by class, because the reader "
            f"'{dataset.reader}' has no classes. Set subset to null."
        )
    drawn = draw([sample.label for sample in samples], labels, dataset.subset, dataset.subset_seed, name)
    return [samples[position] for position in drawn]


def _check_inside(files: Iterable[File], folders: Sequence[Path]) -> None:
    """Raises DataError for links that lead out of a download, to files of this machine."""
    roots = [folder.resolve() for folder in folders]
    outside = [file.path for file in files if not any(file.path.resolve().is_relative_to(root) for root in roots)]
    raise_for(
        [f"{path}: links to a file outside the download, {path.resolve()}." for path in outside],
        "Do not trust this dataset.",
    )


def _check_names(samples: Sequence[Sample], files: Iterable[File]) -> None:
    """Raises DataError for ids and groups that could break a table, and for files and labels that differ only in case.

    Spreadsheets run text that begins with one of FORMULAS; macOS and Windows do not distinguish a.tif and A.tif.
    """
    wrong = [
        f"{sample.image.path}: '{text}' is not a valid name."
        for sample in samples
        for text in dict.fromkeys((sample.id, sample.group, sample.label or "unlabelled"))
        if not text.isprintable() or text[:1] in ("", *FORMULAS)
    ]
    raise_for(
        wrong,
        "Expected names of images, patients, lesions and classes of printable characters that do not begin with one of "
        f"{FORMULAS}; rename them.",
    )
    spellings: dict[str, dict[str, Path]] = {}
    for sample in samples:
        if sample.label is not None:
            alike = " ".join(unicodedata.normalize("NFC", sample.label).casefold().split())
            spellings.setdefault(alike, {}).setdefault(sample.label, sample.image.path)
    raise_for(
        [
            " and ".join(f"'{label}' (of {path})" for label, path in labels.items())
            + ": labels that differ only in case or whitespace."
            for labels in spellings.values()
            if len(labels) > 1
        ],
        "Each would be a separate class. Spell each class in one way, in the table or in the names of the folders.",
    )
    places: dict[str, File] = {}
    clashes = []
    for file in files:
        other = places.setdefault(unicodedata.normalize("NFC", file.place).casefold(), file)
        if other.place != file.place:
            clashes.append(f"{file.path}: differs from {other.path} only in case or in the encoding of an accent.")
    raise_for(clashes, "Many file systems cannot store both; rename one of them.")


def _check_labels(name: str, dataset: Dataset, samples: Sequence[Sample]) -> None:
    """Raises DataError for labels that are no classes of the dataset."""
    classes = classes_of(dataset)
    counts = Counter(sample.label for sample in samples if sample.label is not None and sample.label not in classes)
    if counts:
        raise DataError(
            f"datasets/{name}.yaml: classes: lacks {len(counts)} labels of the images: "
            f"{listed(f'{label} (of {count})' for label, count in sorted(counts.items()))}. Add them, or correct the "
            "labels."
        )


def _copy(file: File, folder: Path) -> None:
    copy = folder / file.place
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(file.path, copy)
    except OSError as error:  # a dangling link, no permission
        if error.errno in DISK_FULL:
            raise
        raise DataError(f"{file.path}: cannot be copied ({error.strerror or error}).") from None


class Pixels(NamedTuple):
    """What is known of a dataset once every file was decoded."""

    converted: dict[str, Converted]
    foreground: list[int | str]
    sizes: Counter[tuple[int, int]]
    """Images by width and height."""
    has_foreground: list[bool]
    """Of every sample, whether its mask has a pixel of foreground."""
    foreground_share: float
    """Of all pixels of the images."""


def check_pixels(name: str, dataset: Dataset, samples: Sequence[Sample], copies: Path | None = None) -> Pixels:
    """Decodes every sample, after copying it if there is a folder for `copies`.

    Raises DataError naming all of the user's files that cannot be used, and images that are identical. Constant
    images, such as blank slices at the end of a scan, may recur.
    """
    seen: dict[str, Path] = {}
    converted: dict[str, Converted] = {"images": Counter(), "masks": Counter()}
    sizes: Counter[tuple[int, int]] = Counter()
    values_of: list[np.ndarray] = []
    area: Counter[int] = Counter()
    problems = []
    for sample in track(samples, "images"):
        path = sample.image.path
        try:
            for file in (sample.image, sample.mask):
                if file is not None and copies is not None:
                    _copy(file, copies)
            image = read_image(path, converted["images"])
            values, counts = np.empty(0, int), np.empty(0, int)
            if sample.mask is not None:
                mask = read_mask_values(sample.mask.path, image.shape[:2], converted["masks"])
                values, counts = np.unique(mask, return_counts=True)
        except DataError as error:
            problems.append(str(error))
            continue
        sizes[image.shape[1], image.shape[0]] += 1
        values_of.append(values)
        area.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        content = digest(image)
        if content in seen and image.min() != image.max():
            problems.append(
                f"{path}: the same image as {seen[content]}. Each image must occur once, or it would be "
                "trained and tested on; remove one of the two with its mask and label."
            )
        seen[content] = path
    raise_for(problems)
    try:
        foreground = choose_foreground(
            Counter(value for values in values_of for value in values.tolist()), dataset.foreground
        )
    except DataError as error:
        raise DataError(f"datasets/{name}.yaml: {error}") from None
    inside = sum(count for value, count in area.items() if is_foreground(np.array(value), foreground))
    pixels = sum(width * height * count for (width, height), count in sizes.items())
    has_foreground = [bool(is_foreground(values, foreground).any()) for values in values_of]
    return Pixels(converted, foreground, sizes, has_foreground, inside / max(pixels, 1))


def check_foreground(where: object, samples: Sequence[Sample], pixels: Pixels) -> None:
    """Raises DataError if masks mark nothing, or everything: then there is nothing to learn.

    Parameters
    ----------
    where
        for the message: what names the dataset
    samples
        of the dataset
    pixels
        what `check_pixels` found in them
    """
    masks = counted(sum(sample.mask is not None for sample in samples), "mask")
    inside = ", ".join(map(str, pixels.foreground))
    if not any(pixels.has_foreground):
        raise DataError(
            f"{where}: no pixel of the {masks} is foreground ({inside}), so a segmentation has nothing to learn. "
            "Expected foreground in some of them; correct the masks, or which files are taken as masks."
        )
    if pixels.foreground_share == 1:
        raise DataError(
            f"{where}: every pixel of the {masks} is foreground ({inside}), so a segmentation has nothing to learn. "
            "Expected background in some of them; correct the masks, or foreground."
        )


def _describe(name: str, dataset: Dataset, found: Found, pixels: Pixels, folder: Path) -> None:
    """Writes samples.csv and about.json; later commands need no other knowledge of the layout."""
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        split = ["split"] if any(sample.split for sample in found.samples) else []
        table.writerow(["id", "group", "label", "image", "mask", *split])
        for sample in found.samples:
            mask = sample.mask.place if sample.mask else ""
            row = [sample.id, sample.group, sample.label or "", sample.image.place, mask]
            table.writerow([*row, sample.split] if split else row)
    about = {
        "dataset": name,
        "source": dataset.source,
        "synthetic": dataset.source == "synthetic",
        "group": found.group,
        "grouping": found.grouping,
        "labels": list(classes_of(dataset)),
        "subset": dataset.subset,
        "missing_masks": dataset.missing_masks,
        "foreground": pixels.foreground,
        "converted": {what: dict(sorted(counts.items())) for what, counts in pixels.converted.items() if counts},
    }
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
