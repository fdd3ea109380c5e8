"""`classroom scale`, `overlay`, `use`, `resplit`: write settings files, keeping comments, all files or none."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from classroom.errors import ParamsError, suggestion
from classroom.files import written_whole
from classroom.params import FOLDERS, NAME_RULE, is_name, load, read, refuse_older_layout
from classroom.settings.checks import check
from classroom.settings.plan import plan

RESPLIT = "-resplit"
"""Suffix of the names of a resplit study and its reports."""


def apply_scale(name: str, params: Path = Path("params.yaml"), folder: Path = Path("scales")) -> list[str]:
    """Writes the values of `folder`/<name>.yaml into the files of settings next to `params`.

    Studies and datasets that have no file are left out, and methods that a study's file does not have. Returns the keys
    whose value changed. Raises ParamsError for an unknown scale and as `apply_overlay`.
    """
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ParamsError(f"unknown scale '{name}'.{suggestion(name, known)}")
    return _apply(folder / f"{name}.yaml", params, new_files=False)


def apply_overlay(overlay: Path, params: Path = Path("params.yaml")) -> list[str]:
    """Writes the values of the file `overlay` into the files of settings next to `params`.

    Its keys are those of params.yaml; below `studies` and `datasets` are, by name, the contents of their files. A
    mapping merges into the current one, an empty one empties it, other values replace the old ones. A study without a
    file gets one and becomes active.

    Returns the keys whose value changed, with the file where that is not params.yaml. Raises ParamsError if there is no
    such file or the result would not be valid; all files then stay as they were.
    """
    return _apply(overlay, params, new_files=True)


def use(studies: Iterable[str], params: Path = Path("params.yaml")) -> list[str]:
    """Makes exactly these studies active. Raises ParamsError for one without a file, or that is not valid."""
    files = _Files(params)
    files.merge({"studies": list(dict.fromkeys(studies))})
    return files.write(params)


def add_study(
    name: str, dataset: Mapping[str, Any], study: Mapping[str, Any], keep: bool, params: Path = Path("params.yaml")
) -> list[str]:
    """Writes the files of a dataset and a study called `name`, and activates the study.

    Parameters
    ----------
    name
        of both
    dataset, study
        contents of their files
    keep
        whether the active studies stay active
    params
        params.yaml

    Returns
    -------
    list of str
        The keys that changed.

    Raises
    ------
    ParamsError
        If the result would not be valid; all files then stay as they were. The study may be active without a file
        before.
    """
    files = _Files(params)
    files.merge({"datasets": {name: dataset}, "studies": {name: study}})
    if not keep:
        files.merge({"studies": [name]})
    return files.write(params)


def resplit(study: str, params: Path = Path("params.yaml")) -> list[str]:
    """Adds a copy of a study that splits by group instead of by image, or the other way round, and activates both.

    The report that shows both is `<table>-splits`. Returns the keys that changed. Raises ParamsError for an unknown
    study, or one that has been resplit.
    """
    files = _valid_files(params)
    if study not in files.studies:
        raise ParamsError(f"unknown study '{study}'.{suggestion(study, files.studies)}")
    split = files.studies[study].get("split")
    if isinstance(split, Mapping) and split.get("by") == "given":
        raise ParamsError(
            f"studies/{study}.yaml: split.by: the splits are given by the dataset, so there is no other way to split "
            "it."
        )
    name = study + RESPLIT
    if name in files.studies:
        raise ParamsError(f"studies/{name}.yaml exists already. `classroom use {name}` activates it.")
    content = _shared(files.studies[study])
    reports = files.studies[study]["reports"]
    content["reports"] = {
        kind: reports[kind] + RESPLIT for kind in ("variants", "baselines", "fidelity", "architecture")
    }
    content["resplit"] = {"of": study, "report": f"{reports['variants']}-splits"}
    files.activate(study)
    files.merge({"studies": {name: content}})
    return files.write(params)


def _apply(overlay: Path, params: Path, new_files: bool) -> list[str]:
    refuse_older_layout(read(overlay), overlay)
    values = YAML().load(overlay.read_text(encoding="utf-8"))
    files = _valid_files(params)
    if not new_files:
        for folder, documents in files.documents.items():
            if isinstance(values.get(folder), Mapping):
                values[folder] = {
                    name: _known_methods(of, documents[name])
                    for name, of in values[folder].items()
                    if name in documents
                }
    try:
        files.merge(values)
    except ParamsError as error:
        raise ParamsError(f"{overlay}: {error}") from None
    return files.write(overlay)


def _valid_files(params: Path) -> _Files:
    """The files, checked first, so that a mistake after the change is the overlay's."""
    check(load(params), params)
    return _Files(params)


