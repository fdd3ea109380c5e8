"""What the modules of reports declare, compared with the stages that make them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from classroom.params import FOLDERS, check, load
from classroom.reporting import registry
from support.studies import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def keys_of(listed: list[Any]) -> Iterator[str]:
    """The dotted keys of a stage's params, with the templates of a report's settings."""
    for one in listed:
        for file, keys in (one if isinstance(one, dict) else {"params.yaml": [one]}).items():
            folder, _, name = file.removesuffix(".yaml").rpartition("/")
            above = f"{FOLDERS[folder]}.{name}" if folder else ""
            yield from (f"{above}.{key}".strip(".") for key in keys or [""])


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_stage_lists_the_settings_and_files_that_its_report_declares(kind: str) -> None:
    """A setting that DVC does not know of would change a report without a rerun; one too many rerun it for nothing."""
    stage, of_kind = STAGES[kind]["do"], registry.report(kind)
    known = {re.sub(r"\$\{(?:item\.)?(\w+)\}", r"{\1}", key) for key in keys_of(stage.get("params", []))}
    assert {key.replace("{key}", "{name}") for key in known} == set(of_kind.settings)
    files = [stage[group] for group in ("outs", "metrics", "plots") if group in stage]
    made = {file if isinstance(file, str) else next(iter(file)) for group in files for file in group}
    assert made == set(of_kind.outputs("${key}"))


def test_a_report_cannot_read_what_it_does_not_declare() -> None:
    request = registry.Request("own", {"study": "lgg"}, {"scale": "demo", "seeds": [1]}, ("scale",))
    assert request.scale == "demo"
    with pytest.raises(LookupError, match="own: its REPORT does not declare the setting 'seeds'"):
        _ = request.seeds


def settings() -> dict[str, Any]:
    """All studies active, one of them split both ways."""
    raw = copy.deepcopy(load(ROOT / "params.yaml"))
    again = copy.deepcopy(raw["study"]["lgg-resnet18"])
    kinds = ("variants", "baselines", "fidelity", "architecture")
    again["reports"] = {kind: f"{again['reports'][kind]}-resplit" for kind in kinds}
    again["resplit"] = {"of": "lgg-resnet18", "report": "splits"}
    raw["study"]["lgg-resnet18-resplit"] = again
    return raw | {"studies": list(raw["study"])}


def without(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The settings with nothing at this key; with another name, if the key must have one."""
    parts = key.split(".")
    if parts[0] == "study":
        for study in raw["study"].values():
            block = study["reports"] if parts[2] == "reports" else study
            if parts[-1] in ("variants", "baselines", "fidelity", "architecture"):
                block[parts[-1]] += "-other"
            else:
                block.pop(parts[-1], None)
    elif key == "grid.studies":
        raw["grid"]["studies"] = []
    else:
        raw["tune"][parts[1]]["studies"] = []
    return raw


ASKED_BY = {kind: set(registry.report(kind).asked_by) for kind in registry.KINDS}


@pytest.mark.parametrize("key", sorted(set().union(*ASKED_BY.values())))
def test_the_reports_that_a_setting_asks_for_are_those_that_the_reference_names(key: str) -> None:
    before, after = (registry.asked_for(check(raw)) for raw in (settings(), without(settings(), key)))
    assert {kind for kind in registry.KINDS if before[kind].keys() != after[kind].keys()} == {
        kind for kind, keys in ASKED_BY.items() if key in keys
    }
