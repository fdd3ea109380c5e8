"""One small module per layout of a downloaded dataset.

A reader has `find(folders, settings)`, which returns everything that belongs to the dataset from file names and tables,
without reading pixels. It has CLASSES, the classes in canonical order, or takes them from `classes` of the dataset's
file: they are known without any data. OPTIONS names the settings of the dataset's file that only some readers use.
MASKS is False if no image has a mask.
"""

from __future__ import annotations

import csv
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

from classroom.errors import DataError, ParamsError, listed, printable, reading
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
    """The split given by the dataset, if any."""


@dataclass(frozen=True)
class Found:
    """The files of a dataset."""

    samples: list[Sample]
    group: str
    """The kind of group: patient, slide, tile, lesion, or image if every image is a group."""
    tables: tuple[File, ...] = ()
    """The tables that labels and groups come from."""
    grouping: str = ""
    """How groups are identified, and what may still be in two splits; printed above tables."""
    unused: tuple[str, ...] = ()
    """Columns of the user's own table that are not read."""

    def unused_columns(self) -> str:
        """A message on `unused` columns, with advice on those that seem to name groups; empty if all are used."""
        if not self.unused:
            return ""
        said = f"columns of the table not used: {listed(self.unused)}"
        likely = [column for column in self.unused if GROUP_COLUMN.search(column)]
        if likely and self.group == "image":
            what = " or ".join(f"'{column}'" for column in likely)
            said += f". Warning: to keep the images of one {what} in one split, rename that column to 'group'"
        return printable(said)


GROUP_COLUMN = re.compile(
    r"(?<![a-z])(patient|subject|person|participant|donor|animal|case|lesion|slide|specimen|scan|series)"
)
"""A word in a column's name that may say which images belong together; only the user can know."""


def for_task(samples: Sequence[Sample], task: str, missing_masks: str) -> list[Sample]:
    """The images that a study uses.

    Parameters
    ----------
    samples
        of its dataset
    task
        segmentation or classification, which need a mask or a label
    missing_masks
        of the dataset's settings: with `empty`, an image without a mask is background
    """
    if task == "segmentation":
        return [one for one in samples if one.mask or missing_masks == "empty"]
    return [one for one in samples if one.label is not None]


def reader(name: str) -> ModuleType:
    """The reader module called `name` in the settings."""
    return importlib.import_module(f"classroom.data.readers.{name}")


def classes_of(dataset: Dataset) -> tuple[str, ...]:
    """The classes of a dataset; none for images with masks only."""
    return getattr(reader(dataset.reader), "CLASSES", dataset.classes)


def has_masks(dataset: Dataset) -> bool:
    """Whether images of a dataset may have masks, judging by its settings; a table shows it only when it is read."""
    module = reader(dataset.reader)
    return bool(dataset.masks) if "masks" in getattr(module, "OPTIONS", ()) else getattr(module, "MASKS", True)


def check_options(name: str, dataset: Dataset) -> None:
    """Raises ParamsError if the file of the dataset called `name` has settings that its reader does not use."""
    used = getattr(reader(dataset.reader), "OPTIONS", ())
    defaults = {key: Dataset.model_fields[key].default for key in OPTIONS if key not in used}
    if unused := [key for key, default in defaults.items() if getattr(dataset, key) != default]:
        raise ParamsError(
            f"datasets/{name}.yaml: {', '.join(unused)}: not used by the reader '{dataset.reader}'. Remove it, or set "
            "reader to one that uses it: folders or table."
        )


def folder_of(name: str, dataset: Dataset) -> Path:
    """The folder of a dataset with `source: directory`. Raises ParamsError if it is not there."""
    if not (folder := Path(dataset.directory).expanduser()).is_dir():
        raise ParamsError(
            f"datasets/{name}.yaml: directory: no such folder: {folder}. Expected the folder of the download, or set "
            "source to 'synthetic', 'kaggle' or 'download'."
        )
    return folder


LEFTOVERS = re.compile(
    r"\._.*|\.(ds_store|localized|apdisk|appledouble|spotlight-v100|fseventsd|temporaryitems|documentrevisions-v100)"
    r"|__macosx|icon\r|thumbs\.db|ehthumbs.*\.db|desktop\.ini|\$recycle\.bin|system volume information|\.trash.*"
    r"|\.directory|\.thumbnails|\.nfs.*|@eadir|\.ipynb_checkpoints|__pycache__|\.(git|dvc).*|\..*\.(tmp|swp)|.*~",
    re.IGNORECASE,
)
"""Names of files and folders that macOS, Windows, desktops, network drives, Jupyter, git, DVC and editors leave."""


