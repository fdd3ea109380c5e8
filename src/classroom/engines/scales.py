"""`classroom scale`, `classroom overlay`: writing settings into params.yaml, comments kept."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from classroom.errors import ParamsError, suggestion
from classroom.files import write_text
from classroom.params import check, load

WRONG_KINDS = contextlib.suppress(AttributeError, KeyError, TypeError, ValueError)
"""A number where a mapping belongs, and the like, is for `check` to name once all is merged."""

TWIN = "-twin"
"""What a twin's name, and those of its reports, end with."""


def apply(name: str, params: Path = Path("params.yaml"), folder: Path = Path("scales")) -> list[str]:
    """Writes the values of `folder`/<name>.yaml into `params`; returns the keys whose value changed.

    Studies and datasets that the user has removed stay removed. Raises ParamsError for an unknown scale and as `write`.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ParamsError(f"unknown scale '{name}'.{suggestion(name, known)}")
    overlay = folder / f"{name}.yaml"
    load(overlay)  # for its errors
    values, settings = YAML().load(overlay.read_text()), load(params)
    with WRONG_KINDS:
        for section in ("study", "dataset"):
            for removed in values.get(section, {}).keys() - settings.get(section, {}).keys():
                del values[section][removed]
        for searched in (values.get("grid", {}), *values.get("tune", {}).values()):
            if isinstance(searched, Mapping) and "studies" in searched:
                searched["studies"] = [study for study in searched["studies"] if study in settings.get("study", {})]
    return _merged(values, params, overlay)


def write(overlay: Path, params: Path = Path("params.yaml")) -> list[str]:
    """Writes the values of the file `overlay` into `params`; returns the keys whose value changed.

    A mapping merges into the one in force, an empty one empties it, everything else replaces; new studies are listed
    in `studies`. Raises ParamsError if there is no such file or the result would not be valid; `params` then stays
    as it was.
    """
    load(overlay)
    return _merged(YAML().load(overlay.read_text()), params, overlay)


def add_twin(study: str, params: Path = Path("params.yaml")) -> list[str]:
    """Adds the study's twin to `params`: the same in everything but what its split keeps together.

    Returns the keys that were added; the report that shows both is `<table>-splits`. Raises ParamsError for an unknown
    study, or one that has its twin.
    """
    settings = check(load(params), params)
    if study not in settings.study:
        raise ParamsError(f"unknown study '{study}'.{suggestion(study, settings.study)}")
    twin = study + TWIN
    if twin in settings.study:
        raise ParamsError(f"{params}: study.{twin} is there already. Run `snakemake` for its reports.")
    raw = YAML().load(params.read_text())
    added = {
        "twins": {f"{settings.study[study].tables.variants}-splits": [study, twin]},
        "study": {twin: _twin_of(raw["study"][study])},
        "weights": {twin: copy.deepcopy(raw["weights"][study])},
    }
    return _merged(added, params, params)


def _twin_of(study: Any) -> Any:
    twin = copy.deepcopy(study)
    twin["split"]["by"] = {"image": "group", "group": "image"}[study["split"]["by"]]
    for kind in twin["tables"]:
        twin["tables"][kind] += TWIN
    return twin


def _merged(overlay: Mapping[str, Any], params: Path, source: Path) -> list[str]:
    """Merges `overlay` into the file `params`, which stays as it was if the result is not valid."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)  # as params.yaml is written
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    check(load(params), params)
    settings = yaml.load(params.read_text())
    changed: list[str] = []
    _merge(settings, overlay, "", changed)
    with WRONG_KINDS:
        _complete(settings, changed)
    if changed:
        text = io.StringIO()
        yaml.dump(settings, text)
        check(YAML(typ="safe").load(text.getvalue()), source)
        write_text(params, text.getvalue())
    return list(dict.fromkeys(changed))


def _complete(settings: Any, changed: list[str]) -> None:
    """Twins follow their study, to another scale for instance, and what is new is listed where the engines look."""
    for first, second in settings["twins"].values():
        if second == first + TWIN and first in settings["study"] and second in settings["study"]:
            _merge(settings["study"][second], _twin_of(settings["study"][first]), f"study.{second}.", changed)
    for key, known in (
        ("studies", settings["study"]),
        ("baseline_tables", _baseline_tables(settings["study"])),
    ):
        for name in known:
            if name not in settings[key]:
                settings[key].append(name)
                changed.append(key)


def _baseline_tables(studies: Mapping[str, Any]) -> list[str]:
    """The names that the studies give; a study that lacks one is for `check` to name."""
    return [study["tables"]["baselines"] for study in studies.values() if "baselines" in study.get("tables", {})]


def _merge(into: Any, overlay: Mapping[str, Any], prefix: str, changed: list[str]) -> None:
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and isinstance(into.get(key), Mapping) and into[key]:
            _merge(into[key], value, f"{path}.", changed)
        elif into.get(key) != value:
            changed.append(path)
            if isinstance(value, list) and isinstance(into.get(key), list):
                if not into[key]:
                    into[key].fa.set_flow_style()  # an empty list has forgotten its style
                into[key][:] = value  # in place, so that its style and comment stay
            else:
                into[key] = value
