"""The shape of the code: imports point one way, and what does not need torch does not load it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from classroom.params import read
from support.studies import ROOT

SOURCE = ROOT / "src" / "classroom"

# From the top down: a package may import what stands below it.
LAYERS = [
    "cli", "forecast", "provenance", "settings", "engines", "export", "reporting", "places", "analysis", "restore",
    "evaluation", "speed", "training", "methods", "core", "data", "devices", "progress", "state", "files", "git",
    "slurm", "params", "section", "errors", "interrupts", "log", "artifacts",
]  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """The layers that a module imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("classroom"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("classroom.")}
    return names & set(LAYERS)


def layer_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_imports_point_downwards() -> None:
    upwards = [
        f"{path.relative_to(SOURCE)} imports {imported}, which is above it"
        for path in sorted(SOURCE.rglob("*.py"))
        for imported in imports_of(path) - {layer_of(path)}
        if layer_of(path) in LAYERS and LAYERS.index(imported) < LAYERS.index(layer_of(path))
    ]
    assert upwards == []


STARTS = {
    "what needs no torch": [
        ("typer.testing; typer.testing.CliRunner().invoke(classroom.cli.app, ['--help'])",
         "torch pandas numpy pydantic ruamel rich"),
        ("classroom.engines.manifest, classroom.engines.reconcile, classroom.params", "torch pandas numpy sklearn dvc"),
        ("classroom.reporting.registry as registry; [registry.report(kind) for kind in registry.KINDS]",
         "torch sklearn matplotlib dvc"),
        *((f"classroom.{module}", "torch") for module in (
            "engines.reconcile", "data.split", "data.prepare", "data.fetching.sources", "evaluation.evaluate",
            "evaluation.grid", "reporting.common.tables", "reporting.samples", "reporting.cka", "reporting.deploy",
            "analysis.similarities", "export.predict", "export.measure",
        )),
    ],
    "a training": [
        ("classroom.engines.manifest, classroom.training.make, classroom.progress, classroom.training.run",
         "dvc snakemake sklearn scipy matplotlib onnx jinja2"),
    ],
}  # fmt: skip
"""By what starts, what it imports one after the other, and what must not be loaded by then. A job's start follows
`classroom --help`; evaluation, tables and pictures follow that, and run where torch is not installed."""


@pytest.mark.parametrize("start", STARTS)
def test_what_starts_often_loads_nothing_that_it_does_not_use(start: str) -> None:
    """Loading torch or DVC takes up to seconds, and a study has hundreds of jobs."""
    code = f"""
import sys, classroom.cli
for imports, unused in {STARTS[start]}:
    exec("import " + imports)
    if loaded := [name for name in unused.split() if name in sys.modules]:
        sys.exit(f"{{imports}}: loads {{', '.join(loaded)}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_every_text_file_names_its_encoding() -> None:
    """Else the locale decides. Ruff's PLW1514 says so too, but only where it can infer that the object is a path."""
    nameless = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "write_text")
        and "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert nameless == []


def test_the_paper_s_numbers_are_in_one_place_only() -> None:
    """No printed number stands in code: 78.94 is a mean of Table 4, 86.93 one of Table 2."""
    numbers = "78.94", "86.93", "76.86", "80.12"
    assert [path for path in SOURCE.rglob("*.py") if any(number in path.read_text() for number in numbers)] == []


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


def test_the_files_of_settings_name_the_schema_that_they_follow() -> None:
    """Editors complete and check by it. Only the files of a kind have that kind's keys."""
    files = {"params": [ROOT / "params.yaml"], "study": ROOT.glob("studies/*"), "dataset": ROOT.glob("datasets/*")}
    for kind, paths in files.items():
        schema = ROOT / f"workflow/schemas/{kind}.schema.json"
        keys = json.loads(schema.read_text())["properties"]
        for path in paths:
            first = path.read_text().split("\n", 1)[0]
            named = first.removeprefix("# yaml-language-server: $schema=")
            assert (path.parent / named).resolve() == schema.resolve(), path
            assert set(read(path)) <= set(keys), path
