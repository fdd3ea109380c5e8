"""Which stages are stale: the verdict of `dvc status`, reached without DVC in a fraction of its time."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from classroom.engines import lockfile, manifest
from classroom.engines.graph import Stage, cache_folder
from classroom.errors import ClassroomError, reading
from classroom.files import mtime_of
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
        self.runs: dict[str, list[tuple[Run, Path]]] | None = None
        """By command the runs that DVC's run-cache has, each with its file there; when needed."""
        self.contradicted: dict[str, str] = {}
        """The stages found whose outputs were made from other inputs than their entry says, and from what."""

    def changed(self, stages: Mapping[str, Stage]) -> list[str]:
        """The stages that `dvc status` names, which are not those downstream of them."""
        return [name for name, stage in stages.items() if self.is_changed(stage)]

    def is_changed(self, stage: Stage) -> bool:
        """Whether `dvc status` names the stage, or would without an entry that is not how its outputs were made."""
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
        if any(
            path not in outs
            or self._hash_of(path) != outs[path]
            or (path not in stage.uncached and not self._is_cached(outs[path]))
            for path in stage.outputs
        ):
            return True
        if found := manifest.contradictions(stage, entry, self.hashes) or self._never_run(stage, entry):
            self.contradicted[stage.name] = manifest.described(found)
        return bool(found)

    def is_saved(self, stage: Stage) -> bool:
        """Whether DVC's cache holds all outputs that the stage once made from its current inputs."""
        params = {}
        for file, keys in stage.settings:
            settings = self._settings_in(file)
            params[file] = {key: _value(settings, key) for key in keys} or settings
        dependencies = [{"path": path, "md5": self._hash_of(path)} for path in stage.dependencies]
        now = {"cmd": stage.command, "params": params, "deps": dependencies}
        wanted = _run(now).inputs
        saved: list[tuple[Run, Path | None]] = [*self._saved_runs(stage.command)]
        if stage.name in self.recorded.keys() - self.contradicted.keys():
            saved.append((_run(self.recorded[stage.name]), None))
        return any(
            run.inputs == wanted
            and all(map(self._is_cached, run.outputs))
            and self._is_true(stage, now, run.outputs, where)
            for run, where in saved
        )

    def forget(self, name: str) -> None:
        """Removes a stage's run, as dvc.lock has it, from there and from DVC's run-cache."""
        recorded = _run(self.recorded[name])
        for saved, where in self._saved_runs(recorded.command):
            if saved == recorded:
                where.unlink(missing_ok=True)
        lockfile.remove([name])

    def _never_run(self, stage: Stage, entry: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What an entry says that no run has had whose outputs are the entry's, and what the last of these runs had.

        DVC saves every run but those with `--no-run-cache`, and an entry may also be put together, by a merge or by
        hand. Empty if the stage's manifest is of such a run, or none is known: the entry may come from elsewhere.
        """
        recorded, said, made = _run(entry), manifest.record(entry), manifest.read(stage)
        if made is not None and made["outputs"] == said["outputs"] and not manifest.differences(said, made):
            return {}
        runs = self._saved_runs(recorded.command)
        same = [where for saved, where in runs if saved.outputs == recorded.outputs and where.exists()]
        if not same or any(saved == recorded for saved, _ in runs):
            return {}
        last = lockfile.parse_yaml(max(same, key=mtime_of).read_text(encoding="utf-8"))
        return manifest.differences(said, manifest.record(last))

    def _is_true(self, stage: Stage, now: Mapping[str, Any], outputs: list[str], where: Path | None) -> bool:
        """Whether saved outputs were made from today's inputs by the manifest among them; else forgets the run.

        That is the file `where` in the run-cache; None stands for the stage's entry in dvc.lock.
        """
        if not stage.is_training or (made := self._saved_manifest(outputs[0])) is None:
            return True
        if found := manifest.differences(manifest.record(now), made):
            if where is None:
                self.contradicted[stage.name] = manifest.described(found)
            else:
                where.unlink(missing_ok=True)
        return not found

    def _saved_manifest(self, run: str) -> manifest.Record | None:
        """The manifest in the cache's copy of a run."""
        try:
            files = {each["relpath"]: each["md5"] for each in json.loads(self._copy(run).read_text(encoding="utf-8"))}
            return json.loads(self._copy(files["manifest.json"]).read_text(encoding="utf-8"))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _copy(self, checksum: str) -> Path:
        return Path(f"{self.cache}/{checksum[:2]}/{checksum[2:]}")

    def _hash_of(self, path: str) -> str | None:
        if path not in self.known:
            self.known[path] = self.hashes(Path(path)) if Path(path).exists() else None
        return self.known[path]

    def _is_cached(self, checksum: str) -> bool:
        """Whether DVC's cache holds a file, or a folder with every file in it."""
        path = self._copy(checksum)
        try:
            protected = stat.S_IMODE(os.stat(path).st_mode) == PROTECTED
            if not protected and self.hashes(path) != checksum.removesuffix(".dir"):
                return False
            if checksum.endswith(".dir"):
                return all(self._is_cached(entry["md5"]) for entry in json.loads(path.read_text(encoding="utf-8")))
            return True
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _saved_runs(self, command: str) -> list[tuple[Run, Path]]:
        if self.runs is None:
            self.runs, remembered = {}, Cache("saved")
            for path in self.cache.parent.parent.glob("runs/*/*/*"):
                if (known := remembered.get(path.name, path.parent.name)) is None:
                    try:
                        known = _run(lockfile.parse_yaml(path.read_text(encoding="utf-8")))
                    except (OSError, ValueError, KeyError, TypeError, AttributeError):
                        continue  # damaged: DVC removes it
                    remembered.put(path.name, path.parent.name, known)
                run = Run(*known)
                self.runs.setdefault(run.command, []).append((run, path))
            remembered.save()
        return self.runs.get(command, [])

    def _settings_in(self, file: str) -> Any:
        """The content of a file of settings; None if there is no such file."""
        if file not in self.settings:
            with reading(file, "Fix it there.", what="as settings", kind=ClassroomError):
                there = Path(file).exists()
                self.settings[file] = lockfile.parse_yaml(Path(file).read_text(encoding="utf-8")) if there else None
        return self.settings[file]


class Run(NamedTuple):
    """Of an entry of dvc.lock or the run-cache, the command, a digest of all inputs, and the outputs' checksums."""

    command: str
    inputs: str
    outputs: list[str]


def _run(entry: Mapping[str, Any]) -> Run:
    inputs = json.dumps([entry["cmd"], entry.get("params", {}), _checksums(entry, "deps")], sort_keys=True, default=str)
    return Run(entry["cmd"], hashlib.sha256(inputs.encode()).hexdigest(), list(_checksums(entry, "outs").values()))


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
