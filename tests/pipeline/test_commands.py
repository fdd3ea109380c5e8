"""Every command reads the settings and runs the code that its stage declares: no more, or an edit would rerun too
much; no less, or it would rerun too little."""

from __future__ import annotations

import ast
import contextlib
import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from classroom.engines import graph
from classroom.params import FOLDERS
from support.studies import CLASSES_STUDY, ROOT, STUDY

# One stage of every kind.
STAGES = [
    "fetch@lgg", f"prepare@{STUDY}", f"split@{STUDY}", f"baseline@{STUDY}-student-0", f"train@{STUDY}-kd_ml-v3-0",
    f"train_offline@{STUDY}-kd_off-v1-0", f"grid@{STUDY}-ml-v3-0.2-0.3-0.5-0", f"method_segmentation@{STUDY}-emkd-0",
    f"tune_adversarial@{STUDY}-skd-0.1-0", f"evaluate_teacher@{STUDY}", f"evaluate_student@{STUDY}",
    f"evaluate@{STUDY}-ml-v3", f"evaluate_offline@{STUDY}-kd_off-v1", f"evaluate_methods_segmentation@{STUDY}",
    f"cka@{STUDY}-kd_ml-v3-0", f"cka_offline@{STUDY}-kd_off-v1-0", f"export_teacher@{STUDY}",
    f"export@{STUDY}-ensemble", f"measure@{STUDY}", "variants@table4", "fidelity@table12", "architecture@table7",
    "baselines@table2", "comparison@table10", "exchange@table1", "exchange@table5", "cost@cost", "deploy@deploy",
    f"grid_search@grid-{STUDY}", f"method_search@tune-{STUDY}", f"cka_table@cka-{STUDY}", "cka_figure@figure6",
    f"curves@curves-{STUDY}", f"agreement@agreement-{STUDY}", f"samples@samples-{STUDY}", "pictures@figure9", "site",
    "medical@table4-per-patient",
]  # fmt: skip

CLASSES_STAGES = [
    "fetch@ham10000", f"prepare@{CLASSES_STUDY}", f"train@{CLASSES_STUDY}-ml-v3-0",
    f"grid_offline@{CLASSES_STUDY}-kd_off-v1-0.2-0.3-0.5-0", f"evaluate@{CLASSES_STUDY}-ml-v3", "variants@table14",
    f"architecture@architecture-{CLASSES_STUDY}", "resplit@table14-splits",
    f"method_classification@{CLASSES_STUDY}-simkd-0", f"tune_classification@{CLASSES_STUDY}-sp-0.1-0",
    f"curves@curves-{CLASSES_STUDY}", "medical@table14-classes",
]  # fmt: skip

# Settings, types and messages, not results: see the head of dvc.yaml.
PLUMBING = {
    "__init__.py", "artifacts.py", "cli.py", "errors.py", "files.py", "git.py", "interrupts.py", "log.py", "params.py",
    "section.py", "state.py", "methods/registry.py", "progress.py", "devices.py", "places.py",
    "settings/plan.py", "reporting/registry.py",
}  # fmt: skip

NO_PYTHON = {"reporting/web"}

CODE_PACKAGES = ("data/readers/__init__.py", "data/synthetic/__init__.py")


@pytest.mark.parametrize(("tree", "names"), [("finished_once", STAGES), ("finished_studies", CLASSES_STAGES)])
def test_commands_use_what_their_stages_declare(
    tree: str, names: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In a copy without dvc.yaml, so that each command sees nothing but its own settings."""
    project = request.getfixturevalue(tree).copy(tmp_path / "project")
    with contextlib.chdir(project.root):
        stages = graph.load()
    (project.root / "dvc.yaml").unlink()
    complete = project.settings()
    commands = tmp_path / "commands.json"
    given = [(shlex.split(stages[name].command), declared_only(complete, stages[name].params)) for name in names]
    commands.write_text(json.dumps(given))
    printed = project.run("python", str(ROOT / "tests/support/declared.py"), str(commands))
    wrong = {}
    for name, loaded in zip(names, json.loads(printed.splitlines()[-1]), strict=True):
        if loaded is None:
            wrong[name] = "failed: a setting or a file that it reads is not declared"
            continue
        stage = stages[name]
        used = {str(Path(path).relative_to(project.root / "src/classroom")) for path in loaded}
        declared = {dep.removeprefix("src/classroom/") for dep in stage.dependencies if dep.startswith("src/")}
        used = {path for path in used if not path.startswith("engines/") and path not in PLUMBING}
        used = {path for path in used if not path.endswith("__init__.py") or path in declared}
        covered = {one: {path for path in used if f"{path}/".startswith(f"{one}/")} for one in declared}
        not_declared = used - set().union(*covered.values())
        not_used = {one for one, of in covered.items() if not of} - NO_PYTHON
        if not_declared or not_used:
            wrong[name] = {"not declared": not_declared, "not used": not_used}
    assert not wrong, wrong


def test_packages_hold_no_code_but_the_declared_ones() -> None:
    """Code in an __init__.py that no stage declares would change results without a rerun."""
    for path in (ROOT / "src/classroom").rglob("__init__.py"):
        if path.relative_to(ROOT / "src/classroom").as_posix() not in ("__init__.py", *CODE_PACKAGES):
            assert len(ast.parse(path.read_text()).body) == 1, path


def declared_only(complete: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The settings at these dotted keys, by the file that holds them."""
    kept: dict[str, Any] = {}
    for key in keys:
        source, target = complete, kept
        *above, last = key.split(".")
        for part in above:
            source, target = source[part], target.setdefault(part, {})
        target[last] = source[last]
    files = {
        f"{folder}/{name}.yaml": content
        for folder, block in FOLDERS.items()
        for name, content in kept.pop(block, {}).items()
    }
    return files | {"params.yaml": kept}
