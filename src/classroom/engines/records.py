"""What is on record of a job that has run: its receipt, and what dvc.lock says of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from classroom.engines import dvc_lock
from classroom.engines.plan import Stage
from classroom.engines.times import touch
from classroom.errors import ClassroomError
from classroom.files import content_hash
from classroom.params import dotted, select

Record = Mapping[str, Any]
"""Of a job its `command`, its `params`, and by path the MD5 of its `dependencies` and `outputs`; receipts have more."""


def of(stage: Stage) -> Iterator[Record]:
    """The stage's receipt and what dvc.lock says, where there are any.

    Receipts outside of runs stay behind when DVC brings another version back: then dvc.lock knows better.
    """
    return filter(None, (read(stage) for read in (_receipt, _locked)))


def check_as_made(stages: Iterable[Stage], dependencies: Mapping[str, str]) -> None:
    """Raises ClassroomError for a file among `dependencies`, by path their MD5s, that is not as its maker left it.

    What is on no record is for the command itself to judge, and so are folders that one job made: raw data, which
    `prepare` reads image by image, and DVC compares as a whole. A refused file gets a new time, so that DVC, which
    trusts times and sizes, sees the damage too.
    """
    for maker in stages:
        for out in maker.outputs:
            needed = any(f"{out}/".startswith(f"{dependency}/") for dependency in dependencies)
            judged = needed and Path(out).is_file() and Path(out) != maker.receipt
            if judged and _fits(maker, out, dependencies.get(out) or content_hash(Path(out))) is False:
                touch(Path(out))
                raise ClassroomError(
                    f"{out}: damaged, edited or exchanged since `{maker.command}` made it. Run that again, or "
                    f"`dvc checkout {out}`, which brings it back from DVC's cache."
                )


def differences(
    stage: Stage, record: Record, raw: dict[str, Any], hash_of: Callable[[Path], str] = content_hash
) -> dict[str, tuple[Any, Any]]:
    """What is other today than a record of the stage says, by setting or file: what it was, and what it is now.

    None stands for what there is not. Folders that the record does not mention are left out, as DVC's are.
    """
    was = {"command": record["command"], **leaves(record["params"]), **record["dependencies"], **record["outputs"]}
    now = {"command": stage.command, **leaves({key: _setting(raw, key) for key in stage.params})}
    for path in (*stage.dependencies, *stage.outputs):
        if Path(path) != stage.receipt and (path in was or not Path(path).is_dir()):
            now[path] = hash_of(Path(path)) if Path(path).exists() else None
    return {key: (was.get(key), now.get(key)) for key in was | now if was.get(key) != now.get(key)}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every single setting by its dotted key; an empty mapping is one."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _fits(maker: Stage, out: str, digest: str) -> bool | None:
    """Whether any record says that its maker left the file so; None if none says how."""
    fits = None
    for record in of(maker):
        if out in record["outputs"]:
            if record["outputs"][out] == digest:
                return True
            fits = False
    return fits


def _setting(raw: dict[str, Any], key: str) -> Any:
    """As a receipt keeps it; None for a setting that is not there."""
    try:
        return json.loads(json.dumps(select(raw, key, Any), default=str))
    except ClassroomError:
        return None


def _receipt(stage: Stage) -> Record | None:
    try:
        receipt = json.loads(stage.receipt.read_text())
        return receipt if {"command", "params", "dependencies", "outputs"} <= receipt.keys() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _locked(stage: Stage) -> Record | None:
    try:
        entry = _lock(dvc_lock.LOCK.resolve(), dvc_lock.LOCK.stat().st_mtime_ns)[stage.name]
        return {
            "command": entry["cmd"],
            "params": _settings(stage, entry.get("params", {})),
            "dependencies": _files(entry.get("deps", ())),
            "outputs": {out: digest for out, digest in _files(entry["outs"]).items() if Path(out) != stage.receipt},
        }
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def _settings(stage: Stage, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """As a receipt has them: a file that the stage reads whole is one setting."""
    found: dict[str, Any] = {}
    for file, of in files.items():
        whole = dotted(file) in stage.params
        found |= {dotted(file): of} if whole else {dotted(file, key): value for key, value in of.items()}
    return found


def _files(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries if not entry["md5"].endswith(".dir")}


@functools.lru_cache(maxsize=1)
def _lock(path: Path, changed: int) -> dict[str, Any]:
    try:
        return dvc_lock.read(path)["stages"]
    except (ValueError, KeyError, TypeError):
        return {}
