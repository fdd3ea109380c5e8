"""The shape of the code: imports point one way, and what does not need torch does not load it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "classroom"

# From the top down: a package may import what stands below it.
LAYERS = [
    "cli", "engines", "export", "reporting", "analysis", "training", "methods", "distill", "networks", "data",
    "evaluation", "files", "params", "method_settings", "section", "errors", "artifacts",
]  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """The layers that a module imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("classroom"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return names & set(LAYERS)


def layer_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        return
    for imported in imports_of(path) - {layer}:
        assert LAYERS.index(imported) > LAYERS.index(layer), f"{layer} imports {imported}, which stands above it"


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "params",
        "evaluation.evaluate",
        "evaluation.grid",
        "data.prepare",
        "data.sources",
        "reporting.tables",
        "reporting.figures",
        "reporting.cka",
        "analysis.similarities",
        "engines.reconcile",
        "data.split",
        "export.predict",
        "export.measure",
        "reporting.deploy",
    ],
)
def test_torch_is_not_loaded_where_it_is_not_needed(module: str) -> None:
    """Evaluation, tables and pictures start in a moment and run where torch is not installed."""
    code = f"import sys, classroom.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


UNUSED = {
    "classroom.cli, typer.testing; typer.testing.CliRunner().invoke(classroom.cli.app, ['--help'])": (
        "torch", "pandas", "numpy", "pydantic", "ruamel", "rich",
    ),
    "classroom.cli, classroom.engines.receipts, classroom.params": ("torch", "pandas", "numpy", "sklearn"),
    "classroom.cli, classroom.engines.receipts, classroom.methods.make, classroom.training.progress, "
    "classroom.training.run": ("dvc", "snakemake", "sklearn", "scipy", "matplotlib", "onnx", "jinja2"),
}  # fmt: skip
"""What has no part in `classroom --help` and in a training; and what the threads of are limited before it is loaded."""


@pytest.mark.parametrize(("imports", "unused"), UNUSED.items(), ids=["help", "a job's start", "training"])
def test_what_starts_most_often_loads_nothing_that_it_does_not_use(imports: str, unused: tuple[str, ...]) -> None:
    """Each of these takes up to a second, and a study has hundreds of jobs."""
    code = f"import sys, {imports}\nsys.exit(' '.join(name for name in {unused} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, f"loaded without need: {done.stderr}"


def test_the_paper_s_numbers_are_in_one_place_only() -> None:
    """No printed number stands in code: 78.94 is a mean of Table 4, 86.93 one of Table 2."""
    for path in SOURCE.rglob("*.py"):
        for number in ("78.94", "86.93", "76.86", "80.12"):
            assert number not in path.read_text(), path


def test_the_lock_pins_every_dependency_of_the_project() -> None:
    """What pyproject.toml asks for is in the lock, in a version that satisfies it."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        locked[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["dev"], *extras["s3"], *extras["ssh"]):
        requirement = Requirement(text)
        if requirement.name == project["name"]:  # dev asks for the other two
            continue
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text


def test_the_schema_for_editors_is_generated_from_the_settings() -> None:
    import json

    from classroom.params import Params

    committed = json.loads((ROOT / "workflow/schemas/params.schema.json").read_text())
    assert committed == Params.model_json_schema(), "run: classroom schema > workflow/schemas/params.schema.json"