class _Files:
    """params.yaml and the files of studies and datasets, to be changed and written together."""

    def __init__(self, params: Path) -> None:
        self.params, self.root = params, params.parent
        self.settings = load(params)
        self.yaml = _yaml()
        self.main = self.yaml.load(params.read_text(encoding="utf-8"))
        self.documents = {
            folder: {
                name: self.yaml.load((self.root / folder / f"{name}.yaml").read_text(encoding="utf-8"))
                for name, content in self.settings[block].items()
                if not isinstance(content, ParamsError)  # of a study that is not active
            }
            for folder, block in FOLDERS.items()
        }
        self.changed: dict[Path, list[str]] = {}
        self.new: set[Path] = set()

    @property
    def studies(self) -> dict[str, Any]:
        return self.documents["studies"]

    def merge(self, values: Mapping[str, Any]) -> None:
        """Merges `values`, laid out as an overlay."""
        for key, value in values.items():
            if key in FOLDERS and isinstance(value, Mapping):
                for name, of in value.items():
                    self._merge_file(key, name, of)
            else:
                _merge(self.main, {key: value}, "", self.changed.setdefault(self.params, []))
        for name, study in self.studies.items():  # a resplit study follows its original, e.g. to another scale
            resplit = study.get("resplit")
            of = str(resplit.get("of")) if isinstance(resplit, Mapping) else ""
            if of in self.studies and of != name:
                self._merge_file("studies", name, _shared(self.studies[of]))

    def _merge_file(self, folder: str, name: str, values: Any) -> None:
        path, documents = self.root / folder / f"{name}.yaml", self.documents[folder]
        if not is_name(name):
            raise ParamsError(f"{folder}: {NAME_RULE}, not {name!r}")
        if not isinstance(values, Mapping):
            raise ParamsError(f"{folder}.{name}: should be a mapping, not {values!r}")
        if isinstance(unreadable := self.settings[FOLDERS[folder]].get(name), ParamsError):
            raise unreadable
        if name in documents:
            _merge(documents[name], values, "", self.changed.setdefault(path, []))
            return
        documents[name] = values
        self.new.add(path)
        self.changed[path] = list(values)
        if folder == "studies":
            self.activate(name)

    def activate(self, study: str) -> None:
        if study not in self.main["studies"]:
            _set_items(self.main["studies"], [*self.main["studies"], study])
            self.changed.setdefault(self.params, []).append("studies")

    def write(self, source: Path) -> list[str]:
        """Writes the files that changed, unless the result is not valid; `source` is what its error names."""
        texts = {path: self._dumped(path) for path, keys in self.changed.items() if keys}
        try:
            plan(check(self._settings(texts), self.params))  # two reports of one name are found by the plan alone
        except ParamsError as error:
            raise error if source == self.params else ParamsError(f"{source}: {error}") from None
        paths = sorted(texts, key=lambda path: path == self.params)  # last: its studies need files
        with written_whole(*paths) as temporary:
            for path, file in zip(paths, temporary, strict=True):
                file.write_text(texts[path], encoding="utf-8")
        return [
            key if path == self.params else f"{path.relative_to(self.root)}: {key}"
            for path, keys in self.changed.items()
            for key in dict.fromkeys(keys)
        ]

    def _dumped(self, path: Path) -> str:
        document = self.main if path == self.params else self.documents[path.parent.name][path.stem]
        text = io.StringIO()
        if path in self.new:
            text.write(f"# yaml-language-server: $schema=../workflow/schemas/{FOLDERS[path.parent.name]}.schema.json\n")
        self.yaml.dump(document, text)
        return text.getvalue()

    def _settings(self, texts: Mapping[Path, str]) -> dict[str, Any]:
        """Those of all files, once these `texts` are written."""
        settings = {key: value for key, value in self.settings.items() if key not in FOLDERS.values()}
        settings |= {block: dict(self.settings[block]) for block in FOLDERS.values()}
        safe = YAML(typ="safe")
        for path, text in texts.items():
            if path == self.params:
                settings |= safe.load(text)
            else:
                settings[FOLDERS[path.parent.name]][path.stem] = safe.load(text)
        return settings


def _yaml() -> YAML:
    """Reads and writes in the style of our files."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _shared(study: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `study` for its resplit study, with the split reversed."""
    values = {key: copy.deepcopy(value) for key, value in study.items() if key not in ("reports", "resplit")}
    if isinstance(split := values.get("split"), dict):
        split["by"] = {"image": "group", "group": "image"}.get(str(split.get("by")), split.get("by"))
    return values


def _known_methods(values: Any, document: Mapping[str, Any]) -> Any:
    """A scale's `values` for a study without the methods that its file does not have."""
    if not isinstance(values, Mapping) or not isinstance(methods := values.get("methods"), Mapping):
        return values
    known = {name: of for name, of in methods.items() if name in (document.get("methods") or {})}
    others = {key: value for key, value in values.items() if key != "methods"}
    return others | ({"methods": known} if known else {})  # an empty mapping would empty those of the file


def _merge(into: Any, overlay: Mapping[str, Any], prefix: str, changed: list[str]) -> None:
    for key, value in overlay.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and isinstance(into.get(key), Mapping) and into[key]:
            _merge(into[key], value, f"{path}.", changed)
        elif into.get(key) != value or (value is None and key not in into):
            changed.append(path)
            if isinstance(value, list) and isinstance(into.get(key), list):
                _set_items(into[key], value)
            else:
                into[key] = copy.deepcopy(value)


def _set_items(items: Any, values: list[Any]) -> None:
    """Replaces a list's items in place, which keeps its style and the empty line after it."""
    if not items:
        items.fa.set_flow_style()  # an empty list has forgotten its style
    after = items.ca.items.pop(len(items) - 1, None)
    items[:] = values
    if after and values:
        items.ca.items[len(values) - 1] = after
