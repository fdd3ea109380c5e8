"""Downloading one file over HTTP: checked, resumed after an interruption, and without a word of any password.

Pooch keeps the file and compares its checksum; how the bytes get here is `_Transfer`, as none of pooch's own
downloaders can go on where an earlier one was cut off.
"""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import pooch
import requests
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from classroom.errors import DataError

ATTEMPTS = 5
"""In a row without a single new byte; then the download fails."""
WAIT = 1.0
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = 10, 60
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 20
LOG_EVERY = 10.0
"""Seconds between two lines in a log."""

Log = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Where lines about a download's progress go, unless the caller wants them elsewhere."""
    print(line, file=sys.stderr, flush=True)


def download(url: str, checksum: str, folder: Path, log: Log = to_stderr) -> Path:
    """The file at `url`, in `folder`, whose checksum is `md5:…` or `sha256:…`; not fetched again if it lies there.

    What came before an interruption stays in `folder` as <name>.part, and the next call fetches the rest only. Raises
    DataError naming the URL if it does not exist, cannot be reached, has another checksum, or does not fit on the disk.
    """
    shown = without_secrets(url)
    if not re.match("https?://[^/]", url, re.IGNORECASE):
        raise DataError(f"{shown}: expected a URL that begins with http:// or https://.")
    pooch.get_logger().setLevel(logging.WARNING)  # it would print the URL
    transfer = _Transfer(folder / f"{file_name(url)}.part", checksum, shown, log)
    try:
        while True:
            try:
                return Path(pooch.retrieve(url, checksum, file_name(url), folder, downloader=transfer))
            except ValueError as error:  # another checksum; pooch has removed the file
                if not transfer.resumed:
                    raise DataError(
                        f"{shown}: {without_secrets(_reason(error).split('. Deleted')[0])}. It was changed "
                        "there or damaged on its way, and has been removed. Run again, or, if you trust the file, "
                        "correct checksum."
                    ) from None
                log(f"{shown}: the resumed file has another checksum; starting again")  # the two parts do not match
    except OSError as error:  # requests' own errors are OSErrors, too, but have been dealt with
        if error.errno == errno.ENOSPC:
            raise _no_space(folder, transfer.missing) from None
        raise DataError(f"{folder}: cannot be written ({error.strerror or _reason(error)}). Mend the folder.") from None


def file_name(url: str) -> str:
    """The name that the file of a URL gets here: the last part of its path, made harmless."""
    path = re.sub(r"^\w+://[^/]*|[?#].*", "", url)
    return re.sub(r"[^\w.\-]", "_", unquote(path).rsplit("/", 1)[-1]).lstrip(".") or "download"


