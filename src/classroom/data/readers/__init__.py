"""One small module per layout of a downloaded dataset.

A reader has `find(folders, settings)`, which returns everything that belongs to the dataset from file names and tables,
without reading pixels. It has CLASSES, the classes in canonical order, or takes them from `classes` of the dataset's
file: they are known without any data. OPTIONS names the settings of the dataset's file that only some readers use.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from filecmp import cmp
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import ModuleType

import pandas as pd

from classroom.errors import DataError, ParamsError, listed
from classroom.params import Dataset

OPTIONS = ("images", "masks", "table", "classes", "group", "missing_masks")
"""Settings of a dataset's file that only some readers use."""


@dataclass(frozen=True)
class File:
    """A file of a source, and its path in the layout of the original download."""

    path: Path
    place: str
    """POSIX path relative to the dataset's folder."""


@dataclass(frozen=True)
class Sample:
    """One image with its label, its mask or both, as files."""

    id: str
    group: str
    """What must stay in one split: a patient, a slide, a lesion."""
    label: str | None
    image: File
    mask: File | None
    split: str = ""
    """The split that the dataset itself puts it into, if it does."""


@dataclass(frozen=True)
class Found:
    """The files of a dataset."""

    samples: list[Sample]
    group: str
    """The kind of group: patient, slide, tile, lesion, or image if every image is a group."""
    tables: tuple[File, ...] = ()
    """The tables that labels and groups come from."""


def reader(name: str) -> ModuleType:
    """The reader module called `name` in the settings."""
    return importlib.import_module(f"classroom.data.readers.{name}")


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """The classes of a dataset; none for images with masks alone."""
    return getattr(reader(dataset.reader), "CLASSES", dataset.classes)


def check_options(name: str, dataset: Dataset) -> None:
    """Raises ParamsError if the file of the dataset called `name` has settings that its reader does not use."""
    used = getattr(reader(dataset.reader), "OPTIONS", ())
    defaults = {key: Dataset.model_fields[key].default for key in OPTIONS if key not in used}
    if unused := [key for key, default in defaults.items() if getattr(dataset, key) != default]:
        raise ParamsError(
            f"datasets/{name}.yaml: {', '.join(unused)}: not used by the reader '{dataset.reader}'. Remove it, or set "
            "reader to one that uses it: folders or table."
        )


LEFTOVERS = re.compile(
    r"\..*|__macosx|__pycache__|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|\$recycle\.bin|system volume information"
    r"|@eadir",
    re.IGNORECASE,
)
"""Names of files and folders that macOS, Windows, Jupyter (.ipynb_checkpoints) and network drives leave behind."""