def walk(folders: Iterable[Path]) -> list[Path]:
    """Every file below `folders`, sorted within each, without LEFTOVERS.

    Raises DataError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # else images would be left out in silence
            raise DataError(
                f"{error.filename}: cannot be read ({error.strerror}). Change its permissions so that you can read it."
            )

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
    """All problems with the files of a dataset, to be reported at once."""

    def __init__(self) -> None:
        self.found: dict[str, list[object]] = {}
        """By what is wrong and what to do, the files or rows."""

    def add(self, problem: str, *offenders: object) -> None:
        """Adds files or rows with one problem, which says what is wrong and what to do; nothing without offenders."""
        if offenders:
            self.found.setdefault(problem, []).extend(offenders)

    def raise_any(self, where: object) -> None:
        """Raises DataError if there is a problem: a sentence for each kind, with its first offenders and their number.

        `where`: the folder or table that holds the offenders.
        """
        if self.found:
            raise DataError(
                f"{where}: "
                + " ".join(f"{problem}: {listed(dict.fromkeys(of))}." for problem, of in self.found.items())
            )


def is_ignored(place: str, ignore: Sequence[str]) -> bool:
    """Whether a pattern of `ignore` fits the path of a file, or its name."""
    return any(fnmatchcase(text, pattern) for text in (place, PurePosixPath(place).name) for pattern in ignore)


def usable(
    folder: Path, ignore: Sequence[str], problems: Problems, subfolder: str = "", ignored: list[Path] | None = None
) -> dict[str, Path]:
    """By POSIX path in `folder`, the regular files of its `subfolder`, without those that `ignore` names.

    Others, such as pipes, links to nowhere and names that are not UTF-8, become `problems`.

    Parameters
    ----------
    folder
        that paths are relative to
    ignore
        patterns of paths or names to leave out
    problems
        of the dataset
    subfolder
        the part of `folder` to list; all of it by default
    ignored
        gets the files that are left out
    """
    files = {}
    for path in walk([folder / subfolder]):
        place = path.relative_to(folder).as_posix()
        if is_ignored(place, ignore):
            if ignored is not None:
                ignored.append(path)
        elif not path.is_file():
            problems.add("Pipes, devices or broken links; remove them, or list them under ignore", place)
        elif not place.isascii() and any("\udc80" <= sign <= "\udcff" for sign in place):
            problems.add("Files whose name is not UTF-8; rename them", place)
        else:
            files[place] = path
    return files


@dataclass(frozen=True)
class Listing:
    """The files of a download, which may be in several folders."""

    files: dict[Path, str]
    """With the path in its folder, for messages."""
    ignored: Collection[Path]

    def images(self) -> list[Path]:
        """Those with the extension of an image."""
        return [path for path in self.files if path.suffix.lower() in endings()]


def list_files(folders: Sequence[Path], ignore: Sequence[str], problems: Problems) -> Listing:
    """All regular files in `folders`, apart from LEFTOVERS and those that `ignore` names.

    Parameters
    ----------
    folders
        of the download
    ignore
        patterns of paths or names to leave out
    problems
        of the download; gets what is no regular file
    """
    ignored: list[Path] = []
    of_each = [usable(folder, ignore, problems, ignored=ignored) for folder in folders]
    return Listing({path: place for of in of_each for place, path in of.items()}, ignored)


DOCUMENTS = r"(readme|licen[cs]e|copying|citation|attribution|notice|changelog)\b.*"
"""Names of files about a download, which are not data."""


def check_all_used(
    listing: Listing, used: Collection[Path], problems: Problems, expected: str, others: str = "(?!)"
) -> None:
    """Adds every file that is not `used` to `problems`, so that no image is silently left out.

    Parameters
    ----------
    listing
        of the download's files
    used
        those that the reader knows
    problems
        of the download
    expected
        the names of these, for messages
    others
        a pattern of the names of files that the download is known to have in addition, as it has DOCUMENTS
    """
    known = re.compile(f"{others}|{DOCUMENTS}", re.IGNORECASE)
    used = set(used)
    problems.add(
        f"Files other than {expected}; rename them, move them away, or list them under ignore",
        *(place for path, place in listing.files.items() if path not in used and not known.fullmatch(path.name)),
    )


def by_name(paths: Iterable[Path], listing: Listing, problems: Problems, kind: str) -> dict[str, list[Path]]:
    """Images or masks, and their copies, by name without extension and mask suffix.

    Parameters
    ----------
    paths
        of the images or masks
    listing
        of the download's files
    problems
        of the download; gets files of one name with different content
    kind
        image or mask
    """
    named: dict[str, list[Path]] = {}
    for path in paths:
        of = named.setdefault(SUFFIX.sub("", path.stem) if kind == "mask" else path.stem, [])
        if of and not same_content(of[0], path):
            problems.add(f"Several different files for one {kind}", f"{listing.files[of[0]]} and {listing.files[path]}")
        of.append(path)
    return named


SUFFIXES = ("_mask", "_segmentation", "_seg", "_gt", "-mask")
"""Suffixes of a mask's name before the extension, in upper or lower case."""
SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)


FORMULAS = "=+-@"
"""First characters of text that a spreadsheet runs as a formula."""


def endings() -> Collection[str]:
    """The extensions of image files, in lower case."""
    from classroom.data.pixels import FORMATS  # slow, and of no use to what only asks for classes

    return FORMATS


def only_images(files: dict[str, Path], problems: Problems) -> dict[str, Path]:
    """The `files` with the ending of an image; all others become `problems`."""
    images = {place: path for place, path in files.items() if path.suffix.lower() in endings()}
    problems.add(
        f"Files that do not end in {', '.join(endings())}; move them away, or list them under ignore",
        *(place for place in files if place not in images),
    )
    return images


