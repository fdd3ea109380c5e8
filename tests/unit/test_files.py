"""Files and folders appear whole or not at all, and a content hash says when they changed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from classroom.errors import ClassroomError
from classroom.files import (
    content_hash,
    folder_written_whole,
    not_writable,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
    written_whole,
)


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- files ---


def test_files_appear_with_their_content_in_folders_made_for_them(tmp_path):
    with written_whole(tmp_path / "a" / "one.txt", tmp_path / "b" / "two.txt") as (one, two):
        one.write_text("1")
        two.write_text("2")
        assert not (tmp_path / "a" / "one.txt").exists()  # nobody sees a half-written file
    assert (tmp_path / "a" / "one.txt").read_text() == "1"
    assert (tmp_path / "b" / "two.txt").read_text() == "2"
    assert everything_in(tmp_path) == ["a", "a/one.txt", "b", "b/two.txt"]


def test_a_file_is_replaced_and_not_written_over(tmp_path):
    """A job that is reading the old one reads it to its end, and a link in DVC's cache keeps it."""
    (tmp_path / "a.json").write_text("old")
    with (tmp_path / "a.json").open() as reading:
        write_text(tmp_path / "a.json", "new")
        assert reading.read() == "old"
    assert (tmp_path / "a.json").read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, failure):
    target = tmp_path / "weights.bin"
    target.write_text("old")

    def interrupted() -> None:
        with written_whole(target, tmp_path / "new.bin") as (first, second):
            first.write_text("half")
            second.write_text("whole")
            raise failure("stop")

    with pytest.raises(failure, match="stop"):
        interrupted()
    assert target.read_text() == "old"
    assert everything_in(tmp_path) == ["weights.bin"]


