"""From the web to data/raw: downloads that break off, archives that attack, PCam, Kaggle, and passwords kept quiet."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import io
import json
import shutil
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import kagglehub
import numpy as np
import pandas as pd
import pytest
import tifffile

from classroom.data import synthetic
from classroom.data.fetching import archives, download, pcam, sources
from classroom.data.readers.histopathologic import CLASSES
from classroom.errors import ClassroomError, DataError
from classroom.params import Dataset, Download, Synthetic

CONTENT = np.random.default_rng(0).bytes(3_000_000)
"""Larger than what a socket holds back, so that a transfer can be cut off in the middle."""


# --- a real server on this machine ---


class Server(ThreadingHTTPServer):
    """Serves `files` by path; the switches below make it misbehave like servers on the web do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"first"'
        self.ranges = True
        self.honours_if_range = True
        self.cut_at: list[int] = []
        """The next answers end after so many bytes of their body."""
        self.statuses: list[int] = []
        """The next answers are these errors."""
        self.asked: list[dict[str, str]] = []
        """The headers of every request."""
        self.served: list[int] = []
        """Bytes of every body."""
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(dict(self.headers))
        body = server.files.get(self.path.split("?")[0])
        status = server.statuses.pop(0) if server.statuses else 200 if body is not None else 404
        if status != 200:
            server.served.append(0)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, same = 0, self.headers.get("If-Range") in (None, server.etag) or not server.honours_if_range
        wanted = self.headers.get("Range")
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                server.served.append(0)
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        rest = body[start:]
        length = len(rest)
        if server.cut_at:
            rest = rest[: server.cut_at.pop(0)]
            self.close_connection = True
        server.served.append(len(rest))
        self.send_header("Content-Length", str(length))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.files["/set.bin"] = CONTENT
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def interrupted(server: Server, folder: Path, at: int = 1_000_000, path: str = "/set.bin") -> None:
    """What a download leaves that was cut off once and then found the server down."""
    server.cut_at = [at]
    server.statuses = [200, *[503] * download.ATTEMPTS]
    content = server.files[path]
    with pytest.raises(DataError, match=r"could not be fetched in 5 attempts \(the server answers 503 .*is kept"):
        download.download(server.url + path, md5(content), folder)
    assert (folder / f"{path[1:]}.part").read_bytes() == content[:at]
    assert not (folder / path[1:]).exists()
    server.served.clear()
    server.asked.clear()
    server.statuses.clear()


# --- whole downloads ---


@pytest.mark.parametrize("checksum", [md5(CONTENT), sha256(CONTENT), md5(CONTENT).upper().replace("MD5", "md5")])
def test_a_download_arrives_whole_and_is_not_fetched_twice(server, tmp_path, checksum):
    """Gigabytes that lie on the disk must not be downloaded again because a later step failed."""
    path = download.download(f"{server.url}/set.bin?download=1", checksum, tmp_path / "downloads")
    assert path == tmp_path / "downloads" / "set.bin"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["set.bin"]
    download.download(f"{server.url}/set.bin?download=1", checksum, tmp_path / "downloads")
    assert server.served == [len(CONTENT)]


def test_a_file_that_was_damaged_on_the_disk_is_fetched_again(server, tmp_path):
    (tmp_path / "set.bin").write_bytes(CONTENT[:-1])
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_names_the_url_and_removes_the_file(server, tmp_path):
    differs = rf"MD5 hash differs: expected {md5(b'')} but got \w+\."
    message = rf"^{server.url}/set\.bin: {differs} .*Run again, or, .* correct checksum"
    with pytest.raises(DataError, match=message) as caught:
        download.download(f"{server.url}/set.bin", md5(b""), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "said"), [(404, "404"), (403, "403 .*an account"), (410, "410 .*has expired")])
def test_a_file_that_is_not_there_is_named_at_once(server, tmp_path, status, said):
    server.statuses = [status]
    with pytest.raises(DataError, match=rf"^{server.url}/set\.bin: the server answers {said}"):
        download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path)
    assert len(server.asked) == 1  # trying again would not help


def test_only_http_is_spoken(tmp_path):
    for url in ("ftp://host/set.bin", "set.bin", "file:///etc/passwd", "http:///set.bin"):
        with pytest.raises(DataError, match="expected a URL that begins with http"):
            download.download(url, md5(b""), tmp_path)