def walk(folders: Iterable[Path]) -> list[Path]:
    """Every file below `folders`, sorted within each, without hidden files and LEFTOVERS.

    Raises DataError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else images would be left out in silence
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Give yourself access to it.")

    files, entered = [], set()
    for folder in folders:
        for where, inner, names in os.walk(folder, followlinks=True, onerror=refuse):
            if (real := os.path.realpath(where)) in entered:  # a link to a parent, or one of `folders` inside another
                inner.clear()
                continue
            entered.add(real)
            inner[:] = sorted(name for name in inner if not LEFTOVERS.fullmatch(name))
            files += [Path(where, name) for name in sorted(names) if not LEFTOVERS.fullmatch(name)]
    return files


class Problems:
    """All that is wrong with the files of a dataset, to be said at once."""

    def __init__(self) -> None:
        self.found: dict[str, list[object]] = {}
        """By what is wrong and what to do, the files or rows."""

    def add(self, problem: str, *offenders: object) -> None:
        if offenders:
            self.found.setdefault(problem, []).extend(offenders)

    def raise_any(self, where: object) -> None:
        """Raises DataError if there is a problem: a sentence for each kind, with its first offenders and their number.

        `where`: the folder or table that holds the offenders.
        """
        if self.found:
            raise DataError(f"{where}: " + " ".join(f"{problem}: {listed(of)}." for problem, of in self.found.items()))


def is_ignored(place: str, ignore: Sequence[str]) -> bool:
    """Whether a pattern of `ignore` fits the path of a file, or its name."""
    return any(fnmatchcase(text, pattern) for text in (place, PurePosixPath(place).name) for pattern in ignore)


def usable(folder: Path, ignore: Sequence[str], problems: Problems, subfolder: str = "") -> dict[str, Path]:
    """By POSIX path in `folder`, the regular files of its `subfolder`, without those that `ignore` names.

    Others, such as pipes, links to nowhere and names that are not UTF-8, become `problems`.
    """
    files = {}
    for path in walk([folder / subfolder]):
        place = path.relative_to(folder).as_posix()
        if is_ignored(place, ignore):
            continue
        if not path.is_file():
            problems.add(
                "No regular file but a pipe, a device or a broken link; remove it, or name it under ignore", place
            )
        elif not place.isascii() and any("\udc80" <= sign <= "\udcff" for sign in place):
            problems.add("With a name that is not UTF-8; rename it", place)
        else:
            files[place] = path
    return files


def endings() -> Collection[str]:
    """What the names of image files end in, in small letters."""
    from classroom.data.pixels import FORMATS  # slow, and of no use to what only asks for classes

    return FORMATS


def only_images(files: dict[str, Path], problems: Problems) -> dict[str, Path]:
    """The `files` with the ending of an image; all others become `problems`."""
    images = {place: path for place, path in files.items() if path.suffix.lower() in endings()}
    problems.add(
        f"Files that do not end in {', '.join(endings())}; move them away, or name them under ignore",
        *(place for place in files if place not in images),
    )
    return images


def names_without_ending(paths: Iterable[str]) -> dict[str, str]:
    """The ids of images by their paths: without the ending, but where only the ending tells two apart."""
    names = {path: str(PurePosixPath(path).with_suffix("")) for path in paths}
    count = Counter(name.casefold() for name in names.values())
    return {path: path if count[name.casefold()] > 1 else name for path, name in names.items()}


def group_of(path: str, pattern: str, alone: str, problems: Problems) -> str:
    """What `pattern` finds in an image's path without the ending; `alone` if there is no pattern.

    `problems` gets the paths in which it finds nothing.
    """
    if not pattern:
        return alone
    found = re.search(pattern, str(PurePosixPath(path).with_suffix("")))
    group = found and found[1 if found.re.groups else 0]
    if not group:
        problems.add(f"Images in whose path, without its ending, the pattern of group, {pattern}, finds nothing", path)
    return group or alone


def kind_of_group(pattern: str) -> str:
    """What `group_of` finds: the name of the group in the pattern, as in `(?P<lesion>…)`, else a patient."""
    return next(iter(re.compile(pattern).groupindex), "patient") if pattern else "image"


def one_of(files: Sequence[Path], what: str, where: Sequence[Path], expected: str) -> Path:
    """The only one of `files`, or the first of several with the same content.

    Parameters
    ----------
    files
        candidates
    what, where, expected
        for messages: the file's name, the folders that were searched, and the layout

    Raises
    ------
    DataError
        There is none, or there are several with different content.
    """
    if not files:
        raise DataError(f"{', '.join(map(str, where))}: no {what} here. Expected {expected}.")
    for other in files[1:]:
        if not same_content(files[0], other):
            raise DataError(f"{other}: another {what} than {files[0]}. Expected one; remove the wrong one.")
    return files[0]


def same_content(first: Path, second: Path) -> bool:
    """Whether two files have the same content. Raises DataError if one cannot be read."""
    try:
        return cmp(first, second, shallow=False)
    except OSError as error:
        raise DataError(f"{second}: cannot be read ({error.strerror}).") from None


def by_id(files: Iterable[Path], endings: Sequence[str]) -> dict[str, Path]:
    """Files by their names without one of `endings` (lower case; names may have it in capitals).

    A file that occurs twice, as in some archives, counts once. Raises DataError if the two differ.
    """
    named: dict[str, Path] = {}
    for path in files:
        for ending in endings:
            if path.name.lower().endswith(ending):
                key = path.name[: -len(ending)]
                if key not in named:
                    named[key] = path
                elif not same_content(named[key], path):
                    raise DataError(
                        f"{path}: another file with the id of {named[key]}. Each id must occur once; remove "
                        "the wrong one."
                    )
                break
    return named


def read_table(path: Path, columns: Sequence[str], key: str) -> pd.DataFrame:
    """Reads a CSV table as text.

    Parameters
    ----------
    path
        the file
    columns
        that it must have; it may have more
    key
        the column with the ids, which become the sorted index

    Raises
    ------
    DataError
        Names the file, and the line, if it cannot be read, lacks a column, or an id is missing, occurs twice or
        cannot be a file name.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a CSV table ({reason}). Fetch it again.") from None
    for column in columns:
        if column not in table.columns:
            raise DataError(
                f"{path}: lacks the column '{column}'. Expected {', '.join(columns)}; found "
                f"{', '.join(map(str, table.columns))}."
            )
    if table.empty:
        raise DataError(f"{path}: has no rows. Expected one per image; fetch it again.")
    ids = table[key]
    for wrong, problem in (
        (~ids.str.fullmatch(NAME), f"is no image name: expected {key} of letters, digits, '_', '-' and '.'"),
        (ids.duplicated(), "occurs a second time. Each image must have one row"),
    ):
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise DataError(f"{path}: line {row + 2}: '{ids.iloc[row]}' {problem}.")
    return table.set_index(key).sort_index()


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""Ids become parts of paths; no id may point to a file outside the dataset."""


def check_complete(images: Iterable[str], rows: Iterable[str], table: Path, where: str) -> None:
    """Checks that every row has its image and every image its row.

    Parameters
    ----------
    images, rows
        ids
    table, where
        for messages: the file with the rows, and the images' folder

    Raises
    ------
    DataError
        Names the first id that lacks its image or row.
    """
    images, rows = set(images), set(rows)
    for missing, problem in (
        (rows - images, f"has no image in {where}. Expected a file for every row; fetch the images again"),
        (images - rows, f"in {where} has no row. Expected a row for every image; fetch the table again"),
    ):
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"{table}: '{min(missing)}'{more} {problem}.")
