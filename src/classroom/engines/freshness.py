"""Which stages are stale: the verdict of `dvc status`, reached without DVC in a fraction of its time."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from classroom.engines import lockfile
from classroom.engines.graph import Stage, cache_folder
from classroom.engines.mtimes import set_mtime
from classroom.engines.state import Cache
from classroom.errors import ClassroomError
from classroom.files import content_hash

MISSING = object()
PROTECTED = 0o444
"""The mode that DVC gives files in its cache. It reads again those that have lost it."""


class Hashes:
    """`content_hash` with a memory: a file with the remembered size, mtime and inode is not read again."""

    def __init__(self) -> None:
        self.cache = Cache("hashes")

    def __call__(self, path: Path) -> str:
        return content_hash(path, self._of_file)

    def of(self, path: str) -> str | None:
        """None for what does not exist."""
        return self(Path(path)) if Path(path).exists() else None

    def set_mtime(self, path: Path, moment: int) -> None:
        """Sets a file's mtime without forgetting its hash."""
        known = self.cache.get(str(path), _stamp(path))
        set_mtime(path, moment)
        if known:
            self.cache.put(str(path), _stamp(path), known)

    def save(self) -> None:
        self.cache.save()

    def _of_file(self, path: Path) -> str:
        stamp = _stamp(path)
        known = self.cache.get(str(path), stamp)
        if known is None:
            known = content_hash(path)
            self.cache.put(str(path), stamp, known)
        return known


def changed(stages: Mapping[str, Stage], hashes: Hashes) -> list[str]:
    """The stages that `dvc status` names, which are not those downstream of them.

    Raises ClassroomError if dvc.lock or a file of settings cannot be read.
    """
    recorded, cache = lockfile.stages(), cache_folder()
    hash_of, settings = functools.cache(hashes.of), functools.cache(_settings)
    return [
        name
        for name, stage in stages.items()
        if name not in recorded or _is_changed(stage, recorded[name], cache, hashes, hash_of, settings)
    ]


def _is_changed(
    stage: Stage,
    record: Mapping[str, Any],
    cache: Path,
    hashes: Hashes,
    hash_of: Callable[[str], str | None],
    settings: Callable[[str], Any],
) -> bool:
    if stage.always_changed or record["cmd"] != stage.command:
        return True
    deps, outs = ({entry["path"]: entry["md5"] for entry in record.get(kind, ())} for kind in ("deps", "outs"))
    if not stage.frozen:
        for file, keys in stage.settings:
            was, now = record.get("params", {}).get(file), settings(file)
            if was is None or now is None or (not keys and was != now):
                return True
            if any(key not in was or _value(now, key) != was[key] for key in keys):
                return True
        if any(path not in deps or hash_of(path) != deps[path] for path in stage.dependencies):
            return True
    return any(
        path not in outs
        or hash_of(path) != outs[path]
        or (path not in stage.uncached and not _is_cached(outs[path], cache, hashes))
        for path in stage.outputs
    )


def _is_cached(checksum: str, cache: Path, hashes: Hashes) -> bool:
    """Whether DVC's cache holds a file, or a folder with every file in it."""
    path = f"{cache}/{checksum[:2]}/{checksum[2:]}"
    try:
        if stat.S_IMODE(os.stat(path).st_mode) != PROTECTED and hashes(Path(path)) != checksum.removesuffix(".dir"):
            return False
        if checksum.endswith(".dir"):
            return all(_is_cached(entry["md5"], cache, hashes) for entry in json.loads(Path(path).read_text()))
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _settings(file: str) -> Any:
    """The content of a file of settings; None if there is no such file."""
    try:
        return lockfile.parse_yaml(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ClassroomError(f"{file}: cannot be read as settings ({error}). Fix it: `classroom check`.") from None


def _value(settings: Any, key: str) -> Any:
    """The setting at a dotted key, through mappings and lists; MISSING if there is none."""
    for part in key.split("."):
        if isinstance(settings, list) and part.isdecimal() and int(part) < len(settings):
            settings = settings[int(part)]
        elif isinstance(settings, dict) and part in settings:
            settings = settings[part]
        else:
            return MISSING
    return settings


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]
