"""Files that appear whole or not at all; their hashes and times."""

from __future__ import annotations

import errno
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from classroom.artifacts import Metrics
from classroom.errors import ClassroomError, DataError, reading

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Error numbers of a full disk, an exceeded quota, and a file at its maximum size."""


def advice(error: OSError) -> str:
    """What a user can do about a file that cannot be read or written, as a sentence."""
    if error.errno in DISK_FULL:
        return "Free space and run again."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Give yourself access, for instance by `chmod u+rwX`, and run again."
    if error.errno == errno.EROFS:
        return "Its file system is mounted read-only: mount it for writing, or work elsewhere."
    if error.errno == errno.ENAMETOOLONG:
        return "Choose a shorter name."
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return "Move what is in the way and run again."
    return "Fix that and run again."


@contextmanager
def writing(place: Path, so_far: str = "") -> Iterator[None]:
    """Raises ClassroomError if `place` cannot be written: why, what has happened `so_far`, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise ClassroomError(f"{place}: cannot be written ({error.strerror}). {so_far}{advice(error)}") from error


@contextmanager
def written_whole(*targets: Path) -> Iterator[list[Path]]:
    """Yields a temporary path per target; on success all are renamed to their targets, on error none is.

    Each temporary file is next to its target, so that the rename stays on one file system, and is flushed to disk
    before it. Raises ClassroomError if a target's folder cannot be written.
    """
    temporary: list[Path] = []
    try:
        for target in targets:
            with writing(target.parent):
                target.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
                os.close(handle)
                temporary.append(Path(name))
        with writing(Path(*targets[:1]).parent, "Nothing was changed. "):  # there may be none
            yield temporary
            for path in temporary:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            for path, target in zip(temporary, targets, strict=True):
                path.chmod(0o666 & ~_umask())
                path.replace(target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(target: Path) -> Iterator[Path]:
    """Like `written_whole` for a folder; an existing `target` is replaced only on success."""
    if target.exists() and not target.is_dir():
        raise ClassroomError(f"{target}: is a file, expected a folder. Move it away and run again.")
    with writing(target), ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        before = temporary.with_suffix(".before.tmp")
        if target.exists():
            target.replace(before)
        try:
            temporary.replace(target)
        except OSError:
            if before.exists():
                before.replace(target)
            raise
        shutil.rmtree(before, ignore_errors=True)


def not_writable(paths: Iterable[Path]) -> list[Path]:
    """What is in the way of writing `paths`: their nearest parents that are there, but are no folders open to us."""
    nearest = {next(parent for parent in path.parents if parent.exists()) for path in paths}
    return sorted(parent for parent in nearest if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)))


def remove_leftovers(target: Path) -> None:
    """Removes the temporary files of killed processes next to `target`. No process may be writing it now."""
    name = glob.escape(f".{target.name}")
    for path in (*target.parent.glob(f"{name}.????????.tmp"), *target.parent.glob(f"{name}.????????.before.tmp")):
        remove(path)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path, names: Iterable[str], remedy: str) -> dict[str, Any]:
    """Reads the JSON object in `path`, which has all of `names`.

    Raises DataError if it is missing or damaged, or lacks one; its message ends with the `remedy`, a sentence.
    """
    with reading(path, remedy):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise DataError(f"{path}: cannot be read (expected names with values, as in {{…}}). {remedy}")
    if missing := set(names) - content.keys():
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}. {remedy}")
    return content


def read_metrics(run: Path) -> Metrics:
    """The metrics.json in the folder of a run. Raises DataError if it is missing, damaged or incomplete."""
    return cast(Metrics, read_json(run / "metrics.json", Metrics.__required_keys__, "Train this run again."))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    with written_whole(path) as (temporary,):
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Writes `text`, whole or not at all."""
    with written_whole(path) as (temporary,):
        temporary.write_text(text, encoding="utf-8")


def make_room(path: Path) -> None:
    """Makes the folder of `path`, and renames what is at `path` to the first free name `path.~1~`, `path.~2~`, …

    These are names that both engines ignore, see `IGNORED`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        older = (path.with_name(f"{path.name}.~{number}~") for number in itertools.count(1))
        path.rename(next(name for name in older if not name.exists()))


IGNORED = re.compile(r"__pycache__|\.snakemake_timestamp|\..*\.tmp|\.DS_Store|Thumbs\.db|\..*\.swp|.*~")
"""Names in folders that are not content: the same as in .dvcignore."""


def files_in(path: Path) -> list[Path]:
    """The file, or all files in the folder but ignored ones; none if nothing is there."""
    if not path.is_dir():
        return [path] if path.exists() else []
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not IGNORED.fullmatch(name)]
        found += [Path(folder, name) for name in names if not IGNORED.fullmatch(name)]
    return [file for file in found if file.is_file()]


def content_hash(path: Path, hash_of_file: Callable[[Path], str] | None = None) -> str:
    """MD5 of a file, or of the list of relative names and MD5s of all files in a folder: the same as dvc.lock's.

    `hash_of_file` computes the MD5 of each file, by default from its content.
    """
    if path.is_dir():
        hash_of_file = hash_of_file or content_hash
        files = {file.relative_to(path).as_posix(): file for file in files_in(path)}
        listing = [{"md5": hash_of_file(file), "relpath": name} for name, file in sorted(files.items())]
        return hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest() + ".dir"
    if hash_of_file:
        return hash_of_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def mtime_of(path: Path) -> int:
    """In nanoseconds since the epoch, as Snakemake sees an output. It keeps a folder's time in a file inside it.

    Of a symbolic link it is the link's own: what it leads to is in DVC's cache, where other outputs and trees share it.
    """
    stamp = path / ".snakemake_timestamp"
    return (stamp if stamp.exists() else path).lstat().st_mtime_ns


def mtime_as_input(path: Path) -> int:
    """As Snakemake sees an input: of a symbolic link, the newer of its own time and that of what it leads to."""
    return max(mtime_of(path), path.stat().st_mtime_ns) if path.is_symlink() else mtime_of(path)


def set_mtime(path: Path, moment: int) -> None:
    """Sets what `mtime_of` returns. A hard link into DVC's cache is replaced by a copy, as it shares its time."""
    if path.is_file() and path.lstat().st_nlink > 1:
        with written_whole(path) as (own,):
            shutil.copyfile(path, own)
    for target in (path / ".snakemake_timestamp", path):
        if target.exists():
            os.utime(target, ns=(moment, moment), follow_symlinks=False)


def clamp_future_mtimes(paths: Iterable[Path]) -> None:
    """Sets files that are newer than now, as after a clock was set back, to the current time.

    Snakemake would fail every job that reads them, after it has finished, and delete its outputs.
    """
    now = time.time_ns()
    for path in paths:
        if path.exists() and mtime_as_input(path) > now:
            os.utime(path)  # also what a link leads to
            set_mtime(path, now)


def touch(path: Path) -> None:
    """Sets a file, or all files in a folder, to the current time, so that remembered hashes no longer hold."""
    for file in files_in(path):
        os.utime(file)


def _umask() -> int:
    """The permissions that new files and folders do not get; temporary ones are the user's alone at first."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