def test_an_impossible_url_is_named(tmp_path):
    for url in ("http://[::1/set.bin", "http://host:port/set.bin", f"http://{'a' * 70}.org/set.bin"):
        with pytest.raises(DataError, match="is not a valid URL"):
            download.download(url, md5(b""), tmp_path)


def test_a_server_that_is_down_is_given_up_after_some_attempts(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.bin"
        lines = []
        with pytest.raises(DataError, match=rf"^{url}: could not be fetched in 5 attempts .*Check the network"):
            download.download(url, md5(CONTENT), tmp_path, lines.append)
    assert len(lines) == download.ATTEMPTS - 1


def test_the_folder_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: cannot be written"):
        download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path / "file")


def test_a_log_says_how_far_a_download_is(server, tmp_path, monkeypatch):
    """In a pipeline's log there is no bar; hours without a line would look like a hang."""
    monkeypatch.setattr(download, "LOG_EVERY", 0.0)
    lines = []
    download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path, lines.append)
    assert lines[-1] == f"{server.url}/set.bin: 3 of 3 MB"


# --- interrupted downloads ---


def test_an_interrupted_download_goes_on_where_it_was(server, tmp_path):
    interrupted(server, tmp_path)
    path = download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.served == [len(CONTENT) - 1_000_000]
    assert [file.name for file in tmp_path.iterdir()] == ["set.bin"]


def test_a_download_that_breaks_off_again_and_again_arrives_in_one_call(server, tmp_path):
    """Every new byte is progress: only attempts without any count towards giving up."""
    server.cut_at = [200_000] * (2 * download.ATTEMPTS)
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT
    assert sum(server.served) == len(CONTENT)


def test_a_server_with_a_hiccup_is_asked_again(server, tmp_path):
    server.statuses = [429, 500, 503]
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_asked_for_everything(server, tmp_path):
    interrupted(server, tmp_path)
    server.ranges = False
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT
    assert server.served == [len(CONTENT)]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    interrupted(server, tmp_path)
    (tmp_path / "set.bin.part").write_bytes(CONTENT + b"more")
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT
    assert server.served == [0, len(CONTENT)]  # 416, then all of it


@pytest.mark.parametrize("careless", [False, True], ids=["server compares", "server answers with the rest anyway"])
def test_two_versions_of_a_file_are_not_glued_together(server, tmp_path, careless):
    changed = np.random.default_rng(1).bytes(len(CONTENT))
    (tmp_path / "old").mkdir()
    interrupted(server, tmp_path / "old")
    about = json.loads((tmp_path / "old" / "set.bin.part.json").read_text())
    (tmp_path / "old" / "set.bin.part.json").write_text(json.dumps(about | {"checksum": md5(changed)}))
    server.files["/set.bin"], server.etag, server.honours_if_range = changed, '"second"', not careless
    lines = []
    path = download.download(f"{server.url}/set.bin", md5(changed), tmp_path / "old", lines.append)
    assert path.read_bytes() == changed
    assert server.asked[0]["If-Range"] == '"first"'
    assert not any("another checksum" in line for line in lines)  # noticed before the download, not after


def test_without_an_etag_a_changed_file_is_noticed_by_its_checksum_and_fetched_again(server, tmp_path):
    changed = np.random.default_rng(1).bytes(len(CONTENT))
    server.etag = None
    interrupted(server, tmp_path)
    about = json.loads((tmp_path / "set.bin.part.json").read_text())
    (tmp_path / "set.bin.part.json").write_text(json.dumps(about | {"checksum": md5(changed)}))
    server.files["/set.bin"] = changed
    lines = []
    assert download.download(f"{server.url}/set.bin", md5(changed), tmp_path, lines.append).read_bytes() == changed
    assert server.served == [len(CONTENT) - 1_000_000, len(CONTENT)]
    assert any("another checksum; starting again" in line for line in lines)


def test_the_part_of_another_file_of_the_same_name_is_not_used(server, tmp_path):
    interrupted(server, tmp_path)
    other = server.files["/set.bin"] = CONTENT[::-1]
    assert download.download(f"{server.url}/set.bin", md5(other), tmp_path).read_bytes() == other
    assert "Range" not in server.asked[0]


