"""The reproduction script: the commands that make a number again from nothing, in a fresh clone too."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from classroom.engines.graph import Stage
from classroom.git import git

OVERLAY = "explained.yaml"


def reproduction(
    chain: Sequence[Stage], records: Sequence[Mapping[str, Any]], versions: Sequence[str]
) -> dict[str, Any]:
    """`commands` that do the jobs of `chain` as `records` say that they were done; `remarks` on what those leave open.

    First comes the version of the code, which is one of the records' or else of `versions`, then the settings, where
    params.yaml has others there, then every job.
    """
    code = {path: of for record in records for path, of in record["dependencies"].items() if path.startswith("src/")}
    version, remarks = _version([*(of["code_version"] for of in records if "code_version" in of), *versions], code)
    commands = [f"git checkout {version}"] if version else []
    wanted = {key: value for record in records for key, value in leaves(record["params"]).items()}
    if others := _others(wanted, version):
        commands += [f"cat > {OVERLAY} <<'END'\n{_yaml(others)}END", f"classroom overlay {OVERLAY}"]
    return {"commands": [*commands, *(stage.command for stage in chain)], "remarks": remarks}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every single setting by its dotted key; an empty mapping is one."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


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
        commit: [path for path, digest in code.items() if _md5(git("show", f"{commit}:{path}")) != digest]
        for commit in commits
    }
    commit = min(commits, key=lambda one: len(differing[one]))
    if not (files := differing[commit]):
        return commit, []
    return commit, [f"{commit} has other code than made it, as it was not committed: {', '.join(files)}"]


def _others(wanted: Mapping[str, Any], version: str | None) -> dict[str, Any]:
    """Of the settings that are wanted those that params.yaml does not have, in that version or as it is."""
    text = git("show", f"{version}:params.yaml") if version else Path("params.yaml").read_bytes()
    try:
        there = leaves(YAML(typ="safe").load(text or b"") or {})
    except (YAMLError, AttributeError):
        there = {}
    return {key: value for key, value in wanted.items() if there.get(key) != value}


def _yaml(settings: Mapping[str, Any]) -> str:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
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
