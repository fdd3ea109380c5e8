"""dvc.lock, the single source of truth about what is fresh: read and written without DVC.

The parser is DVC's, so that both see the same values; its result is remembered until the file changes.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from classroom.errors import ClassroomError
from classroom.files import write_text
from classroom.state import Cache

LOCK = Path("dvc.lock")

REMEDY = "Fix it, or remove it: finished jobs are recorded in a new one from their manifests."

CONFLICT = re.compile(rb"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
"""What git leaves where it cannot merge two versions."""


def stages() -> dict[str, dict[str, Any]]:
    """By stage, what dvc.lock records: `cmd`, `params` by file, lists of `deps` and `outs`; empty if there is no file.

    Raises ClassroomError if the file cannot be read.
    """
    return _content().get("stages", {})


def outputs() -> dict[str, str]:
    """By output, its checksum in dvc.lock, as `content_hash` computes it. Raises as `stages` does."""
    return {out["path"]: out["md5"] for entry in stages().values() for out in entry.get("outs", ())}


def update(entries: Mapping[str, Any]) -> None:
    """Writes these stages' entries, as DVC serializes them, into dvc.lock: all or none.

    Raises ClassroomError if the file cannot be read or written.
    """
    _write(stages() | _plain(entries))


def remove(names: Iterable[str]) -> None:
    """Removes these stages' entries. Raises as `update` does."""
    _write({name: entry for name, entry in stages().items() if name not in set(names)})


@functools.lru_cache(maxsize=1)
def understood(text: bytes) -> dict[str, Any] | None:
    """The content of a dvc.lock; None if DVC would not accept it."""
    try:
        lock = parse_yaml(text.decode())
        found = lock.get("stages", {}).values()
        entries = [entry for each in found for kind in ("deps", "outs") for entry in each.get(kind, ())]
        settings = [values for each in found for values in each.get("params", {}).values()]
        whole = lock["schema"] == "2.0" and all("cmd" in each for each in found)
        whole = whole and all({"path", "md5"} <= entry.keys() for entry in entries)
        return lock if whole and all(isinstance(values, dict) for values in settings) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_yaml(text: str) -> Any:
    """YAML 1.2 as DVC reads it. Raises ValueError."""
    from ruamel.yaml import YAML, YAMLError

    try:
        return YAML(typ="safe").load(text) or {}
    except (YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def _content() -> dict[str, Any]:
    try:
        text = LOCK.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ClassroomError(f"{LOCK}: cannot be read ({error.strerror}). {REMEDY}") from None
    cache, digest = Cache("lock"), hashlib.md5(text, usedforsecurity=False).hexdigest()
    if (known := cache.get("content", digest)) is not None:
        return known
    content = understood(text)
    if content is None and CONFLICT.search(text):
        raise ClassroomError(
            f"{LOCK}: has conflict markers of a merge. Take the whole file of one side (`git checkout --ours {LOCK}`, "
            f"or `--theirs`), run `classroom reconcile`, which finds what is stale, and `git add {LOCK}`."
        )
    if content is None:
        raise ClassroomError(f"{LOCK}: expected YAML with schema '2.0' and stages, as DVC writes it. {REMEDY}")
    if json.loads(json.dumps(content)) == content:  # not so with numbers as keys
        cache.put("content", digest, content)
        cache.save()
    return content


def _write(entries: Mapping[str, Any]) -> None:
    from ruamel.yaml import YAML

    yaml, text = YAML(typ="safe"), io.StringIO()
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output, yaml.width = False, False, 2**20
    yaml.dump({"schema": "2.0"} | _content() | {"stages": entries}, text)
    write_text(LOCK, text.getvalue())


def _plain(value: Any) -> Any:
    """DVC's ordered mappings as plain ones, which YAML can write."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
