"""What the pipeline keeps in `.classroom/`, which neither git nor DVC tracks: six kinds of state."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from classroom.files import content_hash, set_mtime, write_text

log = logging.getLogger(__name__)

STATE_DIR = Path(".classroom")
"""In the project's root."""

CACHE = STATE_DIR / "cache"
"""Facts that can be computed again, such as file hashes; safe to delete."""
MANIFESTS = STATE_DIR / "manifests"
"""What each job was made from, unless the manifest is one of its outputs; without them, unrecorded jobs run again."""
LOCKS = STATE_DIR / "locks"
"""One lock for the workflow and one per job, each with a note of its holder; they end with the process."""
BACKUP = STATE_DIR / "backup"
"""dvc.lock as it was when it was last read without errors, and the damaged one that the backup replaced."""
OBSOLETE = STATE_DIR / "obsolete"
"""Outputs that the current settings do not produce; they return with the settings that do."""
REPLACED = STATE_DIR / "replaced"
"""Contents that existed nowhere else when a restored output replaced them."""


class Cache:
    """Facts that are slow to compute, remembered on disk, each with the key under which it holds.

    A damaged file counts as an empty one. Safe to use from several processes: the last one to save wins.
    """

    def __init__(self, name: str) -> None:
        self.path = CACHE / f"{name}.json"
        self.changed = False
        self.facts: dict[str, tuple[Any, Any]] = {}
        try:
            self.facts = {
                name: (key, fact) for name, (key, fact) in json.loads(self.path.read_text(encoding="utf-8")).items()
            }
        except OSError:
            pass
        except (ValueError, TypeError, AttributeError):
            log.info("%s is damaged: its content is computed again", self.path)

    def get(self, name: str, key: Any) -> Any:
        """The fact `name` if it was stored under the same `key`, else None."""
        known = self.facts.get(name)
        return known[1] if known is not None and known[0] == key else None

    def put(self, name: str, key: Any, fact: Any) -> None:
        self.facts[name] = (key, fact)
        self.changed = True

    def save(self) -> None:
        """Writes the facts if any is new. Raises ClassroomError if that is impossible."""
        if self.changed:
            write_text(self.path, json.dumps(self.facts))
            self.changed = False


class Hashes(Cache):
    """`content_hash` with a memory: a file with the remembered size, mtime and inode is not read again."""

    def __init__(self) -> None:
        super().__init__("hashes")
        self.unseen: list[Path] = []
        """Files that `read` found to have changed although size and mtime are as remembered."""

    def __call__(self, path: Path) -> str:
        return content_hash(path, self._of_file)

    def read(self, path: Path) -> str:
        """Hashes what is there now, whatever is remembered.

        A file that changed while its size and mtime did not gets a new mtime, as DVC trusts these too.
        """

        def of_file(file: Path) -> str:
            known, found = self.get(str(file), _stamp(file)), content_hash(file)
            if known not in (None, found):
                os.utime(file)
                self.unseen.append(file)
            if known != found:
                self.put(str(file), _stamp(file), found)
            return found

        return content_hash(path, of_file)

    def set_mtime(self, path: Path, moment: int) -> None:
        """Sets a file's mtime without forgetting its hash."""
        known = self.get(str(path), _stamp(path))
        set_mtime(path, moment)
        if known:
            self.put(str(path), _stamp(path), known)

    def _of_file(self, path: Path) -> str:
        stamp = _stamp(path)
        known = self.get(str(path), stamp)
        if known is None:
            known = content_hash(path)
            self.put(str(path), stamp, known)
        return known


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]