def without_secrets(text: str) -> str:
    """`text` without passwords and tokens: of URLs (user:password@, ?token=…, signatures), headers, and Kaggle's.

    Every message about a download goes through this, as libraries put whole URLs into theirs.
    """
    names = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    user, *keys = (os.environ.get(name, "") for name in names)
    secrets = {user, *keys, *(base64.b64encode(f"{user}:{key}".encode()).decode() for key in keys if key)}
    secrets |= {quote(secret, safe="") for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 3:  # of a shorter one nothing could be told apart from words
            text = text.replace(secret, "***")
    for pattern in (USER, QUERY, HEADER):
        text = pattern.sub(r"\1***", text)
    return text


USER = re.compile(r"(://)(?:[^/\s]+|[^/\s@:]+:[^\s@]*)(?=@)")
QUERY = re.compile(
    r"""([?&;#](?:[^=&\s]*(?:token|key|secret|sig|pass|pwd|auth|cred|session|policy)[^=&\s]*|x-(?:amz|goog|ms)-[^=&\s]*)=)"""
    r"""[^&\s'")>]*""",
    re.IGNORECASE,
)
HEADER = re.compile(r"""(authorization['"]?\s*[:=]\s*['"]?(?:\w+\s+)?)[^\s'"]+""", re.IGNORECASE)


class _Again(Exception):
    """The attempt failed in a way that may pass; its text says how."""


class _Transfer:
    """A downloader for pooch that keeps what it has in `part` and goes on from there."""

    def __init__(self, part: Path, checksum: str, shown: str, log: Log) -> None:
        self.part = part
        self.about = part.with_name(part.name + ".json")
        self.checksum = checksum
        self.shown = shown
        self.log = log
        self.resumed = False
        """Whether the file was put together from more than one answer of the server."""
        self.missing: int | None = None
        """Bytes still to come, where known."""

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Fetches `url` to `output_file`; called by pooch."""
        self.resumed = False
        failures = 0
        while True:
            before = self._size()
            try:
                with requests.Session() as session:
                    self._once(session, url)
                break
            except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError, ValueError) as error:
                raise DataError(f"{self.shown}: makes no sense as a URL ({without_secrets(_reason(error))}).") from None
            except (_Again, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
                failures = 1 if self._size() > before else failures + 1
                reason = without_secrets(_reason(error))
            except requests.RequestException as error:
                raise DataError(f"{self.shown}: cannot be fetched ({without_secrets(_reason(error))}).") from None
            if failures >= ATTEMPTS:
                raise DataError(
                    f"{self.shown}: could not be fetched in {ATTEMPTS} attempts ({reason}). Check the network and run "
                    "again; what has been fetched is kept."
                )
            self.log(f"{self.shown}: {reason}; trying again")
            time.sleep(WAIT * 2 ** (failures - 1))
        os.replace(self.part, output_file)
        self.about.unlink(missing_ok=True)

    def _once(self, session: requests.Session, url: str) -> None:
        """One request for all that is missing."""
        have, validator = self._size(), self._validator()
        headers = {"Accept-Encoding": "identity"}  # ranges and checksums are of the file as it is
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status = response.status_code
            if status == 416 or (status == 206 and not self._continues(response, have, validator)):
                self._forget()
                raise _Again("the file there is not the one begun earlier")
            if status in (408, 425, 429) or status >= 500:
                raise _Again(f"the server answers {status} {response.reason}")
            if status not in (200, 206):
                raise DataError(
                    f"{self.shown}: the server answers {status} {response.reason}. Check the URL"
                    + (", and whether it needs an account or has expired." if status in (401, 403, 410) else ".")
                )
            self._save(response, have if status == 206 else 0)

    def _continues(self, response: requests.Response, have: int, validator: str) -> bool:
        """Whether the answer is the rest of the very file that was begun."""
        if have == 0 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            return False
        now = _validator(response)
        return not validator or not now or now == validator

    def _save(self, response: requests.Response, have: int) -> None:
        length = response.headers.get("Content-Length", "")
        self.missing = int(length) if length.isdigit() else None
        self.part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.part.parent).free
        if have == 0 and self.part.exists():
            free += self.part.stat().st_size  # is about to be overwritten
        if self.missing is not None and self.missing > free:
            raise _no_space(self.part.parent, self.missing)
        if have == 0:
            self.part.unlink(missing_ok=True)
            self.about.write_text(json.dumps({"checksum": self.checksum, "validator": _validator(response)}))
        else:
            self.resumed = True
        total = have + self.missing if self.missing is not None else None
        with _Shown(self.shown, have, total, self.log) as show, self.part.open("ab") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                show(len(chunk))
                if self.missing is not None:
                    self.missing -= len(chunk)

    def _size(self) -> int:
        """Bytes that an earlier attempt left and this one can use."""
        if self._kept().get("checksum") != self.checksum:  # begun for another file of the same name
            self._forget()
        return self.part.stat().st_size if self.part.exists() else 0

    def _validator(self) -> str:
        return self._kept().get("validator", "")

    def _kept(self) -> dict[str, str]:
        try:
            kept = json.loads(self.about.read_text())
            return kept if isinstance(kept, dict) else {}
        except (OSError, ValueError):
            return {}

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.about.unlink(missing_ok=True)


def _validator(response: requests.Response) -> str:
    """What tells one version of the file from another: a strong ETag, else the time of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _reason(error: object) -> str:
    if isinstance(error, urllib3.exceptions.HTTPError) and error.args:
        error = error.args[0]  # the rest repeats it
    return " ".join(str(error).split()) or type(error).__name__


def _no_space(folder: Path, missing: int | None) -> DataError:
    needed = f"; {missing / 1e6:.0f} MB more are needed" if missing else ""
    return DataError(f"{folder}: the disk is full{needed}. Free space and run again; what has been fetched is kept.")


class _Shown:
    """How far a transfer is: a bar on a terminal, a line now and then in a log."""

    def __init__(self, title: str, have: int, total: int | None, log: Log) -> None:
        self.title, self.done, self.total, self.log = title, have, total, log
        self.logged_at = time.monotonic()
        console = Console(stderr=True)
        self.bar = None
        if console.is_terminal and log is to_stderr:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
            self.bar = Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
            self.task = self.bar.add_task(title, total=total, completed=have)

    def __enter__(self) -> _Shown:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, count: int) -> None:
        self.done += count
        if self.bar:
            self.bar.advance(self.task, count)
        elif time.monotonic() - self.logged_at >= LOG_EVERY:
            self.logged_at = time.monotonic()
            of = f" of {self.total / 1e6:.0f}" if self.total else ""
            self.log(f"{self.title}: {self.done / 1e6:.0f}{of} MB")