class Full:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file: io.BufferedWriter, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, chunk: bytes) -> None:
        self.file.write(chunk[: self.room])
        self.room -= len(chunk)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_is_said_and_the_part_is_kept(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        really_open = Path.open

        def opened(path: Path, mode: str = "r", *rest: object, **more: object):
            file = really_open(path, mode, *rest, **more)
            return Full(file, 1_500_000) if mode == "ab" else file

        patch.setattr(Path, "open", opened)
        with pytest.raises(DataError, match=r": the disk is full; \d MB more are needed\. Free space and run again"):
            download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path)
    assert (tmp_path / "set.bin.part").stat().st_size == 1_500_000
    assert download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path).read_bytes() == CONTENT
    assert server.served[-1] == len(CONTENT) - 1_500_000


def test_a_disk_that_is_too_small_is_said_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))
    with pytest.raises(DataError, match="the disk is full; 3 MB more are needed"):
        download.download(f"{server.url}/set.bin", md5(CONTENT), tmp_path)
    assert not (tmp_path / "set.bin.part").exists()


# --- passwords ---

SECRETS = ("hunter2", "s3cr3t", "AKIAEXAMPLE", "c0ffee")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://anna:hunter2@host/file.zip", "https://***@host/file.zip"),
        ("https://hunter2@host/", "https://***@host/"),
        ("https://anna:hun/ter2@host/file", "https://***@host/file"),
        ("https://host/f?download=1&token=s3cr3t", "https://host/f?download=1&token=***"),
        ("https://host/f?access_token=s3cr3t&page=2", "https://host/f?access_token=***&page=2"),
        ("https://host/f?X-Amz-Signature=c0ffee&X-Amz-Date=1", "https://host/f?X-Amz-Signature=***&X-Amz-Date=***"),
        ("with url: /f?apikey=s3cr3t (Caused by x)", "with url: /f?apikey=*** (Caused by x)"),
        ("{'Authorization': 'Basic c0ffee=='}", "{'Authorization': 'Basic ***'}"),
        ("authorization: s3cr3t", "authorization: ***"),
        ("https://host/keys/token.zip?download=1", "https://host/keys/token.zip?download=1"),
        ("https://host:8080/file", "https://host:8080/file"),
    ],
)
def test_secrets_are_blotted_out_and_nothing_else(text, shown):
    assert download.redact(text) == shown


def test_kaggles_credentials_are_blotted_out(monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "annakarenina")
    monkeypatch.setenv("KAGGLE_KEY", "s3cr3t/key")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_c0ffee")
    basic = base64.b64encode(b"annakarenina:s3cr3t/key").decode()
    text = f"user annakarenina, key s3cr3t/key or s3cr3t%2Fkey, KGAT_c0ffee, header {basic}"
    assert download.redact(text) == "user ***, key *** or ***, ***, header ***"


def web(server: Server, path: str, content: bytes, checksum: str | None = None) -> Download:
    server.files[path] = content
    return Download(url=server.url + path, checksum=checksum or md5(content))


def dataset(reader: str, source: str, **settings: object) -> Dataset:
    return Dataset(reader=reader, source=source, full_size=1, **settings)


@pytest.mark.parametrize(
    "misfortune", ["wrong checksum", "not found", "down", "cut off", "not a host", "disk full", "fine"]
)
def test_a_password_in_a_url_is_never_printed(server, tmp_path, monkeypatch, capfd, misfortune):
    """Logs are pasted into issues and sent to clusters; requests and urllib3 put URLs into theirs."""
    url = f"http://anna:hunter2@127.0.0.1:{server.server_port}/set.bin?token=s3cr3t&X-Amz-Credential=AKIAEXAMPLE"
    checksum = md5(b"" if misfortune == "wrong checksum" else CONTENT)
    if misfortune == "not found":
        server.files.clear()
    elif misfortune == "down":
        url = url.replace(str(server.server_port), "9")
    elif misfortune == "cut off":
        server.cut_at = [10, 10, 10]
    elif misfortune == "not a host":
        url = url.replace("127.0.0.1:", "127.0.0.1:port")
    elif misfortune == "disk full":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    settings = dataset("lgg", "download", download=(Download(url=url, checksum=checksum),))
    with pytest.raises(DataError) as caught:
        sources.fetch("lgg", settings, tmp_path / "raw", tmp_path / "downloads")
    assert re_raised(caught.value) == [str(caught.value)]
    captured = capfd.readouterr()
    left = [path.read_text(errors="replace") for path in tmp_path.rglob("*.json")]
    for text in (str(caught.value), captured.out, captured.err, *map(str, tmp_path.rglob("*")), *left):
        assert not any(secret in text for secret in SECRETS), text


