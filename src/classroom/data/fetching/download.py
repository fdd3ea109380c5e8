"""Downloads one file over HTTP: resumes after an interruption, verifies the checksum, and never prints a password.

No maintained library resumes as needed. Pooch and parfive start again from the first byte; gdown appends to a partial
file without asking whether it is of the same version, and fails where a server ignores `Range`; pypdl resumes only
downloads in segments; huggingface_hub and kagglehub resume from their own servers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import requests
import urllib3
from rich.progress import DownloadColumn, TransferSpeedColumn

from classroom import progress
from classroom.errors import DataError
from classroom.files import DISK_FULL, advice

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


def download(url: str, checksum: str, folder: Path, log: Log = progress.log) -> Path:
    """Downloads the file at `url`, unless it is in `folder` already.

    An interrupted download stays in `folder` as <name>.part; the next call fetches only the rest.

    Parameters
    ----------
    url
        http:// or https://
    checksum
        `md5:…` or `sha256:…`
    folder
        created if missing
    log
        Called with a line about every retry and, where there is no terminal, about the progress.

    Returns
    -------
    The path of the file.

    Raises
    ------
    DataError
        Names the URL if it does not exist, cannot be reached, has another checksum, or does not fit on the disk.
    """
    shown = redact(url)
    if not re.match("https?://[^/]", url, re.IGNORECASE):
        raise DataError(f"{shown}: expected a URL that begins with http:// or https://.")
    target = folder / file_name(url)
    algorithm, expected = checksum.lower().split(":")
    transfer = _Transfer(target.with_name(f"{target.name}.part"), checksum, shown, log)
    try:
        if target.exists() and _digest(target, algorithm) == expected:
            return target
        while True:
            transfer.run(url)
            found = _digest(transfer.part, algorithm)
            if found == expected:
                transfer.part.replace(target)
                transfer.discard()
                return target
            transfer.discard()
            if not transfer.resumed:
                raise DataError(
                    f"{shown}: {algorithm.upper()} hash differs: expected {checksum} but got {found}. The file was "
                    "changed on the server or damaged on the way, and has been removed. Run again, or, if you trust "
                    "the file, correct checksum."
                )
            log(f"{shown}: the resumed file has another checksum; starting again")
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _disk_full(folder, transfer.missing) from None
        raise DataError(f"{folder}: cannot be written ({error.strerror or _reason(error)}). {advice(error)}") from None


def file_name(url: str) -> str:
    """The local name of a URL's file: the last part of its path without special characters."""
    path = re.sub(r"^\w+://[^/]*|[?#].*", "", url)
    return re.sub(r"[^\w.\-]", "_", unquote(path).rsplit("/", 1)[-1]).lstrip(".") or "download"


def redact(text: str) -> str:
    """`text` without passwords and tokens: of URLs (user:password@, ?token=…, signatures), headers, and Kaggle's.

    Every message about a download passes through here, because libraries put whole URLs into theirs.
    """
    names = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    user, *keys = (os.environ.get(name, "") for name in names)
    secrets = {user, *keys, *(base64.b64encode(f"{user}:{key}".encode()).decode() for key in keys if key)}
    secrets |= {quote(secret, safe="") for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 3:  # a shorter one may be part of any word
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


class _RetryableError(Exception):
    """The attempt failed in a way that may pass; the text is the reason."""


class _Transfer:
    """Brings a file to `part`, in as many requests as it takes, also over several calls of the program."""

    def __init__(self, part: Path, checksum: str, shown: str, log: Log) -> None:
        self.part, self.checksum, self.shown, self.log = part, checksum, shown, log
        self.state = part.with_name(f"{part.name}.json")
        self.resumed = False
        """Whether the file was put together from several answers of the server."""
        self.missing: int | None = None
        """Bytes still to come, where known."""

    def run(self, url: str) -> None:
        """Fetches all that is missing; attempts that bring new bytes do not count as failures."""
        failures = 0
        while True:
            before, validator = self._earlier()
            try:
                return self._request(url, before, validator)
            except ValueError as error:
                raise DataError(f"{self.shown}: is not a valid URL ({redact(_reason(error))}).") from None
            except (_RetryableError, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
                failures = 1 if self._earlier()[0] > before else failures + 1
                reason = redact(_reason(error))
            except requests.RequestException as error:
                raise DataError(f"{self.shown}: cannot be fetched ({redact(_reason(error))}).") from None
            if failures >= ATTEMPTS:
                raise DataError(
                    f"{self.shown}: could not be fetched in {ATTEMPTS} attempts ({reason}). Check the network and run "
                    "again; what has been fetched is kept."
                )
            self.log(f"{self.shown}: {reason}; trying again")
            time.sleep(WAIT * 2 ** (failures - 1))

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _earlier(self) -> tuple[int, str]:
        """The size of what an earlier attempt at this file left, and the validator of its version."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            if state["checksum"] == self.checksum:
                return self.part.stat().st_size, state["validator"]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self.discard()
        return 0, ""

    def _request(self, url: str, have: int, validator: str) -> None:
        """One request for all that is missing."""
        headers = {"Accept-Encoding": "identity"}  # ranges and checksums refer to the uncompressed file
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator:
                headers["If-Range"] = validator
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status = response.status_code
            continues = have and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            same = not validator or _validator(response) in ("", validator)
            if status == 416 or (status == 206 and not (continues and same)):
                self.discard()
                raise _RetryableError("the server has another version of the file than before")
            if status in (408, 425, 429) or status >= 500:
                raise _RetryableError(f"the server answers {status} {response.reason}")
            if status not in (200, 206):
                raise DataError(
                    f"{self.shown}: the server answers {status} {response.reason}. Check the URL"
                    + (", and whether it needs an account or has expired." if status in (401, 403, 410) else ".")
                )
            self._save(response, have if status == 206 else 0)

    def _save(self, response: requests.Response, have: int) -> None:
        """Appends the body to the `have` bytes of `part`."""
        length = response.headers.get("Content-Length", "")
        self.missing = int(length) if length.isdigit() else None
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.resumed = have > 0
        if not self.resumed:
            self.discard()
        if self.missing is not None and self.missing > shutil.disk_usage(self.part.parent).free:
            raise _disk_full(self.part.parent, self.missing)
        if not self.resumed:
            self.state.write_text(
                json.dumps({"checksum": self.checksum, "validator": _validator(response)}), encoding="utf-8"
            )
        total = None if self.missing is None else have + self.missing
        logged_at = time.monotonic()
        with progress.progress_bar(DownloadColumn(), TransferSpeedColumn()) as bar, self.part.open("ab") as file:
            task = bar.add_task(self.shown, total=total, completed=have)
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                have += len(chunk)
                self.missing = None if total is None else total - have
                bar.update(task, completed=have)
                if bar.disable and time.monotonic() - logged_at >= LOG_EVERY:
                    logged_at = time.monotonic()
                    of = f" of {total / 1e6:.0f}" if total else ""
                    self.log(f"{self.shown}: {have / 1e6:.0f}{of} MB")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _validator(response: requests.Response) -> str:
    """Identifies a version of the file: a strong ETag, else the time of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _reason(error: object) -> str:
    if isinstance(error, urllib3.exceptions.HTTPError) and error.args:
        error = error.args[0]  # the rest repeats it
    return " ".join(str(error).split()) or type(error).__name__


def _disk_full(folder: Path, missing: int | None) -> DataError:
    needed = f"; {missing / 1e6:.0f} MB more are needed" if missing else ""
    return DataError(f"{folder}: the disk is full{needed}. Free space and run again; what has been fetched is kept.")
