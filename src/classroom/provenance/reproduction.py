"""The reproduction script: the commands that make a number again from nothing, in a fresh clone too."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from classroom.engines.graph import Stage
from classroom.git import git
from classroom.params import FOLDERS, dotted, leaves

OVERLAY = "explained.yaml"
OVERLAID = {block: folder for folder, block in FOLDERS.items()}
"""What an overlay calls the blocks of studies and datasets."""


def reproduction(
    chain: Sequence[Stage], records: Sequence[Mapping[str, Any]], versions: Sequence[str]
) -> dict[str, Any]:
    """Returns the `commands` that repeat jobs as they are recorded, and `notes` on what the commands leave open.

    They check out the version of the code, write the settings that differ from that version's, and run every job.

    Parameters
    ----------
    chain
        The jobs, each after those it depends on.
    records
        A record of each job that has one.
    versions
        Commits of the code, for jobs whose records name none.
    """
    code = {path: of for record in records for path, of in record["dependencies"].items() if path.startswith("src/")}
    version, notes = _version([*(of["code_version"] for of in records if "code_version" in of), *versions], code)
    commands = [f"git checkout {version}"] if version else []
    wanted = {key: value for record in records for key, value in leaves(record["params"]).items()}
    if others := _others(wanted, version):
        commands += [f"cat > {OVERLAY} <<'END'\n{_yaml(others)}END", f"classroom overlay {OVERLAY}"]
    return {"commands": [*commands, *(stage.command for stage in chain)], "notes": notes}


def _version(versions: Sequence[str], code: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The commit that holds the recorded `code`, by path its MD5, or comes nearest; what is to be said of it."""
    if not versions:
        return None, ["the version of the code is in the runs' manifests, which are not here"]
    commits = [
        commit
        for commit in dict.fromkeys(v.removesuffix("-dirty") for v in versions)
        if git("cat-file", "-e", f"{commit}^{{commit}}") is not None
    ]
    if not commits:
        return None, [f"its version of the code, {versions[0]}, is not in this repository"]
    differing = {
        commit: [path for path, digest in code.items() if _hash_at(commit, path, digest.endswith(".dir")) != digest]
        for commit in commits
    }
    commit = min(commits, key=lambda one: len(differing[one]))
    if not (files := differing[commit]):
        return commit, []
    return commit, [f"{commit} differs from the code that made it, which was not committed: {', '.join(files)}"]


def _others(wanted: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """Those of the wanted settings that the files of settings do not have, in that version or today.

    A study or dataset that the version does not know is there as a whole, as it is today.
    """
    today = {
        path.as_posix(): path.read_bytes()
        for path in (Path("params.yaml"), *(path for folder in FOLDERS for path in Path(folder).glob("*.yaml")))
    }
    files = today
    if version:
        files = {name: git("show", f"{version}:{name}") for name in _names_at(version, "params.yaml", *FOLDERS)}
    unknown = {
        key: value
        for name in today.keys() - files.keys()
        if any(one.startswith(f"{dotted(name)}.") for one in wanted)
        for key, value in _leaves(name, today[name]).items()
    }
    there: dict[str, Any] = {}
    for name, text in files.items():
        there |= _leaves(name, text)
    return {key: value for key, value in (unknown | wanted).items() if there.get(key) != value}


def _leaves(name: str, text: bytes | None) -> dict[str, Any]:
    """The settings in a file by dotted keys; none if it cannot be read."""
    try:
        return leaves(YAML(typ="safe").load(text or b"") or {}, dotted(name) and f"{dotted(name)}.")
    except (YAMLError, AttributeError):
        return {}


def _names_at(commit: str, *paths: str) -> list[str]:
    """The files of a commit that are one of the paths, or in a folder that is."""
    return (git("ls-tree", "-r", "--name-only", commit, "--", *paths) or b"").decode().splitlines()


def _hash_at(commit: str, path: str, is_folder: bool) -> str:
    """`content_hash` of a file or folder as it is in a commit."""
    if not is_folder:
        return _md5(git("show", f"{commit}:{path}"))
    names = sorted(_names_at(commit, path))
    files = [{"md5": _hash_at(commit, name, False), "relpath": name.removeprefix(f"{path}/")} for name in names]
    return _md5(json.dumps(files).encode()) + ".dir"


def _yaml(settings: Mapping[str, Any]) -> str:
    """As an overlay."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
        if above:
            above[0] = OVERLAID.get(above[0], above[0])
        place = nested
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    text, yaml = io.StringIO(), YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.dump(nested, text)
    return text.getvalue()


def _md5(content: bytes | None) -> str:
    return hashlib.md5(content or b"", usedforsecurity=False).hexdigest()
