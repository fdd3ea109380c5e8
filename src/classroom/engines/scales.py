"""`classroom scale`: writing an overlay into params.yaml, comments kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from classroom.errors import ParamsError, suggestion
from classroom.files import write_text
from classroom.params import check, load


def apply(name: str, params: Path = Path("params.yaml"), folder: Path = Path("scales")) -> list[str]:
    """Writes the values of `folder`/<name>.yaml into `params`; returns the keys whose value changed.

    A mapping merges into the one in force, an empty one empties it, everything else replaces. Raises
    ParamsError for an unknown scale, or if the result would not be valid; `params` then stays as it was.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ParamsError(f"unknown scale '{name}'.{suggestion(name, known)}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    check(load(params), params)
    load(folder / f"{name}.yaml")  # for its errors
    settings, overlay = yaml.load(params.read_text()), yaml.load((folder / f"{name}.yaml").read_text())
    changed: list[str] = []
    _merge(settings, overlay, "", changed)
    if changed:
        text = io.StringIO()
        yaml.dump(settings, text)
        check(YAML(typ="safe").load(text.getvalue()), folder / f"{name}.yaml")
        write_text(params, text.getvalue())
    return changed


def _merge(into: Any, overlay: Mapping[str, Any], prefix: str, changed: list[str]) -> None:
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and isinstance(into.get(key), Mapping) and into[key]:
            _merge(into[key], value, f"{path}.", changed)
        elif into.get(key) != value:
            changed.append(path)
            if isinstance(value, list) and isinstance(into.get(key), list):
                into[key][:] = value  # in place, so that its style and comment stay
            else:
                into[key] = value
