"""Every command reads the settings and runs the code that its stage declares: no more, or an edit would rerun too
much; no less, or it would rerun too little."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import STUDY
from ruamel.yaml import YAML

from engines.conftest import Project

pytestmark = pytest.mark.engines

# One stage of every kind.
STAGES = [
    "fetch@lgg", f"prepare@{STUDY}", f"split@{STUDY}", f"baseline@{STUDY}-student-0", f"train@{STUDY}-kd_ml-v3-0",
    f"train_offline@{STUDY}-kd_off-v1-0", f"evaluate_baseline@{STUDY}-teacher", f"evaluate@{STUDY}-ml-v3",
    f"evaluate_offline@{STUDY}-kd_off-v1", "variants_table@table4", "baselines_table", f"samples@{STUDY}",
]  # fmt: skip

# Settings and messages, not results: see the head of dvc.yaml.
PLUMBING = {
    "__init__.py", "cli.py", "errors.py", "files.py", "params.py", "methods/names.py", "training/progress.py",
}  # fmt: skip

RUN = """
import sys
from classroom.cli import app
sys.argv = sys.argv[1:]
app(standalone_mode=False)
print("MODULES", *sorted(sys.modules[name].__file__ for name in sys.modules if name.split(".")[0] == "classroom"))
"""


@pytest.fixture(scope="module")
def stages(finished_once: Project) -> dict[str, dict[str, Any]]:
    finished_once.run("classroom", "reconcile")
    plan = json.loads((finished_once.root / ".classroom/plan.json").read_text())
    return {stage["name"]: stage for stage in plan["stages"]}


@pytest.fixture(scope="module")
def stripped_tree(finished_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project without dvc.yaml, so that each command sees nothing but its params.yaml."""
    project = finished_once.copy(tmp_path_factory.mktemp("stripped") / "project")
    (project.root / "dvc.yaml").unlink()
    return project


@pytest.mark.parametrize("name", STAGES)
def test_a_command_uses_what_its_stage_declares(name: str, stages: dict, stripped_tree: Project) -> None:
    stage, root = stages[name], stripped_tree.root
    complete = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(declared_only(complete, stage["params"]))
    try:
        printed = stripped_tree.run("python", "-c", RUN, *shlex.split(stage["command"]))
    finally:
        (root / "params.yaml").write_text(complete)

    package = root / "src/classroom"
    used = {str(Path(path).relative_to(package)) for path in printed.split("MODULES ")[1].split()}
    used = {path for path in used if not path.startswith("engines/") and path not in PLUMBING}
    used = {path for path in used if not path.endswith("__init__.py") or path == "data/readers/__init__.py"}
    declared = {dep.removeprefix("src/classroom/") for dep in stage["dependencies"] if dep.endswith(".py")}
    assert declared == used


def declared_only(complete: str, keys: list[str]) -> str:
    whole = YAML(typ="safe").load(complete)
    kept: dict[str, Any] = {}
    for key in keys:
        source, target = whole, kept
        *above, last = key.split(".")
        for part in above:
            source, target = source[part], target.setdefault(part, {})
        target[last] = source[last]
    return json.dumps(kept)  # JSON is YAML
