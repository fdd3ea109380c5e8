"""Which stages are stale: the verdict of `dvc status`, reached without DVC in a fraction of its time."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classroom.engines import lockfile
from classroom.engines.graph import Stage, cache_folder
from classroom.errors import ClassroomError
from classroom.state import Cache, Hashes

MISSING = object()
PROTECTED = 0o444
"""The mode that DVC gives files in its cache. It reads again those that have lost it."""


class Verdict:
    """What is fresh by dvc.lock, and by the files and settings as they are when they are first asked for.

    Methods raise ClassroomError if dvc.lock or a file of settings cannot be read.
    """

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        self.recorded = lockfile.stages()
        self.cache = cache_folder()
        self.settings: dict[str, Any] = {}
        self.known: dict[str, str | None] = {}
        """By path the hash of what was there, None for nothing; to be cleared when files are restored."""
        self.runs: dict[str, list[list[str]]] | None = None
        """By digest of its inputs, the checksums of the outputs of each run in DVC's run-cache, when first needed."""

    def changed(self, stages: Mapping[str, Stage]) -> list[str]:
        """The stages that `dvc status` names, which are not those downstream of them."""
        return [name for name, stage in stages.items() if self.is_changed(stage)]

    def is_changed(self, stage: Stage) -> bool:
        """Whether `dvc status` names the stage."""
        entry = self.recorded.get(stage.name)
        if entry is None or stage.always_changed or entry["cmd"] != stage.command:
            return True
        deps, outs = (_checksums(entry, kind) for kind in ("deps", "outs"))
        if not stage.frozen:
            for file, keys in stage.settings:
                was, now = entry.get("params", {}).get(file), self._settings_in(file)
                if was is None or now is None or (not keys and was != now):
                    return True
                if any(key not in was or _value(now, key) != was[key] for key in keys):
                    return True
            if any(path not in deps or self._hash_of(path) != deps[path] for path in stage.dependencies):
                return True
        return any(
            path not in outs
            or self._hash_of(path) != outs[path]
            or (path not in stage.uncached and not self._is_cached(outs[path]))
            for path in stage.outputs
        )

    def is_saved(self, stage: Stage) -> bool:
        """Whether DVC's cache holds all outputs that the stage once made from its current inputs."""
        params = {}
        for file, keys in stage.settings:
            settings = self._settings_in(file)
            params[file] = {key: _value(settings, key) for key in keys} or settings
        wanted = _digest(stage.command, params, {path: self._hash_of(path) for path in stage.dependencies})
        entry = self.recorded.get(stage.name)
        made = [_run(entry)] if entry else []
        made += [(wanted, outputs) for outputs in self._saved_runs().get(wanted, ())]
        return any(digest == wanted and all(map(self._is_cached, outputs)) for digest, outputs in made)

    def _hash_of(self, path: str) -> str | None:
        if path not in self.known:
            self.known[path] = self.hashes(Path(path)) if Path(path).exists() else None
        return self.known[path]

    def _is_cached(self, checksum: str) -> bool:
        """Whether DVC's cache holds a file, or a folder with every file in it."""
        path = f"{self.cache}/{checksum[:2]}/{checksum[2:]}"
        try:
            protected = stat.S_IMODE(os.stat(path).st_mode) == PROTECTED
            if not protected and self.hashes(Path(path)) != checksum.removesuffix(".dir"):
                return False
            if checksum.endswith(".dir"):
                return all(
                    self._is_cached(entry["md5"]) for entry in json.loads(Path(path).read_text(encoding="utf-8"))
                )
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _saved_runs(self) -> dict[str, list[list[str]]]:
        if self.runs is None:
            self.runs, remembered = {}, Cache("runs")
            for path in self.cache.parent.parent.glob("runs/*/*/*"):
                if (run := remembered.get(path.name, path.parent.name)) is None:
                    try:
                        run = _run(lockfile.parse_yaml(path.read_text(encoding="utf-8")))
                    except (OSError, ValueError, KeyError, TypeError, AttributeError):
                        continue  # damaged: DVC removes it
                    remembered.put(path.name, path.parent.name, run)
                self.runs.setdefault(run[0], []).append(run[1])
            remembered.save()
        return self.runs

    def _settings_in(self, file: str) -> Any:
        """The content of a file of settings; None if there is no such file."""
        if file not in self.settings:
            try:
                self.settings[file] = lockfile.parse_yaml(Path(file).read_text(encoding="utf-8"))
            except FileNotFoundError:
                self.settings[file] = None
            except (OSError, ValueError) as error:
                raise ClassroomError(f"{file}: cannot be read as settings ({error}). Fix it there.") from None
        return self.settings[file]


def _run(entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Of an entry of dvc.lock or the run-cache, the digest of the inputs and the checksums of the outputs."""
    digest = _digest(entry["cmd"], entry.get("params", {}), _checksums(entry, "deps"))
    return digest, list(_checksums(entry, "outs").values())


def _digest(command: str, params: Mapping[str, Any], dependencies: Mapping[str, str | None]) -> str:
    inputs = json.dumps([command, params, dependencies], sort_keys=True, default=str)
    return hashlib.sha256(inputs.encode()).hexdigest()


def _checksums(entry: Mapping[str, Any], kind: str) -> dict[str, str]:
    return {each["path"]: each["md5"] for each in entry.get(kind, ())}


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
