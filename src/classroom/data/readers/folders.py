"""Images in your own folder: with masks in another folder, or sorted into one folder per class.

With `masks`, an image and its mask have the same path in their folders, but for the ending and one of SUFFIXES; where
paths differ, the same name is enough if no other image has it. Both may lie in one folder, where masks have a suffix.
Without `masks`, the first folder in an image's path is its class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from classroom.data.readers import (
    SUFFIX,
    SUFFIXES,
    File,
    Found,
    Problems,
    Sample,
    group_of,
    kind_of_group,
    names_without_ending,
    only_images,
    told_by,
    usable,
)
from classroom.errors import DataError, listed
from classroom.params import Dataset

OPTIONS = ("images", "masks", "classes", "group", "missing_masks")
SPLITS = {"train", "val", "test", "valid", "validation", "training", "testing"}
"""Names of folders that hold splits and not classes."""


def find(folders: Sequence[Path], settings: Dataset) -> Found:
    """Every image with its mask or class, sorted by path.

    Raises DataError naming everything that is in the way: files that are no images, belong to no pair or to several,
    lie in no class's folder, or whose path has no group.
    """
    root, problems = _root(folders, settings), Problems()
    images = _images(root, settings.images, settings, problems)
    masks: dict[str, str] = {}
    if settings.masks:
        images, files = _apart(images, _images(root, settings.masks, settings, problems), settings)
        masks = _paired(list(images), list(files), settings, problems)
    elif images:
        _check_classes(images, settings, root, problems)
    ids = names_without_ending(_within(place, settings.images) for place in images)
    samples = []
    for place, path in images.items():
        inside = _within(place, settings.images)
        samples.append(
            Sample(
                id=ids[inside],
                group=group_of(inside, settings.group, ids[inside], problems),
                label=None if settings.masks else PurePosixPath(inside).parts[0],
                image=File(path, place),
                mask=File(files[masks[place]], masks[place]) if place in masks else None,
            )
        )
    problems.raise_any(root)
    if not samples:
        raise DataError(f"{root / settings.images}: no images here. Name the folder that holds them.")
    return Found(samples, kind_of_group(settings.group), grouping=told_by(settings.group))


def _root(folders: Sequence[Path], settings: Dataset) -> Path:
    """The one of `folders` that has the subfolders."""
    wanted = [name for name in (settings.images, settings.masks) if name]
    for folder in folders:
        if all((folder / name).is_dir() for name in wanted):
            return folder
    raise DataError(
        f"{', '.join(map(str, folders))}: no folder {' and '.join(wanted)} here. Correct images and masks in the "
        "dataset's file."
    )


def _images(root: Path, subfolder: str, settings: Dataset, problems: Problems) -> dict[str, Path]:
    """By path in `root`, the image files of a subfolder."""
    return only_images(usable(root, settings.ignore, problems, subfolder), problems)


def _apart(
    images: dict[str, Path], masks: dict[str, Path], settings: Dataset
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks, where one folder is the other or inside it."""
    of_images, of_masks = PurePosixPath(settings.images), PurePosixPath(settings.masks)
    if of_images == of_masks:
        masks = {place: path for place, path in masks.items() if SUFFIX.search(PurePosixPath(place).stem)}
    elif of_images.is_relative_to(of_masks):
        masks = {place: path for place, path in masks.items() if place not in images}
    return {place: path for place, path in images.items() if place not in masks}, masks


def _paired(images: list[str], masks: list[str], settings: Dataset, problems: Problems) -> dict[str, str]:
    """The mask of every image that has one."""
    by_path, by_name = defaultdict(list), defaultdict(list)
    for place in images:
        path = PurePosixPath(_within(place, settings.images)).with_suffix("")
        by_path[str(path)].append(place)
        by_name[path.name].append(place)
    masks_of: dict[str, list[str]] = defaultdict(list)
    lone = []
    for place in masks:
        path = PurePosixPath(_within(place, settings.masks)).with_suffix("")
        plain = path.with_name(SUFFIX.sub("", path.name) or path.name)
        fitting = next(
            (of for of in (by_path.get(str(path)), by_path.get(str(plain)), by_name.get(path.name),
                           by_name.get(plain.name)) if of),
            [],
        )  # fmt: skip
        if len(fitting) == 1:
            masks_of[fitting[0]].append(place)
        elif fitting:
            problems.add("Masks that match several images; rename them", f"{place} ({listed(fitting)})")
        else:
            lone.append(place)
    without = [place for place in images if place not in masks_of]
    if lone:
        problems.add("Masks without an image", *lone)
    if lone or settings.missing_masks == "refuse":
        problems.add(
            f"Images without a mask (expected the same name, or with {', '.join(SUFFIXES)}; if they are background "
            "everywhere, set `missing_masks: empty`)",
            *without,
        )
    for place, of in masks_of.items():
        if len(of) > 1:
            problems.add("Images with several masks", f"{place} ({listed(of)})")
    return {place: of[0] for place, of in masks_of.items()}


def _check_classes(images: dict[str, Path], settings: Dataset, root: Path, problems: Problems) -> None:
    """Adds images that lie in no class's folder to `problems`; raises DataError for folders that are splits."""
    parts = {place: PurePosixPath(_within(place, settings.images)).parts for place in images}
    names = {of[0] for of in parts.values() if len(of) > 1}
    if names and {name.lower() for name in names} <= SPLITS:
        raise DataError(
            f"{root / settings.images}: its folders {listed(sorted(names))} are named like splits. Expected a folder "
            "for each class; or list images, labels and splits in a table (columns image, label, split)."
        )
    for place, of in parts.items():
        if len(of) == 1:
            problems.add("Images that are not in the folder of a class", place)


def _within(place: str, subfolder: str) -> str:
    return str(PurePosixPath(place).relative_to(subfolder))