def re_raised(error: BaseException) -> list[str]:
    """The messages that a traceback would show."""
    shown = [str(error)]
    while (error := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        shown.append(str(error))
    return shown


# --- archives ---


def zipped(entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            file.writestr(entry, content)
    return packed.getvalue()


def tarred(entries: dict[str, bytes], mode: str = "w:gz", change: Callable = lambda _: None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as file:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            change(entry)
            file.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def as_link(entry: zipfile.ZipInfo | tarfile.TarInfo) -> None:
    if isinstance(entry, zipfile.ZipInfo):
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    else:
        entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0


def as_device(entry: tarfile.TarInfo) -> None:
    entry.type, entry.size = tarfile.CHRTYPE, 0


def as_hard_link(entry: tarfile.TarInfo) -> None:
    entry.type, entry.linkname, entry.size = tarfile.LNKTYPE, "../../secret", 0


GOOD = {"set/a.txt": b"a", "set/deep/b.txt": b"b" * 1000}
ENCRYPTED = bytearray(zipped({"a.txt": b"abc"}))
ENCRYPTED[6] |= 1  # the flag in the entry's own header, and in the directory
ENCRYPTED[ENCRYPTED.index(b"PK\x01\x02") + 8] |= 1
BAD_ARCHIVES = {
    # name: (file name, content, what is said)
    "zip that climbs out": (
        "a.zip",
        zipped(GOOD | {"../evil.txt": b"x"}),
        r"'\.\./evil\.txt' would be unpacked outside",
    ),
    "zip that climbs out on Windows": (
        "a.zip",
        zipped(GOOD | {"..\\evil.txt": b"x"}),
        r"'\.\.\\evil\.txt' would be unpacked outside",
    ),
    "zip with an absolute path": ("a.zip", zipped(GOOD | {"/tmp/evil.txt": b"x"}), "'/tmp/evil.txt' would be unpacked"),
    "zip with a drive": ("a.zip", zipped(GOOD | {"C:\\evil.txt": b"x"}), r"'C:\\evil\.txt' would be unpacked outside"),
    "zip with a link": ("a.zip", zipped({"link": b"/etc/passwd"}, as_link), "'link' is a link or a device"),
    "zip with a password": ("a.zip", bytes(ENCRYPTED), r"'a\.txt' is encrypted\. Expected an archive without"),
    "zip cut off": ("a.zip", zipped(GOOD)[:-30], r"cannot be unpacked .*If another program unpacks it, .*remove it"),
    "zip with damaged contents": (
        "a.zip",
        (packed := zipped({"a.txt": CONTENT[:999]}))[:200] + b"damage" + packed[206:],
        "cannot be unpacked",
    ),
    "tar that climbs out": (
        "a.tar",
        tarred(GOOD | {"x/../../evil": b"x"}, "w:"),
        r"'x/\.\./\.\./evil' would be unpacked",
    ),
    "tar.gz with a link": ("a.tgz", tarred({"link": b""}, change=as_link), "'link' is a link or a device"),
    "tar.gz with a hard link": ("a.tgz", tarred({"link": b""}, change=as_hard_link), "'link' is a link or a device"),
    "tar.gz with a device": ("a.tgz", tarred({"null": b""}, change=as_device), "'null' is a link or a device"),
    "tar.gz cut off": ("a.tar.gz", tarred({"a": CONTENT})[:-5000], "cannot be unpacked"),
    "gz cut off": ("a.h5.gz", gzip.compress(CONTENT)[:-5000], "cannot be unpacked"),
    "zip in a compression that we do not know": (
        "a.zip",
        zipped(GOOD).replace(b"\x08\0", b"\x09\0"),
        r"cannot be unpacked \(.*compression.*\)\. If another program unpacks it, name the folder",
    ),
    "zip with two entries for one path": (
        "a.zip",
        zipped({"set/a.txt": b"one", "set/./a.txt": b"two", "b": b"", "b/c": b"", "fine": b""}),
        r"several entries for one path: set/a\.txt, b\. Unpack it by hand",
    ),
    "tar with a file where a folder is": (
        "a.tar.gz",
        tarred({"a": b"file", "a/b.txt": b"b"}),
        r"several entries for one path: a\. Unpack it by hand",
    ),
    "gz that is none": ("a.h5.gz", CONTENT, "cannot be unpacked"),  # an OSError of gzip's, not of the disk
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_is_refused_by_name_and_leaves_nothing(tmp_path, case):
    """An archive from the web must not be able to write anywhere but into its own folder, or fill the disk."""
    name, content, said = BAD_ARCHIVES[case]
    archive = tmp_path / "in" / name
    archive.parent.mkdir()
    archive.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{archive}: {said}") as caught:
        archives.unpack(archive, tmp_path / "in" / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", name]


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "gz"])
def test_an_archive_that_swells_absurdly_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(archives, "LARGEST", 1_000_000)
    zeros = {"a.bin": bytes(2_000_000)}
    content = {"zip": zipped(zeros), "tar.gz": tarred(zeros), "gz": gzip.compress(zeros["a.bin"])}[ending]
    archive = tmp_path / f"bomb.{ending}"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=rf"bomb\.{ending}: would unpack to more than .*200 times its size"):
        archives.unpack(archive, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [archive]


def test_a_real_bomb_of_forty_two_gigabytes_is_refused_in_a_moment(tmp_path):
    """The archive's own word about its size is taken: it is not unpacked to find out."""
    packed = bytearray(zipped({"a.bin": bytes(1000)}))
    at = packed.index(b"PK\x01\x02") + 24
    packed[at : at + 4] = (4_200_000_000).to_bytes(4, "little")
    (tmp_path / "bomb.zip").write_bytes(packed)
    with pytest.raises(DataError, match=r"would unpack to more than 1\.1 GB"):
        archives.unpack(tmp_path / "bomb.zip", tmp_path / "out")


def test_a_large_archive_of_plausible_size_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1000)
    (tmp_path / "a.zip").write_bytes(zipped({"a.bin": CONTENT}))
    archives.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "A.TGZ"])