def test_a_full_disk_is_an_error_that_the_user_can_mend_and_leaves_nothing(tmp_path):
    def on_a_full_disk() -> None:
        with written_whole(tmp_path / "table.md") as (temporary,):
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ClassroomError, match=r"No space left on device.*Nothing was changed"):
        on_a_full_disk()
    assert everything_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named_and_the_other_targets_are_left_clean(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    targets = tmp_path / "first.txt", tmp_path / "blocked" / "second.txt"
    with pytest.raises(ClassroomError, match=r"blocked: cannot be written"), written_whole(*targets):
        pytest.fail("the block must not run when a target cannot be written")
    assert everything_in(tmp_path) == ["blocked"]


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077], ids=oct)
def test_files_and_folders_have_the_permissions_that_the_umask_leaves(tmp_path, mask):
    """Neither those of temporary files, which colleagues could not read, nor more than a careful user allows."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "text")
        with folder_written_whole(tmp_path / "above" / "folder") as folder:
            (folder / "in it").touch()
    finally:
        assert os.umask(before) == mask
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    of_folder, of_file = 0o777 & ~mask, 0o666 & ~mask
    assert modes == {"file": of_file, "above": of_folder, "above/folder": of_folder, "above/folder/in it": of_file}


def test_json_keeps_greek_letters_and_ends_with_a_newline(tmp_path):
    write_json(tmp_path / "a.json", {"α": [1, 2.5, None]})
    assert (tmp_path / "a.json").read_text() == '{\n "α": [\n  1,\n  2.5,\n  null\n ]\n}\n'


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert everything_in(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "{}"


# --- folders ---


def test_a_folder_replaces_the_old_one_completely(tmp_path):
    target = tmp_path / "raw" / "lgg"
    target.mkdir(parents=True)
    (target / "left over").touch()
    with folder_written_whole(target) as folder:
        (folder / "case").mkdir()
        (folder / "case" / "slice.tif").write_text("pixels")
        assert (target / "left over").exists()  # until the new one is whole
    assert everything_in(tmp_path) == ["raw", "raw/lgg", "raw/lgg/case", "raw/lgg/case/slice.tif"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_an_interrupted_folder_keeps_the_old_one_and_leaves_nothing_else(tmp_path, failure):
    target = tmp_path / "lgg"
    target.mkdir()
    (target / "old.tif").write_text("old")

    def interrupted() -> None:
        with folder_written_whole(target) as folder:
            (folder / "new.tif").write_text("new")
            raise failure("stop")

    with pytest.raises(failure, match="stop"):
        interrupted()
    assert everything_in(tmp_path) == ["lgg", "lgg/old.tif"]
    assert (target / "old.tif").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file where a folder is needed")
    target = tmp_path / "data" / "raw"
    with pytest.raises(ClassroomError, match=r"data/raw: cannot be written"), folder_written_whole(target):
        pytest.fail("the block must not run when the folder cannot be made")


def test_a_file_where_the_folder_belongs_is_named_and_kept(tmp_path):
    (tmp_path / "lgg").write_text("precious")
    target = tmp_path / "lgg"
    with (
        pytest.raises(ClassroomError, match=r"lgg: is a file, expected a folder"),
        folder_written_whole(target),
    ):
        pytest.fail("the block must not run when the folder cannot be made")
    assert target.read_text() == "precious"


def test_a_disk_that_fills_up_under_a_folder_is_an_error_that_the_user_can_mend(tmp_path):
    def on_a_full_disk() -> None:
        with folder_written_whole(tmp_path / "lgg") as folder:
            (folder / "new.tif").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ClassroomError, match=r"lgg: cannot be written \(No space left on device\)"):
        on_a_full_disk()
    assert everything_in(tmp_path) == []


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    target = tmp_path / "lgg"
    target.mkdir()
    (target / "old.tif").write_text("old")
    replace = Path.replace

    def failing(self: Path, to: Path) -> Path:
        if to == target and not self.name.endswith(".before.tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", failing)
    with (
        pytest.raises(ClassroomError, match=r"lgg: cannot be written \(Input/output error\)"),
        folder_written_whole(target) as folder,
    ):
        (folder / "new.tif").write_text("new")
    assert everything_in(tmp_path) == ["lgg", "lgg/old.tif"]


def test_what_a_killed_process_left_of_a_target_is_removed_and_nothing_else(tmp_path):
    for name in (".a.json.0123abcd.tmp", ".lgg.01234567.tmp/b", ".lgg.01234567.before.tmp/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    others = ["a.json", ".b.json.0123abcd.tmp", "lgg.tmp", ".a.json.swp"]
    for name in others:
        (tmp_path / name).touch()
    for name in ("a.json", "lgg"):
        remove_leftovers(tmp_path / name)
    assert everything_in(tmp_path) == sorted(others)


# --- content hashes ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    (made / "seed-0").mkdir(parents=True)
    (made / "metrics.json").write_text("{}")
    (made / "seed-0" / "weights.bin").write_bytes(b"\x00\x01")
    return made


def test_the_hash_of_a_file_is_its_md5(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert content_hash(tmp_path / "a") == "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321


def test_the_hash_of_a_folder_is_the_md5_of_its_listing(folder):
    """As DVC lists a folder, so that a manifest and dvc.lock can be compared."""
    md5 = [hashlib.md5(content).hexdigest() for content in (b"{}", b"\x00\x01")]
    listing = (
        f'[{{"md5": "{md5[0]}", "relpath": "metrics.json"}}, {{"md5": "{md5[1]}", "relpath": "seed-0/weights.bin"}}]'
    )
    assert content_hash(folder) == hashlib.md5(listing.encode()).hexdigest() + ".dir"


def test_a_copy_elsewhere_has_the_same_hash(folder, tmp_path):
    """Manifests compare hashes between machines, so neither the place nor the times may count."""
    copy = tmp_path / "elsewhere" / "other name"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    os.utime(copy / "metrics.json", (0, 0))
    assert content_hash(copy) == content_hash(folder)


def test_marks_that_snakemake_leaves_in_a_folder_do_not_count(folder):
    """Snakemake drops .snakemake_timestamp into folder outputs; if it counted, DVC would see every run as changed."""
    before = content_hash(folder)
    (folder / ".snakemake_timestamp").touch()
    (folder / "seed-0" / ".snakemake_timestamp").write_text("now")
    assert content_hash(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "metrics.json").write_text("{ }"),
        lambda folder: (folder / "metrics.json").rename(folder / "metrics2.json"),
        lambda folder: (folder / "metrics.json").rename(folder / "seed-0" / "metrics.json"),
        lambda folder: (folder / "metrics.json").unlink(),
        lambda folder: (folder / "empty").touch(),
        lambda folder: (folder / "seed-0" / ".hidden").touch(),
    ],
    ids=["content", "name", "place", "removed", "added", "added hidden"],
)
def test_any_change_of_a_name_or_a_content_changes_the_hash(folder, change):
    before = content_hash(folder)
    change(folder)
    assert content_hash(folder) != before


def test_files_that_swap_their_contents_change_the_hash(tmp_path):
    for name, content in (("a", "1"), ("b", "2")):
        write_text(tmp_path / "first" / name, content)
    for name, content in (("a", "2"), ("b", "1")):
        write_text(tmp_path / "second" / name, content)
    assert content_hash(tmp_path / "first") != content_hash(tmp_path / "second")


def test_folders_that_cannot_be_written_are_found_before_anything_is(tmp_path, monkeypatch):
    """Of folders that are still to be made, what counts is the nearest one above."""
    (tmp_path / "locked/inner").mkdir(parents=True)
    (tmp_path / "file").write_text("in the way")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    places = ("locked/new/run/x", "locked/y", "locked/inner/z", "file/run/x", "new/run/x")
    assert not_writable(tmp_path / place for place in places) == [tmp_path / "file", tmp_path / "locked"]


@pytest.mark.parametrize(
    ("number", "advised"),
    [(errno.ENOSPC, "Free space"), (errno.EACCES, "chmod"), (errno.EROFS, "read-only"), (errno.EEXIST, "in the way"),
     (errno.EIO, "Fix that")],
)  # fmt: skip
def test_the_advice_fits_what_happened(tmp_path, number, advised):
    """A full disk was blamed for a missing permission, and for a name that is too long."""
    with pytest.raises(ClassroomError, match=rf"cannot be written \(.*\)\..*{advised}"), written_whole(tmp_path / "a"):
        raise OSError(number, os.strerror(number))


def test_what_cannot_be_read_is_said_once_and_without_the_system_s_number(tmp_path):
    with pytest.raises(ClassroomError) as missing:
        read_json(tmp_path / "a.json", (), "Make it.")
    assert str(missing.value) == f"{tmp_path}/a.json: cannot be read (no such file). Make it."
    (tmp_path / "a.json").mkdir()
    with pytest.raises(ClassroomError, match=r"a\.json: cannot be read \(Is a directory: .*\)\. Make it\.$"):
        read_json(tmp_path / "a.json", (), "Make it.")


def test_a_name_that_is_too_long_is_called_so(tmp_path):
    for write in (write_text, lambda path, _: folder_written_whole(path).__enter__()):
        with pytest.raises(ClassroomError, match=r"cannot be written \(File name too long\)\. Choose a shorter name\."):
            write(tmp_path / ("n" * 245), "")
    assert everything_in(tmp_path) == []
