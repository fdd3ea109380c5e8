"""What the modules of reports declare, compared with the stages that make them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from classroom.params import FOLDERS
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
