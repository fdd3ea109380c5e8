"""Unpacks downloads: .zip, .tar, .tar.gz and single .gz files; none may write outside its folder."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

from classroom.errors import DataError, listed
from classroom.files import folder_written_whole

LARGEST = 1 << 30
"""Bytes that every archive may unpack to; a larger total is limited by RATIO."""
RATIO = 200
"""Maximum ratio of unpacked to packed size. Images are compressed already: their ratio is about 1."""

UNREADABLE = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError
)  # fmt: skip
"""What the standard library raises for archives that are damaged, or of a kind it does not know."""

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".gz")


def is_archive(path: Path) -> bool:
    """Whether `unpack` supports files of this name."""
    return path.name.lower().endswith(ENDINGS)


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks `archive` into `folder`, completely or not at all.

    Raises DataError naming the archive and the entry, before anything is written, for an entry outside the folder, a
    link or a device, entries for one path, an encrypted archive and an implausible total size; and for an archive that
    cannot be read.
    """
    name = archive.name.lower()
    try:
        with folder_written_whole(folder) as temporary:
            if name.endswith(".zip"):
                _unzip(archive, temporary)
            elif name.endswith((".tar", ".tar.gz", ".tgz")):
                _untar(archive, temporary)
            else:
                _gunzip(archive, temporary / archive.name[: -len(".gz")])
    except UNREADABLE as error:
        raise DataError(
            f"{archive}: cannot be unpacked ({error}). If another program unpacks it, name the folder with its files "
            "(source: directory, directory: …); otherwise remove it, and it is fetched again."
        ) from None


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_entry(archive, entry.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if entry.flag_bits & 1:
                raise DataError(f"{archive}: '{entry.filename}' is encrypted. Expected an archive without a password.")
        _check_clashes(archive, [(entry.filename, entry.is_dir()) for entry in entries])
        _check_total(archive, folder, (entry.file_size for entry in entries))
        file.extractall(folder)  # reads no more than the checked sizes, and verifies checksums


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:

        def sizes() -> Iterable[int]:
            for entry in file:  # contents are only read on the way to the next entry
                _check_entry(archive, entry.name, plain=entry.isreg() or entry.isdir())
                yield entry.size

        _check_total(archive, folder, sizes())
        _check_clashes(archive, [(entry.name, entry.isdir()) for entry in file.getmembers()])
        for entry in file.getmembers():
            path = folder / entry.name
            if entry.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            packed = file.extractfile(entry)
            assert packed is not None  # other types were rejected above
            with packed, path.open("wb") as copy:  # without owner and permissions
                shutil.copyfileobj(packed, copy)


def _gunzip(archive: Path, target: Path) -> None:
    allowed = _allowed(archive)
    with gzip.open(archive) as packed, target.open("wb") as file:
        while chunk := packed.read(1 << 20):
            allowed -= len(chunk)
            if allowed < 0:
                raise _bomb(archive)
            file.write(chunk)


def _check_entry(archive: Path, name: str, plain: bool) -> None:
    paths = PurePosixPath(name), PureWindowsPath(name)
    if any(path.is_absolute() or path.drive or path.root or ".." in path.parts for path in paths):
        raise DataError(f"{archive}: '{name}' would be unpacked outside its folder. Do not trust this archive.")
    if not plain:
        raise DataError(f"{archive}: '{name}' is a link or a device. Expected files and folders only.")


def _check_clashes(archive: Path, entries: Iterable[tuple[str, bool]]) -> None:
    """Raises DataError for entries of which one would replace another.

    `entries`: names, each with whether it is a folder.
    """
    files: Counter[PurePosixPath] = Counter()
    folders: set[PurePosixPath] = set()
    for name, is_folder in entries:
        path = PurePosixPath(name)
        folders.update((path, *path.parents) if is_folder else path.parents)
        files.update(() if is_folder else (path,))
    if clashes := [path for path, count in files.items() if count > 1 or path in folders]:
        raise DataError(
            f"{archive}: several entries for one path: {listed(clashes)}. Unpack it by hand, keep the right ones, and "
            "name that folder (source: directory, directory: …)."
        )


def _check_total(archive: Path, folder: Path, sizes: Iterable[int]) -> None:
    allowed, total = _allowed(archive), 0
    for size in sizes:
        total += size
        if total > allowed:
            raise _bomb(archive)
    if total > (free := shutil.disk_usage(folder).free):
        raise DataError(
            f"{archive}: needs {total / 1e6:.0f} MB unpacked, and {free / 1e6:.0f} MB are free. "
            "Free space and run again."
        )


def _allowed(archive: Path) -> int:
    return max(LARGEST, RATIO * archive.stat().st_size)


def _bomb(archive: Path) -> DataError:
    return DataError(
        f"{archive}: would unpack to more than {_allowed(archive) / 1e9:.1f} GB, {RATIO} times its size. "
        "No dataset does; do not trust this archive."
    )
