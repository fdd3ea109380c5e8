"""Every job of dvc.yaml as it stands resolved today: command, settings, dependencies, outputs."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

from classroom.errors import ClassroomError, suggestion
from classroom.files import write_json
from classroom.params import dotted

HIDDEN = Path(".classroom")
"""Notes of the engines in the project's root: in neither git nor DVC, safe to delete."""


@dataclass(frozen=True)
class Stage:
    """One DVC stage, which is one Snakemake job."""

    name: str
    command: str
    params: tuple[str, ...]
    """Dotted keys of params.yaml."""
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def receipt(self) -> Path:
        """Where the job says what it did: among its outputs if it declares a receipt there."""
        declared = [Path(out) for out in self.outputs if Path(out).name == "receipt.json"]
        return declared[0] if declared else HIDDEN / "receipts" / f"{self.name}.json"


def load(root: Path = Path()) -> dict[str, Stage]:
    """All stages by name. Resolving takes DVC a second, so the result is kept until a setting or dvc.yaml changes.

    Raises ClassroomError if dvc.yaml cannot be resolved.
    """
    sources = [root / "dvc.yaml", root / "params.yaml", root / "workflow/plan.yaml"]
    try:
        key = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()
    except FileNotFoundError as error:
        raise ClassroomError(f"{error.filename}: no such file. Run this in the project's root.") from None
    except OSError as error:
        raise ClassroomError(f"{error.filename}: cannot be read ({error.strerror}). Bring the file back.") from None
    kept = root / HIDDEN / "plan.json"
    try:
        content = json.loads(kept.read_text())
        if content["key"] == key:
            return {entry["name"]: _stage(entry) for entry in content["stages"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    stages = _resolve(root)
    write_json(kept, {"key": key, "stages": [asdict(stage) for stage in stages.values()]})
    return stages


def maker_of(stages: dict[str, Stage], report: str) -> Stage:
    """The stage that makes a report, which may be named by any of its files or without an ending.

    Raises ClassroomError for an unknown one.
    """
    made = {Path(out).stem: stage for stage in stages.values() for out in stage.outputs if out.startswith("reports/")}
    if (name := Path(report).stem) not in made:
        raise ClassroomError(f"unknown report '{name}'.{suggestion(name, made)}")
    return made[name]


def downstream(stages: dict[str, Stage], changed: Iterable[str]) -> set[str]:
    """`changed` and every stage that stands on one of them, directly or not (dvc status names only the first)."""
    stale = set(changed) & stages.keys()
    made_by = makers(stages)
    for stage in in_order(stages):
        if not stale.isdisjoint(made_by[stage.name]):
            stale.add(stage.name)
    return stale


def upstream(stages: dict[str, Stage], names: Iterable[str]) -> list[Stage]:
    """The stages `names` and every one that they stand on, directly or not, in an order in which they can run."""
    needed = set(names)
    made_by = makers(stages)
    order = in_order(stages)
    for stage in reversed(order):
        if stage.name in needed:
            needed |= set(made_by[stage.name])
    return [stage for stage in order if stage.name in needed]


def makers(stages: dict[str, Stage]) -> dict[str, list[str]]:
    """By stage, the stages that make what it depends on; a dependency may be a folder of several stages' outputs."""
    maker = {out: stage.name for stage in stages.values() for out in stage.outputs}
    made = outputs_below(stages)
    return {
        stage.name: list(dict.fromkeys(maker[out] for dep in stage.dependencies for out in made.get(dep, ())))
        for stage in stages.values()
    }


def outputs_below(stages: dict[str, Stage]) -> dict[str, list[str]]:
    """Every output under its own path and under those of all folders that it lies in."""
    below: dict[str, list[str]] = defaultdict(list)
    for stage in stages.values():
        for out in stage.outputs:
            for place in (out, *(parent.as_posix() for parent in PurePosixPath(out).parents)):
                below[place].append(out)
    return below


def files_of(stage: Stage, below: dict[str, list[str]]) -> list[str]:
    """What a stage depends on; in place of a folder the other stages' outputs in it, by `below` (`outputs_below`)."""
    return [path for dependency in stage.dependencies for path in below.get(dependency, [dependency])]


def in_order(stages: dict[str, Stage]) -> list[Stage]:
    """Every stage after those it depends on."""
    return [stages[name] for name in TopologicalSorter(makers(stages)).static_order()]


def _stage(entry: dict) -> Stage:
    return Stage(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def _resolve(root: Path) -> dict[str, Stage]:
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from scmrepo.exceptions import SCMError

    try:
        repo = Repo(str(root))
        stages = {}
        for stage in repo.index.stages:
            if not stage.cmd:
                continue  # a file that someone has put under `dvc add`
            params = [
                dotted(dep.def_path, key)
                for dep in stage.deps
                if isinstance(dep, ParamsDependency)
                for key in (dep.params or [""])
            ]
            files = [dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)]
            outputs = [out.def_path for out in stage.outs]
            stages[stage.addressing] = Stage(stage.addressing, stage.cmd, tuple(params), tuple(files), tuple(outputs))
        repo.close()
    except (DvcException, SCMError) as error:
        hint = "Mend it, or bring it back with `git checkout dvc.yaml`."
        if not (root / ".git").exists():
            hint = "DVC works in a git repository: run `git init` here."
        raise ClassroomError(
            f"dvc.yaml cannot be resolved: {' '.join(str(error).split()).rstrip('.')}. {hint}"
        ) from None
    return stages