def test_an_archive_is_unpacked_unchanged(tmp_path, name):
    packed = {"a.zip": zipped(GOOD), "a.tar": tarred(GOOD, "w:")}.get(name, tarred(GOOD))
    (tmp_path / name).write_bytes(packed)
    archives.unpack(tmp_path / name, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.txt")}
    assert found == GOOD


def test_an_archive_that_does_not_fit_on_the_disk_says_what_it_takes(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped({"a.bin": CONTENT}))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 2_000_000))
    with pytest.raises(DataError, match="needs 3 MB unpacked, and 2 MB are free"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing_half(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(tarred(GOOD, "w:"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ClassroomError, match=r"No space left on device.*Free space"):
        archives.unpack(tmp_path / "a.tar", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


# --- the source `download` ---


def synthetic_archive(folder: Path, reader: str, groups: int = 4, images: int = 2) -> bytes:
    settings = Synthetic(groups=groups, images_per_group=images, size=32, seed=0)
    synthetic.GENERATORS[reader](folder, settings)
    return zipped({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})


def test_a_dataset_is_downloaded_unpacked_and_found(server, tmp_path):
    file = web(server, "/lgg.zip", synthetic_archive(tmp_path / "made", "lgg"))
    settings = dataset("lgg", "download", download=(file,))
    assert sources.fetch("lgg", settings, tmp_path / "raw", tmp_path / "downloads") == 8
    assert len(list((tmp_path / "raw" / "kaggle_3m").rglob("*.tif"))) == 16
    about = json.loads((tmp_path / "raw" / "about.json").read_text())
    assert (about["source"], about["synthetic"]) == ("download", False)
    sources.fetch("lgg", settings, tmp_path / "raw", tmp_path / "downloads")
    assert len(server.served) == 1


def test_images_and_masks_may_come_in_different_archives(server, tmp_path):
    """HAM10000's masks are a download of their own."""
    made = tmp_path / "made"
    synthetic_archive(made, "ham10000")
    images = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*.*") if path.suffix != ".png"}
    masks = {path.name: path.read_bytes() for path in made.rglob("*.png")}
    files = web(server, "/data.zip", zipped(images)), web(server, "/more/data.zip", zipped(masks))
    settings = dataset("ham10000", "download", download=files)
    count = sources.fetch("ham10000", settings, tmp_path / "raw", tmp_path / "downloads")
    table = pd.read_csv(tmp_path / "raw" / "samples.csv")
    assert count == len(masks) == table["mask"].notna().sum()


@pytest.mark.parametrize(("path", "said"), [("/gone.zip", "the server answers 404"), ("/lgg.zip", "MD5 hash differs")])
def test_a_failed_download_names_the_setting(server, tmp_path, path, said):
    good = web(server, "/lgg.zip", synthetic_archive(tmp_path / "made", "lgg"))
    files = (good, Download(url=server.url + path, checksum=md5(b"")))
    message = rf"^datasets/lgg\.yaml: download\[1\]: {server.url}{path}: {said}"
    with pytest.raises(DataError, match=message):
        sources.fetch("lgg", dataset("lgg", "download", download=files), tmp_path / "raw", tmp_path / "downloads")
    assert not (tmp_path / "raw").exists()


# --- PCam ---


class Patches:
    """What Zenodo has of PCam, in small: 40 patches, of which two are the same and two blank, from 4 slides."""

    def __init__(self, folder: Path, split: str = "train", seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.x = random.integers(0, 256, (40, 96, 96, 3), dtype=np.uint8)
        self.y = np.arange(40) % 2
        self.x[5] = self.x[1]
        self.x[8] = self.x[2] = 255
        self.slides = [f"camelyon16_{split}_{row // 10}" for row in range(40)]
        self.stem = f"camelyonpatch_level_2_split_{split}"
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def files(self, meta: bool = True, **changes: np.ndarray) -> list[Path]:
        """The three files as they are after unpacking."""
        paths = [self.folder / f"{self.stem}_{key}.h5" for key in "xy"]
        arrays = {"x": self.x, "y": self.y.reshape(-1, 1, 1, 1).astype(np.uint8)} | changes
        for key, path in zip("xy", paths, strict=True):
            with h5py.File(path, "w") as file:
                file.create_dataset(key, data=arrays[key], chunks=(1, *arrays[key].shape[1:]))
        if meta:
            paths.append(self.folder / f"{self.stem}_meta.csv")
            rows = pd.DataFrame({"coord_y": 1, "coord_x": 2, "tumor_patch": False, "wsi": self.slides})
            rows.to_csv(paths[-1])
        return paths

    def ids(self, rows: range) -> set[str]:
        return {hashlib.sha1(self.x[row].tobytes()).hexdigest() for row in rows}


def test_pcam_becomes_a_dataset_of_patches_grouped_by_slide(server, tmp_path):
    """From the files on Zenodo to data/raw: without an account, without the doubles, and with slides kept together."""
    patches = Patches(tmp_path / "made")
    x, y, meta = patches.files()
    files = (
        web(server, f"/{x.name}.gz", gzip.compress(x.read_bytes(), 1)),
        web(server, f"/{y.name}.gz", gzip.compress(y.read_bytes())),
        web(server, f"/{meta.name}", meta.read_bytes()),
    )
    settings = dataset("histopathologic", "download", download=files)
    assert sources.fetch("pcam", settings, tmp_path / "raw", tmp_path / "downloads") == 38
    table = pd.read_csv(tmp_path / "raw" / "samples.csv")
    assert set(table.id) == patches.ids(range(40))
    for row in table.itertuples():
        pixels = tifffile.imread(tmp_path / "raw" / row.image)
        at = next(at for at in range(40) if (patches.x[at] == pixels).all())
        assert (row.group, row.label) == (patches.slides[at], ["negative", "positive"][patches.y[at]])
        assert row.id == hashlib.sha1(pixels.tobytes()).hexdigest()
    assert json.loads((tmp_path / "raw" / "about.json").read_text())["group"] == "slide"
    assert not list((tmp_path / "downloads").glob("pcam-*"))  # a copy of all patches


def test_without_the_meta_file_every_patch_is_its_own_group(tmp_path):
    pcam.convert(Patches(tmp_path / "made").files(meta=False), CLASSES, None, 0, "pcam", tmp_path / "out")
    assert not (tmp_path / "out" / "source_index.csv").exists()


def test_a_subset_of_pcam_is_balanced_without_doubles_and_drawn_by_its_seed(tmp_path):
    """38 of 40 patches differ: 19 of either class can be drawn, though the first draw hits the doubles."""
    patches = Patches(tmp_path / "made").files()
    ids = []
    for number, (subset, seed) in enumerate([(38, 0), (20, 0), (20, 0), (20, 1)]):
        pcam.convert(patches, CLASSES, subset, seed, "pcam", tmp_path / str(number))
        table = pd.read_csv(tmp_path / str(number) / "train_labels.csv")
        assert table.label.value_counts().to_dict() == {0: subset // 2, 1: subset // 2}
        assert {path.stem for path in (tmp_path / str(number) / "train").iterdir()} == set(table.id)
        ids.append(set(table.id))
    assert ids[1] == ids[2] != ids[3]
    with pytest.raises(DataError, match=r"^datasets/pcam\.yaml: subset: 40 images .*20 of 'negative', .*are only 19"):
        pcam.convert(patches, CLASSES, 40, 0, "pcam", tmp_path / "too-many")


def test_only_the_patches_of_the_subset_are_read(tmp_path, monkeypatch):
    """The file has 7 GB; of 20 000 patches, less than a tenth need to be read."""
    patches = Patches(tmp_path / "made").files()
    read, original = [], pcam._read
    monkeypatch.setattr(pcam, "_read", lambda path, images, row: read.append(row) or original(path, images, row))
    pcam.convert(patches, CLASSES, 6, 0, "pcam", tmp_path / "out")
    assert 6 <= len(read) <= 8
    assert len(set(read)) == len(read)


def test_several_splits_of_pcam_are_put_together(tmp_path):
    files = [*Patches(tmp_path / "a").files(), *Patches(tmp_path / "b", "valid", seed=1).files()]
    pcam.convert(files, CLASSES, None, 0, "pcam", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "source_index.csv")
    assert len(table) == 38 + 37  # the blank patch of the second split is that of the first
    assert table.wsi.nunique() == 8


def cut_off(paths: list[Path]) -> list[Path]:
    paths[0].write_bytes(paths[0].read_bytes()[:3000])
    return paths


def retabled(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


PCAM_ERRORS = {
    # name: (the files that are given, what is said)
    "no labels": (
        lambda p: p.files()[:1],
        r"_x\.h5: the file with its labels, camelyonpatch_level_2_split_train_y\.h5, is missing",
    ),
    "no images": (lambda p: p.files()[1:2], r"_y\.h5: expected the files of PCam, such as .*train_x\.h5"),
    "cut off": (lambda p: cut_off(p.files()[:2]), r"_x\.h5: cannot be read as HDF5 .*Download it again"),
    "other shape": (lambda p: p.files(x=p.x[:, :50])[:2], r"_x\.h5: expected x of 8-bit patches .*\(40, 50, 96, 3\)"),
    "other type": (lambda p: p.files(x=p.x / 255)[:2], r"_x\.h5: expected x of 8-bit patches .*float64"),
    "fewer labels": (lambda p: p.files(y=p.y[:39].reshape(-1, 1, 1, 1)), r"_y\.h5: has 39 labels for 40 patches"),
    "other labels": (lambda p: p.files(y=p.y.reshape(-1, 1, 1, 1) * 2), r"_y\.h5: expected labels 0 and 1 only, found"),
    "meta of another split": (
        lambda p: [*p.files()[:2], retabled(p.files()[2], "wsi\na\n")],
        r"_meta\.csv: has 1 rows for 40 patches",
    ),
    "meta without slides": (
        lambda p: [*p.files()[:2], retabled(p.files()[2], "slide\na\n")],
        r"_meta\.csv: lacks the column wsi",
    ),
    "meta of one split only": (
        lambda p: [*p.files(), *Patches(p.folder, "valid").files(meta=False)],
        r"no camelyonpatch_level_2_split_valid_meta\.csv\. Download it too, or remove the meta files of all splits",
    ),
}


@pytest.mark.parametrize("case", PCAM_ERRORS)
def test_files_of_pcam_that_do_not_fit_are_named(tmp_path, case):
    give, said = PCAM_ERRORS[case]
    with pytest.raises(DataError, match=said) as caught:
        pcam.convert(give(Patches(tmp_path / "made")), CLASSES, None, 0, "pcam", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_another_dataset_in_a_file_of_pcam_is_named(tmp_path):
    files = Patches(tmp_path / "made").files()
    with h5py.File(files[0], "w") as file:
        file["images"] = [1]
    with pytest.raises(DataError, match=r"_x\.h5: expected the dataset 'x' in it, found images"):
        pcam.convert(files, CLASSES, None, 0, "pcam", tmp_path / "out")


# --- Kaggle, by a stand-in: no test reaches for the network ---


@pytest.fixture
def kaggle(monkeypatch) -> dict[str, Path | Exception]:
    """What Kaggle has; asking for anything else fails, as does any connection."""
    has: dict[str, Path | Exception] = {}

    def answer(handle: str) -> str:
        if isinstance(has[handle], Exception):
            raise has[handle]
        return str(has[handle])

    def refuse(*_: object) -> None:
        raise AssertionError("a test must not reach for the network")

    monkeypatch.setattr(kagglehub, "dataset_download", answer)
    monkeypatch.setattr(kagglehub, "competition_download", lambda name: answer(f"competition {name}"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return has


def test_several_datasets_of_kaggle_are_searched_together(kaggle, tmp_path):
    """Kaggle's images lie there twice, in folders spelt differently; and the masks are another dataset."""
    made = tmp_path / "made"
    synthetic_archive(made, "ham10000")
    shutil.copytree(made / "HAM10000_images_part_1", made / "ham10000_images_part_1")
    (made / "hmnist_28_28_L.csv").write_text("not ours")
    (tmp_path / "masks").mkdir()
    shutil.move(made / "masks", tmp_path / "masks" / "HAM10000_segmentations_lesion_tschandl")
    kaggle |= {"kmader/images": made, "tschandl/masks": tmp_path / "masks"}
    settings = dataset("ham10000", "kaggle", kaggle=("kmader/images", "tschandl/masks"))
    count = sources.fetch("ham10000", settings, tmp_path / "raw")
    table = pd.read_csv(tmp_path / "raw" / "samples.csv")
    assert count == len(table) == len(list((made / "HAM10000_images_part_1").iterdir()))
    assert table["mask"].str.fullmatch(r"HAM10000_segmentations_lesion_tschandl/.*_segmentation\.png").all()
    assert not (tmp_path / "raw" / "hmnist_28_28_L.csv").exists()


def test_a_competitions_data_are_fetched_as_such(kaggle, tmp_path):
    synthetic_archive(tmp_path / "made", "histopathologic")
    (tmp_path / "made" / "test").mkdir()
    (tmp_path / "made" / "test" / "secret.tif").write_bytes(b"without a label")
    kaggle["competition histopathologic-cancer-detection"] = tmp_path / "made"
    settings = dataset("histopathologic", "kaggle", kaggle=("competitions/histopathologic-cancer-detection",))
    assert sources.fetch("histopathologic", settings, tmp_path / "raw") == 8
    assert not (tmp_path / "raw" / "test").exists()


def test_a_competition_that_refuses_says_where_its_rules_are(kaggle, tmp_path):
    kaggle["competition hcd"] = PermissionError("403 Client Error.\n\nYou don't have permission")
    message = (
        r"^datasets/hcd\.yaml: kaggle: 'competitions/hcd' could not be fetched from Kaggle "
        r"\(403 Client Error\. You don't have permission\)\. Check the network and your Kaggle token, accept the "
        r"competition's rules at https://www\.kaggle\.com/competitions/hcd/rules, or download it by hand and set "
        r"source to 'directory'\.$"
    )
    with pytest.raises(DataError, match=message):
        sources.fetch("hcd", dataset("histopathologic", "kaggle", kaggle=("competitions/hcd",)), tmp_path / "raw")


def test_kaggles_token_is_never_printed(kaggle, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("KAGGLE_USERNAME", "annakarenina")
    monkeypatch.setenv("KAGGLE_KEY", "c0ffee")
    kaggle["x/y"] = ConnectionError("https://annakarenina:c0ffee@www.kaggle.com/api?token=s3cr3t: c0ffee is wrong")
    with pytest.raises(
        DataError, match=r"\(https://\*\*\*@www\.kaggle\.com/api\?token=\*\*\* \*\*\* is wrong\)"
    ) as caught:
        sources.fetch("lgg", dataset("lgg", "kaggle", kaggle=("x/y",)), tmp_path / "raw")
    captured = capfd.readouterr()
    for text in (*re_raised(caught.value), captured.out, captured.err):
        assert not any(secret in text for secret in (*SECRETS, "annakarenina"))