def names_without_ending(paths: Iterable[str]) -> dict[str, str]:
    """Image ids by path: the path without extension, unless two paths differ only in their extension."""
    names = {path: str(PurePosixPath(path).with_suffix("")) for path in paths}
    count = Counter(name.casefold() for name in names.values())
    return {path: path if count[name.casefold()] > 1 else name for path, name in names.items()}


def group_of(path: str, pattern: str, alone: str, problems: Problems) -> str:
    """The group of an image, from its path without the ending.

    Parameters
    ----------
    path
        of the image
    pattern
        a regular expression; its first group counts, if it has one
    alone
        the image's own group, used without a pattern
    problems
        of the dataset; gets paths in which the pattern finds nothing
    """
    if not pattern:
        return alone
    found = re.search(pattern, str(PurePosixPath(path).with_suffix("")))
    group = found and found[1 if found.re.groups else 0]
    if not group:
        problems.add(f"Images whose path (without its ending) does not match the pattern of group, {pattern}", path)
    return group or alone


def kind_of_group(pattern: str) -> str:
    """What `group_of` finds: the name of the group in the pattern, as in `(?P<lesion>…)`, else a patient."""
    return next(iter(re.compile(pattern).groupindex), "patient") if pattern else "image"


def told_by(pattern: str) -> str:
    """How `group_of` identifies groups, for `Found.grouping`."""
    return f"`{pattern}` in the images' paths" if pattern else UNKNOWN


UNKNOWN = "none are known, so images of one patient may be in two splits"


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
            raise DataError(f"{files[0]}, {other}: two different files {what}. Expected one; remove the wrong one.")
    return files[0]


def same_content(first: Path, second: Path) -> bool:
    """Whether two files have the same content. Raises DataError if one cannot be read."""
    try:
        return cmp(first, second, shallow=False)
    except OSError as error:
        raise DataError(f"{second}: cannot be read ({error.strerror}).") from None


def read_rows(path: Path, signs: str = ",") -> pd.DataFrame:
    """The rows of a CSV table as text, by the number of their line, without empty ones.

    The column separator is the most frequent of `signs` in the first line; a row may end with an extra separator.
    Raises DataError if the file cannot be read, or if rows have more or fewer values than the header; all are named.
    """
    remedy = "Expected CSV in UTF-8, with column names in its first line."
    with reading(path, remedy, csv.Error, what="as a table"), path.open(encoding="utf-8-sig", newline="") as file:
        sign = max(signs, key=file.readline(1 << 16).count)
        file.seek(0)
        reader = csv.reader(file, delimiter=sign, skipinitialspace=True, strict=True)
        rows = dict((reader.line_num, row) for row in reader if any(row))
    head = rows.pop(next(iter(rows)), []) if rows else []
    while head and not head[-1]:
        head.pop()
    width, problems = len(head), Problems()
    problems.add(
        f"Rows that do not have a value for each of the {width} columns",
        *(f"line {line} ({len(row)})" for line, row in rows.items() if len(row) < width or any(row[width:])),
    )
    problems.raise_any(path)
    return pd.DataFrame([row[:width] for row in rows.values()], index=list(rows), columns=head, dtype=str)


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
        The file cannot be read or lacks a column, or ids are missing, occur twice or cannot be file names; all these
        lines are named.
    """
    table = read_rows(path)
    if missing := [column for column in columns if column not in table]:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}. It has {', '.join(table)}.")
    if table.empty:
        raise DataError(f"{path}: has no rows. Expected one for each image.")
    problems = Problems()
    ids = table[key]
    for wrong, problem in (
        (~ids.str.fullmatch(NAME), f"Rows whose {key} is not a valid image name (letters, digits, '_', '-' and '.')"),
        (ids.duplicated(), f"Rows that repeat the {key} of another row; expected one row for each image"),
    ):
        problems.add(problem, *(f"line {line} '{name}'" for line, name in ids[wrong].items()))
    problems.raise_any(path)
    return table.set_index(key).sort_index()


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
"""Ids become parts of paths; no id may point to a file outside the dataset."""


def check_complete(
    rows: pd.DataFrame, images: dict[str, list[Path]], listing: Listing, problems: Problems, what: str = "image"
) -> pd.DataFrame:
    """The `rows` without those whose image is ignored; `problems` gets rows without an image and images without a row.

    Parameters
    ----------
    rows
        with the ids as the index
    images
        of `by_name`
    listing
        of the download's files
    problems
        of the download
    what
        image or mask, for messages
    """
    ignored = {SUFFIX.sub("", path.stem) if what == "mask" else path.stem for path in listing.ignored}
    problems.add(
        f"Rows whose {what} file is missing", *(f"'{name}'" for name in rows.index.difference([*images, *ignored]))
    )
    problems.add(
        f"{what.capitalize()}s without a row",
        *(listing.files[of[0]] for name, of in sorted(images.items()) if name not in rows.index),
    )
    return rows[rows.index.isin(list(images))]
